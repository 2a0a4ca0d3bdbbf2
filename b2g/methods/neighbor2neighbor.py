"""Neighbor2Neighbor (Huang, Li, Jia, Lu and Liu, CVPR 2021, doi 10.1109/CVPR46437.2021.01454):
halves of one picture.

Of every 2 x 2 cell two adjacent pixels are drawn, one for each of two pictures of half the size. They show
nearly the same scene under independent noise, so one is the target of the other, as in Noise2Noise. What they
differ by in the scene is taken out by a second term: the same draw from the answer to the whole picture says
how much that is.

``neighbor2neighbor`` fits the network to crops of the one noisy picture, whose noise is what it is; there is
no official recipe for that. ``neighbor2neighbor_many`` is the published form, trained on many noisy pictures.
The official code (github.com/TaoHuang2018/Neighbor2Neighbor, BSD-3) draws the noise of its clean pictures
anew in every epoch, which is a hidden Noise2Noise (its issue 16); here it is frozen unless a recipe says
otherwise.

Written from the stated facts: U-Net with transposed convolutions (:mod:`b2g.networks.unet`), Adam 3e-4 halved
after every fifth of the training, batches of 4, crops of 256 pixels, lambda growing from 0 to 2 (real noise:
1). Not followed: the official training set (here BSDS500's 400 pictures); lambda grows with every step here,
not with every epoch. The answer is one pass over the whole noisy picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from b2g.crops import CropObjective, Drawn
from b2g.errors import B2GError
from b2g.fit import Schedule
from b2g.fitted import crops_of_picture, fit_picture
from b2g.method import Circumstances, Denoised, Method, check_least
from b2g.networks.unet import neighbor2neighbor_network
from b2g.trained import Trained
from b2g.training import Recipe

Run = Callable[[Tensor], Tensor]
PAIRS = 8  # ordered pairs of pixels of a 2 x 2 cell that share a side


def draw_pairs(shape, generator: torch.Generator) -> Tensor:
    """Which pair each cell of pictures of ``shape`` ``(B, C, H, W)`` gives: ``(B, 1, H/2, W/2)``, 0..7."""
    batch, _, height, width = shape
    size = (batch, 1, height // 2, width // 2)
    return torch.randint(PAIRS, size, generator=generator, device=generator.device)


def neighbours(picture: Tensor, pairs: Tensor) -> tuple[Tensor, Tensor]:
    """The half-size pictures g_1 and g_2, ``(B, C, H/2, W/2)``, that the ``pairs`` pick;
    alike for all channels."""
    cells = F.pixel_unshuffle(picture.flatten(0, 1)[:, None], 2).unflatten(0, picture.shape[:2])
    pick = lambda which: cells.gather(2, which[:, :, None].expand(*cells.shape[:2], 1, -1, -1))[:, :, 0]  # noqa: E731
    # The pixels of a cell are 0 1 above 2 3: bit 0 turns one into the one beside it,
    # bit 1 into the one above or below.
    first = pairs >> 1
    return pick(first), pick(first ^ (1 + (pairs & 1)))


def neighbour_loss(run: Run, noisy: Tensor, weight: Tensor | float, generator: torch.Generator) -> Tensor:
    """The loss on ``noisy`` ``(B, C, H, W)``: reconstruction plus ``weight`` (lambda) times the regulariser.

    |f(g_1) - g_2|^2 + lambda |f(g_1) - g_2 - (g_1(f(y)) - g_2(f(y)))|^2, means; f(y) is a constant. The last
    row or column of odd sides is left out.
    """
    noisy = noisy[..., : noisy.shape[-2] // 2 * 2, : noisy.shape[-1] // 2 * 2]
    pairs = draw_pairs(noisy.shape, generator)
    with torch.no_grad():
        first_clean, second_clean = neighbours(run(noisy), pairs)
    first, second = neighbours(noisy, pairs)
    gap = run(first) - second
    return gap.square().mean() + weight * (gap - (first_clean - second_clean)).square().mean()


def _check(method) -> None:
    check_least("width", method.width, 1)
    if method.regulariser < 0 or not 0 < method.gain <= 10:
        raise B2GError("regulariser must be at least 0 and gain lie in (0, 10], not "
                       f"{method.regulariser} and {method.gain}.")


@dataclass(frozen=True)
class Neighbor2Neighbor(Method):
    """Neighbor2Neighbor on the one picture: crops of it, flipped and turned, its noise never drawn again.

    ``regulariser`` is lambda at the end of its growth from 0, ``gain`` the scale of the initial weights.
    ``official`` takes the published training's rate, batch, crop and start; how long is not published for one
    picture and ours. ``short`` is our budget for a CPU: few small crops and a higher rate, from full-scale
    weights.
    """

    name: ClassVar[str] = "neighbor2neighbor"
    source: ClassVar[str] = "Huang et al., CVPR 2021, doi 10.1109/CVPR46437.2021.01454 (one-image form: ours)"
    cost: ClassVar[str] = "three minutes on a CPU (short, 256x256); about two hours (official)"
    default_profile: ClassVar[str] = "short"
    profiles: ClassVar[dict[str, dict]] = {
        "official": dict(
            steps=6000, learning_rate=3e-4, batch=4, side=256, decay="halve", decay_from=0.2, gain=0.1
        ),
        "short": {},
        "smoke": dict(steps=100, width=24),
    }

    steps: int = 2400
    learning_rate: float = 2e-3
    decay: str = "cosine"
    decay_from: float = 0.0
    batch: int = 2
    side: int = 64
    regulariser: float = 2.0
    gain: float = 1.0
    width: int = 48

    def __post_init__(self):
        super().__post_init__()
        _check(self)
        check_least("batch", self.batch, 1)
        check_least("side", self.side, 8)
        self.schedule()  # refuses what cannot be

    def schedule(self) -> Schedule:
        """How long and how fast the fit goes."""
        return Schedule(self.steps, self.learning_rate, self.decay, self.decay_from, halvings=4)

    def objective(self, noisy: Tensor, circumstances: Circumstances) -> CropObjective:
        """The network and its loss, ready to be fitted to crops of ``noisy`` ``(1, C, H, W)``."""
        make = lambda: neighbor2neighbor_network(noisy.shape[1], self.width, self.gain)  # noqa: E731
        loss_of = lambda run, drawn, share, generator: neighbour_loss(  # noqa: E731
            run, drawn.noisy, self.regulariser * share, generator
        )
        return crops_of_picture(self, make, noisy, loss_of, circumstances)

    def __call__(self, noisy: Tensor, circumstances: Circumstances = Circumstances()) -> Denoised:
        """Denoise ``noisy`` ``(1, C, H, W)`` in [0, 1] (values outside are welcome)."""
        objective = self.objective(noisy, circumstances)
        answer = lambda: objective.run(noisy).clamp(0, 1)  # noqa: E731
        result = fit_picture(self, objective, self.schedule(), noisy, circumstances, answer=answer)
        with torch.no_grad():
            return Denoised(answer(), result.history)


@dataclass(frozen=True)
class Neighbor2NeighborMany(Trained):
    """Neighbor2Neighbor trained on many noisy pictures;
    ``regulariser`` and ``gain`` as in the one-image form.

    ``official`` means weights of the published length (100 epochs of 44 328 pictures at batches of 4),
    ``short`` those of our recipe for a CPU, which starts from full-scale weights.
    """

    name: ClassVar[str] = "neighbor2neighbor_many"
    source: ClassVar[str] = "Huang et al., CVPR 2021, doi 10.1109/CVPR46437.2021.01454"
    cost: ClassVar[str] = "about a second on a CPU (256x256), once trained"
    default_profile: ClassVar[str] = "short"
    profiles: ClassVar[dict[str, dict]] = {
        "official": dict(recipe="full", gain=0.1), "short": {}, "smoke": {},
    }  # fmt: skip
    recipes: ClassVar[dict[str, Recipe]] = {
        "full": Recipe("full", 1_108_200, 3e-4, "halve", 0.2, halvings=4, batch=4, side=256),
        "small": Recipe("small", 4000, 1e-3, "cosine", 0.3, batch=4, side=64),
    }
    capturable: ClassVar[bool] = True

    regulariser: float = 2.0
    gain: float = 1.0
    width: int = 48

    def __post_init__(self):
        super().__post_init__()
        _check(self)

    def network(self, channels: int) -> nn.Module:
        """Neighbor2Neighbor's U-Net."""
        return neighbor2neighbor_network(channels, self.width, self.gain)

    def training_loss(self, run: Run, drawn: Drawn, share: Tensor, generator: torch.Generator) -> Tensor:
        """The loss of the neighbours of the noisy crops."""
        return neighbour_loss(run, drawn.noisy, self.regulariser * share, generator)
