"""Fitting a network to one noisy picture under the circumstances of a run:
what all fitted methods do alike."""

from __future__ import annotations

from dataclasses import replace
from typing import Callable

import torch
from torch import Tensor, nn

from b2g.crops import CropObjective, Crops, Drawn
from b2g.fit import Fit, RunningAverage, Schedule, build, fit
from b2g.method import Circumstances, Method
from b2g.metrics import psnr
from b2g.seeds import seed_for, torch_generator


def fit_picture(
    method: Method,
    objective,
    schedule: Schedule,
    noisy: Tensor,
    circumstances: Circumstances,
    *,
    average: float | RunningAverage | None = None,
    answer: Callable[[], Tensor] | None = None,
    stop: Callable[[int], bool] | None = None,
) -> Fit:
    """:func:`b2g.fit.fit` of ``objective`` to ``noisy`` ``(1, C, H, W)``, as ``circumstances`` ask.

    ``average`` and ``stop`` as there. ``answer`` gives the picture of the moment, for the PSNR in the history
    of a method that keeps no running average; it is called without gradients, and must leave no trace in the
    fit.
    """
    return fit(
        objective, schedule, average=average, clean=None if answer else circumstances.clean, stop=stop,
        progress=circumstances.progress, label=method.name, checkpoint=circumstances.checkpoint,
        identity=circumstances.identity(method, noisy), watch=_watching(circumstances, answer),
        log_every=circumstances.log_every, engine=circumstances.engine,
    )  # fmt: skip


def crops_of_picture(
    method,
    make: Callable[[], nn.Module],
    noisy: Tensor,
    loss_of: Callable[[Callable[[Tensor], Tensor], Drawn, Tensor, torch.Generator], Tensor],
    circumstances: Circumstances,
    *,
    capturable: bool = True,
) -> CropObjective:
    """The network of ``make`` and ``loss_of`` on crops of ``noisy`` ``(1, C, H, W)``,
    whose noise is never drawn again.

    ``method`` gives ``side``, ``batch`` and ``steps``; ``loss_of(run, drawn, share, generator)`` as in
    :class:`b2g.crops.CropObjective`, with the generator of the crops to draw from.
    """
    seed, device = circumstances.seed, noisy.device
    generator = torch_generator(seed_for("crops", seed), device)
    return CropObjective(
        build(make, seed_for("weights", seed), device), Crops([noisy], method.side, method.batch, generator),
        lambda run, drawn, share: loss_of(run, drawn, share, generator),
        generator, circumstances.precision, steps=method.steps, capturable=capturable,
    )  # fmt: skip


def part_of(circumstances: Circumstances, part: str, seed: int | None = None) -> Circumstances:
    """The circumstances of one of a method's several fits: a checkpoint of its own,
    and a seed where it needs one."""
    place = circumstances.checkpoint
    return replace(
        circumstances,
        seed=circumstances.seed if seed is None else seed,
        checkpoint=None if place is None else place.with_name(f"{place.name}.{part}"),
    )


def _watching(circumstances: Circumstances, answer: Callable[[], Tensor] | None):
    """The circumstances' watch, with the PSNR of ``answer`` where the engine has no
    running average to show."""
    clean, watch = circumstances.clean, circumstances.watch
    if clean is None or answer is None:
        return watch

    @torch.no_grad()
    def look(objective, step: int) -> dict[str, float]:
        return {"psnr": psnr(clean, answer()), **(watch(objective, step) if watch else {})}

    return look
