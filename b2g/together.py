"""Many small pictures of one size fitted side by side, each with its own weights,
in one loop (``together=``).

Each picture keeps its own weights (at the start those of the fit of this picture alone with its seed), masks,
dropouts, flips, statistics of batch normalisation, running average and loss. What is minimised is the sum of
the losses, and Adam works entry by entry, so no picture feels another, and one that diverges spoils no other.
Given equal random numbers, a stack is the N fits one after another; the tests hold it to that.

One generator draws for all. A picture's random numbers thus depend on the stack it is in, as they depend on
the device: their law is the same, the draw is another. Where steps look at windows, one place a step serves
all.
"""

from __future__ import annotations

import math
import numbers
from copy import copy
from dataclasses import replace
from typing import Callable

import torch
from torch import Tensor, nn

from b2g.averaged import AveragedWeights
from b2g.errors import B2GError, Diverged
from b2g.loop import flip
from b2g.method import Circumstances, Denoised, Method
from b2g.metrics import psnr
from b2g.recorrupt import RecorruptedLoop
from b2g.seeds import seed_for, torch_generator
from b2g.stack import FASTEST, stack_networks
from b2g.window import Part, cut, draw_window

SHARE = 0.5  # of a GPU's free memory: recording a CUDA graph may hold a step's tensors twice
CPU_BYTES = 2**30
SMALL = 128 * 128  # pixels: a larger picture is expected to keep a GPU busy by itself; not yet measured
OWN = ("network", "noisy", "generator", "loss_of")
# Settings beside which a method works from one picture's noise level, of which a stack would have but one for
# all. A mosaic (shuffle) is made in the method's call, which a stack goes around.
APART = {"noise": "gaussian", "posterior": "none", "shuffle": 1}


