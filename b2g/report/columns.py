"""The columns of the paper's tables: which configured method fills which, and which stand beyond them."""

from dataclasses import dataclass

from b2g.errors import B2GError
from b2g.methods import METHODS


@dataclass(frozen=True)
class Column:
    """A method as a table has it.

    ``paper`` is its name in the paper's tables, None beyond the paper; ``method`` and ``profile`` say how it
    is configured here, None where the package has it not. ``sigma``: ``"given"`` tells the method the true
    level where the noise is Gaussian (elsewhere it estimates one), ``"estimated"`` is the column beside it.
    Where the noise is Poisson's, a method that works from the noise level is told so,
    and counts the photons itself.
    """

    title: str
    paper: str | None = None
    method: str | None = None
    profile: str | None = None
    sigma: str = ""
    note: str = ""

    def configured(self, noise, level):
        """The method with all its settings at this noise; None where it is absent or has no column."""
        if self.method not in METHODS or self.profile not in (None, *METHODS[self.method].profiles):
            return None
        if self.sigma == "estimated" and noise != "gaussian":
            return None  # the column of the given sigma holds the estimate already
        told = {name: float(level) if value == "given" else value for name, value in self.told(noise).items()}
        return METHODS[self.method].profile(self.profile, **told)

    def told(self, noise):
        """The settings that this noise adds to the profile's, as a plan writes them (``"given"``:
        the level)."""
        if self.sigma == "given" and noise == "gaussian":
            return {"sigma": "given"}
        plain = METHODS[self.method].profile(self.profile)
        # A network that hides pixels learns under any independent noise; the others need to know its kind.
        knows = noise == "poisson" and getattr(plain, "input", "") != "masked" and _takes_poisson(plain)
        return {"noise": "poisson"} if knows else {}


def _takes_poisson(method):
    """Whether a method can be told that the noise is Poisson noise."""
    try:
        return method.changed(noise="poisson") != method
    except B2GError:
        return False


# How the paper's columns are filled. A printed method that is not here has its printed value alone.
FILLED = {
    "BM3D": [Column("BM3D", "BM3D", "bm3d", "official", "given", "told the true sigma of Gaussian noise")],
    "S2S": [Column("S2S", "S2S", "self2self", "official")],
    "ZS-N2N": [Column("ZS-N2N", "ZS-N2N", "zs_n2n", "official")],
    "B2G": [
        Column("B2G, paper", "B2G", "b2g", "paper", note="the paper to the letter"),
        Column("B2G, faithful", "B2G", "b2g", "faithful", note="all of the paper, in readings that train"),
    ],
}
BEYOND = (
    Column("masked", None, "b2g", "masked", note="the network without dual mask and gradient term"),
    Column("fast", None, "b2g", "fast", note="a network that mends NL-Ridge's answer, fitted to recorruptions"),
    Column("best", None, "b2g", "best", note="the same from LIChI's answer, wider and longer"),
    Column("consensus", None, "consensus", "fast",
           note="the weighted mean of the fast network and a patch-based denoiser"),
    Column("consensus, best", None, "consensus", "best", note="the same, with LIChI at the numbers of its paper"),
    Column("LIChI", None, "lichi", "opponent", note="in opponent colours, sigma estimated from the picture"),
    Column("NL-Ridge", None, "nl_ridge", "opponent", note="in opponent colours, sigma estimated from the picture"),
    Column("S2S, short", None, "self2self", "short", note="4000 steps at ten times the published rate"),
    Column("BM3D, blind", None, "bm3d", "official", "estimated", "sigma estimated from the picture"),
)


GROUPS = ("in the paper and here", "ours, beyond the paper", "in the paper only")


def group_of(column):
    """Which of `GROUPS` a column belongs to."""
    return GROUPS[1] if column.paper is None else GROUPS[0] if column.method else GROUPS[2]


def columns_of(papers):
    """The columns of a table whose printed methods are `papers`: by group, then in the paper's order."""
    inside = [column for name in dict.fromkeys(papers) for column in FILLED.get(name, [Column(name, name)])]
    every = inside + [column for column in BEYOND if column.method in METHODS]
    return sorted(every, key=lambda column: GROUPS.index(group_of(column)))
