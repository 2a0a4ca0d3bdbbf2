"""Zero-Shot Noise2Noise (Mansour and Heckel, CVPR 2023, doi 10.1109/CVPR52729.2023.01347).

Two half-size pictures are made of the noisy one; a tiny network learns to map each to the other. The official
code is a notebook without a licence; written from the paper and its stated settings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from b2g.fit import Schedule, autocast, build
from b2g.fitted import fit_picture
from b2g.method import Circumstances, Denoised, Method, check_least
from b2g.seeds import seed_for


class NoisePredictor(nn.Module):
    """Three convolutions (3x3, 3x3, 1x1; LeakyReLU 0.2) that predict the noise: 22 275 weights in colour."""

    def __init__(self, channels: int, width: int = 48):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, width, 3, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, channels, 1),
        )

    def forward(self, picture: Tensor) -> Tensor:
        return self.layers(picture)


def pair_downsample(picture: Tensor) -> tuple[Tensor, Tensor]:
    """The paper's D_1 and D_2: means of the anti-diagonal and of the diagonal pair of every 2x2 square.

    ``(B, C, H, W)`` with even sides to twice ``(B, C, H/2, W/2)``; their sum is twice the mean of the square.
    """
    top, bottom = picture[..., 0::2, :], picture[..., 1::2, :]
    anti = (top[..., 1::2] + bottom[..., 0::2]) / 2
    diagonal = (top[..., 0::2] + bottom[..., 1::2]) / 2
    return anti, diagonal


def pair_loss(first: Tensor, second: Tensor, first_clean: Tensor, second_clean: Tensor, whole_clean: Tensor) -> Tensor:
    """Residual loss plus consistency loss, weights 1 and 1, of the two halves,
    their answers and the whole's answer."""
    residual = (F.mse_loss(first_clean, second) + F.mse_loss(second_clean, first)) / 2
    # The gradient runs through the denoised whole, too: the consistency term ties both scales together.
    whole_first, whole_second = pair_downsample(whole_clean)
    consistency = (F.mse_loss(first_clean, whole_first) + F.mse_loss(second_clean, whole_second)) / 2
    return residual + consistency


class _PairObjective:
    """The objective of one noisy picture ``(1, C, H, W)`` with even sides."""

    capturable = True

    def __init__(self, network: nn.Module, noisy: Tensor, precision: str):
        self.network, self.noisy, self.precision, self.loss_of = network, noisy, precision, pair_loss

    def clean(self, picture: Tensor) -> Tensor:
        with autocast(picture.device, self.precision):
            noise = self.network(picture)
        return picture - noise.float()

    def loss(self, step: int) -> tuple[Tensor, None]:
        first, second = pair_downsample(self.noisy)
        return self.loss_of(first, second, self.clean(first), self.clean(second), self.clean(self.noisy)), None

    def state(self) -> dict:
        return {}

    def load_state(self, state: dict) -> None:
        pass


@dataclass(frozen=True)
class ZSN2N(Method):
    """Zero-Shot Noise2Noise: full-picture Adam steps, the rate halved once at three quarters; no ensemble."""

    name: ClassVar[str] = "zs_n2n"
    source: ClassVar[str] = "Mansour and Heckel, CVPR 2023, doi 10.1109/CVPR52729.2023.01347"
    cost: ClassVar[str] = "three minutes on a CPU (256x256)"
    default_profile: ClassVar[str] = "official"
    profiles: ClassVar[dict[str, dict]] = {"official": {}, "smoke": dict(steps=150)}

    steps: int = 2000
    learning_rate: float = 1e-3
    width: int = 48

    def __post_init__(self):
        super().__post_init__()
        check_least("width", self.width, 1)
        self.schedule()  # refuses what cannot be

    def schedule(self) -> Schedule:
        """How long and how fast the fit goes."""
        return Schedule(self.steps, self.learning_rate, "halve", 0.75)

    def objective(self, noisy: Tensor, circumstances: Circumstances) -> _PairObjective:
        """The network and its losses, ready to be fitted to ``noisy`` ``(1, C, H, W)``;
        odd sides are mirrored by one pixel, so that no pair of the last squares has the same noise twice."""
        height, width = noisy.shape[-2:]
        even = F.pad(noisy, (0, width % 2, 0, height % 2), mode="reflect")
        even = even.contiguous(memory_format=torch.channels_last)
        make = lambda: NoisePredictor(noisy.shape[1], self.width)  # noqa: E731
        network = build(make, seed_for("weights", circumstances.seed), noisy.device)
        return _PairObjective(network, even, circumstances.precision)

    def __call__(self, noisy: Tensor, circumstances: Circumstances = Circumstances()) -> Denoised:
        """Denoise ``noisy`` ``(1, C, H, W)`` in [0, 1];
        odd sides are mirrored by one pixel and cropped back."""
        height, width = noisy.shape[-2:]
        objective = self.objective(noisy, circumstances)
        answer = lambda: objective.clean(objective.noisy)[..., :height, :width].clamp(0, 1)  # noqa: E731
        result = fit_picture(self, objective, self.schedule(), noisy, circumstances, answer=answer)
        with torch.no_grad():
            return Denoised(answer(), result.history)

