"""The floor of a piece of work: what its arithmetic and its memory traffic take at the
machine's own ceilings.

Every operation that PyTorch dispatches is counted as it runs: its floating-point operations (of convolutions
and matrix products; those of pointwise operations are beneath notice beside their traffic) and its bytes. An
operation takes at least the larger of operations / peak and bytes / bandwidth (the roofline: Williams,
Waterman and Patterson, Communications of the ACM 52(4), 2009, doi 10.1145/1498765.1498785); the floor of the
work is the sum.

Bytes as written: every operand is read once and every result written once, of each operation by itself. A
view moves nothing; what is repeated by a stride of 0 is read once. Fused: only convolutions, matrix products
and updates of what outlives the work (weights, Adam's moments, running averages) move anything, all else
being done on the way. Once: every tensor of the work moves once, whether it is read or written. Bandwidth is
that of main memory, so work that stays in a cache can be faster than its floor.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from b2g.capture import WARM_UP, choose_steps
from b2g.errors import B2GError
from b2g.fit import RunningAverage
from b2g.method import Circumstances, Method
from b2g.window import Canvas, Part

# Their result is only set aside, or their target only written.
_IDLE = ("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided")
_WRITE_ONLY = ("zero_", "fill_", "copy_", "uniform_", "normal_", "random_", "bernoulli_")


@dataclass(frozen=True)
class Operation:
    """One dispatched operation. ``lasting``: it has matrix arithmetic,
    or changes what was there before the work."""

    name: str
    flops: int
    bytes: int
    precision: str
    lasting: bool


@dataclass(frozen=True)
class Work:
    """All operations of a piece of work in their order, and ``once``: the bytes of its distinct tensors."""

    operations: tuple[Operation, ...]
    once: int

    @property
    def flops(self) -> int:
        return sum(operation.flops for operation in self.operations)

    @property
    def bytes(self) -> int:
        """As written: see the module."""
        return sum(operation.bytes for operation in self.operations)

    @property
    def fused(self) -> "Work":
        """The same work with all that can be done on the way left out."""
        return Work(tuple(operation for operation in self.operations if operation.lasting), self.once)


@dataclass(frozen=True)
class Ceilings:
    """What a device was seen to reach: operations per second by precision, and bytes per second."""

    flops: dict[str, float]
    bandwidth: float

    def seconds(self, operation: Operation) -> float:
        """The least time of one operation."""
        peak = self.flops.get(operation.precision, self.flops["float32"])
        return max(operation.flops / peak, operation.bytes / self.bandwidth)

    def floor(self, work: Work) -> float:
        """The least time of the work, one operation after another, in seconds."""
        return sum(self.seconds(operation) for operation in work.operations)


def count(work: Callable[[], object]) -> Work:
    """Do ``work`` once and count what it did, gradients included."""
    with _Counter() as counter:
        work()
    return Work(tuple(counter.operations), counter.once)


class _Counter(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.operations: list[Operation] = []
        self.once, self.made, self.known = 0, set(), set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if func.namespace != "profiler":
            self._count(func, args, kwargs, out)
        return out

    def _count(self, func, args, kwargs, out) -> None:
        name = func._overloadpacket.__name__
        operands, results = _distinct((args, kwargs)), _distinct(out)
        changed = list(_changed(func, args, kwargs))
        ours = {_storage(tensor) for tensor in operands}
        fresh = [tensor for tensor in results if _storage(tensor) not in ours]
        self._remember(operands, fresh)
        if name in _IDLE or not (fresh or changed or not results):
            return
        written = sum(map(touched, [*fresh, *changed]))
        read = sum(map(touched, operands)) - (sum(map(touched, changed)) if name in _WRITE_ONLY else 0)
        formula = flop_registry.get(func._overloadpacket)
        flops = 0 if formula is None else int(formula(*args, **kwargs, out_val=out))
        lasting = flops > 0 or any(_storage(tensor) in self.known for tensor in changed)
        self.operations.append(Operation(name, flops, read + written, _precision(operands or results), lasting))

    def _remember(self, operands: list[Tensor], fresh: list[Tensor]) -> None:
        """Which tensors the work made and which it found;
        a freed one's place may be taken by another it makes."""
        for tensor in operands:
            if _storage(tensor) not in self.made | self.known:
                self.known.add(_storage(tensor))
                self.once += touched(tensor)
        for tensor in fresh:
            self.known.discard(_storage(tensor))
            self.made.add(_storage(tensor))
            self.once += touched(tensor)


def touched(tensor: Tensor) -> int:
    """The bytes of a tensor's distinct elements."""
    elements = 0 if tensor.numel() == 0 else 1
    for size, stride in zip(tensor.shape, tensor.stride()):
        elements *= size if stride else 1
    return elements * tensor.element_size()


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _distinct(tree) -> list[Tensor]:
    """The tensors in a tree of arguments, each once."""
    found = {}
    for leaf in tree_leaves(tree):
        if isinstance(leaf, Tensor):
            found[_storage(leaf), leaf.storage_offset(), leaf.shape, leaf.stride()] = leaf
    return list(found.values())


