"""MASH (Chihaoui and Favaro, CVPR 2024, doi 10.48550/arXiv.2404.09389): how much to mask, and shuffled
targets.

Setting: one noisy picture, noise unknown and perhaps alike in neighbouring pixels. Two trainings with few
and with many hidden entries end at different noise levels where the noise is correlated; the gap between
the two chooses the share to hide. Where it is large, pixels of flat tiles are shuffled in the target, so
that their noise can no longer be guessed from the neighbours.

The official code (github.com/hamadichihaoui/mash, no licence) and the paper differ. ``official`` follows
the code's numbers for SIDD: absolute error, shares .1, .5 and .9, thresholds 1 and 2, flatness from 2x2
squares. ``paper`` follows the paper: squared error (Eq. 4), shares .2, .5 and .8, thresholds 1.5 and 2.5
(Eq. 10), flatness from whole tiles (Eq. 7). Written from the paper and these numbers.

Our readings. A spread is normalised by the largest of the picture, and the paper, which prints no
threshold, gets the code's. A tile is flat as a whole or not at all, and its colours move together, so a
shuffle is a permutation; pixel by pixel, Eq. 5 would double some pixels and lose others. It is drawn once,
as in Algorithm 1, with the mean of ten passes as the estimate. Pictures of any size: what is left over by
whole tiles is not shuffled (the code takes 256x256 only). The U-Net is Self2Self's, whose partial convolutions are
plain ones where nothing is hidden, but for the picture's border.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from b2g.errors import B2GError
from b2g.fit import Schedule, build, mean_of_passes
from b2g.fitted import fit_picture, part_of
from b2g.masks import bernoulli_mask
from b2g.method import Circumstances, Denoised, Method, check_choice, check_least
from b2g.network import Architecture, EncoderDecoder
from b2g.seeds import seed_for, torch_generator
from b2g.windowed import Windowed

_CELL = 2  # pixels on a side of the squares of flatness="local"


def split_tiles(picture: Tensor, tile: int) -> Tensor:
    """The whole tiles of ``(1, C, H, W)``, from the upper left: ``(rows, columns, C, tile, tile)``."""
    height, width = (side // tile * tile for side in picture.shape[-2:])
    tiles = picture[0, :, :height, :width].unflatten(2, (-1, tile)).unflatten(1, (-1, tile))
    return tiles.permute(1, 3, 0, 2, 4)


def tile_spread(estimate: Tensor, tile: int, flatness: str = "local") -> Tensor:
    """How far each tile of ``estimate`` ``(1, C, H, W)`` is from flat, ``(rows, columns)``, 1 = the
    picture's largest.

    Standard deviations, the mean of the channels: of the tile (``"tile"``, Eq. 7), or the largest of its 2x2
    squares (``"local"``).
    """
    tiles = split_tiles(estimate, tile)
    if flatness == "local":
        cells = tiles.unfold(-2, _CELL, 1).unfold(-2, _CELL, 1)
        spread = cells.std((-2, -1), correction=0).mean(2).amax((-2, -1))
    else:
        spread = tiles.std((-2, -1), correction=0).mean(2)
    return spread / spread.max().clamp_min(1e-12)


def shuffle_tiles(picture: Tensor, flat: Tensor, tile: int, generator: torch.Generator) -> Tensor:
    """``picture`` ``(1, C, H, W)`` with the pixels of each ``flat`` tile (bool, ``(rows, columns)``)
    permuted within it.

    The channels of a pixel stay together (Gamma in Eq. 5).
    """
    tiles = split_tiles(picture, tile)
    numbers = torch.rand((*flat.shape, tile**2), generator=generator, device=generator.device)
    order = numbers.argsort(-1)[:, :, None].expand(-1, -1, picture.shape[1], -1)
    shuffled = torch.where(flat[..., None, None], tiles.flatten(3).gather(3, order), tiles.flatten(3))
    answer = picture.clone()
    whole = shuffled.unflatten(3, (tile, tile)).permute(2, 0, 3, 1, 4).flatten(3, 4).flatten(1, 2)
    answer[0, :, : whole.shape[1], : whole.shape[2]] = whole
    return answer


class _MaskedFit(Windowed):
    """One training on ``noisy`` ``(1, C, H, W)``: hide a share ``masked`` of all entries, ask for them (Eq.
    4).

    From step ``shuffle_from`` on (None: never) the target is the shuffled picture (Eq. 6).
    """

    def __init__(self, method: "MASH", noisy: Tensor, masked: float, shuffle: bool, where: Circumstances):
        seed, device = where.seed, noisy.device
        make = lambda: EncoderDecoder(noisy.shape[1], method.architecture())  # noqa: E731
        network = build(make, seed_for("weights", seed), device)
        generator = torch_generator(seed_for("masks", seed), device)
        super().__init__(network, method.side, generator, where.precision)
        self.noisy = self.target = noisy.contiguous(memory_format=torch.channels_last)
        self.method, self.masked = method, masked
        self.shuffle_from = method.shuffle_from if shuffle else None

    @property
    def capturable(self) -> bool:
        return self.shuffle_from is None

    def _hide(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        mask = bernoulli_mask(picture.shape, self.masked, generator=self.generator)
        return picture * mask, mask

    def loss(self, step: int) -> tuple[Tensor, None]:
        if step == self.shuffle_from:
            self.target = self._shuffled()
        noisy, target = self.windows(self.noisy, self.target)
        seen, mask = self._hide(noisy)
        gap = (1 - mask) * (self.run(seen) - target)
        return (gap.abs() if self.method.error == "absolute" else gap.square()).mean(), None

    def _shuffled(self) -> Tensor:
        """The target of Eq. 5; a picture without a whole tile stays as it is."""
        if min(self.noisy.shape[-2:]) < self.method.tile:
            return self.noisy
        estimate = mean_of_passes(self.predict, self.method.passes)
        flat = tile_spread(estimate, self.method.tile, self.method.flatness) < self.method.flat
        return shuffle_tiles(self.noisy, flat, self.method.tile, self.generator)

    @torch.no_grad()
    def predict(self) -> Tensor:
        """One answer to the picture under a new mask, ``(1, C, H, W)``."""
        return self.run(self._hide(self.noisy)[0])

    def state(self) -> dict:
        return super().state() | {"target": self.target}

    def load_state(self, state: dict) -> None:
        super().load_state(state)
        self.target = state["target"].to(self.noisy.device)


@dataclass(frozen=True)
class MASH(Method):
    """MASH: three trainings of Noise2Noise's U-Net (991 203 weights in colour), the mean of masked passes.

    ``probe_low`` and ``probe_high`` are the shares hidden in the two trainings that measure the gap of
    noise levels on 0..255; ``gaps`` are its two thresholds, ``masked_low``, ``masked_medium`` and
    ``masked_high`` the shares they choose from. Beyond the second one, ``tile`` x ``tile`` squares whose
    spread is below ``flat`` are shuffled in the target after ``shuffle_from`` steps. ``error`` is
    ``"absolute"`` or ``"squared"``; ``flatness``: see :func:`tile_spread`. Each step sees a window of
    ``side`` pixels (0: the picture). ``short`` is no one's published setting: fewer steps, on windows, at a
    higher rate.
    """

    name: ClassVar[str] = "mash"
    source: ClassVar[str] = "Chihaoui and Favaro, CVPR 2024, doi 10.48550/arXiv.2404.09389"
    cost: ClassVar[str] = "about a minute on a GPU (official); two minutes on a CPU (short, 256x256)"
    default_profile: ClassVar[str] = "short"
    profiles: ClassVar[dict[str, dict]] = {
        "official": {},
        "paper": dict(masked_low=0.2, masked_high=0.8, gaps=(1.5, 2.5), error="squared", flatness="tile"),
        # So short a training tells no gap worth heeding, hence the thresholds: nothing is shuffled.
        "short": dict(learning_rate=1e-3, side=64, gaps=(10.0, 20.0)),
        "smoke": dict(steps=150, learning_rate=1e-2, width=8, head=(8, 8), gaps=(10.0, 20.0)),
    }

    steps: int = 800
    learning_rate: float = 4e-4
    probe_low: float = 0.2
    probe_high: float = 0.8
    gaps: tuple[float, float] = (1.0, 2.0)
    masked_low: float = 0.1
    masked_medium: float = 0.5
    masked_high: float = 0.9
    error: str = "absolute"
    shuffle_from: int = 50
    tile: int = 4
    flatness: str = "local"
    flat: float = 0.5
    passes: int = 10
    width: int = 48
    head: tuple[int, int] = (64, 32)
    side: int = 0

    def __post_init__(self):
        super().__post_init__()
        for name in ("probe_low", "probe_high", "masked_low", "masked_medium", "masked_high"):
            if not 0.0 < getattr(self, name) < 1.0:
                raise B2GError(f"{name} is a share of hidden entries and must lie between 0 and 1, "
                               f"not {getattr(self, name)}.")  # fmt: skip
        if not 0.0 <= self.gaps[0] <= self.gaps[1]:
            raise B2GError(f"gaps are two noise levels on 0..255, the smaller one first, not {self.gaps}.")
        if not self.flat >= 0:
            raise B2GError(f"flat is a share of the largest spread and must be at least 0, not {self.flat}.")
        check_choice("error", self.error, ("absolute", "squared"))
        check_choice("flatness", self.flatness, ("local", "tile"))
        for name, least in (("shuffle_from", 0), ("tile", 2), ("passes", 1)):
            check_least(name, getattr(self, name), least)
        if self.side and self.side < 32:
            raise B2GError(f"side is 0 (the picture) or a window of at least 32 pixels, not {self.side}.")
        self.schedule(), self.architecture()  # each refuses what cannot be

    def schedule(self) -> Schedule:
        """How long and how fast each of the three trainings goes."""
        return Schedule(self.steps, self.learning_rate, "cosine")

    def architecture(self) -> Architecture:
        """Noise2Noise's U-Net, or a narrower one."""
        return Architecture(width=self.width, head=self.head, norm="none", dropout="none", output="linear")

    def choose(self, gap: float) -> tuple[float, bool]:
        """The share to hide and whether to shuffle, from the ``gap`` of noise levels on 0..255 (Eq. 10)."""
        if gap <= self.gaps[0]:
            return self.masked_low, False
        return (self.masked_high, True) if gap > self.gaps[1] else (self.masked_medium, False)

    def level(self, noisy: Tensor, masked: float, circumstances: Circumstances) -> float:
        """The noise level on 0..255 at which a training that hides the share ``masked`` ends (Eq. 8)."""
        where = part_of(circumstances, f"hide{masked:g}", seed_for("mash", circumstances.seed, masked))
        estimate, _ = self._train(noisy, masked, False, replace(where, clean=None, watch=None))
        return 255 * float((estimate - noisy).std(correction=0))

    def _train(self, noisy, masked: float, shuffle: bool, circumstances) -> tuple[Tensor, list[dict]]:
        objective = _MaskedFit(self, noisy, masked, shuffle, circumstances)
        shown = lambda: objective.aside(torch_generator(0, noisy.device))().clamp(0, 1)  # noqa: E731
        result = fit_picture(self, objective, self.schedule(), noisy, circumstances, answer=shown)
        return mean_of_passes(objective.predict, self.passes, circumstances.progress), result.history

    def __call__(self, noisy: Tensor, circumstances: Circumstances = Circumstances()) -> Denoised:
        """Denoise ``noisy`` ``(1, C, H, W)`` in [0, 1]; the last entry of the history tells ``gap`` and
        ``masked``."""
        low, high = (self.level(noisy, share, circumstances) for share in (self.probe_low, self.probe_high))
        masked, shuffle = self.choose(abs(high - low))
        estimate, history = self._train(noisy, masked, shuffle, circumstances)
        history[-1] |= {"gap": abs(high - low), "masked": masked}
        return Denoised(estimate.clamp(0, 1), history)
