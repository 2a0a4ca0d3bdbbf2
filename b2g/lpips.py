"""LPIPS: how differently a network trained to name objects sees two pictures (Zhang et al., CVPR 2018).

The features of a fixed network are taken after several of its layers and scaled to length 1 at every pixel;
their squared difference, weighed by channel with weights fitted to human judgements, is averaged over the
pixels and summed over the layers. Weights are listed in data/manifest-weights.csv and fetched when first
needed (see `b2g.fetch`).

Version 0.1 of the published weights; the backbones are SqueezeNet 1.1 (Iandola et al., arXiv:1602.07360,
2016) and AlexNet (Krizhevsky, arXiv:1404.5997, 2014), written from those descriptions.
"""

from functools import cache

import torch
from torch import Tensor, nn

from b2g.errors import B2GError
from b2g.images import to_batch
from b2g.weights import fetch_weights

BACKBONES = ("squeeze", "alex")
SMALLEST = {"squeeze": 17, "alex": 31}  # the least height and width that leave every layer a pixel
# The mean and spread of ImageNet's colours, on the [-1, 1] scale that LPIPS expects.
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
_TINY = 1e-10


class Fire(nn.Module):
    """SqueezeNet's module: `squeezed` channels by 1x1 convolutions,
    then `expanded` of 1x1 beside as many of 3x3."""

    def __init__(self, channels: int, squeezed: int, expanded: int):
        super().__init__()
        self.squeeze = nn.Conv2d(channels, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        squeezed = self.squeeze(features).relu()
        return torch.cat([self.expand1x1(squeezed), self.expand3x3(squeezed)], dim=1).relu()


class Taps(nn.Sequential):
    """Layers one after another; `forward` gives the outputs of those numbered in `taps`."""

    def __init__(self, layers: list[nn.Module], taps: tuple[int, ...]):
        super().__init__(*layers)
        self.taps = taps

    def forward(self, image: Tensor) -> list[Tensor]:
        outputs = []
        for number, layer in enumerate(self):
            image = layer(image)
            if number in self.taps:
                outputs.append(image)
        return outputs


def squeezenet() -> Taps:
    """The feature layers of SqueezeNet 1.1, 722 496 weights; seven taps."""
    def pool():
        return nn.MaxPool2d(3, stride=2, ceil_mode=True)

    return Taps([
        nn.Conv2d(3, 64, 3, stride=2), nn.ReLU(), pool(),
        Fire(64, 16, 64), Fire(128, 16, 64), pool(),
        Fire(128, 32, 128), Fire(256, 32, 128), pool(),
        Fire(256, 48, 192), Fire(384, 48, 192), Fire(384, 64, 256), Fire(512, 64, 256),
    ], taps=(1, 4, 7, 9, 10, 11, 12))  # fmt: skip


def alexnet() -> Taps:
    """The feature layers of AlexNet in its one-column form, 2 469 696 weights; five taps."""
    return Taps([
        nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, stride=2),
        nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, stride=2),
        nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(),
    ], taps=(1, 4, 7, 9, 11))  # fmt: skip


def lpips(clean, estimate, backbone="squeeze", clip=True) -> float:
    """The perceptual distance of two pictures: 0 for equal ones, larger for less alike.

    Values of the two backbones lie on different scales and must not be mixed in a table.
    A gray picture is taken as three equal colours.

    Parameters
    ----------
    clean, estimate : pictures of one size, anything that `b2g.images.to_batch` takes; white is 1.
        For several pictures, the mean of their distances.
    backbone : "squeeze" (the smaller) or "alex" (the one the authors of LPIPS recommend for scores)
    clip : clip both to [0, 1] first, as saving them would: the network knows no others.

    Raises
    ------
    B2GError
        When the weights can be had neither here nor from the network,
        or a picture is too small for the backbone.

    References
    ----------
    Zhang, Isola, Efros, Shechtman and Wang, The Unreasonable Effectiveness of Deep Features as a Perceptual
    Metric, CVPR 2018; weights of github.com/richzhang/PerceptualSimilarity, version 0.1.
    """
    if backbone not in BACKBONES:
        raise B2GError(f"LPIPS has no backbone {backbone!r}; use one of {', '.join(BACKBONES)}")
    first, second = to_batch(clean), to_batch(estimate)
    _check(first, second, SMALLEST[backbone])
    pairs = zip(*(_in_colour(taken.batch, clip) for taken in (first, second)))
    with torch.inference_mode():  # picture by picture: whole pictures need their memory
        return float(sum(_distance(one[None], other[None], backbone) for one, other in pairs) / len(first.batch))


def features(image: Tensor, backbone="squeeze") -> list[Tensor]:
    """The tapped features ``(B, channels, h, w)`` of an image ``(B, 3, H, W)`` in [0, 1]."""
    shift, scale = (image.new_tensor(values).view(1, 3, 1, 1) for values in (_SHIFT, _SCALE))
    return _network(backbone)((2 * image - 1 - shift) / scale)


def head_distance(one: Tensor, other: Tensor, weights: Tensor) -> Tensor:
    """A layer's share of LPIPS ``(B,)``: features ``(B, C, h, w)`` to length 1 at every pixel, squared
    difference, weighed by ``weights`` ``(C,)``, mean over the pixels."""
    one, other = (taken / (taken.square().sum(1, keepdim=True).sqrt() + _TINY) for taken in (one, other))
    return torch.einsum("bchw,c->bhw", (one - other).square(), weights).mean((1, 2))


def _distance(one, other, backbone) -> Tensor:
    pairs = zip(features(one, backbone), features(other, backbone), _heads(backbone))
    return sum(head_distance(*taken) for taken in pairs).sum()


def _in_colour(batch, clip) -> Tensor:
    batch = batch.detach().float().cpu()
    return (batch.clamp(0, 1) if clip else batch).expand(-1, 3, -1, -1)


def _check(first, second, smallest):
    if first.batch.shape != second.batch.shape:
        raise B2GError(f"{second.name} cannot be compared with {first.name}: as (pictures, channels, height, "
                       f"width) they are {tuple(second.batch.shape)} and {tuple(first.batch.shape)}; pass "
                       "two of one size")
    if min(first.batch.shape[2:]) < smallest:
        raise B2GError(f"{first.name} is too small for LPIPS; pass pictures of at least {smallest} x {smallest} pixels")


@cache
def _network(backbone) -> Taps:
    network, listed = {"squeeze": (squeezenet, "squeezenet1_1"), "alex": (alexnet, "alexnet")}[backbone]
    filled = network()
    weights = torch.load(fetch_weights(listed), map_location="cpu", weights_only=True)
    own = {key.removeprefix("features."): value for key, value in weights.items() if "classifier" not in key}
    filled.load_state_dict(own)
    return filled.eval().requires_grad_(False)


@cache
def _heads(backbone) -> list[Tensor]:
    """One vector of channel weights a tap, in the taps' order."""
    weights = torch.load(fetch_weights(f"lpips_{backbone}"), map_location="cpu", weights_only=True)
    return [weights[f"lin{number}.model.1.weight"].flatten() for number in range(len(weights))]
