"""LG-BPN's network: two branches that skip a whole patch around the pixel they answer for, a near and a far
one.

Source: Wang, Fu, Liu and Zhang, CVPR 2023, doi 10.48550/arXiv.2304.00534. The near ("local") branch goes on
in the dilated convolutions of :mod:`b2g.networks.blind_spot`, the far ("global") one in Transformer blocks
that weigh channels by each other (Zamir et al., CVPR 2022, doi 10.48550/arXiv.2111.09881), made of dilated
kernels. What is taken apart into every ``stride``-th pixel are the features behind the first kernels, not the
picture.

Between pixels the network is blind by construction: a chain of dilated steps never leads back into the hidden
patch. Of the far branch this holds for given weights between the channels, which are means over the whole
picture, a pixel's own noise among them: a leak of the published method, of the order of one part in as many
as there are pixels. Everything outside of the picture, and of each part, is zero: mirrored pixels would show
a border its own noise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from b2g.errors import B2GError
from b2g.layers import DilatedConv2d, dilated
from b2g.networks.blind_spot import dilated_layers, merging, start_quiet
from b2g.shuffle import in_parts

NEAR, FAR = 2, 3  # the dilations of the branches
APART = 2  # the far kernel looks at every second pixel
HEADS = 2
HIDDEN = 2.66  # features inside a gated layer, for each of its width


@dataclass(frozen=True)
class Look:
    """How a picture is looked at: ``strides`` of the parts and ``shrink`` of the first kernels, (near, far)
    each.

    A kernel that is shrunk reads at ``shrink`` times its offsets, so the hidden patch is smaller, too.
    """

    strides: tuple[int, int] = (4, 5)
    shrink: tuple[float, float] = (1.0, 1.0)


def shrunk(kernels: Tensor, factor: float) -> Tensor:
    """The kernels ``(..., k, k)`` read at ``factor`` times their offsets, bilinearly: ``(..., k', k')``, k
    odd.

    Each weight is shared among the up to four places around its new one, so one smaller convolution does what
    reading between the pixels would.
    """
    reach = kernels.shape[-1] // 2
    wanted = torch.arange(-math.ceil(factor * reach), math.ceil(factor * reach) + 1, device=kernels.device)
    places = factor * torch.arange(-reach, reach + 1, device=kernels.device, dtype=kernels.dtype)
    shares = (1 - (wanted[:, None] - places).abs()).clamp_min(0)
    with torch.autocast(kernels.device.type, enabled=False):
        return shares @ kernels @ shares.T


def patch_mask(reach: int, hidden: int, apart: int = 1) -> Tensor:
    """1 where a kernel of ``2 reach + 1`` pixels looks: every ``apart``-th pixel beyond the diamond
    ``|dy| + |dx| <= hidden``.
    """
    steps = torch.arange(-reach, reach + 1)
    kept = steps.abs()[:, None] + steps.abs() > hidden
    lattice = steps % apart == 0
    return (kept & lattice[:, None] & lattice).float()


def check_blind(reaches: tuple[int, int], hidden: int, look: Look) -> None:
    """Refuse a look under which an answer could see its own pixel.

    Within a branch, dilated steps are ``dilation * stride`` pixels long. What its first kernel reaches must
    stay ``stride`` below that, since parts that do not come out even repeat their border; and no weight of a
    shrunk kernel may come to lie on the middle.
    """
    for name, reach, apart, dilation, stride, shrink in zip(
        ("near", "far"), reaches, (1, APART), (NEAR, FAR), look.strides, look.shrink
    ):
        if stride < 1 or not 0.0 < shrink <= 1.0:
            raise B2GError(f"strides must be at least 1 and shrink lie in (0, 1], not {stride} and {shrink}.")
        if math.ceil(shrink * reach) > (dilation - 1) * stride:
            raise B2GError(f"the {name} kernel reaches {math.ceil(shrink * reach)} pixels, more than the "
                           f"{(dilation - 1) * stride} at which stride {stride} keeps it blind.")
        kernel = shrunk(patch_mask(reach, hidden, apart), shrink)
        middle = kernel.shape[-1] // 2
        if not kernel.any() or kernel[middle, middle] > 1e-6:
            raise B2GError(f"the {name} kernel of reach {reach} with {hidden} pixels hidden and shrink "
                           f"{shrink} sees nothing, or its own pixel.")


class BlindPatchConv2d(nn.Conv2d):
    """A convolution that skips the patch around its pixel (:func:`patch_mask`); sides are kept."""

    def __init__(self, channels_in: int, channels_out: int, reach: int, hidden: int, apart: int = 1):
        super().__init__(channels_in, channels_out, 2 * reach + 1)
        self.apart, self.first = apart, reach % apart
        self.register_buffer("kept", patch_mask(reach, hidden, apart), persistent=False)

    def forward(self, features: Tensor, shrink: float = 1.0) -> Tensor:
        kernel, dilation = self.weight * self.kept, 1
        if shrink != 1.0:
            kernel = shrunk(kernel, shrink)
        else:  # only what the mask can keep
            kernel, dilation = kernel[..., self.first :: self.apart, self.first :: self.apart], self.apart
        return dilated(features, kernel, self.bias, dilation, always=False)


class Scale(nn.Module):
    """Every pixel's features divided by their standard deviation, times a weight a channel; no mean is taken
    off.
    """

    def __init__(self, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width, 1, 1))

    def forward(self, features: Tensor) -> Tensor:
        deviation = (features.var(1, unbiased=False, keepdim=True) + 1e-5).sqrt()
        return features / deviation * self.weight


class EachAlone(nn.Conv2d):
    """A 3x3 convolution of dilation 3 of every channel by itself, without bias, always in float32.

    In bfloat16 on a CPU, PyTorch 2.13's slope of such weights reads memory that nobody has written: the fit
    was another one in every run, and now and then not a number. In float32 it is right, and faster.
    """

    def __init__(self, width: int):
        super().__init__(width, width, 3, padding=FAR, dilation=FAR, groups=width, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        with torch.autocast(features.device.type, enabled=False):
            return super().forward(features.to(self.weight.dtype))


def _widen(width: int, wider: int) -> nn.Sequential:
    """Every pixel's features mixed into ``wider`` ones, and each of these with its neighbours."""
    return nn.Sequential(nn.Conv2d(width, wider, 1, bias=False), EachAlone(wider))


