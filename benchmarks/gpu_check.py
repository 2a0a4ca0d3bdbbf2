"""`gpu.py check`: does a GPU compute what the CPU computes, and a CUDA graph what its steps compute one by one?"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from protocol import Report, Skip
from torch import Tensor

import b2g
from b2g.fit import autocast, build
from b2g.losses import uniform_loss
from b2g.masks import bernoulli_mask
from b2g.methods.b2g import B2G
from b2g.network import EncoderDecoder

ROOT = Path(__file__).parents[1]
TESTS = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "tests").glob("test_*.py")
               if "cuda.is_available" in path.read_text("utf-8"))  # fmt: skip
PLAIN = dict(standout="none", dropout="none", flips=False)  # nothing by chance but the mask, which is given
CPU = torch.device("cpu")
# Allowed largest and root-mean-square difference of an answer in [0, 1], and relative difference of the gradient.
# float32 adds some thousand products in another order; bfloat16 rounds each layer to 8 bits.
ALLOWED = {"float32": (1e-4, 1e-5, 1e-3), "bfloat16": (0.1, 0.01, 0.2)}
GRAPHS = [("smoke", {}), ("smoke", dict(visible="detached")), ("smoke", dict(mask="uniform")),
          ("smoke", dict(side=64)), ("fast", {}), ("best", {})]  # fmt: skip
FITTED, SEEDS = ("smoke", "fast"), 5
SHAKEN = 0.1  # of the distance of another seed's answer
NEAR = 0.1  # dB between means over seeds, beyond three standard errors: a GPU draws other masks, so other fits


def run(report: Report, options, device: torch.device, left) -> None:
    report.attempt("one pass, CPU bfloat16 against CPU float32", lambda: same_pass(CPU, "bfloat16"))
    for precision in ALLOWED:
        report.attempt(f"one pass, GPU {precision} against CPU float32", lambda p=precision: same_pass(on(device), p))
    for profile, settings in GRAPHS:
        name = f"a CUDA graph against eager steps, {profile}" + "".join(f", {k} {v}" for k, v in settings.items())
        report.attempt(name, lambda p=profile, s=settings: graph_is_eager(on(device), p, s))
    for profile in FITTED:
        name = f"decibels of whole fits, {profile}"
        report.attempt(name, lambda p=profile: decibels(device, p, options.steps or 60, SEEDS))
    report.attempt("the tests for a GPU", lambda: tests(on(device), options.tests, left))


def on(device: torch.device) -> torch.device:
    if device.type != "cuda":
        raise Skip("no CUDA device here")
    return device


def noisy_crop(side: int = 96) -> tuple[np.ndarray, np.ndarray]:
    clean = b2g.load(f"skimage/astronaut@{side}")
    return clean, b2g.add_noise(clean, "gaussian", 25, seed=0)


def one_pass(device: torch.device, precision: str) -> tuple[Tensor, Tensor]:
    """The answer to a given mask and the loss's gradient by all weights, on the CPU."""
    picture = torch.from_numpy(noisy_crop()[1]).float().permute(2, 0, 1)[None]
    mask = bernoulli_mask(picture.shape, generator=torch.Generator().manual_seed(1))
    network = build(lambda: EncoderDecoder(3, B2G.profile("masked", **PLAIN).architecture()), 0, device)
    picture, mask = (tensor.to(device, memory_format=torch.channels_last) for tensor in (picture, mask))
    with autocast(device, precision):
        answer = network(picture, mask)
    uniform_loss(answer.float(), picture, mask).backward()
    slopes = torch.cat([weight.grad.flatten() for weight in network.parameters()])
    return answer.detach().float().cpu(), slopes.float().cpu()


