"""The tests that need no run: what the paper's own printed cells say, and what is not at hand at all.

A printed cell can contradict a sentence about the tables, or agree with it;
that the cell can be reached is another claim, for the runs.
"""

from __future__ import annotations

from b2g.methods import METHODS
from b2g.report.printed import ONE_PICTURE, printed
from b2g.report.readings import pictures
from b2g.verdicts.evidence import Evidence, enough_pictures
from b2g.verdicts.judgement import MISSING, UNTESTABLE, Case, fact


def rows_of(tables):
    """{row: {method: cell}} of the printed tables, dashes left out."""
    rows = {}
    for number in tables:
        for cell in printed(table=number):
            if cell.psnr is not None:
                rows.setdefault(cell.row, {})[cell.method] = cell
    return rows


def first_of_row(evidence: Evidence, tables, others=ONE_PICTURE, also=("BM3D",)):
    """In every printed row, B2G has the highest PSNR and the highest SSIM of the named group;
    ties count for it."""
    cases = []
    for number in tables:
        rows = rows_of([number])
        for metric in ("psnr", "ssim"):
            ahead = [f"{row[1]} {row[3]}: {name}" for row, cells in rows.items() for name, cell in cells.items()
                     if name in (*others, *also) and getattr(cell, metric) > getattr(cells["B2G"], metric)]
            words = f"{len(rows)} rows" + (f", behind {'; '.join(ahead)}" if ahead else "")
            cases.append(fact(f"Table {number}, {metric.upper()}", not ahead, words))
    return cases


def seldom_behind(evidence: Evidence, tables, others=("Ne2Ne", "N2N"), share=0.25):
    """A method trained on many pictures has a higher printed PSNR than B2G in a few rows only,
    at most ``share``."""
    rows = rows_of(tables)
    behind = [row for row, cells in rows.items()
              if any(cells[name].psnr > cells["B2G"].psnr for name in others if name in cells)]
    which = "; ".join(f"{row[1]} {row[3]}" for row in behind)
    words = f"{len(behind)} of {len(rows)} rows" + (f": {which}" if which else "")
    return [fact(f"rows where {' or '.join(others)} is ahead", len(behind) <= share * len(rows), words)]


def margin(evidence: Evidence, dataset, levels, over, psnr, ssim=0.0):
    """B2G's printed PSNR exceeds another method's by ``psnr`` dB while their SSIMs differ by ``ssim``."""
    cases = []
    for level in levels:
        ours, theirs = (printed(dataset=dataset, level=level, method=name)[0] for name in ("B2G", over))
        found = round(ours.psnr - theirs.psnr, 3), round(ours.ssim - theirs.ssim, 3)
        words = f"{found[0]:+.2f} dB, SSIM {found[1]:+.3f}"
        cases.append(fact(f"{dataset}, level {level}, over {over}", found == (psnr, ssim), words))
    return cases


def at_hand(evidence: Evidence, methods=(), datasets=(), documents=()):
    """Whether a test is possible at all: methods in the package, data sets large enough, nothing unpublished.

    ``documents`` are texts that the claim rests on and that the article does not contain.
    """
    absent = [f"the method {name}" for name in methods if name not in METHODS]
    absent += [f"the data set {name}" for name in datasets if not enough_pictures(pictures(name))]
    absent += list(documents)
    if absent:
        return [Case(f"needs {', '.join(absent)}", UNTESTABLE, "not at hand")]
    return [Case("everything is at hand", MISSING, "no test has been written for it")]


TESTS = (first_of_row, seldom_behind, margin, at_hand)
