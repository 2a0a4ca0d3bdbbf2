"""Bring a listed file to this machine, whole and with the right checksum, or say in one sentence why not.

Looked for in this order: the folder B2G_DATA_MIRROR, read in place; the cache, B2G_CACHE or the user's own;
the network. Every file is checked against its SHA-256 each time, wherever it comes from.
"""

import hashlib
import http.client
import os
import time
import urllib.error
import urllib.request
from pathlib import Path

from b2g.errors import B2GError
from b2g.files import replacing

_WAITS = (1.0, 3.0, 9.0)  # seconds before the second, third and fourth attempt
_TIMEOUT = 30.0  # seconds without an answer
_BLOCK = 1 << 18


def cache_folder() -> Path:
    """The folder of downloads: B2G_CACHE, or b2g in the user's cache ($XDG_CACHE_HOME, else ~/.cache)."""
    own = os.environ.get("B2G_CACHE")
    if own:
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "b2g"


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
    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        _download(address, cached, sha256)
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


def _download(address, target, sha256):
    """Try a few times; the file takes its name only after its checksum was found right."""
    for wait in (*_WAITS, None):
        try:
            return _download_once(address, target, sha256)
        except _Unfetched as error:
            if wait is None or error.final:
                kept = target.relative_to(cache_folder()).as_posix()
                raise B2GError(f"{address} could not be downloaded ({error}); check the network, or set "
                               f"B2G_DATA_MIRROR to a folder that holds {kept}") from error
            time.sleep(wait)


class _Unfetched(Exception):
    def __init__(self, reason, final=False):
        super().__init__(reason)
        self.final = final


def _download_once(address, target, sha256):
    request, digest = urllib.request.Request(address, headers={"User-Agent": "b2g"}), hashlib.sha256()
    try:
        answer = urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        final = error.code in (401, 403, 404, 410)
        raise _Unfetched(f"the server answers {error.code}", final) from None
    except (OSError, http.client.HTTPException) as error:
        raise _Unfetched(str(getattr(error, "reason", error))) from error
    with answer, replacing(target) as stream:
        while block := _read(answer):
            digest.update(block)
            stream.write(block)
        if digest.hexdigest() != sha256:
            raise _Unfetched("what arrived has another SHA-256: it was cut short or changed")


def _read(answer) -> bytes:
    try:
        return answer.read(_BLOCK)
    except (OSError, http.client.HTTPException) as error:
        raise _Unfetched(f"the connection broke: {error}") from error
