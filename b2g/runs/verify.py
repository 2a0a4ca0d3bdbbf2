"""Verify what is stored: ids, digests, and the scores of the pictures that were kept."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

import b2g
from b2g import datasets
from b2g.errors import B2GError
from b2g.runs.record import Record
from b2g.runs.work import carry_out

TOLERANCE = 2e-4  # dB: scores are stored with four decimals
RERUN_TOLERANCE = 0.05  # dB: another machine adds in another order, and a fit amplifies it


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be."""

    id: str
    problem: str


def verify(records: Iterable[Record], gallery: str | Path) -> Iterator[Finding]:
    """Check every record against the manifest and its kept picture; yields what is wrong.

    A record's id is checked on reading (:meth:`Record.read`). Here: the digest is the one listed today; a
    kept picture is there, names its run, and has the stored PSNR against the clean picture. Pictures that no
    record names are reported as well.
    """
    gallery, named = Path(gallery), set()
    for record in records:
        named.add(record.id)
        yield from (Finding(record.id, problem) for problem in _problems(record, gallery))
    for path in sorted(gallery.glob("*.png")):
        if re.fullmatch("[0-9a-f]{16}", path.stem) and path.stem not in named:
            yield Finding(path.stem, "its picture lies in the gallery, but it has no record")


def _problems(record: Record, gallery: Path) -> Iterator[str]:
    try:
        digest = datasets.digest(record.picture)[:16]
    except B2GError as error:
        yield str(error)
        return
    if digest != record.digest:
        yield f"{record.picture} is listed with the digest {digest}, but was {record.digest} then"
    elif record.kept:
        yield from _picture_problems(record, gallery / f"{record.id}.png")


def _picture_problems(record: Record, path: Path) -> Iterator[str]:
    if not path.is_file():
        yield "its picture is not in the gallery"
        return
    with Image.open(io.BytesIO(path.read_bytes())) as picture:
        written, pixels = picture.text.get("b2g"), np.asarray(picture)
    if written != record.id:
        yield f"its picture says that it belongs to {written}"
    left, top, width, height = map(int, record.kept.split(","))
    clean = datasets.load(record.picture)[top : top + height, left : left + width]
    if pixels.shape != clean.shape:
        yield f"its picture is {pixels.shape}, but {clean.shape} was kept"
        return
    score = b2g.psnr(clean, pixels / 255.0)
    if abs(score - record.psnr_kept) > TOLERANCE:
        yield f"its picture scores {score:.4f} dB, but {record.psnr_kept:.4f} dB is stored"


def rerun(record: Record, device: str = "auto") -> Finding | None:
    """Carry a done run out again; a finding if the PSNR is another one."""
    again = carry_out(record.run(), device=device).record
    if not again.done:
        return Finding(record.id, f"run again, it is {again.state}: {again.reason}")
    if abs(again.psnr - record.psnr) > RERUN_TOLERANCE:
        return Finding(record.id, f"run again, it has {again.psnr:.4f} dB, but {record.psnr:.4f} dB is stored")
    return None
