"""Bring a listed file to this machine, whole and with the right checksum, or say in one sentence why not.

Looked for in this order: the folder B2G_DATA_MIRROR, read in place; the cache, B2G_CACHE or the user's own;
the network, unless B2G_OFFLINE is set. Every file is checked against its SHA-256 each time,
wherever it comes from.
"""

import hashlib
import os
from pathlib import Path

import pooch
from requests.exceptions import RequestException

from b2g.errors import B2GError

_RETRIES = 3
_TIMEOUT = 30.0  # seconds without an answer
_BLOCK = 1 << 18


def cache_folder() -> Path:
    """The folder of downloads: B2G_CACHE, or b2g in the user's cache."""
    own = os.environ.get("B2G_CACHE")
    return Path(own).expanduser() if own else Path(pooch.os_cache("b2g"))


def fetch_file(file: str, sha256: str, address: str) -> Path:
    """The path of a verified copy of `file`, its name in mirror and cache; downloaded if need be.

    Raises
    ------
    B2GError
        When a mirrored file has another checksum, or the file can be had neither here nor from the network.
    """
    mirrored = _in_mirror(file)
    if mirrored is not None:
        if _sha256(mirrored) != sha256:
            raise B2GError(f"{mirrored} is not the file that was listed: its SHA-256 differs; copy it anew, "
                           "or unset B2G_DATA_MIRROR to download it")
        return mirrored
    cached = cache_folder() / file
    if cached.is_file() and _sha256(cached) == sha256:
        return cached
    if os.environ.get("B2G_OFFLINE"):
        raise _unfetched(file, address, "B2G_OFFLINE is set")
    try:
        _download(file, sha256, address)
    except OSError as error:
        raise B2GError(f"{cached} cannot be stored ({error.strerror or error}); set B2G_CACHE to a folder "
                       "with room that you may write to") from error
    return cached


def _in_mirror(file) -> Path | None:
    mirror = os.environ.get("B2G_DATA_MIRROR")
    if not mirror:
        return None
    if not Path(mirror).is_dir():
        raise B2GError(f"B2G_DATA_MIRROR names {mirror}, which is not a folder; correct it or unset it")
    path = Path(mirror) / file
    return path if path.is_file() else None


def _sha256(path) -> str:
    with open(path, "rb") as stream:
        digest = hashlib.sha256()
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _download(file, sha256, address):
    """A temporary file takes its name only after its checksum was found right; a failure is tried again."""
    store = pooch.create(cache_folder(), "", registry={file: f"sha256:{sha256}"}, urls={file: address},
                         retry_if_failed=_RETRIES)
    try:
        store.fetch(file, downloader=pooch.HTTPDownloader(timeout=_TIMEOUT))
    except RequestException as error:
        raise _unfetched(file, address, _reason(error)) from error
    except ValueError as error:
        raise _unfetched(file, address, "what arrives has another SHA-256: it was cut short or changed") from error


def _reason(error) -> str:
    answer = getattr(error, "response", None)
    return "no answer, or the connection broke" if answer is None else f"the server answers {answer.status_code}"


def _unfetched(file, address, reason) -> B2GError:
    return B2GError(f"{address} could not be downloaded ({reason}); check the network, or set B2G_DATA_MIRROR to a "
                    f"folder that holds {file}")
