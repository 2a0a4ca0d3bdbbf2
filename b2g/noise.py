"""Noise: add it, the same on every machine, and estimate how much there is."""

import math
import numbers

import numpy as np
import torch

from b2g.errors import B2GError
from b2g.images import to_batch
from b2g.seeds import numpy_random, seed_for

KINDS = ("gaussian", "poisson")
_PATCH = 8  # side of the patches of `estimate_sigma`, less on small pictures
_MANY = 100_000  # patches: more cost time and no longer sharpen the estimate
_PER_DIMENSION = 50  # patches wanted per dimension: with fewer, noise eigenvalues spread and bias the mean


def add_noise(clean, kind="gaussian", level=25.0, seed=0):
    """Add noise to a clean picture; the result is float32 and not clipped.

    Parameters
    ----------
    clean : anything that `b2g.images.to_batch` takes, in [0, 1] once scaled.
    kind : "gaussian" or "poisson"
        gaussian: y = x + n, n ~ N(0, (level / 255)**2), independent per pixel and channel.
        poisson: y = k / level, k ~ Poisson(level * x); the noise variance is x / level.
    level : gaussian: sigma on the scale 0..255. poisson: photons at white.
    seed : a whole number, or a tuple of names (data set, image, kind, level, repeat), see `b2g.seeds`.

    Returns
    -------
    float32 picture in the layout of `clean`: a tensor, on its device, for a tensor; otherwise a NumPy array.
    The numbers are drawn on the CPU in the order (N, H, W, C), so a picture gets the same noise as array,
    tensor or file, here and on a GPU.

    Raises
    ------
    B2GError
        For an unknown kind, a level that is not a positive number (0 is allowed for Gaussian noise), or a
        picture with negative values under Poisson noise.
    """
    random = numpy_random(seed_for(*seed) if isinstance(seed, tuple | list) else seed)
    incoming = to_batch(clean)
    level = _checked_level(kind, level)
    signal = incoming.batch.cpu().permute(0, 2, 3, 1).double().numpy()
    if kind == "gaussian":
        noisy = signal + level / 255 * random.standard_normal(signal.shape)
    else:
        if signal.min() < 0:
            raise B2GError(f"{incoming.name} has negative values, down to {signal.min():.4g}, which have no "
                           "Poisson noise; clip it to [0, 1] first")
        noisy = random.poisson(level * signal) / level
    return incoming.arrange(torch.from_numpy(noisy.astype(np.float32)).permute(0, 3, 1, 2))


def _checked_level(kind, level) -> float:
    if kind not in KINDS:
        raise B2GError(f"noise of kind {kind!r} is not known; use one of {', '.join(KINDS)}")
    number = isinstance(level, numbers.Real) and not isinstance(level, bool) and math.isfinite(level)
    if not number or level < 0 or (kind == "poisson" and level == 0):
        unit = "sigma on the scale 0..255" if kind == "gaussian" else "photons at white"
        raise B2GError(f"level {level!r} of {kind} noise is not a positive number; give the {unit}")
    return float(level)


def estimate_sigma(noisy) -> float:
    """Estimate sigma of white Gaussian noise from the noisy picture alone, on the scale 0..255.

    Patches of clean pictures lie near a subspace; noise adds its variance to every direction. So the
    smallest eigenvalues of the patches' covariance scatter evenly around the noise variance. The largest is
    dropped until the mean of the rest no longer exceeds their median: that mean is the variance.
    Several pictures (a batch) are taken to have the same sigma. Clipped or spatially correlated noise is
    under-estimated; where fine texture fills the picture, as grass does, faint noise is over-estimated.

    References
    ----------
    Chen, Zhu and Heng, An Efficient Statistical Method for Image Noise Level Estimation, ICCV 2015.
    """
    batch = to_batch(noisy).batch.cpu()
    eigenvalues = np.linalg.eigvalsh(_patch_covariance(batch))  # ascending
    for kept in range(len(eigenvalues), 0, -1):
        mean = eigenvalues[:kept].mean()
        if mean <= np.median(eigenvalues[:kept]) or kept == 1:
            return 255 * math.sqrt(max(mean, 0.0))


def _patch_covariance(batch) -> np.ndarray:
    """Covariance (C p p, C p p) of some 100,000 p x p patches, or all, of a batch (B, C, H, W)."""
    count, channels, height, width = batch.shape
    sides = range(_PATCH, 2, -1)
    patches = {p: count * (height - p + 1) * (width - p + 1) for p in sides}
    side = next((p for p in sides if patches[p] >= _PER_DIMENSION * channels * p * p), sides[-1])
    step = max(1, math.ceil(math.sqrt(patches[side] / _MANY)))
    unfolded = torch.nn.functional.unfold(batch, side, stride=step)  # (B, C p p, patches)
    return torch.cov(unfolded.permute(1, 0, 2).flatten(1).double(), correction=0).numpy()
