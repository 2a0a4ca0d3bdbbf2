"""How near an optimiser step comes to this machine's floor: operations, bytes, ceilings, achieved over floor.

    python benchmarks/floor.py --size 256 512 --profile fast --device auto --precision auto [--store]

``--store`` keeps the figures in data/records/floor.csv, which the book shows. What is counted, and how: b2g/floor.py.
Ratios hold for the machine that is printed with them.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))

from kept import about, keep

from b2g.errors import B2GError
from b2g.face import choose_device, choose_method
from b2g.fit import autocast
from b2g.floor import Ceilings, StepCost, Work, measure_ceilings, measure_step
from b2g.method import Circumstances
from b2g.report.benchmarks import Floor
from b2g.runs.work import _machine

KEY = ("machine", "device", "precision", "threads", "profile", "channels", "engine", "size")


def ratios(cost: StepCost, ceilings: Ceilings) -> dict[str, float]:
    """The figures of one step: seconds, its floors, and achieved over each."""
    floor, fused = ceilings.floor(cost.work), ceilings.floor(cost.work.fused)
    return {
        "gflop": cost.work.flops / 1e9, "mb_as_written": cost.work.bytes / 1e6, "mb_once": cost.work.once / 1e6,
        "mb_fused": cost.work.fused.bytes / 1e6, "ms": 1e3 * cost.seconds, "floor_ms": 1e3 * floor,
        "fused_floor_ms": 1e3 * fused, "over_floor": cost.seconds / floor, "over_fused_floor": cost.seconds / fused,
    }  # fmt: skip


def row(found: dict, ceilings: Ceilings, told: dict) -> dict:
    """The row of floor.csv: the figures of a step, the ceilings, and what is ``told`` of machine and step."""
    peak = ceilings.flops.get(told["precision"], ceilings.flops["float32"])
    return {**found, **told, "peak_gflops": peak / 1e9, "bandwidth_gbs": ceilings.bandwidth / 1e9}


def table(work: Work, ceilings: Ceilings, rows: int) -> str:
    """The operations that weigh most, by name and precision."""
    calls, flops, moved, seconds = Counter(), Counter(), Counter(), Counter()
    for operation in work.operations:
        key = operation.name, operation.precision
        calls[key] += 1
        flops[key] += operation.flops
        moved[key] += operation.bytes
        seconds[key] += ceilings.seconds(operation)
    lines = [f"  {'operation':34s} {'calls':>6s} {'GFLOP':>9s} {'MB':>9s} {'floor ms':>9s}"]
    for key, least in seconds.most_common(rows):
        name = f"{key[0]} ({key[1]})"
        lines.append(f"  {name:34s} {calls[key]:6d} {flops[key] / 1e9:9.2f} {moved[key] / 1e6:9.1f} {1e3 * least:9.3f}")
    return "\n".join(lines)


def told(ceilings: Ceilings) -> str:
    peaks = ", ".join(f"{name} {value / 1e9:.4g} GFLOP/s" for name, value in sorted(ceilings.flops.items()))
    return f"ceilings: {peaks}; memory {ceilings.bandwidth / 1e9:.4g} GB/s"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, nargs="+", default=[256], help="sides of the picture (256)")
    parser.add_argument("--profile", default="fast", help="profile of b2g (fast)")
    parser.add_argument("--side", type=int, default=0, help="of the window that a step looks at (0: the whole picture)")
    parser.add_argument("--channels", type=int, default=3, choices=(1, 3))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto", help="auto, float32 or bfloat16")
    parser.add_argument("--engine", default="auto", help="auto, eager or graph")
    parser.add_argument("--rows", type=int, default=12, help="operations shown (12)")
    parser.add_argument("--least", type=float, default=1.0, help="seconds that a measurement lasts (1)")
    parser.add_argument("--json", help="also write the figures to this file")
    parser.add_argument("--store", action="store_true", help="also keep the figures in data/records/floor.csv")
    options = parser.parse_args(arguments)
    try:
        return report(options)
    except B2GError as error:
        print(f"floor: {error}", file=sys.stderr)
        return 2


def report(options) -> int:
    device = choose_device(options.device)
    method = choose_method("b2g", options.profile, side=options.side, draws=1)
    autocast(device, options.precision)
    circumstances = Circumstances(device=device, precision=options.precision, engine=options.engine)
    ceilings = measure_ceilings(device, least=options.least)
    print(f"{_machine(str(device))}, torch {torch.__version__}, {torch.get_num_threads()} threads")
    print(told(ceilings))
    rows = []
    for size in options.size:
        cost = measure_step(method, size, circumstances, channels=options.channels, least=options.least)
        found = ratios(cost, ceilings)
        if options.store:
            step = {"profile": options.profile, "size": size, "channels": options.channels, "engine": cost.engine}
            keep(Floor, [row(found, ceilings, step | about(device, options.precision))], KEY)
        rows.append({"size": size, "profile": options.profile, "engine": cost.engine} | found)
        print(f"\nb2g/{options.profile}, {size} x {size} x {options.channels}, one step, engine {cost.engine}")
        print(table(cost.work, ceilings, options.rows))
        print(f"  {found['gflop']:.3g} GFLOP; {found['mb_as_written']:.4g} MB as written, {found['mb_once']:.4g} MB "
              f"each tensor once, {found['mb_fused']:.4g} MB fused")
        print(f"  achieved {found['ms']:.3g} ms = {found['over_floor']:.2f} x the floor as written "
              f"({found['floor_ms']:.3g} ms) = {found['over_fused_floor']:.2f} x the fused floor "
              f"({found['fused_floor_ms']:.3g} ms)", flush=True)
    if options.json:
        content = {"machine": _machine(str(device)), "torch": torch.__version__, "ceilings": ceilings.flops,
                   "bandwidth": ceilings.bandwidth, "steps": rows}
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(content, file, indent=1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
