"""Noisy-As-Clean (Xu, Huang, Cheng, Liu, Zhu, Xu and Shao, IEEE TIP 29, 2020, doi 10.1109/TIP.2020.3026622).

Setting: one noisy picture and noise whose strength is known or estimated. A network learns to go from the
picture with a second, similar noise back to the picture, and is then shown the picture itself. The paper
argues that this comes near to supervised learning as long as the noise is weak; where it is not, half of the
noise stays: in a flat region the network learns to remove just the noise that was added (:mod:`b2g.noisier`).

The official script (github.com/csjunxu/Noisy-As-Clean-TIP2020, no licence) keeps the iterate of highest PSNR
against the clean picture. That is not followed: the steps are fixed, the last weights answer. The paper fits
a DnCNN or a small ResNet; ours is a small DnCNN, and its size, length and rate are our own, so no profile is
called official.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from b2g.method import Circumstances, Denoised
from b2g.noisier import FromNoisier


@dataclass(frozen=True)
class NoisyAsClean(FromNoisier):
    """Noisy-As-Clean: settings as :class:`b2g.noisier.FromNoisier`;
    at ``strength`` 1 both noises are alike."""

    name: ClassVar[str] = "noisy_as_clean"
    source: ClassVar[str] = "Xu et al., IEEE TIP 29, 2020, doi 10.1109/TIP.2020.3026622"
    cost: ClassVar[str] = "some ten seconds on a CPU (256x256)"
    default_profile: ClassVar[str] = "short"
    profiles: ClassVar[dict[str, dict]] = {
        "short": {},
        "smoke": dict(steps=120, batch=1, layers=5, width=24, learning_rate=2e-3),
    }

    def __call__(self, noisy: Tensor, circumstances: Circumstances = Circumstances()) -> Denoised:
        """Denoise ``noisy`` ``(1, C, H, W)`` in [0, 1] (values outside are welcome: noise is not clipped)."""
        objective, history = self.fitted(noisy, circumstances)
        with torch.no_grad():
            return Denoised(objective.run(noisy), history)
