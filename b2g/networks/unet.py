"""The U-Net of Noise2Noise's line as Blind2Unblind and Neighbor2Neighbor use it.

Five halvings with one 3x3 convolution each, concatenated skips (the last is the picture itself), two 3x3
convolutions a level up, three 1x1 convolutions at the end, LeakyReLU, a linear answer, no normalisation.

Blind2Unblind (Wang, Liu, Li and Han, CVPR 2022, doi 10.1109/CVPR52688.2022.00207): nearest upsampling, slope
0.1, 1 102 371 weights in colour. Neighbor2Neighbor (Huang, Li, Jia, Lu and Liu, CVPR 2021,
doi 10.1109/CVPR46437.2021.01454): transposed convolutions, slope 0.2, initial weights a tenth of Kaiming's.
Read here as one 2x2 convolution of stride 2 a level that keeps the number of channels, without a slope of its
own: that makes 1 259 475 weights, the 1.26 million that are stated.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from b2g.errors import B2GError
from b2g.network import mirror

UPWARD = ("nearest", "transposed")


class _Level(nn.Module):
    """One level up: twice the size, the skip beside it, two 3x3 convolutions."""

    def __init__(self, below: int, skip: int, width: int, up: str, slope: float):
        super().__init__()
        self.up = nn.ConvTranspose2d(below, below, 2, stride=2) if up == "transposed" else nn.Upsample(scale_factor=2)
        self.layers = nn.Sequential(
            nn.Conv2d(below + skip, width, 3, padding=1), nn.LeakyReLU(slope),
            nn.Conv2d(width, width, 3, padding=1), nn.LeakyReLU(slope),
        )  # fmt: skip

    def forward(self, features: Tensor, skip: Tensor) -> Tensor:
        features = self.up(features)
        return self.layers(torch.cat((features, skip.to(features.dtype)), 1))


class UNet(nn.Module):
    """``forward(picture)``: ``(B, C, H, W)`` of any size to the same shape; free range.

    ``width`` channels down, twice as many up, ``depth`` halvings. ``up``: ``"nearest"`` or ``"transposed"``.
    ``gain`` scales the initial (Kaiming's normal) weights of all layers. Sides are mirrored to the next
    multiple of 2^depth.
    """

    def __init__(
        self,
        channels: int,
        *,
        width: int = 48,
        depth: int = 5,
        up: str = "nearest",
        slope: float = 0.1,
        gain: float = 1.0,
    ):
        super().__init__()
        if up not in UPWARD:
            raise B2GError(f"up must be one of {', '.join(UPWARD)}, not {up!r}.")
        if width < 1 or depth < 1:
            raise B2GError(f"a U-Net has a width and a depth of at least 1, not {width} and {depth}.")
        wide = 2 * width
        self.depth = depth
        self.head = nn.Sequential(nn.Conv2d(channels, width, 3, padding=1), nn.LeakyReLU(slope))
        self.down = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.LeakyReLU(slope)) for _ in range(depth + 1)
        )
        self.upward = nn.ModuleList(
            _Level(width if level == 0 else wide, width if level < depth - 1 else channels, wide, up, slope)
            for level in range(depth)
        )
        self.tail = nn.Sequential(
            nn.Conv2d(wide, wide, 1), nn.LeakyReLU(slope), nn.Conv2d(wide, wide, 1), nn.LeakyReLU(slope),
            nn.Conv2d(wide, channels, 1),
        )  # fmt: skip
        self._draw_weights(slope, gain)

    def _draw_weights(self, slope: float, gain: float) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_normal_(module.weight, slope)
                module.weight.data.mul_(gain)
                nn.init.zeros_(module.bias)

    def forward(self, picture: Tensor) -> Tensor:
        height, width = picture.shape[-2:]
        step = 2**self.depth
        grown = [-(-side // step) * step for side in (height, width)]
        if grown != [height, width]:
            picture = mirror(picture, *grown)
        if not picture.is_contiguous(memory_format=torch.channels_last):
            picture = picture.contiguous(memory_format=torch.channels_last)
        # The map at full size is no skip: the picture takes its place.
        skips, features = [picture], self.head(picture)
        for level, layer in enumerate(self.down):
            features = layer(features)
            if level < self.depth:
                features = F.max_pool2d(features, 2)
                skips.append(features)
        skips.pop()  # the deepest map is the bottleneck itself
        for layer in self.upward:
            features = layer(features, skips.pop())
        return self.tail(features)[..., :height, :width].float()


def blind2unblind_network(channels: int, width: int = 48) -> UNet:
    """Blind2Unblind's: 1 102 371 weights in colour."""
    return UNet(channels, width=width)


def neighbor2neighbor_network(channels: int, width: int = 48, gain: float = 0.1) -> UNet:
    """Neighbor2Neighbor's: 1 259 475 weights in colour."""
    return UNet(channels, width=width, up="transposed", slope=0.2, gain=gain)
