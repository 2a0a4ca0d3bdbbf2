"""HQSSL (Laine, Karras, Lehtinen and Aila, NeurIPS 2019, doi 10.48550/arXiv.1901.10277): four half planes and
a posterior.

The network sees all of the picture but the pixel in question, by construction, and says which colours that
pixel may have: a mean and a covariance. It is trained by the likelihood of the noisy pixels themselves
(:mod:`b2g.likelihood`). At the test the noisy pixel is let in again: the answer is the mean of the clean
pixel given both.

The noise level is known, or learned beside the network as one number. The likelihood alone does not tell
noise from what the network cannot foresee, so a learned level is rewarded a little (``reward``). The official
code (github.com/NVlabs/selfsupervised-denoising, CC-BY-NC 4.0) draws the noise of its clean pictures anew for
every crop; here it is frozen unless a recipe says otherwise.

Written from facts of the paper and the code: four rotated branches of one network, moved by one pixel before
they merge; 2 million crops in batches of 4, rate 3e-4. Of the code: a branch is Noise2Noise's U-Net (48 and
96 features), the merging layers have 384 and 96, the crops 256 pixels, the reward is 0.1 of the level in
colour (in gray its likelihood is twice ours, so that its reward weighs half). Ours: the rate falls by a plain
cosine over the last 30 % (the code's is squared, after warming up over the first 10 %), Adam's second decay
is 0.999 (the code: 0.99), a learned level starts at 25 (the code: about 5). Not built: a level estimated for
each picture, and the laws of Poisson and impulse noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, ClassVar

import torch
from torch import Tensor, nn

from b2g.crops import Drawn
from b2g.errors import B2GError
from b2g.likelihood import answers_for, mean_and_covariance, negative_log_likelihood, posterior
from b2g.method import check_least
from b2g.networks.blind_spot import HalfPlane
from b2g.trained import Trained
from b2g.training import Recipe

Run = Callable[[Tensor], Tensor]
START = 25.0  # where a learned level starts, on 0..255


class HalfPlaneWithNoise(nn.Module):
    """:class:`HalfPlane`'s answers, and the learned noise level as one more channel, alike at every pixel.

    ``(B, C, H, W)`` to ``(B, C + C (C + 1) / 2 + 1, H, W)``; the level is positive, in the picture's units.
    """

    def __init__(self, channels: int, width: int, depth: int):
        super().__init__()
        self.blind = HalfPlane(channels, answers_for(channels), width, depth)
        self.log_sigma = nn.Parameter(torch.tensor(START / 255).log())

    def forward(self, picture: Tensor) -> Tensor:
        sigma = self.log_sigma.exp().expand(len(picture), 1, *picture.shape[-2:])
        return torch.cat((self.blind(picture).float(), sigma), 1)


@dataclass(frozen=True)
class HQSSL(Trained):
    """Half-plane network, Gaussian likelihood, posterior mean.

    ``train_sigma`` is the known level of the training's noise, on 0..255, which must be the recipe's; None:
    one level for all training pictures is learned. ``sigma`` is the level of the picture at hand; None: that
    of the training.
    """

    name: ClassVar[str] = "hqssl"
    source: ClassVar[str] = "Laine et al., NeurIPS 2019, doi 10.48550/arXiv.1901.10277"
    cost: ClassVar[str] = "seconds on a CPU (256x256), once trained"
    default_profile: ClassVar[str] = "short"
    profiles: ClassVar[dict[str, dict]] = {
        "official": dict(recipe="full", width=48, depth=5), "short": {}, "smoke": {},
    }  # fmt: skip
    recipes: ClassVar[dict[str, Recipe]] = {
        "full": Recipe("full", 500_000, 3e-4, "cosine", 0.7, batch=4, side=256),
        # Five levels look farther than such a crop, and fail on whole pictures, where what they see is no border.
        "small": Recipe("small", 1500, 1e-3, "cosine", 0.3, batch=2, side=96),
    }
    capturable: ClassVar[bool] = True

    train_sigma: float | None = None
    sigma: float | None = None
    reward: float = 0.1
    width: int = 24
    depth: int = 3

    def __post_init__(self):
        super().__post_init__()
        for name in ("train_sigma", "sigma"):
            level = getattr(self, name)
            if level is not None and not level > 0:
                raise B2GError(f"hqssl's {name}, a noise level on 0..255, must be positive, not {level}.")
        if self.reward < 0:
            raise B2GError(f"reward, of a learned noise level, must be at least 0, not {self.reward}.")
        check_least("width", self.width, 1)
        check_least("depth", self.depth, 1)

    def network(self, channels: int) -> nn.Module:
        """The half-plane network and its noise level."""
        return HalfPlaneWithNoise(channels, self.width, self.depth)

    def training_loss(self, run: Run, drawn: Drawn, share: Tensor, generator: torch.Generator) -> Tensor:
        """The negative log-likelihood of the noisy crops."""
        answers = run(drawn.noisy)
        mean, covariance = mean_and_covariance(answers[:, :-1], drawn.noisy.shape[1])
        if self.train_sigma is not None:
            return negative_log_likelihood(drawn.noisy, mean, covariance, self.train_sigma / 255)
        sigma = answers[:, -1:]
        return negative_log_likelihood(drawn.noisy, mean, covariance, sigma) - self.reward * sigma.mean()

    def answer(self, run: Run, noisy: Tensor, generator: torch.Generator) -> Tensor:
        """The posterior mean of ``noisy`` ``(1, C, H, W)``."""
        answers = run(noisy)
        level = self.train_sigma if self.sigma is None else self.sigma
        sigma = answers[:, -1:] if level is None else level / 255
        return posterior(noisy, *mean_and_covariance(answers[:, :-1], noisy.shape[1]), sigma)
