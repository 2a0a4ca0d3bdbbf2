"""Plug and play: a denoiser learned elsewhere as the prior of one noisy picture.

Sources: Venkatakrishnan, Bouman and Wohlberg, GlobalSIP 2013, doi 10.1109/GlobalSIP.2013.6737048; with deep
denoisers DPIR, Zhang et al., IEEE TPAMI 44(10), 2022, doi 10.1109/TPAMI.2021.3088914. Setting: one noisy
picture, its noise level given or estimated, and a network that others fitted to many clean pictures.

DPIR's half-quadratic splitting alternates the closed form of the data term with one pass of the prior: x = (y
+ a z) / (1 + a) with a = lambda sigma^2 / sigma_k^2, then z = prior(x, sigma_k), from z = y on; sigma_k falls
evenly in its logarithm from 49 to sigma, and lambda is 0.23. It restores blurred, small or mosaicked
pictures. Here the degradation is the identity: the data step is a mean of the noisy picture and the last
answer, and the prior at sigma is already what it was trained to give. One pass, the paper's own way to
denoise, is therefore the default. Not followed: the released code's turning of the picture between passes.

Priors: FFDNet (doi 10.1109/TIP.2018.2839891), DnCNN (doi 10.1109/TIP.2017.2662206), DRUNet (DPIR's). DnCNN's
colour weights are blind. Its gray ones know sigma 25 alone: for more noise the picture is scaled down about
middle gray before and up after (Xu et al. 2020, doi 10.48550/arXiv.2002.11546); for less, scaling would leave
[0, 1], where the network fails, so down to sigma 15 it runs as it is, and below that it is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from b2g.errors import B2GError
from b2g.method import Circumstances, Denoised, Method, added_later, check_choice, check_least
from b2g.metrics import psnr
from b2g.networks.dncnn import DnCNN
from b2g.networks.drunet import DRUNet
from b2g.networks.ffdnet import FFDNet
from b2g.noise import given_or_estimated
from b2g.weights import fetch_weights

PRIORS = ("auto", "ffdnet", "dncnn", "drunet")
_KNOWN, _LEAST = 25.0, 15.0  # sigma of DnCNN's gray weights, and the least that they are let loose on
_DNCNN = {1: ("dncnn_gray_25", 17), 3: ("dncnn_color_blind", 20)}  # listed weights and layers, by channels


@dataclass(frozen=True)
class PlugAndPlay(Method):
    """A pretrained denoiser as the prior; gray and colour, any size, the same for every seed, in float32.

    ``prior``: ``"ffdnet"``, ``"dncnn"``, ``"drunet"``, or ``"auto"``: ffdnet in colour, dncnn in gray, whose
    weights are listed (:mod:`b2g.weights`). ``sigma`` is the noise level on 0..255; None estimates it
    (:func:`b2g.noise.estimate_sigma`, or with ``noise="correlated"``, the profile ``camera``,
    :func:`b2g.noise.estimate_correlated_sigma`); a blind prior takes none. ``weights`` is the path of a file in the
    layout of KAIR (github.com/cszn/KAIR), which drunet and gray ffdnet need; a run is known by the path, not
    by what the file holds. ``iterations`` of the splitting, from the level ``start`` on 0..255, or sigma if
    that is more, down to sigma, and its ``balance`` lambda.
    """

    name: ClassVar[str] = "pnp"
    label: ClassVar[str] = "one image, with a prior learned elsewhere"
    source: ClassVar[str] = (
        "Zhang et al. (DPIR), IEEE TPAMI 44(10), 2022, doi 10.1109/TPAMI.2021.3088914; FFDNet: doi "
        "10.1109/TIP.2018.2839891; DnCNN: doi 10.1109/TIP.2017.2662206"
    )
    cost: ClassVar[str] = "a second on a CPU (256x256), drunet some ten"
    default_profile: ClassVar[str] = "official"
    profiles: ClassVar[dict[str, dict]] = {
        "official": {}, "dncnn": dict(prior="dncnn"), "camera": dict(noise="correlated"), "smoke": {},
    }  # fmt: skip

    prior: str = "auto"
    sigma: float | None = None
    iterations: int = 1
    start: float = 49.0
    balance: float = 0.23
    weights: str = ""
    noise: str = added_later("gaussian")

    def __post_init__(self):
        super().__post_init__()
        check_choice("prior", self.prior, PRIORS)
        check_choice("noise", self.noise, ("gaussian", "correlated"))
        check_least("iterations", self.iterations, 1)
        for name in ("sigma", "start", "balance"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise B2GError(f"pnp's {name} must be positive, not {value}.")
        if self.prior == "drunet" and not self.weights:
            raise B2GError(
                "pnp's prior drunet has no listed weights: give weights=PATH of drunet_color.pth or "
                "drunet_gray.pth, which github.com/cszn/DPIR tells how to get."
            )
        if self.weights and self.prior not in ("ffdnet", "drunet"):
            raise B2GError(f"pnp's weights belong to prior='ffdnet' or 'drunet', not to {self.prior!r}.")

    def levels(self, sigma: float) -> list[float]:
        """The noise levels that the prior is told, one an iteration, the last of them ``sigma``."""
        return [float(level) for level in np.geomspace(sigma, max(self.start, sigma), self.iterations)[::-1]]

    @torch.no_grad()
    def __call__(self, noisy: Tensor, circumstances: Circumstances = Circumstances()) -> Denoised:
        """Denoise ``noisy`` ``(1, C, H, W)`` in [0, 1], C of 1 or 3 (values outside are welcome)."""
        noisy, channels = noisy.float(), noisy.shape[1]
        name = self._chosen(channels)
        prior = load_prior(name, channels, self.weights).to(noisy.device)
        if name == "dncnn" and channels == 3:
            return self._blind(prior, noisy, circumstances)
        sigma = given_or_estimated(self.sigma, noisy, self.name, self.noise)
        estimate, history = noisy, []
        for step, level in enumerate(self.levels(sigma), start=1):
            share = self.balance * (sigma / level) ** 2
            estimate = prior((noisy + share * estimate) / (1 + share), level)
            history.append({"step": step, "sigma": sigma, "level": level} | _shown(estimate, circumstances))
        return Denoised(estimate, history)

    def _chosen(self, channels: int) -> str:
        if self.prior != "auto":
            return self.prior
        return "ffdnet" if channels == 3 else "dncnn"

    def _blind(self, prior: nn.Module, noisy: Tensor, circumstances: Circumstances) -> Denoised:
        """One pass of a prior that finds the noise level by itself."""
        if self.sigma is not None or self.iterations > 1 or self.noise != "gaussian":
            raise B2GError(
                "DnCNN's colour weights are blind: leave out sigma, noise and iterations, or take prior='ffdnet'."
            )
        estimate = prior(noisy)
        return Denoised(estimate, [{"step": 1} | _shown(estimate, circumstances)])


class _Scaled(nn.Module):
    """A network that knows noise of sigma 25 alone, brought to a higher level by scaling the picture."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, picture: Tensor, sigma: float) -> Tensor:
        if sigma < _LEAST:
            raise B2GError(
                f"DnCNN's gray weights know sigma {_KNOWN:g} and would blur a picture of sigma {sigma:.3g}: "
                "take another method, or prior='ffdnet' with weights=PATH of KAIR's ffdnet_gray.pth."
            )
        factor = min(1.0, _KNOWN / sigma)
        return (self.network((picture - 0.5) * factor + 0.5) - 0.5) / factor + 0.5


