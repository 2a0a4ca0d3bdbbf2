"""What printed tables say against themselves: each finding is a function from cells to rows, empty if clean.

The cells are `b2g.report.printed.Printed`, or anything with the same attributes. Nothing here knows what is
wrong in the paper; the limits of each search are its arguments.
"""

import math
from collections import Counter, defaultdict
from itertools import combinations
from typing import NamedTuple

import numpy as np
from scipy import stats

from b2g.report.printed import Printed

SPREAD_PSNR, SPREAD_SSIM = 0.05, 0.01  # dB, and in log10(1 - SSIM): spreads below these are rounding
DECIMALS = {"psnr": 2, "ssim": 3}


# --- cells that repeat one another --------------------------------------------------------------------

class Repeat(NamedTuple):
    """Two cells with the same PSNR and the same SSIM."""

    first: Printed
    second: Printed


def _full(cells):
    return [cell for cell in cells if cell.psnr is not None and cell.ssim is not None]


def repeats(cells):
    """All pairs of cells, of whatever row and method, with equal PSNR and equal SSIM."""
    return [Repeat(*pair) for pair in combinations(_full(cells), 2)
            if (pair[0].psnr, pair[0].ssim) == (pair[1].psnr, pair[1].ssim)]


class RepeatedRun(NamedTuple):
    """A method whose cells agree on two data sets at every level (two or more) that both have."""

    method: str
    first: str
    second: str
    levels: tuple


def repeated_runs(cells):
    """Whole runs of a method that stand under two data sets."""
    series, found = _series(_full(cells)), []
    for ((one, noise, method), first), ((other, kind, name), second) in combinations(series.items(), 2):
        levels = sorted(set(first) & set(second), key=float)
        if (noise, method) == (kind, name) and len(levels) > 1 and all(
                (first[at].psnr, first[at].ssim) == (second[at].psnr, second[at].ssim) for at in levels):
            found.append(RepeatedRun(method, one, other, tuple(levels)))
    return found


def _series(cells):
    """(dataset, noise, method) -> level -> cell, where the levels are numbers."""
    series = defaultdict(dict)
    for cell in cells:
        if cell.noise != "real":
            series[cell.dataset, cell.noise, cell.method][cell.level] = cell
    return series


class Chance(NamedTuple):
    """Copies found, copies expected by chance, the probability of as many or more, and that of one pair."""

    copies: int
    expected: float
    probability: float
    share: float


def chance_of_repeats(cells, psnr=0.25, ssim=0.025, alike=None):
    """Would these many copies arise by chance, among the pairs for which ``alike(first, second)`` holds?

    The differences of two cells that are alike (PSNR within `psnr` dB, SSIM within `ssim`) fall on one of
    (2 psnr/0.01 + 1)(2 ssim/0.001 + 1) places; exact equality is one of them. So the number of pairs on the
    other places, over the number of those places, is the number of equal pairs that chance is to make. Copies
    are the cells beyond the first of each value; their number is compared with a Poisson law of that mean.
    ``share`` is the probability that one pair is equal by chance.
    """
    pairs = [pair for pair in combinations(_full(cells), 2) if alike is None or alike(*pair)]
    apart = [(round(abs(a.psnr - b.psnr), 6), round(abs(a.ssim - b.ssim), 6)) for a, b in pairs]
    close = sum((0, 0) != (p, s) and p <= psnr and s <= ssim for p, s in apart)
    places = (2 * round(psnr * 100) + 1) * (2 * round(ssim * 1000) + 1) - 1
    counts = Counter((cell.psnr, cell.ssim) for cell in _full(cells))
    copies, expected = sum(counts.values()) - len(counts), close / places
    share = expected / len(pairs) if pairs else 0.0
    return Chance(copies, expected, float(stats.poisson.sf(copies - 1, expected)), share)


# --- how the figures change with the noise ------------------------------------------------------------

class Step(NamedTuple):
    """From one noise level to the next, for one method on one data set.

    ``psnr`` and ``ssim`` are the changes; ``noise`` that of the noisy picture's own PSNR; ``typical`` the
    median change of PSNR over the methods; ``score`` the distance from it in robust standard deviations.
    """

    before: Printed
    after: Printed
    psnr: float
    ssim: float
    noise: float
    typical: float
    score: float


def steps(cells):
    """All steps between neighbouring noise levels, Gaussian and Poisson."""
    groups = defaultdict(list)
    for (dataset, noise, _), series in _series(_full(cells)).items():
        levels = sorted(series, key=float)
        for low, high in zip(levels, levels[1:]):
            groups[dataset, noise, low, high].append((series[low], series[high]))
    return [step for (_, noise, low, high), pairs in groups.items()
            for step in _scored(noise, low, high, pairs)]


