"""How the engine takes its steps: launched by the host one kernel at a time, or replayed as one CUDA graph.

A step on a small picture is some hundreds of short kernels, and launching them takes the host longer than a
fast GPU needs to run them. A CUDA graph is the whole step recorded once (loss, gradients, Adam, running
average, and the masks, drawn inside from the objective's own generator), then launched by one call. What is
recorded reads and writes the same memory at every replay, so whatever changes from step to step must lie in
tensors: the learning rate does.

Source: PyTorch's documentation, "CUDA Graphs", whole-network capture; ``torch.cuda.CUDAGraph``.
"""

from __future__ import annotations

from contextlib import contextmanager

import torch
from torch import Tensor

from b2g.errors import B2GError

ENGINES = ("auto", "eager", "graph")
WARM_UP = 3  # steps before the recording, on its stream: libraries choose their kernels and Adam makes its state


class EagerSteps:
    """One step after another, every kernel launched by the host.

    ``objective`` and ``mean`` as in :func:`b2g.fit.fit`. A call takes a step at the given learning rate and
    returns its loss, a tensor ``()``, and its estimate. ``engine`` says how the steps are taken, and why if
    that was not wished.
    """

    def __init__(self, objective, optimiser, mean, engine: str = "eager"):
        self.objective, self.optimiser, self.mean, self.engine = objective, optimiser, mean, engine

    def __call__(self, step: int, rate: float) -> tuple[Tensor, Tensor | None]:
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        return self._counted(self._work(step))

    def _work(self, step: int) -> tuple[Tensor, Tensor | None]:
        """All of a step that runs on the device."""
        loss, estimate = self.objective.loss(step)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        if self.mean is not None and estimate is not None:
            self.mean.blend(estimate)
        return loss.detach(), estimate

    def _counted(self, result: tuple[Tensor, Tensor | None]) -> tuple[Tensor, Tensor | None]:
        """The part of the running average that lives on the host."""
        if self.mean is not None and result[1] is not None:
            self.mean.count()
        return result


class GraphSteps(EagerSteps):
    """The same steps from a CUDA graph, for an objective whose steps are all alike (``capturable``).

    The first three steps are ordinary ones on the stream of the recording; the last of them runs while
    PyTorch refuses whatever makes the host wait, which a recording could not bear. A step that fails there,
    or in the recording, is taken back and the fit goes on eagerly (``strict``: a :class:`B2GError` instead).

    The loss and the estimate that a call returns are overwritten by the next call.
    """

    def __init__(self, objective, optimiser, mean, *, strict: bool = False, cuda=torch.cuda):
        super().__init__(objective, optimiser, mean, "graph")
        self.strict, self.cuda = strict, cuda
        self.device = next(objective.network.parameters()).device
        self.rate = torch.zeros((), device=self.device)
        self.filled: float | None = None
        for group in optimiser.param_groups:
            # Adam warns of steps that are capturable and not captured, so only the recorded one is.
            group["lr"], group["capturable"] = self.rate, False
        self.warm = 0
        self.stream = self.graph = self.result = None

    def __call__(self, step: int, rate: float) -> tuple[Tensor, Tensor | None]:
        if rate != self.filled:
            self.rate.fill_(rate)
            self.filled = rate
        if self.engine == "graph" and self.result is None:
            self._prepare(step)
        if self.engine != "graph":
            return self._counted(self._work(step))
        if self.result is None:
            return self._counted(self.done)
        self.graph.replay()
        return self._counted(self.result)

    def _prepare(self, step: int) -> None:
        """Take a warm-up step, or record; on failure leave the objective as it was and the engine eager."""
        before = self.objective.state()
        spare = [(one, one.clone_state()) for one in generators(self.objective) if one.device.type == "cuda"]
        try:
            if self.warm < WARM_UP:
                self._warm_up(step)
            else:
                self._record(step)
        except RuntimeError as error:
            # A recording that broke off may leave its generators unusable outside of it:
            # give them the state of before.
            for generator, state in spare:
                generator.graphsafe_set_state(state)
            self.objective.load_state(before)
            self.result, self.engine = None, f"eager, since no graph could be made: {_one_line(error)}"
            if self.strict:
                raise B2GError(f"engine='graph' failed ({_one_line(error)}); use engine='auto'.") from error

    def _warm_up(self, step: int) -> None:
        if self.stream is None:
            self.stream = self.cuda.Stream(self.device)
        with self._aside(), self._unwaiting(self.warm == WARM_UP - 1):
            self.done = self._work(step)
        self.warm += 1

    def _record(self, step: int) -> None:
        self.graph = self.cuda.CUDAGraph()  # kept if the recording fails: its memory may still be referred to
        for generator in generators(self.objective):
            self.graph.register_generator_state(generator)
        self.optimiser.zero_grad(set_to_none=True)  # the gradients are to be the graph's own
        self._capturable(True)
        try:
            with self._aside(), self.cuda.graph(self.graph, stream=self.stream):
                result = self._work(step)
        finally:
            self._capturable(False)
        self.result = result

    def _capturable(self, is_so: bool) -> None:
        for group in self.optimiser.param_groups:
            group["capturable"] = is_so

    @contextmanager
    def _aside(self):
        """Work on the stream of the recording, in its turn with the present one."""
        present = self.cuda.current_stream(self.device)
        self.stream.wait_stream(present)
        try:
            with self.cuda.stream(self.stream):
                yield
        finally:
            present.wait_stream(self.stream)

    @contextmanager
    def _unwaiting(self, strictly: bool):
        """Let what makes the host wait for the GPU be an error."""
        before = self.cuda.get_sync_debug_mode()
        self.cuda.set_sync_debug_mode("error" if strictly else before)
        try:
            yield
        finally:
            self.cuda.set_sync_debug_mode(before)


def generators(objective) -> list[torch.Generator]:
    """The generators that an objective's steps draw from: its ``generators``, or its one ``generator``,
    if any."""
    several = getattr(objective, "generators", None)
    if several is not None:
        return list(several)
    single = getattr(objective, "generator", None)
    return [] if single is None else [single]


def choose_steps(engine: str, objective, optimiser, mean) -> EagerSteps:
    """The engine called ``engine``: ``"graph"``, ``"eager"``, or ``"auto"``,
    which is a graph wherever one can be."""
    device = next(objective.network.parameters()).device
    check_engine(engine, device)
    alike = getattr(objective, "capturable", False)
    if engine == "graph" and not alike:
        raise B2GError("engine='graph' needs steps that are all alike, and these settings' are not; use engine='auto'.")
    if engine == "eager" or device.type != "cuda":
        return EagerSteps(objective, optimiser, mean)
    if not alike:
        return EagerSteps(objective, optimiser, mean, "eager, since the steps are not all alike")
    return GraphSteps(objective, optimiser, mean, strict=engine == "graph")


def check_engine(engine: str, device: torch.device) -> None:
    """Refuse an engine that there is not, or not on this device."""
    if engine not in ENGINES:
        raise B2GError(f"engine must be one of {', '.join(ENGINES)}, not {engine!r}.")
    if engine == "graph" and device.type != "cuda":
        raise B2GError(f"engine='graph' needs a CUDA device and this fit is on {device}; use engine='auto'.")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:160]
