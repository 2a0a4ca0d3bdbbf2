"""What a mean over all pixels hides: how an estimate fares on edges, in texture,
on flat ground and in colour.

PSNR says how much is wrong, these say what. All take pictures as `b2g.images.to_batch` does, one at a time,
and clip estimates to [0, 1]; errors are squares or on the 0..255 scale, as each says.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import binary_dilation, gaussian_filter, uniform_filter
from skimage.filters.rank import entropy
from skimage.morphology import disk

from b2g.errors import B2GError
from b2g.images import to_batch

LUMA = (0.299, 0.587, 0.114)  # of red, green and blue: ITU-R BT.601
EDGES = 0.1  # the share of pixels called edges
TEXTURE = 0.3  # the share of the others called texture, and the share called flat
_WINDOW = 3  # pixels across: what touches a pixel
_FINE, _COARSE = 1.5, 4.0  # standard deviations in pixels of what is taken away for detail, and kept for tint


@dataclass(frozen=True)
class Regions:
    """Sets of pixels of a picture, boolean ``(H, W)``, without overlap: edges, what touches them,
    and two of the rest."""

    edges: np.ndarray
    beside: np.ndarray
    texture: np.ndarray
    flat: np.ndarray


@dataclass(frozen=True)
class EdgeError:
    """Mean squared error, for values in [0, 1], on the edges of the clean picture and on the rest."""

    edges: float
    rest: float


@dataclass(frozen=True)
class Fluctuation:
    """A profile beside that of the clean picture: its total variation as a multiple,
    and the correlation of both."""

    variation: float
    correlation: float


def luminance(picture) -> np.ndarray:
    """The luminance ``(H, W)`` by BT.601, clipped to [0, 1]; of a gray picture, itself."""
    planes = _planes(picture)
    return (planes[0] if len(planes) == 1 else np.tensordot(LUMA, planes, 1)).clip(0, 1)


def local_entropy(picture, radius=5) -> np.ndarray:
    """Entropy in bits ``(H, W)`` of the 8-bit luminance in a disk around each pixel,
    0 to log2 of the disk's pixels.

    ``radius`` 5 is a disk of 81 pixels; the paper shows such maps in Figure 2 and states no window. At the
    borders the part of the disk inside the picture counts.
    """
    return entropy(np.rint(255 * luminance(picture)).astype(np.uint8), disk(radius)).astype(np.float64)


def gradient_map(picture) -> np.ndarray:
    """The length of the forward differences of the luminance ``(H, W)``; 0 across the last column and row."""
    plane = luminance(picture)
    across = np.diff(plane, axis=1, append=plane[:, -1:])
    down = np.diff(plane, axis=0, append=plane[-1:])
    return np.hypot(across, down)


def fluctuation(clean, estimate) -> Fluctuation:
    """How a profile (1-D, such as a row of a gradient map) follows that of the clean picture (Figure 8b).

    A variation of 1 is that of the clean profile, below 1 smoother, above 1 rougher. Variation alone does not
    tell detail from noise, so the correlation stands beside it; a constant profile has correlation 0.
    """
    clean, estimate = (np.asarray(profile, float) for profile in (clean, estimate))
    if clean.ndim != 1 or clean.shape != estimate.shape or len(clean) < 2:
        raise B2GError(f"two profiles are compared point by point, but these have the shapes {clean.shape} and "
                       f"{estimate.shape}; pass two rows of one length")
    steps, wanted = np.abs(np.diff(estimate)).sum(), np.abs(np.diff(clean)).sum()
    if wanted == 0:
        raise B2GError("the clean profile is constant, so nothing can be said of its fluctuation; choose another row")
    ours, theirs = estimate - estimate.mean(), clean - clean.mean()
    size = np.sqrt((ours @ ours) * (theirs @ theirs))
    return Fluctuation(float(steps / wanted), float(ours @ theirs / size) if size > 0 else 0.0)


def regions(clean) -> Regions:
    """Edges, texture and flat ground of a clean picture.

    Edges are the tenth of the pixels with the largest `gradient_map`. Of the pixels that touch none, texture
    is the 30 percent with the largest spread of the luminance in the 3 x 3 pixels around, flat ground the 30
    percent with the smallest. Where many are equal they are flat, so a constant picture is all flat.
    """
    gradient = gradient_map(clean)
    edges = (gradient > 0) & (gradient >= np.quantile(gradient, 1 - EDGES))
    near = binary_dilation(edges, np.ones((_WINDOW, _WINDOW)))
    apart = ~near
    spread = _spread(luminance(clean))
    low, high = np.quantile(spread[apart], (TEXTURE, 1 - TEXTURE)) if apart.any() else (0.0, 0.0)
    flat = apart & (spread <= low)
    return Regions(edges, near & ~edges, apart & (spread >= high) & ~flat, flat)


def edge_error(clean, estimate) -> EdgeError:
    """The mean squared error on the edges of the clean picture and on the rest, over all channels."""
    squares = (_clipped(estimate, clean) - _planes(clean)) ** 2
    edges = regions(clean).edges
    return EdgeError(float(squares[:, edges].mean()) if edges.any() else 0.0, float(squares[:, ~edges].mean()))


def detail_kept(clean, estimate, where=None) -> float:
    """How much of the clean picture's fine detail the estimate has: 1 all, 0 none,
    for pixels ``where`` ``(H, W)``.

    The slope of the estimate's detail on the clean picture's; detail is what a Gaussian of 1.5 pixels takes
    away. Noise in the estimate does not raise it, being uncorrelated with detail.
    """
    fine, found = (_detail(planes)[:, _everywhere(where, planes)] for planes in
                   (_planes(clean), _clipped(estimate, clean)))
    energy = (fine**2).sum()
    return float((fine * found).sum() / energy) if energy > 0 else 1.0


def grain(clean, estimate) -> float:
    """The root mean square, on 0..255, of the fine error on flat ground: noise that stayed,
    or that was invented.

    Not a number where the picture has no flat ground.
    """
    fine, flat = _detail(_clipped(estimate, clean) - _planes(clean)), regions(clean).flat
    return float(255 * np.sqrt((fine[:, flat] ** 2).mean())) if flat.any() else math.nan


def tint(clean, estimate) -> float:
    """The root mean square, on 0..255, of the smooth error in colour: its channels less their mean;
    0 for gray.

    Smooth is what a Gaussian of 4 pixels leaves.
    """
    smooth = gaussian_filter(_clipped(estimate, clean) - _planes(clean), (0, _COARSE, _COARSE), mode="nearest")
    return float(255 * np.sqrt(((smooth - smooth.mean(0)) ** 2).mean()))


def noise_kept(clean, noisy, estimate, beyond=0.0) -> float:
    """The part of the noise that stayed in the estimate: the slope of its error on the noise, 0 none, 1 all.

    Over values whose noise is at least ``beyond`` times its root mean square: 2 leaves the outliers, which
    Eq. 3.1 takes for detail. Values at 0 or 1 in the noisy picture are left out, since it may have been
    clipped there.
    """
    given, error = _clipped(noisy, clean, clip=False), _clipped(estimate, clean) - _planes(clean)
    noise, inside = given - _planes(clean), (given > 0) & (given < 1)
    if not noise[inside].any():
        raise B2GError("there is no noise that could have stayed: pass the noisy picture as the second")
    chosen = inside & (np.abs(noise) >= beyond * np.sqrt((noise[inside] ** 2).mean()))
    if not chosen.any():
        raise B2GError(f"no noise reaches {beyond} times its root mean square; pass a smaller beyond")
    return float((error[chosen] * noise[chosen]).sum() / (noise[chosen] ** 2).sum())


def _planes(picture) -> np.ndarray:
    """One picture as float64 ``(C, H, W)``."""
    taken = to_batch(picture)
    if len(taken.batch) != 1:
        raise B2GError(f"{taken.name} is {len(taken.batch)} pictures; measure them one by one")
    return taken.batch[0].double().cpu().numpy()


def _clipped(estimate, clean, clip=True) -> np.ndarray:
    wanted, found = _planes(clean), _planes(estimate)
    if wanted.shape != found.shape:
        raise B2GError(f"as (channels, height, width) the clean picture is {wanted.shape} and the other {found.shape}; "
                       "pass two of one size")
    return found.clip(0, 1) if clip else found


def _detail(planes) -> np.ndarray:
    return planes - gaussian_filter(planes, (0, _FINE, _FINE), mode="nearest")


def _everywhere(where, planes) -> np.ndarray:
    return np.ones(planes.shape[1:], bool) if where is None else np.asarray(where, bool)


def _spread(plane) -> np.ndarray:
    """Variance of ``plane`` in the window around each pixel, borders replicated."""
    mean, square = (uniform_filter(values, _WINDOW, mode="nearest") for values in (plane, plane**2))
    return np.maximum(square - mean**2, 0).round(12)  # a mean of squares less a square leaves dust, which has no order
