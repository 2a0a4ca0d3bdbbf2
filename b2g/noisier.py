r"""Fits to pairs of a noisier picture and the noisy one,
shared by the methods that add noise of a known strength.

.. math:: z = y + \alpha\sigma m, \qquad m \sim N(0, I), \qquad f(z) \to y

Where y itself is x plus white Gaussian noise of standard deviation sigma, the noise of y is a known share of
all that lies between z and x: its mean, given z, is 1 / (1 + alpha^2) of it. So the mean of x given z follows
from that of y, which is what a network fitted to y by squared error tends to (Moran et al., CVPR 2020,
doi 10.48550/arXiv.1910.11908):

.. math:: E[x|z] = \frac{(1 + \alpha^2)\, E[y|z] - z}{\alpha^2}
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from b2g.crops import CropObjective, Drawn
from b2g.errors import B2GError
from b2g.fit import Schedule
from b2g.fitted import crops_of_picture, fit_picture
from b2g.method import Circumstances, Method, check_least
from b2g.networks.dncnn import DnCNN
from b2g.noise import given_or_estimated


def noisier(picture: Tensor, level: float, generator: torch.Generator) -> Tensor:
    """``picture`` ``(B, C, H, W)`` with fresh white Gaussian noise of standard deviation ``level``,
    in its units."""
    return picture + level * torch.randn(picture.shape, generator=generator, device=picture.device)


def corrected(answer: Tensor, shown: Tensor, strength: float) -> Tensor:
    """The mean of the clean picture given ``shown`` z, from that of the noisy one, ``answer``:
    the formula above."""
    return ((1 + strength**2) * answer - shown) / strength**2


@dataclass(frozen=True)
class FromNoisier(Method):
    """Base of the methods that fit a network to crops of one noisy picture with noise added.

    ``sigma`` is the noise level on 0..255; None estimates it (:func:`b2g.noise.estimate_sigma`). ``strength``
    is alpha. A step looks at ``batch`` crops of ``side`` pixels in a random orientation. The network is a
    DnCNN of ``layers`` layers and ``width`` channels that predicts the noise (:mod:`b2g.networks.dncnn`),
    without batch normalisation, which makes a short fit to one picture slower. Concrete classes ask for more
    in ``loss_of``.
    """

    sigma: float | None = None
    strength: float = 1.0
    steps: int = 600
    learning_rate: float = 2e-3
    decay_from: float = 0.5
    batch: int = 2
    side: int = 64
    layers: int = 6
    width: int = 32

    def __post_init__(self):
        super().__post_init__()
        if self.sigma is not None and not self.sigma > 0:
            raise B2GError(f"{self.name}'s sigma is a noise level on 0..255 and must be positive, not {self.sigma}.")
        if not self.strength > 0:
            raise B2GError(f"strength is the share of noise that is added and must be positive, not {self.strength}.")
        for name, least in (("batch", 1), ("side", 16), ("layers", 2), ("width", 1)):
            check_least(name, getattr(self, name), least)
        self.schedule()  # refuses what cannot be

    def schedule(self) -> Schedule:
        """How long and how fast the fit goes: the rate falls to 0 over the last
        ``1 - decay_from`` of the steps."""
        return Schedule(self.steps, self.learning_rate, "cosine", self.decay_from)

    def network(self, channels: int) -> nn.Module:
        """The network, ``(B, C, H, W)`` to the same shape."""
        return DnCNN(channels, self.layers, self.width, norm=False)

    def level(self, noisy: Tensor) -> float:
        """The noise's standard deviation in the picture's units, given or estimated."""
        return given_or_estimated(self.sigma, noisy, self.name) / 255

    def loss_of(self, run, drawn: Drawn, share: Tensor, level: float, generator: torch.Generator) -> Tensor:
        """The mean square between f(z) and y; ``level`` is sigma in the picture's units."""
        return F.mse_loss(run(noisier(drawn.noisy, self.strength * level, generator)), drawn.noisy)

    def objective(self, noisy: Tensor, circumstances: Circumstances) -> CropObjective:
        """The network and its loss, ready to be fitted to ``noisy`` ``(1, C, H, W)`` on its device."""
        level = self.level(noisy)
        loss_of = lambda run, drawn, share, generator: self.loss_of(run, drawn, share, level, generator)  # noqa: E731
        make = lambda: self.network(noisy.shape[1])  # noqa: E731
        return crops_of_picture(self, make, noisy, loss_of, circumstances, capturable=self.alike)

    @property
    def alike(self) -> bool:
        """Whether all steps are alike, so that they can be a CUDA graph."""
        return True

    def fitted(
        self, noisy: Tensor, circumstances: Circumstances, moment: Callable[[CropObjective], Tensor] | None = None
    ) -> tuple[CropObjective, list[dict]]:
        """The objective after its fit to ``noisy`` ``(1, C, H, W)``, and the history.

        ``moment(objective)`` is the answer whose PSNR the history shows, f(y) if None.
        """
        objective = self.objective(noisy, circumstances)
        answer = lambda: objective.run(noisy) if moment is None else moment(objective)  # noqa: E731
        result = fit_picture(self, objective, self.schedule(), noisy, circumstances, answer=answer)
        return objective, result.history