def load_prior(name: str, channels: int, path: str = "") -> nn.Module:
    """The network ``name`` for pictures of ``channels``, with its listed weights or those of a file.

    It is called with the picture and the noise level on 0..255, DnCNN in colour with the picture alone.
    """
    if name == "ffdnet" and channels == 1 and not path:
        raise B2GError(
            "FFDNet's gray weights are not listed: give weights=PATH of KAIR's ffdnet_gray.pth, or take "
            "prior='dncnn'."
        )
    listed, depth = _DNCNN[channels] if name == "dncnn" else ("ffdnet_color", 0)
    with torch.device("meta"):  # no weight is drawn: the file gives them all
        kinds = {"dncnn": lambda: DnCNN(channels, depth, norm=False), "ffdnet": lambda: FFDNet(channels)}
        network = kinds.get(name, lambda: DRUNet(channels))()
    _fill(network, Path(path) if path else fetch_weights(listed))
    network = _Scaled(network) if name == "dncnn" and channels == 1 else network
    return network.float().eval().requires_grad_(False)


def _fill(network: nn.Module, path: Path) -> None:
    """The weights of KAIR's file, where chains are called ``model``, into ``network``; no pickle."""
    what = type(network).__name__
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        named = {re.sub(r"^model\.", "layers.", key): value for key, value in state.items()}
        network.load_state_dict(named, assign=True)
    except OSError as error:
        raise B2GError(f"pnp's weights {path} cannot be read: {error.strerror or error}.") from error
    except Exception as error:
        raise B2GError(f"{path} does not hold a {what} for pictures of this kind; give KAIR's.") from error


def _shown(estimate: Tensor, circumstances: Circumstances) -> dict[str, float]:
    return {} if circumstances.clean is None else {"psnr": psnr(circumstances.clean, estimate)}
