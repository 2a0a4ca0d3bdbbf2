"""The U-Nets of Blind2Unblind and Neighbor2Neighbor."""

import pytest
import torch

from b2g.errors import B2GError
from b2g.networks.unet import UNet, blind2unblind_network, neighbor2neighbor_network


def count(network):
    return sum(p.numel() for p in network.parameters())


def test_the_weights_are_those_stated():
    assert count(blind2unblind_network(3)) == 1_102_371
    assert count(neighbor2neighbor_network(3)) == 1_259_475  # stated as 1.26 million
    assert count(neighbor2neighbor_network(3)) - count(blind2unblind_network(3)) == 4 * (48**2 + 4 * 96**2) + 48 + 4 * 96


@pytest.mark.parametrize("make", [blind2unblind_network, neighbor2neighbor_network])
@pytest.mark.parametrize("shape", [(1, 3, 16, 16), (2, 3, 33, 47), (1, 1, 64, 32)])
def test_any_size_gives_its_own_size_back(make, shape):
    network = make(shape[1], 4)
    picture = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    answer = network(picture)
    assert answer.shape == shape and answer.dtype == torch.float32
    answer.sum().backward()
    assert all(p.grad is not None for p in network.parameters())


def test_sides_grow_by_mirroring():
    network, picture = blind2unblind_network(1, 4), torch.rand(1, 1, 32, 20)
    grown = torch.cat((picture, picture.flip(-1)[..., :12]), -1)
    assert torch.equal(network(picture), network(grown)[..., :20])


def test_the_gain_scales_the_first_weights_only():
    torch.manual_seed(0)
    one = neighbor2neighbor_network(1, 8, 1.0)
    torch.manual_seed(0)
    tenth = neighbor2neighbor_network(1, 8)
    for p, q in zip(one.parameters(), tenth.parameters()):
        assert torch.allclose(q, 0.1 * p)
    spread = float(one.down[0][0].weight.detach().std())
    assert spread == pytest.approx((2 / (1 + 0.2**2) / (9 * 8)) ** 0.5, rel=0.1)


@pytest.mark.parametrize("change, sentence", [
    (dict(up="sinc"), "up must be one of"), (dict(width=0), "width"), (dict(depth=0), "depth"),
])  # fmt: skip
def test_impossible_shapes_are_refused(change, sentence):
    with pytest.raises(B2GError, match=sentence):
        UNet(3, **change)
