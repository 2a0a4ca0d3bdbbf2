"""Carry a run out: the one function that a worker calls, on whatever machine it stands."""

from __future__ import annotations

import io
import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image, PngImagePlugin

import b2g
from b2g.errors import B2GError, Diverged
from b2g.fit import autocast
from b2g.runs.plan import Task
from b2g.runs.record import Record
from b2g.runs.spec import Run

LARGEST_KEPT = 160  # side of the central square of an answer that is kept as a picture
LONGEST_HISTORY = 26  # entries of a kept history


@dataclass(frozen=True)
class Outcome:
    """A record, the history along the fit if it was watched, and pictures for the gallery,
    PNG bytes by name."""

    record: Record
    history: list[dict] = field(default_factory=list)
    pictures: dict[str, bytes] = field(default_factory=dict)


Engine = Callable[[Iterable[Task]], Iterator[Outcome]]  # carries runs out; outcomes come in any order


def carry_out(
    run: Run, keep: bool = False, device: str = "auto", precision: str = "auto", threads: int = 0
) -> Outcome:
    """Denoise, score and describe; whatever goes wrong becomes a record with its reason,
    never an exception."""
    if threads:
        torch.set_num_threads(threads)
    try:
        return _carried_out(run, keep, device, precision)
    except Diverged as error:
        return failed(run, "diverged", error, device)
    except (MemoryError, torch.cuda.OutOfMemoryError) as error:
        torch.cuda.empty_cache() if torch.cuda.is_available() else None
        return failed(run, "out of memory", error, device)
    except B2GError as error:
        return failed(run, "refused", error, device)
    except Exception as error:  # a bug in one method must not end the sweep of all
        return failed(run, "failed", f"{type(error).__name__}: {error}", device)


def failed(run: Run, state: str, reason, device: str = "") -> Outcome:
    """The record of a run that came to nothing."""
    text = " ".join(str(reason).split())[:300]
    return Outcome(Record.of(run, state=state, reason=text, **_circumstances(device, "")))


def _carried_out(run: Run, keep: bool, device: str, precision: str) -> Outcome:
    method = run.configured()
    clean = run.clean()
    noisy = run.noisy(clean)
    where = b2g.face.choose_device(device)
    watching = _watching(run, clean, noisy)
    began, cpu = time.perf_counter(), time.process_time()
    result = b2g.denoise(noisy, method, device=where, seed=run.repeat, progress=False, precision=precision, **watching)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    pictures, kept = _kept(run, clean, noisy, result.image) if keep else ({}, {})
    record = Record.of(
        run, **scores(clean, noisy, result.image), **kept, seconds=round(seconds, 2), cpu_seconds=round(cpu, 2),
        **_circumstances(str(where), _precision(where, precision)),
    )  # fmt: skip
    return Outcome(record, _thinned(result.history) if run.watch else [], pictures)


