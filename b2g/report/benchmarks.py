"""What the benchmarks stored in data/records/ (cost by size, achieved over floor, side by side),
and what plans need.

cost.csv is written by ``benchmarks/memory.py``, floor.csv by ``benchmarks/floor.py --store``,
side_by_side.csv by ``benchmarks/side_by_side.py --store``; every row names its machine.
"""

import csv
import math
from collections import Counter, defaultdict
from dataclasses import dataclass, fields

import numpy as np

from b2g.errors import B2GError
from b2g.files import carried
from b2g.report.statistics import Interval
from b2g.runs.cost import Costs, pixels
from b2g.runs.plan import plan_names, read_plan

_POSITIVE = ("size", "whole_seconds", "ms", "floor_ms", "fused_floor_ms", "pictures", "alone", "together")
LINEAR = (0.8, 1.2)  # an exponent in here counts as 1, as in the verdict on Eq. 3.15


@dataclass(frozen=True)
class Cost:
    """A row of cost.csv: ``method`` on ``size`` x ``size`` pixels in colour, in tiles of side ``tile`` (0:
    whole).

    ``whole_seconds`` are those of all ``all_steps`` steps, told from ``steps`` of them (0: the method has
    none), of the processor on a CPU, of the clock on a GPU. Memory in MB of 2^20 bytes: before the run, at
    its peak, and on the GPU.
    """

    method: str
    size: int
    tile: int
    device: str
    machine: str
    precision: str
    threads: int
    steps: int
    all_steps: int
    whole_seconds: float
    start_mb: float
    peak_mb: float
    cuda_mb: float | None

    @property
    def per_megapixel(self):
        """Seconds a million pixels."""
        return self.whole_seconds / (self.size**2 / 1e6)

    @property
    def memory(self):
        """MB that the run added to those held before it; on a GPU those allocated there."""
        return self.peak_mb - self.start_mb if self.cuda_mb is None else self.cuda_mb


@dataclass(frozen=True)
class Floor:
    """A row of floor.csv: an optimiser step against the machine's ceilings,
    as written and fused (:mod:`b2g.floor`)."""

    profile: str
    size: int
    channels: int
    engine: str
    device: str
    machine: str
    precision: str
    threads: int
    gflop: float
    mb_as_written: float
    ms: float
    floor_ms: float
    fused_floor_ms: float
    peak_gflops: float
    bandwidth_gbs: float

    @property
    def over_floor(self):
        return self.ms / self.floor_ms

    @property
    def over_fused_floor(self):
        return self.ms / self.fused_floor_ms


@dataclass(frozen=True)
class SideBySide:
    """A row of side_by_side.csv: seconds a picture fitted ``alone``,
    and ``together`` with the others of a stack."""

    method: str
    profile: str
    pictures: int
    size: int
    channels: int
    how: str
    device: str
    machine: str
    precision: str
    threads: int
    steps: int
    alone: float
    together: float

    @property
    def times(self):
        """How many times as many pictures a second."""
        return self.alone / self.together


FILES = {Cost: "cost.csv", Floor: "floor.csv", SideBySide: "side_by_side.csv"}


def stored(kind, folder=None):
    """The rows of a benchmark's file as `Cost`, `Floor` or `SideBySide`; none where there is no file.

    Raises B2GError for a row without a machine, with a number that is none, or with a column missing.
    """
    path = (carried("records") if folder is None else folder) / FILES[kind]
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [_row(kind, row, number) for number, row in enumerate(csv.DictReader(file), start=2)]


def _row(kind, row, number):
    where = f"data/records/{FILES[kind]}, line {number}"
    absent = [f.name for f in fields(kind) if row.get(f.name) is None]
    if absent:
        raise B2GError(f"{where} has no {', '.join(absent)}; let the benchmark write the file anew.")
    values = {f.name: _value(f, row[f.name], where) for f in fields(kind)}
    if not values["machine"]:
        raise B2GError(f"{where} names no machine, so its times say nothing; let the benchmark write it anew.")
    return kind(**values)


def _value(f, text, where):
    if f.type is str:
        return text
    if f.type == float | None and not text:
        return None
    try:
        value = int(text) if f.type is int else float(text)
    except ValueError:
        raise B2GError(f"{where}: {f.name} is {text!r}, which is no number; let the benchmark write it anew.") from None
    if not (math.isfinite(value) and value >= 0 and (value > 0 or f.name not in _POSITIVE)):
        raise B2GError(f"{where}: {f.name} is {text}, which cannot be; let the benchmark write it anew.")
    return value


def grouped(rows, *names):
    """{(machine and how it was used, further fields): rows sorted by size}, in order."""
    groups = defaultdict(list)
    for row in rows:
        where = row.device.partition(":")[0], row.machine, row.precision, row.threads
        groups[where, *(getattr(row, name) for name in names)].append(row)
    return {key: sorted(groups[key], key=lambda row: row.size) for key in sorted(groups)}


def exponent(rows):
    """The exponent b of seconds ~ pixels^b by least squares in logarithms, with Student's 95 % interval.

    ``rows`` are `Cost` of one method and machine; None for one size, no interval for two.
    """
    x = np.log([row.size**2 for row in rows])
    y = np.log([row.whole_seconds for row in rows])
    if len(set(x)) < 2:
        return Interval(None, None, None, len(x))
    if len(x) == 2:
        return Interval(float((y[1] - y[0]) / (x[1] - x[0])), None, None, 2)
    from scipy.stats import linregress, t

    found = linregress(x, y)
    reach = float(t.ppf(0.975, len(x) - 2) * found.stderr)
    return Interval(float(found.slope), float(found.slope) - reach, float(found.slope) + reach, len(x))


@dataclass(frozen=True)
class Left:
    """What a plan still needs: its runs, those without a record, their seconds,
    and how many have no known cost."""

    name: str
    title: str
    total: int
    missing: int
    seconds: float
    unknown: int


def left(records, names=None, device="cpu"):
    """`Left` of the plans called ``names`` (all that there are),
    priced by the runs on ``device`` in ``records``."""
    costs, finished = Costs(records, device), {record.id for record in records}
    found = []
    for name in names or plan_names():
        plan = read_plan(name)
        missing = plan.missing(finished)
        kinds = Counter((task.run.method, pixels(task.run.picture)) for task in missing)
        one = {}
        for task in missing:  # a thousand runs of one kind are priced once
            one.setdefault((task.run.method, pixels(task.run.picture)), task)
        prices = {kind: costs.seconds(task.run.configured(), kind[1]) for kind, task in one.items()}
        seconds = sum(count * prices[kind] for kind, count in kinds.items() if prices[kind] is not None)
        unknown = sum(count for kind, count in kinds.items() if prices[kind] is None)
        found.append(Left(name, plan.title, len(plan.tasks), len(missing), seconds, unknown))
    return found
