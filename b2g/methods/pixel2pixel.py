"""Pixel2Pixel (Ma, Jiang, Zhou, Liang, Liu and Ma, IEEE TPAMI 47(6), 4614-4629, 2025,
https://ieeexplore.ieee.org/document/10908805; its doi was not at hand): pixels swapped for similar ones.

Setting: one noisy picture; the noise level only tells how many similar pixels are used, and is estimated
where it is not given. Each pixel has a bank of the pixels whose surroundings are most like its own. A step
draws two pictures from the banks and asks a small network to map one to the other: similar content, other
noise.

The official code (github.com/qingma2016/Pixel2Pixel) has no licence; written from its stated numbers:
windows of 40, patches of 7, the nearest 2, 4 or 8 for sigma 10, 25 or 50, six convolutions of 64 channels
and a sigmoid (150 K weights), absolute error, rate 1e-3 with milestones at 1500, 2000 and 2500 of 3000
steps. It keeps 16 in the bank, of which those beyond the used ones are without effect, and not sought here.
Its AdamW's weight decay is left out: the engine has one optimiser, Adam.

Our readings: the two draws of a pixel differ (the same one twice would ask for the noise itself); one draw
for all channels; between the three levels the nearest by ratio; 3x3 kernels with LeakyReLU 0.2; a milestone
halves the rate; the answer is the network's to the noisy picture; the first answers lie about the picture's mean
(:func:`start_at_mean`). The published figures clip the noisy
picture to [0, 1] first; here it is taken as it comes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from b2g.bank import nearest_pixels, pixel_bank
from b2g.errors import B2GError
from b2g.fit import Schedule, build
from b2g.fitted import fit_picture
from b2g.method import Circumstances, Denoised, Method, check_least
from b2g.noise import given_or_estimated
from b2g.seeds import seed_for, torch_generator
from b2g.windowed import Windowed

_USED = {10: 2, 25: 4, 50: 8}  # similar pixels by sigma, as published
_MILESTONES = (1 / 2, 2 / 3, 5 / 6)  # shares of the steps: 1500, 2000 and 2500 of 3000


class Compact(nn.Module):
    """Six 3x3 convolutions, LeakyReLU 0.2 between, a sigmoid at the end: 151 235 weights in colour."""

    def __init__(self, channels: int, width: int = 64, depth: int = 6):
        super().__init__()
        layers: list[nn.Module] = []
        for index in range(depth - 1):
            layers += [nn.Conv2d(width if index else channels, width, 3, padding=1), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(width, channels, 3, padding=1))

    def forward(self, picture: Tensor) -> Tensor:
        return torch.sigmoid(self.layers(picture).float())


@torch.no_grad()
def start_at_mean(network: Compact, noisy: Tensor) -> None:
    """Let the first answers lie about the mean of each channel of ``noisy`` ``(1, C, H, W)``.

    From the middle gray where a sigmoid begins, the way to a dark picture's level is so long that Adam overshoots to
    where the sigmoid is flat, and the answer stays black.
    """
    mean = noisy.mean((0, 2, 3)).clamp(0.01, 0.99)
    network.layers[-1].bias.copy_(torch.logit(mean))


@dataclass(frozen=True)
class Milestones(Schedule):
    """A schedule that halves the rate at a half, two thirds and five sixths of its steps."""

    def factor(self, step: int) -> float:
        """The multiple of ``learning_rate`` used at ``step`` (from 0)."""
        return 0.5 ** sum(step >= round(share * self.steps) for share in _MILESTONES)


def draw_pair(bank: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Two pictures ``(1, C, H, W)`` of ``bank`` ``(count, C, H, W)``: in no pixel the same member."""
    count, channels, *size = bank.shape
    how = {"generator": generator, "device": bank.device}
    first = torch.randint(count, (1, 1, *size), **how)
    second = (first + torch.randint(1, count, (1, 1, *size), **how)) % count
    return tuple(bank.gather(0, which.expand(-1, channels, -1, -1)) for which in (first, second))


