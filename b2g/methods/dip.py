"""Deep Image Prior (Ulyanov, Vedaldi and Lempitsky, IJCV 128, 2020, doi 10.1007/s11263-020-01303-4), and when
to stop it.

A network fed with fixed noise is fitted to the whole noisy picture, and learns the picture before the noise:
all hangs on the moment at which one stops. The authors' notebook (github.com/DmitryUlyanov/deep-image-prior,
Apache-2.0) stops after 3000 steps, whatever the picture; so does ``official``. Two ways look at the picture,
and neither at a clean one:

* ``stopping="variance"``: where the outputs vary least (Wang et al., TMLR 2023, doi
  10.48550/arXiv.2112.06074; see :mod:`b2g.stopping`). Window, patience and 5000 steps at most are those of
  the authors' notebook, which marks a single output. Ours is the answer: the running mean, taken
  1 / (1 - ``average``) steps after the least, for by so much it lags behind the outputs.
* ``loss="sure"``: Stein's unbiased risk in place of the distance to the noisy picture (Jo, Chun and Choi,
  ICCV 2021, doi 10.48550/arXiv.2108.12841), so that noise is no longer worth learning. The network is then
  fed with the noisy picture, without which the answer has no divergence; the noise added to it every step
  calls for the extended form of the risk (Zhussip, Soltanayev and Chun, NeurIPS 2019, doi
  10.48550/arXiv.1902.02452).

Followed of the notebook: network, input, its jitter of 1/30 (1/20 at sigma 50: set ``jitter``), Adam at 0.01,
the mean of the outputs, its safety net. Not followed: cropping to multiples of 32 (mirrored here), noise
clipped to [0, 1] (a matter of the noise, not the method), a copy of all weights in each step (every hundredth
here), the fresh pass that it shows although it scores the mean. Not followed of the ICCV paper: its network
(Self2Self's), optimiser and zero-crossing stop; the size of its added noise was not at hand, DIP's own jitter
stands in.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from b2g.errors import B2GError
from b2g.fit import RunningAverage, Schedule, autocast, build
from b2g.fitted import fit_picture
from b2g.method import Circumstances, Denoised, Method, check_choice, check_least
from b2g.networks.skip import Skip, SkipShape
from b2g.noise import given_or_estimated
from b2g.safety import SafetyNet
from b2g.seeds import seed_for, torch_generator
from b2g.stopping import LeastVariance, check_stop

_AMPLITUDE = 0.1  # of the uniform noise that the network is fed with
_PROBE = 1e-3  # step of the difference that estimates the divergence, on [0, 1]: a quarter of a grey level


def stein_risk(answer: Tensor, moved: Tensor, noisy: Tensor, direction: Tensor, sigma: float) -> Tensor:
    r"""Stein's unbiased estimate of the mean square error of ``answer``, a scalar; ``sigma`` on 0..1.

    .. math:: \frac1N \|f(z) - y\|^2 - \sigma^2 + \frac{2\sigma^2}{N} b^\top \frac{f(z + \epsilon b) - f(z)}{\epsilon}

    ``noisy`` is y, ``answer`` f(z) to z = y or y plus noise of its own, ``moved`` f(z + epsilon b),
    ``direction`` b of random signs, epsilon 0.001; all ``(1, C, H, W)``. The last term estimates the
    divergence (Ramani, Blu and Unser, IEEE TIP 17, 2008, doi 10.1109/TIP.2008.2001404).
    """
    divergence = (direction * (moved - answer)).mean() / _PROBE
    return F.mse_loss(answer, noisy) - sigma**2 + 2 * sigma**2 * divergence


class _PriorObjective:
    """The objective of one noisy picture ``(1, C, H, W)``; ``given`` is what the network is fed with.

    ``sigma`` on 0..1 chooses Stein's risk, None the distance to the noisy picture. ``last`` is the latest
    output.
    """

    capturable = True  # the host's part of a step, `after`, is no part of the loss

    def __init__(self, network: nn.Module, noisy: Tensor, given: Tensor, jitter: float, sigma: float | None,
                 generator: torch.Generator, precision: str, stop: LeastVariance | None):  # fmt: skip
        self.network, self.noisy, self.jitter, self.sigma = network, noisy, jitter, sigma
        self.given = given.contiguous(memory_format=torch.channels_last)
        # A difference of two answers, divided by a small step, is lost in bfloat16.
        self.generator, self.precision = generator, "float32" if sigma is not None else precision
        self.safety, self.stop, self.last = SafetyNet(network), stop, None

    def _run(self, given: Tensor) -> Tensor:
        with autocast(given.device, self.precision):
            return self.network(given).float()

    def _normal(self) -> Tensor:
        return torch.randn(self.given.shape, generator=self.generator, device=self.given.device)

    def loss(self, step: int) -> tuple[Tensor, Tensor]:
        seen = self.given + self.jitter * self._normal()
        answer = self._run(seen)
        self.last = answer.detach()
        if self.sigma is None:
            return F.mse_loss(answer, self.noisy), self.last
        direction = 2.0 * (self._normal() > 0) - 1.0
        moved = self._run(seen + _PROBE * direction)
        return stein_risk(answer, moved, self.noisy, direction, self.sigma), self.last

    def after(self, step: int, average: RunningAverage) -> bool:
        """What follows step ``step`` (from 1): the safety net, and whether to stop."""
        self.safety.look(step, float(F.mse_loss(self.last, self.noisy)))
        return self.stop is not None and self.stop.add(self.last, average.value)

    def told(self) -> dict[str, float]:
        """What the history takes up."""
        known = self.stop is not None and self.stop.variance is not None
        return {"variance": self.stop.variance} if known else {}

    def state(self) -> dict:
        return {
            "generator": self.generator.get_state(), "safety": self.safety.state(),
            "stop": None if self.stop is None else self.stop.state(),
        }  # fmt: skip

    def load_state(self, state: dict) -> None:
        self.generator.set_state(state["generator"])
        self.safety.load_state(state["safety"])
        if self.stop is not None:
            self.stop.load_state(state["stop"], self.noisy.device)


@dataclass(frozen=True)
class DIP(Method):
    """Deep Image Prior: ``width`` channels at each of five scales, ``skip`` past them, ``inputs`` of fixed
    noise.

    ``jitter`` is the deviation of the noise added to the input in each step, ``average`` the decay of the
    running mean. ``stopping``: after all ``steps`` (``"fixed"``), or by ``window`` and ``patience``
    (``"variance"``). ``loss``: ``"mse"``, or ``"sure"`` with ``sigma`` on 0..255 (None estimates it).
    ``short`` is no one's published setting but ours: a network of a quarter of the width, and a fixed end. On
    two gray crops of bsds500_train (100075, 100039) the variance was least after some 200 steps, 1.4 and 3.9
    dB below where the same fit stood after 1200: with ``jitter``, what varies is also the answer's own
    sharpness. So small a network learns the noise slowly, and between 600 and 1200 steps the end matters
    little. ``short_sure`` is the same with Stein's risk, in twice the time: on crops of 128 pixels of the two,
    in colour and in gray, it ended 1.2 and 1.7 dB above ``short``. It needs white noise. The window of
    ``smoke``, and the lag of the answer, were settled by the PSNR of one crop with its clean picture at hand,
    so that this crop says nothing of their worth.
    """

    name: ClassVar[str] = "dip"
    source: ClassVar[str] = "Ulyanov et al., IJCV 128, 2020, doi 10.1007/s11263-020-01303-4"
    cost: ClassVar[str] = "minutes on a CPU (short, 256x256); more than an hour (official)"
    default_profile: ClassVar[str] = "short"
    profiles: ClassVar[dict[str, dict]] = {
        "official": {},
        "variance": dict(steps=5000, stopping="variance"),
        "sure": dict(loss="sure"),
        "short": dict(steps=1000, width=32),
        "short_sure": dict(steps=1000, width=32, loss="sure"),
        "smoke": dict(steps=250, stopping="variance", width=16, window=50, patience=80, average=0.95),
    }

    steps: int = 3000
    learning_rate: float = 0.01
    stopping: str = "fixed"
    window: int = 100
    patience: int = 1000
    loss: str = "mse"
    sigma: float | None = None
    jitter: float = 1 / 30
    average: float = 0.99
    width: int = 128
    skip: int = 4
    inputs: int = 32

    def __post_init__(self):
        super().__post_init__()
        check_choice("stopping", self.stopping, ("fixed", "variance"))
        check_choice("loss", self.loss, ("mse", "sure"))
        check_stop(self.window, self.patience)
        check_least("inputs", self.inputs, 1)
        if self.sigma is not None and not self.sigma > 0:
            raise B2GError(f"dip's sigma is a noise level on 0..255 and must be positive, not {self.sigma}.")
        if not self.jitter >= 0:
            raise B2GError(f"jitter is the deviation of added noise and must be at least 0, not {self.jitter}.")
        if not 0.0 <= self.average < 1.0:
            raise B2GError(f"average is a decay and must lie in [0, 1), not {self.average}.")
        self.schedule(), self.shape()  # each refuses what cannot be

    def schedule(self) -> Schedule:
        """How long at most and how fast the fit goes."""
        return Schedule(self.steps, self.learning_rate)

    def lag(self) -> int:
        """The mean age of the outputs in the running mean, in steps."""
        return round(1 / (1 - self.average))

    def shape(self) -> SkipShape:
        """The network's shape, as :class:`b2g.networks.skip.Skip` takes it."""
        return SkipShape(width=self.width, skip=self.skip)

    def objective(self, noisy: Tensor, circumstances: Circumstances) -> _PriorObjective:
        """The network and its task, ready to be fitted to ``noisy`` ``(1, C, H, W)`` on its device."""
        seed, device, sigma, given = circumstances.seed, noisy.device, None, noisy
        if self.loss == "sure":
            sigma = given_or_estimated(self.sigma, noisy, self.name) / 255
        else:
            drawn = torch_generator(seed_for("input", seed), device)
            size = (1, self.inputs, *noisy.shape[-2:])
            given = _AMPLITUDE * torch.rand(size, generator=drawn, device=device)
        make = lambda: Skip(given.shape[1], noisy.shape[1], self.shape())  # noqa: E731
        return _PriorObjective(
            build(make, seed_for("weights", seed), device), noisy, given, self.jitter, sigma,
            torch_generator(seed_for("jitter", seed), device), circumstances.precision,
            LeastVariance(self.window, self.patience, self.lag()) if self.stopping == "variance" else None,
        )  # fmt: skip

    def __call__(self, noisy: Tensor, circumstances: Circumstances = Circumstances()) -> Denoised:
        """Denoise ``noisy`` ``(1, C, H, W)`` in [0, 1] (values outside are welcome)."""
        objective, watch = self.objective(noisy, circumstances), circumstances.watch
        average = RunningAverage(self.average)
        watched = replace(
            circumstances, watch=lambda fit, step: {**fit.told(), **(watch(fit, step) if watch else {})}
        )
        result = fit_picture(
            self, objective, self.schedule(), noisy, watched, average=average,
            stop=lambda step: objective.after(step, average),
        )  # fmt: skip
        stop = objective.stop
        if stop is None or stop.answer is None:
            return Denoised(result.average, result.history)
        result.history[-1]["answer_step"] = stop.step
        return Denoised(stop.answer, result.history)
