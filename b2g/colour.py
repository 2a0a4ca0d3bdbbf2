"""Opponent colours: one channel of brightness, two of colour, orthonormal, so that white noise stays white.

The colour channels of photographs vary less than their brightness; a denoiser that treats each of the three
by itself may average more over colour. The same step is what CBM3D takes (Dabov et al., ICIP 2007,
doi 10.1109/ICIP.2007.4378954).
"""

from __future__ import annotations

import torch
from torch import Tensor

COLOURS = ("joint", "opponent")
# Rows: brightness, red against blue, green against both; each of length 1 and at right angles to the others.
_ROWS = ((3**-0.5, 3**-0.5, 3**-0.5), (2**-0.5, 0.0, -(2**-0.5)), (6**-0.5, -2 * 6**-0.5, 6**-0.5))


def _rows(like: Tensor) -> Tensor:
    return torch.tensor(_ROWS, dtype=like.dtype, device=like.device)


def to_opponent(picture: Tensor) -> Tensor:
    """``(H, W, 3)`` red, green, blue to ``(H, W, 3)`` opponent colours;
    any other number of channels is left as it is."""
    return picture if picture.shape[-1] != 3 else picture @ _rows(picture).T


def from_opponent(picture: Tensor) -> Tensor:
    """The inverse of :func:`to_opponent`."""
    return picture if picture.shape[-1] != 3 else picture @ _rows(picture)


def mixed_variance(variance: Tensor) -> Tensor:
    """The variance ``(H, W, 3)`` of independent noise after :func:`to_opponent`."""
    return variance if variance.shape[-1] != 3 else variance @ (_rows(variance) ** 2).T


def channels(*pictures: Tensor) -> list[tuple[Tensor, ...]]:
    """The pictures ``(H, W, C)`` channel by channel, each ``(H, W, 1)``."""
    return list(zip(*(picture.split(1, dim=-1) for picture in pictures)))
