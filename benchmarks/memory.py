"""What a picture costs: peak memory and seconds per megapixel at four sizes, whole and in tiles.

    python benchmarks/memory.py                                   # methods and sizes below, a few CPU minutes
    python benchmarks/memory.py --methods b2g/fast nl_ridge --sizes 256 512 --tile 256 --device cuda
    python benchmarks/memory.py --show                            # the table of what is stored

Each case runs in a process of its own. Its memory is the most it ever held, beside what it held before it began
(Python, PyTorch and the picture); on CUDA also the most that PyTorch allocated there. A fit takes a few steps,
after one that is not counted; the time of all its steps is extrapolated from these and labelled so. The exponent
is the slope of log seconds against log pixels, which Eq. 3.15 says is 1. Seconds are those of the processor on a
CPU, of the clock on a GPU. Rows are stored in data/records/cost.csv, with the machine.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch

import b2g
from b2g.errors import B2GError
from b2g.face import choose_device, choose_method
from b2g.files import replacing
from b2g.runs.work import _machine, _precision

sys.path.insert(0, str(Path(__file__).parent))

from kept import stored as rows_of  # noqa: E402

RECORDS = Path(__file__).parents[1] / "data" / "records" / "cost.csv"
METHODS = ("b2g/fast", "zs_n2n", "nl_ridge", "bm3d", "lichi")
SIZES = (128, 256, 512, 1024)
KEY = ("method", "size", "tile", "device", "machine", "precision", "threads")
COLUMNS = (
    *KEY, "steps", "all_steps", "seconds", "cpu_seconds", "whole_seconds", "start_mb", "peak_mb", "cuda_mb", "torch",
)  # fmt: skip


def scene(size: int, sigma: float = 25.0) -> np.ndarray:
    """A noisy colour picture of ``size`` x ``size`` pixels: scikit-image's astronaut, cut or mirrored on."""
    picture = b2g.load("skimage/astronaut")
    while picture.shape[0] < size:
        picture = np.concatenate([picture, picture[::-1]])
        picture = np.concatenate([picture, picture[:, ::-1]], axis=1)
    return b2g.add_noise(picture[:size, :size], "gaussian", sigma, seed=("cost", size))


