"""DRUNet (Zhang, Li, Zuo, Zhang, Van Gool and Timofte, IEEE TPAMI 44(10), 2022, doi
10.1109/TPAMI.2021.3088914).

A U-Net of residual blocks without a single bias, so it scales with its input (picture and level alike); every
level's way up begins with the sum of what comes from below and what the way down left there. Names as in the
authors' files drunet_gray.pth and drunet_color.pth (github.com/cszn/DPIR).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_WIDTHS = (64, 128, 256, 512)
_BLOCKS = 4  # residual blocks a level, on the way down and on the way up


class _Residual(nn.Module):
    """A picture of ``width`` channels plus two convolutions of it with a ReLU between."""

    def __init__(self, width: int):
        super().__init__()
        first, second = (nn.Conv2d(width, width, 3, padding=1, bias=False) for _ in range(2))
        self.res = nn.Sequential(first, nn.ReLU(), second)

    def forward(self, features: Tensor) -> Tensor:
        return features + self.res(features)


def _blocks(width: int) -> list[nn.Module]:
    return [_Residual(width) for _ in range(_BLOCKS)]


class DRUNet(nn.Module):
    """``forward(picture, sigma)``: ``(B, C, H, W)`` in [0, 1] and the noise level on 0..255 to the clean
    picture.

    32 640 960 weights in colour. Sides are grown to multiples of 8 by repeating the last pixel, and cropped
    back. Trained for sigma from 0 to 50.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.m_head = nn.Conv2d(channels + 1, _WIDTHS[0], 3, padding=1, bias=False)
        for level, (width, below) in enumerate(zip(_WIDTHS, _WIDTHS[1:]), start=1):
            down = nn.Conv2d(width, below, 2, stride=2, bias=False)
            up = nn.ConvTranspose2d(below, width, 2, stride=2, bias=False)
            setattr(self, f"m_down{level}", nn.Sequential(*_blocks(width), down))
            setattr(self, f"m_up{level}", nn.Sequential(up, *_blocks(width)))
        self.m_body = nn.Sequential(*_blocks(_WIDTHS[-1]))
        self.m_tail = nn.Conv2d(_WIDTHS[0], channels, 3, padding=1, bias=False)

    def forward(self, picture: Tensor, sigma: float) -> Tensor:
        height, width = picture.shape[-2:]
        grown = F.pad(picture, (0, -width % 8, 0, -height % 8), mode="replicate")
        level = torch.full_like(grown[:, :1], sigma / 255)
        left = [self.m_head(torch.cat((grown, level), 1))]
        for down in (self.m_down1, self.m_down2, self.m_down3):
            left.append(down(left[-1]))
        features = self.m_body(left[-1])
        for up in (self.m_up3, self.m_up2, self.m_up1):
            features = up(features + left.pop())
        return self.m_tail(features + left.pop())[..., :height, :width]
