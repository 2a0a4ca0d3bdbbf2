"""MPI, masked pre-training and iterative filling (Ma et al., NeurIPS 2024, doi 10.48550/arXiv.2401.14966).

A network that learnt to fill hidden pixels of clean photographs goes on filling those of the one noisy
picture: each step hides a new random share, is fitted to the hidden values, and its answers enter a running
mean at the hidden pixels alone. ``mpi`` starts from the published weights (48 627 ImageNet pictures), so it
has a prior learned elsewhere; ``mpi_scratch``, "MPI from scratch", is the same from random weights and has
none.

The official code (github.com/krennic999/MPI) has no licence; written from the stated settings and from the
shapes in the weights file, which fix the network: picture times mask beside the mask (1 = visible, one per
channel). Where the numbers are given by the code (Adam at 2e-3, 30 % hidden, normalisation by the picture at
hand) they are followed. Not built: the real-noise recipe (85 or 90 % hidden, one mask for all channels,
pixel-shuffle), which has weights of its own, and the pre-training. A gray picture goes through the colour
network three times over and the channels of the answer are averaged; its mask is one for all channels, for a
pixel hidden in one would be seen in the next.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from b2g.errors import B2GError
from b2g.fit import Schedule, autocast, build
from b2g.fitted import fit_picture
from b2g.losses import uniform_loss
from b2g.masks import bernoulli_mask
from b2g.method import Circumstances, Denoised, Method, check_choice, check_least
from b2g.networks.skip import Skip, SkipShape, load_published
from b2g.seeds import seed_for, torch_generator
from b2g.weights import fetch_weights

WEIGHTS = "mpi_skip_30"
_SHAPE = SkipShape(width=64, skip=64, up="nearest")


@dataclass(frozen=True)
class Filling:
    """An answer ``picture`` ``(1, C, H, W)`` that counts only where ``mask`` (1 = visible) is 0."""

    picture: Tensor
    mask: Tensor


class FilledAverage:
    """The running mean of answers at the pixels that were hidden; it starts from the ``noisy`` picture.

    In the engine in the place of :class:`b2g.fit.RunningAverage`. The start's bias stays in, as in the paper:
    of a pixel hidden k times, ``decay ** k`` is still the noisy value.
    """

    def __init__(self, noisy: Tensor, decay: float):
        self.sum, self.decay, self.weight = noisy.clone(), decay, 1.0

    def blend(self, filling: Filling) -> None:
        share = (1.0 - self.decay) * (1.0 - filling.mask)
        self.sum.add_(share * (filling.picture - self.sum))

    def count(self) -> None:
        """The host has nothing to count here."""

    @property
    def value(self) -> Tensor:
        return self.sum.clone()


class _FillingObjective:
    """The objective of one noisy picture ``(1, C, H, W)``, for a network of ``channels`` colours."""

    capturable = True

    def __init__(self, network: nn.Module, noisy: Tensor, channels: int, masked: float, generator, precision: str):
        self.network, self.masked, self.generator, self.precision = network, masked, generator, precision
        self.repeated = noisy.shape[1] < channels
        noisy = noisy.expand(-1, channels, -1, -1)
        self.noisy = noisy.contiguous(memory_format=torch.channels_last)

    def fill(self, mask: Tensor) -> Tensor:
        """The network's answer to the visible pixels, ``(1, channels, H, W)``."""
        with autocast(self.noisy.device, self.precision):
            return self.network(torch.cat((self.noisy * mask, mask), 1)).float()

    def loss(self, step: int) -> tuple[Tensor, Filling]:
        mask = bernoulli_mask(
            self.noisy.shape, self.masked, generator=self.generator, per_channel=not self.repeated
        )
        answer = self.fill(mask)
        loss = uniform_loss(answer, self.noisy, mask)
        answer = answer.detach()
        if self.repeated:
            return loss, Filling(answer.mean(1, keepdim=True), mask[:, :1])
        return loss, Filling(answer, mask)

    def state(self) -> dict:
        return {"generator": self.generator.get_state()}

    def load_state(self, state: dict) -> None:
        self.generator.set_state(state["generator"])


