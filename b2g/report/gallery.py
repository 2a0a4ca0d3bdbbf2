"""Answers gathered by the noisy picture they began from: the scores of all,
and the pictures of those that were kept.

For the pages that look at pictures. A method is called by its record's label ("b2g/fast",
"bm3d+sigma=given"). Records are read and pictures measured; nothing is run.
"""

import html
import json
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from b2g import measures
from b2g.errors import B2GError
from b2g.face import choose_method
from b2g.report import records as stored
from b2g.report.figures import Shown
from b2g.runs.cost import Costs, spoken
from b2g.runs.plan import read_plan
from b2g.runs.record import label

NAMES = {"bm3d+sigma=given": "BM3D, σ given", "bm3d": "BM3D, σ estimated", "zs_n2n": "ZS-N2N",
         "self2self/official": "Self2Self",
         "b2g/masked": "B2G masked", "b2g/fast": "B2G fast", "lichi": "LIChI",
         "consensus/fast": "Consensus",
         "b2g/faithful": "B2G faithful", "b2g/best": "B2G best", "b2g/paper": "B2G paper"}
# What `Scene.measured` gives, in words; the second says which way is good: 1 more, -1 less.
MEASURES = {"edges": ("RMS error on edges", -1), "rest": ("RMS error elsewhere", -1),
            "texture": ("texture kept", 1), "grain": ("grain on flat ground", -1), "tint": ("colour error", -1),
            "noise": ("noise kept", -1), "outliers": ("noise kept beyond 2 RMS", -1)}


@dataclass(frozen=True, eq=False)
class Scene:
    """A noisy picture with the answers to it that were kept; ``records`` and ``answers`` go by label.

    Pictures are arrays in [0, 1]; ``noisy`` is not clipped unless its protocol says so.
    """

    records: dict
    clean: np.ndarray
    noisy: np.ndarray
    answers: dict

    @property
    def picture(self) -> str:
        return self._any.picture

    @property
    def level(self) -> float:
        return self._any.level

    @property
    def title(self) -> str:
        """Such as "F16, σ = 50"."""
        what = self.picture.partition("/")[2].partition("@")[0]
        words = {"gaussian": f", σ\u00a0=\u00a0{self.level:g}", "poisson": f", λ\u00a0=\u00a0{self.level:g}"}
        return what + words.get(self._any.noise, ", real noise")  # no break: titles head rows of narrow tables

    @property
    def _any(self):
        return next(iter(self.records.values()))

    def shown(self, labels=None) -> dict:
        """Name -> picture in the order to be looked at: noisy, the answers, clean."""
        chosen = {name(label): self.answers[label] for label in labels or self.answers}
        return {"noisy": self.noisy, **chosen, "clean": self.clean}

    @cached_property
    def measured(self) -> dict:
        """label -> {measure: value}, with the keys of MEASURES; errors on the 0..255 scale."""
        texture = measures.regions(self.clean).texture
        return {label: self._measured(answer, texture) for label, answer in self.answers.items()}

    def _measured(self, answer, texture):
        error = measures.edge_error(self.clean, answer)
        return {
            "edges": 255 * error.edges**0.5, "rest": 255 * error.rest**0.5,
            "texture": measures.detail_kept(self.clean, answer, texture),
            "grain": measures.grain(self.clean, answer), "tint": measures.tint(self.clean, answer),
            "noise": measures.noise_kept(self.clean, self.noisy, answer),
            "outliers": measures.noise_kept(self.clean, self.noisy, answer, beyond=2),
        }  # fmt: skip


def name(label: str) -> str:
    """What a label is called on a page."""
    return NAMES.get(label, label)


def label_of(method: str, profile: str | None = None, **changes) -> str:
    """The label of a method's profile with some settings changed."""
    return label(json.loads(choose_method(method, profile, **changes).identity()))


def available(rows, **conditions) -> list[str]:
    """The labels of NAMES, in that order, that some done record under ``conditions`` has."""
    found = {record.label for record in rows if _meets(record, conditions)}
    return [label for label in NAMES if label in found]


def answered(rows, labels, **conditions) -> dict:
    """key -> {label: record} of the noisy pictures that every one of ``labels`` answered, sorted by key.

    ``conditions`` are attributes of the records: ``noise="gaussian", crop=128``. Unless ``watch`` is among
    them, a run that was watched stands in where the plain one is missing.
    """
    found = {}
    for record in sorted(rows, key=lambda record: record.watch):
        if _meets(record, conditions) and record.label in labels:
            found.setdefault(record.key, {}).setdefault(record.label, record)
    return {key: {label: found[key][label] for label in labels} for key in sorted(found)
            if len(found[key]) == len(labels)}


def _meets(record, conditions) -> bool:
    return record.done and all(getattr(record, key) == value for key, value in conditions.items())


