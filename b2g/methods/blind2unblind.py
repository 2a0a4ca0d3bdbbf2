"""Blind2Unblind (Wang, Liu, Li and Han, CVPR 2022, doi 10.1109/CVPR52688.2022.00207):
blind spots made visible again.

Sixteen fixed masks hide one pixel of every 4 x 4 cell each; a hidden pixel is filled from the ring around it.
Of the sixteen answers the hidden pixels are put together to one blind picture h. The re-visible loss

    mean (h - y)^2 + mean (h - y + beta (f(y) - y))^2

with f(y), the answer to the whole picture, held constant, makes the mix (h + beta f(y)) / (1 + beta) approach
y, while no gradient can teach f the identity; beta grows in training, and with it the share of f(y), from
which no pixel is hidden.

``blind2unblind`` fits the network to crops of the one noisy picture, whose noise is what it is; there is no
official recipe for that. ``blind2unblind_many`` is the published form, trained on many noisy pictures, with
frozen noise unless a recipe says otherwise (the official code, github.com/zejinwang/Blind2Unblind, without a
licence, draws it anew).

Written from the stated facts. The code's masks and fill are followed, where the paper describes 2 x 2 cells
filled with zeros. Adam 3e-4 halved after every fifth of the training, batches of 4 crops of 128 pixels, beta
2 until 80 % of the training, then linear to 20. Not followed: zeros around the picture (mirrored here: zeros
darken fills at the border), the weight decay of 1e-8 (one Adam without decay serves all methods here, and so
small a one changes nothing that can be measured), the training set (here BSDS500's 400 pictures).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, ClassVar

import torch
from torch import Tensor, nn

from b2g.crops import CropObjective, Drawn
from b2g.errors import B2GError
from b2g.fit import Schedule
from b2g.fitted import crops_of_picture, fit_picture
from b2g.masks import grid_masks, ring_fill
from b2g.method import Circumstances, Denoised, Method, check_choice, check_least
from b2g.networks.unet import blind2unblind_network
from b2g.trained import Trained
from b2g.training import Recipe

Run = Callable[[Tensor], Tensor]
OUTPUTS = ("mid", "visible", "blind")
CELL = 4


def blind_answer(run: Run, noisy: Tensor) -> Tensor:
    """The global mapper h: every pixel of ``noisy`` ``(B, C, H, W)`` as answered while it was hidden,
    same shape.

    All masks in one batch: what training needs. No pixel of h depends on its own noisy value.
    """
    masks = grid_masks(*noisy.shape[-2:], CELL, device=noisy.device)
    count = len(masks)
    shown = ring_fill(noisy.repeat_interleave(count, 0), masks.repeat(len(noisy), 1, 1, 1))
    return (run(shown).unflatten(0, (len(noisy), count)) * (1 - masks)).sum(1)


def blind_answer_in_turn(run: Run, noisy: Tensor) -> Tensor:
    """:func:`blind_answer`, one mask after another: a sixteenth of the memory, for whole pictures."""
    answer = torch.zeros_like(noisy)
    for mask in grid_masks(*noisy.shape[-2:], CELL, device=noisy.device).split(1):
        answer += run(ring_fill(noisy, mask)) * (1 - mask)
    return answer


def revisible_loss(blind: Tensor, visible: Tensor, noisy: Tensor, beta: Tensor | float) -> Tensor:
    """The re-visible loss of the blind answer h and f(y), which is taken as constant;
    all ``(B, C, H, W)``."""
    gap = blind - noisy
    return gap.square().mean() + (gap + beta * (visible.detach() - noisy)).square().mean()


def ramp(share: Tensor, first: float, last: float, start: float) -> Tensor:
    """Beta at this share of the fit: ``first`` until ``start``, then straight to ``last`` at the end."""
    return first + (last - first) * ((share - start) / (1 - start)).clamp_min(0.0)


def step_loss(method, run: Run, noisy: Tensor, share: Tensor) -> Tensor:
    """The loss on crops ``(B, C, H, W)`` with the beta of this ``share``."""
    with torch.no_grad():
        visible = run(noisy)
    beta = ramp(share, method.beta, method.last_beta, method.start)
    return revisible_loss(blind_answer(run, noisy), visible, noisy, beta)


def combined_answer(method, run: Run, noisy: Tensor) -> Tensor:
    """The ``output`` that the method is set to, for a whole picture ``(1, C, H, W)``."""
    if method.output == "visible":
        return run(noisy)
    blind = blind_answer_in_turn(run, noisy)
    return blind if method.output == "blind" else (blind + method.last_beta * run(noisy)) / (1 + method.last_beta)


def _check(method) -> None:
    check_choice("output", method.output, OUTPUTS)
    check_least("width", method.width, 1)
    if not 0 <= method.beta <= method.last_beta:
        raise B2GError(f"beta grows, from at least 0, to last_beta, not from {method.beta} to {method.last_beta}.")
    if not 0 <= method.start < 1:
        raise B2GError(f"start is a share of the steps and must lie in [0, 1), not {method.start}.")


@dataclass(frozen=True)
class Blind2Unblind(Method):
    """Blind2Unblind on the one picture: crops of it, flipped and turned, its noise never drawn again.

    ``output``: ``"mid"`` is (h + beta f(y)) / (1 + beta) with the last beta, ``"visible"`` f(y), one pass,
    ``"blind"`` h, sixteen passes. ``beta`` grows to ``last_beta`` from the share ``start`` of the steps on.
    ``official`` takes the published training's rate, batch and crop; how long is not published for one
    picture and ours. ``short`` is our budget for a CPU: a narrower network, one small crop a step, a tenfold
    rate.
    """

    name: ClassVar[str] = "blind2unblind"
    source: ClassVar[str] = "Wang et al., CVPR 2022, doi 10.1109/CVPR52688.2022.00207 (one-image form: ours)"
    cost: ClassVar[str] = "minutes on a CPU (short, 256x256); about an hour on a GPU (official)"
    default_profile: ClassVar[str] = "short"
    profiles: ClassVar[dict[str, dict]] = {
        "official": dict(learning_rate=3e-4, decay="halve", decay_from=0.2, steps=6000, batch=4, side=128, width=48),
        "short": {},
        "smoke": dict(steps=100, learning_rate=1e-2, width=8, side=32, start=0.5),
    }  # fmt: skip

    steps: int = 500
    learning_rate: float = 3e-3
    decay: str = "cosine"
    decay_from: float = 0.5
    batch: int = 1
    side: int = 64
    beta: float = 2.0
    last_beta: float = 20.0
    start: float = 0.8
    output: str = "mid"
    width: int = 24

    def __post_init__(self):
        super().__post_init__()
        _check(self)
        check_least("batch", self.batch, 1)
        check_least("side", self.side, 8)
        self.schedule()  # refuses what cannot be

    def schedule(self) -> Schedule:
        """How long and how fast the fit goes."""
        return Schedule(self.steps, self.learning_rate, self.decay, self.decay_from, halvings=4)

    def objective(self, noisy: Tensor, circumstances: Circumstances) -> CropObjective:
        """The network and its loss, ready to be fitted to crops of ``noisy`` ``(1, C, H, W)``."""
        make = lambda: blind2unblind_network(noisy.shape[1], self.width)  # noqa: E731
        loss_of = lambda run, drawn, share, _: step_loss(self, run, drawn.noisy, share)  # noqa: E731
        return crops_of_picture(self, make, noisy, loss_of, circumstances)

    def __call__(self, noisy: Tensor, circumstances: Circumstances = Circumstances()) -> Denoised:
        """Denoise ``noisy`` ``(1, C, H, W)`` in [0, 1] (values outside are welcome)."""
        objective = self.objective(noisy, circumstances)
        answer = lambda: combined_answer(self, objective.run, noisy).clamp(0, 1)  # noqa: E731
        result = fit_picture(self, objective, self.schedule(), noisy, circumstances, answer=answer)
        with torch.no_grad():
            return Denoised(answer(), result.history)


@dataclass(frozen=True)
class Blind2UnblindMany(Trained):
    """Blind2Unblind trained on many noisy pictures; ``output``,
    ``beta`` and the rest as in the one-image form.

    ``official`` means weights of the published length (100 epochs of 44 328 pictures at batches of 4),
    ``short`` those of our recipe for a CPU.
    """

    name: ClassVar[str] = "blind2unblind_many"
    source: ClassVar[str] = "Wang et al., CVPR 2022, doi 10.1109/CVPR52688.2022.00207"
    cost: ClassVar[str] = "some seconds on a CPU (256x256), once trained"
    default_profile: ClassVar[str] = "short"
    profiles: ClassVar[dict[str, dict]] = {"official": dict(recipe="full"), "short": {}, "smoke": {}}
    recipes: ClassVar[dict[str, Recipe]] = {
        "full": Recipe("full", 1_108_200, 3e-4, "halve", 0.2, halvings=4, batch=4, side=128),
        "small": Recipe("small", 1600, 1e-3, "cosine", 0.3, batch=1, side=64),
    }
    capturable: ClassVar[bool] = True

    beta: float = 2.0
    last_beta: float = 20.0
    start: float = 0.8
    output: str = "mid"
    width: int = 48

    def __post_init__(self):
        super().__post_init__()
        _check(self)

    def network(self, channels: int) -> nn.Module:
        """Blind2Unblind's U-Net."""
        return blind2unblind_network(channels, self.width)

    def training_loss(self, run: Run, drawn: Drawn, share: Tensor, generator: torch.Generator) -> Tensor:
        """The re-visible loss of the noisy crops."""
        return step_loss(self, run, drawn.noisy, share)

    def answer(self, run: Run, noisy: Tensor, generator: torch.Generator) -> Tensor:
        """The picture that ``output`` names."""
        return combined_answer(self, run, noisy)
