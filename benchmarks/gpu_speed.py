"""`gpu.py speed`: steps against the machine's floor, whole pictures, and many small ones side by side."""

from __future__ import annotations

import math
import time
from contextlib import contextmanager

import numpy as np
import torch
from floor import ratios, told
from protocol import Report, Skip

import b2g
from b2g import datasets
from b2g.errors import B2GError
from b2g.face import choose_method
from b2g.floor import Ceilings, measure_ceilings, measure_step
from b2g.method import Circumstances

WAYS = [("graph", "bfloat16"), ("eager", "bfloat16"), ("graph", "float32"), ("eager", "float32")]


def run(report: Report, options, device: torch.device, left) -> None:
    least = 1.0 if device.type == "cuda" else 0.2
    held = []

    def ceilings():
        held.append(measure_ceilings(device, least=least))
        return "measured", told(held[0]).removeprefix("ceilings: "), {**held[0].flops, "bandwidth": held[0].bandwidth}

    report.attempt("ceilings", ceilings)
    # The whole picture at each step, for the sake of the sizes; one pilot, for it is no part of a step.
    profile = choose_method("b2g", options.profile, side=0, draws=1)
    steps: dict[tuple, float] = {}
    for engine, precision in WAYS:
        for size in options.size:
            name = f"step of b2g/{options.profile}, {size} x {size}, {engine}, {precision}"
            where = Circumstances(device, precision=precision, engine=engine)
            report.attempt(name, lambda w=where, s=size: one_step(profile, s, w, held, steps, least))
    report.attempt("cuDNN choosing by trial", lambda: by_trial(profile, options.size[-1], device, held, least))
    report.attempt("steps compared", lambda: compared(steps, options.size))
    for method in options.whole:
        report.attempt(f"{method} on {options.set}, sigma 25", lambda m=method: whole(m, options, device))
    for count in options.tiles:
        report.attempt(f"{count} tiles of {options.tile} x {options.tile} side by side",
                       lambda n=count: side_by_side(n, options, device))  # fmt: skip


def one_step(method, size: int, where: Circumstances, held: list[Ceilings], steps: dict, least: float):
    if where.engine == "graph" and where.device.type != "cuda":
        raise Skip("a graph needs a CUDA device")
    if not held:
        raise Skip("the ceilings could not be measured")
    memory = None
    if where.device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(where.device)
    cost = measure_step(method, size, where, least=least)
    if where.device.type == "cuda":
        memory = torch.cuda.max_memory_allocated(where.device) / 2**20
    found = ratios(cost, held[0])
    steps[size, where.engine, where.precision] = cost.seconds
    text = (f"{found['ms']:.3g} ms = {found['over_floor']:.2f} x the floor as written = "
            f"{found['over_fused_floor']:.2f} x the fused floor; engine {cost.engine}")
    return "measured", text + (f"; {memory:.0f} MiB at most" if memory else ""), found | {"peak_mib": memory}


def by_trial(method, size: int, device: torch.device, held: list[Ceilings], least: float):
    """The same step where cuDNN tries its algorithms out first, as it does not by default."""
    if device.type != "cuda":
        raise Skip("no CUDA device here")
    times = {}
    for trial in (False, True):
        with choosing_by_trial(trial):
            times[trial] = measure_step(method, size, Circumstances(device, engine="graph"), least=least).seconds
    return "measured", (f"a step of {size} x {size} takes {times[True] / times[False]:.3f} of the time "
                        f"that cuDNN's own choice takes"), {"ratio": times[True] / times[False]}


