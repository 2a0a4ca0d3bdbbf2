"""Figures that the methods' own papers print on Set9, CBSD68, Kodak24, PolyU and SIDD, beside ours.

data/own_figures.csv has one line a figure: the method and the profile that follows the published settings,
the data set and, where the same pictures are at hand, our name of them. Figures that other papers print for
a method are not its own, and stand in data/quoted.csv. Records are read; nothing is run.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from statistics import mean

from b2g import datasets
from b2g.errors import B2GError
from b2g.face import choose_method
from b2g.files import carried
from b2g.method import canonical_json
from b2g.methods import METHODS
from b2g.report.markup import Lines, Mark, table
from b2g.runs.cost import Costs, pixels, spoken

COLUMNS = ("method", "profile", "dataset", "pictures", "noise", "level", "psnr_db", "protocol", "source",
           "why")  # fmt: skip
NEAR = 0.3  # dB: what needs no explanation
MARKS = ("within", "explained", "open", "not run")


@dataclass(frozen=True)
class OwnFigure:
    """A figure of a method's own paper. ``pictures``: the data set here, "" where it is another or not here.

    ``protocol``: what that paper did, in words. ``why``: what explains a difference, or a run that cannot be.
    """

    method: str
    profile: str
    dataset: str
    pictures: str
    noise: str
    level: float
    psnr_text: str
    protocol: str
    source: str
    why: str

    @property
    def psnr(self) -> float:
        return float(self.psnr_text)


@dataclass(frozen=True)
class Compared:
    """A figure beside ours, the mean of ``n`` of ``total`` pictures;
    ``mark`` (one of MARKS) and ``words``."""

    figure: OwnFigure
    ours: float | None
    n: int
    total: int
    mark: str
    words: str


def own_figures() -> tuple[OwnFigure, ...]:
    """All lines of data/own_figures.csv."""
    with carried("own_figures.csv").open(newline="", encoding="utf-8") as file:
        rows = [[row[name] for name in COLUMNS] for row in csv.DictReader(file)]
    return tuple(OwnFigure(*row[:5], float(row[5] or 0), *row[6:]) for row in rows)


def compared(records, figures=None) -> list[Compared]:
    """Every figure beside the mean over the whole set, where the records have it."""
    records = [record for record in records if record.protocol != "clipped"]
    done = {}
    for record in records:
        if record.done and record.psnr is not None:
            key = record.picture, record.noise, record.level, canonical_json(record.settings)
            done.setdefault(key, []).append(record.psnr)
    costs = Costs(records)
    return [_compare(figure, done, costs) for figure in (own_figures() if figures is None else figures)]


def _compare(figure: OwnFigure, done: dict, costs: Costs) -> Compared:
    names = _names(figure.pictures)
    if not names or figure.method not in METHODS:
        return _not_run(figure, 0, len(names), figure.why or "the pictures are not here")
    method = choose_method(figure.method, figure.profile or None)
    text = method.identity()
    found = {name: done[key] for name in names if (key := (name, figure.noise, figure.level, text)) in done}
    if len(found) < len(names):
        return _not_run(figure, len(found), len(names), _price(method, set(names) - set(found), costs))
    ours = mean(mean(values) for values in found.values())
    return Compared(figure, ours, len(names), len(names), *judged(ours - figure.psnr, figure.why))


def _not_run(figure: OwnFigure, n: int, total: int, why: str) -> Compared:
    return Compared(figure, None, n, total, "not run", f"not run: {why}")


def judged(difference: float, why: str) -> tuple[str, str]:
    """The mark of a difference in dB, and its words."""
    if abs(difference) <= NEAR + 1e-9:
        return "within", f"within {NEAR:g} dB"
    return ("explained", f"explained: {why}") if why else ("open", "open")


def _names(pictures: str) -> list[str]:
    if not pictures:
        return []
    dataset, _, crop = pictures.partition("@")
    names = [f"{name}@{crop}" if crop else name for name in datasets.names(dataset)]
    try:
        datasets.size(names[0])
    except B2GError:  # SIDD's blocks, where nobody has put them
        return []
    return names


def _price(method, missing, costs: Costs) -> str:
    """What the missing pictures would take on one CPU thread."""
    known = [costs.seconds(method, pixels(name)) for name in missing]
    return "cost unknown" if None in known else f"≈ {spoken(sum(known))}"


HEADER = ("method", "set", "noise", "its paper", "ours", "difference", "it is", "protocol and source")
LEVELS = {"gaussian": "σ = {:g}", "poisson": "λ = {:g}", "real": "real"}


def shown(found: list[Compared]):
    """The table of all figures."""
    lines = []
    for each in found:
        figure, whole = each.figure, each.ours is not None
        lines.append((
            f"{figure.method}/{figure.profile}", figure.dataset, LEVELS[figure.noise].format(figure.level),
            figure.psnr_text, f"{each.ours:.2f}" if whole else "–",
            f"{each.ours - figure.psnr:+.2f}" if whole else "–",
            each.words if whole else Mark(each.words, "missing"), Lines((figure.protocol, figure.source)),
        ))  # fmt: skip
    notes = "Ours: the mean over the whole set, noise not clipped, answers clipped to [0, 1] and not rounded."
    return table(HEADER, lines, "Figures of the methods' own papers, PSNR in dB.", notes)
