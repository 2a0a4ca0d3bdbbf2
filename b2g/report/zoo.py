"""The zoo: every registered method on the same three pictures, from the plan `zoo` and from records.

A row is a method, or a profile of it where the plan has several; its cells are the plan's noisy pictures.
What has no record says what it would cost, what cannot run here says why. Nothing is run; the tables are in
:mod:`b2g.report.zoo_tables`.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass

from b2g.errors import B2GError
from b2g.method import Method
from b2g.methods import METHODS
from b2g.released import released_file
from b2g.report.parameters import parameters
from b2g.runs.cost import Costs, pixels, spoken
from b2g.runs.plan import read_plan
from b2g.runs.record import label
from b2g.trained import Trained

PLAN = "zoo"
LABELS = ("one image", "one image, with a prior learned elsewhere", "many images", "classical")


@dataclass(frozen=True)
class NotBuilt:
    """A published method, or a form of one, that is not here, and why; ``label`` is one of LABELS."""

    name: str
    label: str
    source: str
    why: str


NOT_BUILT = (
    NotBuilt(
        "IDDP, the published form", "many images", "Lin et al., AAAI 2023, doi 10.1609/aaai.v37i2.25245",
        "Only its abstract could be read. It and its earlier version (Self-Verification, arXiv 2111.00666) "
        "were searched for by title, authors and content: no full text could be read, and no code was "
        "found. Missing: how the second noise is made, whether the prior is held fixed, the loss beside "
        "the cycle and its weight, network, schedule and pictures. iddp is our reading for one picture, "
        "and is called so.",
    ),
    NotBuilt(
        "N2V2", "one image", "Höck et al., ECCVW 2022, doi 10.48550/arXiv.2211.08512",
        "It is out of this book's tables: none has a column for it. Its network (blurred pooling, no "
        "topmost skip) and its replacement by medians are stated in its code; how its paper trains, and "
        "its figures, could not be read. Of Noise2Void the first version is here.",
    ),
    NotBuilt(
        "MPI for real noise", "one image, with a prior learned elsewhere",
        "Ma et al., NeurIPS 2024, doi 10.48550/arXiv.2401.14966",
        "It starts from other weights, made with 80 to 95 % of the pixels hidden by one mask for all "
        "channels; this package has none of them. Its steps, shares and shuffle are stated in its code; "
        "the figures of its paper on real noise were searched for and could not be read. mpi's row on real "
        "noise has the weights for synthetic noise.",
    ),
    NotBuilt(
        "DRUNet's weights", "one image, with a prior learned elsewhere",
        "Zhang et al. (DPIR), IEEE TPAMI 44(10), 2022, doi 10.1109/TPAMI.2021.3088914",
        "The architecture is here as a prior of pnp; its weights are large, not listed, and yours to bring.",
    ),
    NotBuilt(
        "HQSSL for Poisson and impulse noise", "many images",
        "Laine et al., NeurIPS 2019, doi 10.48550/arXiv.1901.10277",
        "The Gaussian likelihood alone is built; the other two have formulas and weights of their own.",
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """One method on one noisy picture: ``psnr`` [dB] and CPU ``seconds``, None where no record is done.

    ``over``: dB above BM3D on the same noisy picture (told sigma where the noise is Gaussian). ``lacks``: in
    place of the value, what it would cost or why there is none; ``why`` has the long form. ``id``: the run's.
    """

    psnr: float | None = None
    over: float | None = None
    seconds: float | None = None
    lacks: str = ""
    why: str = ""
    id: str = ""


@dataclass(frozen=True)
class Row:
    """A method. ``cells`` go by picture; ``parameters`` of its network in colour, None where it has none.

    ``profiles`` are the labels of its runs; ``why`` says, in a sentence, why there are none.
    """

    title: str
    name: str
    label: str
    source: str
    cost: str
    cells: dict[str, Cell]
    profiles: tuple[str, ...] = ()
    parameters: int | None = None
    why: str = ""


@dataclass(frozen=True)
class Zoo:
    """All rows, sorted by label and then by dB on the first picture; ``pictures`` in the plan's order.

    ``noisy``: the PSNR of each picture before anything is done to it, None where no record tells.
    """

    pictures: tuple[str, ...]
    rows: tuple[Row, ...]
    noisy: dict[str, float | None]

    def of(self, label: str) -> tuple[Row, ...]:
        return tuple(row for row in self.rows if row.label == label)


def zoo(records, plan: str = PLAN) -> Zoo:
    """The rows of every method in METHODS, from a plan and from ``records``."""
    tasks, found = read_plan(plan).tasks, {record.id: record for record in records}
    costs, runs = Costs(found.values()), defaultdict(lambda: defaultdict(list))
    pictures = tuple(dict.fromkeys(task.run.picture for task in tasks))
    for task in tasks:
        runs[json.loads(task.run.method)["method"]][task.run.picture].append(task.run)
    yardsticks = {picture: _yardstick(runs["bm3d"][picture], found) for picture in pictures}
    rows = []
    for name, method in METHODS.items():
        for title, there in _titled(name, runs[name]).items():
            cells = {picture: _cell(there.get(picture), method, picture, yardsticks[picture], found, costs)
                     for picture in pictures}
            rows.append(_row(title, method, there, cells))
    rows.sort(key=lambda row: _place(row, pictures))
    noisy = {picture: _noisy(picture, tasks, found) for picture in pictures}
    return Zoo(pictures, tuple(rows), noisy)


def _noisy(picture: str, tasks, found) -> float | None:
    ids = [task.run.id for task in tasks if task.run.picture == picture]
    return next((found[id].psnr_noisy for id in ids if id in found and found[id].done), None)


def _titled(name: str, by_picture: dict) -> dict:
    """title -> {picture: run}. The title is the name, or each run's label where a picture has several."""
    several = any(len(runs) > 1 for runs in by_picture.values())
    found = {}
    for picture, runs in by_picture.items():
        for run in runs:
            found.setdefault(_label(run) if several else name, {})[picture] = run
    return found or {name: {}}


