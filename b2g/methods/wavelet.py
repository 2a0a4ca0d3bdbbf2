"""Wavelet shrinkage by BayesShrink (Chang, Yu and Vetterli, IEEE TIP 9(9), 2000, doi 10.1109/83.862633).

One noisy picture, nothing learned: scikit-image's ``denoise_wavelet``. An orthogonal wavelet transform, every
detail band softly thresholded at sigma^2 over the estimated standard deviation of the clean coefficients in
it, and back. Colour pictures, which the paper does not treat, are taken to brightness and two colour
differences (YCbCr) first, and sigma with them. Not followed: the paper's estimate of sigma from the finest
diagonal band (see ``calibration``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pywt
import skimage

from b2g.calibrated import CalibratedFilter
from b2g.errors import B2GError
from b2g.method import check_least


@dataclass(frozen=True)
class WaveletShrinkage(CalibratedFilter):
    """BayesShrink whose knob is the noise level on 0..255 that it is told, calibrated from 2 to 128.

    ``wavelet`` is the name of an orthogonal wavelet of PyWavelets, ``levels`` the number of scales; the
    symmlet with eight vanishing moments and four scales are the paper's. Small pictures are mirrored to a
    size that has so many scales.
    """

    name: ClassVar[str] = "wavelet"
    source: ClassVar[str] = "Chang, Yu and Vetterli, IEEE TIP 9(9), 2000, doi 10.1109/83.862633"
    cost: ClassVar[str] = "a second on a CPU (256x256)"
    profiles: ClassVar[dict[str, dict]] = {
        "official": dict(calibration="sigma"), "j_invariant": {}, "smoke": {},
    }  # fmt: skip
    knobs: ClassVar[tuple[float, float]] = (2.0, 128.0)

    wavelet: str = "sym8"
    levels: int = 4

    def __post_init__(self):
        super().__post_init__()
        known = self.wavelet in pywt.wavelist(kind="discrete") and pywt.Wavelet(self.wavelet).orthogonal
        if not known:
            raise B2GError(f"wavelet must name an orthogonal one, such as sym8 or db2, not {self.wavelet!r}.")
        check_least("levels", self.levels, 1)
        if self.levels > 6:
            raise B2GError(f"levels must be at most 6, not {self.levels}.")

    def filtered(self, picture: np.ndarray, knob: float, channel_axis: int | None = None) -> np.ndarray:
        height, width = picture.shape[:2]
        least = max(pywt.Wavelet(self.wavelet).dec_len - 1, 1) << self.levels
        more = [(0, max(0, least - side)) for side in (height, width)] + [(0, 0)] * (picture.ndim - 2)
        grown = np.pad(picture, more, mode="symmetric")
        answer = skimage.restoration.denoise_wavelet(
            grown, knob / 255, self.wavelet, wavelet_levels=self.levels,
            convert2ycbcr=channel_axis is not None, channel_axis=channel_axis,
        )  # fmt: skip
        return np.ascontiguousarray(answer[:height, :width])
