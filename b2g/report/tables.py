"""Tables 2 to 5 from records: beside each printed value what was measured here, and on how many pictures.

A table is one object; `layouts` turns it into HTML, CSV and LaTeX. A cell of a whole data set takes whole
pictures alone, and the paper's column B2G takes the paper's own settings alone. Nothing here runs anything.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass, field

from b2g import datasets
from b2g.errors import B2GError
from b2g.method import canonical_json
from b2g.report.columns import Column, columns_of
from b2g.report.printed import printed
from b2g.report.statistics import Interval, bootstrap, picture_means

NONE = Interval(None, None, None, 0)
NUMBERS = (2, 3, 4, 5)
EQUALS = "\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}"
SIGN = {"gaussian": f"σ{EQUALS}", "poisson": f"λ{EQUALS}"}
# MATLAB's ssim takes a colour array for a volume. The printed SSIMs of Set9 are mostly of that kind.
VOLUME = ("set9",)
# Data sets of real pairs that the paper's main tables do not have; shown in Table 5 once they have records.
BESIDE = {5: ("sidd_sample", "polyu", "cc")}


@dataclass(frozen=True)
class Row:
    """A data set, or a named part of it, at one level of noise; ``names`` are the pictures averaged."""

    title: str
    dataset: str
    noise: str
    level: float | str
    names: tuple[str, ...] = ()
    crop: str = ""


@dataclass(frozen=True)
class Cell:
    """What is known: the printed text, ours (``also``: the other SSIM) on n of ``total`` pictures, failures.

    ``seconds`` is the estimated CPU time of the ``missing`` runs, None where nothing like them was ever run.
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


@dataclass(frozen=True)
class Table:
    """A table of the paper: ``cells[row, column]``, and everything a reader must know to read it."""

    number: int
    metric: str
    rows: tuple[Row, ...]
    columns: tuple[Column, ...]
    cells: dict = field(repr=False)
    devices: str = ""

    def missing(self):
        """(runs, seconds, runs of unknown cost) that the whole-picture cells still lack."""
        lacking = [cell for (row, _), cell in self.cells.items() if not row.crop and cell.missing]
        return (sum(cell.missing for cell in lacking), sum(cell.seconds or 0.0 for cell in lacking),
                sum(cell.missing for cell in lacking if cell.seconds is None))

    def to_csv(self):
        """One line for each cell, as text."""
        from b2g.report.layouts import to_csv

        return to_csv(self)

    def to_latex(self):
        """A ``tabular`` with booktabs' rules, as text."""
        from b2g.report.layouts import to_latex

        return to_latex(self)

    def _repr_html_(self):
        from b2g.report.layouts import to_html

        return to_html(self)

    def __repr__(self):
        return self.to_csv()


def build(number, records, metric="psnr", names=None, levels=None, methods=None):
    """Table `number` of the paper from `records`.

    Parameters
    ----------
    number : 2, 3, 4 or 5
    records : list of Record
    metric : "psnr" (answer clipped to [0, 1], not rounded) or "ssim" (see `convention`)
    names, levels, methods : optional
        Only these data sets ("set9"), levels, and columns (by their titles: "B2G, faithful", "fast").
    """
    if number not in NUMBERS or metric not in ("psnr", "ssim"):
        raise B2GError(f"The paper's tables are 2 to 5, of psnr or ssim; not {number}, {metric!r}.")
    lines = printed(table=number)
    columns = columns_of(line.method for line in lines)
    columns = tuple(column for column in columns if methods is None or column.title in methods)
    rows = tuple(row for row in _rows(number, lines, records)
                 if (names is None or row.dataset in names) and (levels is None or row.level in levels))
    found = _Found(records)
    texts = {(line.our_dataset, _level(line.level), line.method): getattr(line, f"{metric}_text")
             for line in lines}
    cells = {}
    for row in rows:
        for column in columns:
            # The paper's values are means over whole pictures: a row of crops has none.
            text = "" if row.crop else texts.get((row.dataset, row.level, column.paper), "")
            cells[row, column] = found.cell(row, column, metric, text)
    return Table(number, metric, rows, columns, cells, found.devices(rows, columns))


def convention(metric, dataset):
    """The metrics of a record that stand for a printed one: its like first, then the other convention."""
    if metric == "psnr":
        return ("psnr",)
    both = ("ssim_2d", "ssim_matlab_volume")
    return both[::-1] if dataset in VOLUME else both


def _level(text):
    return float(text) if text.replace(".", "").isdigit() else text


def _rows(number, lines, records):
    """The paper's data sets, under each the crops that have records; then the sets beside the paper."""
    crops = defaultdict(set)
    for record in records:
        crops[record.dataset, record.noise, record.level].add(record.picture.partition("@")[2])
    for line in {line.row: line for line in lines}.values():
        name, noise, level = line.our_dataset, line.noise, _level(line.level)
        at, pictures = f"{SIGN.get(noise, '')}{line.level}", _pictures(name)
        yield Row(f"{line.dataset}, {at}", name, noise, level, pictures)
        for crop in sorted(crops[name, noise, level] - {""}, key=lambda text: int(text.split("+")[0])):
            where = "crops" if "+" in crop else "central crops"
            size = "×".join([crop.split("+")[0]] * 2)
            names = tuple(f"{picture}@{crop}" for picture in pictures)
            yield Row(f"{line.dataset}, {size} {where}, {at}", name, noise, level, names, crop)
    for name in BESIDE.get(number, ()):
        if crops[name, "real", 0.0]:
            yield Row(f"{name}, not in the paper's tables", name, "real", 0.0, _pictures(name))


def _pictures(dataset):
    """Names of a data set's pictures that have a clean one; none where the package has no such set."""
    known = [d.dataset for d in datasets.describe()]
    return tuple(name for name in datasets.names(dataset) if _has_clean(name)) if dataset in known else ()


def _has_clean(name):
    try:
        return bool(datasets.info(name, "clean"))
    except B2GError:
        return False  # a noisy picture without a reference cannot be scored


class _Found:
    """Records by what a cell asks for, and the costs that they teach."""

    def __init__(self, records):
        from b2g.runs.cost import Costs

        self.costs, self.groups = Costs(records), defaultdict(list)
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
                    _circumstances(records), self._seconds(method, missing), runnable=True)

    def _seconds(self, method, missing):
        """Expected CPU seconds of all missing runs, each size estimated once; None where unknown."""
        sizes = Counter(height * width for height, width in map(datasets.size, missing))
        costs = [(self.costs.seconds(method, size), count) for size, count in sizes.items()]
        return None if any(cost is None for cost, _ in costs) else sum(cost * count for cost, count in costs)

    def devices(self, rows, columns):
        groups = (self.of(row, column)[1].values() for row in rows for column in columns)
        return _circumstances([record for group in groups for some in group for record in some])


def _circumstances(records):
    """Runs counted by device and precision: ``cpu bfloat16 n=5, cuda bfloat16 n=4``."""
    kinds = {(record.picture, record.level, canonical_json(record.settings)):
             f"{record.device.partition(':')[0]} {record.precision}".strip()
             for record in records if record.state == "done"}
    return ", ".join(f"{kind} n={count}" for kind, count in sorted(Counter(kinds.values()).items()))
