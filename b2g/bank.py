"""The nearest patches of every pixel: where they are, and the bank of their middle pixels.

Not :mod:`b2g.groups`, which groups around a grid of patches by one channel: here every pixel has a search
window of its own, at the borders too, and all channels count.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_ENTRIES = {"cpu": 2**23, "cuda": 2**27}  # numbers in the largest table of a band of rows: 32 and 512 MiB


def nearest_pixels(picture: Tensor, patch: int, window: int, count: int) -> Tensor:
    """For every pixel of ``picture`` ``(1, C, H, W)`` the ``count`` pixels with the most similar
    surroundings.

    Positions ``(count, H, W)`` as ``row W + column``, the nearest first. Surroundings are squares of
    ``patch`` (odd) pixels over all channels, mirrored at the borders, compared by their sum of squared
    differences. Candidates lie inside the picture, ``window // 2`` pixels before to ``(window - 1) // 2``
    behind; the pixel itself comes first. Fewer than ``count`` where a small picture has no more.
    """
    height, width = picture.shape[-2:]
    before, behind = window // 2, (window - 1) // 2
    fewest = [min(side, 1 + min(before, behind), window) for side in (height, width)]
    count = min(count, fewest[0] * fewest[1])
    reach = patch // 2
    mirrored = F.pad(picture, (reach,) * 4, mode="reflect")[0]
    field = F.pad(mirrored, (before, behind, before, behind))
    row = window * picture.shape[1] * (width + 2 * reach)
    band = max(1, _ENTRIES["cuda" if picture.is_cuda else "cpu"] // row - 2 * reach)
    bands, sizes = torch.arange(height).split(band), (patch, window, count)
    found = [_of_rows(mirrored, field, rows, sizes) for rows in bands]
    return torch.cat(found, 1)


def _of_rows(mirrored: Tensor, field: Tensor, rows: Tensor, sizes: tuple[int, int, int]) -> Tensor:
    """:func:`nearest_pixels` of some ``rows``, one offset downward and all offsets across at a time."""
    patch, window, count = sizes
    first, many, border = int(rows[0]), len(rows), patch - 1
    height, width = (side - border for side in mirrored.shape[-2:])
    count_up = lambda length: torch.arange(length, device=mirrored.device)  # noqa: E731
    across = count_up(window)[:, None] - window // 2 + count_up(width)  # columns, (window, W)
    own = mirrored[:, first : first + many + border, :, None]
    best = positions = None
    for down in range(window):
        target = count_up(many) + first + down - window // 2  # rows, (many,)
        others = field[:, first + down : first + down + many + border].unfold(2, window, 1)
        square = (own - others).square().sum(0).movedim(-1, 0)[:, None]
        distance = F.avg_pool2d(F.avg_pool2d(square, (patch, 1), 1), (1, patch), 1)[:, 0]
        inside = ((across >= 0) & (across < width))[:, None] & ((target >= 0) & (target < height))[:, None]
        distance = torch.where(inside, distance, torch.inf)
        if down == window // 2:
            distance[window // 2] = -1.0  # before its doubles
        place = (target[:, None] * width + across[:, None]).expand_as(distance)
        if best is not None:
            distance, place = torch.cat((best, distance)), torch.cat((positions, place))
        best, order = distance.topk(min(count, len(distance)), dim=0, largest=False, sorted=True)
        positions = place.gather(0, order)
    return positions


def pixel_bank(picture: Tensor, positions: Tensor) -> Tensor:
    """The pixels of ``picture`` ``(1, C, H, W)`` at ``positions`` ``(count, H, W)``: ``(count, C, H, W)``."""
    values = picture[0].flatten(1)[:, positions.flatten()]
    return values.unflatten(1, positions.shape).movedim(1, 0).contiguous()
