"""The boundary: a caller's picture becomes float32 (B, C, H, W) in [0, 1], and goes home as it came.

Inside the package a picture is a tensor; outside it may be a NumPy array, a tensor, a PIL image or a file, of
8 or 16 bits or floating point. Whatever comes in is checked here, once (see `b2g.checks`).
"""

import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from b2g import checks, files
from b2g.errors import B2GError


@dataclass(frozen=True, eq=False)
class Incoming:
    """A picture, or several of one size, on its way through the package.

    Attributes
    ----------
    batch : float32 tensor (B, C, H, W) on the caller's device, C = 1 or 3, nominally in [0, 1]
        Floating-point input is not clipped: noise below 0 and above 1 is information.
    kind : "array", "tensor", "pil" or "file"
    shape : the caller's own shape, alpha included
    dtype : the caller's own NumPy or torch dtype
    name : what to call the picture in a message
    """

    batch: torch.Tensor
    kind: str
    shape: tuple
    dtype: object
    name: str
    icc: bytes | None = field(default=None, repr=False)
    exif: bytes | None = field(default=None, repr=False)

    def restore(self, estimate: torch.Tensor):
        """Give back `estimate` (B, C, H, W) as the caller's own kind, layout, depth and device.

        Floats are clipped to [0, 1]; integers are clipped and rounded; an opaque alpha channel returns.
        A picture that came from a file returns as a NumPy array, ready for `write(path, array, like=self)`.
        """
        self._check_shape(estimate)
        unit = estimate.detach().clamp(0, 1)
        if self.kind == "tensor":
            return _to_depth(unit.to(self.batch.device).reshape(self.shape), self.dtype)
        array = _channels_last(unit)
        if len(self.shape) > 2 and self.shape[-1] in (2, 4):
            array = np.concatenate([array, np.ones_like(array[..., :1])], axis=-1)
        scaled = array.reshape(self.shape).astype(np.float64) * checks.full_scale(self.dtype)
        array = (np.rint(scaled) if self.dtype.kind == "u" else scaled).astype(self.dtype)
        return self._as_pil(array) if self.kind == "pil" else array

    def arrange(self, batch: torch.Tensor):
        """Give back `batch` (B, C, H, W) in the caller's kind and layout, but unclipped and without alpha.

        The floating-point depth stays that of `batch`. PIL images and files come back as NumPy arrays.
        """
        self._check_shape(batch)
        if self.kind == "tensor":
            return batch.detach().to(self.batch.device).reshape(self.shape).clone()
        array = _channels_last(batch.detach())
        if len(self.shape) == 4:
            return array
        return array[0, ..., 0] if len(self.shape) == 2 or self.shape[2] == 2 else array[0]

    def _check_shape(self, batch):
        if tuple(batch.shape) != tuple(self.batch.shape):
            raise B2GError(f"an estimate of shape {tuple(batch.shape)} does not belong to {self.name}, whose "
                           f"batch has shape {tuple(self.batch.shape)}")

    def _as_pil(self, array):
        picture = Image.fromarray(array)
        travel = {"icc_profile": self.icc, "exif": self.exif}
        picture.info.update({key: value for key, value in travel.items() if value})
        return picture


def to_batch(image) -> Incoming:
    """Take in one picture, or several of one size in one array, and check it.

    Parameters
    ----------
    image : one of
        NumPy array (H, W), (H, W, C) or (N, H, W, C), C = 1, 3 or 4 (opaque alpha);
        torch tensor (H, W), (C, H, W) or (B, C, H, W), C = 1 or 3;
        PIL image of mode L, RGB, I;16, P, LA or RGBA (opaque); or the path of a picture file.
        Depth: uint8 (0..255), uint16 (0..65535), or floating point around [0, 1].

    Raises
    ------
    B2GError
        One sentence that names the input, what is wrong with it and how to mend it.
    """
    if isinstance(image, torch.Tensor):
        return _from_tensor(image)
    if isinstance(image, np.ndarray):
        return _from_array(image)
    if isinstance(image, Image.Image):
        return _from_pil(image)
    if isinstance(image, str | Path):
        return _from_decoded(files.decode(image), "file", str(image))
    raise B2GError(f"a picture cannot be made from {type(image).__module__}.{type(image).__name__}; pass a "
                   "NumPy array, a torch tensor, a PIL image or the path of a picture file")


def read(path) -> np.ndarray:
    """Read a picture file as a NumPy array (H, W) or (H, W, 3) in its own depth, opaque alpha dropped."""
    incoming = to_batch(Path(path))
    array, channels = incoming.restore(incoming.batch), incoming.batch.shape[1]
    return array if channels == 1 and array.ndim == 2 else array[..., 0] if channels == 1 else array[..., :3]


