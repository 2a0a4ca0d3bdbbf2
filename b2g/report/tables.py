"""Tables 2 to 5 from records: beside each printed value what was measured here, and on how many pictures.

A table is one object; `layouts` turns it into HTML, CSV and LaTeX. A cell of a whole data set takes whole
pictures alone, and the paper's column B2G takes the paper's own settings alone. Nothing here runs anything.
"""

import json
from collections import defaultdict
from dataclasses import dataclass, field

from b2g.errors import B2GError
from b2g.report import layouts
from b2g.report.cells import Found, Row
from b2g.report.columns import Column, columns_of
from b2g.report.printed import printed
from b2g.report.readings import pictures

NUMBERS = (2, 3, 4, 5)
EQUALS = "\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}"
SIGN = {"gaussian": f"σ{EQUALS}", "poisson": f"λ{EQUALS}"}
# Noise whose other data sets get rows of their own under a table, once they have records.
BESIDE = {4: "poisson", 5: "real"}
# Sets that the package has by name, but not the same pictures: its Planaria are two published figures.
ABSENT = ("planaria", "sidd")
STAND_INS = {"hanzi": " (stand-in font)", "set14": " (its 12 in colour)"}


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

    def blocks(self, repeats=(0,), profile=None, pictures=None):
        """What a plan (`b2g.runs.plan.make_plan`) needs to fill the whole-picture cells, as its blocks.

        `repeats` are the draws of noise and weights; `profile` chooses one profile of b2g and nothing else;
        `pictures` takes the first so many of each data set.
        """
        for (row, column), cell in self.cells.items():
            chosen = profile is None or (column.method, column.profile) == ("b2g", profile)
            if chosen and cell.runnable and not row.crop:
                name = f"{column.method}/{column.profile}" if column.profile else column.method
                yield {"pictures": list(row.names[:pictures]), "noise": row.noise, "levels": [row.level],
                       "repeats": list(repeats), "methods": [{name: column.told(row.noise)}]}

    def to_csv(self):
        """One line for each cell, as text."""
        return layouts.to_csv(self)

    def to_latex(self):
        """A ``tabular`` with booktabs' rules, as text."""
        return layouts.to_latex(self)

    def _repr_html_(self):
        return layouts.to_html(self)

    def __repr__(self):
        return self.to_csv()


def build(number, records, metric="psnr", names=None, levels=None, methods=None, device="cpu"):
    """Table `number` of the paper from `records`.

    Parameters
    ----------
    number : 2, 3, 4 or 5
    records : list of Record
    metric : "psnr" (answer clipped to [0, 1], not rounded) or "ssim" (see `convention`)
    names, levels, methods : optional
        Only these data sets ("set9"), levels, and columns (by their titles: "B2G, faithful", "fast").
    device : "cpu" or "cuda"
        Where the missing runs would be carried out: their price is told by the runs that were made there.
    """
    if number not in NUMBERS or metric not in ("psnr", "ssim"):
        raise B2GError(f"The paper's tables are 2 to 5, of psnr or ssim; not {number}, {metric!r}.")
    lines = printed(table=number)
    columns = columns_of(line.method for line in lines)
    columns = tuple(column for column in columns if methods is None or column.title in methods)
    rows = tuple(row for row in _rows(number, lines, records)
                 if (names is None or row.dataset in names) and (levels is None or row.level in levels))
    found = Found(records, device)
    texts = {(line.our_dataset, level_of(line.level), line.method): getattr(line, f"{metric}_text")
             for line in lines}
    cells = {}
    for row in rows:
        for column in columns:
            # The paper's values are means over whole pictures of its sets: no other row has one.
            text = "" if row.crop or row.beside else texts.get((row.dataset, row.level, column.paper), "")
            cells[row, column] = found.cell(row, column, metric, text)
    # Crops of other studies have runs, but none of a column's.
    rows = tuple(row for row in rows if not (row.crop or row.beside)
                 or any(cells[row, column].ours.n or cells[row, column].failed for column in columns))
    cells = {key: cell for key, cell in cells.items() if key[0] in rows}
    return Table(number, metric, rows, columns, cells, found.devices(rows, columns))


def pairs(made, records, reference="BM3D"):
    """(row, column, Interval) of the paired PSNR differences to column `reference`, from two pictures on."""
    found = Found(records)
    others = {column.title: column for column in made.columns}
    base = others.pop(reference, None)
    for row in made.rows if base else ():
        for column in others.values():
            gain = found.gain(row, column, base)
            if gain.n > 1:
                yield row, column, gain


def chosen(value, allowed, what):
    """A page's list of names, from a list or from the text of papermill's ``-p``; empty means all.

    >>> chosen('["set9"]', ("set9", "kodak24"), "data set")
    ['set9']
    """
    value = json.loads(value) if isinstance(value, str) and value.startswith("[") else value
    value = value if isinstance(value, list) else [value]
    for name in value:
        if name not in allowed:
            raise B2GError(f"There is no {what} {name!r} here: choose from {', '.join(map(str, allowed))}.")
    return value or list(allowed)


def level_of(text):
    """A printed level as a number; the column's words in Table 5."""
    return float(text) if text.replace(".", "").isdigit() else text


def _rows(number, lines, records):
    """The paper's data sets, under each the crops that have records; then sets that are not in the paper."""
    crops = defaultdict(set)
    for record in records:
        crops[record.dataset, record.noise, record.level].add(record.picture.partition("@")[2])
    for line in {line.row: line for line in lines}.values():
        name, noise, level = line.our_dataset, line.noise, level_of(line.level)
        words = line.dataset + STAND_INS.get(name, "")
        names = pictures(name) if name not in ABSENT else ()
        yield Row(f"{words}, {SIGN.get(noise, '')}{line.level}", name, noise, level, names)
        if name not in ABSENT:
            yield from _crops(words, (name, noise, level), crops[name, noise, level] - {""})
    for (name, noise, level), found in sorted(crops.items()):
        if noise == BESIDE.get(number):
            words, at = f"{name}, not in the paper", f", {SIGN[noise]}{level:g}" if noise in SIGN else ""
            if "" in found:
                yield Row(words + at, name, noise, level, pictures(name), beside=True)
            yield from _crops(words, (name, noise, level), found - {""}, beside=True)


def _crops(words, place, found, beside=False):
    """Rows of a data set's crops, each size on its own."""
    name, noise, level = place
    at = f", {SIGN[noise]}{level:g}" if noise in SIGN else ""
    for crop in sorted(found, key=lambda text: int(text.split("+")[0])):
        where = "crops" if "+" in crop else "central crops"
        size = "×".join([crop.split("+")[0]] * 2)
        names = pictures(f"{name}@{crop}")
        yield Row(f"{words}, {size} {where}{at}", name, noise, level, names, crop, beside)