def peak_mb() -> float:
    """The most memory that this process has held, in MB (2**20 bytes)."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage also counts what the parent held before this program was loaded
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (2**20 if sys.platform == "darwin" else 1024)


def counted_steps(size: int, every: int) -> int:
    """More steps on small pictures, where one step is soon over."""
    return min(every, max(2, min(16, 2 * (512 // size) ** 2)))


def in_steps(history: list[dict]) -> float:
    """Seconds by the clock that the steps of all fits took; what comes before and after them is not multiplied."""
    fits = defaultdict(float)
    for entry in history:
        fits[entry.get("tile")] = max(fits[entry.get("tile")], entry.get("seconds", 0.0))
    return sum(fits.values())


def carry_out(method: str, size: int, tile: int, device: str, precision: str) -> dict:
    """One case, in this process."""
    name, _, profile = method.partition("/")
    asked = choose_method(name, profile or None)
    where, noisy = choose_device(device), scene(size)
    every = asked.steps if hasattr(asked, "objective") else 0  # LIChI, too, has steps, but they are no fit
    steps = counted_steps(size, every)
    how = dict(device=where, precision=precision, progress=False)
    if every:
        b2g.denoise(scene(64), asked.changed(steps=1), **how)
    run = asked.changed(steps=steps) if every else asked
    start = peak_mb()
    if where.type == "cuda":
        torch.cuda.synchronize(where), torch.cuda.reset_peak_memory_stats(where)
    began, cpu = time.perf_counter(), time.process_time()
    result = b2g.denoise(noisy, run, tile=tile or None, log_every=1, **how)
    if where.type == "cuda":
        torch.cuda.synchronize(where)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    spent = seconds if where.type == "cuda" else cpu
    stepping = min(1.0, in_steps(result.history) / seconds)
    whole = spent * (1 - stepping + stepping * (every / steps if every else 1))
    return {
        "method": method, "size": size, "tile": tile, "device": str(where), "machine": _machine(str(where)),
        "precision": _precision(where, precision), "threads": torch.get_num_threads(),
        "steps": steps, "all_steps": every,
        "seconds": round(seconds, 3), "cpu_seconds": round(cpu, 3), "whole_seconds": round(whole, 2),
        "start_mb": round(start), "peak_mb": round(peak_mb()), "torch": torch.__version__,
        "cuda_mb": round(torch.cuda.max_memory_allocated(where) / 2**20) if where.type == "cuda" else "",
    }  # fmt: skip


def in_a_process(case: tuple) -> dict:
    """The row of a case; B2GError with its reason if the process came to nothing."""
    done = subprocess.run([sys.executable, __file__, "--case", json.dumps(case)], capture_output=True, text=True)
    if done.returncode:
        raise B2GError(f"{case}: {(done.stderr.strip() or f'ended with {done.returncode}').splitlines()[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def spent(row: dict) -> float:
    """Seconds of the run as it was carried out."""
    return float(row["seconds"] if str(row["device"]).startswith("cuda") else row["cpu_seconds"])


def measure(methods, sizes, tile: int, device: str, precision: str, limit: float):
    """Rows, one by one; a case that would take longer than ``limit`` seconds is left out, and said so."""
    for method in methods:
        for tiles in (0, tile) if tile else (0,):
            before = None
            for size in sorted(size for size in sizes if size > tiles):
                growth = 0 if before is None else spent(before) * (size / int(before["size"])) ** 2
                if before is not None and int(before["all_steps"]):
                    growth *= counted_steps(size, int(before["all_steps"])) / int(before["steps"])
                if growth > limit:
                    print(f"  {method} at {size}{f' in tiles of {tiles}' if tiles else ''} is left out: "
                          f"it would take some {growth:.0f} s.", flush=True)  # fmt: skip
                    continue
                try:
                    before = in_a_process((method, size, tiles, device, precision))
                except B2GError as error:
                    print(f"  {error}", flush=True)
                    continue
                yield before


def exponent(points: list[tuple[float, float]]) -> float:
    """The slope of log y against log x by least squares."""
    x, y = np.log(np.array(points)).T
    return float(np.polyfit(x, y, 1)[0])


def table(rows: list[dict]) -> str:
    """A line for each case, by method, with the exponent of each method's seconds against pixels."""
    groups = defaultdict(list)
    for row in rows:
        machine = row["device"], row["machine"], row["precision"], str(row["threads"])
        groups[*machine, row["method"], int(row["tile"])].append(row)
    lines, last = [], None
    for (device, machine, precision, threads, method, tile), found in sorted(groups.items()):
        if (device, machine, precision, threads) != last:
            last = device, machine, precision, threads
            lines += [f"{device}: {machine}, {precision}, {threads} thread{'s' if threads != '1' else ''}",
                      f"  {'method':10s} {'tile':>5s} {'size':>5s} {'s/MP':>9s} {'whole s':>9s} {'MB':>7s} {'on GPU':>7s}"]
        found.sort(key=lambda row: int(row["size"]))
        for row in found:
            size, whole = int(row["size"]), float(row["whole_seconds"])
            part = int(row["all_steps"]) and f"  extrapolated from {row['steps']} of {row['all_steps']} steps"
            memory = int(row["peak_mb"]) - int(row["start_mb"])
            line = f"  {method:10s} {tile or '':>5} {size:5d} {whole / (size**2 / 1e6):9.1f} {whole:9.1f} "
            lines.append(f"{line}{memory:7d} {row['cuda_mb']:>7} {part or ''}".rstrip())
        if len(found) > 1:
            slope = exponent([(int(row["size"]) ** 2, float(row["whole_seconds"])) for row in found])
            lines.append(f"  {'':10s} seconds ~ pixels^{slope:.2f}")
    return "\n".join(lines)


def stored() -> list[dict]:
    return rows_of(RECORDS)


def store(row: dict) -> None:
    """Add a row to the records; a new measurement takes the place of an old one."""
    merged = {tuple(str(each[name]) for name in KEY): each for each in [*stored(), row]}
    order = sorted(merged, key=lambda key: (key[0], int(key[2]), int(key[1]), *key[3:]))
    with replacing(RECORDS) as file:
        file.write((",".join(COLUMNS) + "\n").encode())
        for key in order:
            cells = [str(merged[key][name]) for name in COLUMNS]
            file.write((",".join(f'"{cell}"' if "," in cell else cell for cell in cells) + "\n").encode())


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="+", default=METHODS, help=f"names, or name/profile ({' '.join(METHODS)})")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--tile", type=int, default=256, help="side of the tiles, 0 for none (256)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--limit", type=float, default=60, help="seconds that a case may take (60)")
    parser.add_argument("--show", action="store_true", help="measure nothing, print what is stored")
    parser.add_argument("--dry", action="store_true", help="store nothing")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    try:
        if options.case:
            print(json.dumps(carry_out(*json.loads(options.case))))
            return 0
        rows = stored() if options.show else []
        for row in () if options.show else measure(
            options.methods, options.sizes, options.tile, options.device, options.precision, options.limit
        ):
            rows.append(row)
            print(f"  {row['method']} {row['size']} tile {row['tile'] or '-'}: {row['seconds']} s", flush=True)
            if not options.dry:
                store(row)
        print(table(rows))
    except B2GError as error:
        print(f"memory: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
