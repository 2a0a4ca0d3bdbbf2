"""The engine: fit a network to what an objective asks, keep a running average, log, stop,
resume (Algorithm 1).

It knows nothing of masks or pictures: an *objective* does. Every fitted method uses this one loop, and on a
GPU it replays the step as a CUDA graph (:mod:`b2g.capture`).
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Protocol

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from b2g.capture import choose_steps
from b2g.errors import B2GError, Diverged
from b2g.files import replacing
from b2g.metrics import psnr

SCHEDULES = ("constant", "cosine", "halve")


@dataclass(frozen=True)
class Schedule:
    """How long and how fast: ``steps`` of Adam at ``learning_rate``.

    ``decay``: ``"constant"``; ``"cosine"`` from the rate to 0 over the last ``1 - decay_from`` of the steps;
    ``"halve"`` multiplies by 0.5 at ``decay_from`` and, with more ``halvings``, at as many multiples of it.
    """

    steps: int
    learning_rate: float
    decay: str = "constant"
    decay_from: float = 0.0
    halvings: int = 1

    def __post_init__(self):
        if self.steps < 1:
            raise B2GError(f"steps must be at least 1, not {self.steps}.")
        if not 0 < self.learning_rate < math.inf:
            raise B2GError(f"learning_rate must be positive, not {self.learning_rate}.")
        if self.decay not in SCHEDULES:
            raise B2GError(f"decay must be one of {', '.join(SCHEDULES)}, not {self.decay!r}.")
        if not 0.0 <= self.decay_from <= 1.0:
            raise B2GError(f"decay_from is a share of the steps and must lie in [0, 1], not {self.decay_from}.")
        if self.halvings < 1:
            raise B2GError(f"halvings must be at least 1, not {self.halvings}.")

    def factor(self, step: int) -> float:
        """The multiple of ``learning_rate`` used at ``step`` (from 0)."""
        start = self.decay_from * self.steps
        if self.decay == "constant" or step < start:
            return 1.0
        if self.decay == "halve":
            return 0.5 ** min(self.halvings, int(step / start) if start else self.halvings)
        return 0.5 * (1 + math.cos(math.pi * (step - start) / max(1.0, self.steps - start)))


class Objective(Protocol):
    """What a method minimises. ``state`` and ``load_state`` serve checkpoints (tensors and numbers only).

    An objective with ``capturable = True`` states that all its steps are alike: the same kernels whatever
    ``step`` is, nothing that the host waits for, chance from its ``generator`` (or ``generators``) alone, and
    no tensor carried over from the step before, unless it is changed in place. Only such steps can be a CUDA
    graph.
    """

    network: nn.Module

    def loss(self, step: int) -> tuple[Tensor, Tensor | None]:
        """The loss of this step (scalar) and, if it is worth averaging,
        the step's estimate ``(B, C, H, W)``."""

    def state(self) -> dict: ...

    def load_state(self, state: dict) -> None: ...


class RunningAverage:
    """Exponential mean of pictures with the start's bias removed: after k pictures the weights sum to 1."""

    def __init__(self, decay: float):
        if not 0.0 <= decay < 1.0:
            raise B2GError(f"the running average's decay must lie in [0, 1), not {decay}.")
        self.decay, self.sum, self.weight = decay, None, 0.0

    def add(self, picture: Tensor) -> None:
        self.blend(picture)
        self.count()

    def blend(self, picture: Tensor) -> None:
        """The device's half of ``add``, in place from the second picture on: a CUDA graph repeats it."""
        share = 1.0 - self.decay
        self.sum = share * picture if self.sum is None else self.sum.lerp_(picture, share)

    def count(self) -> None:
        """The host's half of ``add``."""
        self.weight += (1.0 - self.decay) * (1.0 - self.weight)

    @property
    def value(self) -> Tensor | None:
        return None if self.sum is None else self.sum / self.weight


@dataclass
class Fit:
    """What a fit leaves: the running average of the estimates (if any was given) and the history.

    ``engine`` tells how the steps were taken, ``"graph"`` or ``"eager"``,
    and why where a graph was wished in vain.
    """

    average: Tensor | None
    history: list[dict]
    seconds: float
    engine: str = "eager"


def autocast(device: torch.device, precision: str):
    """Mixed precision: ``"auto"`` is bfloat16 where the machine computes in it, else float32."""
    if precision not in ("auto", "float32", "bfloat16"):
        raise B2GError(f"precision must be 'auto', 'float32' or 'bfloat16', not {precision!r}.")
    if precision == "auto":
        if device.type == "cuda":
            # An older GPU emulates bfloat16, slower than float32.
            able = torch.cuda.is_bf16_supported(including_emulation=False)
        else:
            able = device.type == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported()
        precision = "bfloat16" if able else "float32"
    # A weight is used once a pass, so a cache of rounded weights would save nothing,
    # and no CUDA graph may keep one.
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16", cache_enabled=False)


