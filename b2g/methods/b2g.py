r"""Blind2Grad (Song, Shuai, Si and Li, AIMS Mathematics 10(6), 2025, doi 10.3934/math.2025637).

A network fitted to the one noisy picture: dual mask (Eq. 3.1 to 3.3), gradient-regularised loss (Eq. 3.9),
T-Standout (Eq. 3.11), channel attention (Eq. 3.12), all in the loop of Eq. 3.10. No code was published; every
sentence that leaves a choice is a field below, and the profiles are named sets of choices: ``paper``,
``faithful`` and ``real`` are the paper's, ``masked`` keeps its masks alone, ``fast`` and ``best`` go beyond
it.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Callable, ClassVar

import torch
from torch import Tensor

from b2g.anscombe import estimate_photons, through_gaussian
from b2g.errors import B2GError
from b2g.fit import RunningAverage, Schedule, build, mean_of_passes
from b2g.fitted import fit_picture
from b2g.losses import b2g_loss, uniform_loss
from b2g.loop import BlindSpotLoop, MaskLaw
from b2g.method import Circumstances, Denoised, Method, added_later
from b2g.methods.b2g_choices import check_settings
from b2g.methods.b2g_profiles import BEST, CAMERA, FAITHFUL, FAST, MASKED, PAPER, REAL, SMOKE
from b2g.methods.lichi import LIChI
from b2g.methods.nl_ridge import NLRidge
from b2g.network import Architecture, EncoderDecoder
from b2g.noise import given_or_estimated
from b2g.posterior import posterior_mean
from b2g.recorrupt import RecorruptedLoop
from b2g.seeds import seed_for, torch_generator
from b2g.shuffle import from_mosaic, to_mosaic
from b2g.window import Canvas

DRAWN_PIXELS, LEAST_DRAWS, MOST_DRAWS = 2**19, 4, 16
PATCHES = {"nl_ridge": NLRidge, "lichi": LIChI}
Gaussian = Callable[[Tensor, float], Tensor]  # a denoiser of Gaussian noise, told sigma in the picture's units


@dataclass(frozen=True)
class B2G(Method):
    """Blind2Grad. Units: thresholds on 0..255, rates as fractions.

    Loss (Eq. 3.9): ``omega``, ``gamma``, and the readings ``visible`` (``"attached"`` or ``"detached"`` f(y);
    ``"none"`` leaves d^g out: the plain masked loss, Eq. 1.1), ``operator``, ``combine``, ``loss_norm``,
    ``target`` (see :mod:`b2g.losses`). The printed Eq. 3.9 has no subscript on its norms; since it is the
    penalty form of Eq. 3.8, which has, every profile counts masked pixels, and the chapter on the loss shows
    both unmasked readings.

    Masks: ``mask`` ... ``refresh`` (see :mod:`b2g.masks`, :class:`b2g.loop.MaskLaw`). Network: ``width`` ...
    ``dropout`` (see :class:`b2g.network.Architecture`); ``standout_on``: the gradient of Eq. 3.11 is that of
    the ``"features"`` or of the ``"output"``.

    "Calling it 40 times": ``answer="passes"`` averages ``passes`` stochastic passes after training,
    ``answer="average"`` keeps a running mean of the training's own answers (``average`` is its decay).
    Reading it as 40 turns of the mask's loop is ``refresh = steps // 40``. ``answer="visible"`` averages
    passes that see the whole picture.

    Beyond the paper: ``input="recorrupted"`` hides noise in the place of pixels (:mod:`b2g.recorrupt`:
    ``sigma`` on 0..255, None estimates it; ``strength``; ``patches``, whose answer the network mends;
    ``draws`` of it, 0 for about half a million pixels in all; ``hold``, the share of pixels that tell
    ``answer="visible"`` how much of the mending to trust). ``noise="poisson"`` makes Poisson noise Gaussian
    before. ``side`` is that of the windows that a step looks at (0: the whole picture; answers are then
    averaged per pixel, :class:`b2g.window.Canvas`), ``weights`` the decay of averaged weights, ``posterior``
    lets the noisy pixel back into a blind estimate (:mod:`b2g.posterior`), ``pilot="patches"`` takes x_m from
    ``patches``.

    Real noise, which neighbouring pixels share: the paper's "dilated convolution" is drawn in a supplement that is not
    public. Read here as ``dilation`` of the windows at full resolution (:class:`b2g.network.Architecture`), in the
    profile ``real``, which is that reading and no recommendation. ``shuffle``, not in the paper, fits the mosaic of
    every ``shuffle``-th pixel in the picture's place (:mod:`b2g.shuffle`). Nor is ``noise="correlated"``, the profile
    ``camera``: a camera's noise is removed as white noise as strong as it is at low frequencies
    (:func:`b2g.noise.estimate_correlated_sigma`).
    """

    name: ClassVar[str] = "b2g"
    source: ClassVar[str] = "Song et al., AIMS Mathematics 10(6), 2025, doi 10.3934/math.2025637"
    cost: ClassVar[str] = "minutes on a CPU (fast); hours (paper)"
    default_profile: ClassVar[str] = "fast"
    profiles: ClassVar[dict[str, dict]] = {
        "paper": PAPER,
        "faithful": FAITHFUL,
        "real": REAL,
        "masked": MASKED,
        "best": BEST,
        "fast": FAST,
        "camera": CAMERA,
        "smoke": SMOKE,
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
    input: str = added_later("masked")
    noise: str = added_later("gaussian")
    sigma: float | None = added_later(None)
    strength: float = added_later(0.5)
    draws: int = added_later(0)
    hold: float = added_later(0.0)
    patches: str = added_later("none")
    side: int = added_later(0)
    weights: float = added_later(0.0)
    posterior: str = added_later("none")
    depth: int = added_later(5)
    dilation: int = added_later(1)
    shuffle: int = added_later(1)

    def __post_init__(self):
        super().__post_init__()
        self.schedule(), self.architecture(), self.law(), RunningAverage(self.average)  # each refuses what cannot be
        check_settings(self)

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

    def objective(self, noisy: Tensor, circumstances: Circumstances) -> BlindSpotLoop | RecorruptedLoop:
        """The network and its loop, ready to be fitted to ``noisy`` ``(1, C, H, W)`` on its device."""
        if self.shuffle > 1:
            return replace(self, shuffle=1).objective(to_mosaic(noisy, self.shuffle), circumstances)
        generator = torch_generator(seed_for("masks", circumstances.seed), noisy.device)
        if self.input == "recorrupted":
            return self._recorrupted(noisy, circumstances, generator)
        return BlindSpotLoop(
            self._network(noisy, circumstances), noisy, self.loss, law=self.law(), visible=self.visible,
            pilot=self.pilot, dual_from=self.dual_from, refresh=self.refresh, guided=self.standout_on == "output",
            flips=self.flips, generator=generator, precision=circumstances.precision, side=self.side,
            readings={"operator": self.operator, "combine": self.combine, "omega": self.omega},
            estimate=self._patched(noisy, self._sigma(noisy)) if self.pilot == "patches" else None,
        )  # fmt: skip

    def _recorrupted(self, noisy: Tensor, circumstances: Circumstances, generator: torch.Generator) -> RecorruptedLoop:
        """The loop of :mod:`b2g.recorrupt`; its network starts with the answer that changes nothing."""
        piloted = self.patches != "none"
        network = self._network(noisy, circumstances, 2 if piloted else 1)
        torch.nn.init.zeros_(network.last.weight)
        return RecorruptedLoop(
            network, noisy, self._sigma(noisy), strength=self.strength, pilot=self._patched if piloted else None,
            hold=self.hold, draws=self.count_draws(noisy.shape[-2] * noisy.shape[-1]), side=self.side,
            weights=self.weights, flips=self.flips, generator=generator, precision=circumstances.precision,
        )  # fmt: skip

    def count_draws(self, pixels: int) -> int:
        """How many recorruptions get a pilot: a small picture needs more,
        or the network learns their noise by heart."""
        return self.draws or min(MOST_DRAWS, max(LEAST_DRAWS, -(-DRAWN_PIXELS // pixels)))

    def _network(self, noisy: Tensor, circumstances: Circumstances, pictures: int = 1) -> EncoderDecoder:
        """A network for ``pictures`` pictures of the shape of ``noisy`` beside each other."""
        channels, seed = noisy.shape[1], seed_for("weights", circumstances.seed)
        return build(lambda: EncoderDecoder(pictures * channels, self.architecture(), channels), seed, noisy.device)

    def _sigma(self, noisy: Tensor) -> float:
        """The noise's standard deviation in the picture's units, given or estimated."""
        return given_or_estimated(self.sigma, noisy, self.name, self.noise) / 255

    def _patched(self, noisy: Tensor, sigma: float) -> Tensor:
        """The patch-based denoiser's answer; ``sigma`` in the picture's units."""
        return PATCHES[self.patches].profile(sigma=255 * sigma)(noisy).estimate

    def __call__(self, noisy: Tensor, circumstances: Circumstances = Circumstances()) -> Denoised:
        """Denoise ``noisy`` ``(1, C, H, W)`` in [0, 1] (values outside are welcome: noise is not clipped)."""
        return self.beside(noisy, circumstances)[0]

    @property
    def holds(self) -> bool:
        """Whether a fit holds pixels back, so that :meth:`beside` can weigh its answer against another's."""
        return self.input == "recorrupted" and self.patches != "none" and self.hold > 0 and self.answer == "visible"

    def beside(
        self, noisy: Tensor, circumstances: Circumstances, other: Gaussian | None = None
    ) -> tuple[Denoised, float]:
        """The answer, and its share in the mean with ``other`` that held pixels bear
        out (1 where none is given).

        ``other(picture, sigma)`` denoises Gaussian noise, ``sigma`` in the picture's units.
        """
        if self.shuffle > 1:
            return self._shuffled(noisy, circumstances, other)
        if self.noise == "poisson":
            return self._stabilised(noisy, circumstances, other)
        loop = self.objective(noisy, circumstances)
        windows = self.side or self.input == "recorrupted"
        average = Canvas(noisy, self.average) if windows else self.average
        result = fit_picture(self, loop, self.schedule(), noisy, circumstances, average=average)
        estimate, share = result.average, 1.0
        with loop.settled() if self.input == "recorrupted" else nullcontext():
            if self.answer != "average":
                one = loop.predict if self.answer == "passes" else loop.see
                estimate = mean_of_passes(one, self.passes, circumstances.progress)
            if other is not None:
                share = float(loop.share_beside(other))
        if self.posterior != "none":
            estimate = posterior_mean(estimate, noisy, self._sigma(noisy), self.posterior)
        return Denoised(estimate, result.history), share

    def _shuffled(self, noisy: Tensor, circumstances: Circumstances, other: Gaussian | None) -> tuple[Denoised, float]:
        """The mosaic of the picture's parts is denoised, and put together again."""
        if circumstances.watch is not None:
            raise B2GError("watch compares with the clean picture, not with its mosaic; leave out shuffle.")
        clean = None if circumstances.clean is None else to_mosaic(circumstances.clean, self.shuffle)
        own = replace(circumstances, clean=clean)
        answer, share = replace(self, shuffle=1).beside(to_mosaic(noisy, self.shuffle), own, other)
        return replace(answer, estimate=from_mosaic(answer.estimate, self.shuffle, *noisy.shape[-2:])), share

    def _stabilised(
        self, noisy: Tensor, circumstances: Circumstances, other: Gaussian | None
    ) -> tuple[Denoised, float]:
        """Poisson noise: the number of photons is estimated, the Anscombe transform makes the noise Gaussian.

        The history's PSNR would be that of transformed pictures, so there is none.
        """
        if circumstances.watch is not None:
            raise B2GError("watch compares with the clean picture, not with its transform; leave out noise='poisson'.")
        found: list[tuple[Denoised, float]] = []

        def gaussian(picture: Tensor, sigma: float) -> Tensor:
            plain = replace(self, noise="gaussian", sigma=sigma)
            found.append(plain.beside(picture, replace(circumstances, clean=None), other))
            return found[-1][0].estimate

        estimate = through_gaussian(noisy, estimate_photons(noisy), gaussian)
        [(answer, share)] = found
        return Denoised(estimate, answer.history), share
