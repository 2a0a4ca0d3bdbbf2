"""AP-BSN (Lee, Son and Lee, CVPR 2022, doi 10.1109/CVPR52688.2022.01720): for a camera's noise.

Noise that neighbours share would let a blind spot be guessed, so the picture is taken apart into every fifth
pixel for the fit, and into every second one, with less aliasing, for the answer: the asymmetry of the name.
Last, a few of the noisy pixels are put back into the answer at random, and the network sees the whole of it
once more (random-replacing refinement, the mean of 8).

The published method learns from many noisy pictures (``ap_bsn_many``); ``ap_bsn`` fits the same network to
crops of the one picture, for which no official recipe exists, so the number of steps is ours. Written from
the stated facts: network of 3.66 M weights, strides 5 and 2, padding 2, L1, Adam 1e-4, batches of 8 crops of
120 pixels, 8 refinements of share 0.16. Readings: the parts go through the network as a batch, each in a
frame of two black pixels, so no part sees another; every entry is put back on its own, all channels apart;
the refinement works at stride 1. Not followed: the rate's fall to a tenth twice in 20 epochs is a cosine
here, from the first of these falls on; the training set is not SIDD's noisy pictures but BSDS500's with white
noise, for which strides of 1 would do better.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from b2g.crops import CropObjective, Drawn
from b2g.errors import B2GError
from b2g.fit import Schedule, mean_of_passes
from b2g.fitted import crops_of_picture, fit_picture
from b2g.method import Circumstances, Denoised, Method, check_least
from b2g.networks.blind_spot import DilatedBlindSpot
from b2g.seeds import seed_for, torch_generator
from b2g.shuffle import shuffle_down, shuffle_up
from b2g.trained import Trained
from b2g.training import Recipe

Run = Callable[[Tensor], Tensor]
LEAST = 3  # pixels of a part's side


def in_parts(run: Run, picture: Tensor, stride: int, pad: int = 2) -> Tensor:
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


def refined(
    run: Run, noisy: Tensor, answer: Tensor, passes: int, share: float, generator: torch.Generator
) -> Tensor:
    """Random-replacing refinement: the mean answer to ``answer`` with a random ``share`` of ``noisy`` put
    back.

    Both ``(B, C, H, W)``; without ``passes`` the answer as it is.
    """
    if not passes:
        return answer

    def once() -> Tensor:
        back = torch.rand(noisy.shape, generator=generator, device=noisy.device) < share
        return in_parts(run, torch.where(back, noisy, answer), 1)

    return mean_of_passes(once, passes)


@dataclass(frozen=True)
class _Asymmetric:
    """What both forms of AP-BSN can set. ``train_stride``, ``test_stride``: of the parts in the fit and in
    the answer; for noise that is independent from pixel to pixel, 1 is best. ``refinements``, ``replaced``:
    number and share of the random-replacing refinement. ``width``, ``blocks``: of the network
    (:class:`DilatedBlindSpot`).
    """

    train_stride: int = 5
    test_stride: int = 2
    pad: int = 2
    refinements: int = 8
    replaced: float = 0.16
    width: int = 128
    blocks: int = 9

    def check(self) -> None:
        """Refuse what cannot be."""
        lowest = dict(train_stride=1, test_stride=1, pad=0, refinements=0, width=1, blocks=0)
        for name, least in lowest.items():
            check_least(name, getattr(self, name), least)
        if not 0.0 <= self.replaced < 1.0:
            raise B2GError(f"replaced is a share of the pixels and must lie in [0, 1), not {self.replaced}.")

    def network(self, channels: int) -> nn.Module:
        """The untrained network."""
        return DilatedBlindSpot(channels, self.width, self.blocks)

    def training_loss(self, run: Run, drawn: Drawn, share: Tensor, generator: torch.Generator) -> Tensor:
        """The mean absolute difference of the noisy crops and the blind answers to them."""
        return F.l1_loss(in_parts(run, drawn.noisy, self.train_stride, self.pad), drawn.noisy)

    def answer(self, run: Run, noisy: Tensor, generator: torch.Generator) -> Tensor:
        """The estimate of ``noisy`` ``(1, C, H, W)``: in parts, then refined."""
        first = in_parts(run, noisy, self.test_stride, self.pad)
        return refined(run, noisy, first, self.refinements, self.replaced, generator)


@dataclass(frozen=True)
class APBSN(_Asymmetric, Method):
    """AP-BSN fitted to one picture: ``batch`` crops of ``side`` pixels a step, flipped and turned at random.

    ``official`` is the published network and rate; ``short`` is ours, a smaller network at ten times the
    rate, without the refinement, which made the answer of so short a fit worse on a picture of SIDD.
    """

    name: ClassVar[str] = "ap_bsn"
    label: ClassVar[str] = "one image"
    source: ClassVar[str] = "Lee, Son and Lee, CVPR 2022, doi 10.1109/CVPR52688.2022.01720"
    cost: ClassVar[str] = "minutes on a GPU (official); a minute on a CPU (short, 256x256)"
    default_profile: ClassVar[str] = "short"
    profiles: ClassVar[dict[str, dict]] = {
        "official": {},
        "short": dict(steps=300, learning_rate=1e-3, width=32, blocks=4, batch=2, refinements=0),
        "smoke": dict(steps=100, learning_rate=3e-3, width=32, blocks=1, batch=1,
                      train_stride=2, test_stride=1, refinements=0),
    }

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
        return crops_of_picture(self, lambda: self.network(noisy.shape[1]), noisy, self.training_loss, circumstances)

    def __call__(self, noisy: Tensor, circumstances: Circumstances = Circumstances()) -> Denoised:
        """Denoise ``noisy`` ``(1, C, H, W)`` in [0, 1] (values outside are welcome)."""
        objective = self.objective(noisy, circumstances)
        first = lambda: in_parts(objective.run, noisy, self.test_stride, self.pad).clamp(0, 1)  # noqa: E731
        result = fit_picture(self, objective, self.schedule(), noisy, circumstances, answer=first)
        generator = torch_generator(seed_for("refinement", circumstances.seed), noisy.device)
        with torch.no_grad():
            return Denoised(self.answer(objective.run, noisy, generator).clamp(0, 1), result.history)


@dataclass(frozen=True)
class APBSNMany(_Asymmetric, Trained):
    """AP-BSN trained on many noisy pictures: ``official`` is the published network, ``short`` a smaller one.

    How many steps its 20 epochs are is not stated; those of the recipes are ours.
    """

    name: ClassVar[str] = "ap_bsn_many"
    source: ClassVar[str] = "Lee, Son and Lee, CVPR 2022, doi 10.1109/CVPR52688.2022.01720"
    cost: ClassVar[str] = "seconds on a CPU (256x256), once trained"
    default_profile: ClassVar[str] = "short"
    profiles: ClassVar[dict[str, dict]] = {
        "official": dict(recipe="full", width=128, blocks=9, refinements=8), "short": {}, "smoke": {},
    }  # fmt: skip
    recipes: ClassVar[dict[str, Recipe]] = {
        "full": Recipe("full", 200_000, 1e-4, "cosine", 0.4, batch=8, side=120),
        "small": Recipe("small", 3000, 1e-3, "cosine", 0.4, batch=2, side=120),
    }
    capturable: ClassVar[bool] = True

    refinements: int = 0
    width: int = 32
    blocks: int = 4

    def __post_init__(self):
        super().__post_init__()
        self.check()
