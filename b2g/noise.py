"""Noise: add it, the same on every machine, and estimate how much there is."""

import math
import numbers

import numpy as np
import torch
from scipy.fft import dct

from b2g.errors import B2GError
from b2g.images import to_batch
from b2g.seeds import numpy_random, seed_for

KINDS = ("gaussian", "poisson")
_SIDE = 8  # of the patches of `estimate_sigma`
_MANY = 100_000  # patches: more cost time and no longer sharpen the estimate
_SHARES = (0.02, 0.05, 0.12, 0.3, 1.0)  # of the patches, the flattest first
_STRATA = 8  # groups of patches of like brightness
_FREQUENCY = np.add.outer(range(_SIDE), range(_SIDE)).ravel()  # of each coefficient of a patch: down plus across
_LOW, _HIGH = (_FREQUENCY > 0) & (_FREQUENCY < _SIDE - 1), _FREQUENCY >= _SIDE
_BANDS = ((1, 2), (3, 4))  # frequencies that are strong in correlated noise
_FLATTEST = 0.03  # of the patches of like brightness
_OPPONENT = np.array([[1, 1, 1], [1, 0, -1], [1, -2, 1]]) / np.sqrt([[3], [2], [6]])  # orthonormal: noise stays white


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


def level_by(noise: str, noisy) -> float:
    """The estimated noise level on 0..255 of ``"gaussian"`` or ``"correlated"`` noise."""
    return estimate_correlated_sigma(noisy) if noise == "correlated" else estimate_sigma(noisy)


def given_or_estimated(sigma, noisy, who: str, noise: str = "gaussian") -> float:
    """``sigma`` on 0..255, or :func:`level_by` where it is None; refused if that is not positive.

    ``who`` is the method that needs it.
    """
    sigma = level_by(noise, noisy) if sigma is None else sigma
    if not sigma > 0:
        raise B2GError(f"{who} needs a positive noise level sigma on 0..255, not {sigma}; give sigma.")
    return float(sigma)


def estimate_sigma(noisy) -> float:
    """Estimate sigma of white Gaussian noise from the noisy picture alone, on the scale 0..255.

    Of 8 x 8 patches in an orthonormal cosine transform, the low frequencies say which are flat, and the high
    frequencies of the flattest hold the variance: white noise is independent in the two, so the choice does
    not change it. The share of patches that count grows while the estimate keeps within its own error
    (Lepski's rule). Colours are turned to opponent ones, of which two hold little texture.

    Where noise depends on brightness (Poisson or clipped noise), the flattest patches would be the dark or
    the clipped ones. There the flattest patches of every brightness hold more variance; in so far as this
    excess is white, which that of texture is not, it is added, so the answer is near the root mean square of
    the noise.

    Several pictures (a batch) are taken to have the same sigma. Spatially correlated noise is
    under-estimated; grain, and fine texture that fills the picture, as grass does, count as noise.

    References
    ----------
    Ponomarenko, Lukin, Zriakhov, Kaarna and Astola, An Automatic Approach to Lossy Compression of AVIRIS
    Images, IGARSS 2007 (choice by low frequencies, variance of high ones). Lepskii, On a Problem of Adaptive
    Estimation in Gaussian White Noise, Theory Probab. Appl. 35(3), 1991.
    """
    batch = to_batch(noisy).batch.cpu()
    brightness, power = _patch_spectra(batch)
    low, high = power[..., _LOW].sum((1, 2)), power[..., _HIGH]
    independent = batch[:, 0].numel() / _SIDE**2
    variance, error = _of_flattest(low, high, independent)
    even = _of_every_brightness(brightness, low, high)
    excess = np.median(even) - variance
    if excess > error:
        frequency = _FREQUENCY[_HIGH]
        fall = (even[:, frequency <= 9].mean() - even[:, frequency >= 11].mean()) / excess  # 0 if white
        variance += excess * min(max((0.3 - fall) / 0.2, 0.0), 1.0)  # texture: 0.3 to 3; noise: 0.1 or less
    return 255 * math.sqrt(variance)