def write(path, image, like: Incoming | None = None) -> None:
    """Write `image` to the picture file `path` in its own depth: the whole file or none of it.

    Parameters
    ----------
    path : the suffix names the format: .png, .tif, .tiff, .jpg, .jpeg, .bmp or .webp.
        PNG and TIFF hold uint8 and uint16, the others uint8 only. TIFF keeps floats as they are, also
        outside [0, 1]; the others clip them to [0, 1] and round them to 8 bits.
    image : any single picture that `to_batch` takes.
    like : the Incoming whose colour profile and EXIF shall travel along; to and from TIFF, of EXIF only its
        plain tags do (orientation, maker, model, date, description, artist, copyright); BMP holds neither.

    Raises
    ------
    B2GError
        When the format cannot hold the picture, or the folder cannot be written to.
    """
    path = Path(path).expanduser()
    array = _one_picture(image, path)
    travel = {"icc": like.icc, "exif": like.exif} if like is not None else {}
    data = files.encode(array, path.suffix, str(path), **travel)
    try:
        with files.replacing(path) as stream:
            stream.write(data)
    except OSError as error:
        raise B2GError(f"{path} cannot be written ({error.strerror or error}); check that the folder exists, "
                       "has room and lets you write") from error


def check_writable(path, like: Incoming) -> None:
    """Refuse, before any work is done, what `write(path, like.restore(...))` would refuse after it."""
    path = Path(path).expanduser()
    files.check_encodable(path.suffix, checks.depth_name(like.dtype), str(path))
    _check_single(like, path)
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise B2GError(f"{path} cannot be written: the folder {path.parent} does not exist or may not be "
                       "written to; create it first or choose another")
    if path.is_dir():
        raise B2GError(f"{path} is a folder; name a picture file in it")


def _check_single(incoming, path):
    if len(incoming.batch) != 1:
        raise B2GError(f"{path} holds one picture, but {incoming.name} is {len(incoming.batch)}; write them "
                       "one by one")


def _one_picture(image, path) -> np.ndarray:
    if isinstance(image, np.ndarray):
        _check_single(_from_array(image, kind="file"), path)  # gray with alpha too, as `restore` gives it back
        return image[0] if image.ndim == 4 else image
    incoming = to_batch(image)
    _check_single(incoming, path)
    if incoming.kind == "tensor":
        array = image.detach().cpu()
        array = (array.float() if array.dtype == torch.bfloat16 else array).numpy()
        return array if array.ndim == 2 else np.moveaxis(array.reshape(array.shape[-3:]), 0, -1)
    return np.asarray(incoming.restore(incoming.batch))


def _from_pil(image) -> Incoming:
    name = f"the PIL image {getattr(image, 'filename', '') or 'of mode ' + image.mode}"
    try:
        return _from_decoded(files.from_pillow(image, name), "pil", name)
    except OSError as error:  # PIL reads the pixels only now
        raise B2GError(f"{name} cannot be decoded ({error}); check that its file is whole") from error


def _from_decoded(decoded, kind, name) -> Incoming:
    return _from_array(decoded.array, name, kind, icc=decoded.icc, exif=decoded.exif)


def _from_array(array, name=None, kind="array", **travel) -> Incoming:
    name = name or f"the array of shape {array.shape} and type {array.dtype}"
    checks.check_depth(name, array.dtype)
    checks.check_axes(name, array.ndim, "(H, W), (H, W, C) or (N, H, W, C)")
    plane = array[..., None] if array.ndim == 2 else array
    stack = plane[None] if plane.ndim == 3 else plane
    checks.check_last_channels(name, stack.shape, (1, 3, 4) if kind == "array" else (1, 2, 3, 4))
    checks.check_size(name, *stack.shape[:3])
    unit = stack.astype(np.float32) / np.float32(checks.full_scale(array.dtype))
    if array.dtype.kind == "f":
        checks.check_finite(name, np.isfinite(array))
        checks.check_scale(name, np.abs(unit).mean(), np.abs(unit).max())
    if stack.shape[3] in (2, 4):
        checks.check_opaque(name, unit[..., -1])
        unit = unit[..., :-1]
    batch = torch.from_numpy(np.ascontiguousarray(unit.transpose(0, 3, 1, 2)))
    return Incoming(batch, kind, array.shape, array.dtype, name, **travel)


def _from_tensor(tensor) -> Incoming:
    name = f"the tensor of shape {tuple(tensor.shape)} and type {checks.depth_name(tensor.dtype)}"
    checks.check_depth(name, tensor.dtype)
    checks.check_axes(name, tensor.ndim, "(H, W), (C, H, W) or (B, C, H, W)")
    stack = tensor.detach().reshape((1,) * (4 - tensor.ndim) + tuple(tensor.shape))
    checks.check_first_channels(name, stack.shape)
    checks.check_size(name, stack.shape[0], *stack.shape[2:])
    batch = stack.to(torch.float32, copy=True) / checks.full_scale(tensor.dtype)
    if tensor.is_floating_point():
        checks.check_finite(name, torch.isfinite(tensor.detach()).cpu().numpy())
        checks.check_scale(name, batch.abs().mean().item(), batch.abs().max().item())
    return Incoming(batch, "tensor", tuple(tensor.shape), tensor.dtype, name)


def _channels_last(batch) -> np.ndarray:
    return np.ascontiguousarray(batch.cpu().permute(0, 2, 3, 1).numpy())


def _to_depth(unit, dtype):
    if dtype.is_floating_point:
        return unit.to(dtype)
    return (unit.float() * checks.full_scale(dtype)).round().to(dtype)
