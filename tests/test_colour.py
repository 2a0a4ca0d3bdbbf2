"""Opponent colours: orthonormal, undone without loss, and white noise stays white."""

import numpy as np
import torch
from oracles import assert_mean

from b2g.colour import channels, from_opponent, mixed_variance, to_opponent
from b2g.noise import estimate_sigma


def pure():
    """Red, green and blue, each alone."""
    return torch.eye(3, dtype=torch.float64)[:, None]


def test_the_rows_are_brightness_and_two_colours_at_right_angles():
    rows = to_opponent(pure())[:, 0].T.numpy()
    np.testing.assert_allclose(rows @ rows.T, np.eye(3), atol=1e-15)
    np.testing.assert_allclose(rows[0], 3**-0.5, rtol=1e-15)
    np.testing.assert_allclose(rows[1:].sum(axis=1), 0, atol=1e-15)  # gray has no colour


def test_it_is_undone(generator):
    picture = torch.rand(7, 9, 3, generator=generator, dtype=torch.float64)
    assert torch.allclose(from_opponent(to_opponent(picture)), picture, rtol=0, atol=1e-14)
    assert not torch.allclose(to_opponent(to_opponent(picture)), picture, atol=0.1)
    gray = torch.full((4, 5, 3), 0.5, dtype=torch.float64)
    assert torch.allclose(to_opponent(gray)[0, 0], torch.tensor([0.5 * 3**0.5, 0, 0], dtype=torch.float64), atol=1e-15)


def test_pictures_of_other_channels_are_left_as_they_are(generator):
    for count in (1, 2, 4):
        picture = torch.rand(5, 6, count, generator=generator)
        assert all(f(picture) is picture for f in (to_opponent, from_opponent, mixed_variance))


def test_the_variance_of_mixed_noise(generator):
    variance = torch.tensor([0.5, 2.0, 6.0], dtype=torch.float64)
    noise = torch.randn(200, 300, 3, generator=generator, dtype=torch.float64) * variance.sqrt()
    found, expected = to_opponent(noise), mixed_variance(variance.expand(1, 1, 3))[0, 0]
    for k in range(3):
        assert_mean(found[..., k].square(), float(expected[k]), unlike=float(variance[k]))
    assert float(expected.sum()) == float(variance.sum())
    alike = torch.full((2, 2, 3), 0.3, dtype=torch.float64)
    assert torch.allclose(mixed_variance(alike), alike, rtol=1e-14)


def test_white_noise_keeps_its_level(generator):
    """The estimate of sigma, which turns colours by itself,
    is the same for the turned picture to within a percent."""
    noise = torch.randn(96, 96, 3, generator=generator) * 25 / 255 + 0.5
    turned = to_opponent(noise)
    assert abs(estimate_sigma(turned.numpy()) / estimate_sigma(noise.numpy()) - 1) < 0.01


def test_channels_go_side_by_side(generator):
    first, second = torch.rand(2, 4, 5, 3, generator=generator)
    parts = channels(first, second)
    assert len(parts) == 3
    for k, (one, other) in enumerate(parts):
        assert torch.equal(one, first[..., k : k + 1]) and torch.equal(other, second[..., k : k + 1])
