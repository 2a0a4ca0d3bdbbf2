"""Sweeps on a Ray cluster: one machine or many, with GPUs or without.

Needs ``pip install 'b2g[ray]'``, and this package on every node of a cluster that is joined. A run is one Ray
task on one CPU, and on a share of a GPU where the cluster has GPUs. The driver alone writes the store.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path

from b2g.errors import B2GError
from b2g.runs.plan import Task
from b2g.runs.work import Engine, Outcome, carry_out, failed

RETRIES = 3  # of a run whose worker or node was lost
AHEAD = 2  # tasks in flight for each slot, so that a worker finds its next run at hand
LEAST = 8  # tasks in flight at least: a cluster that grows on demand must see a demand
PERIOD = 10.0  # seconds after which the size of the cluster is looked at again
OBJECT_STORE = 128 * 2**20  # bytes for outcomes on their way; Ray would take a third of the memory
FOLDERS = "B2G_DATA_MIRROR", "B2G_CACHE"  # of the environment these go along to the workers, as whole paths,
WORDS = ("B2G_OFFLINE",)  # and these as they are


def on_ray(
    precision: str = "auto",
    address: str | None = None,
    gpus: float | None = None,
    work: Callable[..., Outcome] = carry_out,
) -> Engine:
    """An engine on the cluster at ``address``; without one, on one of this machine, made for the sweep.

    ``gpus`` is the share of a GPU that a run takes: 0.25 lets four runs share one. By default 1 where the
    cluster has GPUs, else 0, the CPU. A run whose worker or node is lost is tried again ``RETRIES`` times,
    then recorded as killed. The environment's RAY_ADDRESS stands for ``address``; in a program that has
    called ``ray.init`` its cluster is used and left as it is. ``work`` is what a worker calls, with the
    arguments of :func:`b2g.runs.work.carry_out`.

    Raises
    ------
    B2GError
        Where Ray is missing, the cluster cannot be joined or is lost, has no GPU to share, or has a node
        without this package.
    """
    os.environ.setdefault("RAY_task_oom_retries", str(RETRIES))  # else for ever; read when Ray is imported
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
    with _connected(address) as borrowed:
        share = _share(gpus)
        device = "cuda" if share else "cpu"
        start = _starter(work, share, device, precision)
        limit, due = 0, 0.0
        try:
            while True:
                if time.monotonic() >= due:
                    limit, due = max(LEAST, AHEAD * _slots(share)), time.monotonic() + PERIOD
                for task in islice(waiting, max(0, limit - len(running))):
                    running[start(task)] = task
                if not running:
                    return
                for ended in ray.wait(list(running), timeout=PERIOD)[0]:
                    yield _outcome(ended, running.pop(ended), device)
        finally:
            if borrowed:  # else they end with the connection: Ray can abort this process where a task ends
                for reference in running:  # just as it is cancelled (ray-project/ray#54798)
                    ray.cancel(reference, force=True)


@contextmanager
def _connected(address: str | None) -> Iterator[bool]:
    """Inside, this process is part of a cluster: its caller's (True), that at ``address``, or one just for it."""
    ray = _ray()
    if ray.is_initialized():
        if address:
            raise B2GError(f"this program is part of a Ray cluster and cannot join {address}: name none.")
        yield True
        return
    address = address or os.environ.get("RAY_ADDRESS")
    own = {} if address else {"include_dashboard": False, "object_store_memory": OBJECT_STORE}
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a sweep reports to nobody
    try:
        try:
            _check_answer(address)
            ray.init(address or "local", log_to_driver=False, logging_level="ERROR", **own)
        except Exception as error:  # Ray raises OSError, RuntimeError, ValueError and Exception itself
            what = f"the cluster at {address} cannot be joined" if address else "Ray cannot be started here"
            raise B2GError(f"{what} ({_first_line(error)}).") from error
        yield False
    finally:
        ray.shutdown()


def _check_answer(address: str | None) -> None:
    """Raise OSError where nothing listens at ``host:port``: Ray goes on asking for more than ten minutes."""
    host, colon, port = (address or "").rpartition("://")[2].rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


def _share(gpus: float | None) -> float:
    """The share of a GPU for each run. Of several machines one may get a GPU later, a single one does not."""
    ray = _ray()
    has_gpus = ray.cluster_resources().get("GPU", 0) > 0
    if gpus is None:
        return 1 if has_gpus else 0
    if gpus and not has_gpus and len(ray.nodes()) == 1:
        raise B2GError(f"each run was to have {gpus:g} of a GPU, but this cluster has none; leave gpus out.")
    return gpus


def _slots(share: float) -> int:
    """How many runs the cluster can carry out at once, as it is now."""
    have = _ray().cluster_resources()
    cpus = have.get("CPU", 0)
    return int(min(cpus, have.get("GPU", 0) / share) if share else cpus)


def _starter(work, share: float, device: str, precision: str) -> Callable:
    """What starts a task. Ray uses a worker with a GPU once: such a process cannot move to another GPU."""
    ray, environment = _ray(), _environment()
    more = {"runtime_env": {"env_vars": environment}} if environment else {}

    def on_a_worker(sent: bytes) -> Outcome:  # sent as code that unpacks by itself: a lack of b2g can be told
        import pickle

        work, task = pickle.loads(sent)
        return work(task.run, task.keep, device, precision, 1)

    remote = ray.remote(num_cpus=1, num_gpus=share, max_retries=RETRIES, **more)(on_a_worker)
    return lambda task: remote.remote(ray.cloudpickle.dumps((work, task)))


def _environment() -> dict[str, str]:
    found = {name: os.environ[name] for name in (*FOLDERS, *WORDS) if os.environ.get(name)}
    return {name: str(Path(text).expanduser().absolute()) if name in FOLDERS else text
            for name, text in found.items()}


def _outcome(reference, task: Task, device: str) -> Outcome:
    """What came of a task. `carry_out` raises nothing, so an error here tells of workers and nodes."""
    ray = _ray()
    errors = ray.exceptions
    try:
        return ray.get(reference)
    except errors.RayTaskError as error:
        if isinstance(error.cause, ImportError):
            lack = f"a node of the Ray cluster cannot run b2g ({_first_line(error.cause)})"
            raise B2GError(f"{lack}; install this package there.") from error
        state, reason = "failed", f"{type(error.cause).__name__}: {error.cause}"
    except (errors.LocalRayletDiedError, errors.RuntimeEnvSetupError) as error:  # no run will do better
        lost = f"the Ray cluster was lost ({_first_line(error)})"
        raise B2GError(f"{lost}; what is done stays, call again for the rest.") from error
    except errors.OutOfMemoryError as error:
        state, reason = "out of memory", _first_line(error)
    except errors.WorkerCrashedError:
        state, reason = "killed", f"its worker process died on each of {RETRIES + 1} tries"
    except errors.RayError as error:
        state, reason = "killed", f"{type(error).__name__}: {_first_line(error)}"
    outcome = failed(task.run, state, reason, device)
    return replace(outcome, record=replace(outcome.record, machine=""))  # which one it was is not known here


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
