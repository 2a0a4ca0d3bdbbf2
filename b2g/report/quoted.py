"""Figures that other papers print for the same methods and data, and which cells of the paper are theirs.

data/quoted.csv names for each figure its source and table, and what its method was trained on. Methods that
the paper compares bear the paper's name for them, the others their own. The file is not complete: a cell
without a counterpart may come from a paper that is not in it.
"""

import csv
from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from b2g.report import records
from b2g.report.printed import ONE_PICTURE, Printed

NEAR = 0.1  # dB: as close as two careful runs of one method come
# From the closest to the farthest.
STATUSES = ("equal", "PSNR equal, SSIM not", "SSIM equal, PSNR near", "near", "different")
# What a method that answers from the one noisy picture alone is trained on.
ALONE = ("nothing", "one picture")


@dataclass(frozen=True)
class Quoted:
    """A figure of another paper. ``psnr_text`` [dB]; ``ssim_text`` is "" where the source gives none."""

    source: str
    table: str
    dataset: str
    noise: str
    level: str
    method: str
    psnr_text: str
    ssim_text: str
    trained_on: str

    @property
    def psnr(self):
        return float(self.psnr_text)

    @property
    def words(self):
        return f"{self.psnr_text}/{self.ssim_text}" if self.ssim_text else self.psnr_text

    @property
    def place(self):
        return self.dataset, self.noise, self.level


COLUMNS = ("source", "table", "dataset", "noise", "level", "method", "psnr_db", "ssim", "trained_on")


@cache
def quoted():
    """All figures of data/quoted.csv, as a tuple of Quoted."""
    with records._stored("quoted.csv").open(newline="", encoding="utf-8") as file:
        return tuple(
            Quoted(*(row[name] for name in COLUMNS)) for row in csv.DictReader(file))


class Origin(NamedTuple):
    """A cell, the figure of another paper that comes closest to it, and how close: one of STATUSES."""

    cell: Printed
    quote: Quoted
    status: str


def status(cell, quote):
    """How close two figures are: the first of STATUSES that is true.

    "equal" asks for the same digits, of the SSIM as well where the source prints one; "near" for a PSNR
    within `NEAR`.
    """
    if cell.psnr_text == quote.psnr_text:
        return STATUSES[0] if quote.ssim_text in ("", cell.ssim_text) else STATUSES[1]
    if abs(cell.psnr - quote.psnr) > NEAR + 1e-9:
        return STATUSES[4]
    return STATUSES[2] if quote.ssim_text == cell.ssim_text else STATUSES[3]


def _by_place(cells, quotes):
    """Pairs (cell, figures that other papers print for the same data and noise)."""
    there = defaultdict(list)
    for quote in quotes:
        there[quote.place].append(quote)
    for cell in cells:
        if cell.psnr is not None and (cell.dataset, cell.noise, cell.level) in there:
            yield cell, there[cell.dataset, cell.noise, cell.level]


def origins(cells, quotes):
    """For each cell whose method another paper prints on the same data and noise: the closest such figure."""
    found = []
    for cell, there in _by_place(cells, quotes):
        same = [quote for quote in there if quote.method == cell.method]
        if same:
            best = min(same, key=lambda quote: (STATUSES.index(status(cell, quote)),
                                                abs(cell.psnr - quote.psnr)))
            found.append(Origin(cell, best, status(cell, best)))
    return found


def renamed(cells, quotes):
    """Cells whose PSNR and SSIM are those of *another* method in another paper, and of that method's only."""
    found = []
    for cell, there in _by_place(cells, quotes):
        full = [quote for quote in there if quote.ssim_text and status(cell, quote) == "equal"]
        if full and not any(quote.method == cell.method for quote in full):
            found.append(Origin(cell, full[0], "equal"))
    return found


def not_alone(cells, quotes):
    """Cells in the zero-shot columns that equal a figure of a method trained on other pictures.

    Table 5 groups its methods in another way, and is left out.
    """
    return [origin for origin in _taken_from_others(cells, quotes) if origin.cell.table != 5]


def _taken_from_others(cells, quotes):
    return [origin for origin in origins(cells, quotes)
            if origin.cell.method in ONE_PICTURE and origin.status == "equal"
            and origin.quote.trained_on not in ALONE]


def above_supervision(cells, quotes):
    """Cells of one-picture methods above the best figure quoted, for the same data, of a network that was
    trained on clean pictures. The quoted network need not be the best there is.
    """
    found, taken = [], {origin.cell for origin in _taken_from_others(cells, quotes)}
    for cell, there in _by_place(cells, quotes):
        supervised = [quote for quote in there if quote.trained_on == "clean pictures"]
        if supervised and cell.method in ONE_PICTURE and cell not in taken:
            best = max(supervised, key=lambda quote: quote.psnr)
            if cell.psnr > best.psnr:
                found.append(Origin(cell, best, f"{cell.psnr - best.psnr:+.2f} dB"))
    return found
