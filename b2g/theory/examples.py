"""Denoisers whose every property is known: the subjects of the theory's experiments."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from b2g.errors import B2GError
from b2g.theory.invariance import Denoiser


def gaussian_kernel(width: float, dtype: torch.dtype = torch.float64) -> Tensor:
    """A Gaussian of standard deviation ``width`` pixels, cut at three of them, of sum 1: ``(1, 1, S, S)``."""
    if not width > 0:
        raise B2GError(f"width must be a positive number of pixels, not {width}.")
    radius = max(1, round(3 * width))
    offsets = torch.arange(-radius, radius + 1, dtype=dtype)
    line = torch.exp(-(offsets**2) / (2 * width**2))
    kernel = line[:, None] * line[None, :]
    return (kernel / kernel.sum())[None, None]


def gaussian_average(width: float = 1.0) -> Denoiser:
    """The smallest honest denoiser: each value becomes the Gaussian mean of the kept values around it.

    It is linear in the picture, blind on every masked value, and not blind on kept ones.
    """

    def denoise(image: Tensor, mask: Tensor) -> Tensor:
        kernel = gaussian_kernel(width, image.dtype)
        shape, pad = image.shape, kernel.shape[-1] // 2
        kept = (image * mask).reshape(-1, 1, *shape[-2:])
        weight = mask.expand(shape).reshape(-1, 1, *shape[-2:])
        total = F.conv2d(kept, kernel, padding=pad)
        weight = F.conv2d(weight, kernel, padding=pad).clamp_min(1e-12)
        return (total / weight).reshape(shape)

    return denoise


def identity_map(image: Tensor, mask: Tensor) -> Tensor:
    """f(y) = y: unbiased, and as far from J-invariant as a function can be."""
    return image


def pointwise_unbiased(clean: Tensor, sigma: float) -> Denoiser:
    r"""A function that meets conditions (i) to (iii) of Theorem 1 as printed, and refutes it.

    .. math:: f(v)_i = v_i + x_i \Bigl(1 - \frac{v_i^2}{x_i^2 + \sigma^2}\Bigr)

    It is continuous; each value depends on its own pixel only; under noise of standard deviation ``sigma``
    (in the units of ``clean``) its mean is :math:`x_i`, and where the mask wrote 0 it answers :math:`x_i`.
    """
    power = clean**2 + sigma**2

    def denoise(image: Tensor, mask: Tensor) -> Tensor:
        return image + clean * (1.0 - image**2 / power)

    return denoise
