"""DnCNN (Zhang, Zuo, Chen, Meng and Zhang, IEEE TIP 26(7), 2017, doi 10.1109/TIP.2017.2662206), a chain.

Noise2Self fits eight layers of it to one picture; the released DnCNN weights of KAIR (github.com/cszn/KAIR)
have seventeen (gray) or twenty (colour) without batch normalisation, which was folded into the convolutions.
"""

from __future__ import annotations

from torch import Tensor, nn

from b2g.errors import B2GError


class DnCNN(nn.Module):
    """``forward(picture)``: ``(B, C, H, W)`` of any size to the same shape by ``depth`` 3x3 convolutions.

    Zero padding; ReLU between them; ``norm`` adds batch normalisation behind the inner ones, ``bias`` an
    offset to each. ``residual``: the chain predicts the noise, and the answer is the picture less that; else
    it is the answer. Eight layers of 64 channels with ``norm``, without ``bias``: 223 104 weights in gray.

    ``layers`` is the chain alone. Without ``norm`` its convolutions are the entries 0, 2, 4, ..., as in
    KAIR's files, whose names begin with ``model`` in place of ``layers``; these need ``residual`` and
    ``bias``.
    """

    def __init__(
        self, channels: int, depth: int = 17, width: int = 64,
        *, norm: bool = True, bias: bool = True, residual: bool = True,
    ):  # fmt: skip
        super().__init__()
        if depth < 2 or width < 1:
            raise B2GError(f"a DnCNN has at least 2 layers of at least 1 channel, not {depth} of {width}.")
        chain = [nn.Conv2d(channels, width, 3, padding=1, bias=bias), nn.ReLU()]
        for _ in range(depth - 2):
            chain.append(nn.Conv2d(width, width, 3, padding=1, bias=bias))
            chain += [nn.BatchNorm2d(width), nn.ReLU()] if norm else [nn.ReLU()]
        self.layers = nn.Sequential(*chain, nn.Conv2d(width, channels, 3, padding=1, bias=bias))
        self.residual = residual

    def forward(self, picture: Tensor) -> Tensor:
        answer = self.layers(picture)
        return picture - answer if self.residual else answer
