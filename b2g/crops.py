"""Random crops of pictures held in memory, and the objective that fits a network to them.

A method's form for one image and its form for many differ only in where the crops come from: one noisy
picture, or a training set with its noise. Everything is drawn and cut on the pictures' device: a GPU never
waits for the host.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable

import torch
from torch import Tensor, nn

from b2g.errors import B2GError
from b2g.fit import autocast

SYMMETRIES = {"all": 8, "flips": 4, "none": 1}
Again = Callable[[Tensor, torch.Generator], Tensor]


@dataclass(frozen=True)
class Drawn:
    """Crops ``(B, C, side, side)`` of one draw: noisy ones and, where there are, clean and second noisy ones.

    ``other`` shows the same places as ``noisy`` under noise of its own (the pairs of Noise2Noise).
    """

    noisy: Tensor
    clean: Tensor | None = None
    other: Tensor | None = None


class _Bank:
    """Pictures ``(1, C, H, W)`` of any sizes in one tensor ``(pixels, C)``: a crop is one gathering."""

    def __init__(self, pictures: list[Tensor]):
        self.values = torch.cat([picture[0].permute(1, 2, 0).flatten(0, 1) for picture in pictures])

    def crops(self, places: Tensor) -> Tensor:
        """The pixels at ``places`` ``(B, h, w)`` as ``(B, C, h, w)``, channels last;
        whole numbers mean 8 bits."""
        found = self.values.index_select(0, places.flatten()).unflatten(0, places.shape)
        found = found.permute(0, 3, 1, 2)
        return found if found.is_floating_point() else found.float() / 255.0


class Crops:
    """Random windows of ``side`` pixels, ``batch`` at a time, of random pictures in a random orientation.

    ``noisy``, ``clean``, ``other``: lists of pictures ``(1, C, H, W)`` on one device, alike in number and
    sizes; float in [0, 1] or beyond, or bytes (0..255, a quarter of the memory). ``clean`` and ``other`` may
    be missing. ``again(clean, generator)`` makes noisy crops of clean ones, anew in every draw: ``noisy`` is
    then not looked at, and with ``pairs`` a second one is made as well. ``symmetries``: ``"all"`` eight of
    the square, four ``"flips"``, or ``"none"``. A picture with a side below ``side`` makes all windows
    smaller: the shortest side, rounded down to an even number. Every picture is drawn equally often, and so
    is every window of a picture.
    """

    def __init__(
        self,
        noisy: list[Tensor] | None,
        side: int,
        batch: int,
        generator: torch.Generator,
        *,
        clean: list[Tensor] | None = None,
        other: list[Tensor] | None = None,
        again: Again | None = None,
        pairs: bool = False,
        symmetries: str = "all",
    ):
        if side < 2 or batch < 1:
            raise B2GError(f"crops need side at least 2 and batch at least 1, not {side} and {batch}.")
        if symmetries not in SYMMETRIES:
            raise B2GError(f"symmetries must be one of {', '.join(SYMMETRIES)}, not {symmetries!r}.")
        pictures = _one_of_each(noisy, clean, other, again)
        self.generator, self.batch, self.again, self.pairs = generator, batch, again, pairs
        self.kinds = SYMMETRIES[symmetries]
        device = pictures[0].device
        sizes = torch.tensor([picture.shape[-2:] for picture in pictures])
        self.side = side if side <= int(sizes.min()) else int(sizes.min()) // 2 * 2
        self.heights, self.widths = sizes.to(device).unbind(1)
        self.starts = (sizes.prod(1).cumsum(0) - sizes.prod(1)).to(device)
        self.noisy, self.clean, self.other = (
            _Bank(kind) if kind else None for kind in (None if again else noisy, clean, other)
        )

    def _below(self, limit: Tensor) -> Tensor:
        """A whole number in [0, limit) for each of the limits ``(B,)``."""
        drawn = torch.rand(len(limit), generator=self.generator, device=limit.device, dtype=torch.float64)
        return (drawn * limit).long()

    def places(self) -> Tensor:
        """Where in the banks the pixels of the next crops lie, ``(batch, side, side)``."""
        device = self.starts.device
        how = {"generator": self.generator, "device": device}
        which = torch.randint(len(self.starts), (self.batch,), **how)
        top = self._below(self.heights[which] - self.side + 1)
        left = self._below(self.widths[which] - self.side + 1)
        turn = torch.randint(self.kinds, (self.batch,), **how)[:, None, None]
        ahead = torch.arange(self.side, device=device)
        row, column = ahead[:, None].expand(1, -1, self.side), ahead.expand(1, self.side, -1)
        # Bit 2 exchanges rows and columns, bit 0 mirrors leftward, bit 1 upward.
        swap = (turn & 4).bool()
        row, column = torch.where(swap, column, row), torch.where(swap, row, column)
        column = torch.where((turn & 1).bool(), self.side - 1 - column, column)
        row = torch.where((turn & 2).bool(), self.side - 1 - row, row)
        first = (self.starts[which] + top * self.widths[which] + left)[:, None, None]
        return first + row * self.widths[which][:, None, None] + column

    def draw(self) -> Drawn:
        """The next crops."""
        places = self.places()
        clean, other = (bank.crops(places) if bank else None for bank in (self.clean, self.other))
        if self.again is None:
            return Drawn(self.noisy.crops(places), clean, other)
        noisy = self.again(clean, self.generator)
        return Drawn(noisy, clean, self.again(clean, self.generator) if self.pairs else other)


def _one_of_each(noisy, clean, other, again: Again | None) -> list[Tensor]:
    """A picture of each place: the first list there is,
    once all have been found alike and enough for crops."""
    given = [pictures for pictures in (noisy, clean, other) if pictures is not None]
    if not given or not given[0] or (noisy is None and again is None) or (again is not None and clean is None):
        raise B2GError("crops need noisy pictures, or clean ones with again, which makes them noisy.")
    if any([p.shape for p in pictures] != [p.shape for p in given[0]] for pictures in given):
        raise B2GError("the noisy and the clean pictures of crops must be alike in number and sizes.")
    return given[0]


class CropObjective:
    """The objective of a network fitted to ``crops`` over ``steps`` steps.

    ``loss_of(run, drawn, share)`` is the method's own: ``run(picture)`` is a pass of the network in mixed
    precision with a float32 answer, ``drawn`` a :class:`Drawn`, ``share`` how much of the fit is over, in
    [0, 1), for weights that grow: a tensor ``()`` on the device, counted there, so that a CUDA graph counts
    it too. ``generator`` is what ``loss_of`` draws from, if it draws. Say ``capturable`` only where
    ``loss_of`` never waits for a tensor's value (:class:`b2g.fit.Objective`).
    """

    def __init__(
        self,
        network: nn.Module,
        crops: Crops,
        loss_of: Callable[[Callable[[Tensor], Tensor], Drawn, Tensor], Tensor],
        generator: torch.Generator,
        precision: str,
        *,
        steps: int,
        capturable: bool = False,
    ):
        self.network, self.crops, self.loss_of, self.precision = network, crops, loss_of, precision
        self.steps, self.capturable = steps, capturable
        self.done = torch.zeros((), dtype=torch.long, device=crops.starts.device)
        self.generators = [crops.generator] + ([generator] if generator is not crops.generator else [])

    def run(self, picture: Tensor, *more) -> Tensor:
        """One pass of the network, in mixed precision, as float32; ``more`` goes to the network, too."""
        with autocast(picture.device, self.precision):
            answer = self.network(picture, *more)
        return answer.float()

    def loss(self, step: int) -> tuple[Tensor, None]:
        """The loss on the next crops; there is no estimate of a picture to average."""
        loss = self.loss_of(self.run, self.crops.draw(), self.done / self.steps)
        self.done.add_(1)
        return loss, None

    def state(self) -> dict:
        return {"done": self.done.clone(), "generators": [one.get_state() for one in self.generators]}

    def load_state(self, state: dict) -> None:
        self.done.copy_(state["done"])
        for one, saved in zip(self.generators, state["generators"]):
            one.set_state(saved)