def _scored(noise, low, high, pairs):
    changes = [after.psnr - before.psnr for before, after in pairs]
    # Gaussian noise of twice the sigma has four times the variance; Poisson(lambda x)/lambda has half of it.
    own = -20 * math.log10(float(high) / float(low)) if noise == "gaussian" else 10 * math.log10(
        float(high) / float(low))
    typical, spread = float(np.median(changes)), _spread(changes, SPREAD_PSNR)
    return [Step(before, after, change, after.ssim - before.ssim, own, typical, (change - typical) / spread)
            for (before, after), change in zip(pairs, changes)]


def _spread(values, least):
    """A robust standard deviation: 1.4826 times the median distance from the median, or `least`."""
    return max(least, 1.4826 * float(np.median(np.abs(np.asarray(values) - np.median(values)))))


def not_falling(cells):
    """Steps to more Gaussian noise in which the PSNR or the SSIM does not fall."""
    return [step for step in steps(cells)
            if step.before.noise == "gaussian" and max(step.psnr, step.ssim) >= 0]


def against_the_noise(cells):
    """Steps in which the PSNR falls although the noise, read as Poisson(lambda x)/lambda, gets weaker."""
    return [step for step in steps(cells) if step.noise > 0 and step.psnr < 0]


def odd_steps(cells, limit=6.0):
    """Steps whose change of PSNR is `limit` robust standard deviations from what the other methods show."""
    return [step for step in steps(cells) if abs(step.score) > limit]


def steeper_than_noise(cells):
    """Steps in which the PSNR falls by more than the noisy picture's own: the gain shrinks as noise grows."""
    return [step for step in steps(cells) if step.noise < 0 and step.psnr < step.noise]


# --- PSNR against SSIM --------------------------------------------------------------------------------

class OffCurve(NamedTuple):
    """A cell whose SSIM is not the one that its PSNR has elsewhere on the same data set."""

    cell: Printed
    expected: float
    score: float


def off_the_curve(cells, limit=5.0):
    """Cells whose SSIM lies far from the data set's own relation between PSNR and SSIM.

    On one data set log10(1 - SSIM) falls about linearly with the PSNR; the line is fitted by medians (Theil
    and Sen), so that a fifth of the cells may be foreign. The score is the distance in robust standard
    deviations, negative where the SSIM is *lower* than expected. Table 5 mixes raw and sRGB and is left out.
    """
    groups = defaultdict(list)
    for cell in _full(cells):
        if cell.noise != "real":
            groups[cell.dataset].append(cell)
    return [row for group in groups.values() for row in _fitted(group) if abs(row.score) > limit]


def _fitted(group):
    psnr = np.array([cell.psnr for cell in group])
    loss = np.log10(1 - np.array([cell.ssim for cell in group]))
    slope = stats.theilslopes(loss, psnr)[0] if len(set(psnr)) > 1 else 0.0
    line = slope * psnr + np.median(loss - slope * psnr)
    scores = (line - loss) / _spread(loss - line, SPREAD_SSIM)
    return [OffCurve(cell, float(1 - 10**at), float(score)) for cell, at, score in zip(group, line, scores)]


# --- single cells -------------------------------------------------------------------------------------

class OddDecimals(NamedTuple):
    """A figure with another number of decimals than its kind has."""

    cell: Printed
    metric: str
    text: str


def odd_decimals(cells):
    """PSNRs without exactly two decimals, SSIMs without exactly three."""
    texts = [(cell, metric, getattr(cell, f"{metric}_text")) for cell in _full(cells) for metric in DECIMALS]
    return [OddDecimals(*row) for row in texts if len(row[2].partition(".")[2]) != DECIMALS[row[1]]]


class NearNoise(NamedTuple):
    """A cell beside the noisy picture's own PSNR, as it is and with its values clipped to the pixel range."""

    cell: Printed
    noisy: float
    clipped: float


def noisy_psnr(sigma):
    """PSNR [dB] of a picture with Gaussian noise of `sigma`, 0 to 255, not clipped: 20 log10(255 / sigma)."""
    return 20 * math.log10(255 / sigma)


def clipped_two_valued_psnr(sigma):
    """PSNR [dB] of a noisy *black and white* picture after clipping to [0, 255]: the best case of clipping.

    At a black pixel the negative half of the noise becomes 0, so E n^2 is half of sigma^2, less what lies
    above 255: sigma^2 (Phi(t) - 1/2 - t phi(t)) + 255^2 (1 - Phi(t)), with t = 255 / sigma. White mirrors it.
    """
    t = 255 / sigma
    inside = stats.norm.cdf(t) - 0.5 - t * stats.norm.pdf(t)
    return -10 * math.log10((inside * sigma**2 + 255**2 * stats.norm.sf(t)) / 255**2)


def near_noise(cells, margin=6.0):
    """Cells under Gaussian noise that lie less than `margin` dB above the noisy picture, or below it."""
    rows = [NearNoise(cell, noisy_psnr(float(cell.level)), clipped_two_valued_psnr(float(cell.level)))
            for cell in _full(cells) if cell.noise == "gaussian"]
    return [row for row in rows if row.cell.psnr - row.noisy < margin]
