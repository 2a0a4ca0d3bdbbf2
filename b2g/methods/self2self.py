"""Self2Self (Quan, Chen, Pang and Ji, CVPR 2020, doi 10.1109/CVPR42600.2020.00196):
Bernoulli masks and dropout.

The official code (github.com/scut-mingqinchen/self2self, Apache-2.0) and the printed paper differ; the
profile ``official`` follows the code's numbers (learning rate 1e-4, 150 000 steps, 100 passes), ``paper`` the
paper's (1e-5, 450 000, 50). Written from their stated facts. What is not followed of the code: its padding
that grows every map by two pixels, its symmetric padding of the decoder (zeros here), the smaller first weights
of its encoder (Glorot's; here He's, as in the decoder), its clipping of masks, its truncation of the answer to
8 bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from b2g.errors import B2GError
from b2g.fit import Schedule, build, mean_of_passes
from b2g.fitted import fit_picture
from b2g.losses import uniform_loss
from b2g.loop import BlindSpotLoop, MaskLaw
from b2g.method import Circumstances, Denoised, Method, check_least
from b2g.network import Architecture, EncoderDecoder
from b2g.seeds import seed_for, torch_generator


@dataclass(frozen=True)
class Self2Self(Method):
    """Self2Self: ``keep`` is the share of visible entries, ``dropout`` the decoder's rate (on in every pass).

    ``normaliser``: ``"self2self"`` is the code's count of 9 entries a window, ``"window"`` the 9 C of
    the partial convolution it names (see :class:`b2g.layers.MaskedConv2d`).
    ``short`` is no one's published setting: 4000 steps at ten times the rate, for those who cannot wait.
    """

    name: ClassVar[str] = "self2self"
    source: ClassVar[str] = "Quan et al., CVPR 2020, doi 10.1109/CVPR42600.2020.00196"
    cost: ClassVar[str] = "about an hour on a GPU (official); about an hour on a CPU (short, 256x256)"
    default_profile: ClassVar[str] = "official"
    profiles: ClassVar[dict[str, dict]] = {
        "official": dict(normaliser="self2self"),
        "paper": dict(steps=450_000, learning_rate=1e-5, passes=50),
        "short": dict(steps=4000, learning_rate=1e-3),
        "smoke": dict(steps=80, learning_rate=4e-3, width=8, head=(8, 8), passes=8, dropout=0.1),
    }

    steps: int = 150_000
    learning_rate: float = 1e-4
    keep: float = 0.7
    dropout: float = 0.3
    passes: int = 100
    width: int = 48
    head: tuple[int, int] = (64, 32)
    normaliser: str = "window"
    flips: bool = True

    def __post_init__(self):
        super().__post_init__()
        if not 0.0 < self.keep < 1.0:
            raise B2GError(f"keep is the share of visible entries and must lie between 0 and 1, not {self.keep}.")
        if not 0.0 <= self.dropout < 1.0:
            raise B2GError(f"dropout is the share of units to drop and must lie in [0, 1), not {self.dropout}.")
        check_least("passes", self.passes, 1)
        self.schedule(), self.architecture()  # each refuses what cannot be

    def schedule(self) -> Schedule:
        """How long and how fast the fit goes."""
        return Schedule(self.steps, self.learning_rate)

    def architecture(self) -> Architecture:
        """The network's shape, as :class:`b2g.network.EncoderDecoder` takes it."""
        return Architecture(width=self.width, head=self.head, normaliser=self.normaliser, rate=self.dropout)

    def objective(self, noisy: Tensor, circumstances: Circumstances) -> BlindSpotLoop:
        """The network and its loop, ready to be fitted to ``noisy`` ``(1, C, H, W)`` on its device."""
        seed, device = circumstances.seed, noisy.device
        return BlindSpotLoop(
            build(lambda: EncoderDecoder(noisy.shape[1], self.architecture()), seed_for("weights", seed), device),
            noisy, lambda blind, _, noisy, mask: uniform_loss(blind, noisy, mask),
            law=MaskLaw(masked=1.0 - self.keep), flips=self.flips,
            generator=torch_generator(seed_for("masks", seed), device), precision=circumstances.precision,
        )  # fmt: skip

    def __call__(self, noisy: Tensor, circumstances: Circumstances = Circumstances()) -> Denoised:
        """Denoise ``noisy`` ``(1, C, H, W)`` in [0, 1] (values outside are welcome)."""
        loop = self.objective(noisy, circumstances)
        result = fit_picture(self, loop, self.schedule(), noisy, circumstances, average=0.99)
        return Denoised(mean_of_passes(loop.predict, self.passes, circumstances.progress), result.history)