class _PairFit(Windowed):
    """The objective of one ``bank`` ``(count, C, H, W)`` made of ``noisy`` ``(1, C, H, W)``."""

    def __init__(self, network: nn.Module, noisy: Tensor, bank: Tensor, *more):
        super().__init__(network, *more)
        self.noisy, self.bank = noisy.contiguous(memory_format=torch.channels_last), bank

    def loss(self, step: int) -> tuple[Tensor, None]:
        (bank,) = self.windows(self.bank)
        seen, target = draw_pair(bank, self.generator)
        return (self.run(seen.contiguous(memory_format=torch.channels_last)) - target).abs().mean(), None

    @torch.no_grad()
    def predict(self) -> Tensor:
        """The network's answer to the noisy picture, ``(1, C, H, W)``."""
        return self.run(self.noisy)


@dataclass(frozen=True)
class Pixel2Pixel(Method):
    """Pixel2Pixel: ``used`` similar pixels a bank (0: by ``sigma`` on 0..255, estimated if None).

    ``patch`` (odd) and ``window`` are the sides of the surroundings and of the search. Each step sees a
    window of ``side`` pixels (0: the picture). ``short`` is no one's published setting: a third of the
    steps, on windows.
    """

    name: ClassVar[str] = "pixel2pixel"
    revision: ClassVar[int] = 2  # 1 began at middle gray, and left dark pictures black
    source: ClassVar[str] = (
        "Ma et al., IEEE TPAMI 47(6), 4614-4629, 2025, https://ieeexplore.ieee.org/document/10908805"
    )
    cost: ClassVar[str] = "about half a minute on a GPU (official); half a minute on a CPU (short, 256x256)"
    default_profile: ClassVar[str] = "short"
    profiles: ClassVar[dict[str, dict]] = {
        "official": {},
        "short": dict(steps=1000, side=64),
        "smoke": dict(steps=150, learning_rate=4e-3, width=12, window=15),
    }

    sigma: float | None = None
    used: int = 0
    patch: int = 7
    window: int = 40
    steps: int = 3000
    learning_rate: float = 1e-3
    width: int = 64
    side: int = 0

    def __post_init__(self):
        super().__post_init__()
        if self.sigma is not None and not self.sigma > 0:
            raise B2GError(f"pixel2pixel's sigma is a noise level on 0..255, positive, not {self.sigma}.")
        if self.used and self.used < 2:
            raise B2GError(f"used is 0 (by sigma) or at least 2 similar pixels, not {self.used}.")
        if self.patch < 1 or self.patch % 2 == 0:
            raise B2GError(f"patch is the odd side of a pixel's surroundings, not {self.patch}.")
        if self.side and self.side < 16:
            raise B2GError(f"side is 0 (the picture) or a window of at least 16 pixels, not {self.side}.")
        check_least("window", self.window, 5)
        check_least("width", self.width, 1)
        self.schedule()  # refuses what cannot be

    def schedule(self) -> Milestones:
        """How long and how fast the fit goes."""
        return Milestones(self.steps, self.learning_rate)

    def count(self, noisy: Tensor) -> int:
        """How many similar pixels serve ``noisy``: ``used``, or as published for the nearest sigma."""
        if self.used:
            return self.used
        sigma = given_or_estimated(self.sigma, noisy, self.name)
        return _USED[min(_USED, key=lambda level: abs(math.log(sigma / level)))]

    def objective(self, noisy: Tensor, circumstances: Circumstances) -> _PairFit:
        """The bank and the network, ready to be fitted to ``noisy`` ``(1, C, H, W)``."""
        seed, device = circumstances.seed, noisy.device
        patch = min(self.patch, (min(noisy.shape[-2:]) - 1) // 2 * 2 + 1)
        bank = pixel_bank(noisy, nearest_pixels(noisy, patch, self.window, self.count(noisy)))
        network = build(lambda: Compact(noisy.shape[1], self.width), seed_for("weights", seed), device)
        start_at_mean(network, noisy)
        generator = torch_generator(seed_for("pairs", seed), device)
        return _PairFit(network, noisy, bank, self.side, generator, circumstances.precision)

    def __call__(self, noisy: Tensor, circumstances: Circumstances = Circumstances()) -> Denoised:
        """Denoise ``noisy`` ``(1, C, H, W)`` in [0, 1] (values outside are welcome)."""
        objective = self.objective(noisy, circumstances)
        result = fit_picture(self, objective, self.schedule(), noisy, circumstances, answer=objective.predict)
        return Denoised(objective.predict(), result.history)
