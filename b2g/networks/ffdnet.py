"""FFDNet (Zhang, Zuo and Zhang, IEEE TIP 27(9), 2018, doi 10.1109/TIP.2018.2839891): fast and flexible.

The picture is folded into four times as many channels at half the size, a map of the noise level joins them,
plain convolutions with ReLU between follow, and the answer is unfolded. Shape and names as in the released
weights of KAIR (github.com/cszn/KAIR), whose batch normalisation was folded into the convolutions; there the
answer is the clean picture.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_SHAPES = {1: (15, 64), 3: (12, 96)}  # channels of the picture: convolutions, their width


class FFDNet(nn.Module):
    """``forward(picture, sigma)``: ``(B, C, H, W)`` in [0, 1] and the noise level on 0..255 to the clean
    picture.

    Fifteen convolutions of 64 channels in gray (C = 1), twelve of 96 in colour (C = 3): 852 108 weights. Odd
    sides are grown by one pixel like the last one, and cropped back. Trained for sigma from 0 to 75.

    ``layers`` holds the convolutions as its entries 0, 2, 4, ..., as KAIR's files do under the name
    ``model``.
    """

    def __init__(self, channels: int):
        super().__init__()
        depth, width = _SHAPES[channels]
        chain: list[nn.Module] = [nn.Conv2d(4 * channels + 1, width, 3, padding=1), nn.ReLU()]
        for _ in range(depth - 2):
            chain += [nn.Conv2d(width, width, 3, padding=1), nn.ReLU()]
        self.layers = nn.Sequential(*chain, nn.Conv2d(width, 4 * channels, 3, padding=1))

    def forward(self, picture: Tensor, sigma: float) -> Tensor:
        height, width = picture.shape[-2:]
        folded = F.pixel_unshuffle(F.pad(picture, (0, width % 2, 0, height % 2), mode="replicate"), 2)
        level = torch.full_like(folded[:, :1], sigma / 255)
        return F.pixel_shuffle(self.layers(torch.cat((folded, level), 1)), 2)[..., :height, :width]
