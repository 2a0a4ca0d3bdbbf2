"""Propositions 1 and 2 against closed forms, and the integrands on which they fail."""

import math

import pytest
import torch

from b2g.theory.integrals import (
    continuity,
    derivative_of_integral,
    integral,
    integral_of_derivative,
    leibniz,
    moving_bump,
    printed_leibniz,
    step_after,
    vanishing_slope,
)


def smooth(x, y):
    return torch.exp(-x * y) * torch.cos(y)


def smooth_integral(y):  # of exp(-x y) cos(y) over x in [0, 1]
    return (1 - math.exp(-y)) / y * math.cos(y)


def smooth_slope(y):
    fraction = (math.exp(-y) * (y + 1) - 1) / y**2
    return fraction * math.cos(y) - (1 - math.exp(-y)) / y * math.sin(y)


@pytest.mark.parametrize("at", [0.3, 1.0, 2.5])
def test_leibniz_equals_the_closed_form(at):
    assert integral(smooth, (0, 1), at) == pytest.approx(smooth_integral(at), abs=1e-10)
    assert integral_of_derivative(smooth, (0, 1), at) == pytest.approx(smooth_slope(at), abs=1e-10)
    assert derivative_of_integral(smooth, (0, 1), at) == pytest.approx(smooth_slope(at), abs=1e-8)
    both = leibniz(smooth, (0, 1), at)
    assert both.holds and abs(both.left) > 0.1


def test_leibniz_fails_where_the_derivative_is_not_continuous():
    both = leibniz(vanishing_slope, (0.0, 1.0), 0.0)
    assert not both.holds
    assert both.left == pytest.approx(1.0, abs=1e-5) and both.right == 0.0
    away = leibniz(vanishing_slope, (0.0, 1.0), 0.8)
    assert away.holds and away.left == pytest.approx((1 - 2 * 0.64) * math.exp(-0.64), abs=1e-6)


@pytest.mark.parametrize(("function", "right"), [(torch.ones_like, 2.0), (torch.exp, 3 * math.e**3 - math.e)])
def test_printed_leibniz_has_a_closed_right_side(function, right):
    both = printed_leibniz(function, (1.0, 3.0))
    assert both.right == pytest.approx(right, rel=1e-9) and both.left == 0.0 and not both.holds


def test_printed_leibniz_holds_only_by_coincidence():
    assert printed_leibniz(lambda u: 1 / u, (1.0, 3.0)).holds  # b f(b) = a f(a) = 1


def test_one_point_of_continuity_is_not_enough():
    jump = step_after(0.7)
    assert continuity(jump, (0, 1), 0.2, 0.1) == continuity(jump, (0, 1), 0.2, 1e-6)
    assert continuity(jump, (0, 1), 0.2, 0.1).change == 0.0  # Eq. 4.2 holds at s = 0.2
    beside = continuity(jump, (0, 1), 0.7, 1e-9)
    assert beside.change == pytest.approx(1.0) and beside.epsilon == 1.0  # yet the integral jumps at 0.7


def test_uniform_continuity_carries_the_integral():
    for step in (1e-1, 1e-2, 1e-3):
        here = continuity(smooth, (0, 1), 1.0, step)
        assert here.holds and 0 < here.change < 2 * step


def test_pointwise_continuity_does_not():
    # Eq. 4.2 fails at s = 0, although every single x is continuous there.
    changes = [continuity(moving_bump, (0, 1), 0.0, step) for step in (0.2, 0.1, 0.05)]
    for change, step in zip(changes, (0.2, 0.1, 0.05), strict=True):
        assert change.change == pytest.approx(1 - math.exp(-1 / (2 * step**2)), rel=1e-8)
        assert change.epsilon == pytest.approx(math.exp(-0.5) / step, rel=1e-5)  # grows
    x, tiny = torch.tensor(0.3, dtype=torch.float64), torch.tensor(1e-3, dtype=torch.float64)
    assert float(moving_bump(x, tiny)) < 1e-300
