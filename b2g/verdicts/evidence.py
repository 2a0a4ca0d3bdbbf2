"""What the claims are judged by: stored runs, found by the exact settings of the readings that count."""

from __future__ import annotations

from collections import defaultdict

from b2g import datasets
from b2g.errors import B2GError
from b2g.method import Method, canonical_json
from b2g.report import records as stored
from b2g.report.readings import configured, identity, pictures
from b2g.runs.cost import Costs
from b2g.verdicts.judgement import LEAST, Wanted


class Evidence:
    """The stored runs and histories, ready for the questions of the tests."""

    def __init__(self, runs=(), histories=None, costs=None):
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
        """The runs to make next: those of the pictures nearest to complete,
        up to ``least`` pictures or else all."""
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
