"""The commands that make and keep records: ``b2g sweep | records | verify``."""

from __future__ import annotations

import sys
from pathlib import Path

from tqdm import tqdm

from b2g.errors import B2GError
from b2g.runs import cost, verify
from b2g.runs.engine import choose_engine, sweep
from b2g.runs.plan import plan_names, read_plan
from b2g.runs.store import Store, merge_into, read_any, read_folder


def data_folder() -> Path:
    """data/ of a working copy; where the package is installed, b2g-data in the current folder."""
    here = Path(__file__).parents[2] / "data"
    return here if (here / "records").is_dir() else Path("b2g-data")


def add_commands(commands) -> None:
    """Their parsers, added to argparse's ``commands``."""
    run = commands.add_parser("sweep", help="carry out the runs of a plan that have no record yet")
    run.add_argument("plan", nargs="?", help=f"{', '.join(plan_names())}, or a .yml file; without one, all are listed")
    run.add_argument("--dry-run", action="store_true", help="only say what is done, missing, and what that costs")
    run.add_argument("--pictures", type=int, help="only the plan's first so many pictures")
    run.add_argument("--device", default="auto", help="auto (every GPU, else the CPU), cpu, or cuda:0,cuda:1")
    run.add_argument("--jobs", type=int, default=1, help="worker processes on each device (1)")
    run.add_argument("--precision", default="auto", help="auto, float32 or bfloat16")
    run.add_argument("--timeout", type=float, help="give a run up after so many seconds")
    run.add_argument("--retry", action="store_true", help="repeat the runs that failed")
    run.add_argument("--engine", default="processes", choices=("processes", "ray"))
    run.add_argument("--address", help="with ray: the cluster to join; without it, one is started here")
    run.add_argument("--gpus", type=float, help="with ray: the share of a GPU that one run takes")
    run.add_argument("--quiet", action="store_true", help="no progress")
    for parser in (run, verify_parser(commands), records_parser(commands)):
        parser.add_argument("--data", type=Path, default=data_folder(),
                            help="folder of records/ and gallery/ (data of a working copy, else b2g-data)")


def verify_parser(commands):
    parser = commands.add_parser("verify", help="check the stored records, and re-score the stored pictures")
    parser.add_argument("--rerun", type=int, default=0, metavar="N", help="also carry the N cheapest runs out again")
    return parser


def records_parser(commands):
    parser = commands.add_parser("records", help="merge records from elsewhere into the stored ones")
    parser.add_argument("action", choices=("merge", "count"))
    parser.add_argument("sources", nargs="*", metavar="FILE", help="a folder, a runs.csv, or a .sqlite store")
    return parser


def run_sweep(options) -> int:
    """``b2g sweep``: exit code 1 if a run failed or could not be done, 0 otherwise."""
    if options.plan is None:
        for name in plan_names():
            print(f"{name:18s} {read_plan(name).title}")
        return 0
    if options.jobs < 1:
        raise B2GError(f"--jobs counts worker processes and must be at least 1, not {options.jobs}.")
    plan = read_plan(options.plan).limited(options.pictures)
    records = options.data / "records"
    store = Store(options.data / ".working" / "runs.sqlite")
    store.merge(*read_folder(records))
    costs = cost.Costs(store.records(), "cuda" if options.device.startswith("cuda") else "cpu")
    missing = plan.missing(store.finished(options.retry))
    print(f"{plan.title}: {len(plan.tasks)} runs, {len(plan.tasks) - len(missing)} done, {len(missing)} missing"
          + _price(costs, missing), flush=True)
    if options.dry_run or not missing:
        return 0
    engine = choose_engine(options.engine, options.device, options.jobs, options.precision, options.timeout,
                           address=options.address, gpus=options.gpus)
    try:
        with tqdm(total=len(missing), unit="run", disable=options.quiet or None) as bar:
            swept = sweep(plan, store, engine, gallery=options.data / "gallery", retry=options.retry,
                          report=lambda outcome: _tell(bar, outcome))
    finally:
        merged = merge_into(records, store.records(), store.histories())
        store.close()
    print(f"{swept.done} done, {swept.failed} failed, {swept.missing} missing; "
          f"{merged.new + merged.better} records went to {records}.")
    return 1 if swept.failed or swept.missing else 0


def _price(costs: cost.Costs, tasks) -> str:
    """What the missing runs are expected to take, as far as runs like them are known."""
    if not tasks:
        return "."
    seconds, unknown = costs.of_tasks(tasks)
    told = f", about {cost.spoken(seconds)} of one worker" if unknown < len(tasks) else ""
    return told + (f" and {unknown} of unknown cost." if unknown else ".")


def _tell(bar: tqdm, outcome) -> None:
    record = outcome.record
    bar.update()
    if record.done:
        bar.set_postfix_str(f"{record.picture} {record.label} {record.psnr:.2f} dB", refresh=False)
    else:
        bar.write(f"{record.picture} {record.label}: {record.state}, {record.reason}", file=sys.stderr)


def run_records(options) -> int:
    """``b2g records merge FILE...`` or ``b2g records count``."""
    folder = options.data / "records"
    if options.action == "merge":
        if not options.sources:
            raise B2GError("records merge needs at least one folder, runs.csv or .sqlite store.")
        taken = [(source, *read_any(source)) for source in options.sources]  # all are read before one is merged
        for source, records, histories in taken:
            merged = merge_into(folder, records, histories)
            print(f"{source}: {merged.new} new, {merged.better} better, {merged.known} known")
    records, histories = read_folder(folder)
    failed = sum(not record.done for record in records)
    print(f"{folder}: {len(records)} records ({failed} of failed runs), {len(histories)} histories")
    return 0


def run_verify(options) -> int:
    """``b2g verify``: exit code 1 if anything is not as stored."""
    records, _ = read_folder(options.data / "records")
    findings = list(verify.verify(records, options.data / "gallery"))
    cheapest = sorted((r for r in records if r.done), key=lambda r: (r.cpu_seconds or r.seconds or 0, r.id))
    for record in cheapest[: options.rerun]:
        found = verify.rerun(record)
        findings += [found] if found else []
    for finding in findings:
        print(f"{finding.id}: {finding.problem}.", file=sys.stderr)
    kept = sum(bool(record.kept) for record in records)
    print(f"{len(records)} records, {kept} kept pictures, {min(options.rerun, len(cheapest))} run again: "
          f"{len(findings)} problem{'' if len(findings) == 1 else 's'}.")
    return 1 if findings else 0
