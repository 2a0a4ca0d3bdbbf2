"""What every page of the book does alike: check its parameters, pick its budget, state a verdict."""

import ast
import html
import os
from dataclasses import dataclass

from b2g.errors import B2GError

BUDGETS = ("smoke", "try", "full")


def check_parameters(namespace, **known):
    """Refuse a parameter that the notebook does not have, or a value it cannot take.

    papermill only warns of an unknown name, so that a typo would silently run the defaults. Call this in
    the cell after the one tagged ``parameters``.

    Parameters
    ----------
    namespace : dict
        The notebook's ``globals()``.
    **known
        Each parameter of the notebook with the type it has, or with the tuple of values it may take.

    Raises
    ------
    B2GError
        Naming the first parameter that is unknown, missing, or of the wrong kind.

    Examples
    --------
    >>> check_parameters({"budget": "try", "seed": 0}, budget=("smoke", "try", "full"), seed=int)
    """
    names = ", ".join(known)
    for name in _injected(namespace.get("In", ())):
        if name not in known:
            raise B2GError(f"There is no parameter {name!r} here: this notebook has {names}.")
    for name, allowed in known.items():
        if name not in namespace:
            raise B2GError(f"The parameter {name!r} has no value: set it in the cell tagged 'parameters'.")
        _check_value(name, namespace[name], allowed)


def _injected(history):
    """Names assigned in the cells that papermill injected, told by papermill's own first line."""
    for source in history:
        if source.startswith("# Parameters\n"):
            for statement in ast.parse(source).body:
                yield from (target.id for target in getattr(statement, "targets", ()))


def _check_value(name, value, allowed):
    if isinstance(allowed, tuple) and not isinstance(allowed[0], type):
        if value not in allowed:
            choices = ", ".join(map(repr, allowed))
            raise B2GError(f"The parameter {name!r} is {value!r}, but must be one of {choices}.")
        return
    kinds = allowed if isinstance(allowed, tuple) else (allowed,)
    if float in kinds:
        kinds += (int,)
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        words = " or ".join(kind.__name__ for kind in kinds)
        raise B2GError(f"The parameter {name!r} is {value!r}, but must be of type {words}.")


@dataclass(frozen=True)
class Budget:
    """How much a page may compute: ``smoke`` (tests), ``try`` (the book; a CPU), ``full`` (a GPU)."""

    name: str

    def pick(self, smoke, try_, full):
        """The value that belongs to this budget.

        >>> Budget("try").pick(2, 200, 4000)
        200
        """
        return {"smoke": smoke, "try": try_, "full": full}[self.name]


def budget(name="try"):
    """The page's budget: the environment's ``B2G_BUDGET`` if set, else the parameter's value `name`."""
    name = os.environ.get("B2G_BUDGET") or name
    if name not in BUDGETS:
        raise B2GError(f"The budget is {name!r}, but must be one of {', '.join(map(repr, BUDGETS))}.")
    return Budget(name)


def glue(name, text):
    """Keep `text` under `name` for ``{glue:text}`` in the page's prose; without MyST-NB, do nothing.

    Takes formatted text only, since a NumPy scalar would print its type's name into the sentence.
    """
    if not isinstance(text, str):
        raise B2GError(f"glue({name!r}, ...) takes formatted text, such as f'{{value:.2f}}', "
                       f"but got a {type(text).__name__}.")
    try:
        from myst_nb import glue as keep
    except ImportError:
        return
    keep(name, text, display=False)


# White on each of these has a contrast of at least 4.5. The three last are verdicts on the paper's claims.
_WORDS = {True: ("holds", "#1a7f37"), False: ("does not hold", "#b42318"), None: ("not judged", "#57606a"),
          "part": ("holds in part", "#8a5a00"), "missing": ("not yet enough runs", "#0860ca"),
          "untestable": ("cannot be tested here", "#6639ba")}


@dataclass(frozen=True)
class Verdict:
    """A statement that a cell has just checked, and what came out: True, False,
    None or a key of ``_WORDS``."""

    label: str
    holds: bool | str | None
    detail: str = ""

    def __repr__(self):
        return f"{_WORDS[self.holds][0]}: {self.label}" + (self.detail and f" ({self.detail})")

    @property
    def badge(self):
        """The outcome alone, as a coloured word."""
        word, colour = _WORDS[self.holds]
        # The colours stand here as well as in the book's stylesheet, for Jupyter and Colab have none of it.
        return (f'<span class="b2g-badge" style="background:{colour};color:#fff;padding:.1em .6em;'
                f'border-radius:.8em;font-size:.85em;font-weight:600;white-space:nowrap">{word}</span>')

    def _repr_html_(self):
        detail = f' <span style="opacity:.75">{html.escape(self.detail)}</span>' if self.detail else ""
        return (f'<p class="b2g-verdict" style="margin:.4em 0">{self.badge} '
                f"{html.escape(self.label)}{detail}</p>")


def verdict(label, holds, detail="", must_hold=False):
    """Show whether a statement holds, as a badge with its words.

    Parameters
    ----------
    label : str
        The statement, in words that are true or false: "(3.4) vanishes when both outputs agree".
    holds : bool-like or None
        What the cell found; None where the budget is too small to tell: "not judged".
    detail : str
        The measured value behind it, formatted.
    must_hold : bool
        Raise B2GError if it does not hold: for what is proved, so that the tests of the book see it break.

    Returns
    -------
    bool or None
    """
    from IPython.display import display

    found = Verdict(label, None if holds is None else bool(holds), detail)
    display(found)
    if must_hold and found.holds is False:
        raise B2GError(f"This must hold: {label}" + (f" ({detail})." if detail else "."))
    return found.holds
