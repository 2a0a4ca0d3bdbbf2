"""Blind denoisers that look one way while they are fitted and another way when they answer (AP-BSN, LG-BPN).

The fit takes the picture's pixels far apart, so that noise which neighbours share is of no help; the answer
takes them closer together, with less aliasing. Last, some of the noisy pixels are put back into the answer at
random, and the network sees the whole of it once more: random-replacing refinement (Lee, Son and Lee, CVPR
2022, doi 10.1109/CVPR52688.2022.01720).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable

import torch
from torch import Tensor, nn

from b2g.crops import CropObjective, Drawn
from b2g.errors import B2GError
from b2g.fit import Schedule, mean_of_passes
from b2g.fitted import crops_of_picture, fit_picture
from b2g.method import Circumstances, Denoised, Method, check_least
from b2g.seeds import seed_for, torch_generator

Run = Callable[..., Tensor]


def refined(
    again: Callable[[Tensor], Tensor],
    noisy: Tensor,
    answer: Tensor,
    passes: int,
    share: float,
    generator: torch.Generator,
) -> Tensor:
    """Random-replacing refinement: the mean of ``again``, given ``answer`` with a random ``share`` of
    ``noisy`` put back, every entry on its own.

    All pictures ``(B, C, H, W)``; without ``passes`` the answer as it is.
    """
    if not passes:
        return answer

    def once() -> Tensor:
        back = torch.rand(noisy.shape, generator=generator, device=noisy.device) < share
        return again(torch.where(back, noisy, answer))

    return mean_of_passes(once, passes)


@dataclass(frozen=True)
class Asymmetric:
    """What every form of these methods has: ``refinements`` passes of refinement with a share ``replaced``.

    A subclass gives ``network(channels)``, ``training_loss(run, drawn, share, generator)``, and the two looks
    of the answer, ``(B, C, H, W)`` to the same shape: ``first(run, noisy)`` at the noisy picture and
    ``again(run, picture)`` at the answer with noisy pixels in it.
    """

    refinements: int = 8
    replaced: float = 0.16

    def check(self) -> None:
        """Refuse what cannot be."""
        check_least("refinements", self.refinements, 0)
        if not 0.0 <= self.replaced < 1.0:
            raise B2GError(f"replaced is a share of the pixels and must lie in [0, 1), not {self.replaced}.")

    def network(self, channels: int) -> nn.Module:
        raise NotImplementedError

    def training_loss(self, run: Run, drawn: Drawn, share: Tensor, generator: torch.Generator) -> Tensor:
        raise NotImplementedError

    def first(self, run: Run, noisy: Tensor) -> Tensor:
        raise NotImplementedError

    def again(self, run: Run, picture: Tensor) -> Tensor:
        raise NotImplementedError

    def answer(self, run: Run, noisy: Tensor, generator: torch.Generator) -> Tensor:
        """The estimate of ``noisy`` ``(1, C, H, W)``: the first look, then refined."""
        again = lambda picture: self.again(run, picture)  # noqa: E731
        first = self.first(run, noisy)
        return refined(again, noisy, first, self.refinements, self.replaced, generator)


@dataclass(frozen=True)
class FittedAsymmetric(Asymmetric, Method):
    """Such a method fitted to one picture: ``batch`` crops of ``side`` pixels a step, flipped and turned at
    random.
    """

    steps: int = 4000
    learning_rate: float = 1e-4
    decay: str = "cosine"
    decay_from: float = 0.4
    side: int = 120
    batch: int = 8

    def __post_init__(self):
        super().__post_init__()
        self.check()
        check_least("side", self.side, 16)
        check_least("batch", self.batch, 1)
        self.schedule()  # refuses what cannot be

    def schedule(self) -> Schedule:
        """How long and how fast the fit goes."""
        return Schedule(self.steps, self.learning_rate, self.decay, self.decay_from)

    def objective(self, noisy: Tensor, circumstances: Circumstances) -> CropObjective:
        """The network and its crops, ready to be fitted to ``noisy`` ``(1, C, H, W)`` on its device."""
        make = lambda: self.network(noisy.shape[1])  # noqa: E731
        return crops_of_picture(self, make, noisy, self.training_loss, circumstances)

    def __call__(self, noisy: Tensor, circumstances: Circumstances = Circumstances()) -> Denoised:
        """Denoise ``noisy`` ``(1, C, H, W)`` in [0, 1] (values outside are welcome)."""
        objective = self.objective(noisy, circumstances)
        first = lambda: self.first(objective.run, noisy).clamp(0, 1)  # noqa: E731
        result = fit_picture(self, objective, self.schedule(), noisy, circumstances, answer=first)
        generator = torch_generator(seed_for("refinement", circumstances.seed), noisy.device)
        with torch.no_grad():
            return Denoised(self.answer(objective.run, noisy, generator).clamp(0, 1), result.history)
