"""The readings that claims are judged by, and the pictures of a data set: what tables,
ablations and verdicts share.

``faithful`` and ``paper`` decide. ``letter`` is the paper's reading at a schedule that trains in a few
hundred steps: it is shown beside them and decides nothing. No other profile has a name here, so none can
enter.
"""

from __future__ import annotations

from functools import cache

from b2g import datasets
from b2g.errors import B2GError
from b2g.method import Method
from b2g.methods import METHODS

DECIDING = ("faithful", "paper")
# What "letter" changes of the profile paper: the schedule, the width, and the averaging that goes with them.
SCHEDULE = {"steps": 400, "learning_rate": 4e-3, "width": 24, "head": (32, 16), "answer": "average"}
READINGS = {"faithful": ("faithful", {}), "paper": ("paper", {}), "letter": ("paper", SCHEDULE)}


def configured(reading: str, changes: dict | None = None, steps: int | None = None) -> Method:
    """B2G in a reading, with the settings that a claim varies;
    ``steps`` shortens the faithful reading alone."""
    if reading not in READINGS:
        raise B2GError(f"there is no reading {reading!r}: claims are judged on {', '.join(READINGS)}.")
    changes = dict(changes or {})
    own = sorted(set(changes) & set(SCHEDULE)) if reading != "faithful" else []
    if own:
        raise B2GError(f"the reading {reading!r} fixes {', '.join(own)}: a claim may not change its schedule.")
    profile, fixed = READINGS[reading]
    if reading == "faithful" and steps:
        fixed = {"steps": steps}
    return METHODS["b2g"].profile(profile, **fixed, **changes)


def rival(reading: str, changes: dict, steps: int | None, level: float) -> Method | None:
    """The other side: another method ({"method": "bm3d", "sigma": "given"}),
    or the reading with other settings.

    None where the package has no such method.
    """
    changes = dict(changes)
    name = changes.pop("method", None)
    if name is None:
        return configured(reading, changes, steps)
    if name == "b2g":
        raise B2GError("a profile of b2g is no rival: name settings of the reading instead.")
    if changes.get("sigma") == "given":
        changes["sigma"] = float(level)
    return METHODS[name].profile(**changes) if name in METHODS else None


@cache
def identity(method: Method) -> str:
    """The settings of a method as its records hold them."""
    return method.identity()


def words(changes: dict) -> str:
    """A side of a comparison in words."""
    changes = dict(changes)
    name = changes.pop("method", "")
    rest = ", ".join(f"{key} {value}" for key, value in changes.items())
    return f"{name} ({rest})" if name and rest else name or rest or "as it is"


@cache
def pictures(where: str) -> tuple[str, ...]:
    """The pictures that have a clean one of a data set ("set9"), or their central crops ("set9@64")."""
    name, _, crop = where.partition("@")
    if name not in {d.dataset for d in datasets.describe()}:
        return ()
    return tuple(f"{each}@{crop}" if crop else each for each in datasets.names(name) if _scorable(each))


def _scorable(name: str) -> bool:
    try:
        return bool(datasets.info(name, "clean"))
    except B2GError:
        return False
