r"""IDDP in our one-image reading (after Lin, Zhuang, Ding, Zeng, Huang, Tu and Paisley, AAAI 2023).

Source of the idea: doi 10.1609/aaai.v37i2.25245, earlier as "self-verification",
doi 10.48550/arXiv.2111.00666. Its abstract states: the network's output is taken as a prior, is noised again
and denoised again, and the network is updated so that the twice denoised picture comes near its prior:

.. math:: \min_\theta \| f(p + n) - p \|^2, \qquad p = f(y) \text{ held fixed}

There is no official code, and the paper's settings are not at hand. Ours are: the form for one picture (the
paper trains on many noisy ones); the loss beside the cycle, which goes from the picture with added noise to
the picture, as Noisy-As-Clean does, and which has the first share ``warm`` of the steps for itself (the cycle
alone is content with a constant answer, and was seen to drift there); the weight of the cycle; the network,
its length and rate. The second noise is ``"gaussian"``, fresh noise of the level sigma, or ``"signs"``, what
f removed with random signs, as a reader of the earlier version reports its choice. The figures of the paper
are not to be expected of this.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from b2g.crops import Drawn
from b2g.errors import B2GError
from b2g.method import Circumstances, Denoised, check_choice
from b2g.noisier import FromNoisier, noisier

CORRUPTIONS = ("gaussian", "signs")


def corrupt(prior: Tensor, noisy: Tensor, kind: str, level: float, generator: torch.Generator) -> Tensor:
    """``prior`` ``(B, C, H, W)`` noised again: by fresh noise of ``level``,
    or by what it lacks of ``noisy``."""
    if kind == "gaussian":
        return noisier(prior, level, generator)
    signs = 2 * torch.randint(2, prior.shape, generator=generator, device=prior.device) - 1
    return prior + signs * (noisy - prior)


@dataclass(frozen=True)
class IDDP(FromNoisier):
    """The denoise-corrupt-denoise cycle on one picture: settings as :class:`b2g.noisier.FromNoisier`.

    ``warm`` is the share of the steps before the cycle begins, ``corruption`` the noise of the cycle,
    ``weight`` what the cycle counts beside the pairs.
    """

    name: ClassVar[str] = "iddp"
    source: ClassVar[str] = "our one-image reading of Lin et al., AAAI 2023, doi 10.1609/aaai.v37i2.25245"
    cost: ClassVar[str] = "some forty seconds on a CPU (256x256)"
    default_profile: ClassVar[str] = "short"
    profiles: ClassVar[dict[str, dict]] = {
        "short": dict(steps=1800),
        "smoke": dict(steps=160, batch=1, layers=5, width=24, learning_rate=4e-3),
    }

    warm: float = 0.5
    corruption: str = "gaussian"
    weight: float = 1.0

    def __post_init__(self):
        super().__post_init__()
        check_choice("corruption", self.corruption, CORRUPTIONS)
        if not self.weight > 0:
            raise B2GError(f"weight is what the cycle counts beside the pairs and must be positive, not {self.weight}.")
        if not 0 < self.warm <= 1:
            raise B2GError(f"warm is the share of steps before the cycle and must lie in (0, 1], not {self.warm}.")

    @property
    def alike(self) -> bool:
        return self.warm == 1

    def loss_of(self, run, drawn: Drawn, share: Tensor, level: float, generator: torch.Generator) -> Tensor:
        """That of the pairs; later also the mean square between the twice denoised crops and their prior."""
        pairs = super().loss_of(run, drawn, share, level, generator)
        if self.warm == 1 or share < self.warm:
            return pairs
        with torch.no_grad():
            prior = run(drawn.noisy)
        again = run(corrupt(prior, drawn.noisy, self.corruption, level, generator))
        return pairs + self.weight * F.mse_loss(again, prior)

    def __call__(self, noisy: Tensor, circumstances: Circumstances = Circumstances()) -> Denoised:
        """Denoise ``noisy`` ``(1, C, H, W)`` in [0, 1] (values outside are welcome: noise is not clipped)."""
        objective, history = self.fitted(noisy, circumstances)
        with torch.no_grad():
            return Denoised(objective.run(noisy), history)
