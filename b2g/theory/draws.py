r"""Many noisy versions of one picture, and the norms that Section 4 takes over them.

Torch, because the Stein term differentiates the denoiser and the losses are torch; float64 throughout. A norm
with the subscript Omega counts masked values and is divided by their mean number: "per masked value".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from b2g.errors import B2GError
from b2g.losses import gradient_gap, gradient_magnitude
from b2g.theory.invariance import Denoiser


@dataclass(frozen=True)
class Draws:
    r"""Many noisy versions of one picture and what a denoiser answers to each.

    ``noisy``, ``mask`` (1 = kept), ``blind`` = f(Omega(y)) and ``visible`` = f(y) are ``(B, C, H, W)``;
    ``clean`` is ``(1, C, H, W)``. ``operator`` and ``combine`` name the reading of the gradient, as in
    :mod:`b2g.losses`: under "component" the components of :math:`d^g` meet :math:`d^c` one by one and are
    averaged.
    """

    clean: Tensor
    noisy: Tensor
    mask: Tensor
    blind: Tensor
    visible: Tensor
    operator: str = "forward"
    combine: str = "component"

    @property
    def noise(self) -> Tensor:
        """The noise n = y - x."""
        return self.noisy - self.clean

    @property
    def content(self) -> Tensor:
        """The uniform difference d^c = f(Omega(y)) - y, ``(B, C, 1, H, W)``."""
        return (self.blind - self.noisy)[:, :, None]

    @property
    def gap(self) -> Tensor:
        """The gradient difference d^g (Eq. 3.4), ``(B, C, K, H, W)``."""
        if self.combine == "magnitude":
            lengths = (gradient_magnitude(picture, self.operator) for picture in (self.visible, self.blind))
            return torch.sub(*lengths)[:, :, None]
        gap = gradient_gap(self.visible, self.blind, self.operator)
        return combined(gap, self.combine)

    def inner(self, first: Tensor, second: Tensor) -> Tensor:
        """The inner product on masked values, averaged over components, per masked value, ``(B,)``."""
        hidden = 1.0 - self.mask
        count = hidden.sum() / hidden.shape[0]
        if count == 0:
            raise B2GError("mask hides nothing: these norms count masked values only.")
        return ((first * second).mean(2) * hidden).sum((1, 2, 3)) / count

    def energy(self, difference: Tensor) -> Tensor:
        """The squared norm of ``difference`` ``(B, C, K, H, W)`` on masked values, ``(B,)``."""
        return self.inner(difference, difference)


def combined(gradient: Tensor, combine: str) -> Tensor:
    """Apply a linear reading of ``combine`` to a gradient ``(B, C, K, H, W)``."""
    if combine not in ("component", "sum"):
        raise B2GError(f"combine must be 'component', 'sum' or 'magnitude' here, not {combine!r}.")
    return gradient.sum(2, keepdim=True) if combine == "sum" else gradient


def simulate(
    denoiser: Denoiser,
    clean: Tensor,
    sigma: float,
    draw_mask: Callable[[Tensor], Tensor],
    draws: int,
    *,
    generator: torch.Generator,
    operator: str = "forward",
    combine: str = "component",
) -> Draws:
    """Draw ``draws`` noisy versions of ``clean`` ``(1, C, H, W)`` and denoise each, masked and whole.

    ``sigma`` is on 0..255. ``draw_mask`` maps the noisy batch to its masks, so that a mask may depend on
    the noise.
    """
    clean = clean.double()
    shape = (draws, *clean.shape[1:])
    noisy = clean + sigma / 255 * torch.randn(shape, generator=generator, dtype=torch.float64)
    mask = draw_mask(noisy).double().expand(shape)
    with torch.no_grad():
        blind, visible = denoiser(noisy * mask, mask), denoiser(noisy, torch.ones_like(mask))
    return Draws(clean, noisy, mask, blind, visible, operator, combine)