def _changed(func, args, kwargs):
    """The tensors that an operation changes in place."""
    for index, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            yield from _distinct(args[index] if index < len(args) else kwargs.get(argument.name))


def _precision(tensors: list[Tensor]) -> str:
    kinds = [tensor.dtype for tensor in tensors if tensor.is_floating_point()]
    return str(kinds[0]).removeprefix("torch.") if kinds else "float32"


def seconds_of(call: Callable[[], object], device: torch.device, *, least: float = 0.5, rounds: int = 5) -> float:
    """Seconds of one call: the fastest of ``rounds`` rounds,
    of so many calls that all last about ``least`` seconds."""
    call()
    once = _timed(call, 1, device)
    calls = max(1, round(least / rounds / max(once, 1e-7)))
    return min(_timed(call, calls, device) for _ in range(rounds)) / calls


def _timed(call: Callable[[], object], calls: int, device: torch.device) -> float:
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda device: None
    wait(device)
    began = time.perf_counter()
    for _ in range(calls):
        call()
    wait(device)
    return time.perf_counter() - began


def measure_ceilings(
    device: torch.device,
    precisions: tuple[str, ...] = ("float32", "bfloat16"),
    *,
    side: int | None = None,
    elements: int | None = None,
    least: float = 0.5,
) -> Ceilings:
    """Measure a device: the faster of a large matrix product and a wide convolution;
    the better of a copy and a triad.

    ``side`` of the matrices (8192 on a GPU, 1024 on a CPU), ``elements`` of the float32 arrays moved (2^28,
    2^24).
    """
    gpu = device.type == "cuda"
    side, elements = side or (8192 if gpu else 1024), elements or (1 << (28 if gpu else 24))
    flops = {name: max(_product(device, name, side, least), _convolution(device, name, side, least))
             for name in {"float32", *precisions}}
    return Ceilings(flops, _bandwidth(device, elements, least))


def _product(device, precision: str, side: int, least: float) -> float:
    one, other = (torch.randn(side, side, device=device).to(getattr(torch, precision)) for _ in range(2))
    return 2 * side**3 / seconds_of(lambda: one @ other, device, least=least)


def _convolution(device, precision: str, side: int, least: float) -> float:
    """256 channels to 256, channels last, on a picture that holds as much work as the matrix product."""
    channels = 256 if side >= 512 else 16
    rows = max(8, round((side**3 / (9 * channels**2)) ** 0.5))
    how = dict(dtype=getattr(torch, precision), memory_format=torch.channels_last)
    picture = torch.randn(1, channels, rows, rows, device=device).to(**how)
    weight = torch.randn(channels, channels, 3, 3, device=device).to(**how)
    with torch.no_grad():
        seconds = seconds_of(lambda: F.conv2d(picture, weight, padding=1), device, least=least)
    return 2 * 9 * channels**2 * rows**2 / seconds


def _bandwidth(device, elements: int, least: float) -> float:
    one, other, third = (torch.ones(elements, device=device) for _ in range(3))
    copied = 2 * one.nbytes / seconds_of(lambda: one.copy_(other), device, least=least)
    triad = 3 * one.nbytes / seconds_of(lambda: torch.add(one, other, alpha=0.5, out=third), device, least=least)
    return max(copied, triad)


@dataclass(frozen=True)
class StepCost:
    """One optimiser step on a picture: what it does, how long it takes in seconds, and by which engine."""

    work: Work
    seconds: float
    engine: str


def measure_step(
    method: Method, size: int, circumstances: Circumstances = Circumstances(), *, channels: int = 3, least: float = 1.0
) -> StepCost:
    """Count and time a step of ``method`` (one that has an ``objective``) on
    ``size x size`` pixels of plain chance."""
    if not hasattr(method, "objective"):
        raise B2GError(f"{method.name} does not show its steps, so they cannot be counted; choose b2g.")
    take = _stepper(method, size, circumstances, channels, "eager")
    take()  # makes Adam's moments, which is no part of a step
    work = count(take)
    del take
    take, device = _stepper(method, size, circumstances, channels, circumstances.engine), circumstances.device
    for _ in range(WARM_UP + 1):
        take()
    seconds = seconds_of(take, device, least=least)
    return StepCost(work, seconds, take.steps.engine)


def _stepper(method: Method, size: int, circumstances: Circumstances, channels: int, engine: str):
    """A call that takes the next step; its attribute ``steps`` is the engine."""
    picture = torch.rand(1, channels, size, size, generator=torch.Generator().manual_seed(0))
    objective = method.objective(picture.to(circumstances.device), circumstances)  # a patch-based pilot is no step
    optimiser = torch.optim.Adam(objective.network.parameters(), method.learning_rate, fused=True)
    steps = choose_steps(engine, objective, optimiser, _mean_for(objective))
    number = itertools.count()

    def take():
        return steps(next(number), method.learning_rate)

    take.steps = steps
    return take


def _mean_for(objective) -> RunningAverage | Canvas:
    """The running average that the objective's estimates go to: of pictures, or of windows."""
    with torch.no_grad():
        _, estimate = objective.loss(0)
    return Canvas(objective.noisy, 0.99) if isinstance(estimate, Part) else RunningAverage(0.99)
