"""Networks that are blind by construction: no answer can depend on the noisy pixel that it stands for.

:class:`DilatedBlindSpot` skips the middle of its first kernel and goes on in dilated steps that never come
back to it (the light form of DBSN that AP-BSN uses: Lee, Son and Lee, CVPR 2022, doi
10.1109/CVPR52688.2022.01720). :class:`HalfPlane` looks upward only, in four rotations (Laine, Karras,
Lehtinen and Aila, NeurIPS 2019, doi 10.48550/arXiv.1901.10277).

Both fill what lies outside of a picture with zeros: a mirror image would show a border pixel its own noise.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from b2g.layers import DilatedConv2d

SLOPE = 0.1  # of the half-plane network's LeakyReLU


def start(network: nn.Module, gain: float, last: nn.Conv2d) -> None:
    """First weights under which features keep their size: ``gain`` is for the nonlinearity behind all but the
    ``last``.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            here = 1.0 if module is last else gain
            nn.init.normal_(module.weight, std=(here / module.weight[0].numel()) ** 0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


class CentrallyMaskedConv2d(nn.Conv2d):
    """A convolution whose kernel has no middle: the answer at a pixel never sees that pixel (sides kept)."""

    def __init__(self, channels_in: int, channels_out: int, size: int):
        super().__init__(channels_in, channels_out, size, padding=size // 2)
        kept = torch.ones(1, 1, size, size)
        kept[..., size // 2, size // 2] = 0
        self.register_buffer("kept", kept, persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        return F.conv2d(features, self.weight * self.kept, self.bias, padding=self.padding)


class Dilated(nn.Module):
    """Residual block: a 3x3 convolution of this dilation, ReLU, a 1x1 convolution."""

    def __init__(self, width: int, dilation: int):
        super().__init__()
        self.layers = nn.Sequential(
            DilatedConv2d(width, width, dilation, always=False), nn.ReLU(),
            nn.Conv2d(width, width, 1),
        )  # fmt: skip

    def forward(self, features: Tensor) -> Tensor:
        return features + self.layers(features)


def dilated_layers(width: int, blocks: int, dilation: int) -> list[nn.Module]:
    """A branch behind its first kernel: two 1x1 convolutions, the ``blocks`` of this dilation, a 1x1
    convolution.
    """
    points = [layer for _ in range(2) for layer in (nn.Conv2d(width, width, 1), nn.ReLU())]
    steps = [Dilated(width, dilation) for _ in range(blocks)]
    return [*points, *steps, nn.Conv2d(width, width, 1), nn.ReLU()]


def merging(width: int, channels: int) -> nn.Sequential:
    """The 1x1 convolutions that make a picture of two branches of ``width`` features each."""
    half = max(1, width // 2)
    return nn.Sequential(
        nn.Conv2d(2 * width, width, 1), nn.ReLU(), nn.Conv2d(width, half, 1), nn.ReLU(),
        nn.Conv2d(half, half, 1), nn.ReLU(), nn.Conv2d(half, channels, 1),
    )  # fmt: skip


def start_quiet(network: nn.Module) -> None:
    """First weights for a network of such branches that ends in ``tail``: made for ReLU, with quiet residual
    blocks and an answer that starts at mid-gray.
    """
    start(network, 2.0, network.tail[-1])
    nn.init.constant_(network.tail[-1].bias, 0.5)
    for module in network.modules():
        if isinstance(module, Dilated):
            nn.init.normal_(module.layers[-1].weight, std=0.1 / module.layers[-1].in_channels**0.5)


def _branch(width: int, blocks: int, dilation: int) -> nn.Sequential:
    """A masked kernel of ``2 dilation - 1`` pixels, then steps of ``dilation``.

    A sum of such steps that leads back to the middle would need a first step that is a multiple of
    ``dilation`` both ways; the only one that short is the masked one.
    """
    first = CentrallyMaskedConv2d(width, width, 2 * dilation - 1)
    return nn.Sequential(first, nn.ReLU(), *dilated_layers(width, blocks, dilation))


class DilatedBlindSpot(nn.Module):
    """AP-BSN's network: two branches of dilations 2 and 3, merged by 1x1 convolutions.

    ``(B, C, H, W)`` to the same shape, any size. The published ``width`` 128 and 9 ``blocks`` a branch have 3
    656 131 weights in colour; the paper states 3.66 M. The first weights are ours: made for ReLU, quiet
    residual blocks, and an answer that starts at mid-gray, without which a short fit may lose a channel for
    good.
    """

    def __init__(self, channels: int, width: int = 128, blocks: int = 9):
        super().__init__()
        self.head = nn.Sequential(nn.Conv2d(channels, width, 1), nn.ReLU())
        self.branches = nn.ModuleList(_branch(width, blocks, dilation) for dilation in (2, 3))
        self.tail = merging(width, channels)
        start_quiet(self)

    def forward(self, picture: Tensor) -> Tensor:
        features = self.head(picture)
        return self.tail(torch.cat([branch(features) for branch in self.branches], 1))


def down(features: Tensor) -> Tensor:
    """Moved down by one row; zeros come in at the top, the last row is lost."""
    return F.pad(features, (0, 0, 1, -1))


class UpwardConv2d(nn.Conv2d):
    """A 3x3 convolution that sees its own row and the two above it."""

    def __init__(self, channels_in: int, channels_out: int):
        super().__init__(channels_in, channels_out, 3)

    def forward(self, features: Tensor) -> Tensor:
        return F.leaky_relu(F.conv2d(F.pad(features, (1, 1, 2, 0)), self.weight, self.bias), SLOPE)


def upward_pool(features: Tensor) -> Tensor:
    """The largest of 2x2, moved down by a row first: an answer at rows 2i and 2i + 1 sees rows 2i - 1 and 2i
    only.

    Of an even number of rows the last has no place; odd columns grow by a zero at the right.
    """
    height, width = features.shape[-2:]
    return F.max_pool2d(F.pad(features, (0, width % 2, 1, height % 2 - 1)), 2)


class _Upward(nn.Module):
    """Noise2Noise's U-Net of upward convolutions: row i of its ``2 width`` features sees the rows up to i."""

    def __init__(self, channels: int, width: int, depth: int):
        super().__init__()
        self.stem = UpwardConv2d(channels, width)
        self.encoder = nn.ModuleList(UpwardConv2d(width, width) for _ in range(depth + 1))
        decoder = []
        for level in range(depth):
            below = width if level == 0 else 2 * width
            skipped = channels if level == depth - 1 else width
            first, second = UpwardConv2d(below + skipped, 2 * width), UpwardConv2d(2 * width, 2 * width)
            decoder.append(nn.Sequential(first, second))
        self.decoder = nn.ModuleList(decoder)

    def forward(self, picture: Tensor) -> Tensor:
        skips, features = [picture], self.stem(picture)
        for layer in self.encoder[:-1]:
            features = upward_pool(layer(features))
            skips.append(features)
        features = self.encoder[-1](features)
        skips.pop()  # the deepest map is the bottleneck itself
        for layers in self.decoder:
            skip = skips.pop()
            height, width = skip.shape[-2:]
            features = F.interpolate(features, scale_factor=2, mode="nearest")[..., :height, :width]
            features = layers(torch.cat((features, skip.to(features.dtype)), 1))
        return features


class HalfPlane(nn.Module):
    """Four rotations through one upward network, each moved away by a row, turned back and merged by 1x1
    convolutions.

    ``(B, C, H, W)`` to ``(B, answers, H, W)``, any size. What the four see together is everything but the
    pixel itself.
    """

    def __init__(self, channels: int, answers: int, width: int = 48, depth: int = 5):
        super().__init__()
        self.branch = _Upward(channels, width, depth)
        self.merge = nn.ModuleList((nn.Conv2d(8 * width, 8 * width, 1), nn.Conv2d(8 * width, 2 * width, 1)))
        self.last = nn.Conv2d(2 * width, answers, 1)
        start(self, 2.0 / (1 + SLOPE**2), self.last)

    def _two(self, picture: Tensor, turns: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """The features of two opposite directions: one batch, since both have the same sides."""
        seen = torch.cat([picture.rot90(turn, (-2, -1)) for turn in turns])
        answers = down(self.branch(seen)).chunk(2)
        return tuple(answer.rot90(-turn, (-2, -1)) for answer, turn in zip(answers, turns))

    def forward(self, picture: Tensor) -> Tensor:
        features = torch.cat((*self._two(picture, (0, 2)), *self._two(picture, (1, 3))), 1)
        for layer in self.merge:
            features = F.leaky_relu(layer(features), SLOPE)
        return self.last(features)
