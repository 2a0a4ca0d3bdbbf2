"""What a run costs, told by the records of runs like it: "a missing cell says what it would cost"."""

from __future__ import annotations

import json
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
    """The optimiser steps that the cost grows with; 1 of a method that fits nothing, whatever it calls its steps."""
    return settings["steps"] if hasattr(METHODS.get(settings["method"]), "objective") else 1


class Costs:
    """CPU (or GPU) seconds of runs, learned from ``records``: linear in pixels (Eq. 3.15) and in steps."""

    def __init__(self, records: Iterable[Record], device: str = "cpu"):
        self._exact: dict[str, list[tuple[int, float]]] = {}
        self._method: dict[str, list[tuple[int, float]]] = {}
        for record in records:
            spent = record.cpu_seconds if device == "cpu" and record.cpu_seconds else record.seconds
            if record.done and record.watch != "training" and record.device.startswith(device) and spent:
                size = pixels(record.picture)
                rate = size, spent / (size * steps(record.settings))
                self._exact.setdefault(kind(record.settings), []).append(rate)
                self._method.setdefault(record.method, []).append(rate)

    def seconds(self, method: Method, size: int) -> float | None:
        """Expected seconds of ``method`` on ``size`` pixels; None where nothing like it was ever run.

        Taken from the runs nearest in size, since small pictures cost more a pixel.
        """
        settings = json.loads(method.identity())
        known = self._exact.get(kind(settings)) or self._method.get(method.name)
        if not known:
            return None
        nearest = min(abs(other - size) for other, _ in known)
        rate = median(rate for other, rate in known if abs(other - size) == nearest)
        return rate * size * steps(settings)

    def of_tasks(self, tasks) -> tuple[float, int]:
        """Expected seconds of all tasks, and how many of them nothing is known about."""
        costs = [self.seconds(task.run.configured(), pixels(task.run.picture)) for task in tasks]
        return sum(cost for cost in costs if cost is not None), sum(cost is None for cost in costs)


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
