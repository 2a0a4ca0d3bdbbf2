"""The cells of the paper's tables: which records belong to one, and what they say."""

from collections import Counter, defaultdict
from dataclasses import dataclass

from b2g import datasets
from b2g.method import canonical_json
from b2g.report.statistics import Interval, bootstrap, paired, picture_means

NONE = Interval(None, None, None, 0)
# MATLAB's ssim takes a colour array for a volume. The printed SSIMs of Set9 are mostly of that kind.
VOLUME = ("set9",)


@dataclass(frozen=True)
class Row:
    """A data set, or a named part of it, at one level of noise; ``names`` are the pictures averaged.

    ``beside``: the paper has no such data set.
    """

    title: str
    dataset: str
    noise: str
    level: float | str
    names: tuple[str, ...] = ()
    crop: str = ""
    beside: bool = False


@dataclass(frozen=True)
class Cell:
    """What is known: the printed text, ours (``also``: the other SSIM) on n of ``total`` pictures, failures.

    ``seconds`` is the estimated time of the ``missing`` runs, None where nothing like them was ever run.
    """

    text: str = ""
    ours: Interval = NONE
    also: Interval = NONE
    total: int = 0
    missing: int = 0
    failed: tuple[str, ...] = ()
    circumstances: str = ""
    seconds: float | None = None
    runnable: bool = False

    @property
    def printed(self):
        """The printed value as a number, None where the paper has a dash or no such column."""
        return float(self.text) if self.text else None

    @property
    def whole(self):
        """True where every picture was measured: only then is the mean the like of the printed one."""
        return self.total > 0 and self.ours.n == self.total

    @property
    def difference(self):
        """Ours minus printed, where both are means of the same whole pictures."""
        return self.ours.mean - self.printed if self.whole and self.printed is not None else None


def convention(metric, dataset):
    """The metrics of a record that stand for a printed one: its like first, then the other convention."""
    if metric == "psnr":
        return ("psnr",)
    both = ("ssim_2d", "ssim_matlab_volume")
    return both[::-1] if dataset in VOLUME else both


class Found:
    """Records by what a cell asks for, and the costs that they teach."""

    def __init__(self, records, device="cpu"):
        from b2g.runs.cost import Costs

        self.costs, self.groups = Costs(records, device), defaultdict(list)
        for record in records:
            if record.protocol != "clipped":
                asked = record.picture, record.noise, record.level, canonical_json(record.settings)
                self.groups[asked].append(record)

    def of(self, row, column):
        """{picture: records} of one cell, or None where the package has no such method."""
        method = column.configured(row.noise, row.level) if row.names else None
        if method is None:
            return None, {}
        settings = method.identity()
        asked = {name: (name, row.noise, row.level, settings) for name in row.names}
        return method, {name: self.groups.get(key, []) for name, key in asked.items()}

    def cell(self, row, column, metric, text):
        method, found = self.of(row, column)
        if method is None:
            return Cell(text, total=len(row.names))
        records = [record for group in found.values() for record in group]
        ours, *also = (bootstrap(picture_means(records, name).values())
                       for name in convention(metric, row.dataset))
        failed = Counter(f"{group[0].state}: {group[0].reason}" for group in found.values()
                         if group and not any(record.state == "done" for record in group))
        missing = [name for name, group in found.items() if not group]
        total = len(row.names)
        return Cell(text, ours, also[0] if also else NONE, total, len(missing),
                    tuple(f"{count} of {total} {why}" for why, count in failed.items()),
                    circumstances_of(records), self._seconds(method, missing), runnable=True)

    def _seconds(self, method, missing):
        """Expected CPU seconds of all missing runs, each size estimated once; None where unknown."""
        sizes = Counter(height * width for height, width in map(datasets.size, missing))
        costs = [(self.costs.seconds(method, size), count) for size, count in sizes.items()]
        return None if any(cost is None for cost, _ in costs) else sum(cost * count for cost, count in costs)

    def gain(self, row, column, other):
        """The paired PSNR differences of two columns on the pictures of one row: their mean and interval."""
        sides = [self.of(row, each)[1].values() for each in (column, other)]
        first, second = ([record for group in groups for record in group] for groups in sides)
        return bootstrap(paired(first, second)[1])

    def devices(self, rows, columns):
        groups = (self.of(row, column)[1].values() for row in rows for column in columns)
        return circumstances_of([record for group in groups for some in group for record in some])


def circumstances_of(records):
    """Runs counted by device and precision: ``cpu bfloat16 n=5, cuda bfloat16 n=4``."""
    kinds = {(record.picture, record.level, canonical_json(record.settings)):
             f"{record.device.partition(':')[0]} {record.precision}".strip()
             for record in records if record.state == "done"}
    return ", ".join(f"{kind} n={count}" for kind, count in sorted(Counter(kinds.values()).items()))
