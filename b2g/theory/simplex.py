r"""The distance of Eq. 4.1 and the payoffs that Theorem 2's words allow.

A state x is a point of the simplex: positive, summing to 1 along the last axis; leading axes are a batch. A
payoff is a function ``(state, given) -> F`` where ``given`` is the optimum :math:`x^\star`, or the fixed
denoiser output f where the payoff is a constant. NumPy, because the reference integrator is SciPy's.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from b2g.errors import B2GError

Payoff = Callable[[NDArray, NDArray], NDArray]
SUM_TOLERANCE = 1e-6


def on_simplex(state: ArrayLike, name: str = "state", normalise: bool = False) -> NDArray:
    """Return ``state`` as float64 on the simplex; refuse what is not there, or divide by the sum if asked.

    ``normalise`` mends a sum that is not 1. It cannot mend a negative value, which is refused always.
    """
    state = np.asarray(state, dtype=np.float64)
    if not np.all(np.isfinite(state)) or np.any(state < 0):
        raise B2GError(f"{name} has a negative or non-finite entry: Eq. 4.1 is about shares, not N(0,1).")
    total = state.sum(-1, keepdims=True)
    if normalise:
        if np.any(total <= 0):
            raise B2GError(f"{name} sums to zero: it cannot be normalised to a distribution.")
        return state / total
    if np.any(np.abs(total - 1) > SUM_TOLERANCE):
        raise B2GError(f"{name} must sum to 1 along its last axis: pass normalise=True to divide by the sum.")
    return state


def distance_like(target: ArrayLike, estimate: ArrayLike, normalise: bool = False) -> NDArray:
    r"""The distance-like function :math:`\sum_i x^\star_i \log(x^\star_i / x_i)` (Eq. 4.1), in nats.

    The Kullback-Leibler divergence from ``estimate`` x to ``target`` :math:`x^\star`, over the last axis:
    at least 0, and 0 only where they agree; infinite where x is 0 and :math:`x^\star` is not. Both must lie
    on the simplex. The paper's text calls both N(0,1) variables: as samples, half of them are negative and
    have no logarithm; as densities they are one and the same, at distance 0 (:func:`normal_distance`).

    Raises B2GError off the simplex; ``normalise=True`` divides each by its sum first.
    """
    target = on_simplex(target, "target", normalise)
    estimate = on_simplex(estimate, "estimate", normalise)
    target, estimate = np.broadcast_arrays(target, estimate)
    terms = np.zeros(target.shape)
    present = target > 0
    with np.errstate(divide="ignore"):
        terms[present] = target[present] * (np.log(target[present]) - np.log(estimate[present]))
    return terms.sum(-1)


def raw_sum(target: ArrayLike, estimate: ArrayLike) -> NDArray:
    """Eq. 4.1's sum on positive pictures that need not sum to 1: it can be negative, so it is no distance."""
    target, estimate = np.asarray(target, np.float64), np.asarray(estimate, np.float64)
    if np.any(target <= 0) or np.any(estimate <= 0):
        raise B2GError("target and estimate must be positive: Eq. 4.1 takes logarithms of both.")
    return (target * np.log(target / estimate)).sum(-1)


def normal_distance(mean: float, spread: float, other_mean: float, other_spread: float) -> float:
    """KL divergence of N(mean, spread^2) from N(other_mean, other_spread^2), in nats: closed form."""
    if spread <= 0 or other_spread <= 0:
        raise B2GError("spread and other_spread must be positive standard deviations.")
    ratio = (spread**2 + (mean - other_mean) ** 2) / (2 * other_spread**2)
    return float(np.log(other_spread / spread) + ratio - 0.5)


def payoff_printed(state: NDArray, given: NDArray) -> NDArray:
    """F_i = f_i, a constant: the payoff of the printed dynamics."""
    return np.broadcast_to(given, state.shape)


def payoff_fixed_log_likelihood(state: NDArray, given: NDArray) -> NDArray:
    """F_i = log f_i, a constant: the payoff of the theorem's words, f held fixed."""
    return np.broadcast_to(np.log(given), state.shape)


def payoff_state(state: NDArray, given: NDArray) -> NDArray:
    """F_i = x_i: the printed dynamics where the denoiser's output is itself the state. Its maximum wins."""
    return state


def payoff_state_log_likelihood(state: NDArray, given: NDArray) -> NDArray:
    """F_i = log x_i: the theorem's words where the denoiser's output is itself the state."""
    return np.log(state)


def payoff_distance_as_potential(state: NDArray, given: NDArray) -> NDArray:
    """F_i = -x*_i / x_i, the gradient of Eq. 4.1: condition (iii) to the letter, but Eq. 4.1 is convex."""
    return -given / state


def payoff_likelihood_gradient(state: NDArray, given: NDArray) -> NDArray:
    """F_i = x*_i / x_i, the gradient of the sum x*_i log x_i: (iii) with its sign put right."""
    return given / state


def payoff_log_ratio(state: NDArray, given: NDArray) -> NDArray:
    """F_i = log(x*_i / x_i), the gradient of -KL(x || x*) up to a constant."""
    return np.log(given) - np.log(state)


def payoff_linear(state: NDArray, given: NDArray) -> NDArray:
    """F_i = x*_i - x_i, the gradient of -|x* - x|^2 / 2."""
    return given - state


PAYOFFS: dict[str, Payoff] = {
    "f": payoff_printed,
    "log f": payoff_fixed_log_likelihood,
    "x": payoff_state,
    "log x": payoff_state_log_likelihood,
    "-x*/x": payoff_distance_as_potential,
    "x*/x": payoff_likelihood_gradient,
    "log(x*/x)": payoff_log_ratio,
    "x*-x": payoff_linear,
}
