"""N networks of one shape as one: layers with N sets of weights, of which picture k meets the k-th.

A small picture leaves a GPU idle: a step's time goes into starting its operations. Here one operation serves
N pictures ``(N, C, H, W)``. Only layers with weights are replaced; batch normalisation keeps each picture's
own statistics, and all that has no weights works picture by picture as it stands. :mod:`b2g.together` is the
fit.
"""

from __future__ import annotations

from copy import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from b2g.errors import B2GError
from b2g.layers import MaskedConv2d

HOW = ("grouped", "products")
# By benchmarks/side_by_side.py on a CPU; on a GPU expected, not yet measured.
FASTEST = {"cpu": "grouped", "cuda": "products"}


def _windows(features: Tensor, size: int) -> Tensor:
    """The ``size x size`` windows of ``(N, C, H, W)`` as columns ``(N, C size^2, H W)``;
    outside are zeros."""
    if size == 1:
        return features.flatten(2)
    around = size // 2
    padded = F.pad(features, (around,) * 4)
    windows = padded.unfold(2, size, 1).unfold(3, size, 1).permute(0, 1, 4, 5, 2, 3)
    return windows.reshape(len(features), -1, features.shape[2] * features.shape[3])


class _Products(torch.autograd.Function):
    """Convolutions as one batched matrix product; for the slopes the columns are made again, not kept."""

    @staticmethod
    def forward(ctx, features: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(features, weight)
        answer = torch.bmm(weight.flatten(2), _windows(features, weight.shape[-1]))
        return answer.unflatten(2, features.shape[2:])

    @staticmethod
    def backward(ctx, slope: Tensor) -> tuple[Tensor | None, Tensor]:
        features, weight = ctx.saved_tensors
        by_features = None
        if ctx.needs_input_grad[0]:
            # The slope by the features is the convolution of the slope with the mirrored, transposed weights.
            turned = weight.flip((-2, -1)).transpose(1, 2).flatten(2)
            by_features = torch.bmm(turned, _windows(slope, weight.shape[-1])).view_as(features)
        by_weight = torch.bmm(slope.flatten(2), _windows(features, weight.shape[-1]).transpose(1, 2))
        return by_features, by_weight.view_as(weight)


def convolve(features: Tensor, weight: Tensor, how: str) -> Tensor:
    """Picture k of ``(N, C, H, W)`` by the weights k of ``(N, O, C, size, size)``, zeros outside:
    ``(N, O, H, W)``.

    ``how``: ``"grouped"`` folds the pictures into the channels of one grouped convolution (which is also what
    torch.func.vmap makes of it); ``"products"`` takes the windows apart and multiplies N matrices at once.
    """
    if how == "grouped":
        folded = features.reshape(1, -1, *features.shape[2:])
        answer = F.conv2d(folded, weight.flatten(0, 1), padding=weight.shape[-1] // 2, groups=len(weight))
        return answer.reshape(*weight.shape[:2], *features.shape[2:])
    kind = features.device.type
    if torch.is_autocast_enabled(kind):  # autocast does not look inside a Function
        features, weight = (t.to(torch.get_autocast_dtype(kind)) for t in (features, weight))
    return _Products.apply(features.contiguous(), weight)


class StackedConv2d(nn.Module):
    """N convolutions of one shape (stride 1, odd size, zero padding that keeps the sides)."""

    def __init__(self, layers: list[nn.Conv2d], how: str):
        super().__init__()
        first = layers[0]
        size = first.kernel_size[0]
        sides = first.kernel_size, first.padding, first.stride, first.dilation
        like_this = sides == ((size, size), (size // 2, size // 2), (1, 1), (1, 1))
        if size % 2 == 0 or not like_this or first.groups != 1 or first.padding_mode != "zeros":
            raise B2GError(f"a stack cannot hold {first}; use together=False.")
        self.how = how
        self.weight, self.bias = _joined(layers, "weight"), _joined(layers, "bias")

    def forward(self, features: Tensor) -> Tensor:
        plain = convolve(features, self.weight, self.how)
        return plain if self.bias is None else plain + self.bias.to(plain.dtype)[..., None, None]


class StackedMaskedConv2d(nn.Module):
    """N masked convolutions (:class:`b2g.layers.MaskedConv2d`):
    each picture's windows are scaled by its own mask."""

    def __init__(self, layers: list[MaskedConv2d], how: str):
        super().__init__()
        self.entries = layers[0].entries
        self.convolution = StackedConv2d([layer.convolution for layer in layers], how)

    def forward(self, features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        visible = mask.sum(1, keepdim=True) * (features.shape[1] / mask.shape[1])
        visible = F.avg_pool2d(visible, 3, stride=1, padding=1, divisor_override=1)
        seen = (visible > 0).to(features.dtype)
        scale = seen * (self.entries / visible.clamp_min(1.0)).to(features.dtype)
        plain = convolve(features * mask, self.convolution.weight, self.convolution.how)
        bias = self.convolution.bias.to(features.dtype)[..., None, None]
        return plain * scale + bias, seen


class StackedBatchNorm2d(nn.Module):
    """N batch normalisations, each with the statistics of its own picture in the pass at hand."""

    def __init__(self, layers: list[nn.BatchNorm2d], how: str):
        super().__init__()
        if layers[0].track_running_stats:
            raise B2GError("a stack cannot hold a running batch normalisation; set track_running_stats=False.")
        self.eps = layers[0].eps
        self.weight, self.bias = _joined(layers, "weight"), _joined(layers, "bias")

    def forward(self, features: Tensor) -> Tensor:
        folded = features.reshape(1, -1, *features.shape[2:])
        weight, bias = self.weight.flatten(), self.bias.flatten()
        answer = F.batch_norm(folded, None, None, weight, bias, training=True, eps=self.eps)
        return answer.view_as(features)


class StackedLinear(nn.Module):
    """N linear maps: ``(N, in)`` to ``(N, out)``."""

    def __init__(self, layers: list[nn.Linear], how: str):
        super().__init__()
        self.weight, self.bias = _joined(layers, "weight"), _joined(layers, "bias")

    def forward(self, features: Tensor) -> Tensor:
        answer = torch.bmm(self.weight, features[..., None])[..., 0]
        return answer if self.bias is None else answer + self.bias


STACKED = {
    MaskedConv2d: StackedMaskedConv2d,
    nn.Conv2d: StackedConv2d,
    nn.BatchNorm2d: StackedBatchNorm2d,
    nn.Linear: StackedLinear,
}


def _joined(layers: list[nn.Module], name: str) -> nn.Parameter | None:
    """The parameters ``name`` of all layers as one, ``(N, ...)``; None where the layers have none."""
    if getattr(layers[0], name) is None:
        return None
    return nn.Parameter(torch.stack([getattr(layer, name).detach() for layer in layers]).contiguous())


def stack_networks(networks: list[nn.Module], how: str) -> nn.Module:
    """One network for ``(N, C, H, W)`` whose k-th picture meets the k-th network; all must have one shape.

    Layers with weights are replaced by their stacked kind; all else works picture by picture as it stands.
    """
    first = networks[0]
    if type(first) in STACKED:
        return STACKED[type(first)](networks, how)
    if list(first.parameters(recurse=False)) or list(first.buffers(recurse=False)):
        raise B2GError(f"a stack cannot hold a layer {type(first).__name__}; use together=False.")
    stacked = copy(first)
    stacked._modules = {
        name: None if child is None else stack_networks([network._modules[name] for network in networks], how)
        for name, child in first._modules.items()
    }
    return stacked
