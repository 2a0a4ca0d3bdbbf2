"""Targets beside what was measured, as rows of a table (:mod:`b2g.report.targets`)."""

from dataclasses import replace

from b2g.report.idea_words import signed
from b2g.report.markup import Lines, Mark
from b2g.report.targets import REACHED, UNJUDGED
from b2g.runs.cost import spoken

HEADER = ("pictures", "method", "target", "measured", "n", "difference", "95 % interval", "outcome",
          "still to run")


def rows(measured):
    """Rows for :func:`b2g.report.markup.table` under `HEADER`; a difference is to what the target names.

    Cells without a picture whose target is the same figure share the last row.
    """
    empty = [one for one in measured if not one.n and not one.crop and one.target.against != "printed"]
    cells = (_asked, _level, _count, _difference, _interval, _outcome, _price)
    lines = [[_place(one), one.method, *(cell(one) for cell in cells)]
             for one in measured if one not in empty]
    return lines + ([_folded(empty)] if empty else [])


def _folded(empty):
    """One row for cells that have no picture yet."""
    seconds = [one.seconds for one in empty]
    price = None if None in seconds else sum(seconds)
    first, total = empty[0], sum(one.total for one in empty)
    one = replace(first, n=0, total=total, missing=sum(one.missing for one in empty), seconds=price)
    places = ", ".join(dict.fromkeys(each.where for each in empty))
    levels = ", ".join(f"{level:g}" for level in sorted({each.level for each in empty}))
    where = f"{places}, σ\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}{levels}"
    return [where, one.method, _asked(one), None, _count(one), None, None, _outcome(one), _price(one)]


def _asked(one):
    """What the target asks for, as a figure."""
    target = one.target
    if one.crop or target.least is None and target.most is None:
        return f"none (printed: {one.printed:.2f})" if one.printed is not None and not one.crop else None
    if target.most is not None:
        unit = " %" if target.against == "sigma" else f" of {target.other}"
        return f"\N{LESS-THAN OR EQUAL TO} {target.most:g}{unit}"
    sign = ">" if target.above else "\N{GREATER-THAN OR EQUAL TO}"
    return f"{sign} {one.printed:.2f}" if target.against == "printed" else f"{sign} {signed(target.least)}"


def _count(one):
    return f"{one.n} of {one.total}"


def _place(one):
    name, _, crop = one.where.partition("@")
    crop = f", crops of {crop}" if crop else ""
    return f"{name}{crop}, σ\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}{one.level:g}"


def _level(one):
    if one.target.against == "sigma":
        return f"{one.value:.1f} %" if one.n else None
    return f"{one.psnr.mean:.2f} dB" if one.psnr.n else None


def _difference(one):
    if one.value is None or one.target.against == "sigma":
        return None
    if one.target.against == "time":
        return f"{one.value:.2f} of {one.target.other}"
    if one.target.against == "printed":
        whole = one.n == one.total
        return signed(one.value) if whole else "a part only"
    paper = f", the paper's B2G {signed(one.margin)}" if one.margin is not None and not one.crop else ""
    return f"{signed(one.value)}{paper}"


def _interval(one):
    found = one.gain
    if found.low is None or one.target.against != "bm3d":
        return None
    return f"{signed(found.low)} to {signed(found.high)}"


def _outcome(one):
    if one.outcome == REACHED:
        return Mark(one.outcome, "best")
    if one.outcome.startswith("missed"):
        return Mark(one.outcome, "doubtful")
    return one.outcome if one.outcome == UNJUDGED else Mark(one.outcome, "missing")


def _price(one):
    if one.crop or not one.missing:
        return None
    price = "unknown" if one.seconds is None else f"\N{ALMOST EQUAL TO} {spoken(one.seconds)}"
    return "estimates" if one.target.against == "sigma" else f"{one.missing} runs, {price}"


def tally(measured):
    """How the cells of one target came out, a line a method: "b2g/best: 1 reached, 4 missed"."""
    kinds, lines = ("reached", "missed", "not enough pictures", UNJUDGED), []
    for method in dict.fromkeys(one.method for one in measured):
        whole = [one.outcome for one in measured if not one.crop and one.method == method]
        counts = {kind: sum(outcome.startswith(kind) for outcome in whole) for kind in kinds}
        words = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)
        lines += [f"{method}: {words}"] if words else []
    return Lines(lines)
