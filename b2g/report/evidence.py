"""What the claims are judged by: stored runs, found by the exact settings of the readings that count.

``faithful`` and ``paper`` decide. ``letter`` is the paper's reading at a schedule that trains in a few hundred
steps: it is shown beside them and decides nothing. No other profile has a name here, so none can enter.
"""

from __future__ import annotations

from collections import defaultdict
from functools import cache

from b2g import datasets
from b2g.errors import B2GError
from b2g.method import Method, canonical_json
from b2g.methods import METHODS
from b2g.report import records as stored
from b2g.report.judgement import LEAST, Wanted

DECIDING = ("faithful", "paper")
# What "letter" changes of the profile paper: the schedule, the width, and the averaging that goes with them.
SCHEDULE = {"steps": 400, "learning_rate": 4e-3, "width": 24, "head": (32, 16), "answer": "average"}
READINGS = {"faithful": ("faithful", {}), "paper": ("paper", {}), "letter": ("paper", SCHEDULE)}


def configured(reading: str, changes: dict | None = None, steps: int | None = None) -> Method:
    """B2G in a reading, with the settings that a claim varies; ``steps`` shortens the faithful reading alone."""
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
    """The other side: another method ({"method": "bm3d", "sigma": "given"}), or the reading with other settings.

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


class Evidence:
    """The stored runs and histories, ready for the questions of the tests."""

    def __init__(self, runs=(), histories=None, costs=None):
        from b2g.runs.cost import Costs

        runs = list(runs)
        self.histories, self.by_settings = histories or {}, defaultdict(list)
        self.costs = Costs(runs) if costs is None else costs
        for record in runs:
            self.by_settings[canonical_json(record.settings)].append(record)

    @classmethod
    def stored(cls) -> "Evidence":
        """What lies in data/records/; empty where there is nothing yet."""
        try:
            return cls(stored.runs(), stored.histories())
        except B2GError:
            return cls()

    def runs(self, method: Method, names, noise: str = "gaussian", level: float = 25.0) -> list:
        """The done runs of a configured method on pictures at a level, noise not clipped, sorted by id."""
        wanted = set(names)
        return [record for record in self.by_settings.get(identity(method), ())
                if record.state == "done" and record.picture in wanted and record.noise == noise
                and record.level == float(level) and record.protocol != "clipped"]

    def failures(self, method: Method, names, noise: str, level: float) -> list[str]:
        """The states of the runs that failed and were not done otherwise: "diverged", "out of memory"."""
        return [record.state for record in self._failed(method, names, noise, level)]

    def _failed(self, method, names, noise, level) -> list:
        done = {record.picture for record in self.runs(method, names, noise, level)}
        return [record for record in self.by_settings.get(identity(method), ())
                if record.state != "done" and record.picture in set(names) - done and record.noise == noise
                and record.level == float(level)]

    def shortage(self, sides, names, noise: str, level: float, n: int, least: int) -> tuple[Wanted, ...]:
        """The runs to make next: those of the pictures nearest to complete, up to ``least`` pictures or else all."""
        open_: dict[str, list[Method]] = {name: [] for name in names}
        for side in sides:
            there = {record.picture for record in self.runs(side, names, noise, level)}
            for record in self._failed(side, names, noise, level):
                open_.pop(record.picture, None)  # a failed run is not repeated: this picture stays incomplete
            for name in open_.keys() - there:
                open_[name].append(side)
        short = sorted((name for name in open_ if open_[name]), key=lambda name: len(open_[name]))
        return tuple(Wanted(identity(side), name, noise, float(level), self._seconds(side, name))
                     for name in short[: least - n if n < least else None] for side in open_[name])

    def _seconds(self, method: Method, name: str) -> float | None:
        height, width = datasets.size(name)
        return self.costs.seconds(method, height * width)

    def watched(self, reading: str, where: str, levels, steps: int | None = None) -> list[tuple]:
        """(record, history) of the done runs of a reading that kept the quantities of a training."""
        method, names = configured(reading, None, steps), pictures(where)
        return [(record, self.histories[record.id]) for level in levels
                for record in self.runs(method, names, "gaussian", level)
                if record.watch == "training" and self.histories.get(record.id)]

    def unwatched(self, reading, where, levels, steps, n: int, least: int) -> tuple[Wanted, ...]:
        """The watched runs to make next: further pictures, up to ``least`` or else all."""
        method = configured(reading, None, steps)
        there = {record.picture for record, _ in self.watched(reading, where, levels, steps)}
        names = [name for name in pictures(where) if name not in there]
        return tuple(Wanted(identity(method), name, "gaussian", float(level), self._seconds(method, name))
                     for name in names[: least - n if n < least else None] for level in levels)


def enough_pictures(names, least: int = LEAST) -> bool:
    """Whether a data set at hand could decide anything at all."""
    return len(names) >= least
