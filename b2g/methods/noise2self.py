"""Noise2Self (Batson and Royer, ICML 2019, doi 10.48550/arXiv.1901.11365), fitted to the one picture.

Setting: the noisy picture alone, with noise that is independent from pixel to pixel. The official code
(github.com/czbiohub-sf/noise2self, MIT) is followed: a grid that hides one pixel of every 4x4 square, filled
from its neighbours, in a fixed cycle; its last phase is kept for validation and never trained on. The paper's
text has random masks of one pixel in 25, filled with random values, which the code has not. Not followed: the
code's clipping of the noisy picture, its fill for one channel only (here each channel is filled from itself,
one mask for all), and zeros around the picture where the fill looks beyond it (mirrored here).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from b2g.fit import Schedule, autocast, build
from b2g.fitted import fit_picture
from b2g.losses import uniform_loss
from b2g.masks import grid_masks, ring_fill
from b2g.method import Circumstances, Denoised, Method, check_choice, check_least
from b2g.networks.dncnn import DnCNN
from b2g.seeds import seed_for

ANSWERS = ("whole", "blind")


class GridObjective:
    """The objective of one noisy picture ``(1, C, H, W)`` and the masks ``(K, 1, H, W)`` of a grid.

    Steps take the masks but the last in turn. The network's batch normalisation learns running statistics
    while it is fitted and uses them otherwise. ``validate`` keeps a copy of the weights with the least loss
    on the last mask.
    """

    def __init__(self, network: nn.Module, noisy: Tensor, cell: int, every: int, precision: str):
        self.network, self.noisy, self.every, self.precision = network, noisy, every, precision
        self.masks = grid_masks(*noisy.shape[-2:], cell, device=noisy.device)
        self.best, self.kept = float("inf"), None

    def _run(self, picture: Tensor) -> Tensor:
        with autocast(picture.device, self.precision):
            answer = self.network(picture.contiguous(memory_format=torch.channels_last))
        return answer.float()

    def _gap(self, mask: Tensor) -> Tensor:
        """The mean square of the hidden pixels alone, over the number of all pixels."""
        filled, hidden = self._run(ring_fill(self.noisy, mask)), 1 - mask
        return uniform_loss(hidden * filled, hidden * self.noisy, mask, norm="all")

    def loss(self, step: int) -> tuple[Tensor, None]:
        self.network.train()
        turn = step % (len(self.masks) - 1)
        return self._gap(self.masks[turn : turn + 1]), None

    @torch.no_grad()
    def validate(self, done: int) -> bool:
        """After every few steps: is this the best yet? It never asks for a stop."""
        if done % self.every == 0:
            self.network.eval()
            score = float(self._gap(self.masks[-1:]))
            if score < self.best:
                self.best, self.kept = score, {k: v.clone() for k, v in self.network.state_dict().items()}
        return False

    @torch.no_grad()
    def whole(self) -> Tensor:
        """The network's answer to the picture as it is, ``(1, C, H, W)``."""
        self.network.eval()
        return self._run(self.noisy)

    @torch.no_grad()
    def blind(self) -> Tensor:
        """Every pixel from a pass in which it was hidden, ``(1, C, H, W)``: J-invariant."""
        self.network.eval()
        answer = torch.zeros_like(self.noisy)
        for mask in self.masks.split(1):
            answer += (1 - mask) * self._run(ring_fill(self.noisy, mask))
        return answer

    def choose(self) -> None:
        """Take the weights of the least validation loss, where there was a validation."""
        if self.kept is not None:
            self.network.load_state_dict(self.kept)

    def state(self) -> dict:
        return {"best": self.best, "kept": self.kept}

    def load_state(self, state: dict) -> None:
        self.best, self.kept = state["best"], state["kept"]


@dataclass(frozen=True)
class Noise2Self(Method):
    """Noise2Self: ``steps`` over the phases of a grid of ``cell`` pixels, judged ``every`` few on the last.

    ``answer``: ``"whole"`` is the network's answer to the noisy picture with nothing hidden (the code's; not
    J-invariant), ``"blind"`` the strictly J-invariant one, put together from all phases. ``depth`` and
    ``width`` are DnCNN's. ``short`` is our own budget for a CPU: fewer steps of a narrower network.
    """

    name: ClassVar[str] = "noise2self"
    source: ClassVar[str] = "Batson and Royer, ICML 2019, doi 10.48550/arXiv.1901.11365"
    cost: ClassVar[str] = "about ten minutes on a CPU (official), one and a half (short; 256x256)"
    default_profile: ClassVar[str] = "official"
    profiles: ClassVar[dict[str, dict]] = {
        "official": {}, "short": dict(learning_rate=3e-3, width=32), "smoke": dict(steps=150, width=12, depth=5),
    }  # fmt: skip

    steps: int = 500
    learning_rate: float = 0.01
    cell: int = 4
    every: int = 10
    depth: int = 8
    width: int = 64
    answer: str = "whole"

    def __post_init__(self):
        super().__post_init__()
        check_choice("answer", self.answer, ANSWERS)
        for name, least in (("cell", 2), ("every", 1), ("depth", 2), ("width", 1)):
            check_least(name, getattr(self, name), least)
        self.schedule()  # refuses what cannot be

    def schedule(self) -> Schedule:
        """How long and how fast the fit goes."""
        return Schedule(self.steps, self.learning_rate)

    def objective(self, noisy: Tensor, circumstances: Circumstances) -> GridObjective:
        """The network and its grid, ready to be fitted to ``noisy`` ``(1, C, H, W)`` on its device."""
        make = lambda: DnCNN(noisy.shape[1], self.depth, self.width, bias=False, residual=False)  # noqa: E731
        network = build(make, seed_for("weights", circumstances.seed), noisy.device)
        return GridObjective(network, noisy, self.cell, self.every, circumstances.precision)

    def __call__(self, noisy: Tensor, circumstances: Circumstances = Circumstances()) -> Denoised:
        """Denoise ``noisy`` ``(1, C, H, W)`` in [0, 1] (values outside are welcome)."""
        objective = self.objective(noisy, circumstances)
        answer = {"whole": objective.whole, "blind": objective.blind}[self.answer]
        clamped = lambda: answer().clamp(0, 1)  # noqa: E731
        schedule = self.schedule()
        result = fit_picture(
            self, objective, schedule, noisy, circumstances, answer=clamped, stop=objective.validate
        )  # fmt: skip
        objective.choose()
        return Denoised(clamped(), result.history)
