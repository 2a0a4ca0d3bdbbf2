r"""Noise2Same (Xie, Wang and Ji, NeurIPS 2020, doi 10.48550/arXiv.2010.11971), fitted to the one picture.

.. math:: \frac1N \|f(y) - y\|^2 + \lambda \sqrt{\frac1{|J|} \|f(y)_J - f(y_{J^c})_J\|^2}, \quad \lambda = 2

Setting: the noisy picture alone. The network sees the picture whole; how far its answer depends on the pixels
J is held down by the second term, not forbidden. Published for training on many pictures; the loss, the share
of hidden pixels (0.5 %) and the learning rate (4e-4, halved every 5000 steps) are followed. Our own, for one
picture: crops of it with frozen noise, 10 000 steps, the U-Net (:mod:`b2g.networks.shallow_unet`), and the
fill of the hidden pixels, one pixel of all channels at once, by the mean of the ring around them, taken from
Noise2Self (:func:`b2g.masks.ring_fill`). The official code (github.com/divelab/Noise2Same, GPL-3) is not
followed beyond these facts; it reports a scale-invariant PSNR of standardised pictures, so its figures for
microscopy are not comparable with a PSNR.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, ClassVar

import torch
from torch import Tensor

from b2g.crops import Drawn
from b2g.errors import B2GError
from b2g.fit import Schedule
from b2g.losses import masked_mean
from b2g.masks import ring_fill, stratified_mask
from b2g.method import Circumstances, Denoised, Method, check_least
from b2g.networks.shallow_unet import ShallowUNet, check_kernel
from b2g.patch_fit import PatchObjective, fit_patches


def same_loss(whole: Tensor, blind: Tensor, noisy: Tensor, mask: Tensor, weight: float = 2.0) -> Tensor:
    """The loss above, a scalar, of f(y), f(y with pixels hidden), y ``(B, C, H, W)`` and the mask (1 = kept).

    ``weight`` is lambda. The square root's slope is kept finite where both answers agree.
    """
    dependence = masked_mean((whole - blind).square(), mask.expand_as(whole))
    return (whole - noisy).square().mean() + weight * (dependence + 1e-12).sqrt()


@dataclass(frozen=True)
class Noise2Same(Method):
    """Noise2Same: ``steps`` on ``batch`` patches of ``patch`` pixels, a share ``masked`` of them hidden.

    ``weight`` is lambda, ``halve_every`` the number of steps after which the learning rate is halved.
    ``width``, ``levels`` and ``kernel`` are the U-Net's. The answer is f(y). ``short`` is our own budget for
    a CPU.
    """

    name: ClassVar[str] = "noise2same"
    source: ClassVar[str] = "Xie, Wang and Ji, NeurIPS 2020, doi 10.48550/arXiv.2010.11971"
    cost: ClassVar[str] = "hours on a CPU (official), three minutes (short; 256x256)"
    default_profile: ClassVar[str] = "short"
    profiles: ClassVar[dict[str, dict]] = {
        "official": {},
        "short": dict(steps=1500, batch=4, masked=0.03, learning_rate=2e-3, halve_every=900),
        "smoke": dict(steps=100, batch=4, patch=32, masked=0.06, width=8, learning_rate=8e-3, halve_every=80),
    }

    steps: int = 10_000
    learning_rate: float = 4e-4
    halve_every: int = 5000
    batch: int = 16
    patch: int = 64
    masked: float = 0.005
    weight: float = 2.0
    width: int = 32
    levels: int = 2
    kernel: int = 3

    def __post_init__(self):
        super().__post_init__()
        if not 0.0 < self.masked <= 0.25:
            raise B2GError(f"masked is the share of hidden pixels, in (0, 0.25], not {self.masked}.")
        if not self.weight >= 0:
            raise B2GError(f"weight is lambda of the loss and must not be negative, not {self.weight}.")
        for name, least in (("batch", 1), ("patch", 16), ("halve_every", 1), ("width", 1), ("levels", 1)):
            check_least(name, getattr(self, name), least)
        check_kernel(self.kernel)
        self.schedule()  # refuses what cannot be

    def schedule(self) -> Schedule:
        """How long and how fast the fit goes."""
        if self.halve_every >= self.steps:
            return Schedule(self.steps, self.learning_rate)
        often = (self.steps - 1) // self.halve_every
        return Schedule(self.steps, self.learning_rate, "halve", self.halve_every / self.steps, often)

    def network(self, channels: int) -> ShallowUNet:
        """A network for ``channels`` channels."""
        return ShallowUNet(channels, self.width, self.levels, self.kernel)

    def training_loss(
        self, run: Callable[[Tensor], Tensor], drawn: Drawn, share: Tensor, generator: torch.Generator
    ) -> Tensor:
        """:func:`same_loss` on the ``drawn`` crops, a scalar."""
        mask = stratified_mask(drawn.noisy.shape, self.masked, generator=generator, per_channel=False)
        return same_loss(run(drawn.noisy), run(ring_fill(drawn.noisy, mask)), drawn.noisy, mask, self.weight)

    def objective(self, noisy: Tensor, circumstances: Circumstances) -> PatchObjective:
        """The network and the patches of ``noisy`` ``(1, C, H, W)``, ready to be fitted."""
        return PatchObjective(self, noisy, circumstances)

    def __call__(self, noisy: Tensor, circumstances: Circumstances = Circumstances()) -> Denoised:
        """Denoise ``noisy`` ``(1, C, H, W)`` in [0, 1] (values outside are welcome)."""
        return fit_patches(self, noisy, circumstances)
