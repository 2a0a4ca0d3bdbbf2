"""Block matching, Theta, aggregation, the Anscombe transform: against loops in float64 and closed forms."""

import numpy as np
import pytest
import torch
from oracles import assert_mean
from scipy import integrate, optimize, special

import b2g
import b2g.groups as grouping
import b2g.patches as patching
from b2g.anscombe import anscombe, estimate_photons, expected_anscombe, inverse_anscombe
from b2g.errors import B2GError
from b2g.groups import find_groups, group_size, reference_positions
from b2g.patches import combinations, combine, fold, patch_sums, spread, unfold, weights


def patch_of(picture, position, side):
    """The patch at a position ``row * across + column`` of a NumPy picture (H, W) or (H, W, C)."""
    row, column = divmod(int(position), picture.shape[1] - side + 1)
    return picture[row : row + side, column : column + side]


# ---- matching ----


@pytest.mark.parametrize("shape, patch, window, stride, wanted", [
    ((23, 31), 4, 9, 3, 7), ((40, 37), 5, 13, 4, 20), ((16, 16), 6, 65, 3, 64), ((60, 17), 3, 5, 1, 9),
    ((16, 30), 16, 37, 4, 12), ((16, 16), 16, 37, 4, 12), ((21, 33), 2, 11, 9, 5)])  # fmt: skip
def test_matching_finds_what_a_loop_finds(shape, patch, window, stride, wanted):
    """The distances of the members found are the least of the window; the reference is one of them."""
    guide = np.random.RandomState(0).rand(*shape)
    groups = find_groups(torch.from_numpy(guide).float(), patch, window, stride, wanted)
    rows, columns = (reference_positions(side, patch, stride) for side in shape)
    across, reach = shape[1] - patch + 1, window // 2
    count = group_size(shape, patch, window, wanted)
    assert groups.index.shape == (len(rows), len(columns), count)
    for i, y in enumerate(rows):
        for j, x in enumerate(columns):
            own = guide[y : y + patch, x : x + patch]
            near = {
                v * across + u: ((guide[v : v + patch, u : u + patch] - own) ** 2).sum()
                for v in range(max(0, y - reach), min(shape[0] - patch, y + reach) + 1)
                for u in range(max(0, x - reach), min(shape[1] - patch, x + reach) + 1)
            }
            found = groups.index[i, j].tolist()
            assert y * across + x in found and len(set(found)) == count and set(found) <= set(near)
            distances = sorted(near[position] for position in found)
            np.testing.assert_allclose(distances, sorted(near.values())[:count], atol=2e-5)
            first, last = groups.spans[i]
            assert first <= min(found) // across and max(found) // across <= last


def test_a_reference_stays_among_its_doubles():
    """On a flat picture all distances are 0; each group still holds its reference, and no position twice."""
    groups = find_groups(torch.full((30, 30), 0.7), 5, 15, 3, 10)
    rows = torch.tensor(reference_positions(30, 5, 3))
    own = rows[:, None] * 26 + rows
    assert (groups.index == own[..., None]).sum(dim=2).eq(1).all()
    assert all(len(set(group.tolist())) == 10 for group in groups.index.flatten(0, 1))


@pytest.mark.parametrize("length, patch, stride, expected", [
    (16, 6, 3, [0, 3, 6, 9, 10]), (16, 6, 5, [0, 5, 10]), (16, 16, 4, [0]), (17, 16, 4, [0, 1]),
    (9, 3, 50, [0, 3, 6])])
def test_reference_patches_reach_every_pixel(length, patch, stride, expected):
    assert reference_positions(length, patch, stride) == expected
    assert {pixel for start in expected for pixel in range(start, start + patch)} == set(range(length))


@pytest.mark.parametrize("tile", [1, 3, 16])
def test_the_size_of_a_tile_changes_nothing(tile, monkeypatch, generator):
    guide = torch.rand(37, 41, generator=generator)
    expected = find_groups(guide, 4, 11, 3, 8).index.sort(dim=2).values
    monkeypatch.setattr(grouping, "_TILE", tile)
    assert torch.equal(find_groups(guide, 4, 11, 3, 8).index.sort(dim=2).values, expected)


