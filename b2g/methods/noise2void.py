"""Noise2Void (Krull, Buchholz and Jug, CVPR 2019, doi 10.1109/CVPR.2019.00223), fitted to the one picture.

Setting: the noisy picture alone, with noise that is independent from pixel to pixel. A few pixels of a patch
are replaced by others from their neighbourhood, and a U-Net is asked for what they were.

The profile ``official`` has the defaults of the authors' library (github.com/juglab/n2v, BSD-3: one network a
channel, mean absolute error, 1.5 % of the pixels). The authors' example for photographs (BSD68, trained on
many) differs: squared error, 3x3 convolutions with 96 features, residual, 0.198 % of the pixels, batch 128.
Our own are the standardised input and the U-Net's layout beyond depth, width, kernel and normalisation.
Not followed: the library halves its learning rate when the loss of patches held out stalls; one picture has
none to spare, so the rate is halved once, half-way. The second version (N2V2, doi 10.48550/arXiv.2211.08512)
is not offered. Where a hidden pixel lends its value to another, the replaced patch still knows it, as in the
library.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, ClassVar

import torch
from torch import Tensor

from b2g.by_channel import each_channel
from b2g.crops import Drawn
from b2g.errors import B2GError
from b2g.fit import Schedule
from b2g.losses import masked_mean
from b2g.masks import stratified_mask
from b2g.method import Circumstances, Denoised, Method, check_choice, check_least
from b2g.networks.shallow_unet import ShallowUNet, check_kernel
from b2g.patch_fit import PatchObjective, fit_patches

NORMS = ("absolute", "squared")


def neighbour_fill(
    picture: Tensor, mask: Tensor, radius: int, *, generator: torch.Generator, centre: bool = True
) -> Tensor:
    """``picture`` ``(B, C, H, W)`` with each hidden pixel of ``mask`` replaced by one drawn from around it.

    Drawn evenly from the square of 2 ``radius`` + 1 pixels, so far as it lies in the picture; ``centre`` says
    whether the pixel itself may be drawn.
    """
    height, width = picture.shape[-2:]
    low, count, own = zip(*(_reach(side, radius, picture.device) for side in (height, width)))
    (tops, lefts), (rows, columns) = low, count
    choices = rows[:, None] * columns
    here = own[0][:, None] * columns + own[1]
    numbers = torch.rand(picture.shape, generator=generator, device=picture.device, dtype=torch.float64)
    drawn = (numbers * (choices if centre else choices - 1)).long()
    if not centre:
        drawn = drawn + (drawn >= here)
    source = (tops[:, None] + drawn // columns) * width + lefts + drawn % columns
    drawn = picture.flatten(2).gather(2, source.flatten(2)).view(picture.shape)
    return torch.where(mask > 0.5, picture, drawn)


def _reach(side: int, radius: int, device) -> tuple[Tensor, Tensor, Tensor]:
    """For each place on an axis: the first within ``radius``, how many there are, and its own number."""
    places = torch.arange(side, device=device)
    low = (places - radius).clamp_min(0)
    return low, (places + radius).clamp_max(side - 1) - low + 1, places - low


@dataclass(frozen=True)
class Noise2Void(Method):
    """Noise2Void: ``steps`` on ``batch`` patches of ``patch`` pixels, a share ``masked`` of them replaced.

    A hidden pixel's value comes from within ``radius`` pixels, itself included (``centre``) or not. ``error``
    of the hidden pixels: ``"absolute"`` or ``"squared"``. ``width``, ``levels``, ``kernel``, ``norm`` and
    ``residual`` are the U-Net's (:class:`b2g.networks.shallow_unet.ShallowUNet`). ``per_channel``: a network
    for every channel; else one for all, with masks of their own. ``short`` is our own budget: one network,
    without normalisation, more hidden pixels, squared error.
    """

    name: ClassVar[str] = "noise2void"
    source: ClassVar[str] = "Krull et al., CVPR 2019, doi 10.1109/CVPR.2019.00223"
    cost: ClassVar[str] = "about a day on a CPU (official), two minutes (short; 256x256)"
    default_profile: ClassVar[str] = "short"
    profiles: ClassVar[dict[str, dict]] = {
        "official": {},
        # Batch normalisation over so few small crops costs about 1 dB; squared error is the photographs' own.
        "short": dict(steps=1500, batch=4, masked=0.06, error="squared", kernel=3, norm=False, learning_rate=2e-3,
                      per_channel=False),
        "smoke": dict(steps=120, batch=4, patch=32, masked=0.06, width=8, kernel=3, learning_rate=4e-3,
                      per_channel=False),
    }  # fmt: skip

    steps: int = 40_000
    learning_rate: float = 4e-4
    batch: int = 16
    patch: int = 64
    masked: float = 0.015
    radius: int = 5
    centre: bool = True
    error: str = "absolute"
    width: int = 32
    levels: int = 2
    kernel: int = 5
    norm: bool = True
    residual: bool = False
    per_channel: bool = True

    def __post_init__(self):
        super().__post_init__()
        if not 0.0 < self.masked <= 0.25:
            raise B2GError(f"masked is the share of hidden pixels, in (0, 0.25], not {self.masked}.")
        check_choice("error", self.error, NORMS)
        for name, least in (("batch", 1), ("patch", 16), ("radius", 1), ("width", 1), ("levels", 1)):
            check_least(name, getattr(self, name), least)
        check_kernel(self.kernel)
        self.schedule()  # refuses what cannot be

    def schedule(self) -> Schedule:
        """How long and how fast the fit goes."""
        return Schedule(self.steps, self.learning_rate, "halve", 0.5)

    def network(self, channels: int) -> ShallowUNet:
        """A network for ``channels`` channels."""
        how = dict(norm=self.norm, residual=self.residual)
        return ShallowUNet(channels, self.width, self.levels, self.kernel, **how)

    def training_loss(
        self, run: Callable[[Tensor], Tensor], drawn: Drawn, share: Tensor, generator: torch.Generator
    ) -> Tensor:
        """The error of the hidden pixels of the ``drawn`` crops, a scalar."""
        mask = stratified_mask(drawn.noisy.shape, self.masked, generator=generator)
        filled = neighbour_fill(drawn.noisy, mask, self.radius, generator=generator, centre=self.centre)
        gap = run(filled) - drawn.noisy
        return masked_mean(gap.abs() if self.error == "absolute" else gap.square(), mask)

    def objective(self, noisy: Tensor, circumstances: Circumstances) -> PatchObjective:
        """The network and the patches of ``noisy`` ``(1, C, H, W)``, ready to be fitted."""
        return PatchObjective(self, noisy, circumstances)

    def __call__(self, noisy: Tensor, circumstances: Circumstances = Circumstances()) -> Denoised:
        """Denoise ``noisy`` ``(1, C, H, W)`` in [0, 1] (values outside are welcome)."""
        if self.per_channel:
            return each_channel(lambda picture, own: fit_patches(self, picture, own), noisy, circumstances)
        return fit_patches(self, noisy, circumstances)
