"""Total variation (Rudin, Osher and Fatemi 1992, doi 10.1016/0167-2789(92)90242-F) by Chambolle's algorithm.

One noisy picture, nothing learned: scikit-image's ``denoise_tv_chambolle`` (Chambolle, J. Mathematical
Imaging and Vision 20, 2004, doi 10.1023/B:JMIV.0000011325.36760.1e) minimises ||u - y||^2 / 2 + weight TV(u),
channel by channel. Told sigma, the weight is Chambolle's: the one at which the removed part has the energy of
the noise, found by his iteration weight <- weight sigma / rms(y - u).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, ClassVar

import numpy as np
import skimage

from b2g.calibrated import CalibratedFilter
from b2g.method import check_least

_ROUNDS = 12  # of Chambolle's iteration at most


@dataclass(frozen=True)
class TotalVariation(CalibratedFilter):
    """Total variation whose knob is the weight, calibrated from 0.01 to 2 (of pictures in [0, 1]).

    ``steps`` bounds the algorithm's steps, which end earlier where the energy hardly falls any more. The
    weight stays at 2 or below where a picture has less variance than its noise.
    """

    name: ClassVar[str] = "tv"
    source: ClassVar[str] = (
        "Rudin, Osher and Fatemi, Physica D 60, 1992, doi 10.1016/0167-2789(92)90242-F; Chambolle, J. Math. "
        "Imaging Vision 20, 2004, doi 10.1023/B:JMIV.0000011325.36760.1e"
    )
    cost: ClassVar[str] = "seconds on a CPU (256x256)"
    profiles: ClassVar[dict[str, dict]] = {
        "official": dict(calibration="sigma"), "j_invariant": {}, "smoke": {},
    }  # fmt: skip
    knob: ClassVar[str] = "weight"
    knobs: ClassVar[tuple[float, float]] = (0.01, 2.0)

    steps: int = 200

    def __post_init__(self):
        super().__post_init__()
        check_least("steps", self.steps, 2)

    def filtered(self, picture: np.ndarray, knob: float, channel_axis: int | None = None) -> np.ndarray:
        how = dict(max_num_iter=self.steps, channel_axis=channel_axis)
        return skimage.restoration.denoise_tv_chambolle(picture, knob, **how)

    def set_by(self, sigma: float, picture: np.ndarray, run: Callable[[float], np.ndarray]) -> float:
        noise = sigma / 255
        weight = noise
        for _ in range(_ROUNDS):
            removed = np.sqrt(np.mean((picture - run(weight)) ** 2))
            if abs(removed - noise) < 0.01 * noise:
                break
            weight = float(np.clip(weight * noise / max(removed, 1e-9), 1e-4, self.knobs[1]))
        return weight
