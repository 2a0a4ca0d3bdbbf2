"""LG-BPN (Wang, Fu, Liu and Zhang, CVPR 2023, doi 10.48550/arXiv.2304.00534): a blind patch, for a camera's
noise.

Where AP-BSN takes the picture apart before a blind spot of one pixel, LG-BPN hides a whole diamond of 41
pixels from kernels on the full picture, and takes apart only the features behind them: near ones every fourth
pixel, far ones every fifth. In the answer the same kernels are read at a part of their offsets, so that the
hidden patch shrinks to 3x3, and the parts are larger; last comes the random-replacing refinement, the mean of
8, where only the pixel itself is hidden.

The published method learns from many noisy pictures (``lg_bpn_many``); ``lg_bpn`` fits the same network to
crops of the one picture, for which no official recipe exists, so the number of steps is ours. Written from
facts taken from the published code, since the paper's own text was not at hand beyond its abstract: network
of 4.56 M weights, factors of its form for SIDD (for DND: ``test_strides`` 2 and 4, ``test_shrink`` 0.5 and
0.65, ``refine_strides`` 2 and 2, ``refine_shrink`` 0.4 and 0.35), L1 over all pixels, Adam 1e-4, batches of 8
crops of 120 pixels, 20 epochs of 3068 steps, 8 refinements of share 0.16.

Where the code lets a pixel's own noise through, the method's idea is followed and not the code. The first
kernels end in zeros, not in the mirrored picture, which shows a border its own pixels. The parts go through
the branches as a batch, each ending in zeros; the code lays them side by side in the fit, where steps run
over from one part into the next and open 12 pixels of the diamond, and frames them by mirrored pixels in the
answer. The masks hold in the answer, too. Kept is the attention between channels, which belongs to the method
although its weights hang a little on every pixel, the own one included; they are taken over all parts of a
crop or picture together, as in the code's fit (its answer takes them part by part). Also ours: a range of [0,
1] instead of 0..255, the first weights, and a cosine from the first of the rate's two falls on. A shrunk
kernel is made by spreading its weights, which gives the numbers of the code's reading between pixels. The
training set is not SIDD's noisy pictures but BSDS500's with white noise, for which these factors are wrong:
noise that is independent from pixel to pixel asks for strides of 1 and one hidden pixel, as in the profile
``short_white`` and in the small weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from b2g.asymmetric import Asymmetric, FittedAsymmetric, Run
from b2g.crops import Drawn
from b2g.errors import B2GError
from b2g.method import check_least
from b2g.networks.lg_bpn import HEADS, LocalGlobal, Look, check_blind
from b2g.trained import Trained
from b2g.training import Recipe

SMALL = dict(width=32, head=8, blocks=2, transformers=1, refinements=0)
BRIEF = dict(SMALL, steps=1200, learning_rate=2e-3, batch=1, side=64)
WHITE = dict(
    reaches=(1, 2), hidden=0, train_strides=(1, 1), test_strides=(1, 1), refine_strides=(1, 1),
    test_shrink=(1.0, 1.0), refine_shrink=(1.0, 1.0),
)  # fmt: skip


@dataclass(frozen=True)
class _LGBPN(Asymmetric):
    """What both forms of LG-BPN can set; pairs are (near, far).

    ``reaches`` of the first kernels and the radius ``hidden`` of the diamond they skip. ``train_strides``,
    ``test_strides``, ``refine_strides`` of the features' parts, and ``test_shrink``, ``refine_shrink`` of the
    kernels' offsets, in the fit, the answer and the refinement; refused where an answer would see its own
    pixel. ``width``, ``head``, ``blocks``, ``transformers``: of the network
    (:class:`b2g.networks.lg_bpn.LocalGlobal`).
    """

    reaches: tuple[int, int] = (4, 10)
    hidden: int = 4
    train_strides: tuple[int, int] = (4, 5)
    test_strides: tuple[int, int] = (3, 4)
    test_shrink: tuple[float, float] = (0.72, 0.80)
    refine_strides: tuple[int, int] = (2, 4)
    refine_shrink: tuple[float, float] = (0.46, 0.43)
    width: int = 128
    head: int = 24
    blocks: int = 9
    transformers: int = 6

    def check(self) -> None:
        super().check()
        for name, least in dict(hidden=0, width=HEADS, head=1, blocks=0, transformers=0).items():
            check_least(name, getattr(self, name), least)
        if self.width % HEADS:
            raise B2GError(f"width must be a multiple of the {HEADS} heads of attention, not {self.width}.")
        for reach in self.reaches:
            check_least("reaches", reach, 1)
        for look in self.looks():
            check_blind(self.reaches, self.hidden, look)

    def looks(self) -> tuple[Look, Look, Look]:
        """How the network looks in the fit, in the answer and in its refinement."""
        answer = Look(self.test_strides, self.test_shrink)
        return Look(self.train_strides), answer, Look(self.refine_strides, self.refine_shrink)

    def network(self, channels: int) -> nn.Module:
        """The untrained network."""
        sizes = self.width, self.head, self.blocks, self.transformers
        return LocalGlobal(channels, *sizes, self.reaches, self.hidden)

    def training_loss(self, run: Run, drawn: Drawn, share: Tensor, generator: torch.Generator) -> Tensor:
        """The mean absolute difference of the noisy crops and the blind answers to them."""
        return F.l1_loss(run(drawn.noisy, self.looks()[0]), drawn.noisy)

    def first(self, run: Run, noisy: Tensor) -> Tensor:
        """The answer with the patch of the first pass hidden."""
        return run(noisy, self.looks()[1])

    def again(self, run: Run, picture: Tensor) -> Tensor:
        """The answer with that of the refinement hidden."""
        return run(picture, self.looks()[2])


@dataclass(frozen=True)
class LGBPN(_LGBPN, FittedAsymmetric):
    """LG-BPN fitted to one picture: ``batch`` crops of ``side`` pixels a step, flipped and turned at random.

    ``official`` is the published network and rate; ``short`` is ours, a smaller network on smaller crops at
    twenty times the rate, without the refinement; ``short_white`` is the same with the factors for noise that
    neighbours do not share.
    """

    name: ClassVar[str] = "lg_bpn"
    label: ClassVar[str] = "one image"
    source: ClassVar[str] = "Wang et al., CVPR 2023, doi 10.48550/arXiv.2304.00534 (one-image form: ours)"
    cost: ClassVar[str] = "a minute on a CPU (short, 256x256); for a GPU (official)"
    default_profile: ClassVar[str] = "short"
    profiles: ClassVar[dict[str, dict]] = {
        "official": {},
        "short": BRIEF,
        "short_white": dict(BRIEF, **WHITE),
        "smoke": dict(SMALL, **WHITE, steps=100, learning_rate=6e-3, width=16, blocks=1, batch=1, side=48),
    }


PUBLISHED = {name: getattr(_LGBPN, name) for name in WHITE}


@dataclass(frozen=True)
class LGBPNMany(_LGBPN, Trained):
    """LG-BPN trained on many noisy pictures: ``official`` is the published network and number of steps,
    ``short`` a smaller one by a recipe of ours, with the factors for white noise, since that is what the
    recipes train on.
    """

    name: ClassVar[str] = "lg_bpn_many"
    revision: ClassVar[int] = 2  # the small weights of 1 had a camera's factors
    source: ClassVar[str] = "Wang et al., CVPR 2023, doi 10.48550/arXiv.2304.00534"
    cost: ClassVar[str] = "seconds on a CPU (short, 256x256), once trained"
    default_profile: ClassVar[str] = "short"
    profiles: ClassVar[dict[str, dict]] = {
        "official": dict(
            recipe="full", width=128, head=24, blocks=9, transformers=6, refinements=8, **PUBLISHED
        ),
        "short": {},
        "smoke": {},
    }
    recipes: ClassVar[dict[str, Recipe]] = {
        "full": Recipe("full", 61_360, 1e-4, "cosine", 0.4, batch=8, side=120),
        "small": Recipe("small", 8000, 2e-3, "cosine", 0.4, batch=1, side=64),
    }
    capturable: ClassVar[bool] = True

    reaches: tuple[int, int] = WHITE["reaches"]
    hidden: int = WHITE["hidden"]
    train_strides: tuple[int, int] = WHITE["train_strides"]
    test_strides: tuple[int, int] = WHITE["test_strides"]
    test_shrink: tuple[float, float] = WHITE["test_shrink"]
    refine_strides: tuple[int, int] = WHITE["refine_strides"]
    refine_shrink: tuple[float, float] = WHITE["refine_shrink"]
    refinements: int = SMALL["refinements"]
    width: int = SMALL["width"]
    head: int = SMALL["head"]
    blocks: int = SMALL["blocks"]
    transformers: int = SMALL["transformers"]

    def __post_init__(self):
        super().__post_init__()
        self.check()
