"""What a picture must be to come in: one refusal a function, each a sentence with the name and the mend."""

import numpy as np

from b2g.errors import B2GError

SMALLEST = 16  # pixels on a side: below this the networks and the measures have no picture to look at
DEPTHS = ("uint8", "uint16", "float16", "bfloat16", "float32", "float64")
_FULL_SCALE = {"uint8": 255.0, "uint16": 65535.0}


def depth_name(dtype) -> str:
    """The plain name of a NumPy or torch dtype, whatever its byte order."""
    return dtype.name if isinstance(dtype, np.dtype) else str(dtype).removeprefix("torch.")


def full_scale(dtype) -> float:
    """The value of white: 255, 65535, or 1 for floating point."""
    return _FULL_SCALE.get(depth_name(dtype), 1.0)


def check_depth(name, dtype):
    if depth_name(dtype) not in DEPTHS:
        raise B2GError(f"{name} has values of type {depth_name(dtype)}; convert them to uint8 (0..255), "
                       "uint16 (0..65535) or float32 (0..1)")


def check_axes(name, axes, allowed):
    if axes not in (2, 3, 4):
        raise B2GError(f"{name} has {axes} axes; pass {allowed}")


def check_last_channels(name, shape, allowed):
    """`shape` is (N, H, W, C)."""
    if shape[3] in allowed:
        return
    mend = "pick the channels to denoise"
    if shape[0] == 1 and shape[1] in (1, 3):
        mend = "move the channels last with numpy.moveaxis(image, 0, -1)"
    elif shape[0] == 1 and shape[3] >= SMALLEST:
        mend = "pass a stack of gray pictures as (N, H, W, 1)"
    raise B2GError(f"{name} has {shape[3]} channels on its last axis, which is not 1 (gray), 3 (RGB) or 4 "
                   f"(RGBA); {mend}")


def check_first_channels(name, shape):
    """`shape` is (B, C, H, W)."""
    if shape[1] in (1, 3):
        return
    last = shape[3] in (1, 3, 4)
    mend = "move them there with image.movedim(-1, -3)" if last else "pass gray (1) or RGB (3)"
    raise B2GError(f"{name} has {shape[1]} channels where torch keeps them, before height and width; {mend}")


def check_size(name, count, height, width):
    if count == 0:
        raise B2GError(f"{name} is empty; pass at least one picture")
    if min(height, width) < SMALLEST:
        raise B2GError(f"{name} is {height} x {width} pixels; pass a picture of at least {SMALLEST} on each "
                       "side")


def check_finite(name, finite):
    """`finite` is a NumPy array of truth values in the layout of the input."""
    if finite.all():
        return
    first = tuple(int(i) for i in np.unravel_index(np.argmin(finite), finite.shape))
    count = int(finite.size - finite.sum())
    raise B2GError(f"{name} has {count} NaN or infinite value{'s' if count > 1 else ''}, the first at index "
                   f"{first}; replace them first, e.g. with numpy.nan_to_num")


def check_scale(name, mean, largest):
    """Of absolute values. Noise may leave [0, 1]; a mean beyond 2 is another scale."""
    if mean > 2:
        white = "255" if largest < 1000 else "65535, or by what its white is"
        raise B2GError(f"{name} has floating-point values far beyond [0, 1], up to {largest:.4g}; divide by "
                       f"{white}")


def check_opaque(name, alpha):
    """`alpha` is 1 where nothing shines through."""
    if not (alpha == 1).all():
        raise B2GError(f"{name} is partly transparent, and colours behind transparency have no meaning to "
                       "denoise; flatten it onto an opaque background first")
