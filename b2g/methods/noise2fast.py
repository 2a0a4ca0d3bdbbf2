"""Noise2Fast (Lequyer, Philip, Sharma, Hsu and Pelletier, Nature Machine Intelligence 4, 2022).

Setting: the noisy picture alone, doi 10.1038/s42256-022-00547-8. The two fields of a chequerboard, pushed
together, are two pictures of half the size, and a small network learns to make one of the other; it never
sees the full grid, so its answer to the whole noisy picture comes nearer to that picture as long as it learns
what both fields share.

Followed is the official code for gray pictures (github.com/jason-lequyer/Noise2Fast, Apache-2.0); colour,
which is not published, is denoised channel by channel. Its script for stacks of channels (standardised,
linear output) is not offered. Not followed: its cut to even sides (only the fields are cut, the answer has
all pixels) and its rounding.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from b2g.by_channel import each_channel
from b2g.errors import B2GError
from b2g.fit import Schedule, autocast, build
from b2g.fitted import fit_picture, part_of
from b2g.loop import draw_number
from b2g.method import Circumstances, Denoised, Method, check_least
from b2g.seeds import seed_for, torch_generator

_BEFORE = 5  # answers up to the best one that join the mean: with the 100 of the patience they make 105
_CONSTANT = 0.01  # an answer with less of the noisy picture's spread is almost constant: our choice
_SLOW = 5e-6  # the learning rate of the second try


class FieldNetwork(nn.Sequential):
    """Eight 3x3 convolutions with ReLU and zero padding, and a 1x1 one: 259 201 weights for gray.

    It gives logits; the sigmoid behind them is part of the loss.
    """

    def __init__(self, width: int = 64, depth: int = 8):
        chain = []
        for layer in range(depth):
            chain += [nn.Conv2d(width if layer else 1, width, 3, padding=1), nn.ReLU()]
        super().__init__(*chain, nn.Conv2d(width, 1, 1))


def fields(picture: Tensor) -> tuple[Tensor, Tensor]:
    """The two fields of the chequerboard, pushed together down: ``(B, C, H, W)`` to twice ``(B, C, H/2, W)``.

    H must be even. The first has the pixels whose row and column add up to an even number.
    """
    pairs = picture.unflatten(-2, (-1, 2))
    upper, lower = pairs[..., 0, :], pairs[..., 1, :]
    even = torch.arange(picture.shape[-1], device=picture.device) % 2 == 0
    return torch.where(even, upper, lower), torch.where(even, lower, upper)


def ordered_pairs(picture: Tensor) -> list[tuple[Tensor, Tensor]]:
    """The four (input, target) pairs of ``picture`` ``(B, C, H, W)``, without its odd last row and column."""
    even = picture[..., : picture.shape[-2] // 2 * 2, : picture.shape[-1] // 2 * 2]
    down, across = fields(even), tuple(field.mT for field in fields(even.mT))
    return [down, down[::-1], across, across[::-1]]


class FieldObjective:
    """The objective of one gray picture ``(1, 1, H, W)``, scaled to [0, 1] by its least and largest value.

    ``watch_answer`` looks at the whole picture after every step: it keeps the sum of the last answers, and
    asks for a stop once the answer came no nearer to the noisy picture for ``patience`` steps.
    """

    def __init__(
        self, network: nn.Module, noisy: Tensor, patience: int, generator: torch.Generator, precision: str
    ):
        self.network, self.patience, self.generator, self.precision = network, patience, generator, precision
        self.least = noisy.min()
        self.span = (noisy.max() - self.least).clamp_min(1e-6)
        self.noisy = (noisy - self.least) / self.span
        self.pairs = ordered_pairs(self.noisy)
        self.best, self.waited = float("inf"), 0
        self.recent: list[Tensor] = []
        self.sum, self.count = torch.zeros_like(noisy), 0

    def _logits(self, picture: Tensor) -> Tensor:
        with autocast(picture.device, self.precision):
            answer = self.network(picture.contiguous(memory_format=torch.channels_last))
        return answer.float()

    def loss(self, step: int) -> tuple[Tensor, None]:
        # The pairs differ in shape, so the host must know which one it is: the generator is on the CPU.
        given, wanted = self.pairs[draw_number(len(self.pairs), self.generator)]
        return F.binary_cross_entropy_with_logits(self._logits(given), wanted), None

    @torch.no_grad()
    def watch_answer(self, done: int) -> bool:
        """Take the answer of the moment into the mean; True when there was no improvement for too long."""
        answer = self._logits(self.noisy).sigmoid()
        gap = float(F.mse_loss(answer, self.noisy))
        self.recent = [*self.recent, answer][-_BEFORE:]
        if gap < self.best:
            self.best, self.waited = gap, 0
            self.sum, self.count = torch.stack(self.recent).sum(0), len(self.recent)
        else:
            self.waited += 1
            self.sum, self.count = self.sum + answer, self.count + 1
        return self.waited >= self.patience

    def constant(self) -> bool:
        """Whether the mean answer has next to no spread: the network did not begin to learn."""
        return bool((self.sum / self.count).std() < _CONSTANT * self.noisy.std())

    def answer(self) -> Tensor:
        """The mean of the last whole answers, in the picture's own scale, ``(1, 1, H, W)``."""
        return (self.sum / self.count) * self.span + self.least

    def state(self) -> dict:
        names = ("best", "waited", "recent", "sum", "count")
        return {"generator": self.generator.get_state(), **{name: getattr(self, name) for name in names}}

    def load_state(self, state: dict) -> None:
        device = self.noisy.device
        self.generator.set_state(state["generator"])
        self.best, self.waited, self.count = state["best"], state["waited"], state["count"]
        self.recent, self.sum = [one.to(device) for one in state["recent"]], state["sum"].to(device)


