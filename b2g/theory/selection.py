r"""What the dual mask's detail test does to the noise that stays masked (Eq. 3.1 against Eq. 4.6)."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class SelectedNoise:
    """The noise of the pixels that a detail test leaves masked: how many, its mean, its mean square."""

    probability: float
    mean: float
    mean_square: float


def selected_noise(offset: float, threshold: float, sigma: float) -> SelectedNoise:
    r"""Moments of :math:`n \sim N(0, \sigma^2)` given :math:`|n + b| < t` (Eq. 3.1 against Eq. 4.6).

    The detail index spares a pixel where :math:`|y - x_m| \ge t`, so with ``offset`` :math:`b = x - x_m` and
    ``threshold`` t these are the moments of the noise left under the mask. All in one unit. The mean
    vanishes, and Eq. 4.6 survives, where b is 0.
    """
    low, high = (-threshold - offset) / sigma, (threshold - offset) / sigma
    density = [math.exp(-(u**2) / 2) / math.sqrt(2 * math.pi) for u in (low, high)]
    mass = 0.5 * (math.erf(high / math.sqrt(2)) - math.erf(low / math.sqrt(2)))
    mean = sigma * (density[0] - density[1]) / mass
    square = sigma**2 * (1 + (low * density[0] - high * density[1]) / mass)
    return SelectedNoise(mass, mean, square)


def pull_to_estimate(threshold: float, sigma: float) -> float:
    r"""How far the masked pixels' target moves from x toward the estimate :math:`x_m`, as a share of the way.

    The mean of y among masked pixels is :math:`x - \kappa (x - x_m)` to first order, with
    :math:`\kappa = 2 \tau \varphi(\tau) / P(|z| < \tau)`, :math:`\tau = t / \sigma`.
    """
    tau = threshold / sigma
    return 2 * tau * math.exp(-(tau**2) / 2) / math.sqrt(2 * math.pi) / math.erf(tau / math.sqrt(2))
