r"""Theorem 2: replicator dynamics, and the payoffs under which it ends at the optimum.

.. math:: \dot x_i = x_i \bigl(F_i - x^\top F\bigr)

States and payoffs as in :mod:`b2g.theory.simplex`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import solve_ivp
from scipy.special import log_softmax, softmax

from b2g.errors import B2GError
from b2g.theory.simplex import Payoff, distance_like, on_simplex

SCHEMES = ("exponential", "multiplicative")


def replicator_field(payoff: Payoff, state: NDArray, given: NDArray) -> NDArray:
    """The velocity of the replicator dynamics at ``state`` ``(..., n)`` (Theorem 2)."""
    values = payoff(state, given)
    return state * (values - (state * values).sum(-1, keepdims=True))


def replicator(
    payoff: Payoff,
    start: NDArray,
    given: NDArray,
    *,
    step: float = 1e-2,
    steps: int = 1000,
    scheme: str = "exponential",
) -> NDArray:
    r"""Follow the replicator dynamics from ``start`` ``(..., n)``: the states ``(steps + 1, ..., n)``.

    ``"exponential"`` steps by :math:`x_i e^{h F_i}`, normalised, and cannot leave the simplex;
    ``"multiplicative"`` by :math:`x_i (1 + h (F_i - x^\top F))`, which can when ``step`` is large.
    """
    if scheme not in SCHEMES:
        raise B2GError(f"scheme must be one of {', '.join(SCHEMES)}, not {scheme!r}.")
    state = on_simplex(start, "start")
    states = [state]
    for _ in range(steps):
        if scheme == "exponential":
            # A share below the smallest float would be 0, and its logarithm no payoff: hold it at that float.
            state = softmax(np.log(state) + step * payoff(state, given), axis=-1).clip(1e-300)
        else:
            state = state + step * replicator_field(payoff, state, given)
            if np.any(state < 0):
                raise B2GError(f"step {step} is too large: the multiplicative scheme left the simplex.")
        states.append(state)
    return np.stack(states)


def replicator_reference(
    payoff: Payoff, start: NDArray, given: NDArray, times: Sequence[float], tolerance: float = 1e-10
) -> NDArray:
    """The states at ``times`` from one interior ``start`` ``(n,)``, by an eighth-order Runge-Kutta method.

    Integrated in logarithms, so that shares stay positive however small they get.
    """
    start = on_simplex(start, "start")
    if np.any(start <= 0):
        raise B2GError("start must lie in the interior of the simplex: every share above zero.")

    def velocity(_time: float, logs: NDArray) -> NDArray:
        state = softmax(logs)
        values = payoff(state, given)
        return values - state @ values

    solution = solve_ivp(
        velocity, (0.0, max(times)), np.log(start), "DOP853", t_eval=times, rtol=tolerance, atol=tolerance
    )
    if not solution.success:
        raise B2GError(f"The reference integration stopped early: {solution.message}")
    return softmax(solution.y.T, axis=-1)


def distance_rate(payoff: Payoff, state: NDArray, given: NDArray, target: NDArray) -> NDArray:
    r"""The derivative of Eq. 4.1 along the dynamics, :math:`\dot D = -(x^\star - x)^\top F` (Theorem 2)."""
    return -((target - state) * payoff(state, given)).sum(-1)


def printed_distance_rate(payoff: Payoff, state: NDArray, given: NDArray, target: NDArray) -> NDArray:
    r"""The derivative as the proof prints it, :math:`(x^\star - x)^\top F`: the opposite sign."""
    return -distance_rate(payoff, state, given, target)


def likelihood_gradient_rate(state: NDArray, target: NDArray) -> NDArray:
    r"""Under F = x*/x: :math:`\dot D = 1 - \sum_i x_i^{\star 2} / x_i`, minus the chi-squared divergence."""
    return 1.0 - (target**2 / state).sum(-1)


def log_ratio_rate(state: NDArray, target: NDArray) -> NDArray:
    r"""Under F = log(x*/x): :math:`\dot D = -(KL(x^\star \| x) + KL(x \| x^\star))`."""
    return -(distance_like(target, state) + distance_like(state, target))


def linear_rate(state: NDArray, target: NDArray) -> NDArray:
    r"""Under F = x* - x: :math:`\dot D = -\|x^\star - x\|^2`."""
    return -((target - state) ** 2).sum(-1)


def _column(times: Sequence[float]) -> NDArray:
    return np.asarray(times, dtype=np.float64)[:, None]


def likelihood_gradient_path(start: NDArray, target: NDArray, times: Sequence[float]) -> NDArray:
    r"""Under F = x*/x: :math:`\dot x = x^\star - x`, a straight line.

    .. math:: x(t) = x^\star + e^{-t} (x_0 - x^\star)
    """
    return target + np.exp(-_column(times)) * (start - target)


def log_ratio_path(start: NDArray, target: NDArray, times: Sequence[float]) -> NDArray:
    r"""Under F = log(x*/x): a geometric mean, :math:`x(t) \propto x^{\star\,1 - e^{-t}}\, x_0^{e^{-t}}`."""
    weight = np.exp(-_column(times))
    return softmax((1 - weight) * np.log(target) + weight * np.log(start), axis=-1)


def constant_path(start: NDArray, values: NDArray, times: Sequence[float]) -> NDArray:
    r"""Under a constant payoff F: :math:`x(t) \propto x_0 e^{t F}`, which ends at the largest entry of F."""
    return softmax(np.log(start) + _column(times) * values, axis=-1)


def state_log_likelihood_path(start: NDArray, times: Sequence[float]) -> NDArray:
    r"""Under F = log x: :math:`x(t) \propto x_0^{e^t}`, which ends at the largest share of the start."""
    return np.exp(log_softmax(np.exp(_column(times)) * np.log(start), axis=-1))


def nash_regret(payoff: Payoff, state: NDArray, given: NDArray) -> NDArray:
    r"""What the best reply to ``state`` gains, :math:`\max_i F_i - x^\top F`: 0 at a Nash equilibrium."""
    values = payoff(state, given)
    return values.max(-1) - (state * values).sum(-1)


def stability_margin(payoff: Payoff, given: NDArray, states: NDArray) -> float:
    r"""The largest :math:`(x - z)^\top (F(x) - F(z)) / \|x - z\|^2` over all pairs of ``states`` ``(N, n)``.

    Below 0: no pair contradicts that the game is strictly stable, as condition (i) of Theorem 2 asks. Zero: a
    stable game at best, such as every constant payoff. Above 0: not stable. Source: Hofbauer and Sandholm,
    Journal of Economic Theory 144(4), 2009.
    """
    values = payoff(states, given)
    first, second = np.triu_indices(len(states), 1)
    moved = states[first] - states[second]
    return float(((moved * (values[first] - values[second])).sum(-1) / (moved**2).sum(-1)).max())


def converged_share(path: NDArray, target: NDArray, tolerance: float = 1e-3) -> float:
    """Share of the trajectories in ``path`` ``(T, N, n)`` that end at ``target`` within ``tolerance``."""
    return float((np.abs(path[-1] - target).max(-1) < tolerance).mean())
