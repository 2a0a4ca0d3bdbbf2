"""Picture files: decode to an array in the file's own depth, encode back, never leave half a file.

PNG (8 and 16 bit), TIFF (8, 16 bit and float), JPEG, BMP and WebP. Colour profile and EXIF travel along.
"""

import io
import os
import secrets
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
import png
import tifffile
from PIL import Image

from b2g.errors import B2GError

_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".bmp": "BMP", ".webp": "WEBP", ".tif": "TIFF",
            ".tiff": "TIFF"}
_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# TIFF's plain text and placement tags: description, maker, model, orientation, date, artist, copyright.
_TIFF_KEPT = (270, 271, 272, 274, 306, 315, 33432)


@dataclass(frozen=True)
class Decoded:
    """A decoded picture: `array` (H, W) or (H, W, 1..4) in the file's depth, and what travels with it."""

    array: np.ndarray
    icc: bytes | None = None
    exif: bytes | None = None


def from_pillow(picture: Image.Image, name: str) -> Decoded:
    """Decode an open PIL image of mode L, LA, RGB, RGBA, P, PA or I;16; refuse the others by name."""
    # A camera's JPEG may carry previews as further frames (MPO); the first one is the picture.
    if getattr(picture, "n_frames", 1) > 1 and picture.format != "MPO":
        raise B2GError(f"{name} holds {picture.n_frames} frames; save the one to denoise as a picture of its "
                       "own")
    icc, exif = picture.info.get("icc_profile"), picture.info.get("exif")
    if picture.mode in ("P", "PA"):
        picture = picture.convert("RGBA" if picture.mode == "PA" or "transparency" in picture.info else "RGB")
    elif "transparency" in picture.info and picture.mode in ("L", "RGB"):
        picture = picture.convert("LA" if picture.mode == "L" else "RGBA")
    # Older Pillow opens 16-bit gray PNG as 32-bit "I"; a PNG never holds more than 16.
    sixteen = picture.mode.startswith("I;16") or (picture.mode == "I" and picture.format == "PNG")
    if not sixteen and picture.mode not in ("L", "LA", "RGB", "RGBA"):
        raise B2GError(f"{name} has colour mode {picture.mode}, which is not gray or RGB with 8 or 16 bits "
                       "per channel; convert it first, e.g. with picture.convert('RGB')")
    return Decoded(np.asarray(picture).astype(np.uint16 if sixteen else np.uint8), icc, exif)


def _decode_png16(data: bytes, name: str) -> Decoded:
    """16 bits per channel, which Pillow would cut to 8 in colour."""
    reader = png.Reader(bytes=data)
    width, height, rows, header = reader.read()
    array = np.stack([np.frombuffer(row, np.uint16) for row in rows]).reshape(height, width, header["planes"])
    if reader.trns is not None:
        raise B2GError(f"{name} has a transparent colour; flatten it onto an opaque background first")
    chunks = dict(png.Reader(bytes=data).chunks())
    profile = chunks.get(b"iCCP")
    icc = zlib.decompress(profile.split(b"\0", 1)[1][1:]) if profile else None
    exif = b"Exif\0\0" + chunks[b"eXIf"] if b"eXIf" in chunks else None
    return Decoded(array[..., 0] if array.shape[2] == 1 else array, icc, exif)


def _decode_tiff(data: bytes, name: str) -> Decoded:
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        if len(tiff.pages) != 1:
            raise B2GError(f"{name} holds {len(tiff.pages)} pages; save the one to denoise as a picture of "
                           "its own, or pass the stack as an array, page by page")
        page = tiff.pages[0]
        exif = _exif_of({code: page.tags[code].value for code in _TIFF_KEPT if code in page.tags})
        array = _tiff_pixels(page)
        icc = page.iccprofile
    if array is None:  # a compression or a colour model that Pillow may know
        with Image.open(io.BytesIO(data)) as picture:
            array = from_pillow(picture, name).array
    return Decoded(array, icc, exif)


def _tiff_pixels(page):
    """The page as (H, W) or (H, W, C), or None where tifffile alone cannot decode it."""
    if page.photometric.name not in ("MINISBLACK", "MINISWHITE", "RGB"):
        return None
    try:
        array = page.asarray()
    except ValueError as error:
        if "imagecodecs" in str(error):
            return None
        raise
    array = np.moveaxis(array, 0, -1) if page.axes == "SYX" else array
    return np.iinfo(array.dtype).max - array if page.photometric.name == "MINISWHITE" else array


def _exif_of(tags):
    if not tags:
        return None
    exif = Image.Exif()
    exif.update(tags)
    return exif.tobytes()


def _tiff_tags_of(exif):
    if not exif:
        return ()
    read = Image.Exif()
    read.load(exif)
    return [(code, "H" if code == 274 else "s", 1 if code == 274 else 0, read[code], True)
            for code in _TIFF_KEPT if code in read]


