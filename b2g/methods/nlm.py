"""Non-local means (Buades, Coll and Morel, CVPR 2005, doi 10.1109/CVPR.2005.38).

One noisy picture, nothing learned: scikit-image's ``denoise_nl_means``. A pixel becomes the mean of the
pixels in a window around it, weighed by how alike the patches around them are. Sides of patch and window and
the filtering parameter h follow the noise level as in the authors' later account (Image Processing On Line 1,
2011, doi 10.5201/ipol.2011.bcm_nlm), whose weight is exp(-max(d^2 - 2 sigma^2, 0) / h^2), d^2 the mean square
difference of two patches over pixels and channels. Followed is its pixelwise form; not followed are the mean
over whole patches, and the 2005 paper's patches weighed by a Gaussian. Departures of scikit-image's fast
mode: its patches are one pixel narrower than it is told, and their sum of squares is divided by the wider
patch, which is mended here by a smaller h; and a pixel counts for itself with weight 1, where the account
gives it the largest weight of the others: it stays noisy where it has no like, above all where the level that
is told is too low.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import skimage

from b2g.calibrated import CalibratedFilter

# Of the 2011 account: up to this sigma on 0..255, side of the patch, half of the window's side, h over sigma.
_GRAY = ((15, 3, 10, 0.40), (30, 5, 10, 0.40), (45, 7, 17, 0.35), (75, 9, 17, 0.35), (np.inf, 11, 17, 0.30))
_COLOUR = ((25, 3, 10, 0.55), (55, 5, 17, 0.40), (np.inf, 7, 17, 0.35))


def numbers(level: float, colour: bool) -> tuple[int, int, float]:
    """Side of the patch, half of the window's side, h over sigma at ``level`` on 0..255; above 100 as at 100.
    """
    return next(row[1:] for row in (_COLOUR if colour else _GRAY) if level <= row[0])


@dataclass(frozen=True)
class NonLocalMeans(CalibratedFilter):
    """Non-local means whose knob is the noise level on 0..255 that it is told, calibrated from 2 to 128.

    The channels of a colour picture share the weights. ``answer="j_invariant"`` mends noise that stays in
    pixels without like, and blurs fine texture.
    """

    name: ClassVar[str] = "nlm"
    source: ClassVar[str] = (
        "Buades, Coll and Morel, CVPR 2005, doi 10.1109/CVPR.2005.38, and IPOL 1, 2011, doi "
        "10.5201/ipol.2011.bcm_nlm"
    )
    cost: ClassVar[str] = "some ten seconds on a CPU (256x256), told sigma a second"
    profiles: ClassVar[dict[str, dict]] = {
        "official": dict(calibration="sigma"), "j_invariant": {}, "smoke": {},
    }  # fmt: skip
    knobs: ClassVar[tuple[float, float]] = (2.0, 128.0)

    def filtered(self, picture: np.ndarray, knob: float, channel_axis: int | None = None) -> np.ndarray:
        patch, distance, share = numbers(knob, channel_axis is not None)
        sigma = knob / 255
        h = share * sigma * (patch - 1) / patch  # the squares of (patch - 1)^2 pixels come divided by patch^2
        return skimage.restoration.denoise_nl_means(picture, patch, distance, h, True, sigma, channel_axis=channel_axis)
