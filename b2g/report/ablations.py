"""The paper's ablations (Figures 13, 14 and 15) from records: what each choice gains over the paper's own.

Every comparison is paired: the same crop, the same noise, one setting changed. Intervals are over crops.
The two readings, ``faithful`` and ``letter``, are those of `b2g.report.readings`, at 400 steps.
"""

from dataclasses import dataclass

import numpy as np

from b2g.method import canonical_json
from b2g.report.readings import configured, pictures
from b2g.report.statistics import Interval, bootstrap, paired, pictures_needed

WHERE, STEPS = "set9@64", 400
THRESHOLDS = (15.0, 25.0, 40.0, 55.0, 70.0, 85.0, 100.0)
# The dual mask as each reading has it: by the picture's gradient, or by the distance of Eq. 3.1.
DUAL = {"faithful": "gradient", "letter": "distance"}


def masks(reading):
    """The six combinations of Figure 13a by the paper's names: DM, BM, UM, with T-Standout (+D) or not."""
    kinds = {"DM": DUAL[reading], "BM": "bernoulli", "UM": "uniform"}
    return {name + mark: {"mask": kind, "standout": standout}
            for name, kind in kinds.items() for mark, standout in (("+D", "half"), ("", "none"))}


def values(field, choices):
    """One setting over some values, each named by itself: ``{"0.8": {"omega": 0.8}, ...}``."""
    return {f"{value:g}": {field: value} for value in choices}


@dataclass(frozen=True)
class Point:
    """One choice: its ``gains`` over the paper's choice on the ``crops`` that both were run on."""

    label: str
    crops: tuple[str, ...]
    gains: np.ndarray

    def gain(self) -> Interval:
        """The mean gain with its 95 % interval over crops."""
        return bootstrap(self.gains)

    def at(self, crops):
        """The gains on these crops, in this order."""
        return np.array([self.gains[self.crops.index(crop)] for crop in crops])


@dataclass(frozen=True)
class Study:
    """All choices of one figure at one noise level, in one reading, against the choice of the paper.

    ``failed`` names every run that came to nothing, with its reason.
    """

    reading: str
    level: float
    metric: str
    chosen: str
    points: tuple[Point, ...]
    failed: tuple[str, ...] = ()

    @property
    def n(self):
        """The fewest and the most crops that a choice has in common with the paper's; (0, 0) for none."""
        counts = [len(point.crops) for point in self.points if point.label != self.chosen and point.crops]
        return (min(counts), max(counts)) if counts else (0, 0)

    def fair(self):
        """The choices that were run, each on the crops that all of them share: only these means compare."""
        run = [point for point in self.points if point.crops]
        shared = sorted(set.intersection(*(set(point.crops) for point in run))) if run else []
        return [Point(point.label, tuple(shared), point.at(shared)) for point in run] if shared else []

    def lead(self):
        """(best, next, Interval): the choice with the highest mean and what it has over the paper's.

        Where the paper's choice is the best, the lead is over the runner-up. None where nothing compares. The
        best of k is picked by its mean, so its interval is that of k - 1 comparisons at once (Bonferroni).
        """
        pair = self._pair()
        if pair is None:
            return None
        first, other = pair
        level = 1 - 0.05 / (len(self.fair()) - 1)
        return first.label, other.label, bootstrap(first.gains - other.gains, level=level)

    def needed(self, effect):
        """About how many crops would tell a lead of `effect`, by the spread of the lead; None if unknown."""
        pair = self._pair()
        spread = np.std(pair[0].gains - pair[1].gains, ddof=1) if pair and len(pair[0].crops) > 1 else 0.0
        return pictures_needed(effect, float(spread)) if spread > 0 else None

    def _pair(self):
        """The best choice, and the paper's or (where that is best) the next; None where nothing compares."""
        first, *others = sorted(self.fair(), key=lambda point: -point.gains.mean()) or [None]
        if not others:
            return None
        paper = [point for point in others if point.label == self.chosen]
        return first, (paper or others)[0]

    @property
    def finding(self):
        """In words: which choice is best, by how much, and whether that can be told from chance."""
        if self.lead() is None:
            return "nothing to compare yet"
        first, other, lead = self.lead()
        digits = 2 if self.metric == "psnr" else 4
        bounds = "" if lead.low is None else f" ({lead.low:+.{digits}f} to {lead.high:+.{digits}f})"
        told = "told apart" if lead.sign == 1 else "not told apart"
        unrun = len(self.points) - len(self.fair())
        rest = f"; {unrun} of {len(self.points)} choices not run" if unrun else ""
        return f"{first} is best, {lead.mean:+.{digits}f}{bounds} over {other}, n = {lead.n}, {told}{rest}"


