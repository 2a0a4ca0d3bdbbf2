"""LIChI (Herbreteau and Kervrann, IEEE TIP 33, 2024, doi 10.1109/TIP.2024.3436651):
chained linear combinations of patches.

A first estimate by Noisier2Noise's risk, then M steps, each with the last estimate as the guide of the next
Theta and a picture that holds less and less of the noise. Written from the paper's formulas.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from b2g.anscombe import through_gaussian
from b2g.colour import channels, from_opponent, to_opponent
from b2g.errors import B2GError
from b2g.groups import Groups, find_groups
from b2g.method import Circumstances, Denoised, Method, check_least
from b2g.methods.nl_ridge import check_noise, level_of, photons_of
from b2g.patches import combine, patch_sums

_LEAST = 1e-6  # how far the share of noise that is left must lie above the share that is kept
_REFRESH = 3  # steps that one set of groups serves


@dataclass(frozen=True)
class LIChI(Method):
    """LIChI for Gaussian, Poisson or a camera's noise, gray and colour.

    ``sigma`` is the Gaussian noise level on 0..255; None estimates it (:func:`b2g.noise.estimate_sigma`).
    ``noise="poisson"``: the picture is counts over ``photons`` (at white; None estimates them,
    :func:`b2g.anscombe.estimate_photons`), and goes through the Anscombe transform and its exact unbiased
    inverse. ``noise="correlated"``: as NL-Ridge has it (:mod:`b2g.methods.nl_ridge`). ``patch`` (side) and
    ``group`` (members) belong to the first estimate and to the steps after it, ``steps`` is M; 0 is the paper's
    number for this sigma. ``window`` is the side of the search window, ``stride`` the distance of reference
    patches, ``alpha`` the strength of the added noise of Noisier2Noise, ``keep`` the share of noise kept at the
    start.
    ``colour="joint"`` (the paper) lets the channels of a patch share one Theta; ``"opponent"`` fits one for
    brightness and one for each of the two opponent colours (:mod:`b2g.colour`), which the same group serves.
    """

    name: ClassVar[str] = "lichi"
    label: ClassVar[str] = "classical"
    source: ClassVar[str] = "Herbreteau and Kervrann, IEEE TIP 33, 2024, doi 10.1109/TIP.2024.3436651"
    cost: ClassVar[str] = "some ten seconds on a CPU (256x256)"
    default_profile: ClassVar[str] = "opponent"
    profiles: ClassVar[dict[str, dict]] = {
        "official": {}, "opponent": dict(colour="opponent", stride=4, steps=6),
        "fine": dict(colour="opponent"),  # the paper's numbers: a little better, at twice the time
        "camera": dict(colour="opponent", stride=4, steps=6, noise="correlated"),
        "smoke": dict(patch=(7, 5), group=(16, 32), window=15, steps=4),
    }  # fmt: skip

    sigma: float | None = None
    noise: str = "gaussian"
    photons: float | None = None
    patch: tuple[int, int] = (0, 6)
    group: tuple[int, int] = (16, 64)
    steps: int = 0
    window: int = 65
    stride: int = 3
    alpha: float = 0.5
    keep: float = 0.75
    colour: str = "joint"

    def __post_init__(self):
        super().__post_init__()
        check_noise(self)
        check_least("patch", min(self.patch[0], self.patch[1] - 1), 0)
        check_least("group", min(self.group), 1)
        check_least("steps", self.steps, 0)
        if not self.alpha > 0:
            raise B2GError(f"alpha is the strength of the added noise and must be positive, not {self.alpha}.")
        if not 0 <= self.keep < 1:
            raise B2GError(f"keep is a share of the noise and must lie in [0, 1), not {self.keep}.")

    def numbers(self, sigma: float) -> tuple[int, int]:
        """Side of the first patches and number of steps M: the settings, or the paper's for ``sigma``."""
        patch, steps = (9, 6) if sigma <= 10 else (11, 9) if sigma <= 30 else (13, 11)
        return self.patch[0] or patch, self.steps or steps

    @torch.no_grad()
    def __call__(self, noisy: Tensor, circumstances: Circumstances = Circumstances()) -> Denoised:
        """Denoise ``noisy`` ``(1, C, H, W)`` in [0, 1] (values outside are welcome)."""
        if self.noise != "poisson":
            sigma = level_of(self, noisy)
            return Denoised(self._denoise(noisy.float(), sigma), [{"sigma": sigma}])
        photons = photons_of(self, noisy)
        return Denoised(through_gaussian(noisy.float(), photons, self._denoise), [{"photons": photons}])

    def _denoise(self, noisy: Tensor, level: float) -> Tensor:
        """The method itself, for Gaussian noise of sigma ``level`` on 0..255; ``(1, C, H, W)``."""
        picture, sigma = noisy[0].permute(1, 2, 0).contiguous(), level / 255
        picture = to_opponent(picture) if self.colour == "opponent" else picture
        side, steps = self.numbers(level)
        estimate = self._first(picture, sigma, side)
        left, patch = picture, min(self.patch[1], *picture.shape[:2])
        for step in range(1, steps + 1):
            if step % _REFRESH == 1:
                groups = self._groups(left, patch, self.group[1])
            kept, pairs = self.keep * (1 - step / steps), []
            for whole, guide, rest in self._parts(picture, estimate, left):
                pairs.append(combine(groups, guide, rest, self._risk(whole - rest, sigma, patch, kept)))
            estimate, left = (torch.cat(parts, dim=2) for parts in zip(*pairs))
        estimate = from_opponent(estimate) if self.colour == "opponent" else estimate
        return estimate.permute(2, 0, 1)[None]

    def _parts(self, *pictures: Tensor) -> list[tuple[Tensor, ...]]:
        """What is denoised together: all channels, or each opponent colour by itself."""
        return channels(*pictures) if self.colour == "opponent" else [pictures]

    def _groups(self, picture: Tensor, patch: int, members: int) -> Groups:
        brightness = picture[..., 0] if self.colour == "opponent" else picture.mean(dim=2)
        return find_groups(brightness, patch, self.window, self.stride, members)

    def _first(self, picture: Tensor, sigma: float, side: int) -> Tensor:
        """The estimate that starts the chain, from Noisier2Noise's risk with added noise of alpha sigma."""
        side = min(side, *picture.shape[:2])
        groups = self._groups(picture, side, self.group[0])
        variance = side**2 * (1 if self.colour == "opponent" else picture.shape[2]) * sigma**2

        def risk(index: Tensor) -> tuple[Tensor, Tensor, None]:
            ones = picture.new_ones(index.shape)
            return (1 + self.alpha**2) * variance * ones, self.alpha**2 * variance * ones, None

        return torch.cat([combine(groups, part, part, risk)[0] for (part,) in self._parts(picture)], dim=2)

    def _risk(self, removed: Tensor, sigma: float, patch: int, keep: float):
        """The risk of one step: what noise is left in each group,
        told by what was ``removed`` ``(H, W, C)`` from it.

        With t = 1 - std(removed) / sigma over the group, at least ``keep`` + 1e-6, the noise has the standard
        deviation t sigma, and the share keep / t of it stays.
        """
        entries = patch**2 * removed.shape[2]
        mean, square = (patch_sums(plane, patch) / entries for plane in (removed, removed**2))

        def risk(index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            variance = square[index].mean(dim=1) - mean[index].mean(dim=1) ** 2
            left = (1 - variance.clamp_min(0).sqrt() / sigma).clamp_min(keep + _LEAST)
            noise = (entries * (sigma * left) ** 2)[:, None].expand(index.shape)
            return noise, noise, keep / left

        return risk
