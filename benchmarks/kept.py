"""What the benchmarks keep in data/records/: small tables with a machine in every row, sorted, a row a case."""

from __future__ import annotations

import csv
import io
from dataclasses import fields
from pathlib import Path

import torch

from b2g.files import replacing
from b2g.report.benchmarks import FILES
from b2g.runs.work import _machine, _precision

RECORDS = Path(__file__).parents[1] / "data" / "records"


def about(device: torch.device, precision: str) -> dict:
    """The circumstances that every row tells."""
    return {"device": str(device), "machine": _machine(str(device)), "precision": _precision(device, precision),
            "threads": torch.get_num_threads(), "torch": torch.__version__}  # fmt: skip


def stored(path: Path) -> list[dict]:
    """The rows of a table; none where there is no such file yet."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def keep(kind: type, rows: list[dict], key: tuple[str, ...], folder: Path = RECORDS) -> Path:
    """Add rows to the table of ``kind`` (:mod:`b2g.report.benchmarks`); of two with one ``key`` the new one stays."""
    path, names = folder / FILES[kind], [*(f.name for f in fields(kind)), "torch"]
    known = stored(path)
    written = [{name: _text(row[name]) for name in names} for row in rows]
    merged = {tuple(row[name] for name in key): row for row in [*known, *written]}
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(merged[one] for one in sorted(merged, key=_natural))
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        file.write(text.getvalue().encode())
    return path


def _text(value) -> str:
    return "" if value is None else f"{value:.5g}" if isinstance(value, float) else str(value)


def _natural(key: tuple) -> list:
    """Numbers by their size."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in key]
