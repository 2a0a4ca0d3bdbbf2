"""Groups of similar patches: block matching around reference patches on a regular grid.

A patch is a ``p x p`` square over all channels; its *position* is its upper left pixel. Positions are
numbered row by row: ``row * (W - p + 1) + column``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

_TILE = 8  # reference patches along a side of a tile, whose distances are one matrix product


@dataclass(frozen=True)
class Groups:
    """The ``k`` patches most like each reference patch: their positions, ``index`` ``(rows, columns, k)``.

    ``spans`` names, for each row of references, the first and the last row of positions that its windows
    reach.
    """

    index: Tensor
    patch: int
    shape: tuple[int, int]
    spans: list[tuple[int, int]]


def reference_positions(length: int, patch: int, stride: int) -> list[int]:
    """Every ``stride``-th position along a side, and the last one, so that every pixel is in some patch."""
    stride, last = min(stride, patch), length - patch  # a larger stride would leave gaps
    found = list(range(0, last + 1, stride))
    return found if found[-1] == last else [*found, last]


def group_size(shape: tuple[int, int], patch: int, window: int, wanted: int) -> int:
    """``wanted``, or as many positions as the window around a corner of the picture holds: the fewest."""
    reach = window // 2 + 1
    return min(wanted, min(shape[0] - patch + 1, reach) * min(shape[1] - patch + 1, reach))


def find_groups(guide: Tensor, patch: int, window: int, stride: int, wanted: int) -> Groups:
    """Block matching by the Euclidean distance of the patches of ``guide`` ``(H, W)``.

    For a reference patch every ``stride`` pixels: the ``wanted`` nearest of the patches whose positions lie
    in the ``window`` x ``window`` square (odd) around its own, itself among them; fewer where a small picture
    has no more.
    """
    height, width = guide.shape
    rows, columns = (reference_positions(side, patch, stride) for side in guide.shape)
    field = _Field(guide, patch, window // 2, group_size((height, width), patch, window, wanted))
    found = torch.cat([
        torch.cat([field.nearest(ys, xs) for xs in _even_runs(columns)], dim=1) for ys in _even_runs(rows)
    ])  # fmt: skip
    reach, last = window // 2, height - patch
    return Groups(found, patch, (height, width), [(max(0, y - reach), min(last, y + reach)) for y in rows])


def _even_runs(positions: list[int]) -> list[list[int]]:
    """The evenly spaced part, and the last position by itself where it is out of step."""
    even = len(positions) < 3 or positions[-1] - positions[-2] == positions[1] - positions[0]
    return [positions] if even else [positions[:-1], positions[-1:]]


class _Field:
    """A picture ready for block matching; positions outside of it are at infinite distance."""

    def __init__(self, guide: Tensor, patch: int, reach: int, count: int):
        self.patch, self.reach, self.window, self.count = patch, reach, 2 * reach + 1, count
        self.guide = guide - guide.mean()  # no distance changes, and rounding errors shrink
        square = self.guide[None, None] ** 2
        self.energy = F.avg_pool2d(square, patch, 1, divisor_override=1)[0, 0]  # |patch|^2 at every position

    def nearest(self, ys: list[int], xs: list[int]) -> Tensor:
        """Nearest positions of references at evenly spaced ``ys`` x ``xs``: ``(len(ys), len(xs), count)``."""
        step = [run[1] - run[0] if len(run) > 1 else 1 for run in (ys, xs)]
        tile = [min(_TILE, len(run)) for run in (ys, xs)]
        tiles = [-(-len(run) // t) for run, t in zip((ys, xs), tile)]
        ends = [(n * t - 1) * s + self.window for n, t, s in zip(tiles, tile, step)]
        # From here on, (0, 0) is the first position of the first reference's window.
        corner = (ys[0] - self.reach, xs[0] - self.reach)
        image = _cut(self.guide, corner, [end + self.patch - 1 for end in ends], 0.0)
        energy = _cut(self.energy, corner, ends, float("inf"))
        starts = range(0, tiles[0] * tile[0] * step[0], tile[0] * step[0])
        found = torch.cat([self._tiles(image[y:], energy[y:], tiles[1], tile, step) for y in starts])
        down, along = (
            torch.arange(n * t, device=found.device) * s + c for n, t, s, c in zip(tiles, tile, step, corner)
        )
        row, column = found // self.window + down[:, None, None], found % self.window + along[:, None]
        return (row * self.energy.shape[1] + column)[: len(ys), : len(xs)]

    def _tiles(self, image: Tensor, energy: Tensor, count: int, tile: list[int], step: list[int]) -> Tensor:
        """A row of ``count`` tiles: the nearest patches, numbered within the window of each reference."""
        p, window, jump = self.patch, self.window, tile[1] * step[1]
        i, e, area = image.stride(0), energy.stride(0), [(t - 1) * s + window for t, s in zip(tile, step)]
        cut = lambda plane, size, stride, start=0: torch.as_strided(  # noqa: E731
            plane, (count, *size), (jump, *stride), plane.storage_offset() + start
        )
        own = cut(image, (*tile, p, p), (i * step[0], step[1], i, 1), self.reach * (i + 1))
        others = cut(image, (p, p, *area), (i, 1, i, 1)).reshape(count, p * p, -1)
        level = cut(energy, (1, *area), (0, e, 1)).reshape(count, 1, -1)
        # |a - b|^2 = |a|^2 + |b|^2 - 2 ab, and |a|^2 is the same for all patches b that a is compared with.
        distance = torch.baddbmm(level, own.reshape(count, -1, p * p), others, alpha=-2)
        row = area[0] * area[1]  # of ``distance``: one reference against every position of its tile
        windows = torch.as_strided(distance, (count, *tile, window, window), (
            tile[0] * tile[1] * row, tile[1] * row + step[0] * area[1], row + step[1], area[1], 1,
        )).reshape(count, *tile, window**2)  # fmt: skip
        windows[..., window**2 // 2] = -float("inf")  # the reference comes before its doubles
        nearest = windows.topk(self.count, largest=False, sorted=False).indices
        return nearest.transpose(0, 1).reshape(tile[0], count * tile[1], self.count)


def _cut(plane: Tensor, corner: tuple[int, int], size: list[int], fill: float) -> Tensor:
    """The rectangle of ``plane`` from ``corner`` on, ``fill`` where it reaches beyond."""
    (y, x), (height, width) = corner, size
    right, below = x + width - plane.shape[1], y + height - plane.shape[0]
    padded = F.pad(plane, (max(0, -x), max(0, right), max(0, -y), max(0, below)), value=fill)
    y, x = max(0, y), max(0, x)
    return padded[y : y + height, x : x + width].contiguous()
