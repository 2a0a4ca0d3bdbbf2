"""Noisier2Noise (Moran, Schmidt, Zhong and Coady, CVPR 2020, doi 10.48550/arXiv.1910.11908).

Setting: white Gaussian noise whose level is known or estimated, and one noisy picture. A network learns to go
from the picture with more noise of the same law back to the picture (:mod:`b2g.noisier`); its answer, a mean
of the noisy picture, is turned into one of the clean picture by the paper's correction, and averaged over
draws of the added noise.

There is no official code. The paper trains on many pictures; the form for one picture, its network, length
and rate are ours. Other laws of noise, which the paper also treats, are not: fresh Poisson noise would have
to be drawn from the clean picture. Make such noise Gaussian before (:mod:`b2g.anscombe`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from b2g.crops import CropObjective
from b2g.fit import mean_of_passes
from b2g.method import Circumstances, Denoised, check_least
from b2g.noisier import FromNoisier, corrected, noisier
from b2g.seeds import torch_generator


@dataclass(frozen=True)
class Noisier2Noise(FromNoisier):
    """Noisier2Noise in a form for one picture: settings as :class:`b2g.noisier.FromNoisier`.

    ``strength`` is the paper's alpha: a small one leaves the network more to see and divides its errors by
    alpha^2. ``draws`` of the added noise are answered and averaged at the end.
    """

    name: ClassVar[str] = "noisier2noise"
    source: ClassVar[str] = "Moran et al., CVPR 2020, doi 10.48550/arXiv.1910.11908; one-image form ours"
    cost: ClassVar[str] = "a minute on a CPU (256x256)"
    default_profile: ClassVar[str] = "short"
    profiles: ClassVar[dict[str, dict]] = {
        "short": dict(steps=3600, strength=0.5),  # less added noise and a longer fit do better on photographs
        "smoke": dict(steps=120, batch=1, layers=5, width=24, learning_rate=2e-3, draws=8),
    }

    draws: int = 16

    def __post_init__(self):
        super().__post_init__()
        check_least("draws", self.draws, 1)

    def answer(self, objective: CropObjective, noisy: Tensor, level: float, generator: torch.Generator) -> Tensor:
        """One corrected answer to a fresh draw of the added noise, ``(1, C, H, W)``;
        ``level`` is sigma in the picture's units."""
        shown = noisier(noisy, self.strength * level, generator)
        return corrected(objective.run(shown), shown, self.strength)

    def __call__(self, noisy: Tensor, circumstances: Circumstances = Circumstances()) -> Denoised:
        """Denoise ``noisy`` ``(1, C, H, W)`` in [0, 1] (values outside are welcome: noise is not clipped)."""
        level = self.level(noisy)
        moment = lambda fit: self.answer(fit, noisy, level, torch_generator(0, noisy.device))  # noqa: E731
        objective, history = self.fitted(noisy, circumstances, moment)
        one = lambda: self.answer(objective, noisy, level, objective.generators[0])  # noqa: E731
        return Denoised(mean_of_passes(one, self.draws, circumstances.progress), history)
