r"""Corollary 1 and Theorem 1: what the self-supervised loss is, in expectation (Eq. 4.4 to 4.6)."""

from __future__ import annotations

from torch import Tensor

from b2g.errors import B2GError
from b2g.losses import spatial_gradient
from b2g.theory.checks import Bias, Estimate, TwoSides, bias, mean_of, paired
from b2g.theory.draws import Draws


def corollary_1(estimates: Tensor, clean: Tensor, operator: str = "forward") -> Bias:
    r"""Test :math:`E \nabla f = \nabla \hat x` (Eq. 4.4) on every pixel and component.

    ``estimates`` ``(B, C, H, W)`` are independent answers, ``clean`` ``(1, C, H, W)`` what should be
    their mean.
    """
    gradients = spatial_gradient(estimates.double(), operator)
    return bias("4.4", gradients, spatial_gradient(clean.double(), operator)[0])


def hidden_target(clean: Tensor, mask: Tensor) -> Tensor:
    r"""Corollary 1's target to the letter, :math:`\hat x = (I - \Omega_m)(x)`: x, but 0 on kept values."""
    return (1.0 - mask) * clean


def noise2self(draws: Draws) -> TwoSides:
    r"""Both sides of :math:`E\|f(\Omega(y)) - y\|^2 = E\|f(\Omega(y)) - x\|^2 + E\|x - y\|^2` (Eq. 4.6).

    True where the masked noise has mean zero given all that f(Omega(y)) has seen. Source: Batson and Royer,
    Noise2Self, ICML 2019, Proposition 1.
    """
    error = (draws.blind - draws.clean)[:, :, None]
    right = draws.energy(error) + draws.energy(draws.noise[:, :, None])
    return paired("4.6", draws.energy(draws.content), right)


def _sides(draws: Draws, omega: float, gamma_squared: float) -> tuple[Tensor, Tensor]:
    joined = draws.energy(draws.content + omega * draws.gap) - gamma_squared * draws.energy(draws.gap)
    error = (draws.blind - draws.clean)[:, :, None]
    return joined, draws.energy(error) + draws.energy(draws.noise[:, :, None])


def theorem_1(draws: Draws, omega: float = 0.8, gamma: float = 0.5) -> TwoSides:
    r"""Both sides of Theorem 1 as printed (Eq. 4.5):

    .. math:: E\|d^c + \omega d^g\|^2_\Omega - E\|\gamma d^g\|^2_\Omega
              = E\|f(\Omega(y)) - x\|^2_\Omega + E\|x - y\|^2_\Omega
    """
    return paired("4.5, as printed", *_sides(draws, omega, gamma**2))


def mended_theorem_1(draws: Draws, omega: float = 0.8, gamma: float = 0.5) -> TwoSides:
    r"""Both sides of the identity that holds (Eq. 4.5, mended): the right side gains

    .. math:: 2 \omega E\langle d^c, d^g \rangle_\Omega + (\omega^2 - \gamma^2) E\|d^g\|^2_\Omega
    """
    left, right = _sides(draws, omega, gamma**2)
    cross, gap = draws.inner(draws.content, draws.gap), draws.energy(draws.gap)
    return paired("4.5, mended", left, right + 2 * omega * cross + (omega**2 - gamma**2) * gap)


def trained_loss(draws: Draws, omega: float = 0.8, gamma: float = 0.5) -> TwoSides:
    r"""Both sides of what Eq. 3.9 is in expectation, masked norm:

    .. math:: (1 + \gamma) \bigl(E\|f(\Omega(y)) - x\|^2 + E\|x - y\|^2\bigr)
              + 2 \omega E\langle d^c, d^g \rangle + \omega^2 E\|d^g\|^2
    """
    content, gap = draws.content, draws.gap
    left = draws.energy(content + omega * gap) + gamma * draws.energy(content)
    supervised = _sides(draws, omega, 0.0)[1]
    cross = draws.inner(content, gap)
    right = (1 + gamma) * supervised + 2 * omega * cross + omega**2 * draws.energy(gap)
    return paired("3.9, in expectation", left, right)


def gamma_star_squared(draws: Draws, omega: float = 0.8) -> Estimate:
    r"""The one :math:`\gamma^2` under which Eq. 4.5 holds:

    .. math:: \gamma_\star^2 = \omega^2 + 2 \omega E\langle d^c, d^g \rangle / E\|d^g\|^2

    No clean picture enters. Negative where no real gamma exists. The error is that of a ratio of means, to
    first order; B2GError where :math:`d^g` vanishes, since then every gamma serves.
    """
    cross, gap = draws.inner(draws.content, draws.gap), draws.energy(draws.gap)
    if float(gap.mean()) == 0.0:
        raise B2GError("d^g is zero on every masked value: Eq. 4.5 then holds for every gamma.")
    ratio = float(cross.mean() / gap.mean())
    error = mean_of((cross - ratio * gap) / gap.mean()).standard_error
    return Estimate(omega**2 + 2 * omega * ratio, 2 * omega * error)
