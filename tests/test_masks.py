import math

import numpy as np
import pytest
import torch
from oracles import assert_mean, assert_rate, gradient

from b2g.errors import B2GError
from b2g.masks import (
    bernoulli_mask,
    detail_distance,
    detail_index,
    dual_mask,
    expected_detail_fraction,
    flat_masked_rate,
    gradient_index,
    grid_masks,
    masked_fraction,
    ring_fill,
    split_by_detail,
    uniform_pixel_mask,
)

SHAPE = (2, 3, 200, 220)
ENTRIES = math.prod(SHAPE)


def twin(seed=1):
    return torch.Generator().manual_seed(seed)


def random_detail(share, shape=SHAPE, seed=5):
    return (torch.rand(shape, generator=twin(seed)) < share).float()


# ---- Bernoulli masks ----


@pytest.mark.parametrize("masked", [0.1, 0.25, 0.3, 0.75])
def test_bernoulli_hides_the_stated_share(masked, generator):
    mask = bernoulli_mask(SHAPE, masked, generator=generator)
    assert mask.shape == SHAPE and mask.dtype == torch.float32
    assert set(mask.unique().tolist()) == {0.0, 1.0}
    assert_rate((mask == 0).sum(), ENTRIES, masked, [masked - 0.02, masked + 0.02])


def test_bernoulli_entries_are_independent_in_every_direction(generator):
    hidden = bernoulli_mask(SHAPE, 0.25, generator=generator) == 0
    pairs = {
        "channels 0, 1": hidden[:, 0] & hidden[:, 1],
        "channels 0, 2": hidden[:, 0] & hidden[:, 2],
        "pictures": hidden[0] & hidden[1],
        "across": hidden[..., :-1] & hidden[..., 1:],
        "down": hidden[..., :-1, :] & hidden[..., 1:, :],
    }
    for both in pairs.values():  # 1/16 if independent, 1/4 if the two were one draw
        assert_rate(both.sum(), both.numel(), 0.25**2, [0.25, 0.04, 0.09])


@pytest.mark.parametrize("draw", [bernoulli_mask, uniform_pixel_mask])
def test_channels_share_one_draw_on_request(draw, generator):
    mask = draw(SHAPE, 0.25, generator=generator, per_channel=False)
    assert torch.equal(mask[:, 0], mask[:, 1]) and torch.equal(mask[:, 0], mask[:, 2])
    assert not torch.equal(mask[0], mask[1])
    assert_rate((mask[:, 0] == 0).sum(), mask[:, 0].numel(), 0.25, [0.21, 0.29])


@pytest.mark.parametrize("draw", [bernoulli_mask, uniform_pixel_mask])
def test_nothing_and_everything_can_be_hidden(draw, generator):
    assert draw((1, 2, 7, 5), 0.0, generator=generator).min() == 1
    assert draw((1, 2, 7, 5), 1.0, generator=generator).max() == 0


