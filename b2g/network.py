r"""The encoder-decoder (Eq. 3.13 and 3.14), shared by Blind2Grad and Self2Self.

.. math:: H \to H/2 \to H/4 \to H/8 \to H/16 \to H/32 \to H/16 \to H/8 \to H/4 \to H/2 \to H

The layout is Self2Self's, on which the paper builds: masked convolutions and 2x2 max pooling down, nearest
upsampling, concatenated skips and two 3x3 convolutions a level up, the masked picture itself as the last
skip. The paper adds batch normalisation, a gradient layer with T-Standout at half resolution ("third from the
bottom") and channel attention. Its "stride and length of zero padding 2" cannot hold for 3x3 layers between
those sizes; read here as stride 1, padding 1 and pooling by 2.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from b2g.errors import B2GError
from b2g.layers import NORMALISERS, ChannelAttention, GradientLayer, MaskedConv2d, TStandout, convolution, dropout

PLACES = ("none", "half", "all")
CHOICES = {
    "normaliser": NORMALISERS,
    "masked_layers": ("all", "first"),
    "norm": ("none", "decoder", "all"),
    "attention": PLACES,
    "attention_between": ("none", "relu"),
    "standout": PLACES,
    "standout_scale": ("raw", "range", "quantile"),
    "standout_below": ("dropout", "drop"),
    "dropout": PLACES,
    "output": ("sigmoid", "linear"),
}


@dataclass(frozen=True)
class Architecture:
    """The shape of an :class:`EncoderDecoder`; the defaults are Self2Self's (991 203 weights in colour).

    ``width`` channels in the encoder, twice as many in the decoder, ``head`` in the last two layers. The
    places ``attention`` and ``standout`` are ``"none"``, ``"half"`` (the decoder's level at half resolution)
    or ``"all"`` levels; ``dropout`` places plain dropout of the same ``rate`` where no standout stands.
    ``norm``: batch normalisation in no layer, in the ``"decoder"``, or in ``"all"`` layers but the last.
    ``output``: a ``"sigmoid"`` keeps the answer in (0, 1), ``"linear"`` leaves it free. ``masked_layers``:
    masked convolutions in the whole encoder (``"all"``, Self2Self) or only at the entry (``"first"``, "masked
    convolution first"): behind the first layer hardly a window is without a visible pixel. ``dilation`` is
    the distance of the pixels in a window of the encoder and of the head, which sees the picture itself.
    """

    width: int = 48
    head: tuple[int, int] = (64, 32)
    depth: int = 5
    normaliser: str = "window"
    masked_layers: str = "all"
    norm: str = "none"
    attention: str = "none"
    attention_between: str = "relu"
    standout: str = "none"
    standout_scale: str = "raw"
    standout_below: str = "dropout"
    standout_threshold: float = 25.0
    gradient_features: bool = False
    dropout: str = "all"
    rate: float = 0.3
    output: str = "sigmoid"
    dilation: int = 1

    def __post_init__(self):
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise B2GError(f"{name} must be one of {', '.join(allowed)}, not {getattr(self, name)!r}.")
        for name, least in (("width", 1), ("head", 1), ("depth", 2), ("dilation", 1)):
            value = getattr(self, name)
            if (min(value) if name == "head" else value) < least:
                raise B2GError(f"{name} must be at least {least}, not {value}.")
        if not 0.0 <= self.rate < 1.0:
            raise B2GError(f"rate is the share of units to drop and must lie in [0, 1), not {self.rate}.")


class _Encode(nn.Module):
    """Masked (or plain) convolution, normalisation, LeakyReLU(0.1)."""

    def __init__(self, channels_in: int, channels_out: int, shape: Architecture, masked: bool = True):
        super().__init__()
        self.masked = masked
        if masked:
            self.convolution = MaskedConv2d(channels_in, channels_out, shape.normaliser, shape.dilation)
        else:
            self.convolution = convolution(channels_in, channels_out, shape.dilation)
        self.norm = _batch_norm(channels_out) if shape.norm == "all" else nn.Identity()

    def forward(self, features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        if self.masked:
            features, mask = self.convolution(features, mask)
        else:
            features = self.convolution(features)
        return F.leaky_relu(self.norm(features), 0.1), mask


class _Decode(nn.Module):
    """One level up: two convolutions with what the level carries of dropout, standout and attention."""

    def __init__(self, channels: tuple[int, int, int], shape: Architecture, place: str):
        super().__init__()
        first, middle, last = channels
        here = lambda option: option == "all" or option == place  # noqa: E731
        self.rate = shape.rate if here(shape.dropout) else 0.0
        self.first = convolution(first, middle, shape.dilation)
        self.gradient = GradientLayer() if shape.gradient_features and place == "half" else None
        self.second = convolution(middle * (2 if self.gradient else 1), last, shape.dilation)
        self.norms = nn.ModuleList(
            _batch_norm(n) if shape.norm != "none" else nn.Identity() for n in (middle, last)
        )
        self.attention = ChannelAttention(last, between=shape.attention_between) if here(shape.attention) else None
        self.standout = None
        if here(shape.standout):
            self.standout = TStandout(
                shape.rate, shape.standout_threshold, shape.standout_scale, shape.standout_below
            )

    def _thin(self, features: Tensor, generator: torch.Generator, guide: Tensor | None) -> Tensor:
        if self.standout is not None:
            return self.standout(features, generator, guide)
        return dropout(features, self.rate, generator) if self.rate else features

    def forward(self, features: Tensor, generator: torch.Generator, guide: Tensor | None) -> Tensor:
        features = F.leaky_relu(self.norms[0](self.first(self._thin(features, generator, guide))), 0.1)
        if self.gradient is not None:
            features = torch.cat((features, self.gradient(features)), 1)
        features = self._thin(features, generator, guide)
        features = F.leaky_relu(self.norms[1](self.second(features)), 0.1)
        return features if self.attention is None else self.attention(features)


def _batch_norm(channels: int) -> nn.BatchNorm2d:
    # Always the statistics of the pass at hand: one picture has no population, and f(y) and f(Omega(y))
    # have different statistics that a running mean would mix.
    return nn.BatchNorm2d(channels, track_running_stats=False)


def mirror(tensor: Tensor, height: int, width: int) -> Tensor:
    """Grow to ``height x width`` by mirroring rightward and downward, as often as the size asks."""

    def index(size: int, wanted: int) -> Tensor:
        steps = torch.arange(wanted, device=tensor.device) % (2 * size)
        return torch.where(steps < size, steps, 2 * size - 1 - steps)

    return tensor.index_select(-2, index(tensor.shape[-2], height)).index_select(-1, index(tensor.shape[-1], width))


class EncoderDecoder(nn.Module):
    """``forward(image, mask, generator, guide)``: ``(B, C, H, W)`` in [0, 1] to an
    estimate of the same shape.

    ``mask`` (1 = visible) is applied inside; none means all visible: f(y). Any size from 16 pixels up:
    picture and mask are mirrored together to the next multiple of 2^depth, so a hidden pixel is hidden in its
    mirror image too. ``guide``, of the picture's shape, is the last output for T-Standout's reading of
    Eq. 3.11 on the output. ``answers`` is the number of channels of the estimate, where it is not that of the
    picture.
    """

    def __init__(self, channels: int, shape: Architecture = Architecture(), answers: int | None = None):
        super().__init__()
        self.shape = shape
        width, depth = shape.width, shape.depth
        self.stem = _Encode(channels, width, shape)
        masked = shape.masked_layers == "all"
        self.encoder = nn.ModuleList(_Encode(width, width, shape, masked) for _ in range(depth + 1))
        levels = []
        for level in range(depth - 1, 0, -1):
            below = width if level == depth - 1 else 2 * width
            place = "half" if level == 1 else "deep"
            # Behind the pooling neighbours lie two pixels apart and more.
            levels.append(_Decode((below + width, 2 * width, 2 * width), replace(shape, dilation=1), place))
        self.decoder = nn.ModuleList(levels)
        self.head = _Decode((2 * width + channels, *shape.head), _head_shape(shape), "full")
        self.last = convolution(shape.head[-1], answers or channels, shape.dilation)
        self.draws = (shape.dropout, shape.standout) != ("none", "none")
        self.last_rate = shape.rate if shape.dropout == "all" and shape.standout != "all" else 0.0
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                gain = 1.0 if module is self.last else 2.0 / (1 + 0.1**2)
                nn.init.normal_(module.weight, std=(gain / module.weight[0].numel()) ** 0.5)
                nn.init.zeros_(module.bias)

    def forward(
        self,
        image: Tensor,
        mask: Tensor | None = None,
        generator: torch.Generator | None = None,
        guide: Tensor | None = None,
    ) -> Tensor:
        height, width = image.shape[-2:]
        mask = torch.ones_like(image) if mask is None else mask
        if generator is None and self.draws:  # a generator that is made in a CUDA graph's step forbids the graph
            generator = torch.Generator(image.device).manual_seed(0)
        # Two pixels a side at the bottom: batch normalisation needs more than one number per channel.
        step, least = 2**self.shape.depth, 2 ** (self.shape.depth + 1)
        grown = [max(least, -(-side // step) * step) for side in (height, width)]
        seen = image * mask
        if grown != [height, width]:
            seen, mask = mirror(seen, *grown), mirror(mask, *grown)
            guide = None if guide is None else mirror(guide, *grown)
        if image.is_contiguous(memory_format=torch.channels_last):
            seen = seen.contiguous(memory_format=torch.channels_last)
        return self._run(seen, mask, generator, guide)[..., :height, :width]

    def _run(self, seen: Tensor, mask: Tensor, generator: torch.Generator | None, guide: Tensor | None) -> Tensor:
        skips = [seen]
        features, mask = self.stem(seen, mask)
        for layer in self.encoder[:-1]:
            features, mask = layer(features, mask)
            features = F.max_pool2d(features, 2)
            mask = F.max_pool2d(mask, 2) if layer.masked else mask
            skips.append(features)
        features, mask = self.encoder[-1](features, mask)
        skips.pop()  # the deepest map is the bottleneck itself, not a skip
        for layer in (*self.decoder, self.head):
            features = F.interpolate(features, scale_factor=2, mode="nearest")
            features = layer(torch.cat((features, skips.pop().to(features.dtype)), 1), generator, guide)
        if self.last_rate:
            features = dropout(features, self.last_rate, generator)
        answer = self.last(features)
        return torch.sigmoid(answer.float()) if self.shape.output == "sigmoid" else answer.float()


def _head_shape(shape: Architecture) -> Architecture:
    """The head at full resolution: as the decoder, without attention or gradient features of its own."""
    return replace(shape, attention="none", gradient_features=False)
