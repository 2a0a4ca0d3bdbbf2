"""Classical filters with one knob, set by the level of the noise or by the noisy picture alone.

J-invariant calibration (Batson and Royer, ICML 2019, doi 10.48550/arXiv.1901.11365, as scikit-image's
``calibrate_denoiser`` carries it out): the pixels of a grid are replaced by the mean of their four
neighbours, the filter runs, and its answers at these pixels are compared with the noisy values there, which
it has not seen. Where noise is independent from pixel to pixel and has no bias, this loss is the true error
of the filter that does not see the pixel, plus a constant: no sigma is needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Callable, ClassVar

import numpy as np
import skimage  # loads skimage.restoration, which takes long, where it is first used
import torch
from torch import Tensor

from b2g.errors import B2GError
from b2g.method import Circumstances, Denoised, Method, check_choice, check_least
from b2g.noise import given_or_estimated

CALIBRATIONS = ("j_invariant", "sigma")
ANSWERS = ("visible", "j_invariant")


@dataclass(frozen=True)
class CalibratedFilter(Method):
    """A filter of scikit-image with one knob; on the CPU whatever the device, the same for every seed.

    ``calibration``: ``"j_invariant"`` tries ``candidates`` values of the knob, evenly spaced in their
    logarithm over the filter's range, and takes the one of least self-supervised loss; ``"sigma"`` sets it by
    the noise level ``sigma`` on 0..255 (None: :func:`b2g.noise.estimate_sigma`). ``stride`` is the distance
    of the pixels that are replaced together; the loss is taken over one such grid, or over all of them
    (``all_pixels``), which takes stride^2 times as long and chooses better on small pictures.
    ``answer="visible"`` is the filter on the noisy picture itself; ``"j_invariant"`` gathers the unseen
    pixels of stride^2 passes, so that no pixel's answer depends on its own noise.
    """

    label: ClassVar[str] = "classical"
    default_profile: ClassVar[str] = "j_invariant"
    knob: ClassVar[str] = "level"  # its name in the history
    knobs: ClassVar[tuple[float, float]]  # the range that the candidates span

    calibration: str = "j_invariant"
    sigma: float | None = None
    candidates: int = 16
    stride: int = 4
    all_pixels: bool = False
    answer: str = "visible"

    def __post_init__(self):
        super().__post_init__()
        check_choice("calibration", self.calibration, CALIBRATIONS)
        check_choice("answer", self.answer, ANSWERS)
        check_least("candidates", self.candidates, 2)
        check_least("stride", self.stride, 2)
        if self.stride > 16:
            raise B2GError(f"stride must be at most 16, the smallest side of a picture, not {self.stride}.")
        if self.sigma is not None and not self.sigma > 0:
            raise B2GError(f"{self.name}'s sigma is a level on 0..255, above 0, not {self.sigma}.")
        if self.sigma is not None and self.calibration != "sigma":
            raise B2GError(f"{self.name}'s sigma belongs to calibration='sigma'; give both, or neither.")

    def filtered(self, picture: np.ndarray, knob: float, channel_axis: int | None = None) -> np.ndarray:
        """The filter alone, of ``(H, W)``, or of ``(H, W, 3)`` with ``channel_axis=-1``, to the same shape.
        """
        raise NotImplementedError

    def set_by(self, sigma: float, picture: np.ndarray, run: Callable[[float], np.ndarray]) -> float:
        """The knob for noise of ``sigma`` on 0..255; ``run(knob)`` is the filtered picture."""
        return sigma

    def __call__(self, noisy: Tensor, circumstances: Circumstances = Circumstances()) -> Denoised:
        """Denoise ``noisy`` ``(1, C, H, W)`` in [0, 1], C of 1 or 3 (values outside are welcome)."""
        picture = noisy[0].permute(1, 2, 0).double().cpu().numpy()
        axis = None if picture.shape[-1] == 1 else -1
        picture = np.ascontiguousarray(picture[..., 0] if axis is None else picture)
        run = partial(self.filtered, channel_axis=axis)
        knob, found = self._calibrated(noisy, picture, axis, run)
        if self.answer == "j_invariant":
            settings = dict(knob=knob, channel_axis=axis)
            answer = skimage.restoration.denoise_invariant(
                picture, self.filtered, stride=self.stride, denoiser_kwargs=settings
            )
        else:
            answer = run(picture, knob)
        answer = torch.from_numpy(answer.reshape(*picture.shape[:2], -1)).permute(2, 0, 1)[None]
        return Denoised(answer.to(noisy.device, torch.float32), [found])

    def _calibrated(self, noisy: Tensor, picture: np.ndarray, axis: int | None, run) -> tuple[float, dict]:
        """The knob, and what is told of it."""
        if self.calibration == "sigma":
            sigma = given_or_estimated(self.sigma, noisy, self.name)
            knob = self.set_by(sigma, picture, lambda value: run(picture, value))
            return knob, {"sigma": sigma, self.knob: float(knob)}
        settings = {"knob": np.geomspace(*self.knobs, self.candidates).tolist(), "channel_axis": [axis]}
        _, (tried, losses) = skimage.restoration.calibrate_denoiser(
            picture, self.filtered, settings, stride=self.stride, approximate_loss=not self.all_pixels,
            extra_output=True,
        )  # fmt: skip
        best = int(np.argmin(losses))
        return tried[best]["knob"], {self.knob: tried[best]["knob"], "held_out_loss": float(losses[best])}
