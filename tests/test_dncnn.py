import pytest
import torch
from torch.nn import functional as F

from b2g.errors import B2GError
from b2g.fit import build
from b2g.networks.dncnn import DnCNN


def count(network):
    return sum(p.numel() for p in network.parameters())


def test_noise2self_has_the_weights_of_its_code():
    assert count(DnCNN(1, 8, norm=True, bias=False, residual=False)) == 223_104


@pytest.mark.parametrize("channels, depth, weights", [(1, 17, 555_137), (3, 20, 668_227)])
def test_released_weights_have_their_place(channels, depth, weights):
    """A gray and a colour chain of 3x3 convolutions with offsets, every second entry of ``layers``."""
    network = DnCNN(channels, depth, norm=False)
    inner = (depth - 2) * (64 * 64 * 9 + 64)
    assert count(network) == weights == channels * 64 * 9 + 64 + inner + 64 * channels * 9 + channels
    names = [f"layers.{2 * k}.{part}" for k in range(depth) for part in ("weight", "bias")]
    assert list(network.state_dict()) == names


@pytest.mark.parametrize("residual", [True, False])
def test_the_chain_is_convolution_and_relu(residual, generator):
    network = build(lambda: DnCNN(3, 4, 5, norm=False, residual=residual), 1, torch.device("cpu"))
    picture = torch.rand(2, 3, 7, 9, generator=generator)
    features = picture
    for k in range(4):
        convolution = network.layers[2 * k]
        features = F.conv2d(F.relu(features) if k else features, convolution.weight, convolution.bias, padding=1)
    assert torch.allclose(network(picture), picture - features if residual else features, atol=1e-6)


def test_normalisation_is_behind_the_inner_convolutions():
    kinds = [type(layer).__name__ for layer in DnCNN(1, 3, 4, bias=False).layers]
    assert kinds == ["Conv2d", "ReLU", "Conv2d", "BatchNorm2d", "ReLU", "Conv2d"]
    assert all(layer.bias is None for layer in DnCNN(1, 3, 4, bias=False).layers if type(layer).__name__ == "Conv2d")


def test_a_chain_that_cannot_be_is_refused():
    with pytest.raises(B2GError, match="at least 2 layers of at least 1 channel, not 1 of 64"):
        DnCNN(1, 1)
