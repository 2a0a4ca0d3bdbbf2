"""A camera's noise: what methods gain that are told its level, from the plan `camera` and from records."""

from __future__ import annotations

from collections import defaultdict
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
    known, planned = {record.id: record for record in records if record.done}, defaultdict(list)
    for task in read_plan(PLAN).tasks:
        asked = Record.of(task.run)
        planned[asked.dataset, asked.label].append(known.get(asked.id))
    rows = []
    for place, those in planned.items():
        done = [record for record in those if record is not None]
        if done:
            noisy = np.array([record.psnr_noisy for record in done])
            gain = np.array([record.psnr for record in done]) - noisy
            rows.append(Gain(*place, float(noisy.mean()), gain, len(those)))
    return rows


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
