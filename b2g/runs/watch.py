r"""What happens inside a training: quantities of the paper's argument, measured at each logged step of a fit.

``training(clean, noisy, seed)`` makes a function for ``b2g.denoise(noisy, watch=...)``. It knows the clean
picture, for measuring only, draws from a generator of its own, and changes no weight and no random number
of the run. At each look it draws a few fresh masks by the run's own law and takes f(Omega(y)) and f(y) for
each, stochastic parts on, as in training. Values are in [0, 1], losses per masked value (:mod:`b2g.losses`).

Losses
    ``self_supervised_loss``: the loss that is trained, as configured (Eq. 3.9; Eq. 1.1 without f(y));
    ``supervised_regularised_loss``: the same with the clean picture in the place of y; ``uniform_loss``:
    mean of (d^c)^2 (Eq. 1.1), the left side of Eq. 4.6; its two parts, on the same masked values:
    ``supervised_loss``, mean of (f(Omega(y)) - x)^2, and ``noise_masked``, mean of n^2 = (y - x)^2, which is
    sigma^2 unless the mask selects.
Slopes
    ``slope_visible``: slope of f(y) on the noise n at fixed x, all pixels: 1 for the identity, 0 where n is
    ignored; ``slope_blind``: the same of f(Omega(y)) on masked values.
Signs (the step from Eq. 3.6 to 3.7)
    ``content_negative``: share of masked values with d^c < 0; ``gradient_negative_across``, ``_down``:
    share with d^g < 0, by component (Eq. 3.4); ``both_nonnegative``: share of the pairs of masked value and
    component with d^c >= 0 and d^g >= 0, which Eq. 3.7 claims of all.
Theorem 1 (Eq. 4.5), per masked value, in the run's reading of d^g
    ``cross_term``: E<d^c, d^g>; ``gradient_energy``: E||d^g||^2; ``gamma_star_squared``: omega^2 + 2 omega
    cross_term / gradient_energy, the only gamma^2 under which 4.5 holds; ``gamma_star_squared_error``: its
    standard error over the masks.
Detail sets (Eq. 3.1)
    ``detail_share``: share of values in the set that the run's mask uses now (dual masks only);
    ``distance_share``: the same of Eq. 3.1's set at x_m = f(y), whatever the law of the run. Of each set,
    ``_edge``: the share that is edge (top tenth of the clean picture's gradient), and ``_outlier``: the share
    where |n| >= 1.6 sigma (40 levels at sigma = 25).
Quality
    ``psnr_visible``, ``psnr_blind``: PSNR of f(y) and of f(Omega(y)) over the whole picture, in dB.

Source of the equations: AIMS Mathematics 10(6), 2025, Sections 3 and 4, doi 10.3934/math.2025637.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Callable

import torch
from torch import Tensor

from b2g.errors import B2GError
from b2g.images import to_batch
from b2g.loop import BlindSpotLoop
from b2g.losses import gradient_gap, masked_mean
from b2g.masks import detail_distance, detail_index, gradient_index
from b2g.metrics import psnr
from b2g.seeds import seed_for, torch_generator
from b2g.theory import Draws, gamma_star_squared

MASKS = 4  # looks at each step: eight passes of the network
EDGES = 0.1  # the share of pixels that count as edges
DIGITS = 6  # kept of every number
OUTLIER = 1.6  # in standard deviations: the paper's threshold of 40 at sigma = 25


Watch = Callable[[BlindSpotLoop, int], dict[str, float]]


def training(clean, noisy, seed: int = 0, masks: int = MASKS) -> Watch:
    """A watch for the fit of ``noisy``, measured against ``clean`` (of any kind that ``b2g.denoise`` takes).

    ``seed`` names the watch's own random numbers, which follow from it and the step alone; ``masks`` is the
    number of masks drawn at each look. Raises B2GError for pictures of two sizes, and on a fit without masks.
    """
    first, second = to_batch(clean).batch, to_batch(noisy).batch
    if first.shape != second.shape or len(first) != 1:
        sizes = f"clean is {tuple(first.shape)} (B, C, H, W), noisy is {tuple(second.shape)}"
        raise B2GError(f"watch serves one picture and its clean version, of one size; {sizes}.")

    def watch(objective: BlindSpotLoop, step: int) -> dict[str, float]:
        if not isinstance(objective, BlindSpotLoop):
            raise B2GError("watch: this method draws no masks, so there is nothing to watch; leave it out.")
        generator = torch_generator(seed_for("watch", seed, step), objective.noisy.device)
        look, readings = take_look(objective, first, generator, masks), objective.readings
        numbers = losses(look, objective) | slopes(look) | signs(look, readings.get("operator", "forward"))
        numbers |= theorem(look, **readings) | detail_sets(look, objective) | quality(look)
        return {name: float(f"{v:.{DIGITS}g}") for name, v in numbers.items() if math.isfinite(v)}

    return watch


@dataclass(frozen=True)
class Look:
    """Masks (1 = kept) of one step, the answers to them, and the two pictures, each ``(masks, C, H, W)``."""

    clean: Tensor
    noisy: Tensor
    mask: Tensor
    blind: Tensor
    visible: Tensor

    @property
    def noise(self) -> Tensor:
        """n = y - x."""
        return self.noisy - self.clean


def take_look(objective: BlindSpotLoop, clean: Tensor, generator: torch.Generator, masks: int) -> Look:
    """Draw masks by the objective's law and run its network on each; nothing of the objective changes."""
    drawn = [objective.look(generator) for _ in range(masks)]
    mask, blind, visible = (torch.cat(parts).double().cpu() for parts in zip(*drawn))
    noisy = objective.noisy.double().cpu()
    return Look(clean.double().cpu().expand_as(mask), noisy.expand_as(mask), mask, blind, visible)


