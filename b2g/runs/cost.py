"""What a run costs, told by the records of runs like it: "a missing cell says what it would cost"."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from statistics import median

from b2g import datasets
from b2g.method import Method, canonical_json
from b2g.methods import METHODS
from b2g.runs.record import Record

# These change the number of steps or numbers inside one step, not its cost.
_FREE = ("steps", "learning_rate", "decay", "decay_from", "omega", "gamma", "sigma", "average", "revision",
         "standout_threshold", "detail_threshold", "masked")  # fmt: skip


def pixels(picture: str) -> int:
    """Pixels of a picture or a crop, from the manifest."""
    height, width = datasets.size(picture)
    return height * width


def kind(settings: dict) -> str:
    """What runs of one cost a step and pixel have in common."""
    return canonical_json({key: value for key, value in settings.items() if key not in _FREE})


def steps(settings: dict) -> int:
    """The optimiser steps that the cost grows with; 1 of a method that fits nothing,
    whatever it calls its steps."""
    return settings["steps"] if hasattr(METHODS.get(settings["method"]), "objective") else 1


class Costs:
    """CPU (or GPU) seconds of runs, learned from ``records``: linear in steps,
    and in pixels a power of its own.

    The power is that between the two sizes nearest to the one that is asked for, from 0 (a method whose steps
    look at windows of one size) to 1, which Eq. 3.15 says; 1 where runs of one size are all there is.
    """

    def __init__(self, records: Iterable[Record], device: str = "cpu"):
        self._exact: dict[str, list[tuple[int, float]]] = {}
        self._method: dict[str, list[tuple[int, float]]] = {}
        for record in records:
            spent = record.cpu_seconds if device == "cpu" and record.cpu_seconds else record.seconds
            if record.done and record.watch != "training" and record.device.startswith(device) and spent:
                size = pixels(record.picture)
                rate = size, spent / steps(record.settings)
                self._exact.setdefault(kind(record.settings), []).append(rate)
                self._method.setdefault(record.method, []).append(rate)

    def seconds(self, method: Method, size: int) -> float | None:
        """Expected seconds of ``method`` on ``size`` pixels; None where nothing like it was ever run."""
        settings = json.loads(method.identity())
        known = self._exact.get(kind(settings)) or self._method.get(method.name)
        if not known:
            return None
        by_size = {other: median(rate for at, rate in known if at == other) for other, _ in known}
        near = sorted(by_size, key=lambda other: abs(math.log(other / size)))[:2]
        return by_size[near[0]] * (size / near[0]) ** _power(by_size, near) * steps(settings)

    def of_tasks(self, tasks) -> tuple[float, int]:
        """Expected seconds of all tasks, and how many of them nothing is known about."""
        costs = [self.seconds(task.run.configured(), pixels(task.run.picture)) for task in tasks]
        return sum(cost for cost in costs if cost is not None), sum(cost is None for cost in costs)


def _power(seconds: dict[int, float], sizes: list[int]) -> float:
    """How the seconds grow with the pixels between two sizes;
    1 of sizes so near that the answer would be chance."""
    if len(sizes) < 2 or max(sizes) < 2 * min(sizes):
        return 1.0
    first, second = sizes
    return min(1.0, max(0.0, math.log(seconds[second] / seconds[first]) / math.log(second / first)))


def estimate_seconds(method: Method, size: int, records: Iterable[Record], device: str = "cpu") -> float | None:
    """Expected seconds of one run of ``method`` on ``size`` pixels; see :class:`Costs`."""
    return Costs(records, device).seconds(method, size)


def spoken(seconds: float) -> str:
    """A duration in one word and number: ``40 s``, ``25 min``, ``3.5 h``, ``12 days``."""
    for unit, size, limit in (("s", 1, 100), ("min", 60, 6000), ("h", 3600, 48 * 3600)):
        if seconds < limit:
            value = seconds / size
            return f"{value:.1f} {unit}" if unit == "h" and value < 10 else f"{value:.0f} {unit}"
    return f"{seconds / 86400:.0f} days"
