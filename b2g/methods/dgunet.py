"""DGUNet (Mou, Wang and Zhang, CVPR 2022, doi 10.1109/CVPR52688.2022.01688): a supervised ceiling, no
rival.

It sees clean pictures: it is trained to turn noisy ones into the clean ones that belong to them. So its
figures say what a network can do that was shown the answers, not what can be had from noisy pictures.

The network (:mod:`b2g.networks.dgunet`) unfolds a descent into 7 stages. The loss is the sum over all
stages of the mean of sqrt((x - clean)^2 + 0.001^2), with every stage's picture x clamped to [0, 1] as in
the code for a camera's noise, and the answer of ``official`` and ``plus`` the mean over the eight
orientations of the square, as in its test.

The authors trained on a camera's noise (SIDD), not on Gaussian noise, so how to train for that is not
known. Taken over from their recipe: Adam at 1e-4, crops of 128 pixels, in batches of 16 (so others; the
settings in the code have 1), 80 epochs of 96 000 crops. Ours: white noise of level 25, not clipped, drawn
anew for every crop of BSDS500's 400 pictures; the rate falls by a plain cosine to 0 (the code warms up over
3 epochs and ends at 2.7e-5); no weight decay (the code's is 1e-8); and no mixing of crops, which would
lower the level of white noise. The recipe ``small`` and the sizes of ``short`` are ours as well. The
degradation is learned, as in the code for denoising, although for Gaussian noise it is known to be none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, ClassVar

import torch
from torch import Tensor, nn

from b2g.crops import Drawn
from b2g.method import check_least
from b2g.networks.dgunet import DGUNet as Network
from b2g.trained import Trained
from b2g.training import Recipe

Run = Callable[[Tensor], Tensor]
EPSILON = 1e-3  # of the loss, on pictures in [0, 1]
_PUBLISHED = dict(steps=480_000, learning_rate=1e-4, decay="cosine", batch=16, side=128, noise="fresh")


def charbonnier(pictures: Tensor, clean: Tensor) -> Tensor:
    """The sum over the stages of ``pictures`` ``(B, K, C, H, W)`` of a mean absolute error, smooth at 0.

    ``clean`` ``(B, C, H, W)`` in [0, 1]; the pictures are clamped to it. The least value is K times 0.001.
    """
    difference = pictures.clamp(0, 1) - clean[:, None]
    return (difference.square() + EPSILON**2).sqrt().mean((0, 2, 3, 4)).sum()


def over_orientations(run: Run, noisy: Tensor) -> Tensor:
    """The mean of ``run``'s answers to the eight orientations of ``noisy`` ``(B, C, H, W)``, each turned
    back.
    """
    total = torch.zeros_like(noisy)
    for turns in range(4):
        for mirrored in ((), (-1,)):
            seen = noisy.rot90(turns, (-2, -1)).flip(mirrored)
            total += run(seen).flip(mirrored).rot90(-turns, (-2, -1))
    return total / 8


@dataclass(frozen=True)
class DGUNet(Trained):
    """DGUNet, trained on pairs of a noisy picture and the clean one: a supervised ceiling, no rival.

    ``width`` and ``growth``: channels of the first level, and how many more each level below has.
    ``shared``: one block for all stages but the first and the last (the base network), else one for each
    (DGUNet+). ``ensemble``: the answer is the mean over eight orientations.

    ``official`` has the sizes of the base network, ``plus`` those of DGUNet+, ``short`` a narrow network of
    fewer stages, for a CPU.
    """

    name: ClassVar[str] = "dgunet"
    source: ClassVar[str] = "Mou, Wang and Zhang, CVPR 2022, doi 10.1109/CVPR52688.2022.01688"
    cost: ClassVar[str] = "a second on a CPU (256x256), once trained (official: a minute or two)"
    default_profile: ClassVar[str] = "short"
    profiles: ClassVar[dict[str, dict]] = {
        "official": dict(recipe="full", width=80, growth=48, stages=7, ensemble=True),
        "plus": dict(recipe="plus", width=80, growth=40, stages=7, shared=False, ensemble=True),
        "short": {}, "smoke": {},
    }  # fmt: skip
    recipes: ClassVar[dict[str, Recipe]] = {
        "full": Recipe("full", **_PUBLISHED), "plus": Recipe("plus", **_PUBLISHED),
        "small": Recipe("small", 2000, 1e-3, "cosine", batch=4, side=64),
    }  # fmt: skip
    supervised: ClassVar[bool] = True

    width: int = 16
    growth: int = 8
    stages: int = 4
    shared: bool = True
    ensemble: bool = False

    def __post_init__(self):
        super().__post_init__()
        check_least("width", self.width, 2)
        check_least("growth", self.growth, 0)
        check_least("stages", self.stages, 3)

    def network(self, channels: int) -> nn.Module:
        """The network of these sizes; its answer holds the pictures of all stages."""
        return Network(channels, self.width, self.growth, self.stages, self.shared)

    def training_loss(self, run: Run, drawn: Drawn, share: Tensor, generator: torch.Generator) -> Tensor:
        """What all stages' pictures of the noisy crops differ by from the clean crops."""
        return charbonnier(run(drawn.noisy), drawn.clean)

    def answer(self, run: Run, noisy: Tensor, generator: torch.Generator) -> Tensor:
        """The last stage's picture of ``noisy`` ``(1, C, H, W)``."""
        last = lambda picture: run(picture)[:, 0]  # noqa: E731
        return over_orientations(last, noisy) if self.ensemble else last(noisy)
