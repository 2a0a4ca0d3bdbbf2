"""DGUNet (Mou, Wang and Zhang, CVPR 2022, doi 10.1109/CVPR52688.2022.01688): an unfolded descent with
U-Nets.

Stage k of 7 takes a step of gradient descent on the distance of its picture to the noisy one, through two
learned operators where a known degradation and its adjoint would stand, and then improves it by a U-Net:

    v = x - r Phi'(Phi(x) - y),    x <- v + U-Net(v, features of the stage before)

Features of the stage before come in twice: their projection onto 16 maps that both stages span
(:class:`Merge`), and a modulation of each level of the encoder. The last stage has no U-Net, and adds to
the noisy picture y itself.

In the base network one block serves all the stages between the first and the last; in DGUNet+ each has its
own.

Written from stated facts of the official code (github.com/MC-E/Deep-Generalized-Unfolding-Networks-for-
Image-Restoration, without a licence). Where the paper, as others retell it, is unlike its code, the code is
followed: strided and transposed convolutions between the levels, instance normalisation of half of the
encoder's channels, no gate in the "supervised attention". The widths of the base network are those for
blurred pictures, and fit the 17.33 million weights that others count. Ours: a slope for every PReLU (the
code shares them: 6 weights more here in the base network, 19 in DGUNet+); without a convolution that the
code never calls (115 200 of the 17.33 million); the projection by unit maps with a slight damping, in
float32; and the mirrored border of pictures whose sides are no multiples of 8.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from b2g.layers import ChannelAttention

INNER = 64  # channels within the operators
EXTRA = 32  # channels beyond `width` in the base network's last stage
BASIS = 16  # maps that span the projection's subspace
DAMPING = 1e-5  # of the maps' Gram matrix, whose diagonal is 1
LEVELS = 3  # times that a side is halved


def _conv3(channels_in: int, channels_out: int, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=bias)


class Operator(nn.Module):
    """Phi or Phi': a picture ``(B, C, H, W)`` plus two convolutions of it with a PReLU between."""

    def __init__(self, channels: int):
        super().__init__()
        self.layers = nn.Sequential(_conv3(channels, INNER), nn.PReLU(), _conv3(INNER, channels))

    def forward(self, picture: Tensor) -> Tensor:
        return picture + self.layers(picture)


class Descent(nn.Module):
    """The gradient step ``x - r Phi'(Phi(x) - y)``; its length r is learned, from 0.5 on."""

    def __init__(self, channels: int):
        super().__init__()
        self.forth, self.back = Operator(channels), Operator(channels)
        self.length = nn.Parameter(torch.tensor([0.5]))

    def forward(self, picture: Tensor, noisy: Tensor) -> Tensor:
        return picture - self.length * self.back(self.forth(picture) - noisy)


class Shallow(nn.Module):
    """The first ``width`` features: a convolution, and a residual block that ends in channel attention."""

    def __init__(self, channels: int, width: int):
        super().__init__()
        self.first = _conv3(channels, width, bias=False)
        self.attended = nn.Sequential(
            _conv3(width, width, bias=False), nn.PReLU(), _conv3(width, width, bias=False),
            ChannelAttention(width),
        )  # fmt: skip

    def forward(self, picture: Tensor) -> Tensor:
        features = self.first(picture)
        return features + self.attended(features)


def project(features: Tensor, maps: Tensor) -> Tensor:
    """Every channel of ``features`` ``(B, C, H, W)`` projected onto the span of ``maps`` ``(B, K, H, W)``.

    The least squares are over the whole picture. The maps are brought to unit length first, which leaves
    their span alone; then damping the Gram matrix does the same at every size of a picture. In float32,
    whatever autocast says.
    """
    with torch.autocast(features.device.type, enabled=False):
        unit = F.normalize(maps.float().flatten(2), dim=2)
        gram = unit @ unit.mT + DAMPING * torch.eye(unit.shape[1], device=unit.device)
        onto = unit @ features.float().flatten(2).mT
        weights = torch.cholesky_solve(onto, torch.linalg.cholesky_ex(gram).L)
        return (weights.mT @ unit).unflatten(2, features.shape[-2:])


