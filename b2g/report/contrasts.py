"""What one changed reading does to the score: pairs of stored runs that differ in that reading alone."""

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from b2g.errors import B2GError
from b2g.method import canonical_json
from b2g.report.markup import Lines, Mark
from b2g.report.statistics import paired
from b2g.runs.record import label

_UNBROKEN = "\u00a0"  # a space at which no line ends
# Settings of the budget: they stand in every run of a study and are no readings.
_BUDGET = ("steps", "learning_rate", "width", "head", "answer", "average", "passes")


@dataclass(frozen=True)
class Ambiguity:
    """A sentence that leaves a choice: the settings as written, as repaired, and with the part taken out.

    Where the words fix nothing, `written` is another reading that they allow.
    `repaired` is None where the letter works, `ablated` where there is nothing to take out. All readings of
    one ambiguity name the same settings.
    """

    words: str
    written: dict
    repaired: dict | None = None
    ablated: dict | None = None

    @property
    def readings(self):
        """The readings by their role, in the order of the columns."""
        roles = {"as written": self.written, "as repaired": self.repaired, "ablated": self.ablated}
        return {role: settings for role, settings in roles.items() if settings is not None}


def _visible(visible, omega=0.8):
    return {"visible": visible, "omega": omega}


AMBIGUITIES = (
    Ambiguity("Eq. 3.4: may the loss change f(y)?",
              _visible("attached"), _visible("detached"), _visible("detached", 0.0)),
    Ambiguity("Eq. 3.4 and 3.6: two components and one number",
              {"combine": "sum", "omega": 0.8}, {"combine": "component", "omega": 0.8},
              {"combine": "component", "omega": 0.0}),
    Ambiguity("Eq. 3.4: which difference? Backward", {"operator": "backward"}, {"operator": "forward"}),
    Ambiguity("Eq. 3.4: which difference? Sobel", {"operator": "sobel"}, {"operator": "forward"}),
    Ambiguity("Eq. 3.9: no subscript, target y-hat",
              {"loss_norm": "all", "target": "hidden"}, {"loss_norm": "masked", "target": "noisy"}),
    Ambiguity("Eq. 3.9: no subscript, target y",
              {"loss_norm": "all", "target": "noisy"}, {"loss_norm": "masked", "target": "noisy"}),
    Ambiguity("Eq. 3.1: what is detail?", {"mask": "distance"}, {"mask": "gradient"}, {"mask": "bernoulli"}),
    Ambiguity("Eq. 3.9: the gradient term itself", {"omega": 0.8}, None, {"omega": 0.0}),
    Ambiguity("Eq. 3.11: T-Standout itself", {"standout": "half"}, None, {"standout": "none"}),
)  # fmt: skip


@dataclass(frozen=True)
class Contrast:
    """Differences of a metric, first reading minus second, with all else equal to `base`.

    `keys` and `differences` as :func:`b2g.report.statistics.paired` returns them.
    """

    base: str
    changed: int
    keys: list
    differences: np.ndarray

    def at(self, level):
        """The differences at one noise level, one a picture."""
        return np.array([d for key, d in zip(self.keys, self.differences) if key[2] == level])

    @property
    def levels(self):
        return sorted({key[2] for key in self.keys})


def contrasts(runs, first, second, metric="psnr", method="b2g"):
    """Every set of pairs in `runs` whose settings are those of `first` on one side, of `second` on the other.

    `first` and `second` give values to the same settings; all others are equal within a pair, and runs whose
    others are equal form one `Contrast`. Sorted by how little the rest departs from a profile.

    Raises
    ------
    B2GError
        If the two readings name different settings.
    """
    if set(first) != set(second):
        raise B2GError("Both readings of a contrast must give values to the same settings.")
    sides = [defaultdict(list), defaultdict(list)]
    for record in runs:
        if record.method != method or record.state != "done":
            continue
        rest = canonical_json({key: value for key, value in record.settings.items() if key not in first})
        for side, wanted in zip(sides, (first, second)):
            if all(_equal(record.settings.get(key), value) for key, value in wanted.items()):
                side[rest].append(record)
    found = []
    for rest in sides[0].keys() & sides[1].keys():
        keys, differences = paired(sides[0][rest], sides[1][rest], metric)
        if keys:
            found.append(Contrast(*_base(sides[1][rest][0].settings, first), keys, differences))
    return sorted(found, key=lambda contrast: (contrast.changed, contrast.base))


def _equal(one, other):
    return canonical_json(one) == canonical_json(other)


def _base(settings, contrasted):
    """Words for all but the contrasted settings, and how many of these depart from the nearest profile."""
    title, *changes = label(settings).split("+")
    kept = [change for change in changes if change.split("=")[0] not in (*_BUDGET, *contrasted)]
    return ", ".join([title, *kept, f"{settings.get('steps')} steps"]), len(kept)


HEADER = ("sentence", "readings", "sigma", "written − repaired", "written − ablated", "repaired − ablated")
_PAIRS = (("as written", "as repaired"), ("as written", "ablated"), ("as repaired", "ablated"))


def ambiguity_rows(runs, ambiguities=AMBIGUITIES):
    """Rows for :func:`b2g.report.markup.table` under `HEADER`: one for each ambiguity and profile with pairs.

    A difference is the mean over pictures in dB, with its range and their number. An ambiguity without any
    pair has one row that says so.
    """
    rows = []
    for ambiguity in ambiguities:
        readings = ambiguity.readings
        words = Lines(f"{role}: {_words(settings)}" for role, settings in readings.items())
        bases: dict = defaultdict(dict)
        for pair in _PAIRS:
            if all(role in readings for role in pair):
                for contrast in contrasts(runs, *(readings[role] for role in pair)):
                    if contrast.changed == 0:
                        bases[contrast.base.removeprefix("b2g/")][pair] = contrast
        for base, found in sorted(bases.items()):
            levels = sorted({level for contrast in found.values() for level in contrast.levels})
            cells = [Lines(_difference(found.get(pair), level) for level in levels) for pair in _PAIRS]
            sentence = Lines((ambiguity.words, f"(all else as {base})"))
            rows.append([sentence, words, Lines(f"{level:g}" for level in levels), *cells])
        if not bases:
            sentence = Lines((ambiguity.words, Mark("no pair stored yet", "missing")))
            rows.append([sentence, words, "–", "–", "–", "–"])
    return rows


def _words(settings):
    pairs = (f"{key} = {value:g}" if isinstance(value, float) else f"{key} = {value}"
             for key, value in settings.items())
    return ", ".join(pair.replace(" ", _UNBROKEN) for pair in pairs)


def _difference(contrast, level):
    values = contrast.at(level) if contrast is not None else np.array([])
    return summary(values) if len(values) else "–"


def summary(values):
    """The mean of differences in dB, their range and number, unbroken: "-0.31 [-0.50, +0.02] n 3"."""
    low, high = min(values), max(values)
    return f"{np.mean(values):+.2f} [{low:+.2f}, {high:+.2f}] n {len(values)}".replace(" ", _UNBROKEN)
