"""The noise that a detail test leaves under the mask, against quadrature and simulation."""

import math

import oracles
import pytest
import torch
from scipy import integrate
from theory_scenes import SIGMA, scene

from b2g import masks
from b2g.theory import (
    gaussian_average,
    noise2self,
    pull_to_estimate,
    selected_noise,
    simulate,
)


def test_dual_mask_of_a_perfect_estimate_keeps_noise2self_and_trims_its_noise(generator):
    clean, threshold = scene(), 40.0

    def dual(estimate):
        def draw(noisy):
            distance = masks.detail_distance(noisy, estimate)
            return masks.dual_mask(masks.detail_index(distance, threshold), generator=generator)

        return draw

    average = gaussian_average(1.5)  # wide: biased at the edge, as every denoiser is somewhere
    draws = simulate(average, clean, SIGMA, dual(clean), 800, generator=generator)
    assert noise2self(draws).holds() and noise2self(draws).resolution() < 0.03
    trimmed = selected_noise(0.0, threshold, SIGMA).mean_square / SIGMA**2
    oracles.assert_mean(draws.energy(draws.noise[:, :, None]) / (SIGMA / 255) ** 2, trimmed, unlike=1.0)
    blurred = average(clean, torch.ones_like(clean))
    estimated = simulate(average, clean, SIGMA, dual(blurred), 800, generator=generator)
    assert not noise2self(estimated).holds(level=6)


@pytest.mark.parametrize("offset", [-30.0, 0.0, 12.0])
def test_selected_noise_equals_quadrature(offset):
    density = lambda n: math.exp(-(n**2) / (2 * SIGMA**2)) / (SIGMA * math.sqrt(2 * math.pi))  # noqa: E731
    low, high = -40.0 - offset, 40.0 - offset
    mass, mean, square = (
        integrate.quad(lambda n, k=k: n**k * density(n), low, high)[0] for k in range(3)
    )
    selected = selected_noise(offset, 40.0, SIGMA)
    assert selected.probability == pytest.approx(mass, rel=1e-9)
    assert selected.mean == pytest.approx(mean / mass, rel=1e-9, abs=1e-9)
    assert selected.mean_square == pytest.approx(square / mass, rel=1e-9)


@pytest.mark.parametrize("sigma", [15.0, 25.0, 50.0])
def test_pull_is_the_slope_of_the_selected_mean(sigma):
    slope = (selected_noise(0.01, 40.0, sigma).mean - selected_noise(-0.01, 40.0, sigma).mean) / 0.02
    assert pull_to_estimate(40.0, sigma) == pytest.approx(-slope, rel=1e-6)
    assert pull_to_estimate(0.01, sigma) == pytest.approx(1.0, abs=1e-4)  # the target is the estimate
