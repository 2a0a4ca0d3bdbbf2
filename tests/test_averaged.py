"""The average of weights against NumPy, and that a network always gets its own weights back."""

import numpy as np
import pytest
import torch
from torch import nn

from b2g.averaged import AveragedWeights
from b2g.errors import B2GError


def walked(decay, steps=6, seed=0):
    """A network whose weights wander, its average, and all the weights that it had at an update."""
    random, network, seen = np.random.RandomState(seed), nn.Conv2d(2, 3, 3), []
    averaged = AveragedWeights(network, decay)
    for _ in range(steps):
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.copy_(torch.from_numpy(random.standard_normal(parameter.shape)))
        averaged.update()
        seen.append([parameter.detach().double().numpy().copy() for parameter in network.parameters()])
    return network, averaged, seen


def numbers(network):
    return [parameter.detach().clone() for parameter in network.parameters()]


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9, 0.999])
def test_it_is_the_exponential_mean_without_the_bias_of_its_start(decay):
    network, averaged, seen = walked(decay)
    weights = np.array([decay**age for age in range(len(seen))][::-1])
    own = numbers(network)
    with averaged.used():
        inside = numbers(network)
    for k, parameter in enumerate(inside):
        expected = sum(w * each[k] for w, each in zip(weights, seen)) / weights.sum()
        np.testing.assert_allclose(parameter.numpy(), expected, atol=2e-6 if decay < 0.99 else 2e-4)
    assert all(torch.equal(a, b) for a, b in zip(own, numbers(network)))
    if decay == 0:
        assert all(torch.equal(a, b) for a, b in zip(own, inside))


def test_own_weights_come_back_when_the_block_fails():
    network, averaged, _ = walked(0.9)
    own = numbers(network)
    with pytest.raises(KeyboardInterrupt), averaged.used():
        assert not torch.equal(numbers(network)[0], own[0])
        raise KeyboardInterrupt
    assert all(torch.equal(a, b) for a, b in zip(own, numbers(network)))


def test_a_state_is_a_copy_and_brings_the_average_back():
    network, averaged, _ = walked(0.9)
    state = averaged.state()
    with averaged.used():
        expected = numbers(network)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1)
    averaged.update()
    with averaged.used():
        assert not torch.allclose(numbers(network)[0], expected[0], atol=1e-3)
    averaged.load_state(state)
    with averaged.used():
        assert all(torch.equal(a, b) for a, b in zip(expected, numbers(network)))
    other = AveragedWeights(nn.Conv2d(2, 3, 3), 0.9)
    other.load_state(state)
    assert all(torch.equal(a, b) for a, b in zip(other.sums, averaged.sums)) and other.total == averaged.total


@pytest.mark.parametrize("decay", [1.0, -0.1, float("nan")])
def test_an_impossible_decay_is_refused(decay):
    with pytest.raises(B2GError, match=r"decay of the averaged weights must lie in \[0, 1\), not"):
        AveragedWeights(nn.Conv2d(1, 1, 1), decay)
