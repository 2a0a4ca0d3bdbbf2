r"""Blind2Grad's loop over one noisy picture (Eq. 3.10, Algorithm 1), of which Self2Self is the plainest case.

.. math:: y \to \{x_m = f_\theta(y)_m \to \Omega_m \to d^c, d^g\}_{m=1}^M

Each step draws a mask (Bernoulli at first, by Eq. 3.3 from the running estimate later), shows the network the
visible pixels and asks for the hidden ones; the engine in :mod:`b2g.fit` does the rest.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from typing import Callable

import torch
from torch import Tensor, nn

from b2g.errors import B2GError
from b2g.fit import RunningAverage, autocast
from b2g.masks import bernoulli_mask, detail_distance, detail_index, dual_mask, gradient_index, uniform_pixel_mask
from b2g.window import Part, cut, draw_window

VISIBLE = ("none", "detached", "attached")
PILOTS = ("visible", "average", "patches")


@dataclass(frozen=True)
class MaskLaw:
    """How masks are drawn, Eq. 3.1 to 3.3; every field is a reading (see :mod:`b2g.masks`).

    ``kind``: ``"bernoulli"`` (BM), ``"uniform"`` (UM), ``"distance"`` (DM, the detail index of Eq. 3.1) or
    ``"gradient"`` (DM with the estimate's own gradient as index). ``detail_masked`` is the rate on detail.
    """

    kind: str = "bernoulli"
    masked: float = 0.25
    per_channel: bool = True
    detail_masked: float = 0.0
    detail_threshold: float = 40.0
    detail_over: str = "channel"
    detail_fraction: float = 0.1

    def __post_init__(self):
        if self.kind not in ("bernoulli", "uniform", "distance", "gradient"):
            raise B2GError(f"the mask must be 'bernoulli', 'uniform', 'distance' or 'gradient', not {self.kind!r}.")
        if not 0.0 < self.masked < 1.0:
            raise B2GError(f"masked is the share of hidden pixels and must lie between 0 and 1, not {self.masked}.")
        for name in ("detail_masked", "detail_fraction"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise B2GError(f"{name} is a share of the pixels and must lie in [0, 1], not {getattr(self, name)}.")
        if not self.detail_threshold >= 0:
            raise B2GError(f"detail_threshold is a distance on 0..255, from 0 on, not {self.detail_threshold}.")
        if self.detail_over not in ("channel", "max", "euclidean"):
            raise B2GError(f"detail_over must be 'channel', 'max' or 'euclidean', not {self.detail_over!r}.")

    @property
    def dual(self) -> bool:
        return self.kind in ("distance", "gradient")

    def detail(self, noisy: Tensor, estimate: Tensor) -> Tensor:
        """The index of detail of the running estimate, ``(B, C, H, W)``, 1 = detail."""
        if self.kind == "gradient":
            return gradient_index(estimate, self.detail_fraction)
        return detail_index(detail_distance(noisy, estimate, self.detail_over), self.detail_threshold)

    def draw(self, shape, detail: Tensor | None, generator: torch.Generator) -> Tensor:
        """One mask (1 = kept); without a ``detail`` index yet, the Bernoulli mask that starts the loop."""
        how = {"generator": generator, "per_channel": self.per_channel}
        if self.kind == "uniform":
            return uniform_pixel_mask(shape, self.masked, **how)
        if detail is None:
            return bernoulli_mask(shape, self.masked, **how)
        return dual_mask(detail, self.masked, self.detail_masked, **how)


def flip(picture: Tensor, which: int | Tensor) -> Tensor:
    """Mirror ``(B, C, H, W)`` leftward (bit 0 of ``which``) and upward (bit 1); its own inverse.

    ``which`` may be a whole-number tensor ``()`` on the picture's device: then nothing waits for its value.
    """
    if isinstance(which, Tensor):
        for bit, axis in ((1, -1), (2, -2)):
            picture = torch.where((which & bit).bool(), picture.flip(axis), picture)
        return picture
    axes = [axis for bit, axis in ((1, -1), (2, -2)) if which & bit]
    return picture.flip(axes) if axes else picture


def draw_number(below: int, generator: torch.Generator) -> int | Tensor:
    """A whole number in [0, ``below``): a plain one on the CPU, elsewhere a tensor,
    so that the host need not wait."""
    drawn = torch.randint(below, (), generator=generator, device=generator.device)
    return int(drawn) if drawn.device.type == "cpu" else drawn


class BlindSpotLoop:
    """The objective of one noisy picture ``(1, C, H, W)``.

    ``loss(blind, visible, noisy, mask)`` is the method's own. ``visible`` says whether f(y) is computed each
    step, and whether the loss may change it: ``"none"`` | ``"detached"`` | ``"attached"``. The dual mask's
    estimate x_m is f(y) (``pilot="visible"``, Eq. 3.10), the running average of the blind answers
    (``pilot="average"``) or an ``estimate`` from elsewhere (``pilot="patches"``), first taken at step
    ``dual_from``, then every ``refresh`` steps. Each step looks at a window of ``side`` pixels (0: all);
    windows go with masks of a fixed law. ``guided`` passes the last answer to T-Standout. ``readings`` says
    to those who watch how d^g is read (``operator``, ``combine``, ``omega``); the loop itself makes no use of
    it.
    """

    def __init__(
        self,
        network: nn.Module,
        noisy: Tensor,
        loss: Callable[[Tensor, Tensor | None, Tensor, Tensor], Tensor],
        *,
        law: MaskLaw = MaskLaw(),
        visible: str = "none",
        pilot: str = "visible",
        dual_from: int = 1,
        refresh: int = 1,
        guided: bool = False,
        flips: bool = True,
        generator: torch.Generator,
        precision: str = "auto",
        readings: dict | None = None,
        estimate: Tensor | None = None,
        side: int = 0,
    ):
        if visible not in VISIBLE:
            raise B2GError(f"visible must be one of {', '.join(VISIBLE)}, not {visible!r}.")
        if pilot not in PILOTS:
            raise B2GError(f"pilot must be one of {', '.join(PILOTS)}, not {pilot!r}.")
        if pilot == "patches" and law.dual and estimate is None:
            raise B2GError("pilot='patches' needs the estimate of a patch-based denoiser; give estimate.")
        if side and (law.dual or guided):
            raise B2GError("a window (side) goes with a mask of a fixed law; take side=0, or mask='bernoulli'.")
        self.network, self.loss_of, self.law = network, loss, law
        self.noisy = noisy.contiguous(memory_format=torch.channels_last)
        self.visible, self.pilot, self.dual_from, self.refresh = visible, pilot, dual_from, max(1, refresh)
        self.guided, self.flips, self.generator, self.precision = guided, flips, generator, precision
        self.readings, self.given, self.side = readings or {}, estimate, side
        self.answers = RunningAverage(0.95)
        self.detail: Tensor | None = None
        self.last: Tensor | None = None

    @property
    def capturable(self) -> bool:
        """Whether every step is the same sequence of kernels that reads nothing the
        step before has renamed."""
        return not self.law.dual and not self.guided

    def _run(self, mask: Tensor | None, noisy: Tensor | None = None) -> Tensor:
        """One stochastic pass of the network, of the masked picture or (no mask) of the whole, as float32."""
        noisy = self.noisy if noisy is None else noisy
        which = draw_number(4, self.generator) if self.flips else 0
        guide = flip(self.last, which) if self.guided and self.last is not None else None
        seen = None if mask is None else flip(mask, which)
        with autocast(noisy.device, self.precision):
            answer = self.network(flip(noisy, which), seen, self.generator, guide)
        return flip(answer.float(), which)

    def _draw(self) -> Tensor:
        return self.law.draw(self.noisy.shape, self.detail, self.generator)

    def loss(self, step: int) -> tuple[Tensor, Tensor | Part]:
        """Lines 2 to 7 of Algorithm 1: draw the mask, run the network, return the loss and f(Omega(y))."""
        if self.side:
            return self._loss_in_a_window()
        if self.law.dual and step >= self.dual_from and (step - self.dual_from) % self.refresh == 0:
            self.detail = self.law.detail(self.noisy, self._estimate())
        mask = self._draw()
        whole, blind = self._passes(mask, self.noisy)
        answer = blind.detach()
        if self.law.dual and self.pilot == "average":
            self.answers.add(answer)
        self.last = whole.detach() if whole is not None else answer
        return self.loss_of(blind, whole, self.noisy, mask), answer

    def _passes(self, mask: Tensor, noisy: Tensor) -> tuple[Tensor | None, Tensor]:
        """f(y), if the loss asks for it, and f(Omega(y)).

        Two passes, never one batch: batch normalisation would mix their statistics.
        """
        whole = None
        if self.visible != "none":
            with torch.set_grad_enabled(self.visible == "attached"):
                whole = self._run(None, noisy)
        return whole, self._run(mask, noisy)

    def _loss_in_a_window(self) -> tuple[Tensor, Part]:
        rows, columns = draw_window(self.noisy.shape[-2:], self.side, self.generator)
        part = cut(self.noisy, rows, columns)
        mask = self.law.draw(part.shape, None, self.generator)
        whole, blind = self._passes(mask, part)
        return self.loss_of(blind, whole, part, mask), Part(blind.detach(), rows, columns)

    def _estimate(self) -> Tensor:
        """The running estimate x_m of Eq. 3.10."""
        if self.pilot == "patches":
            return self.given
        if self.pilot == "average":
            return self.answers.value if self.answers.value is not None else self.noisy
        if self.visible != "none" and self.last is not None:
            return self.last
        with torch.no_grad():
            return self._run(None)

    @torch.no_grad()
    def predict(self) -> Tensor:
        """One stochastic answer f(Omega(y)) under the masks of training, ``(1, C, H, W)``."""
        return self._run(self._draw())

    @torch.no_grad()
    def see(self) -> Tensor:
        """One stochastic answer f(y) to the picture with nothing hidden, ``(1, C, H, W)``."""
        return self._run(None)

    @torch.no_grad()
    def look(self, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """A fresh mask, f(Omega(y)) and f(y), each ``(1, C, H, W)``, drawn from ``generator``:
        the fit never notices."""
        aside = copy(self)
        aside.generator = generator
        mask = aside._draw()
        return mask, aside._run(mask), aside._run(None)

    def state(self) -> dict:
        return {
            "generator": self.generator.get_state(),
            "detail": self.detail,
            "last": self.last,
            "answers": (self.answers.sum, self.answers.weight),
        }

    def load_state(self, state: dict) -> None:
        self.generator.set_state(state["generator"])
        move = lambda tensor: None if tensor is None else tensor.to(self.noisy.device)  # noqa: E731
        self.detail, self.last = move(state["detail"]), move(state["last"])
        self.answers.sum, self.answers.weight = move(state["answers"][0]), state["answers"][1]