def _watching(run: Run, clean, noisy) -> dict:
    """What `denoise` is given to measure along the way; it changes nothing of the run."""
    if run.watch != "training":
        return {"clean": clean} if run.watch else {}
    from b2g.runs.watch import training

    watch = training(clean, noisy, seed=run.repeat)
    return {"clean": clean, "watch": watch, "log_every": 1 + _steps(run) // LONGEST_HISTORY}


def _steps(run: Run) -> int:
    return getattr(run.configured(), "steps", 1)


def _thinned(history: list[dict]) -> list[dict]:
    """At most LONGEST_HISTORY entries that belong to a step, evenly spaced, the last one among them."""
    history = [entry for entry in history if "step" in entry]
    if len(history) <= LONGEST_HISTORY:
        return history
    return [history[i] for i in np.unique(np.linspace(0, len(history) - 1, LONGEST_HISTORY).round().astype(int))]


def scores(clean, noisy, estimate) -> dict:
    """Every score of an answer, under every convention of :mod:`b2g.metrics`;
    LPIPS where its weights can be had."""
    found = {
        "psnr_noisy": round(b2g.psnr(clean, noisy, clip=False), 4),
        "psnr": round(b2g.psnr(clean, estimate), 4),
        "psnr_8bit": round(b2g.psnr(clean, estimate, rounded=True), 4),
        "ssim_2d": round(b2g.ssim(clean, estimate), 5),
        "ssim_matlab_volume": round(b2g.ssim(clean, estimate, "matlab-volume"), 5) if clean.ndim == 3 else None,
    }
    measure = _lpips()
    found["lpips"] = None if measure is None else round(measure(clean, estimate), 5)
    return found


@cache
def _lpips():
    """LPIPS, or None where its weights cannot be had: asked once, since asking may wait for a network."""
    from b2g.lpips import lpips

    try:
        lpips(np.zeros((64, 64)), np.zeros((64, 64)))
    except B2GError:
        return None
    return lpips


def eight_bits(picture) -> np.ndarray:
    return np.rint(255 * np.clip(picture, 0, 1)).astype(np.uint8)


def _kept(run: Run, clean, noisy, estimate) -> tuple[dict[str, bytes], dict]:
    """The middle of the answer and of the clean picture as PNG, and what the record says of it.

    The noisy picture can be drawn again from its seed, so it is kept only where it has none or was cut.
    """
    height, width = (min(side, LARGEST_KEPT) for side in clean.shape[:2])
    top, left = (clean.shape[0] - height) // 2, (clean.shape[1] - width) // 2
    part = np.s_[top : top + height, left : left + width]
    pixels = eight_bits(estimate[part])
    score = round(b2g.psnr(clean[part], pixels / 255.0), 4)
    pictures = {run.id: png(pixels, run.id), clean_name(run): png(eight_bits(clean[part]), f"{run.picture}, clean")}
    if run.noise == "real" or (height, width) != clean.shape[:2]:
        pictures[noisy_name(run)] = png(eight_bits(noisy[part]), f"{run.picture}, noisy")
    return pictures, {"kept": f"{left},{top},{width},{height}", "psnr_kept": score}


def clean_name(run) -> str:
    """The gallery's name of the clean picture that a run or a record belongs to."""
    return run.picture.replace("/", "-").replace("@", "-") + "-clean"


def noisy_name(run) -> str:
    """The gallery's name of its noisy picture."""
    slug = run.picture.replace("/", "-").replace("@", "-")
    return f"{slug}-{run.noise}-{run.level:g}-{run.repeat}-noisy"


def png(pixels: np.ndarray, identity: str) -> bytes:
    """8-bit pixels as PNG bytes that say which run they belong to."""
    note = PngImagePlugin.PngInfo()
    note.add_text("b2g", identity)
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "PNG", pnginfo=note, optimize=True)
    return data.getvalue()


def _precision(device: torch.device, precision: str) -> str:
    autocast(device, precision)
    with autocast(device, precision):
        return "bfloat16" if torch.is_autocast_enabled(device.type) else "float32"


def _circumstances(device: str, precision: str) -> dict:
    return {
        "device": device, "machine": _machine(device), "precision": precision, "torch": torch.__version__,
        "b2g": b2g.__version__, "commit": _commit(), "finished": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%MZ"),
    }  # fmt: skip


@cache
def _machine(device: str) -> str:
    """The name of the GPU or of the processor, as far as the system tells it."""
    if device.startswith("cuda") and torch.cuda.is_available():
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor() or platform.machine()}, {os.cpu_count()} cores"


@cache
def _commit() -> str:
    """The working copy's commit, with a + where files of the package differ from it; empty when installed."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return ""
    git, how = ["git", "-C", str(root)], {"capture_output": True, "text": True}
    ask = lambda *words: subprocess.run([*git, *words], **how).stdout  # noqa: E731
    return ask("rev-parse", "--short", "HEAD").strip() + ("+" if ask("status", "--porcelain", "b2g").strip() else "")
