r"""The cross term of Theorem 1, and Stein's lemma, which says what it is made of."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from b2g.losses import spatial_gradient
from b2g.theory.checks import Estimate, TwoSides, mean_of, paired
from b2g.theory.draws import Draws, combined
from b2g.theory.invariance import Denoiser


@dataclass(frozen=True)
class CrossTerm:
    r"""The cross term :math:`E\langle d^c, d^g\rangle` and its parts: total = error - visible + blind."""

    total: Estimate
    error: Estimate
    visible: Estimate
    blind: Estimate


def cross_term(draws: Draws) -> CrossTerm:
    r"""Split :math:`E\langle d^c, d^g\rangle` into :math:`E\langle f(\Omega(y)) - x, d^g\rangle`,
    :math:`E\langle n, \nabla f(y)\rangle` and :math:`E\langle n, \nabla f(\Omega(y))\rangle`; the last is 0.

    Needs a linear gradient: ``combine`` "component" or "sum".
    """
    noise, error = draws.noise[:, :, None], (draws.blind - draws.clean)[:, :, None]
    gradients = (spatial_gradient(picture, draws.operator) for picture in (draws.visible, draws.blind))
    visible, blind = (combined(gradient, draws.combine) for gradient in gradients)
    parts = (draws.inner(draws.content, draws.gap), draws.inner(error, draws.gap))
    return CrossTerm(*map(mean_of, (*parts, draws.inner(noise, visible), draws.inner(noise, blind))))


def masked_divergence(
    draws: Draws, denoiser: Denoiser, *, probes: int = 1, generator: torch.Generator
) -> Tensor:
    r"""Hutchinson's estimate of :math:`\sum_{i\ masked} \partial (\nabla f(y))_i / \partial y_i`, ``(B,)``.

    ``probes`` vectors v of random signs on the masked values; :math:`v^\top J v` has the divergence as its
    mean. Averaged over components and per masked value, as :meth:`Draws.inner`. One backward pass a probe and
    component.
    """
    noisy, hidden = draws.noisy.detach().clone().requires_grad_(True), 1.0 - draws.mask
    answer = denoiser(noisy, torch.ones_like(noisy))
    gradient = combined(spatial_gradient(answer, draws.operator), draws.combine)
    total = torch.zeros(noisy.shape[0], dtype=noisy.dtype)
    for _ in range(probes):
        signs = torch.randint(0, 2, noisy.shape, generator=generator).to(noisy) * 2 - 1
        signs = signs * hidden
        for component in gradient.unbind(2):
            (pulled,) = torch.autograd.grad(component, noisy, signs, retain_graph=True)
            total += (pulled * signs).sum((1, 2, 3))
    count = hidden.sum() / hidden.shape[0]
    return total / (probes * gradient.shape[2] * count)


def exact_divergence(draws: Draws, denoiser: Denoiser) -> Tensor:
    """What :func:`masked_divergence` estimates, one backward pass a pixel: small pictures, ``(B,)``."""
    noisy, hidden = draws.noisy.detach().clone().requires_grad_(True), 1.0 - draws.mask
    answer = denoiser(noisy, torch.ones_like(noisy))
    gradient = combined(spatial_gradient(answer, draws.operator), draws.combine)
    flat, total = gradient.mean(2).flatten(1), torch.zeros(noisy.shape[0], dtype=noisy.dtype)
    for pixel in range(flat.shape[1]):
        (row,) = torch.autograd.grad(flat[:, pixel].sum(), noisy, retain_graph=True)
        total += (row * hidden).flatten(1)[:, pixel]
    return total / (hidden.sum() / hidden.shape[0])


def stein(draws: Draws, denoiser: Denoiser, sigma: float, divergence: Tensor) -> TwoSides:
    r"""Both sides of Stein's lemma for the visible branch, Gaussian noise and a mask independent of it:

    .. math:: E\langle n, \nabla f(y) \rangle_\Omega = \sigma^2 E \sum_{i\ masked}
              \partial (\nabla f(y))_i / \partial y_i

    ``divergence`` comes from :func:`masked_divergence` or :func:`exact_divergence`; ``sigma`` is on 0..255.
    The left side is taken with f(y) - f(x) for f(y): f(x) is a constant, so the mean stays while most of the
    spread goes. Source: C. Stein, Annals of Statistics 9(6), 1981, Lemma 2.
    """
    with torch.no_grad():
        change = draws.visible - denoiser(draws.clean, torch.ones_like(draws.clean))
    gradient = combined(spatial_gradient(change, draws.operator), draws.combine)
    return paired("Stein", draws.inner(draws.noise[:, :, None], gradient), (sigma / 255) ** 2 * divergence)
