r"""The layers that are not in every textbook: masked convolution, gradient layer, channel attention,
T-Standout.

All take and return features ``(B, C, H, W)``. Randomness comes from the ``generator`` argument alone, so a
forward pass is a function of weights, picture, mask and generator.

Source: AIMS Mathematics 10(6), 2025, Section 3.2 (Eq. 3.11 to 3.14), doi 10.3934/math.2025637; partial
convolution after Liu et al. (ECCV 2018), its use for denoising after Quan et al. (Self2Self, CVPR 2020).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from b2g.errors import B2GError
from b2g.losses import gradient_magnitude, spatial_gradient

NORMALISERS = ("window", "self2self")


def sound_in_bfloat16(channels: int) -> bool:
    """Whether PyTorch 2.13's bfloat16 gradient of a dilated convolution of so many channels is right on a CPU.

    With more than 16 channels that are no multiple of 16 it reads and writes outside of its memory: the
    gradients are not finite, or the process ends. All other numbers up to 128 that were tried agree with
    float32.
    """
    return channels <= 16 or channels % 16 == 0


def dilated(
    features: Tensor, weight: Tensor, bias: Tensor | None, dilation: int, *, always: bool = True
) -> Tensor:
    """The convolution whose kernel's pixels lie ``dilation`` apart, zeros outside; sides stay (odd kernels).

    On a CPU in float32: ``always``, or only where bfloat16 is not sound (:func:`sound_in_bfloat16`).
    """
    how = {"padding": weight.shape[-1] // 2 * dilation, "dilation": dilation}
    if features.device.type != "cpu" or not always and (dilation == 1 or sound_in_bfloat16(weight.shape[1])):
        return F.conv2d(features, weight, bias, **how)
    with torch.autocast("cpu", enabled=False):
        return F.conv2d(features.to(weight.dtype), weight, bias, **how)


class DilatedConv2d(nn.Conv2d):
    """A 3x3 convolution by :func:`dilated`."""

    def __init__(self, channels_in: int, channels_out: int, dilation: int, bias: bool = True, *, always: bool = True):
        super().__init__(channels_in, channels_out, 3, padding=dilation, dilation=dilation, bias=bias)
        self.always = always

    def forward(self, features: Tensor) -> Tensor:
        return dilated(features, self.weight, self.bias, self.dilation[0], always=self.always)


def convolution(channels_in: int, channels_out: int, dilation: int = 1) -> nn.Conv2d:
    """A 3x3 convolution that keeps the sides."""
    if dilation == 1:
        return nn.Conv2d(channels_in, channels_out, 3, padding=1)
    return DilatedConv2d(channels_in, channels_out, dilation)


class MaskedConv2d(nn.Module):
    """A 3x3 convolution that sees visible pixels only (partial convolution).

    ``forward(features, mask)`` with ``mask`` ``(B, C or 1, H, W)``, 1 = visible, returns the new features and
    the new mask ``(B, 1, H, W)``, 1 where the window held anything visible. Windows with hidden entries are
    scaled up by (entries) / (visible entries); the outside of the picture counts as hidden, so borders are
    not darkened.

    ``normaliser``: ``"window"`` counts the entries of the window in all channels (9 C, as Liu et al. write),
    so a fully visible window is a plain convolution. ``"self2self"`` counts 9, as the official Self2Self code
    does, which divides a fully visible layer by its channels and starts training with a nearly silent deep
    path.

    ``dilation`` is the distance of the window's nine pixels: at 2 or more,
    the nearest neighbours are not in it.
    """

    def __init__(self, channels_in: int, channels_out: int, normaliser: str = "window", dilation: int = 1):
        super().__init__()
        if normaliser not in NORMALISERS:
            raise B2GError(f"normaliser must be one of {', '.join(NORMALISERS)}, not {normaliser!r}.")
        self.convolution = convolution(channels_in, channels_out, dilation)
        self.entries = 9 * channels_in if normaliser == "window" else 9

    def forward(self, features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        channels, dilation = features.shape[1], self.convolution.dilation[0]
        visible = mask.sum(1, keepdim=True) * (channels / mask.shape[1])
        if dilation == 1:
            visible = F.avg_pool2d(visible, 3, stride=1, padding=1, divisor_override=1)
        else:  # average pooling knows no dilation
            visible = dilated(visible, visible.new_ones(1, 1, 3, 3), None, dilation)
        seen = (visible > 0).to(features.dtype)
        scale = seen * (self.entries / visible.clamp_min(1.0)).to(features.dtype)
        bias = self.convolution.bias.to(features.dtype).view(1, -1, 1, 1)
        weight = self.convolution.weight
        if dilation == 1:
            plain = F.conv2d(features * mask, weight, padding=1)
        else:
            plain = dilated(features * mask, weight, None, dilation)
        # The bias joins after scaling, so a window with nothing visible answers with the bias alone.
        return plain * scale + bias, seen


class GradientLayer(nn.Module):
    """The gradient of every feature channel, ``(B, C, H, W)``: the paper's "gradient layer" (no weights).

    Its definition is absent from the paper. ``signed=False`` (the default) returns the length of the two
    components, which is what "a large gradient" means for an edge of any direction; ``signed=True`` returns
    their sum, the letter of Eq. 3.11, which lets only edges that rise to the right or downward pass.
    """

    def __init__(self, operator: str = "forward", signed: bool = False):
        super().__init__()
        self.operator, self.signed = operator, signed

    def forward(self, features: Tensor) -> Tensor:
        if self.signed:
            return spatial_gradient(features, self.operator).sum(2)
        return gradient_magnitude(features, self.operator)


class ChannelAttention(nn.Module):
    r"""Channel attention :math:`S^* = F(W_{II} W_I B(u))` (Eq. 3.12); returns ``u`` scaled by it.

    B is the mean over the picture, F the sigmoid. ``between="none"`` multiplies the two matrices as printed
    (together they are one matrix of low rank); ``between="relu"`` puts a ReLU between them, as
    squeeze-and-excitation (Hu et al., CVPR 2018) does. ``reduction`` is the paper's unstated ratio of
    channels.
    """

    def __init__(self, channels: int, reduction: int = 4, between: str = "relu"):
        super().__init__()
        if between not in ("none", "relu"):
            raise B2GError(f"between must be 'none' or 'relu', not {between!r}.")
        inner = max(1, channels // reduction)
        self.squeeze = nn.Linear(channels, inner, bias=False)
        self.excite = nn.Linear(inner, channels, bias=False)
        self.between = between

    def scale(self, features: Tensor) -> Tensor:
        """The attention S* itself, ``(B, C)``, in (0, 1)."""
        inner = self.squeeze(features.mean(dim=(-2, -1)))
        return torch.sigmoid(self.excite(inner.relu() if self.between == "relu" else inner))

    def forward(self, features: Tensor) -> Tensor:
        return features * self.scale(features)[..., None, None]


def dropout(features: Tensor, rate: float, generator: torch.Generator, protected: Tensor | None = None) -> Tensor:
    """Element-wise dropout from a generator; ``protected`` (bool) entries are neither dropped nor scaled.

    A survivor among the rest is divided by ``1 - rate``, so every entry keeps its expectation.
    """
    kept = torch.rand(features.shape, generator=generator, device=features.device) >= rate
    factor = kept.to(features.dtype) / (1.0 - rate)
    return features * (factor if protected is None else torch.where(protected, torch.ones_like(factor), factor))


class TStandout(nn.Module):
    r"""Threshold standout: units with a large gradient are never dropped (Eq. 3.11).

    :math:`\eta_j = 1` where the gradient is at least :math:`\epsilon_s` (``threshold``, 25 on 0..255).
    Readings:

    - ``scale``: the threshold as it stands over 255 against the raw features (``"raw"``, the default);
      against the features' own range, per picture and channel (``"range"``); or the ``fraction`` of units
      with the largest gradient (``"quantile"``), since features have no 0..255 scale.
    - ``below``: units under the threshold go through dropout of rate ``rate`` (``"dropout"``, the default) or
      are all dropped (``"drop"``, "eta = 0" to the letter: nothing random remains).
    - the gradient is that of these features, or of the ``guide``, the network's last output, if one is passed
      to ``forward`` (the letter of Eq. 3.11, which writes the gradient of the output): ``(B, C', H', W')``,
      any size.

    The chapter on the network measures all of them. It is active in every pass:
    the average over passes needs it.
    """

    def __init__(
        self,
        rate: float = 0.3,
        threshold: float = 25.0,
        scale: str = "raw",
        below: str = "dropout",
        fraction: float = 0.2,
        operator: str = "forward",
        signed: bool = False,
    ):
        super().__init__()
        if scale not in ("raw", "range", "quantile"):
            raise B2GError(f"scale must be 'raw', 'range' or 'quantile', not {scale!r}.")
        if below not in ("dropout", "drop"):
            raise B2GError(f"below must be 'dropout' or 'drop', not {below!r}.")
        if not 0.0 <= rate < 1.0:
            raise B2GError(f"rate is the share of units to drop and must lie in [0, 1), not {rate}.")
        if not 0.0 <= fraction <= 1.0:
            raise B2GError(f"fraction is the share of units to protect and must lie in [0, 1], not {fraction}.")
        self.rate, self.threshold, self.kind, self.below, self.fraction = rate, threshold, scale, below, fraction
        self.gradient = GradientLayer(operator, signed)

    def keep(self, features: Tensor, guide: Tensor | None = None) -> Tensor:
        """The index eta (Eq. 3.11) as a bool tensor of the features' shape: True = never dropped."""
        signal = features if guide is None else guide.to(features.dtype)
        size = self.gradient(signal)
        if guide is not None:
            size = F.adaptive_max_pool2d(size.amax(1, keepdim=True), features.shape[-2:])
        if self.kind == "raw":
            kept = size >= self.threshold / 255.0
        elif self.kind == "range":
            span = signal.amax((-2, -1), keepdim=True) - signal.amin((-2, -1), keepdim=True)
            span = span if guide is None else span.amax(1, keepdim=True)
            kept = size >= self.threshold / 255.0 * span
        else:
            size = size.float()  # both sides of the comparison rounded alike
            flat = size.flatten(2)
            rank = max(1, round((1.0 - self.fraction) * flat.shape[-1]))
            kept = size > flat.kthvalue(rank, dim=-1).values[..., None, None]
        return kept.expand_as(features)

    def forward(self, features: Tensor, generator: torch.Generator, guide: Tensor | None = None) -> Tensor:
        with torch.no_grad():
            kept = self.keep(features, guide)
        if self.below == "drop":
            return features * kept
        return dropout(features, self.rate, generator, protected=kept)
