"""Published weights by name: rows of data/manifest-weights.csv, with address, checksum and terms.

Like the pictures they are looked for in B2G_DATA_MIRROR, then in the cache, then fetched (see `b2g.fetch`). A
row may list only the first digits of its SHA-256, where the publisher's file name carries those and no more.
"""

import csv
import hashlib
import os
from functools import cache
from pathlib import Path

import pooch
from requests.exceptions import RequestException

from b2g.errors import B2GError
from b2g.fetch import cache_folder, fetch_file
from b2g.files import carried

_WHOLE = 64  # hex digits of a SHA-256
_TIMEOUT = 30.0  # seconds without an answer


def weights() -> dict[str, dict]:
    """All rows by name: file, sha256, bytes, address, terms, citation."""
    return dict(_rows())


def fetch_weights(name: str) -> Path:
    """The path of a verified copy of the listed weights `name`.

    Raises
    ------
    B2GError
        When there is no such name, a mirrored file has another checksum, or the file cannot be had.
    """
    if name not in _rows():
        raise B2GError(f"weights {name!r} are not known; use one of {', '.join(_rows())}")
    row = _rows()[name]
    if len(row["sha256"]) == _WHOLE:
        return fetch_file(row["file"], row["sha256"], row["address"])
    return _by_first_digits(row["file"], row["sha256"], row["address"])


def _by_first_digits(file, digits, address) -> Path:
    mirror = os.environ.get("B2G_DATA_MIRROR")
    for folder in ([Path(mirror)] if mirror else []) + [cache_folder()]:
        if (folder / file).is_file() and _begins(folder / file, digits):
            return folder / file
    if os.environ.get("B2G_OFFLINE"):
        raise B2GError(f"{address} could not be downloaded (B2G_OFFLINE is set); put the file into "
                       f"{(cache_folder() / file).parent}")
    return _download(cache_folder() / file, digits, address)


def _begins(path, digits) -> bool:
    return hashlib.sha256(path.read_bytes()).hexdigest().startswith(digits)


def _download(path, digits, address) -> Path:
    """The file takes its name only after its checksum was found right."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        pooch.HTTPDownloader(timeout=_TIMEOUT)(address, str(partial), None)
        if not _begins(partial, digits):
            raise B2GError(f"{address} could not be downloaded (what arrives has another SHA-256); try again later")
        os.replace(partial, path)
    except RequestException as error:
        raise B2GError(f"{address} could not be downloaded (no answer, or it was refused); check the network, or put "
                       f"the file into the folder {path.parent}") from error
    except OSError as error:
        raise B2GError(f"{path} cannot be stored ({error.strerror or error}); set B2G_CACHE to a folder with room "
                       "that you may write to") from error
    finally:
        partial.unlink(missing_ok=True)
    return path


@cache
def _rows() -> dict[str, dict]:
    return {row["name"]: row for row in csv.DictReader(carried("manifest-weights.csv").read_text("utf-8").splitlines())}
