"""Objectives whose steps look at one random window of several pictures that lie upon each other."""

from __future__ import annotations

from copy import copy
from typing import Callable

import torch
from torch import Tensor, nn

from b2g.fit import autocast
from b2g.window import cut, draw_window


class Windowed:
    """Base of an objective: a network, a generator, and windows of ``side`` pixels (0: the whole picture).

    A subclass gives ``loss(step)``, and ``predict()``, one answer to the whole picture.
    """

    capturable = True

    def __init__(self, network: nn.Module, side: int, generator: torch.Generator, precision: str):
        self.network, self.side, self.generator, self.precision = network, side, generator, precision

    def run(self, picture: Tensor) -> Tensor:
        """One pass of the network, in mixed precision, as float32; ``(B, C, H, W)``."""
        with autocast(picture.device, self.precision):
            answer = self.network(picture)
        return answer.float()

    def windows(self, *pictures: Tensor) -> list[Tensor]:
        """The same new window of each picture ``(B, C, H, W)``, channels last."""
        rows, columns = draw_window(pictures[0].shape[-2:], self.side, self.generator)
        return [cut(picture, rows, columns) for picture in pictures]

    def predict(self) -> Tensor:
        raise NotImplementedError

    @torch.no_grad()
    def aside(self, generator: torch.Generator) -> Callable[[], Tensor]:
        """``predict`` with chance from ``generator``: the fit never notices."""
        other = copy(self)
        other.generator = generator
        return other.predict

    def state(self) -> dict:
        return {"generator": self.generator.get_state()}

    def load_state(self, state: dict) -> None:
        self.generator.set_state(state["generator"])