def estimate_correlated_sigma(noisy) -> float:
    """Estimate the level of noise that neighbouring pixels share, as a camera's JPEG has it, on the scale 0..255.

    It is the level of the white noise that is as strong at low frequencies, where demosaicking, smoothing and
    compression leave the most: more than the root mean square of the noise, and what a denoiser that expects white
    noise must be told to remove it. Of 8 x 8 patches in an orthonormal cosine transform, half of the low frequencies
    (as on a chequerboard) say which few are the flattest among those of like brightness, and the other half are
    measured in these, and the other way round; so the choice does not change what it measures. The answer is the
    lower quartile of the brightnesses, since some of them are all texture, and the geometric mean of two bands:
    frequencies, down plus across, of 1 to 2 and of 3 to 4.

    White noise gives about :func:`estimate_sigma` where the picture has flat ground. Texture counts as noise: where it
    fills the picture the answer is too high, and a picture without noise has one too. So it is used only where
    asked for (``noise="correlated"``).
    """
    brightness, power = _patch_spectra(to_batch(noisy).batch.cpu())
    halves = _LOW & (_FREQUENCY % 2 == 0), _LOW & (_FREQUENCY % 2 == 1)
    found = []
    for part in np.array_split(brightness.argsort(), _STRATA):
        own, level = power[part], np.zeros(power.shape[1:])
        for chosen_by, measured in (halves, halves[::-1]):
            flattest = own[..., chosen_by].sum((1, 2)).argsort()[: max(8, math.ceil(_FLATTEST * len(part)))]
            level[:, measured] = own[flattest][..., measured].mean(0)
        found.append(level)
    level = np.percentile(found, 25, axis=0)
    bands = [level[:, (_FREQUENCY >= first) & (_FREQUENCY <= last)].mean() for first, last in _BANDS]
    return 255 * math.prod(bands) ** (1 / (2 * len(bands)))


def _patch_spectra(batch):
    """Of some 100,000 patches, or all: brightness (N,), and the power (N, C, 64) of each frequency."""
    count, channels, height, width = batch.shape
    centred = batch - batch.mean()
    if channels == 3:
        centred = torch.einsum("kc,bchw->bkhw", torch.from_numpy(_OPPONENT).to(batch.dtype), centred)
    step = max(1, math.ceil(math.sqrt(count * (height - _SIDE + 1) * (width - _SIDE + 1) / _MANY)))
    patches = torch.nn.functional.unfold(centred, _SIDE, stride=step).transpose(1, 2).reshape(-1, channels, _SIDE**2)
    waves = dct(np.eye(_SIDE), norm="ortho", axis=0)
    power = (patches @ torch.from_numpy(np.kron(waves, waves).T).to(batch.dtype)).numpy()
    brightness = power[:, 0, 0].copy()
    power **= 2
    return brightness, power


def _of_flattest(low, high, independent: float) -> tuple[float, float]:
    """Variance in the largest share of the flattest patches that agrees with all smaller ones;
    twice its error."""
    order, found, most = low.argsort(), (0.0, 0.0), math.inf
    for share in _SHARES:
        power = high[order[: max(8, int(share * len(order)))]].mean(0)
        variance = float(np.median(power))
        # Overlapping patches say as much as 3 times the patches that lie side by side.
        error = 2 * variance * math.sqrt(2 / (3 * share * independent * power.size))
        if variance > most:
            break
        found, most = (variance, error), min(most, variance + error)
    return found


def _of_every_brightness(brightness, low, high) -> np.ndarray:
    """Power (C, K) of the high frequencies in the flattest tenth of the patches of each brightness."""
    strata = np.array_split(brightness.argsort(), _STRATA)
    flattest = [part[low[part].argsort()[: math.ceil(len(part) / 10)]] for part in strata]
    return high[np.concatenate(flattest)].mean(0)
