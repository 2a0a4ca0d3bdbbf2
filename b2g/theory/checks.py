"""How a claim is judged: two sides of an equation, their gap, and the smallest gap the test could see."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from scipy import stats
from torch import Tensor

from b2g.errors import B2GError

# Float64 sums of a million terms round off far below this; a gap under it is no gap.
ROUNDING = 1e-11


@dataclass(frozen=True)
class Estimate:
    """A Monte-Carlo mean and its standard error."""

    value: float
    standard_error: float

    def __str__(self) -> str:
        return f"{self.value:.4g} ± {self.standard_error:.1g}"


@dataclass(frozen=True)
class Equality:
    """Two sides of an equation that were computed without chance."""

    equation: str
    left: float
    right: float
    tolerance: float

    @property
    def gap(self) -> float:
        """Left minus right."""
        return self.left - self.right

    @property
    def holds(self) -> bool:
        """Whether the sides agree within the error of the quadrature."""
        return abs(self.gap) <= self.tolerance

    @property
    def words(self) -> str:
        """Both sides, formatted."""
        return f"left {self.left:.6g}, right {self.right:.6g}"

    def __str__(self) -> str:
        return f"({self.equation}) {self.words}: {'holds' if self.holds else 'fails'}"


@dataclass(frozen=True)
class TwoSides:
    """Two sides of an equation between expectations, estimated on the same draws.

    ``gap`` is the mean over draws of left minus right, ``standard_error`` that mean's own. Paired draws share
    their noise, so the gap is known far better than either side.
    """

    equation: str
    left: float
    right: float
    gap: float
    standard_error: float
    draws: int

    @property
    def z(self) -> float:
        """The gap in standard errors: of size 1 where the equation holds."""
        floor = ROUNDING * (abs(self.left) + abs(self.right))
        return self.gap / max(self.standard_error, floor, 1e-300)

    @property
    def relative_gap(self) -> float:
        """The gap as a share of the right side."""
        return self.gap / abs(self.right) if self.right else math.copysign(math.inf, self.gap)

    def resolution(self, level: float = 4.0) -> float:
        """The power of the test: the relative gap that it would find in 98 of 100 repeats."""
        return (level + 2.0) * self.standard_error / abs(self.right) if self.right else math.inf

    def holds(self, level: float = 4.0) -> bool:
        """Whether the gap is smaller than ``level`` standard errors. Read it beside :meth:`resolution`."""
        return abs(self.z) < level

    @property
    def words(self) -> str:
        """Both sides, the gap with its error, and z, formatted."""
        # A percentage of a right side that is itself zero within the noise would mean nothing.
        share = f" = {100 * self.relative_gap:+.2f} %" if self.resolution() < 1 else ""
        return (
            f"left {self.left:.4g}, right {self.right:.4g}, "
            f"gap {self.gap:+.1e} ± {self.standard_error:.0e}{share}, z = {self.z:+.1f}"
        )

    def __str__(self) -> str:
        return f"({self.equation}) {self.words}: {'holds' if self.holds() else 'fails'}"


def mean_of(values: Tensor) -> Estimate:
    """Mean and standard error of independent ``values`` ``(draws,)``."""
    if values.numel() < 2:
        raise B2GError("A standard error needs at least two draws.")
    values = values.double()
    return Estimate(float(values.mean()), float(values.std() / math.sqrt(values.numel())))


def paired(equation: str, left: Tensor, right: Tensor) -> TwoSides:
    """Compare ``left`` and ``right``, both ``(draws,)`` and taken on the same draws."""
    left, right = left.double(), right.double()
    gap = mean_of(left - right)
    return TwoSides(
        equation, float(left.mean()), float(right.mean()), gap.value, gap.standard_error, left.numel()
    )


@dataclass(frozen=True)
class Bias:
    """The largest of many z values, with the chance of one so large if there were no bias anywhere."""

    equation: str
    largest_z: float
    p_value: float
    values: int

    def holds(self, level: float = 1e-4) -> bool:
        """Whether chance alone explains the largest z."""
        return self.p_value > level

    def __str__(self) -> str:
        verdict = "holds" if self.holds() else "fails"
        return (
            f"({self.equation}) largest z of {self.values} values {self.largest_z:.1f}, "
            f"p = {self.p_value:.2g}: {verdict}"
        )


def bias(equation: str, samples: Tensor, truth: Tensor) -> Bias:
    """Test whether ``samples`` ``(draws, ...)`` have the mean ``truth`` ``(...)``, value by value.

    One t test a value, the largest kept and its probability multiplied by their number (Bonferroni), which
    holds however the values depend on each other.
    """
    samples, truth = samples.double(), truth.double()
    draws = samples.shape[0]
    spread = samples.std(0) / math.sqrt(draws)
    gap = (samples.mean(0) - truth).abs()
    rounding = ROUNDING * (1.0 + truth.abs())
    z = torch.where(gap <= rounding, torch.zeros_like(gap), gap / spread.clamp_min(1e-300))
    largest = float(z.max())
    p_value = min(1.0, 2.0 * z.numel() * float(stats.t.sf(largest, draws - 1)))
    return Bias(equation, largest, p_value, z.numel())
