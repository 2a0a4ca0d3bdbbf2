"""The one exception that users of the package are meant to see."""


class B2GError(ValueError):
    """Bad input: its message is one sentence that names the input and the mend."""


class Diverged(B2GError):
    """A fit whose loss or estimate stopped being finite."""
