r"""Assumption 1 and Definition 1: what a denoiser may look at, and what the masks cover.

A denoiser here is a function ``f(image, mask)`` of ``(B, C, H, W)`` tensors, 1 = kept: ``f(noisy * mask,
mask)`` is :math:`f(\Omega_m(y))` and ``f(noisy, ones)`` is :math:`f(y)`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from b2g.errors import B2GError

Denoiser = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Dependence:
    r"""How strongly the values on J react to the pixels in J and outside it: largest absolute derivatives."""

    inside: float
    outside: float

    @property
    def assumption_1(self) -> bool:
        """J-invariance: f(y) on J ignores y on J."""
        return self.inside == 0.0

    @property
    def condition_2(self) -> bool:
        """Theorem 1's condition (ii) as printed: f(y) on J depends on y on J alone."""
        return self.outside == 0.0


def dependence(function: Callable[[Tensor], Tensor], image: Tensor, subset: Tensor) -> Dependence:
    r"""Measure :math:`\partial f(y)_J / \partial y` at ``image`` (Assumption 1, Theorem 1's condition (ii)).

    ``image`` ``(1, C, H, W)`` should be small: one backward pass per value of J. ``subset`` is 1 on J.
    """
    inside = subset.bool().reshape(-1)
    if image.shape[0] != 1 or subset.numel() != image.numel():
        raise B2GError("image must be one picture (1, C, H, W) and subset must have its shape.")
    image = image.detach().double().requires_grad_(True)
    values = function(image).reshape(-1)[inside]
    # A function that ignores its input has no graph: adding 0 times the picture gives it one.
    values = values + 0.0 * image.sum()
    rows = [torch.autograd.grad(value, image, retain_graph=True)[0] for value in values]
    jacobian = torch.stack(rows).reshape(len(rows), -1).abs()

    def largest(columns: Tensor) -> float:
        return float(jacobian[:, columns].max()) if columns.any() else 0.0

    return Dependence(largest(inside), largest(~inside))


def coverage(masks: Tensor) -> float:
    """Share of values kept by at least one of ``masks`` ``(M, C, H, W)``: Definition 1 needs it to be 1."""
    return float((masks.amax(0) > 0).double().mean())


def expected_coverage(masked: float, masks: int) -> float:
    """The coverage to expect of independent Bernoulli masks: 1 - ``masked`` to the power ``masks``."""
    return 1.0 - masked**masks


def sum_over_masks(denoiser: Denoiser, image: Tensor, masks: Tensor) -> Tensor:
    r"""Definition 1's :math:`\sum_m f(\Omega_m(y))` to the letter: a sum of pictures, ``(1, C, H, W)``."""
    return denoiser(image * masks, masks).sum(0, keepdim=True)
