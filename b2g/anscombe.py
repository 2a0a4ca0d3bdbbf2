"""Poisson noise made Gaussian: the Anscombe transform, its exact unbiased inverse, and the number of photons.

References
----------
Makitalo and Foi, IEEE Trans. Image Processing 20(1), 2011, doi 10.1109/TIP.2010.2056693 (the inverse).
"""

from __future__ import annotations

from typing import Callable

import numpy as np
import torch
from scipy.special import gammaln
from torch import Tensor

from b2g.errors import B2GError
from b2g.noise import estimate_sigma

_SERIES_UP_TO = 100.0  # mean count beyond which the asymptotic inverse takes over
_FAINT = 1e-5  # less than this is not noise but the rounding of float32


def anscombe(counts: Tensor) -> Tensor:
    """2 sqrt(k + 3/8): the standard deviation is 1, nearly, for Poisson counts k of mean 4 and more."""
    return 2 * (counts + 3 / 8).clamp_min(0).sqrt()


def expected_anscombe(mean: np.ndarray) -> np.ndarray:
    """E 2 sqrt(k + 3/8) for k ~ Poisson(``mean``), by its series in float64; ``(N,)``."""
    mean = np.asarray(mean, dtype=float)
    top = mean.max()
    counts = np.arange(int(top + 12 * np.sqrt(top) + 30))
    with np.errstate(divide="ignore", invalid="ignore"):
        powers = np.where(counts == 0, 0.0, counts * np.log(mean[:, None]))
    return np.exp(powers - mean[:, None] - gammaln(counts + 1)) @ (2 * np.sqrt(counts + 3 / 8))


def inverse_anscombe(stabilised: Tensor) -> Tensor:
    """The exact unbiased inverse: the mean count whose :func:`expected_anscombe` is ``stabilised``.

    Tabulated up to a mean of 100; beyond, D^2 / 4 - 1/8, for the next term of that series, in D^-2, is zero.
    Below the value that no photon has it is 0.
    """
    means = np.linspace(0, np.sqrt(_SERIES_UP_TO), 2001) ** 2
    table, value = expected_anscombe(means), stabilised.detach().cpu().double().numpy()
    counts = np.where(value < table[-1], np.interp(value, table, means), value**2 / 4 - 1 / 8)
    return torch.from_numpy(counts).to(stabilised)


def through_gaussian(noisy: Tensor, photons: float, denoise: Callable[[Tensor, float], Tensor]) -> Tensor:
    """Denoise counts over ``photons`` by ``denoise(picture, sigma)`` for Gaussian noise, sigma on 0..255.

    The transformed picture is scaled to about [0, 1]: white, nearly, becomes 1.
    """
    scale = 2 * photons**0.5
    return inverse_anscombe(denoise(anscombe(noisy * photons) / scale, 255 / scale) * scale) / photons


def estimate_photons(noisy) -> float:
    """Photons at white of a picture y = k / photons, from the picture alone.

    Where the number is right, sqrt(y + 3 / (8 photons)) has the standard deviation 1 / (2 sqrt(photons))
    everywhere; so that standard deviation, found by :func:`b2g.noise.estimate_sigma`, gives the next number,
    until it stays. Below some four photons a pixel the transform stabilises less, and the number comes out
    too high.
    """
    values = torch.as_tensor(noisy).float().clamp_min(0)
    photons = 1e3
    for _ in range(8):
        sigma = estimate_sigma((values + 3 / 8 / photons).sqrt()) / 255
        if not sigma > _FAINT:
            raise B2GError("the picture shows no Poisson noise to count photons by; give photons.")
        before, photons = photons, 1 / (4 * sigma**2)
        if abs(photons / before - 1) < 1e-3:
            break
    return photons
