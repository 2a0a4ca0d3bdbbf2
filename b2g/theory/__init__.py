r"""Section 4 of the paper as functions: what its theorems say, where they hold, and what mends them.

=============================  ====================================================================
Assumption 1, Definition 1     :mod:`b2g.theory.invariance`
Eq. 4.1                        :func:`distance_like`, in :mod:`b2g.theory.simplex`
Eq. 4.2, 4.3                   :func:`continuity`, :func:`leibniz`, in :mod:`b2g.theory.integrals`
Eq. 4.4                        :func:`corollary_1`, in :mod:`b2g.theory.risk`
Eq. 4.5                        :func:`theorem_1`, :func:`mended_theorem_1`, :func:`gamma_star_squared`
Eq. 4.6                        :func:`noise2self`
the cross term of Eq. 4.5      :mod:`b2g.theory.stein`
Eq. 3.1 against Eq. 4.6        :mod:`b2g.theory.selection`
Theorem 2                      :mod:`b2g.theory.game`, payoffs in :mod:`b2g.theory.simplex`
=============================  ====================================================================

Source: AIMS Mathematics 10(6), 2025, Section 4, doi 10.3934/math.2025637.
"""

from b2g.theory.checks import Bias, Equality, Estimate, TwoSides, bias, mean_of, paired
from b2g.theory.draws import Draws, simulate
from b2g.theory.examples import gaussian_average, identity_map, pointwise_unbiased
from b2g.theory.game import (
    distance_rate,
    nash_regret,
    printed_distance_rate,
    replicator,
    replicator_field,
    replicator_reference,
    stability_margin,
)
from b2g.theory.integrals import continuity, leibniz, printed_leibniz
from b2g.theory.invariance import coverage, dependence, expected_coverage, sum_over_masks
from b2g.theory.risk import (
    corollary_1,
    gamma_star_squared,
    hidden_target,
    mended_theorem_1,
    noise2self,
    theorem_1,
    trained_loss,
)
from b2g.theory.selection import pull_to_estimate, selected_noise
from b2g.theory.simplex import PAYOFFS, distance_like, normal_distance, on_simplex, raw_sum
from b2g.theory.stein import cross_term, exact_divergence, masked_divergence, stein

__all__ = [
    "PAYOFFS",
    "Bias",
    "Draws",
    "Equality",
    "Estimate",
    "TwoSides",
    "bias",
    "continuity",
    "corollary_1",
    "coverage",
    "cross_term",
    "dependence",
    "distance_like",
    "distance_rate",
    "exact_divergence",
    "expected_coverage",
    "gamma_star_squared",
    "gaussian_average",
    "hidden_target",
    "identity_map",
    "leibniz",
    "masked_divergence",
    "mean_of",
    "mended_theorem_1",
    "nash_regret",
    "noise2self",
    "normal_distance",
    "on_simplex",
    "paired",
    "pointwise_unbiased",
    "printed_distance_rate",
    "printed_leibniz",
    "pull_to_estimate",
    "raw_sum",
    "replicator",
    "replicator_field",
    "replicator_reference",
    "selected_noise",
    "simulate",
    "stability_margin",
    "stein",
    "sum_over_masks",
    "theorem_1",
    "trained_loss",
]