# ---- Theta ----


def risk_of(theta, guide, noise, ridge):
    """The quadratic risk of :func:`combinations`, entry by entry."""
    total = ((theta @ guide - guide) ** 2).sum() + 2 * (np.diag(theta) * (noise - ridge)).sum()
    return total + sum(theta[i, j] ** 2 * ridge[j] for i in range(len(theta)) for j in range(len(theta)))


CASES = {  # noise, ridge of a group of 6
    "second step": (np.full(6, 0.3), np.full(6, 0.3)),
    "SURE with extra noise": (np.full(6, 0.315), np.full(6, 0.015)),
    "Noisier2Noise": (np.full(6, 0.375), np.full(6, 0.075)),
    "own variance": (np.linspace(0.1, 0.9, 6), np.linspace(0.1, 0.9, 6)),
    "own variance, SURE": (1.05 * np.linspace(0.1, 0.9, 6), 0.05 * np.linspace(0.1, 0.9, 6)),
}  # fmt: skip


@pytest.mark.parametrize("noise, ridge", CASES.values(), ids=CASES)
def test_theta_is_the_closed_form_and_the_minimum(noise, ridge):
    random = np.random.RandomState(3)
    guide = random.rand(6, 10) + 5 * random.rand(10)
    found = combinations(*(torch.from_numpy(v)[None] for v in (guide, noise, ridge)))[0].numpy()
    inverse, ones = np.linalg.inv(guide @ guide.T + np.diag(ridge)), np.ones(6)
    projected = inverse - np.outer(inverse @ ones, ones @ inverse) / (ones @ inverse @ ones)
    np.testing.assert_allclose(found, np.eye(6) - np.diag(noise) @ projected, atol=1e-8)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-10)
    least = risk_of(found, guide, noise, ridge)
    free = lambda v: np.c_[v.reshape(6, 5), 1 - v.reshape(6, 5).sum(axis=1)]  # noqa: E731
    search = lambda v: risk_of(free(v), guide, noise, ridge)  # noqa: E731
    searched = optimize.minimize(search, np.full(30, 1 / 6), tol=1e-9)
    assert searched.fun == pytest.approx(least, abs=1e-6)
    for scale in (1e-3, 1e-1):  # every way that keeps the rows' sums leads uphill
        for _ in range(50):
            step = random.standard_normal((6, 6))
            step -= step.mean(axis=1, keepdims=True)
            assert risk_of(found + scale * step, guide, noise, ridge) > least


def test_the_first_risk_is_unbiased():
    """SURE: the risk's mean over the noise is the error of Theta Y, less what Theta has no part in."""
    random = np.random.RandomState(5)
    clean, theta, sigma = random.rand(4, 30), random.rand(4, 4), 0.4
    differences = []
    for _ in range(4000):
        noisy = clean + sigma * random.standard_normal(clean.shape)
        variance = np.full(4, 30 * sigma**2)
        sure = risk_of(theta, noisy, variance, np.zeros(4)) - variance.sum()
        differences.append(sure - ((theta @ noisy - clean) ** 2).sum())
    assert_mean(differences, 0, unlike=2.0)


@pytest.mark.parametrize("contrast, noise", [
    (0.0, 1e-12), (1e-3, 1e-12), (1.0, 1e-12), (1.0, 1e-4), (100.0, 1e-3)])
def test_theta_stays_sound_where_patches_are_doubles_and_noise_is_faint(contrast, noise):
    """Float32 and groups of rank one: rows still sum to one, nothing blows up."""
    edge = torch.zeros(3, 64, 108)
    edge[:, ::2, 54:] = contrast
    theta = combinations(edge + 0.5, *torch.full((2, 3, 64), noise))
    assert torch.isfinite(theta).all()
    assert (theta.sum(dim=2) - 1).abs().max() < 1e-2 and theta.abs().max() < 2