class Merge(nn.Module):
    """New features joined by the projection of the earlier ones; both and the answer ``(B, width, H, W)``."""

    def __init__(self, width: int):
        super().__init__()
        self.maps = _conv3(2 * width, BASIS)
        self.joined = _conv3(2 * width, width)

    def forward(self, features: Tensor, earlier: Tensor) -> Tensor:
        projected = project(earlier, self.maps(torch.cat((features, earlier), 1)))
        return features + self.joined(torch.cat((features, projected.to(features.dtype)), 1))


class HalfNorm(nn.Module):
    """Instance normalisation of the first half of the channels; the others pass."""

    def __init__(self, width: int):
        super().__init__()
        self.half = width // 2
        self.norm = nn.InstanceNorm2d(self.half, affine=True)

    def forward(self, features: Tensor) -> Tensor:
        return torch.cat((self.norm(features[:, : self.half]), features[:, self.half :]), 1)


class Block(nn.Module):
    """Two convolutions with LeakyReLU and a 1x1 shortcut around them; ``normed``: half a norm behind the
    first.
    """

    def __init__(self, channels_in: int, channels_out: int, normed: bool):
        super().__init__()
        norm = [HalfNorm(channels_out)] if normed else []
        self.layers = nn.Sequential(
            _conv3(channels_in, channels_out), *norm, nn.LeakyReLU(0.2),
            _conv3(channels_out, channels_out), nn.LeakyReLU(0.2),
        )  # fmt: skip
        self.shortcut = nn.Conv2d(channels_in, channels_out, 1)

    def forward(self, features: Tensor) -> Tensor:
        return self.layers(features) + self.shortcut(features)


class Modulation(nn.Module):
    """A level's features scaled and shifted by what the stage before had there, in its encoder and its
    decoder.
    """

    def __init__(self, width: int, decoded: int):
        super().__init__()
        self.encoded, self.decoded = _conv3(width, width), _conv3(decoded, width)
        self.scale, self.shift = _conv3(width, width), _conv3(width, width)

    def forward(self, features: Tensor, encoded: Tensor, decoded: Tensor) -> Tensor:
        guide = F.leaky_relu(self.encoded(encoded) + self.decoded(decoded), 0.1)
        return features * (1 + self.scale(guide).sigmoid()) + self.shift(guide)


