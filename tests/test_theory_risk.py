"""Theorem 1 and its neighbours against NumPy loops, closed forms and z-tests whose power is checked."""

import dataclasses
import math

import numpy as np
import oracles
import pytest
import torch
from theory_scenes import SIGMA, bernoulli, scene

from b2g import masks
from b2g.errors import B2GError
from b2g.theory import (
    Draws,
    bias,
    corollary_1,
    dependence,
    gamma_star_squared,
    gaussian_average,
    hidden_target,
    mean_of,
    mended_theorem_1,
    noise2self,
    paired,
    pointwise_unbiased,
    simulate,
    theorem_1,
    trained_loss,
)


def random_draws(generator, **readings):
    shape = (3, 2, 5, 4)
    noisy, blind, visible = (torch.rand(shape, generator=generator, dtype=torch.float64) for _ in range(3))
    clean = torch.rand((1, *shape[1:]), generator=generator, dtype=torch.float64)
    mask = (torch.rand(shape, generator=generator) > 0.4).double()
    return Draws(clean, noisy, mask, blind, visible, **readings)


def slow_energies(draws):
    """Every mean of Theorem 1 by NumPy: loss terms as a function of omega, risk, noise, cross, gap."""
    clean, noisy, mask = draws.clean.numpy(), draws.noisy.numpy(), draws.mask.numpy()
    blind, visible = draws.blind.numpy(), draws.visible.numpy()
    gaps = [
        a - b
        for a, b in zip(
            oracles.gradient(visible, draws.operator), oracles.gradient(blind, draws.operator), strict=True
        )
    ]
    gaps = [sum(gaps)] if draws.combine == "sum" else gaps
    content, hidden = blind - noisy, 1 - mask
    # Sum over all draws, divided by all masked values, is the mean over draws per masked value.
    mean = lambda square: float((square * hidden).sum() / hidden.sum())  # noqa: E731
    joined = lambda omega: np.mean([mean((content + omega * gap) ** 2) for gap in gaps])  # noqa: E731
    return {
        "joined": joined,
        "content": mean(content**2),
        "risk": mean((blind - clean) ** 2),
        "noise": mean((noisy - clean) ** 2),
        "cross": np.mean([mean(content * gap) for gap in gaps]),
        "gap": np.mean([mean(gap**2) for gap in gaps]),
    }


@pytest.mark.parametrize("operator", ["forward", "backward", "central", "sobel", "identity"])
@pytest.mark.parametrize("combine", ["component", "sum"])
def test_both_sides_equal_the_slow_sums(generator, operator, combine):
    draws = random_draws(generator, operator=operator, combine=combine)
    slow, omega, gamma = slow_energies(draws), 0.7, 0.4
    supervised = slow["risk"] + slow["noise"]
    added = 2 * omega * slow["cross"] + (omega**2 - gamma**2) * slow["gap"]
    left = slow["joined"](omega) - gamma**2 * slow["gap"]
    expected = {
        noise2self: (slow["content"], supervised),
        theorem_1: (left, supervised),
        mended_theorem_1: (left, supervised + added),
        trained_loss: (
            slow["joined"](omega) + gamma * slow["content"],
            (1 + gamma) * supervised + 2 * omega * slow["cross"] + omega**2 * slow["gap"],
        ),
    }
    for function, (one, other) in expected.items():
        sides = function(draws) if function is noise2self else function(draws, omega, gamma)
        assert (sides.left, sides.right) == pytest.approx((one, other), rel=1e-12)
    star = omega**2 + 2 * omega * slow["cross"] / slow["gap"]
    assert gamma_star_squared(draws, omega).value == pytest.approx(star, rel=1e-12)


def test_the_mended_gap_is_that_of_noise2self_draw_by_draw(generator):
    draws = random_draws(generator)
    plain, mended = noise2self(draws), mended_theorem_1(draws, 0.8, 0.3)
    assert (mended.gap, mended.standard_error) == pytest.approx((plain.gap, plain.standard_error), rel=1e-9)


@pytest.fixture(scope="module")
def blurred():
    generator = torch.Generator().manual_seed(1)
    draw = bernoulli(generator)
    return simulate(gaussian_average(0.8), scene(), SIGMA, draw, 600, generator=generator)


def test_noise2self_holds_for_a_blind_denoiser_and_not_for_another(blurred):
    sides = noise2self(blurred)
    assert sides.holds() and sides.resolution() < 0.03
    slow = slow_energies(blurred)
    assert sides.right == pytest.approx(float(slow["risk"] + slow["noise"]))
    sighted = noise2self(dataclasses.replace(blurred, blind=blurred.visible))
    assert not sighted.holds() and sighted.gap < -0.1 * sighted.right  # -2 E<n, f(y)> is what is missing


