r"""Letting the noisy pixel back in: the posterior mean of a blind estimate and the pixel it was blind to.

Where an estimate f is blind to the noise of its pixel y, its mean square residual R = E (f - y)^2 is the
variance of its own error plus sigma^2. So the error's variance can be told without the clean picture, and the
best mix of the two is

.. math:: f + w (y - f), \qquad w = \max(0,\; 1 - \sigma^2 / R).

The idea is that of Laine et al. (NeurIPS 2019), whose network also gives the error's variance;
here it is measured.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from b2g.errors import B2GError

POSTERIORS = ("none", "global", "local")
_RADIUS = 8  # of the square over which "local" measures the residual


def posterior_mean(estimate: Tensor, noisy: Tensor, sigma: float, kind: str = "global") -> Tensor:
    """Mix ``noisy`` into the blind ``estimate``, both ``(B, C, H, W)``; ``sigma`` in the pictures' units.

    ``kind``: one weight a picture (``"global"``), or one a pixel, from the residual of all channels in the
    square of 17 x 17 pixels around it (``"local"``): more of the noisy picture where the estimate misses
    texture.
    """
    if kind not in POSTERIORS:
        raise B2GError(f"posterior must be one of {', '.join(POSTERIORS)}, not {kind!r}.")
    if kind == "none":
        return estimate
    square = (estimate - noisy).square().mean(1, keepdim=True)
    if kind == "global":
        residual = square.mean((-2, -1), keepdim=True)
    else:
        ones = F.pad(square.new_ones(square.shape), (_RADIUS,) * 4)
        side = 2 * _RADIUS + 1
        residual = F.avg_pool2d(F.pad(square, (_RADIUS,) * 4), side, 1) / F.avg_pool2d(ones, side, 1)
    weight = (1 - sigma**2 / residual.clamp_min(1e-12)).clamp_min(0)
    return estimate + weight * (noisy - estimate)