class UNet(nn.Module):
    """Encoder and decoder of a stage, with ``width``, ``width + growth``, ... channels from level to level.

    ``forward(features, encoded, decoded)`` with the lists of the stage before (empty in the first stage)
    returns its own: three maps each, from the full to a quarter of the size. ``decoded[0]`` has ``width``
    channels.
    """

    def __init__(self, width: int, growth: int, guided: bool):
        super().__init__()
        widths = [width + level * growth for level in range(LEVELS + 1)]
        pairs = list(zip(widths, widths[1:]))
        self.encoder = nn.ModuleList(Block(*pair, normed=True) for pair in pairs)
        self.modulation = nn.ModuleList(Modulation(below, here) for here, below in pairs if guided)
        self.down = nn.ModuleList(nn.Conv2d(w, w, 4, stride=2, padding=1, bias=False) for w in widths[1:])
        self.bottom = Block(widths[-1], widths[-1], normed=True)
        self.skip = nn.ModuleList(_conv3(below, here) for here, below in pairs)
        self.up = nn.ModuleList(nn.ConvTranspose2d(below, here, 2, stride=2) for here, below in pairs)
        self.decoder = nn.ModuleList(Block(2 * here, here, normed=False) for here in widths[:-1])

    def forward(
        self, features: Tensor, encoded: list[Tensor], decoded: list[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        down = []
        for level in range(LEVELS):
            features = self.encoder[level](features)
            if encoded:
                features = self.modulation[level](features, encoded[level], decoded[level])
            down.append(features)
            features = self.down[level](features)
        features, back = self.bottom(features), []
        for level in reversed(range(LEVELS)):
            joined = torch.cat((self.up[level](features), self.skip[level](down[level])), 1)
            features = self.decoder[level](joined)
            back.insert(0, features)
        return down, back


class Stage(nn.Module):
    """A stage but the last: descent, shallow features, merging (unless it is the ``first``), U-Net,
    picture.
    """

    def __init__(self, channels: int, width: int, growth: int, first: bool):
        super().__init__()
        self.descent, self.shallow = Descent(channels), Shallow(channels, width)
        self.merge = None if first else Merge(width)
        self.unet = UNet(width, growth, guided=not first)
        self.to_features = nn.Conv2d(width, width, 1, bias=False)
        self.to_picture = nn.Conv2d(width, channels, 1, bias=False)

    def forward(
        self, picture: Tensor, noisy: Tensor, earlier: Tensor | None, encoded: list, decoded: list
    ) -> tuple[Tensor, Tensor, list[Tensor], list[Tensor]]:
        """The stage's picture, and what the next one gets: features ``(B, width, H, W)`` and the U-Net's
        lists.
        """
        stepped = self.descent(picture, noisy)
        features = self.shallow(stepped)
        if self.merge is not None:
            features = self.merge(features, earlier)
        encoded, decoded = self.unet(features, encoded, decoded)
        full = decoded[0]
        return stepped + self.to_picture(full), full + self.to_features(full), encoded, decoded


class LastStage(nn.Module):
    """Descent, shallow features joined with the earlier ones, and a convolution whose answer is added to
    ``noisy``.

    ``merged``: joined by a :class:`Merge` (DGUNet+), else by a convolution of both.
    """

    def __init__(self, channels: int, width: int, merged: bool):
        super().__init__()
        self.descent, self.shallow = Descent(channels), Shallow(channels, width)
        self.merge = Merge(width) if merged else _conv3(2 * width, width + EXTRA, bias=False)
        self.tail = _conv3(width if merged else width + EXTRA, channels, bias=False)

    def forward(self, picture: Tensor, noisy: Tensor, earlier: Tensor) -> Tensor:
        features = self.shallow(self.descent(picture, noisy))
        if isinstance(self.merge, Merge):
            joined = self.merge(features, earlier)
        else:
            joined = self.merge(torch.cat((features, earlier), 1))
        return noisy + self.tail(joined)


class DGUNet(nn.Module):
    """``(B, C, H, W)``, noisy, to the pictures of all stages ``(B, stages, C, H, W)``, the last stage's
    first.

    The base network, ``shared``, has the published ``width`` 80 and ``growth`` 48; DGUNet+ has 80 and 40.
    Any sides from 9 pixels on. An answer depends on the whole picture, as norms, attention and projections
    do.
    """

    def __init__(
        self, channels: int, width: int = 80, growth: int = 48, stages: int = 7, shared: bool = True
    ):
        super().__init__()
        self.first = Stage(channels, width, growth, first=True)
        own = 1 if shared else stages - 2
        self.between = nn.ModuleList(Stage(channels, width, growth, first=False) for _ in range(own))
        self.last = LastStage(channels, width, merged=not shared)
        self.stages = stages

    def forward(self, picture: Tensor) -> Tensor:
        height, width = picture.shape[-2:]
        step = 2**LEVELS
        noisy = F.pad(picture, (0, -width % step, 0, -height % step), mode="reflect")
        passed = self.first(noisy, noisy, None, [], [])
        pictures = [passed[0]]
        for k in range(self.stages - 2):
            estimate, *features = passed
            passed = self.between[k % len(self.between)](estimate, noisy, *features)
            pictures.append(passed[0])
        pictures.append(self.last(passed[0], noisy, passed[1]))
        return torch.stack(pictures[::-1], 1)[..., :height, :width]
