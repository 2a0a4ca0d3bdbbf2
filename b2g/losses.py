r"""The losses, one pure function per equation (1.1 and 3.4 to 3.9).

Everywhere ``blind`` is :math:`f_\theta(\Omega_m(y))`, the network's answer to the masked picture, ``visible``
is :math:`f_\theta(y)`, its answer to the whole one, ``noisy`` is :math:`y` and ``mask`` is :math:`\Omega_m`
(1 = kept). All are ``(B, C, H, W)`` in [0, 1]. A norm
:math:`\|v\|^2_{\Omega_m} = \|(1 - \Omega_m) \odot v\|^2` counts masked pixels only; it is divided here by
their number, which changes no minimiser and makes losses of different pictures comparable.

What the paper leaves open is an argument:

========================= ==============================================================================
``operator``              the spatial gradient: ``"forward"`` (the pixel counts of Eq. 3.15 fit it),
                          ``"backward"``, ``"central"``, ``"sobel"``; ``"identity"`` is no gradient at all
                          and turns Eq. 3.9 into Blind2Unblind's loss
``combine``               how a gradient of two components meets the scalar d^c: ``"component"`` (one residual
                          per component, averaged), ``"sum"`` (d^c + omega (d^g_x + d^g_y)), ``"magnitude"``
                          (d^g is the difference of gradient lengths), ``"separate"`` (squares added apart)
``stop_gradient``         whether f(y) is a constant for the gradient of the loss (Blind2Unblind stops it)
``norm``                  ``"masked"`` or ``"all"`` pixels: Eq. 3.7 carries the subscript, Eq. 3.9 does not
``target``                ``"noisy"`` (y) or ``"hidden"`` (y-hat as defined, zero on visible pixels); they
                          differ only under ``norm="all"``
========================= ==============================================================================

The chapter on the loss measures each of them. Source: AIMS Mathematics 10(6), 2025, Section 3.2,
doi 10.3934/math.2025637.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from b2g.errors import B2GError

OPERATORS = ("forward", "backward", "central", "sobel", "identity")
COMBINATIONS = ("component", "sum", "magnitude", "separate")


def spatial_gradient(image: Tensor, operator: str = "forward") -> Tensor:
    """The spatial gradient of ``image`` ``(B, C, H, W)`` as ``(B, C, K, H, W)``: K = 2, across then down.

    Borders are replicated, so the forward difference is 0 in the last column (row), the backward one in the
    first. ``"central"`` halves the two-pixel difference, ``"sobel"`` divides by 8: both have the scale of a
    difference of neighbours. ``"identity"`` returns the picture itself, K = 1.
    """
    if operator == "identity":
        return image[:, :, None]
    if operator not in OPERATORS:
        raise B2GError(f"operator must be one of {', '.join(OPERATORS)}, not {operator!r}.")
    batch, channels, height, width = image.shape
    padded = F.pad(image, (1, 1, 1, 1), mode="replicate")
    before, here, after = slice(0, -2), slice(1, -1), slice(2, None)
    if operator == "forward":
        across, down = padded[..., here, after] - image, padded[..., after, here] - image
    elif operator == "backward":
        across, down = image - padded[..., here, before], image - padded[..., before, here]
    else:
        rise = (padded[..., after] - padded[..., before]) / 2
        fall = (padded[..., after, :] - padded[..., before, :]) / 2
        if operator == "central":
            across, down = rise[..., here, :], fall[..., here]
        else:
            across = (rise[..., before, :] + 2 * rise[..., here, :] + rise[..., after, :]) / 4
            down = (fall[..., before] + 2 * fall[..., here] + fall[..., after]) / 4
    return torch.stack((across, down), dim=2)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    r"""Mean of ``values`` over the masked pixels: :math:`\|\cdot\|_{\Omega_m}` without its square,
    normalised."""
    hidden = 1.0 - mask
    return (values * hidden).sum() / hidden.sum().clamp_min(1.0)


def _norm(squares: Tensor, mask: Tensor, norm: str) -> Tensor:
    if norm == "masked":
        return masked_mean(squares, mask)
    if norm == "all":
        return squares.mean()
    raise B2GError(f"norm must be 'masked' or 'all', not {norm!r}.")


def uniform_gap(blind: Tensor, noisy: Tensor, mask: Tensor, target: str = "noisy") -> Tensor:
    r"""The uniform difference :math:`d^c = f_\theta(\Omega_m(y)) - \hat y` (below Eq. 1.1), ``(B, C, H, W)``.

    ``target="hidden"`` takes :math:`\hat y = (I - \Omega_m)(y)` to the letter, zero on the visible pixels;
    ``"noisy"`` takes y. On masked pixels the two agree.
    """
    if target == "noisy":
        return blind - noisy
    if target == "hidden":
        return blind - (1.0 - mask) * noisy
    raise B2GError(f"target must be 'noisy' or 'hidden', not {target!r}.")


def uniform_loss(
    blind: Tensor, noisy: Tensor, mask: Tensor, norm: str = "masked", target: str = "noisy"
) -> Tensor:
    r"""The blind-spot loss :math:`\|d^c\|^2_{\Omega_m}` (Eq. 1.1), a scalar: Self2Self's loss.

    ``target`` matters only under ``norm="all"``: see :func:`uniform_gap`.
    """
    return _norm(uniform_gap(blind, noisy, mask, target).square(), mask, norm)


def gradient_gap(visible: Tensor, blind: Tensor, operator: str = "forward") -> Tensor:
    r"""The gradient difference :math:`d^g = \nabla f_\theta(y) - \nabla f_\theta(\Omega_m(y))` (Eq. 3.4).

    Returns ``(B, C, K, H, W)``; ``operator`` as in :func:`spatial_gradient`.
    """
    return spatial_gradient(visible, operator) - spatial_gradient(blind, operator)


def gradient_magnitude(image: Tensor, operator: str = "forward") -> Tensor:
    """The length of the spatial gradient, ``(B, C, H, W)``;
    its derivative is finite where the gradient is 0."""
    squares = spatial_gradient(image, operator).square().sum(2)
    # The root's slope is infinite at 0, which flat ground reaches exactly; 1e-12 is (1e-6)^2,
    # far below one level of 255.
    return (squares + 1e-12).sqrt()


def _gap_components(visible: Tensor, blind: Tensor, operator: str, combine: str) -> Tensor:
    """d^g as the residuals that meet d^c: ``(B, C, K', H, W)`` with K' = K for "component", else 1."""
    if combine == "magnitude":
        return (gradient_magnitude(visible, operator) - gradient_magnitude(blind, operator))[:, :, None]
    gap = gradient_gap(visible, blind, operator)
    return gap.sum(2, keepdim=True) if combine == "sum" else gap


def _joined_squares(content: Tensor, gap: Tensor, omega: float, combine: str) -> Tensor:
    """(d^c + omega d^g)^2 per pixel, averaged over the components of ``gap``, ``(B, C, H, W)``."""
    if combine == "separate":
        return content.square() + omega * gap.square().mean(2)
    return (content[:, :, None] + omega * gap).square().mean(2)


def _check_combine(combine: str) -> None:
    if combine not in COMBINATIONS:
        raise B2GError(f"combine must be one of {', '.join(COMBINATIONS)}, not {combine!r}.")


def absolute_loss(
    blind: Tensor,
    visible: Tensor,
    noisy: Tensor,
    mask: Tensor,
    *,
    omega: float = 0.8,
    operator: str = "forward",
    combine: str = "component",
    stop_gradient: bool = True,
) -> Tensor:
    r"""The loss in absolute values, :math:`\sum_i (|d^c_i| + \omega |d^g_i|)^2_{\Omega_m}` (Eq. 3.5 and 3.6).

    Absolute values keep :math:`d^c = -\omega d^g \ne 0` from being a minimum. Under ``combine="sum"`` the
    absolute value is that of the summed components.
    """
    _check_combine(combine)
    visible = visible.detach() if stop_gradient else visible
    content = uniform_gap(blind, noisy, mask).abs()
    gap = _gap_components(visible, blind, operator, combine).abs()
    return masked_mean(_joined_squares(content, gap, omega, combine), mask)


def signed_loss(
    blind: Tensor,
    visible: Tensor,
    noisy: Tensor,
    mask: Tensor,
    *,
    omega: float = 0.8,
    operator: str = "forward",
    combine: str = "component",
    stop_gradient: bool = True,
    norm: str = "masked",
    target: str = "noisy",
) -> Tensor:
    r"""The gradient-regularised loss :math:`\|d^c + \omega d^g\|^2_{\Omega_m}` (Eq. 3.7), a scalar.

    The paper drops the absolute values of Eq. 3.6 by arguing that both differences are never negative; the
    chapter on the loss counts their signs.
    """
    _check_combine(combine)
    visible = visible.detach() if stop_gradient else visible
    content = uniform_gap(blind, noisy, mask, target)
    gap = _gap_components(visible, blind, operator, combine)
    return _norm(_joined_squares(content, gap, omega, combine), mask, norm)


def constrained_loss(
    blind: Tensor, visible: Tensor, noisy: Tensor, mask: Tensor, **readings
) -> tuple[Tensor, Tensor]:
    r"""The constrained form (Eq. 3.8): the objective of Eq. 3.7 and the size of its constraint, two scalars.

    The constraint :math:`d^c = 0` holds where the second is 0. ``readings`` are those of
    :func:`signed_loss`. Eq. 3.9 is its quadratic penalty: ``objective + gamma * violation``.
    """
    shared = {key: readings[key] for key in ("norm", "target") if key in readings}
    return signed_loss(blind, visible, noisy, mask, **readings), uniform_loss(blind, noisy, mask, **shared)


def b2g_loss(
    blind: Tensor, visible: Tensor, noisy: Tensor, mask: Tensor, *, gamma: float = 0.5, **readings
) -> Tensor:
    r"""The loss that is trained, :math:`\|d^c + \omega d^g\|^2 + \gamma \|d^c\|^2` (Eq. 3.9), a scalar.

    ``readings``: ``omega`` (0.8 for synthetic noise, 0.5 for real), ``operator``, ``combine``,
    ``stop_gradient``, ``norm``, ``target`` (see the module). The defaults are the readings that do least
    harm; the printed equation has ``stop_gradient=False, norm="all"``.

    With ``operator="identity"`` and a stopped gradient, :math:`d^c + \omega d^g` is :math:`1 - \omega`
    times Blind2Unblind's :math:`h + \beta f(y) - (1 + \beta) y` with :math:`\beta = \omega / (1 - \omega)`.
    """
    objective, violation = constrained_loss(blind, visible, noisy, mask, **readings)
    return objective + gamma * violation