def scenes(rows, labels, **conditions) -> list[Scene]:
    """The noisy pictures that all ``labels`` answered and whose pictures are in the gallery;
    see `answered`."""
    found = []
    kept = [record for record in rows if record.kept]
    for records in answered(kept, labels, **conditions).values():
        first = next(iter(records.values()))
        try:
            answers = {label: stored.picture(record.id) for label, record in records.items()}
            found.append(Scene(records, stored.clean(first), stored.noisy(first), answers))
        except B2GError:  # a record says that its picture was kept, but it is not here
            continue
    return found


def worst_part(scene: Scene, label: str, rival: str, side: int = 32, within=None) -> tuple[int, int, float]:
    """The square where ``label`` loses most to ``rival``: left, top,
    and the difference of mean squared errors.

    Squares stand half their side apart; a negative difference says that it loses nowhere. Of pixels outside
    ``within``, boolean ``(H, W)``, the errors do not count.
    """
    ours, theirs = ((_planes(scene.answers[which]) - _planes(scene.clean)) ** 2 for which in (label, rival))
    difference = (ours - theirs).mean(-1) * (1.0 if within is None else within)
    height, width = difference.shape
    if side > min(height, width):
        raise B2GError(f"a square of {side} pixels does not fit into {scene.title}, which is {width} x {height}")
    step = side // 2
    squares = {(left, top): float(difference[top:top + side, left:left + side].mean())
               for top in range(0, height - side + 1, step) for left in range(0, width - side + 1, step)}
    (left, top), most = max(squares.items(), key=lambda item: item[1])
    return left, top, most


def areas(clean) -> dict:
    """The sets of `b2g.measures.regions` by name, boolean ``(H, W)``, and ``other``:
    together every pixel once."""
    found = dict(vars(measures.regions(clean)))
    return found | {"other": ~np.logical_or.reduce(list(found.values()))}


def excess(scene: Scene, label: str, rival: str) -> dict:
    """Where the mean squared error of ``label`` above that of ``rival`` comes from;
    negative where it is below.

    The sets of `areas` sum to ``all``; so do ``gray`` (the channels' mean) and ``colour`` (the rest).
    """
    errors = [_planes(scene.answers[which]) - _planes(scene.clean) for which in (label, rival)]
    ours, theirs = ((error**2).mean(-1) for error in errors)
    found = {where: float((ours - theirs)[inside].sum()) / ours.size
             for where, inside in areas(scene.clean).items()}
    gray, other_gray = (float((error.mean(-1) ** 2).mean()) for error in errors)
    total = float((ours - theirs).mean())
    return {"all": total, **found, "gray": gray - other_gray, "colour": total - (gray - other_gray)}


def part(picture, left: int, top: int, side: int):
    """A square of a picture."""
    return picture[top:top + side, left:left + side]


def _planes(picture):
    return picture if picture.ndim == 3 else picture[..., None]


def lacking(plan: str, rows, labels=None, **conditions) -> str:
    """A sentence on what a plan still lacks, and its cost; empty where nothing is missing.

    ``labels`` and ``conditions`` (attributes of runs: ``level=50``) leave the runs that a figure needs.
    """
    try:
        tasks = [task for task in read_plan(plan).tasks if _needed(task.run, labels, conditions)]
    except B2GError:
        return f"There is no plan {plan} yet."
    finished = {record.id for record in rows if record.done}
    missing = [task for task in tasks if task.run.id not in finished]
    if not missing:
        return ""
    seconds, unknown = Costs(rows).of_tasks(missing)
    cost = "of unknown cost" if unknown == len(missing) else f"about {spoken(seconds)} of CPU time"
    more = f" and {unknown} of unknown cost" if 0 < unknown < len(missing) else ""
    return f"Missing: {len(missing)} of {len(tasks)} runs ({cost}{more}): b2g sweep {plan}"


def _needed(run, labels, conditions) -> bool:
    if any(getattr(run, key) != value for key, value in conditions.items()):
        return False
    return labels is None or label(json.loads(run.method), run.level) in labels


def notes(*lines: str) -> Shown:
    """Small print under a figure: the lines that are not empty."""
    text = " ".join(line if line.endswith(".") else f"{line}." for line in lines if line)
    return Shown(f'<p class="b2g-notes" style="font-size:.85em;margin:.3em 0">{html.escape(text)}</p>', text)


def circumstances(records) -> str:
    """What every figure says under it: n, pictures, crop, noise, draws, protocol, device and precision."""
    records = list(records)
    if not records:
        return "n = 0"
    pictures = sorted({record.picture.partition("/")[2].partition("@")[0] for record in records})
    crops = sorted({record.crop for record in records if record.crop})
    draws = len({record.repeat for record in records})
    words = [f"n = {len(pictures)} picture{'s' * (len(pictures) > 1)} ({', '.join(pictures)})"]
    words += [f"central {crop} × {crop} pixels" for crop in crops]
    words += [f"{draws} draw{'s' * (draws > 1)} of noise", f"noise {_each(records, 'protocol')}",
              "answers clipped to [0, 1]", _each(records, "device"), _each(records, "precision")]
    return ", ".join(word for word in words if word)


def _each(records, field) -> str:
    return " and ".join(sorted({getattr(record, field) for record in records} - {""}))
