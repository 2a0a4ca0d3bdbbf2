"""A second version of a noisy picture, made of its own patches at half the size (cross-scale refilling).

Each patch is replaced by the patch most like it in the picture shrunk by averaging; overlapping ones are
averaged. What stands there comes from elsewhere and from means of four pixels, so its noise is weaker and
nearly strange to the pixel's own. Source: Guo, Zhang, Ma and Ji, NeurIPS 2025, Section 3.2
(:mod:`b2g.methods.nlr`).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from b2g.groups import reference_positions

_ENTRIES = {"cpu": 2**23, "cuda": 2**27}  # distances worked on at a time


def refilled(noisy: Tensor, patch: int = 8, scale: int = 2) -> Tensor:
    """``noisy`` ``(1, C, H, W)`` with every patch replaced by the nearest one of the picture ``scale``
    times smaller.

    Patches of ``patch`` pixels (or the small picture's shorter side) every quarter of a patch, compared by
    their squared differences over all channels. The time grows with the square of the number of pixels.
    """
    small = F.avg_pool2d(noisy, scale)
    patch = min(patch, *small.shape[-2:])
    rows, columns = (_places(side, patch, noisy.device) for side in noisy.shape[-2:])
    theirs = _patches(small, patch, *(_places(side, patch, noisy.device) for side in small.shape[-2:]))
    found = theirs[_nearest(_patches(noisy, patch, rows, columns), theirs)]
    table = found.view(len(rows), len(columns), noisy.shape[1], patch, patch).permute(2, 0, 1, 3, 4)
    total, count = torch.zeros_like(noisy), torch.zeros_like(noisy)
    for y in range(patch):
        for x in range(patch):
            total[0, :, (rows + y)[:, None], columns + x] += table[..., y, x]
            count[0, :, (rows + y)[:, None], columns + x] += 1
    return total / count


def _places(length: int, patch: int, device: torch.device) -> Tensor:
    """Every quarter of a patch along a side, and the last place, so that every pixel is covered."""
    return torch.tensor(reference_positions(length, patch, max(1, patch // 4)), device=device)


def _patches(picture: Tensor, patch: int, rows: Tensor, columns: Tensor) -> Tensor:
    """The patches at ``rows`` x ``columns`` of ``(1, C, H, W)``: ``(patches, C patch patch)``."""
    views = picture[0].unfold(1, patch, 1).unfold(2, patch, 1)  # (C, y, x, patch, patch)
    return views[:, rows[:, None], columns].permute(1, 2, 0, 3, 4).flatten(2).flatten(0, 1)


def _nearest(own: Tensor, theirs: Tensor) -> Tensor:
    """For each row of ``own`` ``(N, D)`` which row of ``theirs`` ``(M, D)`` is nearest, ``(N,)``."""
    middle = theirs.mean()
    theirs = theirs - middle  # no distance changes, and rounding errors shrink
    energy = theirs.square().sum(1)
    chunk = max(1, _ENTRIES["cuda" if own.is_cuda else "cpu"] // len(theirs))
    parts = own.split(chunk)
    return torch.cat([torch.addmm(energy, some - middle, theirs.T, alpha=-2).argmin(1) for some in parts])
