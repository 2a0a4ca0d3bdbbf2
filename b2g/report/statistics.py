"""How sure a mean over pictures is: paired differences, bootstrap intervals, and how many pictures suffice.

The unit is the picture: repeats of one picture share its content, so they are averaged before any counting.
"""

import math
from collections import defaultdict
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from b2g.errors import B2GError

METRICS = ("psnr", "psnr_8bit", "ssim_2d", "ssim_matlab_volume", "lpips")


@dataclass(frozen=True)
class Interval:
    """A mean of ``n`` values with its confidence interval; ``low`` and ``high`` are None where n < 2."""

    mean: float | None
    low: float | None
    high: float | None
    n: int

    @property
    def sign(self):
        """1 or -1 where the interval lies above or below zero, 0 where it holds zero, None where none is."""
        if self.low is None:
            return None
        return 1 if self.low > 0 else -1 if self.high < 0 else 0


def paired(first, second, metric="psnr"):
    """Differences ``first - second`` of a metric over the noisy pictures that both sides have.

    Records are paired by picture, noise, level, repeat and protocol; only runs that are done and have the
    metric count. Several records of one side on one noisy picture (other devices, say) are averaged, then the
    differences of a picture's repeats.

    Parameters
    ----------
    first, second : iterables of Record
    metric : one of METRICS

    Returns
    -------
    keys : list of (picture, noise, level, protocol), sorted
    differences : float64 array, one value a key

    A picture at two levels gives two keys, which are not independent: to pool levels, pass the differences
    through `per_picture` before `bootstrap`.
    """
    ours, theirs = _means(first, metric), _means(second, metric)
    repeats = defaultdict(list)
    for key in ours.keys() & theirs.keys():
        picture, noise, level, _, protocol = key
        repeats[picture, noise, level, protocol].append(ours[key] - theirs[key])
    keys = sorted(repeats)
    return keys, np.array([np.mean(repeats[key]) for key in keys], dtype=np.float64)


def per_picture(keys, values):
    """The mean value of each picture over all else in its keys; a float64 array, one value a picture."""
    groups = defaultdict(list)
    for key, value in zip(keys, values, strict=True):
        groups[key[0]].append(value)
    return np.array([np.mean(group) for group in groups.values()], dtype=np.float64)


def picture_means(records, metric="psnr"):
    """{picture: mean over its records} of the runs that are done and have the metric, sorted by name."""
    means = _means(records, metric)
    groups = defaultdict(list)
    for key in sorted(means):
        groups[key[0]].append(means[key])
    return {picture: float(np.mean(values)) for picture, values in groups.items()}


def _means(records, metric):
    if metric not in METRICS:
        raise B2GError(f"There is no metric {metric!r} in the records: choose one of {', '.join(METRICS)}.")
    groups = defaultdict(list)
    for record in records:
        value = getattr(record, metric)
        if record.state == "done" and value is not None:
            groups[record.key].append(value)
    return {key: float(np.mean(values)) for key, values in groups.items()}


def bootstrap(values, draws=10_000, seed=0, level=0.95):
    """The mean of ``values`` (one a picture) with its percentile bootstrap interval.

    Plain percentiles are too narrow for few pictures (at n = 9 a "95 %" interval covers 90 %), so they are
    expanded as Hesterberg (The American Statistician 69(4), 2015, Section 4.3) does: for normal values the
    interval becomes Student's. Resampling n values covers at most 1 - 2^(1-n), the whole range; where that is
    less than `level` (fewer than six values at 95 %), the interval is Student's itself.

    Returns
    -------
    Interval, without bounds where there are fewer than two values.

    Raises
    ------
    B2GError
        If a value is not finite.
    """
    values = np.asarray(list(values), dtype=np.float64)
    n, mean = len(values), float(values.mean()) if len(values) else None
    if not np.isfinite(values).all():
        raise B2GError("bootstrap takes finite values: leave the failed runs out, and count them.")
    if n < 2:
        return Interval(mean, None, None, n)
    if 1 - 2.0 ** (1 - n) < level:
        reach = student_reach(n, level) * float(values.std(ddof=1)) / math.sqrt(n)
        return Interval(mean, mean - reach, mean + reach, n)
    from scipy.stats import bootstrap as resample

    found = resample((values,), np.mean, n_resamples=draws, method="percentile", vectorized=True,
                     confidence_level=expanded_level(n, level), random_state=seed).confidence_interval
    return Interval(mean, float(found.low), float(found.high), n)


def student_reach(n, level=0.95):
    """How many standard errors Student's interval for the mean of ``n`` values reaches to either side."""
    from scipy.stats import t

    return float(t.ppf((1 + level) / 2, n - 1))


def expanded_level(n, level=0.95):
    """The nominal level at which percentiles of ``n`` resampled values reach as far as Student's interval."""
    return 2 * NormalDist().cdf(math.sqrt(n / (n - 1)) * student_reach(n, level)) - 1


def power(effect, spread, n, level=0.95):
    """The chance that ``n`` pictures tell a true difference ``effect`` from zero (normal approximation).

    ``spread`` is the standard deviation of the differences between pictures, in the unit of ``effect``.
    """
    _check_spread(spread)
    normal, shift = NormalDist(), abs(effect) * math.sqrt(n) / spread
    threshold = normal.inv_cdf((1 + level) / 2)
    return normal.cdf(shift - threshold) + normal.cdf(-shift - threshold)


def pictures_needed(effect, spread, chance=0.8, level=0.95):
    """How many pictures tell a true difference ``effect`` from zero with this chance (normal approximation).

    n = ((z_level + z_chance) spread / effect)^2, rounded up, and at least 2.
    """
    _check_spread(spread)
    if not effect:
        raise B2GError("No number of pictures tells a difference of zero: name the effect to be seen.")
    normal = NormalDist()
    reach = normal.inv_cdf((1 + level) / 2) + normal.inv_cdf(chance)
    return max(2, math.ceil((reach * spread / abs(effect)) ** 2))


def _check_spread(spread):
    if not (math.isfinite(spread) and spread > 0):
        raise B2GError(f"The spread of the differences must be a positive number, not {spread}.")
