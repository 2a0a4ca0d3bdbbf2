r"""Blind2Grad (Song, Shuai, Si and Li, AIMS Mathematics 10(6), 2025, doi 10.3934/math.2025637).

A network fitted to the one noisy picture: dual mask (Eq. 3.1 to 3.3), gradient-regularised loss (Eq. 3.9), T-Standout
(Eq. 3.11), channel attention (Eq. 3.12), all in the loop of Eq. 3.10. No code was published; every sentence
that leaves a choice is a field below, and the profiles are five named sets of choices.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from b2g.fit import RunningAverage, Schedule, build, fit, mean_of_passes
from b2g.losses import COMBINATIONS, OPERATORS, b2g_loss, uniform_loss
from b2g.loop import VISIBLE, BlindSpotLoop, MaskLaw
from b2g.method import Circumstances, Denoised, Method, check_choice, check_least
from b2g.network import Architecture, EncoderDecoder
from b2g.seeds import seed_for, torch_generator

CHOICES = {
    "visible": VISIBLE,
    "operator": OPERATORS,
    "combine": COMBINATIONS,
    "loss_norm": ("masked", "all"),
    "target": ("noisy", "hidden"),
    "pilot": ("visible", "average"),
    "standout_on": ("features", "output"),
    "answer": ("average", "passes"),
}

# To the letter, wherever the letter can be followed at all.
PAPER = dict(
    steps=6000,  # "6000 are already comparable" (Figure 7a); a total is not stated
    learning_rate=2e-5,  # Section 5, synthetic noise
    decay="constant",
    width=48,  # not stated: Self2Self's, which the text builds on
    head=(64, 32),
    norm="decoder",  # Section 3.2 lists batch normalisation in the decoder
    attention_between="none",  # Eq. 3.12 multiplies the two matrices
    mask="distance",  # Eq. 3.1 to 3.3
    detail_masked=0.0,  # detail "retained": never masked
    pilot="visible",  # x_m = f(y), Eq. 3.10
    dual_from=1,  # "x_1 after the first network cycle"
    refresh=1,  # the mask is "continuously updated"
    visible="attached",  # Eq. 3.4 says nothing of a stopped gradient
    combine="sum",  # one scalar per pixel, as Eq. 3.6 squares
    answer="passes",
)
# Every part of the paper present and on, each in the reading that does least harm.
FAITHFUL = dict(
    steps=1000,
    learning_rate=4e-3,  # batch normalisation bears it; at 2e-5 a thousand steps hardly move
    decay="constant",
    mask="gradient",  # marks edges, as the text wants; Eq. 3.1's distance marks noise outliers
    detail_masked=0.125,  # "diminished" by half: what is never masked is never learnt
    pilot="visible",
    dual_from=100,  # the first estimates say nothing of detail
    refresh=20,
    visible="detached",  # attached, the loss rewards noise in f(y)
    combine="component",
    answer="average",
)
# The network and the loop without the two parts that were not seen to help.
FAST = dict(steps=1000, learning_rate=4e-3, mask="bernoulli", visible="none", answer="average")


@dataclass(frozen=True)
class B2G(Method):
    """Blind2Grad. Units: thresholds on 0..255, rates as fractions.

    Loss (Eq. 3.9): ``omega``, ``gamma``, and the readings ``visible`` (``"attached"`` or ``"detached"`` f(y);
    ``"none"`` leaves d^g out: the plain masked loss, Eq. 1.1), ``operator``, ``combine``, ``loss_norm``,
    ``target`` (see :mod:`b2g.losses`). The printed Eq. 3.9 has no subscript on its norms; since it is the
    penalty form of Eq. 3.8, which has, every profile counts masked pixels, and the chapter on the loss shows
    both unmasked readings.

    Masks: ``mask`` ... ``refresh`` (see :mod:`b2g.masks`, :class:`b2g.loop.MaskLaw`). Network: ``width`` ...
    ``dropout`` (see :class:`b2g.network.Architecture`); ``standout_on``: the gradient of Eq. 3.11 is that of the
    ``"features"`` or of the ``"output"``.

    "Calling it 40 times": ``answer="passes"`` averages ``passes`` stochastic passes after training,
    ``answer="average"`` keeps a running mean of the training's own answers (``average`` is its decay).
    Reading it as 40 turns of the mask's loop is ``refresh = steps // 40``.
    """

    name: ClassVar[str] = "b2g"
    source: ClassVar[str] = "Song et al., AIMS Mathematics 10(6), 2025, doi 10.3934/math.2025637"
    cost: ClassVar[str] = "minutes on a CPU (fast); hours (paper)"
    default_profile: ClassVar[str] = "fast"
    profiles: ClassVar[dict[str, dict]] = {
        "paper": PAPER,
        "faithful": FAITHFUL,
        "best": FAST | dict(steps=3000, width=48, head=(48, 24)),
        "fast": FAST,
        "smoke": FAST | dict(steps=60, width=8, head=(8, 8), learning_rate=8e-3, average=0.9),
    }

    steps: int = 1000
    learning_rate: float = 4e-3
    decay: str = "constant"
    decay_from: float = 0.5
    omega: float = 0.8
    gamma: float = 0.5
    visible: str = "none"
    operator: str = "forward"
    combine: str = "component"
    loss_norm: str = "masked"
    target: str = "noisy"
    mask: str = "bernoulli"
    masked: float = 0.25
    per_channel: bool = True
    detail_masked: float = 0.0
    detail_threshold: float = 40.0
    detail_over: str = "channel"
    detail_fraction: float = 0.1
    pilot: str = "visible"
    dual_from: int = 1
    refresh: int = 1
    flips: bool = True
    width: int = 24
    head: tuple[int, int] = (32, 16)
    normaliser: str = "window"
    masked_layers: str = "first"
    norm: str = "all"
    attention: str = "all"
    attention_between: str = "relu"
    standout: str = "half"
    standout_on: str = "features"
    standout_threshold: float = 25.0
    standout_scale: str = "raw"
    standout_below: str = "dropout"
    gradient_features: bool = False
    dropout: str = "none"
    rate: float = 0.3
    output: str = "sigmoid"
    answer: str = "average"
    average: float = 0.99
    passes: int = 40

    def __post_init__(self):
        super().__post_init__()
        self.schedule(), self.architecture(), self.law(), RunningAverage(self.average)  # each refuses what cannot be
        for name, allowed in CHOICES.items():
            check_choice(name, getattr(self, name), allowed)
        check_least("passes", self.passes, 1)

    def schedule(self) -> Schedule:
        """How long and how fast the fit goes."""
        return Schedule(self.steps, self.learning_rate, self.decay, self.decay_from)

    def architecture(self) -> Architecture:
        """The network's shape, as :class:`b2g.network.EncoderDecoder` takes it."""
        names = set(Architecture.__dataclass_fields__) & set(self.__dataclass_fields__)
        return Architecture(**{name: getattr(self, name) for name in names})

    def law(self) -> MaskLaw:
        """How this configuration draws its masks."""
        names = set(MaskLaw.__dataclass_fields__) - {"kind"}
        return MaskLaw(kind=self.mask, **{name: getattr(self, name) for name in names})

    def loss(self, blind: Tensor, visible: Tensor | None, noisy: Tensor, mask: Tensor) -> Tensor:
        """Eq. 3.9 in this configuration's readings; Eq. 1.1 where f(y) is not computed."""
        where = {"norm": self.loss_norm, "target": self.target}
        if self.visible == "none":
            return uniform_loss(blind, noisy, mask, **where)
        return b2g_loss(
            blind, visible, noisy, mask,
            omega=self.omega, gamma=self.gamma, operator=self.operator, combine=self.combine,
            stop_gradient=self.visible == "detached", **where,
        )  # fmt: skip

    def objective(self, noisy: Tensor, circumstances: Circumstances) -> BlindSpotLoop:
        """The network and its loop, ready to be fitted to ``noisy`` ``(1, C, H, W)`` on its device."""
        seed, device = circumstances.seed, noisy.device
        network = build(lambda: EncoderDecoder(noisy.shape[1], self.architecture()), seed_for("weights", seed), device)
        return BlindSpotLoop(
            network, noisy, self.loss, law=self.law(), visible=self.visible, pilot=self.pilot,
            dual_from=self.dual_from, refresh=self.refresh, guided=self.standout_on == "output", flips=self.flips,
            generator=torch_generator(seed_for("masks", seed), device), precision=circumstances.precision,
            readings={"operator": self.operator, "combine": self.combine, "omega": self.omega},
        )  # fmt: skip

    def __call__(self, noisy: Tensor, circumstances: Circumstances = Circumstances()) -> Denoised:
        """Denoise ``noisy`` ``(1, C, H, W)`` in [0, 1] (values outside are welcome: noise is not clipped)."""
        loop = self.objective(noisy, circumstances)
        result = fit(
            loop, self.schedule(), average=self.average, clean=circumstances.clean, progress=circumstances.progress,
            label=self.name, checkpoint=circumstances.checkpoint,
            identity=circumstances.identity(self, noisy), watch=circumstances.watch,
            log_every=circumstances.log_every,
        )  # fmt: skip
        if self.answer == "average":
            return Denoised(result.average, result.history)
        return Denoised(mean_of_passes(loop.predict, self.passes, circumstances.progress), result.history)
