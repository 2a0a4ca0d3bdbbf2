"""The hourglass with thin skips of Deep Image Prior, which MPI widens and trains in advance.

Ulyanov, Vedaldi and Lempitsky, IJCV 128, 2020, doi 10.1007/s11263-020-01303-4; Ma et al., NeurIPS 2024, doi
10.48550/arXiv.2401.14966. Every convolution but the last is followed by batch normalisation and
LeakyReLU(0.2), 3x3 ones mirror the border, the way down is by strides, and a 1x1 convolution at every level
carries what the picture has there past the levels below. Both methods normalise by the statistics of the pass
at hand; MPI's published file holds those of its training, too, which an untouched network needs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from b2g.errors import B2GError
from b2g.method import check_choice, check_least
from b2g.network import mirror


@dataclass(frozen=True)
class SkipShape:
    """The shape of a :class:`Skip`; the defaults are Deep Image Prior's.

    ``scales`` halvings, ``width`` channels at each, ``skip`` channels past it, and the way ``up`` again:
    ``"bilinear"`` or ``"nearest"``. ``statistics`` of the normalisation: of the pass at hand (``"batch"``),
    or those that came with the weights (``"stored"``).
    """

    width: int = 128
    skip: int = 4
    scales: int = 5
    up: str = "bilinear"
    statistics: str = "batch"

    def __post_init__(self):
        for name in ("width", "skip", "scales"):
            check_least(name, getattr(self, name), 1)
        check_choice("up", self.up, ("bilinear", "nearest"))
        check_choice("statistics", self.statistics, ("batch", "stored"))


class _StoredNorm(nn.BatchNorm2d):
    """Batch normalisation by the statistics that came with the weights, while its scale and shift are
    fitted."""

    def forward(self, features: Tensor) -> Tensor:
        return F.batch_norm(
            features, self.running_mean, self.running_var, self.weight, self.bias, False, self.momentum, self.eps
        )


def _batch_norm(channels: int, statistics: str) -> nn.BatchNorm2d:
    return _StoredNorm(channels) if statistics == "stored" else nn.BatchNorm2d(channels, track_running_stats=False)


class _Layer(nn.Module):
    """Convolution with a mirrored border, batch normalisation, LeakyReLU(0.2)."""

    def __init__(self, channels_in: int, channels_out: int, side: int, statistics: str, stride: int = 1):
        super().__init__()
        border = {"padding": side // 2, "padding_mode": "reflect"} if side > 1 else {}
        self.convolution = nn.Conv2d(channels_in, channels_out, side, stride, **border)
        self.norm = _batch_norm(channels_out, statistics)

    def forward(self, features: Tensor) -> Tensor:
        return F.leaky_relu(self.norm(self.convolution(features)), 0.2)


class _Level(nn.Module):
    """One level: the skip, the two layers down, and those that join what comes up from below with the
    skip."""

    def __init__(self, channels: int, shape: SkipShape):
        super().__init__()
        width, joined, how = shape.width, shape.skip + shape.width, shape.statistics
        self.up = shape.up
        self.skip = _Layer(channels, shape.skip, 1, how)
        self.down, self.deep = _Layer(channels, width, 3, how, stride=2), _Layer(width, width, 3, how)
        self.join = _batch_norm(joined, how)
        self.merge, self.last = _Layer(joined, width, 3, how), _Layer(width, width, 1, how)

    def lower(self, features: Tensor) -> Tensor:
        return self.deep(self.down(features))

    def raised(self, features: Tensor, below: Tensor) -> Tensor:
        smooth = {"align_corners": False} if self.up == "bilinear" else {}
        below = F.interpolate(below, scale_factor=2, mode=self.up, **smooth)
        skipped = self.skip(features)
        return self.last(self.merge(self.join(torch.cat((skipped, below.to(skipped.dtype)), 1))))


class Skip(nn.Module):
    """``forward(input)``: ``(B, channels, H, W)`` to an estimate ``(B, answers, H, W)`` in (0, 1).

    Any size: the input is mirrored to the next multiple of 2^scales, twice that at least, and the answer
    cropped.
    """

    def __init__(self, channels: int, answers: int, shape: SkipShape = SkipShape()):
        super().__init__()
        self.shape = shape
        widths = [channels] + [shape.width] * (shape.scales - 1)
        self.levels = nn.ModuleList(_Level(width, shape) for width in widths)
        self.head = nn.Conv2d(shape.width, answers, 1)

    def forward(self, given: Tensor) -> Tensor:
        height, width = given.shape[-2:]
        step = 2**self.shape.scales
        grown = [max(2 * step, -(-side // step) * step) for side in (height, width)]
        if grown != [height, width]:
            given = mirror(given, *grown).contiguous(memory_format=torch.channels_last)
        features = [given]
        for level in self.levels:
            features.append(level.lower(features[-1]))
        answer = features.pop()
        for level in reversed(self.levels):
            answer = level.raised(features.pop(), answer)
        return torch.sigmoid(self.head(answer).float())[..., :height, :width]


# Where the published file keeps the parts of a level: places in nested sequences,
# the lower levels within the upper.
_PLACES = {
    "skip.convolution": "1.0.1.1", "skip.norm": "1.0.2", "down.convolution": "1.1.1.1", "down.norm": "1.1.2",
    "deep.convolution": "1.1.4.1", "deep.norm": "1.1.5", "join": "2", "merge.convolution": "3.1", "merge.norm": "4",
    "last.convolution": "6.1", "last.norm": "7",
}  # fmt: skip


def published_names(scales: int = 5) -> dict[str, str]:
    """The name of every part of a :class:`Skip` in MPI's published files, by its own name."""
    parts = {
        f"levels.{level}.{own}": "net." + "1.1.7." * level + theirs
        for level in range(scales) for own, theirs in _PLACES.items()
    }  # fmt: skip
    return {**parts, "head": "net.9.1"}


def load_published(network: Skip, path) -> None:
    """Give ``network`` the weights of a file of MPI's layout, and its stored statistics if the network takes
    any."""
    names = published_names(network.shape.scales)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)["params"]
        taken = {}
        for own in network.state_dict():
            part, kind = own.rsplit(".", 1)
            taken[own] = content[f"{names[part]}.{kind}"]
        network.load_state_dict(taken)
    except Exception as error:
        raise B2GError(f"{path} does not hold the weights of this network; give MPI's published file.") from error
