"""One picture, one noise, several methods in one run: PSNR, SSIM, seconds, and a crop of each answer to look at.

    python benchmarks/compare.py set9/F16 --sigma 25 --steps 600 --jobs 2

Fitted methods get the same number of steps (``--steps``), whatever their profile asks for; ZS-N2N and BM3D run as
published. The rows go to data/records/comparison.csv, keyed by the run's identity: a row that exists is not
run again, so a killed call goes on where it stopped. The crops go to data/gallery/ with the identity in their
metadata. Seconds are CPU seconds of one thread, so that a busy machine does not change the order.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import os
import platform
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from PIL import Image, PngImagePlugin

import b2g
from b2g.files import replacing
from b2g.method import canonical_json

ROOT = Path(__file__).resolve().parents[1]
RECORDS, GALLERY = ROOT / "data/records/comparison.csv", ROOT / "data/gallery"
CROP = 160
COLUMNS = (
    "id picture noise level repeat method profile steps steps_of_profile sigma psnr_noisy psnr ssim_2d "
    "ssim_matlab_volume cpu_seconds device precision machine torch b2g settings"
).split()


def plan(steps: int) -> list[tuple[str, str, dict]]:
    """The rows of the comparison, the dearest first so that two processes end together.

    ``fast`` runs twice: at the common number of steps, and at its own, as ``b2g denoise`` runs it.
    """
    same = {"steps": steps}
    return [
        ("b2g", "paper", same),
        ("self2self", "official", same),
        ("self2self", "short", same),
        ("b2g", "faithful", same),
        ("b2g", "fast", {}),
        ("b2g", "fast", same),
        ("zs_n2n", "official", {}),
        ("bm3d", "official", {}),
        ("bm3d", "official", {"sigma": "given"}),
    ]


def specification(picture: str, sigma: float, repeat: int, method: str, profile: str, changes: dict) -> dict:
    """What the run is: everything its outcome depends on, and so its identity."""
    changes = {key: sigma if value == "given" else value for key, value in changes.items()}
    configured = b2g.methods.METHODS[method].profile(profile, **changes)
    clean = b2g.load(picture)
    return {
        "picture": picture,
        "clean_sha256": hashlib.sha256(np.ascontiguousarray(clean).tobytes()).hexdigest(),
        "noise": "gaussian",
        "level": sigma,
        "repeat": repeat,
        "seed": repeat,
        "method": configured.identity(),
    }


def identity(spec: dict) -> str:
    return hashlib.sha256(canonical_json(spec).encode()).hexdigest()[:16]


def run(picture: str, sigma: float, repeat: int, method: str, profile: str, changes: dict, device: str) -> dict:
    """Carry one row out and save its crop."""
    torch.set_num_threads(1)
    spec = specification(picture, sigma, repeat, method, profile, changes)
    changes = {key: sigma if value == "given" else value for key, value in changes.items()}
    clean = b2g.load(picture)
    noisy = b2g.add_noise(clean, "gaussian", sigma, seed=(*picture.split("/"), "gaussian", sigma, repeat))
    began = time.process_time()
    result = b2g.denoise(noisy, method, profile, device=device, seed=repeat, progress=False, **changes)
    seconds = time.process_time() - began
    name = identity(spec)
    save_crop(GALLERY / f"{name}.png", result.image, spec)
    stem = f"{picture.replace('/', '-')}-{sigma:g}"
    for kind, image in (("clean", clean), ("noisy", noisy)):
        save_crop(GALLERY / f"{stem}-{kind}.png", image, {"picture": picture, "kind": kind})
    published = b2g.methods.METHODS[method].profile(profile)
    return {
        "id": name,
        "picture": picture,
        "noise": "gaussian",
        "level": sigma,
        "repeat": repeat,
        "method": method,
        "profile": profile,
        "steps": result.config.get("steps", ""),
        "steps_of_profile": getattr(published, "steps", ""),
        "sigma": "given" if changes.get("sigma") else "estimated" if method == "bm3d" else "not used",
        "psnr_noisy": f"{b2g.psnr(clean, noisy, clip=False):.4f}",
        "psnr": f"{b2g.psnr(clean, result.image):.4f}",
        "ssim_2d": f"{b2g.ssim(clean, result.image):.5f}",
        "ssim_matlab_volume": f"{b2g.ssim(clean, result.image, 'matlab-volume'):.5f}" if clean.ndim == 3 else "",
        "cpu_seconds": f"{seconds:.1f}",
        "device": result.device,
        "precision": "bfloat16" if torch.ops.mkldnn._is_mkldnn_bf16_supported() else "float32",
        "machine": machine(),
        "torch": torch.__version__,
        "b2g": b2g.__version__,
        "settings": result.identity,
    }


def machine() -> str:
    """The processor's name, as far as the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor() or platform.machine()}, {os.cpu_count()} cores"


def save_crop(path: Path, image, spec: dict) -> None:
    """The middle CROP x CROP pixels as PNG, the specification in its metadata."""
    top, left = ((side - CROP) // 2 for side in image.shape[:2])
    crop = np.clip(image[max(0, top) :, max(0, left) :][:CROP, :CROP], 0, 1)
    note = PngImagePlugin.PngInfo()
    note.add_text("b2g", canonical_json(spec))
    data = io.BytesIO()
    Image.fromarray(np.uint8(np.round(crop * 255))).save(data, "PNG", pnginfo=note, optimize=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        file.write(data.getvalue())


def read_records() -> dict[str, dict]:
    if not RECORDS.exists():
        return {}
    with open(RECORDS, newline="") as file:
        return {row["id"]: row for row in csv.DictReader(file)}


def write_records(records: dict[str, dict]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(records[key] for key in sorted(records))
    RECORDS.parent.mkdir(parents=True, exist_ok=True)
    with replacing(RECORDS) as file:
        file.write(text.getvalue().encode())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("picture")
    parser.add_argument("--sigma", type=float, default=25.0)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--repeat", type=int, default=0, help="which draw of noise and weights")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--only", nargs="+", metavar="METHOD/PROFILE", help="e.g. b2g/fast zs_n2n/official")
    options = parser.parse_args()
    try:
        b2g.load(options.picture)
    except b2g.B2GError as error:
        print(error, file=sys.stderr)
        return 2
    records = read_records()
    rows = [(options.picture, options.sigma, options.repeat, *row) for row in plan(options.steps)]
    if options.only:
        rows = [row for row in rows if f"{row[3]}/{row[4]}" in options.only]
    todo = [row for row in rows if identity(specification(*row)) not in records]
    print(f"{len(rows)} rows, {len(rows) - len(todo)} done already", flush=True)
    failed = 0
    with ProcessPoolExecutor(options.jobs) as pool:
        futures = {pool.submit(run, *row, options.device): row for row in todo}
        for future in as_completed(futures):
            row = futures[future]
            try:
                record = future.result()
            except b2g.B2GError as error:
                failed += 1
                print(f"{row[3]} {row[4]}: {error}", file=sys.stderr, flush=True)
                continue
            records = read_records() | {record["id"]: record}
            write_records(records)
            line = f"{record['method']:10} {record['profile']:9} {record['psnr']} dB  {record['cpu_seconds']} s"
            print(line, flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