def test_both_ways_to_invert_agree(generator):
    root = torch.rand(5, 8, 12, generator=generator, dtype=torch.float64)
    gram = torch.bmm(root, root.mT)
    for many in (False, True):
        assert torch.allclose(patching._inverse(gram, many), torch.linalg.inv(gram), rtol=1e-8)


def test_the_members_of_a_flat_group_become_their_mean_and_count_k():
    theta = combinations(torch.full((1, 9, 12), 0.3), *torch.full((2, 1, 9), 0.1))
    assert torch.allclose(theta, torch.full((1, 9, 9), 1 / 9), atol=1e-6)
    assert torch.allclose(weights(theta), torch.full((1, 9), 9.0), rtol=1e-4)


def test_weights_are_the_inverse_energy_of_the_rows_between_1_and_k():
    theta = torch.tensor([
        [[1.0, 0, 0], [2, -1, 0], [0.5, 0.5, 0]], [[0.3, 0.3, 0.3], [0, 0.6, 0.4], [1.1, 0, -0.1]]])
    assert torch.allclose(weights(theta), torch.tensor([[1, 1, 2], [3, 1 / 0.52, 1]]))


# ---- patches to pictures ----


@pytest.mark.parametrize("channels", [1, 3])
def test_patches_come_out_and_go_back_as_in_a_loop(channels, generator):
    picture = torch.rand(11, 9, channels, generator=generator, dtype=torch.float64)
    table = unfold(picture, 4)
    for position in range(8 * 6):
        assert np.array_equal(table[position].view(4, 4, channels), patch_of(picture.numpy(), position, 4))
    sums = patch_sums(picture, 4)
    assert torch.allclose(sums, table.sum(dim=1))
    values = torch.rand(table.shape, generator=generator, dtype=torch.float64)
    back, expected = torch.zeros_like(picture), np.zeros(picture.shape)
    fold(values, back, 4)
    for position, value in enumerate(values.numpy()):
        patch_of(expected, position, 4)[...] += value.reshape(4, 4, channels)
    np.testing.assert_allclose(back, expected, rtol=1e-12)
    single = torch.rand(8, 6, generator=generator, dtype=torch.float64)
    assert (spread(single, 4) * picture[..., 0]).sum() == pytest.approx(
        float((single.flatten() * patch_sums(picture[..., 0], 4)).sum())
    )


def loop_combine(groups, guide, noisy, noise, ridge, share):
    """Aggregation as it is written: patch by patch, with its weight, in float64."""
    side, members = groups.patch, groups.index.shape[2]
    total, estimate, mixture = np.zeros(noisy.shape[:2]), np.zeros(noisy.shape), np.zeros(noisy.shape)
    for number, group in enumerate(groups.index.flatten(0, 1).numpy()):
        model, source = (np.stack([patch_of(v, at, side).ravel() for at in group]) for v in (guide, noisy))
        inverse, ones = np.linalg.inv(model @ model.T + np.diag(ridge[group])), np.ones(members)
        projected = inverse - np.outer(inverse @ ones, ones @ inverse) / (ones @ inverse @ ones)
        theta = np.eye(members) - np.diag(noise[group]) @ projected
        answer = theta @ source
        kept = share[group[0]]
        for row, position in enumerate(group):
            weight = np.clip(1 / (theta[row] ** 2).sum(), 1, members)
            patch_of(total, position, side)[...] += weight
            shaped = answer[row].reshape(side, side, -1)
            patch_of(estimate, position, side)[...] += weight * shaped
            mixed = (1 - kept) * shaped + kept * patch_of(noisy, position, side)
            patch_of(mixture, position, side)[...] += weight * mixed
    return estimate / total[..., None], mixture / total[..., None]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("band, chunk", [(2**25, 2**17), (600, 1)])
