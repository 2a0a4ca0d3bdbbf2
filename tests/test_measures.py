import math

import numpy as np
import oracles
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from b2g import add_noise, load, measures
from b2g.errors import B2GError


@pytest.fixture(scope="module")
def clean():
    return load("skimage/astronaut@64+200+60").astype(float)


@pytest.fixture(scope="module")
def noisy(clean):
    return add_noise(clean, "gaussian", 25, seed=0)


def test_luminance_is_that_of_bt_601(clean):
    theirs = np.asarray(Image.fromarray(np.rint(255 * clean).astype(np.uint8)).convert("L"))
    assert np.abs(255 * measures.luminance(clean) - theirs).max() <= 1  # Pillow's own rounding
    assert np.array_equal(measures.luminance(clean[..., 0]), np.float32(clean[..., 0]))
    assert measures.luminance(clean + 1).max() == 1


def entropy_at(levels, i, j, radius):
    counts = {}
    for a in range(max(0, i - radius), min(len(levels), i + radius + 1)):
        for b in range(max(0, j - radius), min(levels.shape[1], j + radius + 1)):
            if (a - i) ** 2 + (b - j) ** 2 <= radius**2:
                counts[levels[a, b]] = counts.get(levels[a, b], 0) + 1
    total = sum(counts.values())
    return -sum(n / total * math.log2(n / total) for n in counts.values())


def test_local_entropy_is_the_definition(clean):
    part = clean[:20, :23]
    levels = np.rint(255 * measures.luminance(part)).astype(int)
    for radius in (2, 5):
        found = measures.local_entropy(part, radius)
        wanted = [entropy_at(levels, i, j, radius) for i, j in np.ndindex(levels.shape)]
        assert np.abs(found.ravel() - wanted).max() < 1e-9
    assert measures.local_entropy(np.full((16, 16), 0.5)).max() == 0
    assert measures.local_entropy(part).max() <= math.log2(81)


def test_noise_raises_local_entropy(clean, noisy):
    low, high = (measures.local_entropy(picture)[measures.regions(clean).flat].mean() for picture in (clean, noisy))
    assert high > low + 0.5


def test_gradient_map_is_the_definition(clean):
    part = clean[:16, :18]
    across, down = oracles.gradient(measures.luminance(part), "forward")
    assert np.abs(measures.gradient_map(part) - np.sqrt(across**2 + down**2)).max() < 1e-12
    step = np.zeros((16, 16))
    step[:, 8:] = 0.5
    wanted = np.zeros((16, 16))
    wanted[:, 7] = 0.5
    assert np.array_equal(measures.gradient_map(step), wanted)


def test_fluctuation_of_known_profiles():
    clean = np.array([0.0, 1, 0, 1, 0])
    same = measures.fluctuation(clean, clean)
    assert same.variation == 1 and same.correlation == pytest.approx(1)
    half = measures.fluctuation(clean, 0.3 + clean / 2)
    assert half.variation == pytest.approx(0.5) and half.correlation == pytest.approx(1)
    assert measures.fluctuation(clean, 1 - clean).correlation == pytest.approx(-1)
    assert measures.fluctuation(clean, np.full(5, 0.7)) == measures.Fluctuation(0.0, 0.0)
    values = np.random.RandomState(0).rand(2, 40)
    assert measures.fluctuation(*values).correlation == pytest.approx(np.corrcoef(values)[0, 1])


def test_more_fluctuation_is_not_more_detail(clean, noisy):
    rows = [measures.gradient_map(picture)[30] for picture in (clean, noisy)]
    found = measures.fluctuation(*rows)
    assert found.variation > 1.2 and found.correlation < 0.9


def test_regions_are_the_definition(clean):
    found, plane = measures.regions(clean), measures.luminance(clean)
    ordered = np.argsort(measures.gradient_map(clean), axis=None)[::-1]
    assert found.edges.sum() == pytest.approx(0.1 * found.edges.size, abs=1)
    assert found.edges.ravel()[ordered[:found.edges.sum()]].all()
    spread, apart = np.full(plane.shape, np.nan), np.zeros(plane.shape, bool)
    for i, j in np.ndindex(plane.shape):
        around = [(min(max(a, 0), 63), min(max(b, 0), 63)) for a in (i - 1, i, i + 1) for b in (j - 1, j, j + 1)]
        apart[i, j] = not any(found.edges[at] for at in around)
        spread[i, j] = np.var([plane[at] for at in around])
    assert 0.3 < apart.mean() < 0.9
    assert np.array_equal(found.edges | found.beside, ~apart) and not (found.edges & found.beside).any()
    for region in (found.texture, found.flat):
        assert not (region & ~apart).any()
        assert region.sum() == pytest.approx(0.3 * apart.sum(), abs=2)
    middle = apart & ~found.texture & ~found.flat
    assert spread[found.flat].max() <= spread[middle].min() + 1e-9
    assert spread[middle].max() <= spread[found.texture].min() + 1e-9