class TransposedAttention(nn.Module):
    """Channels mixed by how alike they are, over all the parts of a picture (Restormer's attention, 2 heads).

    ``(B P, width, h, w)`` with P parts of each of B ``pictures``; every channel of query and key has norm 1
    over a picture.
    """

    def __init__(self, width: int):
        super().__init__()
        self.widen = _widen(width, 3 * width)
        self.temperature = nn.Parameter(torch.ones(HEADS, 1, 1))
        self.last = nn.Conv2d(width, width, 1, bias=False)

    def forward(self, parts: Tensor, pictures: int) -> Tensor:
        heads = self.widen(parts).flatten(2).unflatten(1, (3, HEADS, -1))
        query, key, value = heads.unbind(1)  # (B P, heads, channels, pixels) each
        exact = lambda each: each.to(self.temperature.dtype)  # noqa: E731
        together = lambda each: exact(each).unflatten(0, (pictures, -1)).sum(1)  # noqa: E731
        norms = [(together(exact(each).square().sum(-1)) + 1e-12).sqrt() for each in (query, key)]
        alike = together(query @ key.mT) / (norms[0][..., :, None] * norms[1][..., None, :])
        weights = (self.temperature * alike).softmax(-1)
        weights = weights.repeat_interleave(len(parts) // pictures, 0).to(value.dtype)
        return self.last((weights @ value).flatten(1, 2).unflatten(-1, parts.shape[-2:]))


class GatedLayer(nn.Module):
    """Twice 2.66 times the width, one half after a GELU times the other, and back."""

    def __init__(self, width: int):
        super().__init__()
        inside = int(HIDDEN * width)
        self.widen = _widen(width, 2 * inside)
        self.last = nn.Conv2d(inside, width, 1, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        gate, value = self.widen(features).chunk(2, 1)
        return self.last(F.gelu(gate) * value)


class DilatedTransformer(nn.Module):
    """A residual block of attention and gate, of dilation 3; ``(B P, width, h, w)`` to the same shape."""

    def __init__(self, width: int):
        super().__init__()
        self.scale, self.attention = Scale(width), TransposedAttention(width)
        self.scale_gate, self.gate = Scale(width), GatedLayer(width)

    def forward(self, parts: Tensor, pictures: int) -> Tensor:
        parts = parts + self.attention(self.scale(parts), pictures)
        return parts + self.gate(self.scale_gate(parts))


class LocalGlobal(nn.Module):
    """``forward(picture, look)``: ``(B, C, H, W)`` to the same shape, any size from 16 pixels a side.

    ``width`` features in both branches, ``head`` before them, ``blocks`` in the near and ``transformers`` in
    the far branch, ``reaches`` of their first kernels and the radius ``hidden`` of the diamond that these
    skip. As published there are 4 558 879 weights in colour (4.56 M), of which 1 148 928 stand where a kernel
    is masked. The first weights are ours, as in AP-BSN's network.
    """

    def __init__(
        self,
        channels: int,
        width: int = 128,
        head: int = 24,
        blocks: int = 9,
        transformers: int = 6,
        reaches: tuple[int, int] = (4, 10),
        hidden: int = 4,
    ):
        super().__init__()
        self.head = nn.Sequential(nn.Conv2d(channels, head, 1), nn.ReLU())
        self.near = BlindPatchConv2d(head, width, reaches[0], hidden)
        self.near_steps = nn.Sequential(nn.ReLU(), *dilated_layers(width, blocks, NEAR))
        self.far = BlindPatchConv2d(head, width, reaches[1], hidden, APART)
        self.far_blocks = nn.ModuleList(DilatedTransformer(width) for _ in range(transformers))
        self.far_last = DilatedConv2d(width, width, FAR, bias=False, always=False)
        self.tail = merging(width, channels)
        self._start()

    def _start(self) -> None:
        start_quiet(self)
        for module in self.modules():
            if isinstance(module, BlindPatchConv2d):
                nn.init.normal_(module.weight, std=(module.in_channels * float(module.kept.sum())) ** -0.5)
            elif isinstance(module, (TransposedAttention, GatedLayer)):
                nn.init.normal_(module.last.weight, std=0.01 / module.last.in_channels**0.5)
        nn.init.normal_(self.far_last.weight, std=self.far_last.weight[0].numel() ** -0.5)

    def _global(self, parts: Tensor, pictures: int) -> Tensor:
        for block in self.far_blocks:
            parts = block(parts, pictures)
        return self.far_last(parts)

    def forward(self, picture: Tensor, look: Look = Look()) -> Tensor:
        features = self.head(picture)
        near, far = self.near(features, look.shrink[0]), self.far(features, look.shrink[1])
        near = in_parts(self.near_steps, near, look.strides[0], 0)
        far = in_parts(lambda parts: self._global(parts, len(picture)), far, look.strides[1], 0)
        return self.tail(torch.cat((near, far), 1))