@contextmanager
def choosing_by_trial(trial: bool):
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = trial
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def compared(steps: dict, sizes: list[int]):
    """Ratios in the same run, and the exponent of time over pixels (1 by Eq. 3.15)."""
    if not steps:
        raise Skip("no step was measured")
    lines = []
    for (size, engine, precision), seconds in steps.items():
        slow = steps.get((size, "eager", "float32"))
        if slow and (engine, precision) != ("eager", "float32"):
            lines.append(f"{size}: {engine} {precision} {slow / seconds:.2f} times as fast as eager float32")
    exponents = {}
    for engine, precision in WAYS:
        points = [(2 * math.log(size), math.log(steps[size, engine, precision]))
                  for size in sizes if (size, engine, precision) in steps]  # fmt: skip
        if len(points) > 1:
            exponents[f"{engine} {precision}"] = float(np.polyfit(*zip(*points), 1)[0])
    told_exponents = ", ".join(f"{name} {value:.2f}" for name, value in exponents.items())
    text = "; ".join(lines) + (f"; exponents of time over pixels: {told_exponents}" if exponents else "")
    return "measured", text or "nothing to compare", {"exponents": exponents}


def pictures_of(wanted: str, first: int | None) -> tuple[list[np.ndarray], bool]:
    """The set's pictures, or pictures of chance in their sizes where they cannot be had: time does not depend on it."""
    names = datasets.names(wanted)[:first]
    try:
        return [b2g.load(name) for name in names], True
    except B2GError:
        draw = np.random.default_rng(0)
        return [draw.random((*datasets.size(name), 3), np.float32) for name in names], False


def whole(name: str, options, device: torch.device):
    """All pictures of the set, one after another, as a user calls it."""
    method = choose_method(*name.split("/")) if "/" in name else choose_method(name)
    if options.steps and hasattr(method, "steps"):
        method = method.changed(steps=options.steps)
    cleans, real = pictures_of(options.set, options.pictures)
    seconds, gains = [], []
    for number, clean in enumerate(cleans):
        noisy = b2g.add_noise(clean, "gaussian", 25, seed=number)
        began = time.perf_counter()
        result = b2g.denoise(noisy, method, device=device, progress=False)
        seconds.append(time.perf_counter() - began)
        gains.append(b2g.psnr(clean, result.image))
    pixels = sum(clean.shape[0] * clean.shape[1] for clean in cleans) / 1e6
    text = (f"{len(cleans)} pictures in {sum(seconds):.1f} s, {sum(seconds) / pixels:.2f} s a megapixel, "
            + (f"mean {np.mean(gains):.2f} dB" if real else "pictures of chance in its sizes, so no dB"))
    text += f"; {options.steps} steps only" if options.steps else ""
    return "measured", text, {"seconds": seconds, "psnr": gains if real else None, "steps": options.steps}


def side_by_side(count: int, options, device: torch.device):
    """Pictures a second fitted together, over those fitted one after another (two are timed), in the same run."""
    method = choose_method("b2g", "masked", steps=options.steps or 300)
    clean = torch.from_numpy(b2g.load(f"skimage/astronaut@{2 * options.tile}")).permute(2, 0, 1)[None]
    corners = [clean[..., i::2, j::2] for i in (0, 1) for j in (0, 1)]
    tiles = torch.cat([corners[k % 4] for k in range(count)])
    noisy = b2g.add_noise(tiles, "gaussian", 25, seed=0)
    how = dict(device=device, progress=False)
    b2g.denoise(noisy[:2], method.changed(steps=5), together=True, **how)  # libraries are loaded and chosen
    began = time.perf_counter()
    together = b2g.denoise(noisy, method, together=True, **how)
    side = count / (time.perf_counter() - began)
    began = time.perf_counter()
    alone = b2g.denoise(noisy[:2], method, together=False, **how)
    after = 2 / (time.perf_counter() - began)
    gain = [b2g.psnr(tiles[:2], image[:2]) - b2g.psnr(tiles[:2], noisy[:2], clip=False)
            for image in (together.image, alone.image)]  # fmt: skip
    text = (f"{side:.3g} a second, {side / after:.2f} times as many as one after another; "
            f"gain of the first two {gain[0]:.2f} and {gain[1]:.2f} dB; {method.steps} steps")
    return "measured", text, {"a_second": side, "ratio": side / after, "gain_db": gain}
