"""The zoo as a page shows it: its tables, and the answers that were kept of a picture."""

from __future__ import annotations

import math

from b2g.errors import B2GError
from b2g.report import records as stored
from b2g.report.markup import Lines, Mark, table
from b2g.report.zoo import NOT_BUILT, Cell, Row, Zoo

SPACE = "\N{NARROW NO-BREAK SPACE}"


def short(picture: str) -> str:
    """What a picture is called in a table: "House", "bsd68/003", "polyu"."""
    dataset, _, name = picture.partition("@")[0].partition("/")
    return name if dataset == "set9" else dataset if len(name) > 12 else f"{dataset}/{name}"


def shown(found: Zoo, label: str):
    """The table of the rows with ``label``; bold is the best cell of a picture in it."""
    rows, pictures = found.of(label), found.pictures
    best = {p: max((row.cells[p].psnr or 0.0 for row in rows), default=0.0) for p in pictures}
    lines = [
        (row.title, *(_decibels(row.cells[p], best[p]) for p in pictures),
         _seconds(row.cells[pictures[0]].seconds), _count(row.parameters))
        for row in rows
    ]  # fmt: skip
    header = ("method", *(f"{short(p)}, dB" for p in pictures), "CPU seconds", "weights")
    notes = (
        "In brackets: over BM3D on the same noisy picture, which is told sigma where the noise is Gaussian. "
        f"CPU seconds of one thread on {short(pictures[0])}. Weights of one network, in colour. "
        "Profiles: " + (", ".join(_profiles(rows)) or "none yet") + "."
    )
    return table(header, lines, f"{label.capitalize()}.", notes)


def around(found: Zoo, title: str):
    """The table of the pictures: how noisy each is, which rows make it worse by 0.05 dB or more, and which
    rows of the same label reach more than the row ``title``.
    """
    [row] = [row for row in found.rows if row.title == title]
    lines = []
    for picture in found.pictures:
        before, reached = found.noisy[picture], row.cells[picture].psnr
        worse = [] if before is None else _between(found.rows, picture, high=before - 0.05)
        better = [] if reached is None else _between(found.of(row.label), picture, low=reached)
        noisy = "–" if before is None else f"{before:.2f}"
        lines.append((short(picture), noisy, ", ".join(worse) or "none", ", ".join(better[::-1]) or "none"))
    header = ("picture", "noisy, dB", "made worse by", f"above {title}")
    return table(header, lines, f"What does harm, and what sees no more than {title} and does better.")


def _between(rows, picture: str, low: float = 0.0, high: float = math.inf) -> list[str]:
    """The rows above ``low`` and up to ``high`` dB on a picture, from the least up."""
    reached = [(row.cells[picture].psnr or 0.0, row.title) for row in rows]
    return [title for psnr, title in sorted(reached) if low < psnr <= high]


def _profiles(rows: tuple[Row, ...]) -> list[str]:
    """The labels of what was planned, where they say more than the row's title."""
    return [label for row in rows for label in row.profiles if label != row.title]


def _decibels(cell: Cell, best: float):
    if cell.psnr is None:
        return Mark(cell.lacks, "missing", cell.why)
    text = f"{cell.psnr:.2f}"
    value = Mark(text, "best") if cell.psnr == best else text
    return Lines((value,)) if cell.over is None else Lines((value, f"({cell.over:+.2f})"))


def _seconds(seconds: float | None) -> str:
    return "–" if seconds is None else f"{seconds:.0f}" if seconds >= 10 else f"{seconds:.1f}"


def _count(number: int | None) -> str:
    return "–" if number is None else f"{number:,}".replace(",", SPACE)


def empty(found: Zoo):
    """The table of the methods that no run of the plan is about, and why."""
    lines = [(row.title, row.why) for row in found.rows if row.why] or [("none", "all are in the plan")]
    return table(("method", "why"), lines, "Methods without a run.")


def sources(found: Zoo):
    """Label, cost in words and source of every method."""
    lines = {row.name: (row.name, row.label, row.cost, row.source) for row in found.rows}
    return table(("method", "label", "cost", "source"), lines.values(), "Where each method comes from.")


def not_built():
    """What is not here, and why."""
    lines = [(each.name, each.label, each.why, each.source) for each in NOT_BUILT]
    return table(("method", "label", "why it is not here", "source"), lines, "What is not built, and why.")


def answers(records, found: Zoo, picture: str, side: int = 64) -> dict:
    """Name -> the middle of a picture: noisy, the answers that were kept with the best first, and clean.

    Squares of ``side`` pixels in [0, 1]; empty where no answer is in the gallery.
    """
    kept = {record.id: record for record in records if record.kept}
    shown, first = {}, None
    for row in sorted(found.rows, key=lambda row: -(row.cells[picture].psnr or 0.0)):
        record = kept.get(row.cells[picture].id)
        try:
            if record is not None:
                shown[row.title] = _middle(stored.picture(record.id), side)
                first = first or record
        except B2GError:  # a record says that its picture was kept, but it is not here
            continue
    if first is None:
        return {}
    noisy, clean = (_middle(part(first), side) for part in (stored.noisy, stored.clean))
    return {"noisy": noisy, **shown, "clean": clean}


def _middle(picture, side: int):
    top, left = ((size - side) // 2 for size in picture.shape[:2])
    return picture[top : top + side, left : left + side]
