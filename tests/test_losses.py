import itertools

import numpy as np
import pytest
import torch
from oracles import gradient

from b2g.errors import B2GError
from b2g.losses import (
    COMBINATIONS,
    OPERATORS,
    absolute_loss,
    b2g_loss,
    constrained_loss,
    gradient_gap,
    gradient_magnitude,
    masked_mean,
    signed_loss,
    spatial_gradient,
    uniform_gap,
    uniform_loss,
)

READINGS = list(itertools.product(OPERATORS, COMBINATIONS))
NORMS = [("masked", "noisy"), ("masked", "hidden"), ("all", "noisy"), ("all", "hidden")]


def pictures(shape=(2, 3, 5, 6), seed=3):
    """blind, visible, noisy in float64 and a mask that hides about a third."""
    generator = torch.Generator().manual_seed(seed)
    blind, visible, noisy = torch.rand(3, *shape, generator=generator, dtype=torch.float64)
    mask = (torch.rand(shape, generator=generator) > 0.35).double()
    return blind, visible, noisy, mask


def oracle(
    blind, visible, noisy, mask, *, omega, operator, combine, norm="masked", target="noisy", absolute=False
):
    """Eq. 3.6 (``absolute``) or 3.7, entry by entry."""
    blind, visible, noisy, mask = (np.asarray(t) for t in (blind, visible, noisy, mask))
    grad_visible, grad_blind = gradient(visible, operator), gradient(blind, operator)
    total = count = 0
    for entry in np.ndindex(blind.shape):
        if norm == "masked" and mask[entry] == 1:
            continue
        count += 1
        content = blind[entry] - (noisy[entry] if target == "noisy" or mask[entry] == 0 else 0.0)
        gaps = [v[entry] - b[entry] for v, b in zip(grad_visible, grad_blind)]
        if combine == "sum":
            gaps = [sum(gaps)]
        if combine == "magnitude":
            gaps = [np.sqrt(sum(v[entry] ** 2 for v in grad_visible) + 1e-12)
                    - np.sqrt(sum(b[entry] ** 2 for b in grad_blind) + 1e-12)]  # fmt: skip
        if absolute:
            content, gaps = abs(content), [abs(gap) for gap in gaps]
        if combine == "separate":
            total += content**2 + omega * np.mean([gap**2 for gap in gaps])
        else:
            total += np.mean([(content + omega * gap) ** 2 for gap in gaps])
    return total / count


# ---- the spatial gradient ----


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("size", [(5, 6), (1, 4), (4, 1), (2, 2)])
def test_spatial_gradient_is_the_loop(operator, size, generator):
    image = torch.rand(2, 3, *size, generator=generator, dtype=torch.float64)
    found = spatial_gradient(image, operator)
    assert found.shape == (2, 3, 1 if operator == "identity" else 2, *size)
    assert np.allclose(found, np.stack(gradient(image.numpy(), operator), 2), rtol=0, atol=1e-14)


@pytest.mark.parametrize("operator", OPERATORS[:-1])
def test_every_operator_has_the_slope_of_a_plane(operator):
    rows, columns = torch.meshgrid(torch.arange(7.0), torch.arange(8.0), indexing="ij")
    across, down = spatial_gradient((0.25 * columns - 0.5 * rows)[None, None], operator)[0, 0]
    assert (across[1:-1, 1:-1] == 0.25).all() and (down[1:-1, 1:-1] == -0.5).all()


def test_forward_differences_fit_the_counts_of_equation_3_15(generator):
    height, width = 7, 9
    components = spatial_gradient(torch.rand(1, 1, height, width, generator=generator), "forward")[0, 0]
    assert components.count_nonzero() == height * (width - 1) + (height - 1) * width
    assert components[0, :, -1].abs().max() == 0 and components[1, -1].abs().max() == 0


def test_gradient_magnitude_is_the_length_and_differentiable_where_flat(generator):
    image = torch.rand(1, 2, 5, 5, generator=generator, dtype=torch.float64)
    across, down = gradient(image.numpy(), "central")
    assert np.allclose(gradient_magnitude(image, "central"), np.hypot(across, down), atol=1e-6)
    flat = torch.full((1, 1, 4, 4), 0.5, requires_grad=True)
    gradient_magnitude(flat).sum().backward()
    assert torch.isfinite(flat.grad).all()


