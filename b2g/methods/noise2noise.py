"""Noise2Noise (Lehtinen et al., ICML 2018, doi 10.48550/arXiv.1803.04189):
learn one noisy picture from another.

Training sees pairs of noisy pictures of one scene and no clean one. The mean square between the answer to the
first and the second has the clean picture as its best answer, since the second one's noise cannot be
foreseen. Pairs make it a ceiling to compare with, not a method for a single photograph.

Written from the stated settings: the U-Net of 991 203 weights in colour, pictures shifted to -0.5..0.5, Adam
3e-4 with a ramp down over the last 30 %, batches of 4, levels from 0 to 50, 300 000 steps. Not followed: the
official training set (50 000 ImageNet pictures; here BSDS500's 400), its crops (128 pixels here), and Adam's
second decay of 0.99 (0.999 here, as everywhere in this package). The ramp is read as a cosine. By default
both pictures of a pair are frozen. The U-Net begins with one of Self2Self's partial convolutions: with
nothing hidden it is a plain one, but at the picture's border, where it makes up for the zeros outside.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from b2g.crops import Drawn
from b2g.method import check_least
from b2g.network import Architecture, EncoderDecoder
from b2g.trained import Trained
from b2g.training import Recipe

Run = Callable[[Tensor], Tensor]


class Shifted(nn.Module):
    """A network that works on pictures in -0.5..0.5, seen from 0..1."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, picture: Tensor) -> Tensor:
        return self.network(picture - 0.5) + 0.5


@dataclass(frozen=True)
class Noise2Noise(Trained):
    """Noise2Noise, trained on pairs of noisy pictures; the answer is one pass.

    ``official`` means weights of the published length, ``short`` those of our recipe for a CPU: one level of
    noise (25), a fiftieth of the steps, smaller crops.
    """

    name: ClassVar[str] = "noise2noise"
    source: ClassVar[str] = "Lehtinen et al., ICML 2018, doi 10.48550/arXiv.1803.04189"
    cost: ClassVar[str] = "about a second on a CPU (256x256), once trained"
    default_profile: ClassVar[str] = "short"
    profiles: ClassVar[dict[str, dict]] = {
        "official": dict(recipe="full"), "short": dict(recipe="small"), "smoke": dict(recipe="small"),
    }  # fmt: skip
    recipes: ClassVar[dict[str, Recipe]] = {
        "full": Recipe("full", 300_000, 3e-4, "cosine", 0.7, batch=4, side=128, sigma=0.0, sigma_to=50.0),
        "small": Recipe("small", 6000, 1e-3, "cosine", 0.3, batch=4, side=64),
    }
    pairs: ClassVar[bool] = True
    capturable: ClassVar[bool] = True

    width: int = 48

    def __post_init__(self):
        super().__post_init__()
        check_least("width", self.width, 1)

    def network(self, channels: int) -> nn.Module:
        """The U-Net of Noise2Noise."""
        # Nothing is ever hidden: plain convolutions behind the first layer do what masked ones would, borders aside.
        shape = Architecture(width=self.width, masked_layers="first", norm="none", dropout="none", output="linear")
        return Shifted(EncoderDecoder(channels, shape))

    def training_loss(self, run: Run, drawn: Drawn, share: Tensor, generator: torch.Generator) -> Tensor:
        """The mean square between the answer to one noisy crop and the other one."""
        return F.mse_loss(run(drawn.noisy), drawn.other)