def _label(run) -> str:
    return label(json.loads(run.method), run.level)


def _yardstick(runs, found) -> float | None:
    """The PSNR of BM3D on a noisy picture: told sigma where some run is."""
    told = sorted(runs, key=lambda run: run.configured().sigma is None)
    done = [found[run.id].psnr for run in told[:1] if run.id in found and found[run.id].done]
    return done[0] if done else None


def _cell(run, method: type[Method], picture: str, yardstick, found, costs) -> Cell:
    if run is None:
        return Cell(lacks="no weights" if issubclass(method, Trained) else "–", why=reason(method))
    record = found.get(run.id)
    if record is None:
        seconds = costs.seconds(run.configured(), pixels(picture))
        if seconds is None:
            return Cell(lacks="cost unknown", why=f"never run here; by its author: {method.cost}")
        return Cell(lacks=f"≈ {spoken(seconds)}", why=f"b2g sweep {PLAN} runs it")
    if not record.done:
        return Cell(lacks=record.state, why=record.reason)
    over = None if yardstick is None else record.psnr - yardstick
    return Cell(record.psnr, over, record.cpu_seconds, id=run.id)


def _row(title: str, method: type[Method], there: dict, cells: dict) -> Row:
    configured = [run.configured() for run in there.values()] or [method.profile()]
    labels = tuple(dict.fromkeys(_label(run) for run in there.values()))
    why = "" if there else reason(method)
    about = method.name, method.label, method.source, method.cost
    return Row(title, *about, cells, labels, parameters(configured[0]), why)


def reason(method: type[Method]) -> str:
    """Why a method has no run in the plan, in one sentence."""
    if not issubclass(method, Trained):
        return "The plan does not ask for it on this picture."
    try:
        released_file(method.name, method.profile().recipe, 3)
    except B2GError as error:
        return f"{str(error)[0].upper()}{str(error)[1:]}"
    return "Its weights are for pictures with another number of channels."


def _place(row: Row, pictures) -> tuple:
    first = row.cells[pictures[0]].psnr if pictures else None
    return LABELS.index(row.label), first is None, -(first or 0.0), row.title
