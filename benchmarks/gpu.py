"""All that needs a GPU, in three calls of one script: is it right, how fast is it, and the table runs wanted most.

    python benchmarks/gpu.py check  --out gpu-report --minutes 8
    python benchmarks/gpu.py speed  --out gpu-report --minutes 9
    python benchmarks/gpu.py tables --out gpu-report --minutes 9 table2 table3 table4

Each call adds its section to report.md and report.json in the folder --out and ends within its minutes. `tables` goes
on where it was stopped, and writes runs.csv there, which `b2g records merge gpu-report/runs.csv` takes. No network is
needed where B2G_DATA_MIRROR names a folder with the pictures; scikit-image's come with it. Without a GPU the same
script runs on the CPU and says what it left out.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))

import gpu_check
import gpu_speed
import gpu_tables
from protocol import Report, TimeUp, time_limit

from b2g.errors import B2GError
from b2g.face import choose_device

SECTIONS = {"check": gpu_check.run, "speed": gpu_speed.run, "tables": gpu_tables.run}


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    sections = top.add_subparsers(dest="section", required=True)
    for name in SECTIONS:
        one = sections.add_parser(name)
        one.add_argument("--out", type=Path, default=Path("gpu-report"), help="folder of the report (gpu-report)")
        one.add_argument("--minutes", type=float, default=9.0, help="end within so many minutes (9)")
        one.add_argument("--device", default="auto", help="auto (a GPU if there is one), cuda:1, cpu")
        one.add_argument("--size", type=int, nargs="+", default=[256, 512, 1024], help="speed: sides of the pictures")
        one.add_argument("--profile", default="fast", help="speed: profile of b2g whose steps are measured (fast)")
        one.add_argument("--steps", type=int, help="fewer steps than the profiles' (to try the script out)")
    check, speed, tables = (sections.choices[name] for name in SECTIONS)
    check.add_argument("--tests", nargs="*", default=gpu_check.TESTS, help="test files that hold tests for a GPU")
    speed.add_argument("--whole", nargs="*", default=["b2g/fast"], help="methods timed on all of --set (b2g/fast)")
    speed.add_argument("--set", default="set9", help="data set of the whole runs (set9)")
    speed.add_argument("--pictures", type=int, help="only the set's first so many pictures")
    speed.add_argument("--tiles", type=int, nargs="*", default=[16, 64, 256], help="numbers of tiles side by side")
    speed.add_argument("--tile", type=int, default=64, help="side of a tile (64)")
    tables.add_argument("plans", nargs="+", help="names of plans or .yml files, the most wanted first")
    tables.add_argument("--pictures", type=int, help="only each plan's first so many pictures")
    tables.add_argument("--leave-out", nargs="*", default=["bm3d"], help="methods that need no GPU (bm3d)")
    tables.add_argument("--precision", default="auto")
    return top


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0, 1 if an item failed, 2 for bad input."""
    options = parser().parse_args(arguments)
    try:
        device = choose_device(options.device)
        report = Report(options.out, options.section, device)
        with time_limit(options.minutes) as left:
            SECTIONS[options.section](report, options, device, left)
    except TimeUp:
        print("the time limit came; what was done by then is in the report", flush=True)
    except B2GError as error:
        print(f"gpu: {error}", file=sys.stderr)
        return 2
    print(f"{options.out / 'report.md'}; torch {torch.__version__}")
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
