"""How near an estimate is to the clean picture: PSNR, and SSIM under named conventions."""

import math

import numpy as np
from scipy.ndimage import correlate1d

from b2g.errors import B2GError
from b2g.images import to_batch

CONVENTIONS = ("2d", "matlab-volume")
_RADIUS, _SPREAD = 5, 1.5  # the 11-tap Gaussian window of Wang et al. (2004)
_C1, _C2 = 0.01**2, 0.03**2  # for values in [0, 1]


def psnr(clean, estimate, clip=True, rounded=False) -> float:
    """Peak signal-to-noise ratio in dB: -10 log10 of the mean squared error over all pixels and channels.

    Parameters
    ----------
    clean, estimate : pictures of one size, anything that `b2g.images.to_batch` takes; white is 1.
        For several pictures, the mean of their PSNRs.
    clip : clip the estimate to [0, 1] first, as saving it would.
    rounded : round the estimate to 8 bits first, as a PNG would.

    Returns
    -------
    float, infinite for equal pictures.
    """
    clean, estimate = _pair(clean, estimate, clip, rounded)
    errors = ((clean - estimate) ** 2).mean(axis=(1, 2, 3))
    return float(np.mean([-10 * math.log10(error) if error > 0 else math.inf for error in errors]))


def ssim(clean, estimate, convention="2d", clip=True, rounded=False) -> float:
    """Structural similarity, 1 for equal pictures.

    Both conventions weigh by a Gaussian of 11 taps and sigma 1.5, take biased variances, C1 = 0.01**2 and
    C2 = 0.03**2. They differ in colour by a tenth and must not be mixed in a table.

    Parameters
    ----------
    clean, estimate, clip, rounded : as in `psnr`.
    convention : "2d" or "matlab-volume"
        2d: per channel, over the pixels whose window lies inside the picture, then the mean over channels.
        matlab-volume: what MATLAB's `ssim` does with an (H, W, 3) array: the window runs over the three
        colours as over a third spatial axis, edges replicated, mean over all voxels. Gray has two axes.

    References
    ----------
    Wang, Bovik, Sheikh and Simoncelli, Image Quality Assessment, IEEE TIP 13(4), 2004.
    """
    if convention not in CONVENTIONS:
        raise B2GError(f"SSIM convention {convention!r} is not known; use one of {', '.join(CONVENTIONS)}")
    clean, estimate = _pair(clean, estimate, clip, rounded)
    measure = _ssim_planes if convention == "2d" else _ssim_volume
    return float(np.mean([measure(one, other) for one, other in zip(clean, estimate)]))


def _pair(clean, estimate, clip, rounded):
    """Both pictures as float64 arrays (B, C, H, W)."""
    first, second = to_batch(clean), to_batch(estimate)
    if first.batch.shape != second.batch.shape:
        raise B2GError(f"{second.name} cannot be compared with {first.name}: as (pictures, channels, height, "
                       f"width) they are {tuple(second.batch.shape)} and {tuple(first.batch.shape)}; pass "
                       "two of one size")
    clean, estimate = (taken.batch.double().cpu().numpy() for taken in (first, second))
    estimate = estimate.clip(0, 1) if clip else estimate
    return clean, np.rint(estimate * 255) / 255 if rounded else estimate


def _ssim_planes(clean, estimate) -> float:
    inside = (slice(None), slice(_RADIUS, -_RADIUS), slice(_RADIUS, -_RADIUS))
    return _ssim_map(clean, estimate, axes=(1, 2))[inside].mean()


def _ssim_volume(clean, estimate) -> float:
    return _ssim_map(clean, estimate, axes=(1, 2) if len(clean) == 1 else (0, 1, 2)).mean()


def _ssim_map(x, y, axes):
    mean_x, mean_y = _blur(x, axes), _blur(y, axes)
    var_x, var_y = _blur(x * x, axes) - mean_x**2, _blur(y * y, axes) - mean_y**2
    covariance = _blur(x * y, axes) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + _C1) / (mean_x**2 + mean_y**2 + _C1)
    return luminance * (2 * covariance + _C2) / (var_x + var_y + _C2)


def _blur(values, axes):
    taps = np.exp(-0.5 * (np.arange(-_RADIUS, _RADIUS + 1) / _SPREAD) ** 2)
    for axis in axes:
        values = correlate1d(values, taps / taps.sum(), axis=axis, mode="nearest")
    return values