@dataclass(frozen=True)
class Noise2Fast(Method):
    """Noise2Fast: a fit that ends by itself, ``patience`` steps after the best, or after ``steps``.

    The answer is the mean of the five answers up to the best one and of all after it (105 where the fit ended
    by itself). Is it almost constant, the fit is done again at a learning rate of 5e-6. ``short`` is our own
    budget: a narrower network and less patience.
    """

    name: ClassVar[str] = "noise2fast"
    source: ClassVar[str] = "Lequyer et al., Nat. Mach. Intell. 4, 2022, doi 10.1038/s42256-022-00547-8"
    cost: ClassVar[str] = "about twenty minutes on a CPU (official), one (short; 256x256)"
    default_profile: ClassVar[str] = "official"
    profiles: ClassVar[dict[str, dict]] = {
        "official": {},
        "short": dict(steps=250, learning_rate=2e-3, width=24, patience=30),
        "smoke": dict(steps=100, learning_rate=4e-3, width=12, depth=4, patience=20),
    }

    steps: int = 20_000
    learning_rate: float = 1e-3
    patience: int = 100
    width: int = 64
    depth: int = 8

    def __post_init__(self):
        super().__post_init__()
        for name in ("patience", "width", "depth"):
            check_least(name, getattr(self, name), 1)
        self.schedule()  # refuses what cannot be

    def schedule(self) -> Schedule:
        """How long and how fast the fit goes, if it does not end by itself."""
        return Schedule(self.steps, self.learning_rate)

    def objective(self, noisy: Tensor, circumstances: Circumstances) -> FieldObjective:
        """The network and its pairs, ready to be fitted to the gray picture ``noisy`` ``(1, 1, H, W)``."""
        if noisy.shape[1] != 1:
            raise B2GError(f"noise2fast fits one channel at a time, not {noisy.shape[1]}; pass gray.")
        seed = circumstances.seed
        network = build(lambda: FieldNetwork(self.width, self.depth), seed_for("weights", seed), noisy.device)
        generator = torch_generator(seed_for("pairs", seed))
        return FieldObjective(network, noisy, self.patience, generator, circumstances.precision)

    def __call__(self, noisy: Tensor, circumstances: Circumstances = Circumstances()) -> Denoised:
        """Denoise ``noisy`` ``(1, C, H, W)`` in [0, 1] (values outside are welcome), channel by channel."""
        # A fit that ends by itself after some hundred steps is logged by its patience, not by its ceiling.
        often = circumstances.log_every or min(max(1, self.patience // 4), max(1, self.steps // 20))
        answer = each_channel(self._one, noisy, replace(circumstances, log_every=often))
        return Denoised(answer.estimate.clamp(0, 1), answer.history)

    def _one(self, noisy: Tensor, circumstances: Circumstances) -> Denoised:
        fitted, history = self._fit(noisy, circumstances, self.schedule())
        if fitted.constant():
            again = part_of(circumstances, "again", seed_for("again", circumstances.seed))
            fitted, history = self._fit(noisy, again, replace(self.schedule(), learning_rate=_SLOW))
        return Denoised(fitted.answer(), history)

    def _fit(self, noisy: Tensor, circumstances: Circumstances, schedule: Schedule):
        objective = self.objective(noisy, circumstances)
        fit = partial(fit_picture, answer=lambda: objective.answer().clamp(0, 1), stop=objective.watch_answer)
        return objective, fit(self, objective, schedule, noisy, circumstances).history
