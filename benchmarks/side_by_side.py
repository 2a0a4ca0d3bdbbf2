"""Many small pictures fitted side by side over one after another: pictures a second, as a ratio from one run.

    python benchmarks/side_by_side.py --size 64 --profile fast --pictures 8 32 128 --how grouped products [--store]

``--store`` keeps the figures in data/records/side_by_side.csv, which the book shows.
Pictures are tiles of scikit-image's camera (astronaut in colour) with Gaussian noise of 25. A fit of ``--steps`` is
timed; its pace over the second half and what is left of its time, the start, give the time of all steps of the
profile. One after another and side by side take turns, and the medians over ``--repeats`` turns are compared.
``memory`` is the peak over the estimate by which ``together=True`` bounds a stack (on a GPU only).
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))

from kept import about, keep

from b2g.datasets import load
from b2g.errors import B2GError
from b2g.face import choose_device, choose_method
from b2g.fit import autocast
from b2g.method import Circumstances, Method
from b2g.noise import add_noise
from b2g.report.benchmarks import SideBySide
from b2g.runs.work import _machine
from b2g.stack import FASTEST, HOW
from b2g.together import bytes_a_picture, denoise_together

KEY = ("machine", "device", "precision", "threads", "method", "profile", "size", "channels", "how", "pictures")


def tiles(count: int, size: int, channels: int) -> Tensor:
    """``count`` noisy tiles ``(N, C, size, size)``, repeated with new noise where the picture has no more."""
    whole = load("skimage/astronaut" if channels == 3 else "skimage/camera")
    whole = whole.reshape(*whole.shape[:2], -1)
    rows, columns = whole.shape[0] // size, whole.shape[1] // size
    if not rows * columns:
        raise B2GError(f"size must be at most {min(whole.shape[:2])}, not {size}.")
    found = []
    for k in range(count):
        top, left = size * (k // columns % rows), size * (k % columns)
        found.append(add_noise(whole[top : top + size, left : left + size], "gaussian", 25, seed=k))
    return torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2).float().contiguous()


def seconds(fit, steps: int, wanted: int) -> float:
    """The time of ``wanted`` steps, from ``fit()``, a fit of ``steps`` that returns a history of two entries."""
    began = time.perf_counter()
    half, end = fit()
    spent = time.perf_counter() - began
    pace = (end["seconds"] - half["seconds"]) / (end["step"] - half["step"])
    return spent + (wanted - steps) * pace


def measure(
    method: Method, noisy: Tensor, how: list[str], circumstances: Circumstances, steps: int, repeats: int
) -> dict:
    """Seconds a picture, alone (another one each turn) and side by side in each way of ``how``."""
    steps = min(method.steps, max(2, steps - steps % 2))
    short, device = method.changed(steps=steps), circumstances.device
    apart, ours = [], {one: [] for one in how}
    where = replace(circumstances, log_every=steps // 2)

    def one(k: int) -> list[dict]:
        return short(noisy[k : k + 1].to(device), replace(where, seed=k)).history

    def stack(way: str) -> list[dict]:
        answer = denoise_together(short, noisy, where, list(range(len(noisy))), how=way)[0]
        if isinstance(answer, B2GError):
            raise answer
        return answer.history

    one(0)  # libraries choose their kernels
    peak = dict.fromkeys(how, 0)
    for turn in range(repeats):
        apart.append(seconds(lambda: one(turn % len(noisy)), steps, method.steps))
        for way in how:
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
            ours[way].append(seconds(lambda: stack(way), steps, method.steps) / len(noisy))
            if device.type == "cuda":
                peak[way] = torch.cuda.max_memory_allocated(device)
    estimate = bytes_a_picture(method.objective(noisy[:1].to(device), circumstances))
    figures = {"pictures": len(noisy), "alone": statistics.median(apart), "bytes_a_picture": estimate}
    figures |= {way: statistics.median(times) for way, times in ours.items()}
    return figures | {f"{way}_over_estimate": peak[way] / (estimate * len(noisy)) for way in how if peak[way]}


def told(figures: dict, how: list[str]) -> str:
    """One line: seconds a picture, and how many times as many pictures a second side by side."""
    cells = [f"{figures['pictures']:8d}  {figures['alone']:12.4g}"]
    for way in how:
        cells.append(f"{figures[way]:12.4g} {figures['alone'] / figures[way]:8.2f}")
        cells.append(f"{figures.get(f'{way}_over_estimate', float('nan')):8.2f}")
    return "  ".join(cells)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--method", default="b2g", help="b2g, self2self or zs_n2n (b2g)")
    parser.add_argument("--profile", help="its profile (the method's default)")
    parser.add_argument("--pictures", type=int, nargs="+", default=[2, 8, 32], help="how many (2 8 32)")
    parser.add_argument("--size", type=int, default=64, help="their side (64)")
    parser.add_argument("--channels", type=int, default=1, choices=(1, 3))
    parser.add_argument("--how", nargs="+", choices=HOW, help="ways to stack (the device's own)")
    parser.add_argument("--steps", type=int, default=40, help="steps that are timed (40)")
    parser.add_argument("--repeats", type=int, default=3, help="turns (3)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto", help="auto, float32 or bfloat16")
    parser.add_argument("--engine", default="auto", help="auto, eager or graph")
    parser.add_argument("--json", help="also write the figures to this file")
    parser.add_argument("--store", action="store_true", help="also keep the figures in data/records/side_by_side.csv")
    options = parser.parse_args(arguments)
    try:
        return report(options)
    except B2GError as error:
        print(f"side_by_side: {error}", file=sys.stderr)
        return 2


def report(options) -> int:
    device = choose_device(options.device)
    method = choose_method(options.method, options.profile)
    if not hasattr(method, "objective"):
        raise B2GError(f"{method.name} fits no network, so nothing goes side by side; name another method.")
    autocast(device, options.precision)
    circumstances = Circumstances(device=device, precision=options.precision, engine=options.engine)
    how = options.how or [FASTEST[device.type]]
    print(f"{_machine(str(device))}, {device}, {options.precision}; {method.name} with {method.steps} steps on "
          f"{options.channels} x {options.size} x {options.size}, timed over {options.steps} steps")
    columns = (f"{way + ' s':>12s} {'times':>8s}  {'memory':>8s}" for way in how)
    print(f"{'pictures':>8s}  {'alone s':>12s}  " + "  ".join(columns))
    rows = []
    for count in options.pictures:
        noisy = tiles(count, options.size, options.channels)
        rows.append(measure(method, noisy, how, circumstances, options.steps, options.repeats))
        print(told(rows[-1], how), flush=True)
        if options.store:
            same = {"method": method.name, "profile": options.profile or method.default_profile, "pictures": len(noisy),
                    "size": options.size, "channels": options.channels, "steps": min(method.steps, options.steps),
                    "alone": rows[-1]["alone"], **about(device, options.precision)}  # fmt: skip
            keep(SideBySide, [{**same, "how": way, "together": rows[-1][way]} for way in how], KEY)
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({"machine": _machine(str(device)), "options": vars(options), "rows": rows}, file, indent=1)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
