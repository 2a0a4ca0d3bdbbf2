"""A camera's noise: what methods gain, from plans and from records. The plan `camera` asks what it brings to be told
the level at low frequencies, `camera-length` what the published length of a fit does."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from statistics import median

import numpy as np

from b2g.report.markup import table
from b2g.report.statistics import bootstrap
from b2g.runs.cost import spoken
from b2g.runs.plan import read_plan
from b2g.runs.record import Record

PLAN, LENGTH = "camera", "camera-length"


@dataclass(frozen=True)
class Gain:
    """``gain`` [dB] over the noisy pictures of a data set, one for each of them that was run.

    ``seconds``: of the CPU for one picture, the median; None where no record tells.
    """

    dataset: str
    label: str
    noisy: float
    gain: np.ndarray
    planned: int
    seconds: float | None = None


def gains(records, plan: str = PLAN) -> list[Gain]:
    """The rows, by data set in the plan's order; what has no record at all is left out."""
    known, planned = {record.id: record for record in records if record.done}, defaultdict(list)
    for task in read_plan(plan).tasks:
        asked = Record.of(task.run)
        planned[asked.dataset, asked.label].append(known.get(asked.id))
    rows = []
    for place, those in planned.items():
        done = [record for record in those if record is not None]
        if done:
            noisy = np.array([record.psnr_noisy for record in done])
            gain = np.array([record.psnr for record in done]) - noisy
            spent = [record.cpu_seconds for record in done if record.cpu_seconds]
            seconds = median(spent) if spent else None
            rows.append(Gain(*place, float(noisy.mean()), gain, len(those), seconds))
    return rows


def shown(rows: list[Gain]):
    """The table of ``rows``: mean gain, its 95 % interval, the least, and the time of a picture."""
    lines = []
    for row in rows:
        gain = bootstrap(row.gain)
        between = "–" if gain.low is None else f"{gain.low:+.2f} to {gain.high:+.2f}"
        number = f"{len(row.gain)} of {row.planned}" if len(row.gain) < row.planned else str(row.planned)
        lines.append((row.dataset, row.label, number, f"{row.noisy:.2f}", f"{gain.mean:+.2f}",
                      between, f"{row.gain.min():+.2f}", "–" if row.seconds is None else spoken(row.seconds)))  # fmt: skip
    header = ("set", "method", "pictures", "noisy, dB", "gain, dB", "95 %", "least, dB", "one CPU thread")
    return table(header, lines or [("none", *[None] * 7)], "Gain over the noisy picture, middle 256 x 256 pixels.")
