"""`gpu.py tables`: carry out the runs of plans, in the order given, until the time is over."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from protocol import Report, Skip, TimeUp

from b2g import datasets
from b2g.errors import B2GError
from b2g.runs.cost import Costs, pixels
from b2g.runs.engine import sweep
from b2g.runs.plan import Plan, read_plan
from b2g.runs.store import Store, merge_into, read_folder
from b2g.runs.work import carry_out

KNOWN = Path(__file__).parents[1] / "data" / "records"


def run(report: Report, options, device: torch.device, left) -> None:
    """A run with a record, here or in data/records, is not repeated; every record is on disk before the next run."""
    store = Store(":memory:")
    for folder in (KNOWN, options.out):
        store.merge(*read_folder(folder))
    for name in options.plans:
        report.attempt(f"plan {name}", lambda n=name: one_plan(n, store, options, device, left))


def one_plan(name: str, store: Store, options, device: torch.device, left):
    plan, absent = wanted(read_plan(name).limited(options.pictures), options.leave_out)
    if not plan.tasks:
        raise Skip(f"none of its runs can be carried out here: {'; '.join(absent) or 'all are left out'}")
    spent, late, kept = [], [], []

    def engine(tasks):
        for task in tasks:
            expected = Costs(store.records(), device.type).seconds(task.run.configured(), pixels(task.run.picture))
            if expected is not None and expected > left():
                late.append(task)
                continue
            yield carry_out(task.run, False, str(device), options.precision)

    def keep(outcome):
        kept.append(outcome)
        merge_into(options.out, [outcome.record], {outcome.record.id: outcome.history} if outcome.history else {})
        spent.append(outcome.record.seconds or 0.0)
        print(f"  {left():5.0f} s left  {outcome.record.picture} {outcome.record.label}: "
              + (f"{outcome.record.psnr:.2f} dB" if outcome.record.done else outcome.record.reason), flush=True)

    try:
        swept = sweep(plan, store, engine, report=keep)
    except TimeUp:
        raise TimeUp(f"{summary(plan, store, kept)}; the time limit came") from None
    text = summary(plan, store, kept)
    text += f"; {len(late)} were left for want of time" if late else ""
    text += f"; not here: {'; '.join(absent)}" if absent else ""
    bad = [outcome.record.reason for outcome in kept if not outcome.record.done]
    state = "failed" if bad else "unfinished" if swept.missing else "passed"
    text += f"; first failure: {bad[0]}" if bad else ""
    return state, text, {"runs": len(kept), "seconds": round(sum(spent), 1)}


def summary(plan: Plan, store: Store, kept: list) -> str:
    missing = len(plan.missing(store.finished()))
    return f"{len(kept)} runs done now, {len(plan.tasks) - missing} of {len(plan.tasks)} have a record"


def wanted(plan: Plan, left_out: list[str]) -> tuple[Plan, list[str]]:
    """The runs whose method is not left out and whose data set can be read here, and why others cannot."""
    absent: dict[str, str] = {}
    readable = set()
    tasks = []
    for task in plan.tasks:
        dataset = task.run.picture.partition("/")[0]
        if task.run.configured().name in left_out or dataset in absent:
            continue
        if dataset not in readable:
            try:
                datasets.load(task.run.picture)
                readable.add(dataset)
            except B2GError as error:
                absent[dataset] = f"{dataset} ({' '.join(str(error).split())[:120]})"
                continue
        tasks.append(replace(task, keep=False))
    return replace(plan, tasks=tuple(tasks)), list(absent.values())