def test_gradient_gap_is_equation_3_4(generator):
    blind, visible, *_ = pictures()
    expected = np.stack(gradient(visible.numpy(), "forward"), 2) - np.stack(
        gradient(blind.numpy(), "forward"), 2
    )
    assert np.allclose(gradient_gap(visible, blind), expected, rtol=0, atol=1e-14)


# ---- Eq. 1.1 ----


@pytest.mark.parametrize("norm, target", NORMS)
def test_uniform_loss_is_equation_1_1(norm, target):
    blind, visible, noisy, mask = pictures()
    expected = oracle(
        blind, visible, noisy, mask, omega=0, operator="forward", combine="sum", norm=norm, target=target
    )
    assert float(uniform_loss(blind, noisy, mask, norm, target)) == pytest.approx(expected, rel=1e-13)


def test_the_targets_agree_on_masked_pixels_only():
    blind, _, noisy, mask = pictures()
    plain, hidden = uniform_gap(blind, noisy, mask), uniform_gap(blind, noisy, mask, "hidden")
    assert torch.equal(plain[mask == 0], hidden[mask == 0]) and torch.equal(
        hidden[mask == 1], blind[mask == 1]
    )
    assert uniform_loss(blind, noisy, mask) == uniform_loss(blind, noisy, mask, target="hidden")
    assert uniform_loss(blind, noisy, mask, "all") != uniform_loss(blind, noisy, mask, "all", "hidden")


def test_masked_mean_counts_masked_pixels_only():
    values, mask = torch.tensor([1.0, 2.0, 4.0, 100.0]), torch.tensor([0.0, 0.0, 0.0, 1.0])
    assert float(masked_mean(values, mask)) == pytest.approx(7 / 3)


def test_visible_answers_get_no_gradient_under_the_masked_norm():
    blind, _, noisy, mask = pictures()
    blind.requires_grad_()
    (slope,) = torch.autograd.grad(uniform_loss(blind, noisy, mask), blind)
    assert (slope[mask == 1] == 0).all() and (slope[mask == 0] != 0).all()
    assert torch.allclose(slope[mask == 0], (2 * (blind - noisy) / (1 - mask).sum())[mask == 0])
    (slope,) = torch.autograd.grad(uniform_loss(blind, noisy, mask, "all"), blind)
    assert (slope[mask == 1] != 0).all()


@pytest.mark.parametrize("loss", [signed_loss, absolute_loss, b2g_loss])
def test_the_gradient_term_reaches_no_further_than_its_neighbours(loss):
    blind, visible, noisy, _ = pictures((1, 1, 9, 9))
    mask = torch.ones(1, 1, 9, 9, dtype=torch.float64)
    mask[..., 4, 4] = 0
    blind.requires_grad_()
    (slope,) = torch.autograd.grad(loss(blind, visible, noisy, mask, operator="sobel"), blind)
    assert set(map(tuple, slope[0, 0].nonzero().tolist())) <= set(itertools.product((3, 4, 5), repeat=2))
    assert slope[0, 0, 3, 3] != 0


@pytest.mark.parametrize("norm", ["masked", "all"])
def test_a_mask_that_hides_nothing_gives_a_finite_loss(norm):
    blind, visible, noisy, _ = pictures()
    blind.requires_grad_()
    loss = b2g_loss(blind, visible, noisy, torch.ones_like(blind), norm=norm)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(blind.grad).all() and (loss == 0) == (norm == "masked")


# ---- Eq. 3.5 to 3.9 ----


@pytest.mark.parametrize("operator, combine", READINGS)
def test_absolute_loss_is_equation_3_6(operator, combine):
    given = pictures()
    expected = oracle(
        given[0], given[1], *given[2:], omega=0.8, operator=operator, combine=combine, absolute=True
    )
    assert float(absolute_loss(*given, omega=0.8, operator=operator, combine=combine)) == pytest.approx(
        expected, rel=1e-12
    )


