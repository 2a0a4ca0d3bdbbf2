"""What the paper says of its own tables, checked against their cells: ranks, underlines, sentences.

The sentences are given in our words with their place in the text; each check uses printed cells only.
"""

from collections import Counter, defaultdict
from typing import NamedTuple

from b2g.report.printed import MANY_PICTURES, ONE_PICTURE, Printed

METRICS = ("psnr", "ssim")


class Rank(NamedTuple):
    """The methods with the largest and with the second largest value of a metric in one row of a table."""

    row: tuple
    metric: str
    first: tuple
    second: tuple


def ranks(cells, metric="psnr"):
    """First and second place of every row, ties shared: the second place is the next smaller *value*."""
    found = []
    for row, group in _rows(cells, metric).items():
        values = sorted({getattr(cell, metric) for cell in group}, reverse=True) + [None]
        first, second = (tuple(cell.method for cell in group if getattr(cell, metric) == value)
                         for value in values[:2])
        found.append(Rank(row, metric, first, second))
    return found


def _rows(cells, metric):
    rows = defaultdict(list)
    for cell in cells:
        if getattr(cell, metric) is not None:
            rows[cell.row].append(cell)
    return rows


def places(cells, method, metric="psnr"):
    """How often `method` is "first", "first, shared", "second" and "behind", as a Counter."""
    counts = Counter()
    has = {cell.row for cell in cells if cell.method == method and getattr(cell, metric) is not None}
    for rank in (rank for rank in ranks(cells, metric) if rank.row in has):
        if method in rank.first:
            counts["first" if len(rank.first) == 1 else "first, shared"] += 1
        else:
            counts["second" if method in rank.second else "behind"] += 1
    return counts


class WrongMark(NamedTuple):
    """An underlined figure that is not the second largest of its row, and the methods that are second."""

    cell: Printed
    metric: str
    second: tuple


def wrong_marks(cells):
    """Underlined figures that are not in second place."""
    second = {(rank.row, rank.metric): rank.second for metric in METRICS for rank in ranks(cells, metric)}
    return [WrongMark(cell, metric, second[cell.row, metric]) for cell in cells for metric in METRICS
            if getattr(cell, f"{metric}_underlined") and cell.method not in second[cell.row, metric]]


class Margin(NamedTuple):
    """How far the first cell lies above the second, in one row and metric (dB or SSIM)."""

    cell: Printed
    other: Printed
    metric: str
    margin: float


def margins(cells, method, others, metric="psnr"):
    """`method` against each of `others` in every row that has both."""
    found = []
    for group in _rows(cells, metric).values():
        by_name = {cell.method: cell for cell in group}
        found += [Margin(by_name[method], by_name[other], metric,
                         round(getattr(by_name[method], metric) - getattr(by_name[other], metric), 6))
                  for other in others if method in by_name and other in by_name]
    return found


class Said(NamedTuple):
    """A sentence of the text in our words, where it stands, whether the cells bear it out, and which."""

    words: str
    where: str
    holds: bool
    detail: str
    rows: list


def sentences(cells, method="B2G"):
    """The checked sentences of Section 5; `rows` holds the cells that decide, those against it first."""
    two_three = [cell for cell in cells if cell.table in (2, 3)]
    rivals = ("BM3D", *(name for name in ONE_PICTURE if name != method))
    return [
        _above(two_three, method, rivals, "psnr",
               "Ours is above BM3D and every one-picture method in every row of Tables 2 and 3, by PSNR"),
        _above(two_three, method, rivals, "ssim",
               "Ours is above BM3D and every one-picture method in every row of Tables 2 and 3, by SSIM"),
        _a_few(two_three, method),
        *(_poisson(cells, method, level) for level in ("30", "50")),
        _above([cell for cell in cells if cell.table == 5], method, rivals, "psnr",
               "Ours is above MASH and the other one-picture methods on SIDD, raw and sRGB, by PSNR",
               "Section 5, Table 5"),
        _groups(cells),
    ]


def _above(cells, method, others, metric, words, where="Section 5, Tables 2 and 3"):
    rows = sorted(margins(cells, method, others, metric), key=lambda row: row.margin)
    least = rows[0]
    unit = "dB" if metric == "psnr" else "SSIM"
    detail = (f"smallest margin {least.margin:+.{2 if metric == 'psnr' else 3}f} {unit}, over "
              f"{least.other.method} on {least.cell.dataset} at {least.cell.level}")
    return Said(words, where, least.margin > 0, detail, rows)


def _a_few(cells, method):
    rows = [row for row in margins(cells, method, MANY_PICTURES) if row.margin < 0]
    sets = sorted({row.cell.dataset for row in rows})
    return Said("Ours is below Ne2Ne or N2N on a few data sets, by PSNR", "Section 5, Tables 2 and 3",
                0 < len(sets) <= len({cell.dataset for cell in cells}) / 2,
                f"in {len(rows)} comparisons, on {', '.join(sets) or 'none'}", rows)


def _poisson(cells, method, level, stated=0.29):
    there = [cell for cell in cells if cell.noise == "poisson" and cell.level == level]
    rows = [row for metric in METRICS for row in margins(there, method, ("N2N",), metric)]
    psnr, ssim = (row.margin for row in rows)
    return Said(f"At lambda {level}, Ours has the SSIM of N2N and {stated} dB more", "Section 5, Table 4",
                ssim == 0 and abs(psnr - stated) < 5e-3, f"{psnr:+.2f} dB, SSIM {ssim:+.3f}", rows)


def _groups(cells, quick=("DIP", "ZS-N2N", "MPI"), slow=("S2S", "B2U")):
    set9 = [cell for cell in cells if cell.dataset == "Set9"]
    rows = sorted((row for name in slow for row in margins(set9, name, quick)), key=lambda row: row.margin)
    wrong = [f"{row.other.method} above {row.cell.method} at {row.cell.level}" for row in rows
             if row.margin <= 0]
    return Said(f"S2S and B2U give higher PSNR than {', '.join(quick)} (here on Set9)",
                "Section 5, Figure 7 (a)", not wrong,
                "; ".join(wrong) or f"smallest margin {rows[0].margin:+.2f} dB", rows)


def next_best(cells, method="B2G", group=ONE_PICTURE):
    """For every row: the margin of `method` over the best other method of `group`, by PSNR."""
    best = {}
    for row in margins(cells, method, [name for name in group if name != method]):
        if row.cell.row not in best or row.margin < best[row.cell.row].margin:
            best[row.cell.row] = row
    return list(best.values())
