"""A stand-in for the CUDA graph on the CPU: it records the operations of a block and
repeats them into the same memory.

What it shares with the real one, so that a step which would go wrong there goes wrong here: nothing that a
recording does to earlier tensors or to registered generators has happened when it ends, its results hold no
numbers before the first replay, a generator that was not registered and a value that the host waits for are
refused, a number that was plain at the time of the recording stays what it was, and Adam must be capturable
exactly while it is recorded.
"""

from contextlib import contextmanager, nullcontext

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

WAITS = (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)


def written(func, args, kwargs):
    """The tensors that an operation changes in place."""
    for index, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = args[index] if index < len(args) else kwargs.get(argument.name)
            yield from (leaf for leaf in tree_leaves(value) if isinstance(leaf, torch.Tensor))


class Unwaiting(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func in WAITS:
            raise RuntimeError("called a synchronizing CUDA operation")
        return func(*args, **(kwargs or {}))


class Recorder(TorchDispatchMode):
    def __init__(self, graph):
        super().__init__()
        self.graph, self.ours, self.before = graph, set(), {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func.namespace == "profiler":
            return func(*args, **kwargs)
        if func in WAITS:
            raise RuntimeError("operation not permitted when stream is capturing")
        generator = kwargs.get("generator")
        if generator is not None and generator._cdata not in [known._cdata for known in self.graph.generators]:
            raise RuntimeError("a generator that was not registered with the graph")
        changed = list(written(func, args, kwargs))
        for tensor in changed:
            if tensor.untyped_storage()._cdata not in self.ours:
                self.before.setdefault(id(tensor), (tensor, tensor.clone()))
        given = {leaf.untyped_storage()._cdata for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)}
        out = func(*args, **kwargs)
        fresh = [leaf for leaf in tree_leaves(out)
                 if isinstance(leaf, torch.Tensor) and leaf.untyped_storage()._cdata not in given]
        self.ours |= {leaf.untyped_storage()._cdata for leaf in fresh}
        if fresh or changed:  # a view needs no repeating
            self.graph.operations.append((func, args, kwargs, out, fresh))
        return out


class Graph:
    def __init__(self):
        self.generators, self.operations, self.replays = [], [], 0

    def register_generator_state(self, generator):
        self.generators.append(generator)

    def replay(self):
        self.replays += 1
        with torch.no_grad():
            for func, args, kwargs, out, fresh in self.operations:
                again = func(*args, **kwargs)
                if fresh:
                    for old, new in zip(tree_leaves(out), tree_leaves(again)):
                        if isinstance(old, torch.Tensor):  # no gradient may have been asked for
                            old.copy_(new)


class Stream:
    def __init__(self, device=None):
        self.waited = []

    def wait_stream(self, other):
        self.waited.append(other)


class Tape:
    """As much of ``torch.cuda`` as the engine uses. ``breaks``: the recording fails at its end,
    as on a GPU it may."""

    Stream = Stream

    def __init__(self, optimiser=None, breaks=False):
        self.optimiser, self.breaks, self.graphs, self.mode, self.open = optimiser, breaks, [], 0, nullcontext()
        self.present = Stream()

    def CUDAGraph(self):
        self.graphs.append(Graph())
        return self.graphs[-1]

    def current_stream(self, device=None):
        return self.present

    def stream(self, stream):
        return nullcontext()

    def get_sync_debug_mode(self):
        return self.mode

    def set_sync_debug_mode(self, mode):
        self.open.__exit__(None, None, None)
        self.mode, self.open = mode, Unwaiting() if mode == "error" else nullcontext()
        self.open.__enter__()

    @contextmanager
    def graph(self, graph, stream=None):
        assert isinstance(stream, Stream) and stream.waited == [self.present] * len(stream.waited)
        assert all(group["capturable"] for group in self.optimiser.param_groups)
        states, recorder = [generator.get_state() for generator in graph.generators], Recorder(graph)
        try:
            with recorder:
                yield
        finally:
            with torch.no_grad():
                for tensor, before in recorder.before.values():
                    tensor.copy_(before)
                for *_, fresh in graph.operations:
                    for tensor in fresh:
                        if tensor.is_floating_point():
                            tensor.fill_(float("nan"))
            for generator, state in zip(graph.generators, states):
                generator.set_state(state)
        if self.breaks:
            raise torch.cuda.OutOfMemoryError("out of memory\n  while recording")