@pytest.mark.parametrize("norm, target", NORMS)
@pytest.mark.parametrize("operator, combine", READINGS)
def test_signed_constrained_and_trained_loss_are_equations_3_7_to_3_9(operator, combine, norm, target):
    given = pictures()
    readings = dict(omega=0.7, operator=operator, combine=combine, norm=norm, target=target)
    objective = oracle(*given, **readings)
    violation = float(uniform_loss(given[0], *given[2:], norm, target))
    assert float(signed_loss(*given, **readings)) == pytest.approx(objective, rel=1e-12)
    assert [float(part) for part in constrained_loss(*given, **readings)] == pytest.approx(
        [objective, violation]
    )
    assert float(b2g_loss(*given, gamma=0.3, **readings)) == pytest.approx(
        objective + 0.3 * violation, rel=1e-12
    )


def test_the_defaults_are_the_papers_weights():
    given = pictures()
    assert b2g_loss(*given) == b2g_loss(*given, omega=0.8, gamma=0.5, operator="forward", combine="component",
                                        stop_gradient=True, norm="masked", target="noisy")  # fmt: skip


@pytest.mark.parametrize("operator, combine", READINGS)
def test_absolute_values_never_lower_the_loss(operator, combine):
    """(|a| + w|b|)^2 >= (a + w b)^2, with equality exactly where the signs agree."""
    readings = dict(omega=0.8, operator=operator, combine=combine)
    for seed in range(5):
        given = pictures(seed=seed)
        difference = float(absolute_loss(*given, **readings) - signed_loss(*given, **readings))
        assert abs(difference) < 1e-14 if combine == "separate" else difference > 1e-4
    # Where the answer is above y and f(y) rises faster than f(Omega(y)), no sign differs.
    ramp = torch.linspace(0, 0.5, 6, dtype=torch.float64).expand(1, 1, 6, 6) + torch.linspace(
        0, 0.4, 6, dtype=torch.float64
    ).view(6, 1)
    same = (ramp, 2 * ramp, ramp - 0.1, torch.zeros_like(ramp))
    assert float(absolute_loss(*same, **readings)) == pytest.approx(
        float(signed_loss(*same, **readings)), rel=1e-12
    )


def test_the_signed_loss_vanishes_on_the_minimum_that_absolute_values_exclude():
    blind, _, noisy, mask = pictures()
    omega = 0.8
    visible = blind - (blind - noisy) / omega  # with no gradient operator this is d^c = -omega d^g, not 0
    shared = dict(omega=omega, operator="identity")
    content = float(uniform_loss(blind, noisy, mask))
    assert float(signed_loss(blind, visible, noisy, mask, **shared)) == pytest.approx(0, abs=1e-30)
    assert float(absolute_loss(blind, visible, noisy, mask, **shared)) == pytest.approx(4 * content)
    assert float(b2g_loss(blind, visible, noisy, mask, gamma=0.5, **shared)) == pytest.approx(0.5 * content)


@pytest.mark.parametrize("operator, combine", READINGS)
def test_without_omega_every_loss_is_the_uniform_one(operator, combine):
    given = pictures()
    uniform, readings = (
        float(uniform_loss(given[0], *given[2:])),
        dict(omega=0.0, operator=operator, combine=combine),
    )
    assert float(absolute_loss(*given, **readings)) == pytest.approx(uniform, rel=1e-14)
    assert float(signed_loss(*given, **readings)) == pytest.approx(uniform, rel=1e-14)
    assert float(b2g_loss(*given, gamma=0.5, **readings)) == pytest.approx(1.5 * uniform, rel=1e-14)


@pytest.mark.parametrize("operator, combine", READINGS)
def test_a_large_omega_leaves_the_gradient_gap_alone(operator, combine):
    blind, visible, noisy, mask = pictures()
    omega = 1e8
    limit = oracle(
        blind, visible, blind, mask, omega=1.0, operator=operator, combine=combine
    )  # y = blind: no d^c
    scale = omega if combine == "separate" else omega**2
    found = (
        float(signed_loss(blind, visible, noisy, mask, omega=omega, operator=operator, combine=combine))
        / scale
    )
    assert found == pytest.approx(limit, rel=1e-6)


