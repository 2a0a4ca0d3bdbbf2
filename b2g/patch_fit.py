"""Fitting to patches of one picture brought to mean 0 and spread 1: what Noise2Void and Noise2Same share."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from b2g.crops import CropObjective, Crops
from b2g.fit import build
from b2g.fitted import fit_picture
from b2g.method import Circumstances, Denoised
from b2g.seeds import seed_for, torch_generator


class PatchObjective(CropObjective):
    """The objective of one noisy picture ``(1, C, H, W)``, whose channels are standardised each by itself.

    The ``method`` gives ``patch`` (side), ``batch``, ``steps``, ``network(channels)`` and
    ``training_loss(run, drawn, share, generator)``, as :class:`b2g.crops.CropObjective` asks for it. Crops
    are turned and mirrored in all eight ways; their noise is that of the picture.
    """

    def __init__(self, method, noisy: Tensor, circumstances: Circumstances):
        seed, device = circumstances.seed, noisy.device
        self.mean = noisy.mean((-2, -1), keepdim=True)
        self.spread = noisy.std((-2, -1), keepdim=True).clamp_min(1e-6)
        self.standard = (noisy - self.mean) / self.spread
        masks, places = (torch_generator(seed_for(name, seed), device) for name in ("masks", "crops"))
        super().__init__(
            build(lambda: method.network(noisy.shape[1]), seed_for("weights", seed), device),
            Crops([self.standard], method.patch, method.batch, places),
            partial(method.training_loss, generator=masks), masks, circumstances.precision,
            steps=method.steps, capturable=True,
        )  # fmt: skip

    @torch.no_grad()
    def answer(self) -> Tensor:
        """The network's answer to the whole picture ``(1, C, H, W)``, with statistics from the fit."""
        self.network.eval()
        answer = self.run(self.standard)
        self.network.train()
        return (answer * self.spread + self.mean).clamp(0, 1)


def fit_patches(method, noisy: Tensor, circumstances: Circumstances) -> Denoised:
    """Fit ``method``'s network to patches of ``noisy`` ``(1, C, H, W)`` and ask it for the whole picture."""
    objective = PatchObjective(method, noisy, circumstances)
    result = fit_picture(method, objective, method.schedule(), noisy, circumstances, answer=objective.answer)
    return Denoised(objective.answer(), result.history)