def test_the_picture_is_the_weighted_mean_of_the_patches(channels, band, chunk, monkeypatch, generator):
    """Whole, and cut into bands and chunks as large pictures are."""
    monkeypatch.setattr(patching, "_BAND", band)
    monkeypatch.setattr(patching, "_ADVANCE", 1)
    monkeypatch.setattr(patching, "_CHUNK", {"cpu": chunk, "cuda": chunk})
    noisy = torch.rand(19, 22, channels, generator=generator, dtype=torch.float64)
    guide = torch.rand(19, 22, channels, generator=generator, dtype=torch.float64)
    groups = find_groups(guide.mean(dim=2), 4, 9, 3, 6)
    noise, ridge = (torch.rand(16 * 19, generator=generator, dtype=torch.float64) + 0.2 for _ in range(2))
    share = torch.rand(16 * 19, generator=generator, dtype=torch.float64)
    found = combine(groups, guide, noisy, lambda at: (noise[at], ridge[at], share[at[:, 0]]))
    expected = loop_combine(groups, *(v.numpy() for v in (guide, noisy, noise, ridge, share)))
    for picture, wanted in zip(found, expected):
        np.testing.assert_allclose(picture, wanted, atol=1e-9)
    alone, nothing = combine(groups, guide, noisy, lambda at: (noise[at], ridge[at], None))
    assert torch.allclose(alone, found[0], atol=1e-12) and nothing is None


# ---- Poisson ----


def test_the_expected_transform_is_its_series_and_its_integral():
    """Against the plain sum, and E sqrt(k + c) = 1/(2 sqrt pi) int_0^inf (1 - E e^-t(k+c)) t^(-3/2) dt."""
    for mean in (0.01, 1.0, 7.5, 60.0):
        pmf = [np.exp(k * np.log(mean) - mean - special.gammaln(k + 1)) for k in range(250)]
        series = sum(p * 2 * np.sqrt(k + 3 / 8) for k, p in enumerate(pmf))
        inner = lambda u: (1 - np.exp(mean * np.expm1(-(u**2)) - 3 / 8 * u**2)) / u**2  # noqa: E731, t = u^2
        integral = (integrate.quad(inner, 0, 1)[0] + integrate.quad(inner, 1, np.inf)[0]) * 2 / np.sqrt(np.pi)
        assert series == pytest.approx(integral, rel=1e-7)
        assert expected_anscombe(np.array([mean]))[0] == pytest.approx(series, rel=1e-10)


def test_the_inverse_undoes_the_expected_transform():
    means = np.array([0.0, 0.003, 0.4, 3.3, 41.0, 99.0, 101.0, 400.0, 3000.0])
    found = inverse_anscombe(torch.from_numpy(expected_anscombe(means)))
    np.testing.assert_allclose(found, means, rtol=2e-5, atol=1e-5)
    assert (inverse_anscombe(torch.tensor([-1.0, 0.0, 1.2247])) == 0).all()


@pytest.mark.parametrize("mean", [0.5, 3.0, 20.0])
def test_the_inverse_of_the_mean_is_unbiased_where_the_algebraic_one_is_not(mean):
    counts = np.random.RandomState(2).poisson(mean, 400_000)
    values = anscombe(torch.from_numpy(counts.astype(float))).numpy()
    error = 4.5 * values.std() / 400_000**0.5
    low, high = inverse_anscombe(torch.tensor([values.mean() - error, values.mean() + error]))
    assert low < mean < high
    assert not low < (values.mean() / 2) ** 2 - 3 / 8 < high


@pytest.mark.parametrize("photons, tolerance", [(200, 0.1), (25, 0.1)])
def test_photons_are_counted(photons, tolerance):
    clean = b2g.load("skimage/astronaut")[:128, 150:278]
    noisy = b2g.add_noise(np.ascontiguousarray(clean), "poisson", photons, seed=1)
    found = estimate_photons(torch.from_numpy(noisy).permute(2, 0, 1)[None])
    assert found == pytest.approx(photons, rel=tolerance)


def test_a_picture_without_noise_has_no_photons_to_count():
    with pytest.raises(B2GError, match="no Poisson noise .* give photons"):
        estimate_photons(torch.full((1, 1, 32, 32), 0.5))
