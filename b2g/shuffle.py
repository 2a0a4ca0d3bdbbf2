"""Pixel-shuffle downsampling: a picture as the stride^2 smaller pictures of every stride-th pixel, and back.

A camera's noise is alike in neighbouring pixels, since demosaicking and denoising in the camera mix them. In
a smaller picture neighbours were ``stride`` pixels apart, so their noise is nearly independent; the price is
aliasing. Nothing is averaged and nothing is lost. Source: Zhou et al., AAAI 2020,
doi 10.48550/arXiv.1904.03485.
"""

from __future__ import annotations

from typing import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from b2g.errors import B2GError

LEAST = 3  # pixels of a part's side in :func:`in_parts`


def shuffle_down(picture: Tensor, stride: int) -> Tensor:
    """``(B, C, H, W)`` to ``(B stride^2, C, h, w)``, where h and w are H / stride and W / stride, rounded up.

    Part ``stride^2 b + stride i + j`` holds the pixels ``[b, :, i::stride, j::stride]``. Sides that are no
    multiple of ``stride`` grow by reflection at the right and at the bottom. Refused: a stride below 1 or
    longer than a side.
    """
    batch, channels, height, width = picture.shape
    if not 1 <= stride <= min(height, width):
        raise B2GError(f"the stride must lie between 1 and the picture's shorter side, not be {stride}.")
    grown = F.pad(picture, (0, -width % stride, 0, -height % stride), mode="reflect")
    parts = F.pixel_unshuffle(grown, stride).unflatten(1, (channels, stride**2))
    return parts.transpose(1, 2).flatten(0, 1).contiguous()


def shuffle_up(parts: Tensor, stride: int, height: int, width: int) -> Tensor:
    """The inverse: ``(B stride^2, C, h, w)`` to ``(B, C, height, width)``;
    what reflection added is cropped."""
    if len(parts) % stride**2:
        raise B2GError(f"parts of stride {stride} come {stride**2} to a picture; {len(parts)} do not.")
    grouped = parts.unflatten(0, (-1, stride**2)).transpose(1, 2).flatten(1, 2)
    return F.pixel_shuffle(grouped, stride)[..., :height, :width]


def in_parts(run: Callable[[Tensor], Tensor], picture: Tensor, stride: int, pad: int = 2) -> Tensor:
    """``run`` on every ``stride``-th pixel of ``picture`` ``(B, C, H, W)``, put together again: the same
    shape.

    Each part stands in a frame of ``pad`` zeros. A picture that is no multiple of ``stride`` grows by
    repeated border pixels, which fall into other parts than their originals: the answer stays blind to its
    own pixel. A picture whose parts would be smaller than 3 pixels takes a smaller stride.
    """
    height, width = picture.shape[-2:]
    stride = max(1, min(stride, height // LEAST, width // LEAST))
    grown = F.pad(picture, (0, -width % stride, 0, -height % stride), mode="replicate")
    answer = run(F.pad(shuffle_down(grown, stride), (pad,) * 4))
    answer = answer[..., pad : answer.shape[-2] - pad, pad : answer.shape[-1] - pad]
    return shuffle_up(answer, stride, height, width)


def to_mosaic(picture: Tensor, stride: int) -> Tensor:
    """``(B, C, H, W)`` to ``(B, C, stride h, stride w)``:
    the parts of :func:`shuffle_down` as the tiles of one picture.

    Every second tile is mirrored, so that tiles meet in pixels that are alike,
    and a network sees no false edge.
    """
    parts = shuffle_down(picture, stride).unflatten(0, (-1, stride, stride))
    tiles = [[_mirrored(parts[:, i, j], i, j) for j in range(stride)] for i in range(stride)]
    return torch.cat([torch.cat(row, -1) for row in tiles], -2)


def from_mosaic(mosaic: Tensor, stride: int, height: int, width: int) -> Tensor:
    """The inverse of :func:`to_mosaic`: ``(B, C, height, width)``."""
    tiles = [row.chunk(stride, -1) for row in mosaic.chunk(stride, -2)]
    parts = torch.stack([_mirrored(tiles[i][j], i, j) for i in range(stride) for j in range(stride)], 1)
    return shuffle_up(parts.flatten(0, 1), stride, height, width)


def _mirrored(tile: Tensor, row: int, column: int) -> Tensor:
    """The tile of this place, mirrored along each axis on which its number is odd; its own inverse."""
    return tile.flip([axis for axis, number in ((-2, row), (-1, column)) if number % 2])