def test_theorem_1_holds_for_its_own_gamma_and_no_other(blurred):
    for operator in ("forward", "backward"):
        draws = dataclasses.replace(blurred, operator=operator)
        assert not theorem_1(draws).holds(level=20)
        assert not theorem_1(draws, gamma=0.8).holds(level=20)  # gamma = omega does not help either
        assert mended_theorem_1(draws).holds()
        assert trained_loss(draws).holds()
    star = gamma_star_squared(blurred)
    assert star.value > 0.8**2 and theorem_1(blurred, gamma=math.sqrt(star.value)).holds()
    assert gamma_star_squared(dataclasses.replace(blurred, operator="backward")).value < 0  # no real gamma


def test_the_error_of_gamma_star_is_the_spread_between_repeats():
    generator = torch.Generator().manual_seed(2)
    repeats = [
        gamma_star_squared(
            simulate(gaussian_average(0.8), scene(10), SIGMA, bernoulli(generator), 60, generator=generator)
        )
        for _ in range(60)
    ]
    spread = np.std([star.value for star in repeats], ddof=1)
    stated = np.mean([star.standard_error for star in repeats])
    assert 0.7 < stated / spread < 1.4  # a spread of 60 repeats is known to 9 %


@pytest.mark.parametrize("level", [0.05, 0.3])
def test_the_counter_example_meets_the_printed_conditions_and_refutes_the_theorem(level):
    generator, masked, omega = torch.Generator().manual_seed(3), 0.25, 0.8
    clean = torch.full((1, 1, 16, 16), level, dtype=torch.float64)
    sigma = SIGMA / 255
    denoiser = pointwise_unbiased(clean, sigma)
    draws = simulate(denoiser, clean, SIGMA, bernoulli(generator, masked), 1500, generator=generator)
    assert bias("(i)", draws.visible, clean[0]).holds() and bias("(i)", draws.blind, clean[0]).holds()
    small = torch.rand((1, 1, 4, 4), generator=generator, dtype=torch.float64)
    whole = pointwise_unbiased(clean[..., :4, :4], sigma)
    subset = (torch.arange(16).reshape(1, 1, 4, 4) % 3 == 0).double()
    assert dependence(lambda y: whole(y, torch.ones_like(y)), small, subset).condition_2

    power = level**2 + sigma**2
    cross = sigma**2 * (sigma**2 - level**2) / power
    variance = sigma**2 * (sigma**2 - level**2) ** 2 / power**2 + 2 * level**2 * sigma**4 / power**2
    star = omega**2 + 2 * omega * cross / ((1 + masked) * variance)
    found = gamma_star_squared(draws, omega)
    assert found.value == pytest.approx(star, abs=4.5 * found.standard_error)
    assert not theorem_1(draws, omega, 0.5).holds(level=20)
    assert noise2self(draws).holds() and mended_theorem_1(draws, omega, 0.5).holds()


def test_gamma_star_refuses_a_gap_of_zero(blurred):
    flat = dataclasses.replace(blurred, visible=blurred.blind)
    assert theorem_1(flat, gamma=3.0).holds()  # the degenerate case: every gamma serves
    with pytest.raises(B2GError, match="every gamma"):
        gamma_star_squared(flat)


def test_norms_refuse_a_mask_that_hides_nothing(blurred):
    with pytest.raises(B2GError, match="hides nothing"):
        noise2self(dataclasses.replace(blurred, mask=torch.ones_like(blurred.mask)))
    with pytest.raises(B2GError, match="combine"):
        theorem_1(dataclasses.replace(blurred, combine="product"))


def test_corollary_1_by_z_test_with_power(generator):
    clean = scene()
    noise = torch.randn((500, 1, 16, 16), generator=generator, dtype=torch.float64)
    assert corollary_1(clean + 0.1 * noise, clean).holds()
    ramp = torch.arange(16, dtype=torch.float64) * 0.05  # a bias of 0.05 in every difference across
    assert not corollary_1(clean + ramp + 0.1 * noise, clean).holds()
    # A constant bias is a biased picture whose gradient is unbiased: the converse of the corollary is false.
    assert corollary_1(clean + 0.5 + 0.1 * noise, clean).holds()
    mask = masks.bernoulli_mask(clean.shape, generator=generator).double()
    assert not corollary_1(clean + 0.1 * noise, hidden_target(clean, mask)).holds()
    target = hidden_target(clean, mask)
    assert (target[mask == 1] == 0).all() and torch.equal(target[mask == 0], clean[mask == 0])


def test_two_sides_judge_themselves(generator):
    left = torch.randn(1000, generator=generator, dtype=torch.float64)
    same = paired("demo", left + 1, left + 1)
    assert same.holds() and same.z == 0 and "holds" in str(same)
    moved = paired("demo", left + 1.5, torch.ones(1000))
    assert not moved.holds() and moved.z == pytest.approx(
        float((left + 0.5).mean() / left.std() * math.sqrt(1000)), rel=1e-6
    )
    assert "fails" in str(moved) and "%" in str(moved)
    with pytest.raises(B2GError, match="two draws"):
        mean_of(torch.ones(1))
