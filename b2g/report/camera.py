"""A camera's noise: what methods gain that are told its level, from the plan `camera` and from records."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from b2g.report.markup import table
from b2g.report.statistics import bootstrap
from b2g.runs.plan import read_plan
from b2g.runs.record import Record

PLAN = "camera"


@dataclass(frozen=True)
class Gain:
    """``gain`` [dB] over the noisy pictures of a data set, one for each of them that was run."""

    dataset: str
    label: str
    noisy: float
    gain: np.ndarray
    planned: int


def gains(records) -> list[Gain]:
    """The rows, by data set in the plan's order; what has no record at all is left out."""
    known, found, planned = {record.id: record for record in records}, {}, {}
    for task in read_plan(PLAN).tasks:
        record = known.get(task.run.id)
        place = Record.of(task.run).dataset, Record.of(task.run).label
        planned[place] = planned.get(place, 0) + 1
        if record is not None and record.done:
            found.setdefault(place, []).append(record)
    rows = [
        Gain(*place, float(np.mean([record.psnr_noisy for record in those])),
             np.array([record.psnr - record.psnr_noisy for record in those]), planned[place])
        for place, those in found.items()
    ]  # fmt: skip
    return sorted(rows, key=lambda row: [*planned].index((row.dataset, row.label)))


def shown(rows: list[Gain]):
    """The table of ``rows``: mean gain, its 95 % interval, and the least."""
    lines = []
    for row in rows:
        gain = bootstrap(row.gain)
        between = "–" if gain.low is None else f"{gain.low:+.2f} to {gain.high:+.2f}"
        number = f"{len(row.gain)} of {row.planned}" if len(row.gain) < row.planned else str(row.planned)
        lines.append((row.dataset, row.label, number, f"{row.noisy:.2f}", f"{gain.mean:+.2f}",
                      between, f"{row.gain.min():+.2f}"))  # fmt: skip
    header = ("set", "method", "pictures", "noisy, dB", "gain, dB", "95 %", "least, dB")
    return table(header, lines or [("none", *[None] * 6)], "Gain over the noisy picture, middle 256 x 256 pixels.")