def test_regions_of_a_constant_and_of_a_step():
    constant = measures.regions(np.full((16, 16), 0.5))
    assert constant.flat.all() and not constant.edges.any() and not constant.texture.any()
    step = np.zeros((16, 16))
    step[:, 8:] = 0.5
    found = measures.regions(step)
    assert found.edges[:, 7].all() and found.edges.sum() == 16
    assert not found.texture.any() and found.flat.sum() == 16 * 13  # what lies beside an edge is neither


def test_edge_error_is_the_mean_square_on_each_side(clean, noisy):
    found, edges = measures.edge_error(clean, noisy), measures.regions(clean).edges
    squares = (noisy.clip(0, 1) - clean) ** 2
    sums, counts = [0.0, 0.0], [0, 0]
    for i, j in np.ndindex(edges.shape):
        side = int(edges[i, j])
        sums[side] += squares[i, j].sum()
        counts[side] += 3
    assert found.rest == pytest.approx(sums[0] / counts[0], rel=1e-5)
    assert found.edges == pytest.approx(sums[1] / counts[1], rel=1e-5)


def test_blur_harms_edges_and_takes_detail(clean):

    blurred = gaussian_filter(clean, (1, 1, 0))
    found = measures.edge_error(clean, blurred)
    assert found.edges > 3 * found.rest
    assert 0.2 < measures.detail_kept(clean, blurred) < 0.8
    assert measures.detail_kept(clean, clean) == pytest.approx(1)
    assert measures.detail_kept(clean, np.full_like(clean, 0.5)) == pytest.approx(0, abs=1e-9)


def test_detail_kept_is_a_slope_that_noise_does_not_move(clean):
    texture = measures.regions(clean).texture
    smooth = 0.25 * clean + 0.75 * clean.mean()
    assert measures.detail_kept(clean, smooth, texture) == pytest.approx(0.25, abs=1e-5)
    noise = np.random.RandomState(0).normal(0, 0.02, clean.shape)
    # Standard error: 0.02 over the root of the detail's energy, itself at most that of all pixels.
    error = 0.02 / np.sqrt(((clean - clean.mean()) ** 2).sum())
    assert abs(measures.detail_kept(clean, (smooth + noise).clip(0, 1)) - 0.25) < 4.5 * max(error, 0.004)


def test_grain_of_known_noise_and_of_a_shift():
    clean = np.full((64, 64, 3), 0.5)
    noise = np.random.RandomState(0).normal(0, 10 / 255, clean.shape)
    kernel = np.zeros((41, 41))
    kernel[20, 20] = 1

    left = kernel - gaussian_filter(kernel, 1.5)
    wanted = 10 * np.sqrt((left**2).sum())  # white noise through the same filter
    assert measures.grain(clean, clean + noise) == pytest.approx(wanted, rel=0.02)
    assert measures.grain(clean, clean + 0.1) == pytest.approx(0, abs=1e-4)


def test_tint_of_known_shifts():
    clean = np.full((32, 32, 3), 0.5)
    assert measures.tint(clean, clean + 0.1) == pytest.approx(0, abs=1e-4)
    shift = np.array([3.0, 0, 0]) / 255
    assert measures.tint(clean, clean + shift) == pytest.approx(np.sqrt((4 + 1 + 1) / 3), abs=1e-3)
    assert measures.tint(clean[..., 0], clean[..., 0] + 0.1) == 0


def test_noise_kept_of_known_mixtures(clean, noisy):
    assert measures.noise_kept(clean, noisy, clean) == 0
    assert measures.noise_kept(clean, noisy, noisy) == pytest.approx(1)
    third = clean + (noisy - clean) / 3
    inside = (noisy > 0) & (noisy < 1) & (third >= 0) & (third <= 1)
    assert inside[(noisy > 0) & (noisy < 1)].all()  # between two values in [0, 1]
    assert measures.noise_kept(clean, noisy, third) == pytest.approx(1 / 3, abs=1e-5)
    noise = noisy - clean
    bound = np.sqrt((noise[(noisy > 0) & (noisy < 1)] ** 2).mean())
    frozen = np.where(np.abs(noise) >= 2 * bound, noisy, clean).clip(0, 1)
    assert measures.noise_kept(clean, noisy, frozen, beyond=2) == pytest.approx(1)
    assert measures.noise_kept(clean, noisy, frozen) < 0.5
    # A picture clipped in between says the same of what was not clipped.
    assert measures.noise_kept(clean, noisy.clip(0, 1), third) == pytest.approx(1 / 3, abs=1e-5)


def test_refused(clean, noisy):
    with pytest.raises(B2GError, match="pass two rows of one length"):
        measures.fluctuation([1, 2, 3], [1, 2])
    with pytest.raises(B2GError, match="choose another row"):
        measures.fluctuation([1, 1, 1], [1, 2, 3])
    with pytest.raises(B2GError, match="pass two of one size"):
        measures.edge_error(clean, clean[:-1])
    with pytest.raises(B2GError, match="measure them one by one"):
        measures.luminance(np.stack([clean, clean]))
    with pytest.raises(B2GError, match="pass the noisy picture"):
        measures.noise_kept(clean, clean, clean)
    with pytest.raises(B2GError, match="a smaller beyond"):
        measures.noise_kept(clean, noisy, clean, beyond=100)
