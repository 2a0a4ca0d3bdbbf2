"""NLR: Zero-Shot Blind-Spot Image Denoising via Cross-Scale Non-Local Pixel Refilling (Guo, Zhang, Ma and
Ji, NeurIPS 2025, https://neurips.cc/virtual/2025/poster/118602; a doi was not found).

Setting: one noisy picture, noise unknown and perhaps alike in neighbouring pixels. Hidden pixels are not
set to zero but refilled from a second version of the picture, whose patches come from the picture at half
the size (:mod:`b2g.refill`). A small dilated blind-spot network, on every second pixel (pixel-shuffle
downsampling), predicts the hidden noisy pixels; a second term asks for the same answer at full resolution
(Eq. 11 to 13).

Paper and official code (github.com/QilnnGuo/Denoising-NLR, MIT) agree: patches of 8, 64 channels and 4
blocks (0.5 M weights), Adam 1e-4 with cosine decay, 2000 steps, 30 % of the entries kept, absolute error,
weight 0.2, the mean of 10 passes. For white noise the paper leaves out the shuffling (profile ``white``)
and adopts a kept share of 0.5 (Table 12); its Table 14 repeats the headline figure of Kodak24 under a
masked share of 0.1, so which share made it is open.

What is not followed: the code lays the shuffled parts side by side in one picture, here they are a batch,
so that no part sees into another. The variant on Noise2Noise's U-Net (other rate, weight and a mixture of
two refills; 1 dB lower in the paper) is not built. Written from the paper and from the facts of the code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from b2g.errors import B2GError
from b2g.fit import Schedule, build, mean_of_passes
from b2g.fitted import fit_picture
from b2g.masks import bernoulli_mask
from b2g.method import Circumstances, Denoised, Method, check_least
from b2g.networks.blind_spot import DilatedBlindSpot
from b2g.refill import refilled
from b2g.seeds import seed_for, torch_generator
from b2g.shuffle import shuffle_down, shuffle_up
from b2g.windowed import Windowed


class _RefilledFit(Windowed):
    """The objective of ``noisy`` ``(1, C, H, W)`` and its ``refill`` of the same shape."""

    def __init__(self, network: nn.Module, noisy: Tensor, refill: Tensor, method: "NLR", *more):
        super().__init__(network, method.side, *more)
        self.noisy = noisy.contiguous(memory_format=torch.channels_last)
        self.refill = refill.contiguous(memory_format=torch.channels_last)
        self.method = method

    def _hide(self, noisy: Tensor, refill: Tensor) -> tuple[Tensor, Tensor]:
        """The picture with a share of its entries refilled, and the mask (1 = kept)."""
        mask = bernoulli_mask(noisy.shape, 1.0 - self.method.keep, generator=self.generator)
        return noisy * mask + refill * (1 - mask), mask

    def _apart(self, picture: Tensor) -> Tensor:
        """The network's answer to the parts of every ``stride``-th pixel, put together."""
        stride = self.method.stride
        if stride == 1:
            return self.run(picture)
        parts = shuffle_down(picture, stride).contiguous(memory_format=torch.channels_last)
        return shuffle_up(self.run(parts), stride, *picture.shape[-2:])

    def loss(self, step: int) -> tuple[Tensor, None]:
        noisy, refill = self.windows(self.noisy, self.refill)
        seen, mask = self._hide(noisy, refill)
        answer = self._apart(seen)
        loss = ((1 - mask) * (answer - noisy)).abs().mean()
        if self.method.stride > 1 and self.method.consistency > 0:
            loss = loss + self.method.consistency * ((1 - mask) * (answer - self.run(seen))).abs().mean()
        return loss, None

    @torch.no_grad()
    def predict(self) -> Tensor:
        """One answer to the picture under a new mask, ``(1, C, H, W)``."""
        return self._apart(self._hide(self.noisy, self.refill)[0])


@dataclass(frozen=True)
class NLR(Method):
    """NLR: ``keep`` is the share of entries that stay; the rest is refilled from patches of ``patch`` pixels.

    ``stride`` of the pixel-shuffle downsampling (1: none, for white noise), ``consistency`` the weight of
    the second term (nothing at stride 1), ``width`` and ``blocks`` the network's. Each step sees a window
    of ``side`` pixels (0: the picture). ``short`` and ``short_white`` are no one's published settings:
    a narrower network, fewer steps, on windows, at a higher rate.
    """

    name: ClassVar[str] = "nlr"
    source: ClassVar[str] = "Guo et al., NeurIPS 2025, https://neurips.cc/virtual/2025/poster/118602"
    cost: ClassVar[str] = "about a minute on a GPU (official); a minute on a CPU (short, 256x256)"
    default_profile: ClassVar[str] = "short"
    profiles: ClassVar[dict[str, dict]] = {
        "official": {},
        "white": dict(stride=1, keep=0.5),
        "short": dict(steps=4000, learning_rate=6e-3, width=32, blocks=2, side=48),
        "short_white": dict(
            stride=1, keep=0.5, steps=4000, learning_rate=6e-3, width=32, blocks=2, side=48
        ),
        "smoke": dict(stride=1, keep=0.5, steps=250, learning_rate=6e-3, width=16, blocks=2),
    }

    steps: int = 2000
    learning_rate: float = 1e-4
    keep: float = 0.3
    consistency: float = 0.2
    stride: int = 2
    patch: int = 8
    passes: int = 10
    width: int = 64
    blocks: int = 4
    side: int = 0

    def __post_init__(self):
        super().__post_init__()
        if not 0.0 < self.keep < 1.0:
            raise B2GError(f"keep is the share of entries that stay, between 0 and 1, not {self.keep}.")
        if not self.consistency >= 0:
            raise B2GError(f"consistency is a weight and must be at least 0, not {self.consistency}.")
        if self.side and self.side < 32:
            raise B2GError(f"side is 0 (the picture) or a window of at least 32 pixels, not {self.side}.")
        for name, least in (("stride", 1), ("patch", 2), ("passes", 1), ("width", 2), ("blocks", 1)):
            check_least(name, getattr(self, name), least)
        self.schedule()  # refuses what cannot be

    def schedule(self) -> Schedule:
        """How long and how fast the fit goes."""
        return Schedule(self.steps, self.learning_rate, "cosine")

    def objective(self, noisy: Tensor, circumstances: Circumstances) -> _RefilledFit:
        """The refilled picture and the network, ready to be fitted to ``noisy`` ``(1, C, H, W)``."""
        seed, device = circumstances.seed, noisy.device
        make = lambda: DilatedBlindSpot(noisy.shape[1], self.width, self.blocks)  # noqa: E731
        network = build(make, seed_for("weights", seed), device)
        generator = torch_generator(seed_for("masks", seed), device)
        refill = refilled(noisy, self.patch)
        return _RefilledFit(network, noisy, refill, self, generator, circumstances.precision)

    def __call__(self, noisy: Tensor, circumstances: Circumstances = Circumstances()) -> Denoised:
        """Denoise ``noisy`` ``(1, C, H, W)`` in [0, 1] (values outside are welcome)."""
        objective = self.objective(noisy, circumstances)
        shown = lambda: objective.aside(torch_generator(0, noisy.device))().clamp(0, 1)  # noqa: E731
        result = fit_picture(self, objective, self.schedule(), noisy, circumstances, answer=shown)
        estimate = mean_of_passes(objective.predict, self.passes, circumstances.progress)
        return Denoised(estimate.clamp(0, 1), result.history)
