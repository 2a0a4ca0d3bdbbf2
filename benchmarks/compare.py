"""Every method on one picture, in one run: decibels, seconds, and their ratio to BM3D's.

    python benchmarks/compare.py --out FOLDER
    python benchmarks/compare.py --out FOLDER --picture set9/House --level 50 --steps-share 0.1 --device cuda

The runs go through b2g.runs, so FOLDER/runs.csv holds records, with the PSNR along every fit beside it, and
`b2g records merge FOLDER` takes them; the chapter on speed shows the same table from there. Self2Self runs a stated
number of its steps at its official settings, and --steps-share of less than 1 shortens the other fits, too: decibels are
those of the steps taken, the time of the full length is extrapolated and says so. An absolute time holds for the
machine that is printed with it; compare ratios.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path

import torch

import b2g
from b2g.errors import B2GError
from b2g.face import choose_device, choose_method
from b2g.fit import autocast
from b2g.report import timing
from b2g.report.markup import table
from b2g.runs.engine import in_this_process, sweep
from b2g.runs.plan import Plan, make_plan
from b2g.runs.store import Store, merge_into

METHODS = ("bm3d", "nl_ridge/opponent", "lichi/opponent", "b2g/fast", "zs_n2n/official", "consensus/fast",
           "self2self/official", "b2g/best")  # fmt: skip


def block(names, picture: str, level: float, share: float, self2self: int) -> dict:
    """The block of a plan (:mod:`b2g.runs.plan`) that asks for these methods."""
    methods = []
    for name in names:
        method, _, profile = name.partition("/")
        whole = choose_method(method, profile or None)
        steps = whole.steps if hasattr(whole, "objective") else 0
        if method == "bm3d":
            methods.append({name: {"sigma": "given"}})
        elif method == "self2self":
            methods.append({name: {"steps": min(steps, self2self)}})
        else:
            methods.append({name: {"steps": max(2, round(share * steps))}} if share < 1 and steps else name)
    return {"pictures": [picture], "levels": [level], "watch": "psnr", "methods": methods}


def chosen(names, share: float) -> tuple[list[str], list[str]]:
    """The methods that can be run so, and a sentence for each that cannot."""
    kept, left_out = [], []
    for name in names:
        if name == "bm3d" and importlib.util.find_spec("bm3d") is None:
            left_out.append("bm3d is not installed (pip install 'b2g[bm3d]'), so ratios are those to nl_ridge.")
        elif name.startswith("consensus") and share < 1:
            left_out.append(f"{name} has no steps of its own to shorten; it takes what its two members take together.")
        else:
            kept.append(name)
    return kept, left_out


def warm_up(plan: Plan, device: torch.device, precision: str) -> None:
    """Let every method load its libraries and choose its kernels, on a crop in two steps, before the clock runs."""
    noisy = b2g.add_noise(b2g.load("skimage/astronaut@64"), "gaussian", 25, seed=0)
    for name in dict.fromkeys(task.run.configured().name for task in plan.tasks):
        method = choose_method(name, "smoke")
        short = method.changed(steps=2) if hasattr(method, "objective") else method
        b2g.denoise(noisy, short, device=device, precision=precision, progress=False)


def carry_out(plan: Plan, out: Path, device: str, precision: str) -> tuple[list, dict]:
    """Records and histories of the plan's runs, each on disk before the next begins."""
    records, histories = [], {}

    def keep(outcome) -> None:
        record = outcome.record
        records.append(record)
        histories.update({record.id: outcome.history} if outcome.history else {})
        merge_into(out, [record], histories)
        told = f"{record.psnr:.2f} dB, {record.seconds:.1f} s" if record.done else f"{record.state}, {record.reason}"
        print(f"  {record.label}: {told}", flush=True)

    sweep(plan, Store(":memory:"), in_this_process(device, precision), report=keep)
    return records, histories


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0, 1 if a run came to nothing, 2 for bad input."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--picture", default="skimage/astronaut@256", help="a name of `b2g datasets`, with its crop")
    parser.add_argument("--level", type=float, default=25.0, help="sigma of the Gaussian noise on 0..255 (25)")
    parser.add_argument("--methods", nargs="+", default=METHODS, help=f"names, or name/profile ({' '.join(METHODS)})")
    parser.add_argument("--steps-share", type=float, default=1.0, help="share of their steps that fits take (1)")
    parser.add_argument("--self2self-steps", type=int, default=600, help="steps of Self2Self (600)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto", help="auto, float32 or bfloat16")
    parser.add_argument("--out", type=Path, required=True, help="folder of the records; it must hold none yet")
    options = parser.parse_args(arguments)
    try:
        return report(options)
    except B2GError as error:
        print(f"compare: {error}", file=sys.stderr)
        return 2


def report(options) -> int:
    if not 0 < options.steps_share <= 1:
        raise B2GError(f"--steps-share lies above 0 and is at most 1, not {options.steps_share}.")
    if options.self2self_steps < 2:
        raise B2GError(f"--self2self-steps must be at least 2, not {options.self2self_steps}.")
    if (options.out / "runs.csv").exists():
        raise B2GError(f"{options.out} holds records of another run, whose times may not be mixed with this one's; "
                       "name a new folder.")  # fmt: skip
    device = choose_device(options.device)
    autocast(device, options.precision)
    names, left_out = chosen(options.methods, options.steps_share)
    words = names, options.picture, options.level, options.steps_share, options.self2self_steps
    plan = make_plan("compare", [block(*words)])
    warm_up(plan, device, options.precision)
    records, histories = carry_out(plan, options.out, str(device), options.precision)
    for race in timing.races(records, histories):
        print(repr(table(timing.header(race), timing.rows(race), race.told(), timing.NOTE)))
    for sentence in left_out:
        print(sentence)
    print(f"b2g records merge {options.out}")
    return 0 if all(record.done for record in records) else 1


if __name__ == "__main__":
    sys.exit(main())
