"""Eq. 4.1 and Theorem 2 against closed forms, loops and a Runge-Kutta reference."""

import math

import numpy as np
import pytest
from scipy.stats import entropy, norm

from b2g.errors import B2GError
from b2g.theory import distance_like, distance_rate, game, nash_regret, normal_distance, raw_sum
from b2g.theory.simplex import (
    PAYOFFS,
    payoff_distance_as_potential,
    payoff_fixed_log_likelihood,
    payoff_likelihood_gradient,
    payoff_linear,
    payoff_log_ratio,
    payoff_printed,
    payoff_state,
    payoff_state_log_likelihood,
)

TARGET = np.array([0.4, 0.3, 0.15, 0.1, 0.05])
STABLE = {"x*/x", "log(x*/x)", "x*-x"}


@pytest.fixture
def states():
    return np.random.default_rng(5).dirichlet(np.ones(5), size=20)


def test_distance_equals_scipy_and_is_a_distance(states):
    assert distance_like(TARGET, states) == pytest.approx([entropy(TARGET, state) for state in states])
    assert (distance_like(TARGET, states) > 0).all() and distance_like(TARGET, TARGET) == 0
    totals = 0.5 * np.abs(TARGET - states).sum(-1) ** 2  # Pinsker's bound
    assert (distance_like(TARGET, states) >= totals).all()
    assert distance_like([0.0, 1.0], [0.5, 0.5]) == pytest.approx(math.log(2))
    assert distance_like([0.5, 0.5], [0.0, 1.0]) == math.inf


def test_distance_refuses_what_is_not_on_the_simplex(states):
    with pytest.raises(B2GError, match="normalise=True"):
        distance_like(TARGET, states * 1.1)
    assert distance_like(TARGET, states * 1.1, normalise=True) == pytest.approx(distance_like(TARGET, states))
    normal = np.random.default_rng(0).normal(size=5)
    for normalise in (False, True):
        with pytest.raises(B2GError, match="negative"):
            distance_like(TARGET, normal, normalise)
    with pytest.raises(B2GError, match="sums to zero"):
        distance_like([0.0, 0.0], [0.5, 0.5], normalise=True)
    with pytest.raises(B2GError, match="positive"):
        raw_sum([0.5, 0.0], [0.5, 0.5])
    assert raw_sum([0.5, 0.5], [0.9, 0.9]) < 0  # off the simplex the sum is no distance


def test_normal_distance_equals_quadrature():
    grid = np.linspace(-12, 12, 200001)
    p, q = norm.pdf(grid, 0.3, 0.8), norm.pdf(grid, -0.2, 1.1)
    expected = (p * np.log(p / q)).sum() * (grid[1] - grid[0])
    assert normal_distance(0.3, 0.8, -0.2, 1.1) == pytest.approx(expected, rel=1e-7)
    assert normal_distance(0, 1, 0, 1) == 0
    with pytest.raises(B2GError, match="spread"):
        normal_distance(0, 0, 0, 1)


def test_field_equals_the_slow_one_and_keeps_the_sum(states):
    for payoff in PAYOFFS.values():
        field = game.replicator_field(payoff, states, TARGET)
        for state, velocity in zip(states, field, strict=True):
            values = payoff(state, TARGET)
            mean = sum(x * v for x, v in zip(state, values, strict=True))
            assert velocity == pytest.approx([x * (v - mean) for x, v in zip(state, values, strict=True)])
        assert field.sum(-1) == pytest.approx(np.zeros(20), abs=1e-12)


@pytest.mark.parametrize("name", PAYOFFS)
def test_distance_changes_at_minus_the_printed_rate(name, states):
    payoff, h = PAYOFFS[name], 1e-6
    for state in states:
        if state.min() < 1e-3:
            continue
        velocity = game.replicator_field(payoff, state, TARGET)
        after, before = (distance_like(TARGET, state + sign * h * velocity) for sign in (1, -1))
        measured = float(after - before) / (2 * h)
        mended = distance_rate(payoff, state, TARGET, TARGET)
        assert mended == pytest.approx(measured, rel=1e-4, abs=1e-7)
        printed = game.printed_distance_rate(payoff, state, TARGET, TARGET)
        assert printed == pytest.approx(-measured, rel=1e-4, abs=1e-7)
        assert (measured < 0) or name not in STABLE


@pytest.mark.parametrize(
    ("payoff", "rate"),
    [
        (payoff_likelihood_gradient, game.likelihood_gradient_rate),
        (payoff_log_ratio, game.log_ratio_rate),
        (payoff_linear, game.linear_rate),
    ],
)
def test_closed_rates(payoff, rate, states):
    assert rate(states, TARGET) == pytest.approx(distance_rate(payoff, states, TARGET, TARGET))
    assert (rate(states, TARGET) < 0).all() and rate(TARGET, TARGET) == pytest.approx(0, abs=1e-12)