@pytest.mark.parametrize("omega", [0.2, 0.5, 0.8])
def test_with_no_gradient_operator_it_is_blind2unblind(omega):
    """d^c + omega d^g = (1 - omega) (h + beta f(y) - (1 + beta) y), beta = omega / (1 - omega)."""
    blind, visible, noisy, mask = pictures()
    beta = omega / (1 - omega)
    revisible = (blind + beta * visible - (1 + beta) * noisy).square()
    expected = (1 - omega) ** 2 * float(masked_mean(revisible, mask))
    found = signed_loss(blind, visible, noisy, mask, omega=omega, operator="identity")
    assert float(found) == pytest.approx(expected, rel=1e-12)
    blind.requires_grad_()
    (slope,) = torch.autograd.grad(
        signed_loss(blind, visible, noisy, mask, omega=omega, operator="identity", norm="all"), blind
    )
    by_hand = 2 * (1 - omega) ** 2 * (blind + beta * visible - (1 + beta) * noisy) / blind.numel()
    assert torch.allclose(slope, by_hand, rtol=1e-12)


def test_a_constant_offset_of_the_visible_answer_is_invisible_to_its_gradient():
    blind, visible, noisy, mask = pictures()
    for operator in OPERATORS:
        losses = [float(b2g_loss(blind, visible + c, noisy, mask, operator=operator)) for c in (0, 0.3)]
        assert (abs(losses[0] - losses[1]) < 1e-14) == (operator != "identity")


# ---- derivatives ----


@pytest.mark.parametrize("operator, combine", READINGS)
def test_gradcheck_in_every_reading(operator, combine):
    blind, visible, noisy, mask = pictures((1, 2, 4, 4))
    blind.requires_grad_(), visible.requires_grad_()
    shared = dict(omega=0.8, operator=operator, combine=combine, stop_gradient=False)
    check = lambda loss: torch.autograd.gradcheck(loss, (blind, visible), fast_mode=True)  # noqa: E731
    assert check(lambda b, v: absolute_loss(b, v, noisy, mask, **shared))
    for norm, target in NORMS:
        assert check(lambda b, v: b2g_loss(b, v, noisy, mask, norm=norm, target=target, **shared))
        assert torch.autograd.gradcheck(lambda b: uniform_loss(b, noisy, mask, norm, target), blind)


@pytest.mark.parametrize("operator, combine", READINGS)
@pytest.mark.parametrize("loss", [absolute_loss, signed_loss, b2g_loss])
def test_a_stopped_gradient_stops(loss, operator, combine):
    blind, visible, noisy, mask = pictures()
    blind.requires_grad_(), visible.requires_grad_()
    slopes = {}
    for stop in (True, False):
        value = loss(blind, visible, noisy, mask, operator=operator, combine=combine, stop_gradient=stop)
        slopes[stop] = torch.autograd.grad(value, (blind, visible), allow_unused=True)
    assert slopes[True][1] is None and slopes[False][1].abs().max() > 0
    assert torch.equal(
        slopes[True][0], slopes[False][0]
    )  # the value and the slope at f(Omega(y)) are the same


def test_nothing_is_modified():
    given = pictures()
    copies = [tensor.clone() for tensor in given]
    for loss in (absolute_loss, signed_loss, b2g_loss):
        loss(*given)
    assert all(torch.equal(tensor, copy) for tensor, copy in zip(given, copies))


@pytest.mark.parametrize("readings, sentence", [
    (dict(operator="laplace"), "operator must be one of forward, .*, not 'laplace'"),
    (dict(combine="product"), "combine must be one of component, .*, not 'product'"),
    (dict(norm="visible"), "norm must be 'masked' or 'all', not 'visible'"),
    (dict(target="clean"), "target must be 'noisy' or 'hidden', not 'clean'"),
])  # fmt: skip
def test_an_unknown_reading_is_refused_by_name(readings, sentence):
    with pytest.raises(B2GError, match=sentence):
        b2g_loss(*pictures(), **readings)
    if set(readings) <= {"operator", "combine"}:
        with pytest.raises(B2GError, match=sentence):
            absolute_loss(*pictures(), **readings)
