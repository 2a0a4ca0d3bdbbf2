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
noise. Noise that is independent from pixel to pixel asks for strides of 1, as in the profile ``short_white``
and in the small weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from b2g.asymmetric import Asymmetric, FittedAsymmetric, Run
from b2g.crops import Drawn
from b2g.method import check_least
from b2g.networks.blind_spot import DilatedBlindSpot
from b2g.shuffle import in_parts
from b2g.trained import Trained
from b2g.training import Recipe

WHITE = dict(train_stride=1, test_stride=1)


@dataclass(frozen=True)
class _APBSN(Asymmetric):
    """What both forms of AP-BSN can set. ``train_stride``, ``test_stride``: of the parts in the fit and in
    the answer; for noise that is independent from pixel to pixel, 1 is best. ``pad``: of a part's frame.
    ``width``, ``blocks``: of the network (:class:`DilatedBlindSpot`).
    """

    train_stride: int = 5
    test_stride: int = 2
    pad: int = 2
    width: int = 128
    blocks: int = 9

    def check(self) -> None:
        super().check()
        lowest = dict(train_stride=1, test_stride=1, pad=0, width=1, blocks=0)
        for name, least in lowest.items():
            check_least(name, getattr(self, name), least)

    def network(self, channels: int) -> nn.Module:
        """The untrained network."""
        return DilatedBlindSpot(channels, self.width, self.blocks)

    def training_loss(self, run: Run, drawn: Drawn, share: Tensor, generator: torch.Generator) -> Tensor:
        """The mean absolute difference of the noisy crops and the blind answers to them."""
        return F.l1_loss(in_parts(run, drawn.noisy, self.train_stride, self.pad), drawn.noisy)

    def first(self, run: Run, noisy: Tensor) -> Tensor:
        """The answer in parts."""
        return in_parts(run, noisy, self.test_stride, self.pad)

    def again(self, run: Run, picture: Tensor) -> Tensor:
        """The answer to the whole."""
        return in_parts(run, picture, 1)


@dataclass(frozen=True)
class APBSN(_APBSN, FittedAsymmetric):
    """AP-BSN fitted to one picture: ``batch`` crops of ``side`` pixels a step, flipped and turned at random.

    ``official`` is the published network and rate; ``short`` is ours, a smaller network at ten times the
    rate, without the refinement, which made the answer of so short a fit worse on a picture of SIDD;
    ``short_white`` is for noise that neighbours do not share, with more and smaller steps in the same time.
    """

    name: ClassVar[str] = "ap_bsn"
    label: ClassVar[str] = "one image"
    source: ClassVar[str] = "Lee, Son and Lee, CVPR 2022, doi 10.1109/CVPR52688.2022.01720"
    cost: ClassVar[str] = "minutes on a GPU (official); a minute on a CPU (short, 256x256)"
    default_profile: ClassVar[str] = "short"
    profiles: ClassVar[dict[str, dict]] = {
        "official": {},
        "short": dict(steps=300, learning_rate=1e-3, width=32, blocks=4, batch=2, refinements=0),
        "short_white": dict(
            steps=2400, learning_rate=2e-3, width=32, blocks=2, batch=1, side=64, refinements=0, **WHITE
        ),
        "smoke": dict(steps=100, learning_rate=3e-3, width=32, blocks=1, batch=1,
                      train_stride=2, test_stride=1, refinements=0),
    }


@dataclass(frozen=True)
class APBSNMany(_APBSN, Trained):
    """AP-BSN trained on many noisy pictures: ``official`` is the published network with its strides, ``short``
    a smaller one with strides of 1, since white noise is what the recipes train on.

    How many steps its 20 epochs are is not stated; those of the recipes are ours.
    """

    name: ClassVar[str] = "ap_bsn_many"
    revision: ClassVar[int] = 2  # the small weights of 1 had strides of 5 and 2
    source: ClassVar[str] = "Lee, Son and Lee, CVPR 2022, doi 10.1109/CVPR52688.2022.01720"
    cost: ClassVar[str] = "seconds on a CPU (256x256), once trained"
    default_profile: ClassVar[str] = "short"
    profiles: ClassVar[dict[str, dict]] = {
        "official": dict(recipe="full", width=128, blocks=9, refinements=8, train_stride=5, test_stride=2),
        "short": {},
        "smoke": {},
    }
    recipes: ClassVar[dict[str, Recipe]] = {
        "full": Recipe("full", 200_000, 1e-4, "cosine", 0.4, batch=8, side=120),
        "small": Recipe("small", 8000, 2e-3, "cosine", 0.4, batch=2, side=64),
    }
    capturable: ClassVar[bool] = True

    train_stride: int = WHITE["train_stride"]
    test_stride: int = WHITE["test_stride"]
    refinements: int = 0
    width: int = 32
    blocks: int = 4

    def __post_init__(self):
        super().__post_init__()
        self.check()