def _decode(data: bytes, name: str) -> Decoded:
    if data.startswith(_TIFF_MAGIC):
        return _decode_tiff(data, name)
    if data.startswith(b"\x89PNG") and data[24:25] == b"\x10":
        return _decode_png16(data, name)
    with Image.open(io.BytesIO(data)) as picture:
        return from_pillow(picture, name)


def decode(path) -> Decoded:
    """Decode the picture file at `path`; B2GError when it is missing, corrupt or of many pages."""
    path = Path(path).expanduser()
    try:
        return _decode(path.read_bytes(), str(path))
    except (B2GError, MemoryError):
        raise
    except FileNotFoundError:
        raise B2GError(f"{path} does not exist; check the name and the folder {Path.cwd()}") from None
    except Exception as error:  # decoders raise nearly every kind of exception on corrupt bytes
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise B2GError(f"{path} cannot be read as a picture ({reason}); check that it is a whole PNG, TIFF, "
                       "JPEG, BMP or WebP file that you may read") from error


def _encode_png16(array, icc, exif) -> bytes:
    height, width = array.shape[:2]
    planes = 1 if array.ndim == 2 else array.shape[2]
    writer = png.Writer(width, height, greyscale=planes < 3, alpha=planes in (2, 4), bitdepth=16)
    plain, out = io.BytesIO(), io.BytesIO()
    writer.write_packed(plain, (row.tobytes() for row in array.astype(">u2")))
    header, *rest = png.Reader(bytes=plain.getvalue()).chunks()
    extra = [(b"iCCP", b"ICC profile\0\0" + zlib.compress(icc))] if icc else []
    extra += [(b"eXIf", exif.removeprefix(b"Exif\0\0"))] if exif else []
    png.write_chunks(out, [header, *extra, *rest])
    return out.getvalue()


def _encode_tiff(array, icc, exif) -> bytes:
    planes = 1 if array.ndim == 2 else array.shape[2]
    out = io.BytesIO()
    tifffile.imwrite(
        out, array, photometric="rgb" if planes > 2 else "minisblack", compression="zlib",
        planarconfig="contig" if planes > 1 else None,
        extrasamples=["unassalpha"] if planes in (2, 4) else None,
        iccprofile=icc, extratags=_tiff_tags_of(exif), metadata=None, software=False)
    return out.getvalue()


def check_encodable(suffix: str, depth: str, name: str) -> str:
    """The format that `suffix` names, if it can hold values of NumPy type `depth`; else B2GError."""
    kind = _FORMATS.get(suffix.lower())
    if kind is None:
        raise B2GError(f"{name}: the suffix {suffix!r} names no format that can be written; use one of "
                       f"{', '.join(sorted(_FORMATS))}")
    if depth == "uint16" and kind not in ("PNG", "TIFF"):
        raise B2GError(f"{name}: {kind} holds 8 bits per channel and the picture has 16; use .png or .tif")
    return kind


def encode(array: np.ndarray, suffix: str, name="picture", icc=None, exif=None) -> bytes:
    """The bytes of a picture file: `array` (H, W) or (H, W, 1..4), alpha opaque.

    Integers keep their depth. Floats keep theirs in TIFF; elsewhere they are clipped and rounded to 8 bits.
    """
    kind = check_encodable(suffix, array.dtype.name, name)
    array = array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array
    if kind != "TIFF" and array.dtype.kind == "f":
        array = np.rint(array.astype(np.float64).clip(0, 1) * 255).astype(np.uint8)
    if kind in ("JPEG", "BMP") and array.ndim == 3 and array.shape[2] in (2, 4):
        array = array[..., :-1] if array.shape[2] == 4 else array[..., 0]  # opaque by the rule of b2g.images
    if kind == "TIFF":
        return _encode_tiff(array, icc, exif)
    if array.dtype == np.uint16:
        return _encode_png16(array, icc, exif)
    out, travel = io.BytesIO(), {key: value for key, value in (("icc_profile", icc), ("exif", exif)) if value}
    best = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}}.get(kind, {})
    try:
        Image.fromarray(np.ascontiguousarray(array)).save(out, kind, **best, **({} if kind == "BMP" else travel))
    except (OSError, ValueError) as error:  # WebP ends at 16383 pixels, JPEG at 65535, its EXIF at 64 KiB
        raise B2GError(f"{name}: {kind} cannot hold this picture ({error}); use .png or .tif") from error
    return out.getvalue()


def carried(*parts):
    """A file or folder that comes with the package: b2g/_data in a wheel,
    data/ beside the package in a working copy."""
    packaged = resources.files("b2g").joinpath("_data", *parts)
    here = packaged.is_file() or packaged.is_dir()
    return packaged if here else Path(__file__).parents[1].joinpath("data", *parts)


@contextmanager
def replacing(path):
    """A temporary file beside `path` to write bytes to; on success it takes the name, else it is removed."""
    path = Path(path).expanduser()
    temporary = path.with_name(f".{path.name[:200]}.{secrets.token_hex(6)}.part")
    try:
        with open(temporary, "xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
