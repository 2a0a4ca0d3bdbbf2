r"""Propositions 1 and 2: limits and derivatives under an integral (Eq. 4.2 and 4.3).

An integrand is a function ``f(x, y)`` of float64 tensors; the integral is over x, the parameter is y:
:math:`I(y) = \int_a^b f(x, y)\,dx`. Left sides difference the quadrature, right sides integrate autograd's
derivative, so the two share nothing but the integrand.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from scipy.integrate import quad
from torch import Tensor

from b2g.theory.checks import Equality

Integrand = Callable[[Tensor, Tensor], Tensor]


def integral(integrand: Integrand, interval: tuple[float, float], at: float) -> float:
    r"""The integral :math:`I(y) = \int_a^b f(x, y)\,dx` at ``at``, by adaptive quadrature."""
    parameter = torch.tensor(at, dtype=torch.float64)

    def value(x: float) -> float:
        return float(integrand(torch.tensor(x, dtype=torch.float64), parameter))

    return quad(value, *interval, limit=400, epsabs=1e-12, epsrel=1e-11)[0]


def _partial(integrand: Integrand, x: float, at: float) -> float:
    parameter = torch.tensor(at, dtype=torch.float64, requires_grad=True)
    value = integrand(torch.tensor(x, dtype=torch.float64), parameter)
    if not value.requires_grad:
        return 0.0
    return float(torch.autograd.grad(value, parameter)[0])


def integral_of_derivative(integrand: Integrand, interval: tuple[float, float], at: float) -> float:
    r"""The right side :math:`\int_a^b \partial f / \partial y\,dx` (Eq. 4.3)."""
    return quad(lambda x: _partial(integrand, x, at), *interval, limit=400, epsabs=1e-12, epsrel=1e-11)[0]


def derivative_of_integral(
    integrand: Integrand, interval: tuple[float, float], at: float, step: float = 1e-2
) -> float:
    r"""The left side :math:`\frac{d}{dy} \int_a^b f\,dx` (Eq. 4.3), by extrapolated central differences."""

    def slope(h: float) -> float:
        return (integral(integrand, interval, at + h) - integral(integrand, interval, at - h)) / (2 * h)

    first, second, third = slope(step), slope(step / 2), slope(step / 4)
    finer, finest = (4 * second - first) / 3, (4 * third - second) / 3
    return (16 * finest - finer) / 15


def leibniz(
    integrand: Integrand, interval: tuple[float, float], at: float, tolerance: float = 1e-6
) -> Equality:
    r"""Both sides of Eq. 4.3 with the integral over the other variable.

    .. math:: \frac{d}{dy} \int_a^b f(x, y)\,dx = \int_a^b \partial_y f(x, y)\,dx

    True where f and its derivative in y are continuous on a closed rectangle around ``at`` (Leibniz's rule).
    """
    left = derivative_of_integral(integrand, interval, at)
    return Equality("4.3, mended", left, integral_of_derivative(integrand, interval, at), tolerance)


def printed_leibniz(
    function: Callable[[Tensor], Tensor], interval: tuple[float, float], tolerance: float = 1e-9
) -> Equality:
    r"""Both sides of Eq. 4.3 as printed, where the integral runs over the very variable of the derivative.

    The left side is the derivative of a number, 0; the right one is :math:`\int_a^b (u f(u))'\,du`, which is
    :math:`b f(b) - a f(a)`. They agree only where that difference is 0.
    """
    right = integral_of_derivative(lambda x, y: (x + y) * function(x + y), interval, 0.0)
    return Equality("4.3, as printed", 0.0, right, tolerance)


@dataclass(frozen=True)
class Continuity:
    r"""Proposition 1 at one step: the change of the integral and the bound :math:`(b - a)\,\varepsilon`."""

    change: float
    epsilon: float
    bound: float

    @property
    def holds(self) -> bool:
        """Whether the change stays within the bound."""
        return self.change <= self.bound * (1 + 1e-9) + 1e-11


def continuity(integrand: Integrand, interval: tuple[float, float], at: float, step: float) -> Continuity:
    r"""Proposition 1 between ``at`` and ``at + step`` (Eq. 4.2).

    ``epsilon`` is :math:`\sup_x |f(x, s + \delta) - f(x, s)|` for s = ``at``, taken on 8000 points, half of
    them crowded toward the left end. Where it falls to 0 with ``step``, so must ``change``, at this s.
    """
    a, b = interval
    crowded = a + (b - a) * torch.logspace(-8, 0, 4000, dtype=torch.float64)
    points = torch.cat((torch.linspace(a, b, 4001, dtype=torch.float64), crowded))
    here = torch.tensor(at, dtype=torch.float64)
    epsilon = float((integrand(points, here + step) - integrand(points, here)).abs().max())
    change = abs(integral(integrand, interval, at + step) - integral(integrand, interval, at))
    return Continuity(change, epsilon, (b - a) * epsilon)


def step_after(threshold: float) -> Integrand:
    """An integrand that jumps at y = ``threshold`` and is continuous at every other y (against Eq. 4.2)."""
    return lambda x, y: torch.where(y > threshold, torch.ones_like(x), torch.zeros_like(x))


def moving_bump(x: Tensor, y: Tensor) -> Tensor:
    r"""The bump :math:`(x / y^2) e^{-x^2 / 2y^2}`, 0 at y = 0: continuous in y at each x, not uniformly in x.

    Its integral over [0, 1] is :math:`1 - e^{-1 / 2y^2}`, which tends to 1 at y = 0, where it is 0.
    """
    safe = torch.where(y == 0, torch.ones_like(y), y)
    return torch.where(y == 0, torch.zeros_like(x), x / safe**2 * torch.exp(-((x / safe) ** 2) / 2))


def vanishing_slope(x: Tensor, y: Tensor) -> Tensor:
    r"""The integrand :math:`(y^3 / x^2)\,e^{-y^2 / x}`, 0 at x = 0: it breaks Eq. 4.3 on [0, 1] at y = 0.

    Its integral is :math:`y e^{-y^2}`, of slope 1 at y = 0, while its derivative in y is 0 there at every x.
    Source: Gelbaum and Olmsted, Counterexamples in Analysis (1964), chapter 9.
    """
    safe = torch.where(x == 0, torch.ones_like(x), x)
    return torch.where(x == 0, torch.zeros_like(x * y), y**3 / safe**2 * torch.exp(-(y**2) / safe))
