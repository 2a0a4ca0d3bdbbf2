r"""Consensus: the weighted mean of a network fitted to the picture and of a patch-based denoiser.

.. math:: \hat x = w\, f(y) + (1 - w)\, g(y)

The two err differently, so their mean errs less than either. Both use the one noisy picture and nothing else:
sigma is estimated unless it is given, and the weight by pixels that the network's fit held back.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from b2g.errors import B2GError
from b2g.fitted import part_of
from b2g.method import Circumstances, Denoised, Method, added_later, canonical_json, check_choice, check_least
from b2g.methods.b2g import PATCHES, B2G
from b2g.noise import level_by
from b2g.seeds import seed_for


@dataclass(frozen=True)
class Consensus(Method):
    """The mean of ``networks`` fits of ``b2g`` (its profile ``network``) and of the
    patch-based denoiser ``patches``.

    ``patches_profile`` names the patch denoiser's own settings; ``""`` is its default.

    ``weighing="fixed"`` takes ``weight`` as the networks' share; ``"held"`` takes the share for which the mean is
    nearest to pixels that the fit never saw (:meth:`b2g.recorrupt.RecorruptedLoop.share_beside`). ``sigma`` as in
    the members; None estimates it once for both. ``noise="poisson"`` or ``"correlated"`` (the profile ``camera``)
    tells both members which noise to expect; of correlated noise held pixels would show their own to the fit. The
    identity names every setting of both members. The history's last entry tells the share.
    """

    name: ClassVar[str] = "consensus"
    source: ClassVar[str] = (
        "Blind2Grad's network (doi 10.3934/math.2025637) and LIChI (doi 10.1109/TIP.2024.3436651), averaged"
    )
    cost: ClassVar[str] = "minutes on a CPU"
    default_profile: ClassVar[str] = "fast"
    profiles: ClassVar[dict[str, dict]] = {
        "fast": dict(weighing="held"),  # halves lose where the picture is small, since the network then learns noise
        "best": dict(patches_profile="fine", weighing="held"),  # a longer fit would add less, and cost more
        "camera": dict(network="camera", patches_profile="camera", noise="correlated"),
        "halves": {},
        "smoke": dict(network="smoke", patches="nl_ridge"),
    }  # fmt: skip

    network: str = "fast"
    networks: int = 1
    patches: str = "lichi"
    weight: float = 0.5
    noise: str = "gaussian"
    sigma: float | None = None
    weighing: str = added_later("fixed")
    patches_profile: str = added_later("")

    def __post_init__(self):
        super().__post_init__()
        check_choice("network", self.network, tuple(B2G.profiles))
        check_choice("patches", self.patches, tuple(PATCHES))
        check_least("networks", self.networks, 1)
        if not 0 <= self.weight <= 1:
            raise B2GError(f"weight is the networks' share and must lie in [0, 1], not {self.weight}.")
        if self.sigma is not None and self.noise == "poisson":
            raise B2GError("consensus's sigma belongs to noise='gaussian'; leave it out, photons are estimated.")
        check_choice("weighing", self.weighing, ("fixed", "held"))
        network, _ = self.members(self.sigma)  # refuses what a member cannot be told
        if self.weighing == "held" and not network.holds:
            raise B2GError(f"weighing='held' needs a network that holds pixels back, not {self.network!r}; "
                           "set weighing='fixed', or network='fast'.")
        if self.weighing == "held" and self.weight != type(self).weight:
            raise B2GError("weight is not used with weighing='held'; leave it out, or set weighing='fixed'.")

    def members(self, sigma: float | None = None) -> tuple[B2G, Method]:
        """The two members, configured; told ``sigma`` (on 0..255) where they take one."""
        noise = {"noise": self.noise, "sigma": sigma if self.noise != "poisson" else None}
        return B2G.profile(self.network, **noise), self._other(**noise)

    def _other(self, **told) -> Method:
        """The patch denoiser, configured."""
        return PATCHES[self.patches].profile(self.patches_profile or None, **told)

    def identity(self) -> str:
        """As every method's, with the members' own identities: they change when a profile does."""
        members = [json.loads(member.identity()) for member in self.members(self.sigma)]
        return canonical_json(json.loads(super().identity()) | {"members": members})

    def __call__(self, noisy: Tensor, circumstances: Circumstances = Circumstances()) -> Denoised:
        """Denoise ``noisy`` ``(1, C, H, W)`` in [0, 1] (values outside are welcome)."""
        sigma = self.sigma
        if sigma is None and self.noise != "poisson":
            sigma = level_by(self.noise, noisy)
        network, patches = self.members(sigma)
        other = patches(noisy, circumstances)
        weigh = None if self.weighing == "fixed" else self._patched
        mixed, shares, history = torch.zeros_like(noisy), [], []
        for index in range(self.networks):
            seed = seed_for(circumstances.seed, "network", index)
            own = circumstances if index == 0 else part_of(circumstances, str(index), seed)
            answer, share = network.beside(noisy, own, weigh)
            shares.append(self.weight if weigh is None else share)
            mixed += shares[-1] * answer.estimate
            history += answer.history
        share = sum(shares) / self.networks
        estimate = mixed / self.networks + (1 - share) * other.estimate
        return Denoised(estimate, [*other.history, *history, {"share": share}])

    def _patched(self, noisy: Tensor, sigma: float) -> Tensor:
        """The patch denoiser's answer to Gaussian noise; ``sigma`` in the picture's units."""
        return self._other(sigma=255 * sigma)(noisy).estimate