@pytest.mark.parametrize("draw", [bernoulli_mask, uniform_pixel_mask])
def test_masks_come_from_their_generator_alone(draw):
    state = torch.get_rng_state()
    first, again, other = (draw((1, 3, 20, 20), generator=twin(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("masked", [-0.01, 1.01, float("nan")])
def test_a_share_outside_0_1_is_refused(masked, generator):
    for draw in (bernoulli_mask, uniform_pixel_mask):
        with pytest.raises(B2GError, match="masked is a fraction"):
            draw((1, 1, 4, 4), masked, generator=generator)
    with pytest.raises(B2GError, match="masked is a fraction"):
        dual_mask(torch.zeros(1, 1, 4, 4), masked, generator=generator)
    with pytest.raises(B2GError, match="detail_masked is a fraction"):
        dual_mask(torch.zeros(1, 1, 4, 4), 0.25, masked, generator=generator)


# ---- uniform pixel selection and grids ----


@pytest.mark.parametrize("masked", [0.25, 1 / 3, 0.07])
@pytest.mark.parametrize("size", [(16, 16), (17, 23)])
def test_uniform_selection_hides_exactly_the_count(size, masked, generator):
    mask = uniform_pixel_mask((2, 3, *size), masked, generator=generator)
    assert set(mask.unique().tolist()) == {0.0, 1.0}
    assert ((mask == 0).sum((-2, -1)) == round(masked * size[0] * size[1])).all()


def test_uniform_selection_is_uniform_over_pixels_and_pairs(generator):
    draws = 30_000
    hidden = uniform_pixel_mask((draws, 1, 5, 5), 0.25, generator=generator).flatten(1) == 0  # 6 of 25
    for pixel in range(25):
        assert_rate(hidden[:, pixel].sum(), draws, 6 / 25, [0.21, 0.27])
    # Without replacement, so 6/25 * 5/24, one in twenty: independent pixels would give (6/25)^2 = 0.0576.
    together = hidden.float().T @ hidden.float()
    together.fill_diagonal_(0)
    # Every draw holds 6 * 5 ordered pairs exactly, which independence would reach on average only.
    assert together.sum() == draws * 30
    assert (together[~torch.eye(25, dtype=bool)] / draws - 0.05).abs().max() < 5 * math.sqrt(
        0.05 * 0.95 / draws
    )


@pytest.mark.parametrize("size, cell", [((8, 8), 4), ((7, 10), 4), ((9, 5), 3), ((3, 3), 2)])
def test_grid_masks_hide_every_pixel_exactly_once(size, cell):
    masks = grid_masks(*size, cell)
    assert masks.shape == (cell**2, 1, *size)
    assert torch.equal((1 - masks).sum(0), torch.ones(1, *size))
    for k, mask in enumerate(masks):
        hidden = {(i, j) for i in range(size[0]) for j in range(size[1]) if mask[0, i, j] == 0}
        assert hidden == {
            (i, j) for i in range(k // cell, size[0], cell) for j in range(k % cell, size[1], cell)
        }


def test_a_grid_needs_a_visible_pixel():
    with pytest.raises(B2GError, match="cell must be at least 2"):
        grid_masks(8, 8, 1)


# ---- the index of detail (Eq. 3.1) ----


@pytest.mark.parametrize("over", ["channel", "max", "euclidean"])
def test_detail_distance_is_equation_3_1(over, generator):
    noisy, estimate = torch.rand(2, 2, 3, 4, 5, generator=generator, dtype=torch.float64)
    expected = np.zeros(noisy.shape)
    for b in range(2):
        for i in range(4):
            for j in range(5):
                each = [
                    math.sqrt((float(noisy[b, c, i, j]) - float(estimate[b, c, i, j])) ** 2) for c in range(3)
                ]
                whole = {"max": max(each), "euclidean": math.sqrt(sum(d * d for d in each))}
                expected[b, :, i, j] = each if over == "channel" else whole[over]
    assert np.allclose(detail_distance(noisy, estimate, over), expected, rtol=0, atol=1e-14)


def test_one_channel_has_one_reading(generator):
    noisy, estimate = torch.rand(2, 1, 1, 6, 6, generator=generator)
    channel, largest, euclidean = (
        detail_distance(noisy, estimate, o) for o in ("channel", "max", "euclidean")
    )
    assert torch.equal(channel, largest) and torch.allclose(channel, euclidean, atol=1e-7)


def test_detail_distance_refuses_another_reading():
    with pytest.raises(B2GError, match="'channel', 'max' or 'euclidean', not 'mean'"):
        detail_distance(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2), "mean")


def test_the_threshold_is_on_0_255_and_belongs_to_detail():
    distance = torch.tensor([39.999, 40.0, 40.001, 0.0, 255.0], dtype=torch.float64) / 255
    assert detail_index(distance, 40).tolist() == [0, 1, 1, 0, 1]
    assert detail_index(distance, 255).tolist() == [0, 0, 0, 0, 1]


@pytest.mark.parametrize("fraction", [0.1, 0.25, 1.0])
def test_gradient_index_marks_the_largest_gradients(fraction, generator):
    estimate = torch.rand(2, 3, 9, 11, generator=generator, dtype=torch.float64)
    across, down = gradient(estimate.numpy(), "forward")
    magnitude = np.hypot(across, down)
    index = gradient_index(estimate, fraction)
    count = round(fraction * 99)
    for b in range(2):
        for c in range(3):
            order = np.argsort(-magnitude[b, c], axis=None)[:count]
            marked = set(np.flatnonzero(index[b, c].numpy()))
            # The last pixel's gradient is 0 by the replicated border: no detail, whatever the fraction.
            assert marked == {int(p) for p in order if magnitude[b, c].flat[p] > 0}


def test_gradient_index_marks_an_edge_and_no_flat_ground():
    estimate = torch.zeros(1, 1, 10, 10)
    estimate[..., 5:] = 1.0
    index = gradient_index(estimate, 0.1)
    assert index[..., 4].min() == 1 and index.sum() == 10
    # On a picture with less detail than the fraction only what has a gradient is detail.
    assert gradient_index(estimate, 0.5).sum() == 10
    assert gradient_index(torch.full((1, 1, 8, 8), 0.3), 0.1).sum() == 0


# ---- splitting and the dual mask (Eq. 3.2, 3.3) ----


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_split_is_equation_3_2_on_sets(layers, generator):
    draw = lambda: (torch.rand(1, 1, 6, 7, generator=generator) < 0.4).float()  # noqa: E731
    masked_set, details = draw(), [draw() for _ in range(layers)]
    as_set = lambda tensor: {int(p) for p in tensor.flatten().nonzero()}  # noqa: E731
    everything = set(range(42))
    on_detail = set().union(*(as_set(index) & as_set(masked_set) for index in details))
    on_flat = set().union(*((everything - as_set(index)) & as_set(masked_set) for index in details))
    found = split_by_detail(masked_set, *details)
    assert (as_set(found[0]), as_set(found[1])) == (on_detail, on_flat)
    assert on_detail | on_flat == as_set(masked_set) and (layers > 1 or not on_detail & on_flat)
    assert all(set(part.unique().tolist()) <= {0.0, 1.0} for part in found)


def test_split_needs_an_index():
    with pytest.raises(B2GError, match="at least one index"):
        split_by_detail(torch.ones(1, 1, 2, 2))


@pytest.mark.parametrize("detail, masked, detail_masked, rate", [
    (0.0, 0.25, 0.0, 0.25), (0.5, 0.25, 0.0, 0.5), (0.1, 0.25, 0.125, 0.2375 / 0.9), (0.5, 0.25, 0.25, 0.25),
    (0.75, 0.25, 0.0, 1.0), (0.9, 0.25, 0.0, 1.0), (0.5, 0.25, 0.8, 0.0), (1.0, 0.25, 0.0, 1.0),
])  # fmt: skip
def test_flat_rate_reaches_the_total_or_its_bound(detail, masked, detail_masked, rate):
    assert float(flat_masked_rate(detail, masked, detail_masked)) == pytest.approx(rate, abs=1e-6)


@pytest.mark.parametrize("share", [0.1, 0.4, 0.7])
@pytest.mark.parametrize("detail_masked", [0.0, 0.125, 0.3])
def test_dual_mask_keeps_the_rates_of_equation_3_3(share, detail_masked, generator):
    detail = random_detail(share)
    mask = dual_mask(detail, 0.25, detail_masked, generator=generator)
    assert mask.shape == SHAPE and set(mask.unique().tolist()) == {0.0, 1.0}
    hidden, on_detail = mask == 0, detail == 1
    flat_rate = (0.25 - share * detail_masked) / (1 - share)
    assert_rate(hidden.sum(), ENTRIES, 0.25, [0.24, 0.26, 0.75])
    assert_rate(
        hidden[~on_detail].sum(), int((~on_detail).sum()), flat_rate, [flat_rate - 0.03, flat_rate + 0.03]
    )
    if detail_masked:
        assert_rate(hidden[on_detail].sum(), int(on_detail.sum()), detail_masked, [detail_masked - 0.03])
    else:
        assert not hidden[on_detail].any()


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("detail_masked", [0.0, 0.1, 0.25])
def test_dual_mask_only_thins_detail_and_only_adds_flat(detail_masked, per_channel):
    """B^- is a part of B_m on detail, and B_m on flat ground stays: Eq. 3.3 moves, it does not redraw."""
    detail = random_detail(0.3)
    plain = 1 - bernoulli_mask(SHAPE, 0.25, generator=twin(), per_channel=per_channel)
    dual = 1 - dual_mask(detail, 0.25, detail_masked, generator=twin(), per_channel=per_channel)
    on_detail, on_flat = split_by_detail(plain, detail)
    assert (dual * detail <= on_detail).all() and (dual * (1 - detail) >= on_flat).all()
    added = dual * (1 - detail) - on_flat
    if detail_masked == 0.25:
        assert added.sum() <= 2  # the flat rate is 1/4 again, to rounding
    else:
        assert added.sum() > 0.01 * ENTRIES and on_detail.sum() - (dual * detail).sum() > 0.01 * ENTRIES


def test_the_masked_rate_on_detail_gives_the_bernoulli_mask_back():
    detail = torch.zeros(SHAPE)
    detail[..., ::2, :] = 1  # exactly half, so that the flat rate is exactly 1/4
    assert torch.equal(
        dual_mask(detail, 0.25, 0.25, generator=twin()), bernoulli_mask(SHAPE, 0.25, generator=twin())
    )


@pytest.mark.parametrize("extreme", [0.0, 1.0])
def test_a_picture_all_flat_or_all_detail(extreme, generator):
    mask = dual_mask(torch.full(SHAPE, extreme), 0.25, 0.0, generator=generator)
    if extreme:
        assert mask.min() == 1
    else:
        assert_rate((mask == 0).sum(), ENTRIES, 0.25, [0.24, 0.26])


def test_each_picture_and_channel_keeps_its_own_total(generator):
    detail = torch.zeros(2, 2, 300, 300)
    detail[0, 0, :, :150], detail[1, 1, :, :60] = 1, 1
    hidden = dual_mask(detail, 0.25, 0.0, generator=generator) == 0
    for b in range(2):
        for c in range(2):
            assert_rate(hidden[b, c].sum(), 90_000, 0.25, [0.23, 0.27])


@pytest.mark.parametrize("sigma, over", [(25, "channel"), (50, "channel"), (25, "max"), (50, "max")])
def test_the_quarter_is_reached_unless_noise_makes_too_much_detail(sigma, over, generator):
    """With a perfect estimate the share of detail is erfc; over RGB at sigma 50 it caps the mask."""
    noise = torch.randn(1, 3, 300, 300, generator=generator) * sigma / 255
    detail = detail_index(detail_distance(noise, torch.zeros_like(noise), over), 40)
    one = math.erfc(40 / sigma / math.sqrt(2))
    share = one if over == "channel" else 1 - (1 - one) ** 3
    trials = detail.numel() if over == "channel" else detail[:, 0].numel()
    marked = detail.sum() if over == "channel" else detail[:, 0].sum()
    assert_rate(marked, trials, share, [share - 0.03, share + 0.03])
    hidden = dual_mask(detail, 0.25, 0.0, generator=generator) == 0
    if share < 0.75:
        assert_rate(hidden.sum(), hidden.numel(), 0.25, [0.24, 0.26])
    else:
        assert (sigma, over) == (50, "max")
        assert torch.equal(hidden, detail == 0)
        assert_rate(hidden[:, 0].sum(), trials, (1 - one) ** 3, [0.25, 0.17])


@pytest.mark.parametrize("sigma, threshold", [(25, 40), (50, 40), (75, 25)])
def test_expected_detail_fraction_is_what_noise_gives(sigma, threshold, generator):
    noise = torch.randn(1, 1, 400, 400, generator=generator, dtype=torch.float64) * sigma / 255
    marked = detail_index(detail_distance(noise, torch.zeros_like(noise)), threshold)
    expected = expected_detail_fraction(sigma, threshold)
    assert_mean(marked, expected, unlike=expected + 0.02)


@pytest.mark.parametrize("sigma", [0, -1])
def test_expected_detail_fraction_needs_noise(sigma):
    with pytest.raises(B2GError, match="sigma is a noise level"):
        expected_detail_fraction(sigma)


def test_masked_fraction_counts_the_hidden():
    mask = torch.ones(1, 2, 4, 5)
    mask[0, 0, :2] = 0
    assert masked_fraction(mask) == 0.25


# ---- the ring fill of Noise2Self and Blind2Unblind ----


def test_ring_fill_is_the_weighted_mean_of_the_neighbours(generator):
    """Against a loop; the border is mirrored, so row -1 is row 1."""
    picture = torch.rand(1, 2, 5, 6, generator=generator, dtype=torch.float64)
    for mask in grid_masks(5, 6).double():
        filled = ring_fill(picture, mask[None])
        for c, y, x in np.ndindex(2, 5, 6):
            expected = float(picture[0, c, y, x])
            if mask[0, y, x] == 0:
                expected = 0.0
                for down, across in np.ndindex(3, 3):
                    row, column = abs(y + down - 1), abs(x + across - 1)
                    row, column = 4 - abs(4 - row), 5 - abs(5 - column)
                    weight = {0: 0.0, 1: 1.0, 2: 0.5}[abs(down - 1) + abs(across - 1)]
                    expected += weight / 6 * float(picture[0, c, row, column])
            assert float(filled[0, c, y, x]) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("cell", [2, 4])
def test_a_ring_filled_picture_knows_no_hidden_pixel(cell, generator):
    """All masks at once: changing the hidden pixels of a mask leaves its filled picture as it was."""
    picture = torch.rand(1, 3, 16, 17, generator=generator)
    masks = grid_masks(16, 17, cell)
    for mask in masks:
        other = picture + (1 - mask) * torch.rand(1, 3, 16, 17, generator=generator)
        assert torch.equal(ring_fill(picture, mask[None]), ring_fill(other, mask[None]))
    assert ring_fill(picture, masks).shape == (cell**2, 3, 16, 17)
    assert torch.equal(ring_fill(picture, torch.ones(1, 1, 16, 17)), picture)