def build(make: Callable[[], nn.Module], seed: int, device: torch.device) -> nn.Module:
    """A network with initial weights from ``seed``, equal on every device;
    no global stream is touched."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed those of all devices
        network = make()
    return network.to(device=device, dtype=torch.float32, memory_format=torch.channels_last)


def fit(
    objective: Objective,
    schedule: Schedule,
    *,
    average: float | RunningAverage | None = None,
    clean: Tensor | None = None,
    progress: bool = False,
    label: str = "fit",
    log_every: int | None = None,
    watch: Callable[[Objective, int], dict[str, float]] | None = None,
    checkpoint: Path | None = None,
    identity: str = "",
    engine: str = "auto",
    stop: Callable[[int], bool] | None = None,
    forget: bool = True,
) -> Fit:
    """Minimise ``objective`` by Adam over ``schedule`` and return the running average and the history.

    ``average`` is the decay of the running mean of the objective's estimates, or a mean of the objective's
    own kind (:class:`b2g.window.Canvas`), or None: no mean is kept. ``clean`` is used for the shown PSNR
    only. ``watch`` is called with the objective and the number of steps done at every entry of the history
    (every ``log_every`` steps and at the end), which takes up its numbers. A ``checkpoint`` is written about
    once a minute and read at the start if its ``identity`` is this run's; it is removed at the end.
    ``forget``: remove the checkpoint at the end; False leaves that to a caller who has yet to keep the result.
    ``engine``: see :func:`b2g.capture.choose_steps`. Raises :class:`~b2g.errors.Diverged` when the loss stops
    being finite.

    A GPU is waited for where the history gets an entry, and nowhere else: the loss is read there and then. A
    delayed read would spare one launch in ``log_every`` steps, and make the entry's time that of a step not
    yet taken.
    """
    if checkpoint is not None:
        _check_place(Path(checkpoint))
    optimiser = torch.optim.Adam(objective.network.parameters(), schedule.learning_rate, fused=True)
    mean = RunningAverage(average) if isinstance(average, (int, float)) else average
    history: list[dict] = []
    log_every = log_every or max(1, schedule.steps // 100)
    start, spent = 0, 0.0
    if checkpoint is not None and Path(checkpoint).exists():
        start, spent = _resume(Path(checkpoint), identity, objective, optimiser, mean, history)
    take = choose_steps(engine, objective, optimiser, mean)
    began = saved = time.perf_counter()
    bar = tqdm(total=schedule.steps, initial=start, desc=label, disable=None if progress else True, leave=False)
    with bar:
        for step in range(start, schedule.steps):
            loss, estimate = take(step, schedule.learning_rate * schedule.factor(step))
            last = step + 1 == schedule.steps or (stop is not None and stop(step + 1))
            if (step + 1) % log_every == 0 or last:
                seconds = spent + time.perf_counter() - began
                shown = mean.value if mean is not None else estimate
                history.append(_entry(step + 1, loss, shown, clean, seconds, label))
                if watch is not None:
                    with torch.no_grad():
                        history[-1] = {**watch(objective, step + 1), **history[-1]}
                if take.engine not in ("eager", "graph"):
                    bar.set_description_str(f"{label} ({take.engine})", refresh=False)
                bar.set_postfix({k: f"{v:.4g}" for k, v in history[-1].items() if k in ("loss", "psnr")}, refresh=False)
            bar.update(1)
            if last:
                break
            if checkpoint is not None and time.perf_counter() - saved > 60:
                seconds, saved = spent + time.perf_counter() - began, time.perf_counter()
                _save(Path(checkpoint), identity, step + 1, seconds, objective, optimiser, mean, history)
    if checkpoint is not None and forget:
        Path(checkpoint).unlink(missing_ok=True)
    return Fit(None if mean is None else mean.value, history, spent + time.perf_counter() - began, take.engine)


def _entry(step: int, loss: Tensor, shown: Tensor | None, clean: Tensor | None, seconds: float, label: str) -> dict:
    value = float(loss)
    if not math.isfinite(value):
        raise Diverged(f"{label} diverged: its loss is {value} at step {step}; lower learning_rate or use float32.")
    entry = {"step": step, "loss": value, "seconds": seconds}
    if clean is not None and shown is not None:
        entry["psnr"] = psnr(clean, shown)
    return entry


def mean_of_passes(predict: Callable[[], Tensor], passes: int, progress: bool = False) -> Tensor:
    """The mean of ``passes`` stochastic predictions ("calling it 40 times", read as in Self2Self)."""
    if passes < 1:
        raise B2GError(f"passes must be at least 1, not {passes}.")
    total = None
    with torch.no_grad():
        for _ in tqdm(range(passes), desc="passes", disable=None if progress else True, leave=False):
            answer = predict()
            total = answer if total is None else total + answer
    return total / passes


def _check_place(path: Path) -> None:
    """Refuse before the first step what would fail a minute later."""
    if path.is_dir():
        raise B2GError(f"checkpoint {path} is a folder; name a file in it.")
    if not path.parent.is_dir():
        raise B2GError(f"checkpoint {path} cannot be written: its folder does not exist; create it first.")


def _save(path: Path, identity: str, step: int, seconds: float, objective, optimiser, mean, history) -> None:
    content = {
        "identity": identity,
        "step": step,
        "seconds": seconds,
        "network": objective.network.state_dict(),
        "optimiser": optimiser.state_dict(),
        "objective": objective.state(),
        "mean": None if mean is None else (mean.sum, mean.weight),
        "history": history,
    }
    with replacing(path) as file:
        torch.save(content, file)


def _resume(path: Path, identity: str, objective, optimiser, mean, history) -> tuple[int, float]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        found = content["identity"]
    except Exception as error:
        raise B2GError(f"{path} is not a checkpoint of a fit; remove it or name another file.") from error
    if found != identity:
        raise B2GError(f"{path} belongs to another run (other picture, method, settings or seed); name another file.")
    objective.network.load_state_dict(content["network"])
    optimiser.load_state_dict(content["optimiser"])
    objective.load_state(content["objective"])
    if mean is not None:
        device = next(objective.network.parameters()).device
        mean.sum, mean.weight = (
            part.to(device) if isinstance(part, Tensor) else part for part in content["mean"]
        )
    history.extend(content["history"])
    return content["step"], content["seconds"]
