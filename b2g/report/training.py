"""What the watched histories say: the quantities of `b2g.runs.watch` along stored fits."""

from dataclasses import dataclass

import numpy as np

from b2g.errors import B2GError
from b2g.report import records as stored
from b2g.runs.record import Record


@dataclass(frozen=True)
class Watched:
    """A stored fit and what was measured along it, one dict a logged step."""

    record: Record
    entries: list

    def series(self, name):
        """Steps and values of a quantity, two float64 arrays; entries without it are left out."""
        pairs = [(entry["step"], entry[name]) for entry in self.entries if name in entry]
        return tuple(np.array(pairs, dtype=np.float64).reshape(-1, 2).T)

    def end(self, name, share=0.2):
        """Mean of a quantity over the last `share` of its entries; None where it was never measured."""
        values = self.series(name)[1]
        return float(values[-max(1, round(share * len(values))) :].mean()) if len(values) else None


def watched(runs=None, histories=None):
    """The fits that are done and were watched, as `Watched`, sorted by level, picture and reading.

    `runs` and `histories` default to the stored ones.
    """
    runs = stored_runs() if runs is None else runs
    histories = stored_histories() if histories is None else histories
    found = [Watched(record, histories[record.id]) for record in runs
             if record.state == "done" and record.watch == "training" and histories.get(record.id)]
    return sorted(found, key=lambda w: (w.record.level, w.record.picture, reading(w.record.settings)))


def stored_runs():
    """Every stored run; none where no table of runs is stored yet."""
    try:
        return stored.runs()
    except B2GError:
        return []


def stored_histories():
    """Every stored history; none where no table of runs is stored yet."""
    try:
        return stored.histories()
    except B2GError:
        return {}


def reading(settings):
    """How settings read Eq. 3.9: "detached, forward, component"; "paper: ..." with the mask of Eq. 3.1."""
    if settings.get("visible", "none") == "none":
        return "Eq. 1.1 alone"
    words = ", ".join(settings[name] for name in ("visible", "operator", "combine"))
    if settings["loss_norm"] == "all":
        words += ", all pixels, target " + {"noisy": "y", "hidden": "y-hat"}[settings["target"]]
    return f"paper: {words}" if settings["mask"] == "distance" else words


def mean_series(fits, name):
    """Steps and the mean of a quantity over `fits`, at the steps that all of them share."""
    curves = [dict(zip(*fit.series(name))) for fit in fits]
    steps = sorted(set.intersection(*map(set, curves))) if curves else []
    return np.array(steps), np.array([np.mean([curve[step] for curve in curves]) for step in steps])


def agreement(fit, first, second):
    """Correlation of two quantities over the steps of one fit (Pearson); None below three shared steps."""
    one, other = (dict(zip(*fit.series(name))) for name in (first, second))
    shared = sorted(one.keys() & other.keys())
    if len(shared) < 3:
        return None
    values = np.array([[one[step], other[step]] for step in shared])
    if values.std(0).min() == 0:
        return None
    return float(np.corrcoef(values.T)[0, 1])


def rise_from_lowest(fit, name, window=5):
    """A quantity's mean over the last `window` entries by the lowest such mean: 1 where it ends lowest.

    None where there are fewer entries.
    """
    values = fit.series(name)[1]
    if len(values) < window:
        return None
    means = np.convolve(values, np.full(window, 1 / window), mode="valid")
    return float(means[-1] / means.min())


def latter_half(fit):
    """The fit's second half, without the first fall."""
    return Watched(fit.record, fit.entries[len(fit.entries) // 2 :])
