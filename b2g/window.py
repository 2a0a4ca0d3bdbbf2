"""Windows: a step may look at a random square of a large picture; the answers are averaged where they fall.

The cost of a step is then that of the square, whatever the picture's size. Positions are drawn and applied on
the picture's device, so that a GPU's loop never waits for the host.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from b2g.errors import B2GError

MARGIN = 8  # pixels at a window's inner borders whose answers are not averaged: the network saw one side of them only


@dataclass(frozen=True)
class Part:
    """An answer ``picture`` ``(1, C, h, w)`` to the window of these ``rows`` ``(h,)``
    and ``columns`` ``(w,)``."""

    picture: Tensor
    rows: Tensor
    columns: Tensor


def draw_window(size: tuple[int, int], side: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Rows ``(h,)`` and columns ``(w,)`` of a square of ``side`` pixels (0:
    the whole picture) within ``size``.

    The square's middle is drawn evenly over the picture, and the square is moved inside: so a corner is as
    likely to be seen as a fourth of the middle, and not almost never.
    """
    device = generator.device
    found = []
    for length in size:
        span = min(side, length) if side else length
        first = torch.zeros((), dtype=torch.long, device=device)
        if span < length:
            middle = torch.randint(length, (), generator=generator, device=device)
            first = (middle - span // 2).clamp(0, length - span)
        found.append(first + torch.arange(span, device=device))
    return tuple(found)


def cut(picture: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The window of ``picture`` ``(B, C, H, W)``: ``(B, C, h, w)``, channels last."""
    if len(rows) < picture.shape[-2]:
        picture = picture.index_select(-2, rows)
    if len(columns) < picture.shape[-1]:
        picture = picture.index_select(-1, columns)
    return picture.contiguous(memory_format=torch.channels_last)


class Canvas:
    """The running average of answers to windows, pixel by pixel: each pixel's own exponential mean,
    without bias.

    As :class:`b2g.fit.RunningAverage`, whose place it takes in the engine. ``decay`` counts the answers at a
    pixel, not the steps. Where nothing fell yet, ``value`` is the ``noisy`` picture ``(1, C, H, W)``.
    """

    def __init__(self, noisy: Tensor, decay: float):
        if not 0.0 <= decay < 1.0:
            raise B2GError(f"the running average's decay must lie in [0, 1), not {decay}.")
        self.noisy, self.decay = noisy, decay
        self.sum = torch.zeros_like(noisy)
        self.weight = torch.zeros_like(noisy[:, :1])

    def add(self, part: Part) -> None:
        self.blend(part)
        self.count()

    def blend(self, part: Part) -> None:
        """All of ``add``: it runs on the device, so a CUDA graph repeats it."""
        rows, columns = part.rows[:, None], part.columns
        inner = self._inner(part.rows, self.sum.shape[-2])[:, None] & self._inner(part.columns, self.sum.shape[-1])
        share = (1.0 - self.decay) * inner
        before, weight = self.sum[:, :, rows, columns], self.weight[:, :, rows, columns]
        self.sum[:, :, rows, columns] = before + share * (part.picture - before)
        self.weight[:, :, rows, columns] = weight + share * (1.0 - weight)

    def count(self) -> None:
        """The host has nothing to count here."""

    @staticmethod
    def _inner(places: Tensor, length: int) -> Tensor:
        """Which places of a window lie off its inner borders; the picture's own borders are none."""
        low = (places[0] == 0) | (places >= places[0] + MARGIN)
        return low & ((places[-1] == length - 1) | (places <= places[-1] - MARGIN))

    @property
    def value(self) -> Tensor:
        return torch.where(self.weight > 0, self.sum / self.weight.clamp_min(1e-12), self.noisy)