@dataclass(frozen=True)
class _Filled(Method):
    """Iterative filling: ``masked`` is the share of hidden values, ``average`` the decay at a hidden
    pixel."""

    source: ClassVar[str] = "Ma et al., NeurIPS 2024, doi 10.48550/arXiv.2401.14966"

    steps: int = 1000
    learning_rate: float = 2e-3
    masked: float = 0.3
    average: float = 0.99

    def __post_init__(self):
        super().__post_init__()
        if not 0.0 < self.masked < 1.0:
            raise B2GError(f"masked is the share of hidden values and must lie between 0 and 1, not {self.masked}.")
        if not 0.0 <= self.average < 1.0:
            raise B2GError(f"average is a decay and must lie in [0, 1), not {self.average}.")
        self.schedule()  # refuses what cannot be

    def schedule(self) -> Schedule:
        """How long and how fast the fit goes."""
        return Schedule(self.steps, self.learning_rate)

    def network(self, channels: int, circumstances: Circumstances) -> tuple[nn.Module, int]:
        """The network at the start, and the number of colours that it takes."""
        raise NotImplementedError

    def objective(self, noisy: Tensor, circumstances: Circumstances) -> _FillingObjective:
        """The network and its task, ready to be fitted to ``noisy`` ``(1, C, H, W)`` on its device."""
        network, channels = self.network(noisy.shape[1], circumstances)
        generator = torch_generator(seed_for("masks", circumstances.seed), noisy.device)
        network = network.to(noisy.device)
        return _FillingObjective(network, noisy, channels, self.masked, generator, circumstances.precision)

    def __call__(self, noisy: Tensor, circumstances: Circumstances = Circumstances()) -> Denoised:
        """Denoise ``noisy`` ``(1, C, H, W)`` in [0, 1] (values outside are welcome)."""
        objective = self.objective(noisy, circumstances)
        average = FilledAverage(noisy, self.average)
        result = fit_picture(self, objective, self.schedule(), noisy, circumstances, average=average)
        return Denoised(result.average, result.history)


@dataclass(frozen=True)
class MPI(_Filled):
    """MPI from its published weights. ``official``: 1000 steps; ``faster``: the authors' 200 steps at decay
    0.90.

    ``statistics``: the network normalises by the picture at hand (``"batch"``, the official code), or by what
    is stored with the weights (``"stored"``).
    """

    name: ClassVar[str] = "mpi"
    label: ClassVar[str] = "one image, with a prior learned elsewhere"
    cost: ClassVar[str] = "about ten minutes on a CPU (256x256); two (faster)"
    default_profile: ClassVar[str] = "official"
    profiles: ClassVar[dict[str, dict]] = {
        "official": {}, "faster": dict(steps=200, average=0.9), "smoke": dict(steps=40, average=0.8),
    }  # fmt: skip

    statistics: str = "batch"

    def __post_init__(self):
        super().__post_init__()
        check_choice("statistics", self.statistics, ("batch", "stored"))

    def network(self, channels: int, circumstances: Circumstances) -> tuple[nn.Module, int]:
        shape = SkipShape(_SHAPE.width, _SHAPE.skip, _SHAPE.scales, _SHAPE.up, self.statistics)
        path = fetch_weights(WEIGHTS)
        network = build(lambda: Skip(6, 3, shape), 0, torch.device("cpu"))
        load_published(network, path)
        return network, 3


@dataclass(frozen=True)
class MPIScratch(_Filled):
    """MPI from scratch: the filling alone, from random weights, with as many colours as the picture has.

    ``width`` is the number of channels at every level and of its skip. ``official`` is MPI's own filling; there is
    no published recipe without its weights.
    """

    name: ClassVar[str] = "mpi_scratch"
    cost: ClassVar[str] = "about ten minutes on a CPU (256x256); two (faster)"
    default_profile: ClassVar[str] = "official"
    profiles: ClassVar[dict[str, dict]] = {
        "official": {}, "faster": dict(steps=200, average=0.9), "smoke": dict(steps=80, average=0.9, width=16),
    }  # fmt: skip

    width: int = 64

    def __post_init__(self):
        super().__post_init__()
        check_least("width", self.width, 1)

    def network(self, channels: int, circumstances: Circumstances) -> tuple[nn.Module, int]:
        shape = SkipShape(self.width, self.width, _SHAPE.scales, _SHAPE.up)
        make = lambda: Skip(2 * channels, channels, shape)  # noqa: E731
        return build(make, seed_for("weights", circumstances.seed), torch.device("cpu")), channels