def study(runs, reading, choices, chosen, level, metric="psnr", **fixed):
    """The study of `choices` ({label: settings}) in a reading at a noise level.

    Parameters
    ----------
    runs : list of Record
    reading : "faithful" or "letter"
    choices : dict of dicts, such as `masks` and `values` make
    chosen : the label of the paper's choice
    metric : "psnr", "ssim_2d", ...
    fixed : settings that all choices share beside those of the reading
    """
    arms = {label: select(runs, configured(reading, fixed | changes, STEPS), level)
            for label, changes in choices.items()}
    points = []
    for label, arm in arms.items():
        keys, gains = paired(arm, arms[chosen], metric)
        points.append(Point(label, tuple(key[0] for key in keys), gains))
    failed = tuple(f"{label}, {record.picture}: {record.state}, {record.reason}"
                   for label, arm in arms.items() for record in arm if record.state != "done")
    return Study(reading, float(level), metric, chosen, tuple(points), failed)


def select(runs, method, level, where=WHERE):
    """The runs of a configured method on the crops at a level of Gaussian noise, done and failed."""
    names, settings = set(pictures(where)), method.identity()
    return [record for record in runs
            if record.picture in names and record.noise == "gaussian" and record.level == float(level)
            and record.protocol == "unclipped" and canonical_json(record.settings) == settings]


def threshold_grid(runs, metric="psnr"):
    """Figure 14: what each pair of thresholds gains over the paper's (25, 40), at sigma 25.

    Returns
    -------
    gains : array (7, 7), rows are standout_threshold (epsilon_s), columns detail_threshold (epsilon_g); the
        mean over the crops that all pairs with runs share, NaN where there is no run
    crops : list of these crops
    """
    choices = {(row, column): {"standout_threshold": row, "detail_threshold": column}
               for row in THRESHOLDS for column in THRESHOLDS}
    points = study(runs, "faithful", choices, (25.0, 40.0), 25, metric, mask="distance").fair()
    gains = np.full((7, 7), np.nan)
    for point in points:
        row, column = point.label
        gains[THRESHOLDS.index(row), THRESHOLDS.index(column)] = point.gains.mean()
    return gains, list(points[0].crops) if points else []


def draw(axes, made, unit="dB"):
    """A study on Matplotlib axes: lines are crops, points means with 95 % intervals, zero the paper's."""
    places = range(len(made.points))
    for crop in sorted({crop for point in made.points for crop in point.crops}):
        line = [point.at([crop])[0] if crop in point.crops else np.nan for point in made.points]
        axes.plot(places, line, color="0.75", linewidth=0.8, zorder=1)
    for place, point in zip(places, made.points):
        gain = point.gain()
        if gain.n and point.label != made.chosen:
            error = None if gain.low is None else [[gain.mean - gain.low], [gain.high - gain.mean]]
            axes.errorbar([place], [gain.mean], yerr=error, fmt="o", color="#0072B2", capsize=3, zorder=2)
    axes.axhline(0, color="#D55E00", linewidth=1, zorder=0)
    axes.set_xticks(list(places), [point.label for point in made.points])
    chosen = [point.label for point in made.points].index(made.chosen)
    axes.plot([chosen], [0], "D", color="#D55E00", zorder=3)
    axes.set_xlim(-0.4, len(made.points) - 0.6)
    if made.n == (0, 0):
        axes.set_yticks([])
        axes.text(0.5, 0.6, "not run yet", transform=axes.transAxes, ha="center", color="0.4")
    crops = " to ".join(dict.fromkeys(map(str, made.n)))
    axes.set_title(f"{made.reading}, σ = {made.level:g}, n = {crops}", fontsize=9)
    axes.set_ylabel(f"{unit} above {made.chosen}")


def described(studies):
    """One sentence for the alternative text of a figure of studies."""
    return "; ".join(f"{made.reading}, sigma {made.level:g}: {made.finding}" for made in studies) + "."
