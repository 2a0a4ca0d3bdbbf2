"""BM3D and CBM3D (Dabov, Foi, Katkovnik and Egiazarian, IEEE TIP 2007, doi 10.1109/TIP.2007.901238).

Runs the authors' package ``bm3d`` from PyPI, whose licence is for non-commercial use: an optional extra,
imported when asked for and never shipped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from b2g.errors import B2GError
from b2g.method import Circumstances, Denoised, Method, added_later, check_choice
from b2g.noise import given_or_estimated


@dataclass(frozen=True)
class BM3D(Method):
    """BM3D on gray pictures, CBM3D (opponent colours) on colour ones; on the CPU whatever the device.

    ``sigma`` is the noise level on 0..255; None estimates it from the picture (:func:`b2g.noise.estimate_sigma`), with
    ``noise="correlated"`` by :func:`b2g.noise.estimate_correlated_sigma`. The published
    tables give the true one, which no blind method has.
    """

    name: ClassVar[str] = "bm3d"
    label: ClassVar[str] = "classical"
    source: ClassVar[str] = "Dabov et al., IEEE TIP 16(8), 2007, doi 10.1109/TIP.2007.901238; package bm3d"
    cost: ClassVar[str] = "seconds on a CPU"
    default_profile: ClassVar[str] = "official"
    profiles: ClassVar[dict[str, dict]] = {"official": {}, "smoke": {}}

    sigma: float | None = None
    noise: str = added_later("gaussian")

    def __post_init__(self):
        super().__post_init__()
        if self.sigma is not None and not self.sigma > 0:
            raise B2GError(f"bm3d's sigma is a noise level on 0..255 and must be positive, not {self.sigma}.")
        check_choice("noise", self.noise, ("gaussian", "correlated"))

    def __call__(self, noisy: Tensor, circumstances: Circumstances = Circumstances()) -> Denoised:
        """Denoise ``noisy`` ``(1, C, H, W)`` in [0, 1] (values outside are welcome)."""
        try:
            from bm3d import bm3d, bm3d_rgb
        except ImportError as error:
            raise B2GError(
                "method bm3d needs the package bm3d (non-commercial licence): pip install 'b2g[bm3d]'."
            ) from error
        picture = noisy[0].permute(1, 2, 0).double().cpu().numpy()
        sigma = given_or_estimated(self.sigma, noisy, self.name, self.noise)
        colour = picture.shape[-1] == 3
        answer = bm3d_rgb(picture, sigma / 255) if colour else bm3d(picture[..., 0], sigma / 255)
        answer = np.asarray(answer, dtype=np.float32).reshape(picture.shape)
        estimate = torch.from_numpy(answer).permute(2, 0, 1)[None].to(noisy.device)
        return Denoised(estimate, [{"sigma": float(sigma)}])
