"""Sweeps: carry out what a plan wants and has no record of yet. The driver alone writes the store.

Two engines have one shape, a generator of outcomes: :func:`processes` (a process per device) here, and a Ray
cluster in :mod:`b2g.runs.cluster`.
"""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from b2g.errors import B2GError
from b2g.files import replacing
from b2g.runs.plan import Plan, Task
from b2g.runs.store import Store
from b2g.runs.work import Engine, Outcome, carry_out, failed


@dataclass(frozen=True)
class Swept:
    """How a sweep ended: runs wanted, done before, done now, failed now, and still missing."""

    total: int
    before: int
    done: int
    failed: int

    @property
    def missing(self) -> int:
        return self.total - self.before - self.done - self.failed


def sweep(
    plan: Plan,
    store: Store,
    engine: Engine | None = None,
    *,
    gallery: str | Path | None = None,
    retry: bool = False,
    report: Callable[[Outcome], None] = lambda outcome: None,
) -> Swept:
    """Carry out the runs of ``plan`` that ``store`` lacks, keeping each as it ends.

    ``engine`` (:func:`processes` on the best device if None) turns tasks into outcomes in any order. Kept
    pictures go to the folder ``gallery``. ``retry`` repeats runs that failed. A kill at any moment loses the
    runs in flight; calling again goes on.
    """
    missing = plan.missing(store.finished(retry))
    done = bad = 0
    for outcome in (engine or processes())(missing):
        if gallery is not None:
            keep_pictures(Path(gallery), outcome)
        store.add(outcome)
        done, bad = done + outcome.record.done, bad + (not outcome.record.done)
        report(outcome)
    return Swept(len(plan.tasks), len(plan.tasks) - len(missing), done, bad)


def keep_pictures(gallery: Path, outcome: Outcome) -> None:
    """Write an outcome's pictures, before its record, so that no record names a picture that is not there."""
    gallery.mkdir(parents=True, exist_ok=True)
    for name, data in outcome.pictures.items():
        with replacing(gallery / f"{name}.png") as file:
            file.write(data)


def devices(wanted: str = "auto", jobs: int = 1) -> list[str]:
    """One slot a worker: every GPU for ``"auto"`` (or the CPU without one), each ``jobs`` times."""
    if wanted == "auto":
        wanted = ",".join(f"cuda:{i}" for i in range(torch.cuda.device_count())) or "cpu"
    return [device for device in wanted.split(",") for _ in range(jobs)]


def processes(slots: list[str] | None = None, precision: str = "auto", timeout: float | None = None) -> Engine:
    """An engine with one worker process for each device named in ``slots``.

    A worker that dies (killed, crashed, out of memory) costs its own run, which becomes a record with the
    reason; the next run gets a new worker. ``timeout`` in seconds ends a run that takes longer.
    """
    slots = slots or devices()
    return lambda tasks: _in_processes(deque(tasks), slots, precision, timeout)


def _in_processes(waiting: deque, slots: list[str], precision: str, timeout: float | None) -> Iterator[Outcome]:
    from pebble import ProcessPool

    slots = slots[: max(1, len(waiting))]
    on_cpu = max(1, sum(slot == "cpu" for slot in slots))
    threads = max(1, (os.cpu_count() or 1) // on_cpu)
    # "spawn", since a forked process cannot use CUDA. One pool a slot,
    # so that each worker keeps to its device.
    spawn = multiprocessing.get_context("spawn")
    pools = [ProcessPool(max_workers=1, context=spawn, initializer=_end_with, initargs=[os.getpid()]) for _ in slots]
    running: dict = {}

    def start(slot: int) -> None:
        if waiting:
            task = waiting.popleft()
            words = (task.run, task.keep, slots[slot], precision, threads)
            running[pools[slot].schedule(carry_out, args=words, timeout=timeout)] = task, slot

    try:
        for slot in range(len(slots)):
            start(slot)
        while running:
            finished, _ = concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED)
            for future in finished:
                task, slot = running.pop(future)
                outcome = _outcome(future, task, slots[slot], timeout)
                start(slot)
                yield outcome
    finally:
        for pool in pools:
            pool.stop()
            pool.join()


def _end_with(driver: int) -> None:
    """End this worker when its driver is gone: a killed sweep must not go on computing
    what nobody will keep."""

    def watch() -> None:
        while os.getppid() == driver:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _outcome(future, task: Task, device: str, timeout: float | None) -> Outcome:
    from pebble import ProcessExpired

    try:
        return future.result()
    except concurrent.futures.TimeoutError:
        return failed(task.run, "killed", f"it took longer than {timeout:g} s", device)
    except ProcessExpired as error:
        how = f"signal {-error.exitcode}" if error.exitcode < 0 else f"exit code {error.exitcode}"
        return failed(task.run, "killed", f"its process ended with {how}", device)


def in_this_process(device: str = "auto", precision: str = "auto") -> Engine:
    """The plainest engine: one run after another, here. A crash ends the sweep."""
    return lambda tasks: (carry_out(task.run, task.keep, device, precision) for task in tasks)


def choose_engine(name: str, device: str, jobs: int, precision: str, timeout: float | None, **ray) -> Engine:
    """The engine called ``"processes"`` or ``"ray"``."""
    if name == "processes":
        return processes(devices(device, jobs), precision, timeout)
    if name == "ray":
        from b2g.runs.cluster import on_ray

        return on_ray(precision=precision, **ray)
    raise B2GError(f"the engine must be 'processes' or 'ray', not {name!r}.")