def same_pass(device: torch.device, precision: str):
    rounds_products = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False  # "float32" on a GPU would else round factors to 10 bits
    try:
        (answer, slopes), (wanted, wanted_slopes) = one_pass(device, precision), one_pass(CPU, "float32")
    finally:
        torch.backends.cudnn.allow_tf32 = rounds_products
    off = answer - wanted
    found = (float(off.abs().max()), float(off.square().mean().sqrt()),
             float((slopes - wanted_slopes).norm() / wanted_slopes.norm()))  # fmt: skip
    good = all(value <= limit for value, limit in zip(found, ALLOWED[precision]))
    text = (f"answers differ by {found[0]:.2g} at most ({ALLOWED[precision][0]:g} allowed) and {found[1]:.2g} in root "
            f"mean square ({ALLOWED[precision][1]:g}), gradients by {found[2]:.2g} ({ALLOWED[precision][2]:g})")
    return "passed" if good else "failed", text, {"largest": found[0], "rms": found[1], "gradient": found[2]}


def graph_is_eager(device: torch.device, profile: str, settings: dict):
    """Twelve steps of float32 by each engine, from the same seed, against those from another seed.

    Sums taken in another order shake a fit, and Adam amplifies it, so the answers agree only in part; but a graph
    that repeated its masks, or a wrong rate, would end as far away as another seed does.
    """
    method = B2G.profile(profile, steps=12, learning_rate=2.0**-10, **settings)
    how = dict(device=device, precision="float32", progress=False)
    eager, graph, other = (
        b2g.denoise(noisy_crop()[1], method, engine=engine, seed=seed, **how)
        for engine, seed in (("eager", 0), ("graph", 0), ("eager", 1))
    )
    off, apart = (float(np.sqrt(np.mean((one.image - eager.image) ** 2))) for one in (graph, other))
    text = f"answers differ by {off:.2g} in root mean square; {SHAKEN * apart:.2g} allowed; seeds by {apart:.2g}"
    return "passed" if off <= SHAKEN * apart else "failed", text, {"rms": off, "seeds": apart}


def decibels(device: torch.device, profile: str, steps: int, seeds: int):
    """Means over seeds of the PSNR that whole fits reach, every engine against the CPU in float32."""
    clean, noisy = noisy_crop()
    ways = [("cpu", "float32", "eager"), ("cpu", "bfloat16", "eager")]
    if device.type == "cuda":
        ways += [(str(device), *way) for way in (("float32", "eager"), ("float32", "graph"), ("bfloat16", "graph"))]
    found = {way: np.array([psnr_of(clean, noisy, profile, steps, seed, *way) for seed in range(seeds)]) for way in ways}
    means = {" ".join(way): round(float(values.mean()), 3) for way, values in found.items()}
    spread = float(np.mean([values.std(ddof=1) for values in found.values()]))
    wanted, allowed = found[ways[0]].mean(), NEAR + 3 * spread * (2 / seeds) ** 0.5
    good = all(abs(values.mean() - wanted) <= allowed for values in found.values())
    told = ", ".join(f"{name} {value:.2f}" for name, value in means.items())
    text = f"means of {seeds} seeds in dB: {told}; {allowed:.2f} dB allowed; spread of seeds {spread:.2f} dB"
    return "passed" if good else "failed", text, {"means": means, "spread": spread}


def psnr_of(clean, noisy, profile: str, steps: int, seed: int, device: str, precision: str, engine: str):
    method = B2G.profile(profile, steps=steps)
    how = dict(device=device, seed=seed, precision=precision, engine=engine, progress=False)
    return b2g.psnr(clean, b2g.denoise(noisy, method, **how).image)


def tests(device: torch.device, files: list[str], left):
    """The repository's own tests in ``files``, those for a GPU among them, by pytest."""
    if importlib.util.find_spec("pytest") is None:
        raise Skip("pytest is not installed here")
    words = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", *files]
    try:
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=max(5.0, left() - 5))
    except subprocess.TimeoutExpired:
        return "unfinished", f"{len(files)} files took longer than the time that was left", {}
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    summary = [line for line in lines if line.startswith(("FAILED", "ERROR", "SKIPPED"))] + lines[-1:]
    return "passed" if done.returncode == 0 else "failed", "; ".join(summary)[:1500], {"files": files}