def paths(times):
    start, fixed = np.array([0.1, 0.1, 0.2, 0.25, 0.35]), np.array([0.3, 0.25, 0.2, 0.15, 0.1])
    return start, [
        (payoff_likelihood_gradient, TARGET, game.likelihood_gradient_path(start, TARGET, times)),
        (payoff_log_ratio, TARGET, game.log_ratio_path(start, TARGET, times)),
        (payoff_printed, fixed, game.constant_path(start, fixed, times)),
        (payoff_fixed_log_likelihood, fixed, game.constant_path(start, np.log(fixed), times)),
        (payoff_state_log_likelihood, fixed, game.state_log_likelihood_path(start, times)),
    ]


def test_closed_paths_equal_the_reference():
    times = [0.0, 0.5, 1.0, 2.0, 3.0]
    start, cases = paths(times)
    for payoff, given, path in cases:
        assert path.sum(-1) == pytest.approx(np.ones(5)) and path[0] == pytest.approx(start)
        assert game.replicator_reference(payoff, start, given, times) == pytest.approx(path, abs=1e-8)


@pytest.mark.parametrize("scheme", ["exponential", "multiplicative"])
def test_both_schemes_are_first_order(scheme):
    start, cases = paths([1.0])
    for payoff, given, path in cases:
        ends = [
            game.replicator(payoff, start, given, step=1 / n, steps=n, scheme=scheme)[-1]
            for n in (50, 100, 200)
        ]
        errors = [np.abs(end - path[0]).max() for end in ends]
        if errors[0] < 1e-12:  # a constant payoff: the exponential scheme is exact
            assert scheme == "exponential"
            continue
        assert errors[0] / errors[1] == pytest.approx(2, abs=0.1)
        assert errors[1] / errors[2] == pytest.approx(2, abs=0.05)


@pytest.mark.parametrize("name", PAYOFFS)
def test_who_converges_is_who_is_strictly_stable(name, states):
    payoff, inner = PAYOFFS[name], 0.9 * states + 0.02  # away from the faces, where x*/x is steep
    margin = game.stability_margin(payoff, TARGET, inner)
    path = game.replicator(payoff, inner, TARGET, step=5e-2, steps=4000)
    distances = distance_like(TARGET, path)
    if name in STABLE:
        assert margin < -0.9
        assert game.converged_share(path, TARGET) == 1.0 and (np.diff(distances, axis=0) < 1e-12).all()
        assert nash_regret(payoff, TARGET, TARGET) == pytest.approx(0, abs=1e-12)
    else:
        assert margin >= 0 and (margin == 0) == (name in ("f", "log f"))
        assert game.converged_share(path, TARGET) == 0.0
        assert (path[-1].max(-1) > 0.99).mean() > 0.9  # one strategy takes all
    if name in ("f", "log f", "x"):  # a reply better than x* exists: x* is no Nash equilibrium
        assert nash_regret(payoff, TARGET, TARGET) > 0.05


def test_the_largest_share_wins_where_the_state_is_its_own_payoff(states):
    for payoff in (payoff_state, payoff_state_log_likelihood):
        path = game.replicator(payoff, states, TARGET, step=1e-2, steps=6000)
        clear = np.sort(states, -1)[:, -1] - np.sort(states, -1)[:, -2] > 0.02
        assert clear.sum() > 10
        assert (path[-1].argmax(-1) == states.argmax(-1))[clear].all()


def test_the_distance_as_potential_repels():
    start = TARGET + np.array([0.01, -0.01, 0.0, 0.0, 0.0])
    path = game.replicator(payoff_distance_as_potential, start, TARGET, step=1e-3, steps=500)
    expected = TARGET + math.exp(0.5) * (start - TARGET)
    assert path[-1] == pytest.approx(expected, abs=1e-4)


def test_a_face_is_never_left():
    start = np.array([0.5, 0.5, 0.0, 0.0, 0.0])
    path = game.replicator(payoff_linear, start, TARGET, step=1e-2, steps=2000, scheme="multiplicative")
    assert path[-1][2:].max() == 0.0 and np.abs(path[-1] - TARGET).max() > 0.14


def test_dynamics_refuse_bad_input(states):
    with pytest.raises(B2GError, match="scheme"):
        game.replicator(payoff_linear, states, TARGET, scheme="implicit")
    with pytest.raises(B2GError, match="start must sum to 1"):
        game.replicator(payoff_linear, states * 2, TARGET)
    with pytest.raises(B2GError, match="too large"):
        game.replicator(payoff_likelihood_gradient, states, TARGET, step=3.0, scheme="multiplicative")
    with pytest.raises(B2GError, match="interior"):
        game.replicator_reference(payoff_linear, np.array([1.0, 0.0]), TARGET[:2], [1.0])
