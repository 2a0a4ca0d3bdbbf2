"""The shallow U-Net that Noise2Void fits (Krull, Buchholz and Jug, CVPR 2019, doi 10.1109/CVPR.2019.00223).

Two halvings, features that double a level down, batch normalisation before every ReLU, and a linear last
layer.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from b2g.errors import B2GError
from b2g.network import mirror


def check_kernel(kernel: int) -> None:
    """Refuse a side for which no padding keeps the size."""
    if kernel < 1 or kernel % 2 == 0:
        raise B2GError(f"kernel is the side of a convolution and must be odd, not {kernel}.")


def _pair(first: int, middle: int, last: int, kernel: int, norm: bool) -> nn.Sequential:
    """Two convolutions, each with batch normalisation (if ``norm``) and ReLU."""
    chain = []
    for given, made in ((first, middle), (middle, last)):
        chain.append(nn.Conv2d(given, made, kernel, padding=kernel // 2))
        chain += [nn.BatchNorm2d(made), nn.ReLU()] if norm else [nn.ReLU()]
    return nn.Sequential(*chain)


class ShallowUNet(nn.Module):
    """``forward(picture)``: ``(B, C, H, W)`` of any size to the same shape.

    ``width`` features at full resolution, ``depth`` halvings by 2x2 maximum pooling, ``kernel`` an odd side.
    On the way up, nearest upsampling and the skip of the level; the second convolution of a level halves its
    features, so that what comes up has as many as the skip. ``residual``: the picture is added to the answer.
    Sizes that are no multiple of 2^depth are mirrored to the next one and cropped back.
    """

    def __init__(
        self, channels: int, width: int = 32, depth: int = 2, kernel: int = 5,
        *, norm: bool = True, residual: bool = False,
    ):  # fmt: skip
        super().__init__()
        check_kernel(kernel)
        if width < 1 or depth < 1:
            raise B2GError(f"a U-Net has at least 1 feature and 1 halving, not {width} and {depth}.")
        self.residual = residual
        sizes = [width * 2**level for level in range(depth)]
        self.down = nn.ModuleList(
            _pair(given, made, made, kernel, norm) for given, made in zip([channels, *sizes], sizes)
        )
        self.bottom = _pair(sizes[-1], 2 * sizes[-1], sizes[-1], kernel, norm)
        self.up = nn.ModuleList(
            _pair(2 * made, made, max(width, made // 2), kernel, norm) for made in reversed(sizes)
        )
        self.last = nn.Conv2d(width, channels, 1)

    def forward(self, picture: Tensor) -> Tensor:
        height, width = picture.shape[-2:]
        step = 2 ** len(self.down)
        grown = mirror(picture, -(-height // step) * step, -(-width // step) * step)
        features, skips = grown.contiguous(memory_format=torch.channels_last), []
        for level in self.down:
            skips.append(level(features))
            features = F.max_pool2d(skips[-1], 2)
        features = self.bottom(features)
        for level in self.up:
            features = F.interpolate(features, scale_factor=2, mode="nearest")
            features = level(torch.cat((features, skips.pop()), 1))
        answer = self.last(features)
        return ((grown + answer) if self.residual else answer)[..., :height, :width]
