"""Sweeps on a Ray cluster: one machine or many, with GPUs or without.

Needs ``pip install 'b2g[ray]'``, and this package on every node of a cluster that is joined. A run is one Ray task on one
CPU, and on a share of a GPU where the cluster has GPUs. The driver alone writes the store.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path

from b2g.errors import B2GError
from b2g.runs.engine import Engine
from b2g.runs.plan import Task
from b2g.runs.work import Outcome, carry_out, failed

RETRIES = 3  # of a run whose worker or node was lost
AHEAD = 2  # tasks in flight for each slot, so that a worker finds its next run at hand
LEAST = 8  # tasks in flight at least: a cluster that grows on demand must see a demand
PERIOD = 10.0  # seconds after which the size of the cluster is looked at again
OBJECT_STORE = 128 * 2**20  # bytes for outcomes on their way; Ray would take a third of the memory
FOLDERS = "B2G_DATA_MIRROR", "B2G_CACHE"  # environment that goes along to the workers


def on_ray(
    precision: str = "auto",
    address: str | None = None,
    gpus: float | None = None,
    work: Callable[..., Outcome] = carry_out,
) -> Engine:
    """An engine on the cluster at ``address``, or without one on a cluster of this machine's own for the sweep.

    ``gpus`` is the share of a GPU that a run takes: 0.25 lets four runs share one. By default 1 where the cluster has
    GPUs, else 0, the CPU. A run whose worker or node is lost is tried again ``RETRIES`` times, then recorded as killed. The
    environment's RAY_ADDRESS stands for ``address``; in a program that has called ``ray.init`` its cluster is used, and
    left as it is. ``work`` is what a worker calls, with the arguments of :func:`b2g.runs.work.carry_out`.

    Raises
    ------
    B2GError
        Where Ray is missing, the cluster cannot be joined, has no GPU to share, or a node of it lacks this package.
    """
    os.environ.setdefault("RAY_task_oom_retries", str(RETRIES))  # Ray's own: for ever; read when Ray is imported
    _ray()
    if gpus is not None and not 0 <= gpus <= 1:
        raise B2GError(f"gpus is the share of one GPU that a run takes, from 0 to 1, not {gpus:g}.")
    return lambda tasks: _on_cluster(tasks, precision, address, gpus, work)


def _ray():
    try:
        import ray
    except ImportError as error:
        raise B2GError("the engine 'ray' needs Ray: pip install 'b2g[ray]'.") from error
    return ray


def _on_cluster(tasks: Iterable[Task], precision: str, address, gpus, work) -> Iterator[Outcome]:
    """Keep the cluster supplied, and yield outcomes as they end."""
    ray, waiting, running = _ray(), iter(tasks), {}
    with _connected(address):
        share = _share(gpus)
        device = "cuda" if share else "cpu"
        start = _remote(work, share, device, precision)
        limit, due = 0, 0.0
        try:
            while True:
                if time.monotonic() >= due:
                    limit, due = max(LEAST, AHEAD * _slots(share)), time.monotonic() + PERIOD
                running |= {start(task): task for task in islice(waiting, max(0, limit - len(running)))}
                if not running:
                    return
                for ended in ray.wait(list(running), timeout=PERIOD)[0]:
                    yield _outcome(ended, running.pop(ended), device)
        finally:
            for reference in running:
                ray.cancel(reference, force=True)


@contextmanager
def _connected(address: str | None):
    """Inside, this process belongs to a cluster: its caller's, the one at ``address``, or one that ends with the block."""
    ray = _ray()
    address = address or os.environ.get("RAY_ADDRESS")
    if address is None and ray.is_initialized():
        yield
        return
    own = {} if address else {"include_dashboard": False, "object_store_memory": OBJECT_STORE}
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a sweep reports to nobody
    try:
        ray.init(address or "local", log_to_driver=False, logging_level="ERROR", **own)
    except (OSError, RuntimeError, ValueError) as error:
        what = f"the Ray cluster at {address} cannot be joined" if address else "no Ray cluster can be started here"
        raise B2GError(f"{what} ({_first_line(error)}).") from error
    try:
        yield
    finally:
        ray.shutdown()


def _share(gpus: float | None) -> float:
    """The share of a GPU for each run. A cluster of several machines may grow one later, a single machine does not."""
    ray = _ray()
    has_gpus = ray.cluster_resources().get("GPU", 0) > 0
    if gpus is None:
        return 1 if has_gpus else 0
    if gpus and not has_gpus and len(ray.nodes()) == 1:
        raise B2GError(f"a share of {gpus:g} GPU was asked for each run, but this cluster has no GPU; leave gpus out.")
    return gpus


def _slots(share: float) -> int:
    """How many runs the cluster can carry out at once, as it is now."""
    have = _ray().cluster_resources()
    cpus = have.get("CPU", 0)
    return int(min(cpus, have.get("GPU", 0) / share) if share else cpus)


def _remote(work, share: float, device: str, precision: str):
    """What starts a task. A worker with a GPU is used once, by Ray's default, since it cannot move to another GPU."""
    folders = {name: str(Path(os.environ[name]).expanduser().absolute()) for name in FOLDERS if os.environ.get(name)}
    environment = {"runtime_env": {"env_vars": folders}} if folders else {}

    def on_a_worker(task: Task) -> Outcome:  # sent as code, since it is local; `work` is found by name in b2g there
        return work(task.run, task.keep, device, precision, 1)

    return _ray().remote(num_cpus=1, num_gpus=share, max_retries=RETRIES, **environment)(on_a_worker).remote


def _outcome(reference, task: Task, device: str) -> Outcome:
    """What came of a task. `carry_out` raises nothing, so an error here tells of workers and nodes."""
    ray = _ray()
    errors = ray.exceptions
    try:
        return ray.get(reference)
    except errors.RayTaskError as error:
        if isinstance(error.cause, ImportError):
            raise B2GError(f"the node {error.ip} of the Ray cluster cannot run b2g ({_first_line(error.cause)}); "
                           "install this package on every node.") from error
        state, reason = "failed", f"{type(error.cause).__name__}: {error.cause}"
    except errors.OutOfMemoryError as error:
        state, reason = "out of memory", _first_line(error)
    except errors.WorkerCrashedError:
        state, reason = "killed", f"its worker process died on each of {RETRIES + 1} tries"
    except errors.RayError as error:
        state, reason = "killed", f"{type(error).__name__}: {_first_line(error)}"
    outcome = failed(task.run, state, reason, device)
    return replace(outcome, record=replace(outcome.record, machine=""))  # it ran elsewhere, nobody knows where


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