def losses(look: Look, objective: BlindSpotLoop) -> dict[str, float]:
    """The loss as trained, that loss against the clean picture, and the three terms of Eq. 4.6."""

    def mean(loss: Callable, *parts: Tensor) -> float:
        return float(torch.stack([loss(*row) for row in zip(*(part.split(1) for part in parts))]).mean())

    def energy(difference: Tensor) -> float:
        return mean(masked_mean, difference.square(), look.mask)

    answers = look.blind, look.visible
    return {
        "self_supervised_loss": mean(objective.loss_of, *answers, look.noisy, look.mask),
        "supervised_regularised_loss": mean(objective.loss_of, *answers, look.clean, look.mask),
        "uniform_loss": energy(look.blind - look.noisy),
        "supervised_loss": energy(look.blind - look.clean),
        "noise_masked": energy(look.noise),
    }


def slope_on_noise(answer: Tensor, clean: Tensor, noise: Tensor) -> float:
    """The coefficient of n where ``answer`` is fitted by a + b x + c n; all flat. The identity gives 1.

    With x among the regressors the chance correlation of picture and noise drops out, so that an answer
    that ignores the noise (a constant, or x itself) gives 0.
    """
    centred = clean - clean.mean()
    energy = float(centred.square().sum())
    rest = noise - noise.mean()
    rest = rest - centred * (float((centred * rest).sum()) / energy) if energy > 0 else rest
    return float((answer * rest).sum() / rest.square().sum())


def slopes(look: Look) -> dict[str, float]:
    """How much of the noise stays in f(y) on all values, and in f(Omega(y)) on masked values."""
    hidden = look.mask < 0.5
    return {
        "slope_visible": slope_on_noise(*map(torch.flatten, (look.visible, look.clean, look.noise))),
        "slope_blind": slope_on_noise(look.blind[hidden], look.clean[hidden], look.noise[hidden]),
    }


def signs(look: Look, operator: str = "forward") -> dict[str, float]:
    """Shares of masked values with a negative d^c and a negative d^g, which Eq. 3.7 takes to be none."""
    content, gap = look.blind - look.noisy, gradient_gap(look.visible, look.blind, operator)
    hidden = look.mask < 0.5
    found = {"content_negative": float((content[hidden] < 0).double().mean())}
    both = []
    for name, component in zip(("across", "down"), gap.unbind(2)):
        found[f"gradient_negative_{name}"] = float((component[hidden] < 0).double().mean())
        both.append(((content >= 0) & (component >= 0))[hidden].double().mean())
    return found | {"both_nonnegative": float(torch.stack(both).mean())}


def theorem(
    look: Look, operator: str = "forward", combine: str = "component", omega: float = 0.8
) -> dict[str, float]:
    """The two expectations that decide Theorem 1 (Eq. 4.5) and the gamma^2 that it needs.

    ``combine="separate"`` has no sum d^c + omega d^g; it is measured as "component". The mean is over
    masks, at the one noise of the picture. Empty where d^g vanishes: every gamma then serves.
    """
    combine = "component" if combine == "separate" else combine
    draws = Draws(look.clean[:1], look.noisy, look.mask, look.blind, look.visible, operator, combine)
    energy = float(draws.energy(draws.gap).mean())
    if energy == 0.0:
        return {}
    found = {"cross_term": float(draws.inner(draws.content, draws.gap).mean()), "gradient_energy": energy}
    star = gamma_star_squared(draws, omega)
    return found | {"gamma_star_squared": star.value, "gamma_star_squared_error": star.standard_error}


def detail_sets(look: Look, objective: BlindSpotLoop) -> dict[str, float]:
    """Size and content of the detail set that the run's mask uses, and of Eq. 3.1's own."""
    law = objective.law
    distance = detail_distance(look.noisy, look.visible, law.detail_over)
    found = _content("distance", detail_index(distance, law.detail_threshold), look)
    if objective.detail is not None:
        found |= _content("detail", objective.detail.double().cpu().expand_as(look.mask), look)
    return found


def _content(name: str, chosen: Tensor, look: Look) -> dict[str, float]:
    edges = gradient_index(look.clean[:1], EDGES)
    outliers = (look.noise.abs() >= OUTLIER * look.noise.square().mean().sqrt()).double()
    size = float(chosen.sum())
    found = {f"{name}_share": size / chosen.numel()}
    if size:
        found[f"{name}_edge"] = float((chosen * edges).sum()) / size
        found[f"{name}_outlier"] = float((chosen * outliers).sum()) / size
    return found


def quality(look: Look) -> dict[str, float]:
    """PSNR of the two single-pass answers in dB, the mean over the masks."""
    return {"psnr_visible": psnr(look.clean, look.visible), "psnr_blind": psnr(look.clean, look.blind)}
