"""How many weights a method's network has, counted from what the method would fit or apply."""

from __future__ import annotations

from functools import cache

import torch
from torch import nn

from b2g.method import Circumstances, Method
from b2g.methods import METHODS
from b2g.network import EncoderDecoder
from b2g.networks.dncnn import DnCNN
from b2g.networks.drunet import DRUNet
from b2g.networks.ffdnet import FFDNet
from b2g.trained import Trained

SIDE = 64  # of the picture that a method is asked for its network with; no weight depends on it
DNCNN_LAYERS = {1: 17, 3: 20}


@cache
def parameters(method: Method, channels: int = 3) -> int | None:
    """The weights of a method's network for pictures of ``channels``; None where it has no network.

    Of a method that fits a network to each channel by itself, one network counts. Nothing is fetched, so
    networks with published weights are built without them.
    """
    network = _network(method, channels)
    return None if network is None else sum(weights.numel() for weights in network.parameters())


def _network(method: Method, channels: int) -> nn.Module | None:
    if isinstance(method, Trained):
        return method.network(channels)
    if hasattr(method, "members"):
        return _network(method.members(25.0)[0], channels)
    if method.name == "pnp":
        return _prior(method.prior, channels)
    if method.name == "mpi":  # the network that is fitted from scratch, in colour whatever the picture
        return METHODS["mpi_scratch"]().network(3, Circumstances())[0]
    if hasattr(method, "objective"):
        channels = 1 if _by_channel(method) else channels
        if hasattr(method, "draws"):  # prepared beforehand, and many on so small a picture
            method = method.changed(draws=1)
        noisy = torch.rand((1, channels, SIDE, SIDE), generator=torch.Generator().manual_seed(0))
        return method.objective(noisy, Circumstances()).network
    return EncoderDecoder(channels, method.architecture()) if hasattr(method, "architecture") else None


def _by_channel(method: Method) -> bool:
    return method.name == "noise2fast" or (method.name == "noise2void" and method.per_channel)


def _prior(prior: str, channels: int) -> nn.Module:
    if prior == "auto":
        prior = "ffdnet" if channels == 3 else "dncnn"
    if prior == "dncnn":
        return DnCNN(channels, DNCNN_LAYERS[channels], norm=False)
    return (FFDNet if prior == "ffdnet" else DRUNet)(channels)
