"""Weights trained here: safetensors files whose header says what they are, and the released ones by manifest.

A released file is a row of data/manifest-released.csv (name, file, sha256, bytes, recipe, record) and lies in
data/weights/, with its training record beside it. Nothing is unpickled: safetensors holds numbers and text.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from b2g.errors import B2GError
from b2g.files import carried, replacing
from b2g.method import canonical_json

COLUMNS = ("name", "file", "sha256", "bytes", "recipe", "record")
MOST_BYTES = 5_000_000


def write_weights(path: Path, state: dict[str, Tensor], header: dict[str, str]) -> str:
    """Write a network's ``state`` and a ``header`` of texts, whole or not at all; the SHA-256 of the file.

    Convolutions are kept in half precision: the rounding is far below that of a pass in mixed precision.
    """
    kept = {
        name: (value.half() if value.is_floating_point() and value.ndim > 1 else value).cpu().contiguous()
        for name, value in state.items()
    }
    # One entry: several would stand in the file in any order, and equal weights would not be equal files.
    content = save(kept, {"b2g": canonical_json(header)})
    with replacing(path) as file:
        file.write(content)
    return hashlib.sha256(content).hexdigest()


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The state (floats as float32) and the header of a file that :func:`write_weights` wrote."""
    try:
        with safe_open(path, "pt") as file:
            header = json.loads((file.metadata() or {}).get("b2g", "{}"))
            state = {name: file.get_tensor(name) for name in file.keys()}
    except FileNotFoundError:
        raise B2GError(f"weights {path} do not exist; name a file that 'b2g train' wrote.") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise B2GError(f"{path} is not a whole safetensors file; name one that 'b2g train' wrote.") from error
    return {k: v.float() if v.is_floating_point() else v for k, v in state.items()}, header


def load_into(network: torch.nn.Module, path: Path, method: str, channels: int) -> torch.nn.Module:
    """``network`` with the weights of the file at ``path``,
    which must be ``method``'s for as many ``channels``."""
    state, header = read_weights(path)
    found = header.get("method", "no method"), header.get("channels", "no")
    if found != (method, str(channels)):
        raise B2GError(f"{path} holds weights of {found[0]} for {found[1]} channels, not of {method} for {channels}; "
                       f"train them with 'b2g train {method} --channels {channels}'.")
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise B2GError(f"{path} holds weights of another shape than these settings of {method}; "
                       "use the settings it was trained with.") from error
    return network


def release_name(method: str, recipe: str, channels: int) -> str:
    """The name under which weights are released, such as ``noise2noise-small-3``."""
    return f"{method}-{recipe}-{channels}"


def released() -> dict[str, dict]:
    """The rows of the manifest by name."""
    rows = csv.DictReader(carried("manifest-released.csv").read_text("utf-8").splitlines())
    return {row["name"]: row for row in rows}


def released_file(method: str, recipe: str, channels: int) -> Path:
    """The verified file of released weights; where there are none, a sentence that says how to make them."""
    row = released().get(release_name(method, recipe, channels))
    if row is None:
        raise B2GError(f"{method} has no released weights of recipe {recipe!r} for {channels} channel"
                       f"{'s' if channels > 1 else ''}; run 'b2g train {method} --recipe {recipe} --channels "
                       f"{channels} -o FILE' and set weights=FILE.")
    path = Path(str(carried(*row["file"].split("/"))))
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != row["sha256"]:
        raise B2GError(f"{path} is missing or not the file that was released; fetch it again.")
    return path


def release(path: Path, data: Path) -> dict:
    """File trained weights, and their record, under ``data`` (that of a working copy): the manifest's row.

    A row of the same name is replaced. Refused: more than 5 MB, or no training record beside the file.
    """
    path, data = Path(path), Path(data)
    _, header = read_weights(path)
    if "recipe" not in header:
        raise B2GError(f"{path} was not written by 'b2g train'; only what it wrote can be released.")
    record = path.with_suffix(".json")
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if len(content) > MOST_BYTES:
        raise B2GError(f"{path} has {len(content)} bytes; released weights have at most {MOST_BYTES}.")
    if _told(record).get("sha256") != digest:
        raise B2GError(f"{record}, the record of this training, is missing, damaged or another one's; train again.")
    name = release_name(header["method"], json.loads(header["recipe"])["name"], int(header["channels"]))
    file, kept = f"weights/{name}.safetensors", f"weights/{name}.json"
    row = dict(zip(COLUMNS, (name, file, digest, len(content), header["recipe"], kept)))
    (data / "weights").mkdir(exist_ok=True)
    for source, target in ((content, row["file"]), (record.read_bytes(), row["record"])):
        with replacing(data / target) as file:
            file.write(source)
    _list(row, data / "manifest-released.csv")
    return row


def _told(record: Path) -> dict:
    """What a training record says; nothing where there is none that can be read."""
    try:
        found = json.loads(record.read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _list(row: dict, manifest: Path) -> None:
    """Put ``row`` into the manifest, in the place of one of its name; the rows in order of their names."""
    listed = csv.DictReader(manifest.read_text("utf-8").splitlines())
    rows = {one["name"]: one for one in listed} | {row["name"]: row}
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows[name] for name in sorted(rows))
    with replacing(manifest) as file:
        file.write(text.getvalue().encode())