class OwnFlips(nn.Module):
    """A stacked ``network`` that at each pass mirrors every picture in its own way, and its answer back."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(
        self, image: Tensor, mask: Tensor | None, generator: torch.Generator, guide: Tensor | None = None
    ) -> Tensor:
        which = torch.randint(4, (len(image), 1, 1, 1), generator=generator, device=image.device)
        image, mask, guide = (None if one is None else flip(one, which) for one in (image, mask, guide))
        return flip(self.network(image, mask, generator, guide), which)


class Losses:
    """The loss of every picture, apart, as one sum: what ``loss_of`` is for one picture, mapped over all.

    ``last`` ``(N,)`` holds the losses of the last step. A loss that is not finite counts as 0,
    unless all are.
    """

    def __init__(self, of_one: Callable[..., Tensor]):
        self.of_one = of_one
        self.last: Tensor | None = None

    def __call__(self, *given: Tensor | None) -> Tensor:
        there = [tensor is not None for tensor in given]

        def of_one(*tensors: Tensor) -> Tensor:
            ones = iter(tensors)
            return self.of_one(*(next(ones)[None] if present else None for present in there))

        losses = torch.func.vmap(of_one)(*(tensor for tensor in given if tensor is not None))
        self.last, finite = losses.detach(), losses.isfinite()
        return torch.where(finite.any(), torch.where(finite, losses, 0.0).sum(), losses.sum())


def stack_objectives(objectives: list, seed: int, how: str):
    """One objective of N: their networks stacked, their pictures one batch, their losses summed,
    one generator.

    An objective that can be stacked has a ``network``, a picture ``noisy`` ``(1, C, H, W)``, a ``loss_of``
    (the loss of one picture, a pure function of tensors ``(1, ...)`` or None) and, if it draws, a
    ``generator``. Other pictures of the size of ``noisy`` are joined, too; all else must be equal among the
    N.
    """
    first = objectives[0]
    if isinstance(first, RecorruptedLoop):
        return RecorruptedStack(objectives, seed, how)
    if not all(hasattr(first, name) for name in ("network", "noisy", "loss_of")):
        raise B2GError(f"{type(first).__name__} cannot be fitted side by side; use together=False.")
    stack = copy(first)
    _join(stack, objectives)
    stack.loss_of = Losses(first.loss_of)
    _share(stack, objectives, seed, how)
    return stack


def _share(stack, objectives: list, seed: int, how: str) -> None:
    """Give ``stack`` one network, batch and generator for those of the objectives."""
    stack.network = stack_networks([objective.network for objective in objectives], how)
    stack.noisy = torch.cat([objective.noisy for objective in objectives]).contiguous()
    if getattr(stack, "flips", False):  # the loop would mirror all alike
        stack.network, stack.flips = OwnFlips(stack.network), False
    if hasattr(stack, "generator"):
        stack.generator = torch_generator(seed, stack.noisy.device)


class RecorruptedStack(RecorruptedLoop):
    """N recorrupted pictures, each with its own noise level and pilots;
    which of its draws is seen is one for all."""

    def __init__(self, objectives: list[RecorruptedLoop], seed: int, how: str):
        self.__dict__.update(vars(objectives[0]))
        self.objectives = objectives
        _share(self, objectives, seed, how)
        self.sigma = self.noisy.new_tensor([one.sigma for one in objectives]).view(-1, 1, 1, 1)
        self.averaged = AveragedWeights(self.network, objectives[0].averaged.decay)
        self.loss_of = Losses(objectives[0].loss_of)
        self.counted = torch.cat([one.counted for one in objectives])
        if self.pilot is not None:  # (draws, N, C, H, W)
            self.seen = torch.stack([one.seen for one in objectives], 1)
            self.targets = torch.stack([one.targets for one in objectives], 1)

    @staticmethod
    def _pick(pictures: Tensor, index: int) -> Tensor:
        return pictures[index]

    def _draw(self, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
        if self.seen is None:
            return super()._draw(rows, columns)
        which = torch.randint(len(self.seen), (1,), generator=self.generator, device=self.noisy.device)
        return tuple(cut(one.index_select(0, which)[0], rows, columns) for one in (self.seen, self.targets))

    @torch.no_grad()
    def see(self) -> Tensor:
        if self.pilot is not None and self.whole is None:
            pairs = [torch.cat((one.noisy, one.pilot(one.noisy, one.sigma)), 1) for one in self.objectives]
            self.whole = torch.cat(pairs)
        return super().see()


def _join(stack, objectives: list) -> None:
    """Join the further pictures of the objectives in ``stack``;
    refuse what one would silently answer for all."""
    for name, value in vars(objectives[0]).items():
        values = [getattr(objective, name) for objective in objectives]
        if name in OWN or not isinstance(value, (Tensor, float, int, str)):
            continue
        if isinstance(value, Tensor) and value.shape == objectives[0].noisy.shape:
            setattr(stack, name, torch.cat(values).contiguous())
        elif not all(torch.equal(value, one) if isinstance(value, Tensor) else value == one for one in values):
            raise B2GError(f"{name} differs from picture to picture; use together=False.")


def bytes_a_picture(objective) -> int:
    """An estimate of the memory that one picture of a stack takes, from one step of its own ``objective``.

    Twice what the step keeps for its slopes (as much again passes through: slopes, windows, copies), and 16
    bytes a weight: itself, its slope, and Adam's two moments.
    """
    kept, weights = {}, list(objective.network.parameters())

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss, _ = objective.loss(0)  # held until the count is done, so that no address is used twice
    activations = sum(kept.values()) - sum(kept.get(w.untyped_storage().data_ptr(), 0) for w in weights)
    del loss
    return 2 * activations + 16 * sum(weight.numel() for weight in weights)


def together_at_once(method: Method, noisy: Tensor, circumstances: Circumstances, together) -> int:
    """How many of the pictures ``(N, C, H, W)`` to fit side by side at a time; 1 is one after another.

    ``together``: True, as many as memory allows; a number, at most so many; False, one; ``"auto"``, True on a
    GPU for pictures of up to 128 x 128 pixels where the method can. A CPU core is busy with one picture, so
    there a stack gains little. Raises B2GError where it must and cannot.
    """
    number = isinstance(together, numbers.Integral) and not isinstance(together, bool)
    if not (together >= 1 if number else together in ("auto", True, False)):
        raise B2GError(f"together must be 'auto', True, False or a whole number from 1 up, not {together!r}.")
    device = circumstances.device
    idle = device.type == "cuda" and noisy.shape[-2] * noisy.shape[-1] <= SMALL
    apart = together is False or (number and together == 1) or (together == "auto" and not idle)
    if apart or len(noisy) == 1:
        return 1
    try:
        one = _objective(method, noisy[:1].to(device), circumstances)
        stack_objectives([one], 0, FASTEST[device.type])
    except B2GError:
        if together == "auto":
            return 1
        raise
    return min(len(noisy), together if number else max(1, _room(device) // bytes_a_picture(one)))


def _room(device: torch.device) -> int:
    """The bytes that a stack may take."""
    return int(SHARE * torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else CPU_BYTES


def _objective(method: Method, noisy: Tensor, circumstances: Circumstances):
    if not hasattr(method, "objective"):
        raise B2GError(f"{method.name} cannot fit pictures side by side; use together=False.")
    for name, only in APART.items():
        if getattr(method, name, only) != only:
            raise B2GError(f"{method.name} goes side by side with {name}={only!r} only; use together=False.")
    return method.objective(noisy, circumstances)


def denoise_together(
    method: Method,
    noisy: Tensor,
    circumstances: Circumstances,
    seeds: list[int],
    at_once: int | None = None,
    how: str | None = None,
) -> list[Denoised | Diverged]:
    """Denoise ``noisy`` ``(N, C, H, W)`` in [0, 1] side by side, picture k with ``seeds[k]``.

    ``at_once`` at a time (None: all). One answer a picture, in order; for one that diverged the exception,
    not raised. ``circumstances.clean`` is ``(N, C, H, W)`` and shown in the last entry of each history, whose
    ``seconds`` are those of its stack. ``how``: see :func:`b2g.stack.convolve` (None:
    :data:`b2g.stack.FASTEST`).
    """
    parts = math.ceil(len(noisy) / (at_once or len(noisy)))
    answers: list[Denoised | Diverged] = []
    for part in noisy.tensor_split(parts):
        rows = slice(len(answers), len(answers) + len(part))
        clean = None if circumstances.clean is None else circumstances.clean[rows]
        answers += _stack(method, part.to(circumstances.device), seeds[rows], clean, circumstances, how)
    return answers


def _stack(method, noisy: Tensor, seeds: list[int], clean: Tensor | None, circumstances, how) -> list:
    """One stack, fitted by the method's own ``__call__`` around an objective of N pictures."""
    alone = [replace(circumstances, seed=seed, clean=None) for seed in seeds]
    objectives = [_objective(method, picture, one) for picture, one in zip(noisy.split(1), alone)]
    stack = stack_objectives(objectives, seed_for("together", *seeds), how or FASTEST[noisy.device.type])
    losses: list[list[float]] = []

    def watch(objective, step: int) -> dict[str, float]:
        losses.append(stack.loss_of.last.tolist())
        return {}

    fitted = copy(method)
    object.__setattr__(fitted, "objective", lambda *_: stack)  # no field: settings and identity stay the method's
    try:
        answer = fitted(noisy, replace(alone[0], watch=watch))
    except Diverged as error:
        return [error] * len(noisy)
    cleans = [None] * len(noisy) if clean is None else clean.split(1)
    return [_own(method, answer.history, *one) for one in zip(answer.estimate.split(1), zip(*losses), cleans)]


def _own(method, entries: list[dict], estimate: Tensor, losses: tuple[float, ...], clean: Tensor | None):
    """One picture's part of a stack's answer, or its :class:`~b2g.errors.Diverged`."""
    history = [{**entry, "loss": loss} for entry, loss in zip(entries, losses, strict=True)]
    if not all(map(math.isfinite, losses)) or not bool(estimate.isfinite().all()):
        return Diverged(f"{method.name} diverged: its loss is {losses[-1]}; lower learning_rate or use float32.")
    if clean is not None:
        history[-1]["psnr"] = psnr(clean, estimate)
    return Denoised(estimate, history)
