"""The cross term of Theorem 1 and Stein's lemma against the trace of a matrix."""

import dataclasses

import oracles
import pytest
import torch
from theory_scenes import SIGMA, bernoulli, scene

from b2g import masks
from b2g.theory import (
    cross_term,
    exact_divergence,
    gaussian_average,
    masked_divergence,
    mean_of,
    simulate,
    stein,
)


def slow_trace(width, size, operator, mask):
    """The masked divergence of the Gaussian average's gradient, from its matrix, per masked value."""
    kernel = gaussian_average(width)
    units = torch.eye(size * size, dtype=torch.float64).reshape(-1, 1, size, size)
    responses = kernel(units, torch.ones_like(units)).numpy()  # row j: the answer to the unit picture j
    total = 0.0
    for component in oracles.gradient(responses, operator):
        diagonal = component.reshape(size * size, size * size).diagonal().reshape(size, size)
        total += (diagonal * (1 - mask)).sum() / (1 if operator == "identity" else 2)
    return total / (1 - mask).sum()


@pytest.mark.parametrize("operator", ["forward", "backward", "identity"])
def test_divergence_of_a_linear_denoiser_is_the_trace_of_its_matrix(generator, operator):
    size, width = 7, 0.8
    denoiser, clean = gaussian_average(width), scene(size)
    one = masks.bernoulli_mask(clean.shape, 0.4, generator=generator)
    draws = simulate(denoiser, clean, SIGMA, lambda _: one, 300, generator=generator, operator=operator)
    trace = slow_trace(width, size, operator, one[0, 0].numpy())
    assert exact_divergence(draws, denoiser)[:3].tolist() == pytest.approx([trace] * 3, rel=1e-10)
    probed = masked_divergence(draws, denoiser, probes=4, generator=generator)
    oracles.assert_mean(probed, trace, unlike=-trace)


def test_stein_term_has_opposite_signs_forward_and_backward(generator):
    denoiser, values = gaussian_average(0.8), {}
    for operator in ("forward", "backward"):
        draws = simulate(
            denoiser, scene(), SIGMA, bernoulli(generator), 400, generator=generator, operator=operator
        )
        sides = stein(draws, denoiser, SIGMA, masked_divergence(draws, denoiser, generator=generator))
        assert sides.holds() and sides.resolution() < 0.2
        split = cross_term(draws)
        parts = split.error.value - split.visible.value + split.blind.value
        assert split.total.value == pytest.approx(parts, rel=1e-9)
        assert abs(split.blind.value) < 4.5 * split.blind.standard_error  # the blind branch never saw n
        values[operator] = sides.left
    assert values["forward"] < 0 < values["backward"]


def test_stein_term_of_a_network_and_where_the_mask_follows_the_noise(generator):
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(1, 8, 3, padding=1), torch.nn.LeakyReLU(0.1), torch.nn.Conv2d(8, 1, 3, padding=1)
    ).double()
    denoiser = lambda image, mask: network(image)  # noqa: E731
    draws = simulate(denoiser, scene(), SIGMA, bernoulli(generator), 400, generator=generator)
    sides = stein(draws, denoiser, SIGMA, masked_divergence(draws, denoiser, generator=generator))
    assert sides.holds() and abs(sides.left) > 10 * sides.standard_error
    small = dataclasses.replace(draws, noisy=draws.noisy[:4], mask=draws.mask[:4])
    probes = [masked_divergence(small, denoiser, probes=10, generator=generator) for _ in range(20)]
    probed = mean_of(torch.stack([probe.mean() for probe in probes]))
    assert abs(probed.value - float(exact_divergence(small, denoiser).mean())) < 4.5 * probed.standard_error
    # Hiding only large noise breaks the lemma's premise.
    chosen = simulate(
        denoiser, scene(), SIGMA, lambda y: ((y - scene()).abs() < 0.1).double(), 400, generator=generator
    )
    divergence = masked_divergence(chosen, denoiser, generator=generator)
    assert not stein(chosen, denoiser, SIGMA, divergence).holds()
