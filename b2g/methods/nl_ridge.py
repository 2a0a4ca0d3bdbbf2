"""NL-Ridge (Herbreteau and Kervrann, SIAM J. Imaging Sciences 18(1), 2025, doi 10.1137/24M1630967):
two steps of group-wise ridge.

Each group of similar patches is replaced by linear combinations of its members: first those of least
estimated risk (SURE), then those that would be best were the first picture the clean one. Written from the
paper's formulas.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from b2g.anscombe import estimate_photons
from b2g.colour import COLOURS, channels, from_opponent, mixed_variance, to_opponent
from b2g.errors import B2GError
from b2g.groups import Groups, find_groups
from b2g.method import Circumstances, Denoised, Method, check_choice, check_least
from b2g.noise import given_or_estimated
from b2g.patches import combine, patch_sums

_EXTRA = 0.05  # variance of the extra noise that makes the first step's risk well posed, over that of the noise
_DARK = 0.01  # the least variance of Poisson noise, over its mean: dark pixels with no count are not exact


@dataclass(frozen=True)
class NLRidge(Method):
    """NL-Ridge for Gaussian, Poisson or a camera's noise, gray and colour.

    ``sigma`` is the Gaussian noise level on 0..255; None estimates it (:func:`b2g.noise.estimate_sigma`).
    ``noise="correlated"``: noise that neighbouring pixels share is taken for white noise as strong as it is at low
    frequencies (:func:`b2g.noise.estimate_correlated_sigma`); profile ``camera``.
    ``noise="poisson"``: the picture is counts over ``photons`` (at white), its variance each pixel's own, at
    first that of the noisy picture, then of the first estimate; ``photons=None`` estimates them
    (:func:`b2g.anscombe.estimate_photons`). ``patch`` (side) and ``group`` (members) belong to the first and
    second step; 0 is the paper's number for this sigma. ``window`` is the side of the search window,
    ``stride`` the distance of reference patches.
    """

    name: ClassVar[str] = "nl_ridge"
    label: ClassVar[str] = "classical"
    source: ClassVar[str] = "Herbreteau and Kervrann, SIAM J. Imaging Sci. 18(1), 2025, doi 10.1137/24M1630967"
    cost: ClassVar[str] = "seconds on a CPU (256x256)"
    default_profile: ClassVar[str] = "opponent"
    profiles: ClassVar[dict[str, dict]] = {
        "official": {}, "opponent": dict(colour="opponent"), "camera": dict(colour="opponent", noise="correlated"),
        "smoke": dict(patch=(5, 5), group=(12, 32), window=15),
    }  # fmt: skip

    sigma: float | None = None
    noise: str = "gaussian"
    photons: float | None = None
    patch: tuple[int, int] = (0, 0)
    group: tuple[int, int] = (0, 0)
    window: int = 37
    stride: int = 4
    colour: str = "joint"

    def __post_init__(self):
        super().__post_init__()
        check_noise(self)
        for name in ("patch", "group"):
            check_least(name, min(getattr(self, name)), 0)

    def numbers(self, sigma: float) -> list[tuple[int, int]]:
        """Side of a patch and members of a group in either step: the settings,
        or the paper's for ``sigma``."""
        published = (7, 7, 18, 55) if sigma <= 15 else (9, 9, 18, 90) if sigma <= 35 else (11, 9, 20, 120)
        chosen = [own or paper for own, paper in zip((*self.patch, *self.group), published)]
        return [(chosen[0], chosen[2]), (chosen[1], chosen[3])]

    @torch.no_grad()
    def __call__(self, noisy: Tensor, circumstances: Circumstances = Circumstances()) -> Denoised:
        """Denoise ``noisy`` ``(1, C, H, W)`` in [0, 1] (values outside are welcome)."""
        picture = noisy[0].permute(1, 2, 0).float().contiguous()
        level, variance, found = self._variance(noisy, picture)
        estimate = picture
        for step, (patch, members) in enumerate(self.numbers(level)):
            patch = min(patch, *picture.shape[:2])
            groups = find_groups(estimate.mean(dim=2), patch, self.window, self.stride, members)
            estimate = self._step(step, groups, estimate, picture, variance(estimate))
        return Denoised(estimate.permute(2, 0, 1)[None], [found])

    def _step(self, step: int, groups: Groups, guide: Tensor, picture: Tensor, variance: Tensor) -> Tensor:
        """One of the two steps, on all channels together or on each opponent colour by itself;
        ``(H, W, C)``."""
        parts = [(guide, picture, variance)]
        if self.colour == "opponent":
            parts = channels(to_opponent(guide), to_opponent(picture), mixed_variance(variance))
        answers = []
        for model, source, own in parts:
            noise = patch_sums(own, groups.patch)
            ridge, extra = (1 + _EXTRA, _EXTRA) if step == 0 else (1, 1)
            risk = lambda index: (ridge * noise[index], extra * noise[index], None)  # noqa: B023, E731
            answers.append(combine(groups, model, source, risk)[0])
        answer = torch.cat(answers, dim=2)
        return from_opponent(answer) if self.colour == "opponent" else answer

    def _variance(self, noisy: Tensor, picture: Tensor):
        """Sigma on 0..255, the map from an estimate to the variance of each entry of the picture,
        and what was found."""
        if self.noise != "poisson":
            sigma = level_of(self, noisy)
            return sigma, lambda estimate: torch.full_like(estimate, (sigma / 255) ** 2), {"sigma": sigma}
        photons = photons_of(self, noisy)
        mean = max(picture.mean().item(), 1e-6)
        variance = lambda estimate: estimate.clamp_min(_DARK * mean) / photons  # noqa: E731
        return 255 * (mean / photons) ** 0.5, variance, {"photons": photons}


def check_noise(method: Method) -> None:
    """Refuses what NL-Ridge and LIChI have in common and cannot be."""
    check_choice("noise", method.noise, ("gaussian", "poisson", "correlated"))
    check_choice("colour", method.colour, COLOURS)
    if method.sigma is not None and not method.sigma > 0:
        raise B2GError(f"{method.name}'s sigma is a noise level on 0..255 and must be positive, not {method.sigma}.")
    if method.photons is not None and not method.photons > 0:
        raise B2GError(f"{method.name}'s photons at white must be positive, not {method.photons}.")
    check_least("stride", method.stride, 1)
    if method.window < 1 or method.window % 2 == 0:
        raise B2GError(f"window is the side of a square around a pixel and must be odd, not {method.window}.")


def level_of(method: Method, noisy: Tensor) -> float:
    """Sigma on 0..255 of Gaussian or correlated noise, given or estimated."""
    if method.photons is not None:
        raise B2GError(f"{method.name}'s photons belong to noise='poisson'; other noise has a sigma.")
    return given_or_estimated(method.sigma, noisy, method.name, method.noise)


def photons_of(method: Method, noisy: Tensor) -> float:
    """Photons at white of Poisson noise, given or estimated."""
    if method.sigma is not None:
        raise B2GError(f"{method.name}'s sigma belongs to noise='gaussian'; Poisson noise has photons.")
    return float(estimate_photons(noisy) if method.photons is None else method.photons)
