import numpy as np
import pytest
import scipy
import torch
from oracles import assert_mean
from scipy import stats
from scipy.fft import dctn

from b2g import add_noise, estimate_correlated_sigma, estimate_sigma, load
from b2g import noise as noise_module
from b2g.errors import B2GError
from b2g.images import to_batch
from b2g.seeds import seed_for

FLAT = np.full((256, 256, 3), 0.5, np.float32)


def test_gaussian_noise_is_the_frozen_stream_in_array_order():
    clean = np.random.RandomState(1).rand(17, 20, 3).astype(np.float32)
    wanted = clean.astype(float) + np.random.RandomState(7).normal(0, 25 / 255, clean.shape)
    noisy = add_noise(clean, "gaussian", 25, seed=7)
    assert noisy.dtype == np.float32
    np.testing.assert_allclose(noisy, wanted, rtol=0, atol=1e-7)


def test_poisson_noise_is_the_frozen_stream_in_array_order():
    clean = np.random.RandomState(1).rand(17, 20).astype(np.float32)
    wanted = np.random.RandomState(7).poisson(30 * clean.astype(float)) / 30
    np.testing.assert_allclose(add_noise(clean, "poisson", 30, seed=7), wanted, rtol=0, atol=1e-7)


@pytest.mark.parametrize("kind, level", [
    ("gaussian", 25), ("gaussian", 5.5), ("poisson", 30), ("poisson", 4.5)])
def test_moments(kind, level):
    """z-tests at 5 standard errors on 196608 pixels; the test after this one shows that they have power."""
    noise = add_noise(FLAT, kind, level, seed=1).astype(float) - 0.5
    variance = (level / 255) ** 2 if kind == "gaussian" else 0.5 / level
    fourth = 3 * variance**2 if kind == "gaussian" else 3 * variance**2 + variance / level**2
    assert abs(noise.mean()) < 5 * np.sqrt(variance / noise.size)
    assert abs((noise**2).mean() - variance) < 5 * np.sqrt((fourth - variance**2) / noise.size)


def test_the_z_tests_would_see_sigma_three_percent_off():
    variance = (25 / 255) ** 2
    noise = add_noise(FLAT, "gaussian", 25 * 1.03, seed=1).astype(float) - 0.5
    assert abs((noise**2).mean() - variance) > 5 * np.sqrt(2 * variance**2 / noise.size)


def test_gaussian_noise_is_normal_and_white():
    noise = (add_noise(FLAT, "gaussian", 100, seed=3) - 0.5).astype(float)
    assert stats.kstest(noise[::4, ::4].ravel() / (100 / 255), "norm").pvalue > 1e-3
    assert noise.min() < -0.5 and noise.max() > 0.5, "noise was clipped to [0, 1]"
    for axis in (0, 1, 2):  # neighbours, also across colours, are uncorrelated: 5 standard errors
        moved = np.roll(noise, 1, axis)
        assert abs(np.corrcoef(noise.ravel(), moved.ravel())[0, 1]) < 5 / np.sqrt(noise.size)


def test_poisson_noise_counts_photons():
    counts = add_noise(FLAT, "poisson", 8, seed=2) * 8
    assert np.array_equal(counts, np.rint(counts)) and counts.max() > 8


def test_the_noise_does_not_depend_on_the_container(tmp_path):
    clean = np.random.RandomState(1).randint(0, 256, (2, 17, 20, 3)).astype(np.uint8)
    wanted = add_noise(clean, "gaussian", 25, seed=5)
    tensor = torch.from_numpy(clean.transpose(0, 3, 1, 2).copy())
    noisy = add_noise(tensor, "gaussian", 25, seed=5)
    assert noisy.dtype == torch.float32 and noisy.shape == tensor.shape and noisy.device == tensor.device
    assert np.array_equal(noisy.permute(0, 2, 3, 1).numpy(), wanted)
    first = add_noise(clean[0], seed=5)
    for other in (tensor[0].float() / 255, to_batch(clean[0]).batch[0]):
        assert np.array_equal(add_noise(other, seed=5).permute(1, 2, 0).numpy(), first)
    assert np.array_equal(first, wanted[0])


@pytest.mark.parametrize("shape", [(17, 20), (17, 20, 1), (17, 20, 3), (2, 17, 20, 3)])
def test_layout_stays_and_the_clean_picture_too(shape):
    clean = np.random.RandomState(1).rand(*shape)
    kept = clean.copy()
    assert add_noise(clean, "gaussian", 25).shape == shape
    assert add_noise(clean, "poisson", 25).shape == shape
    assert np.array_equal(clean, kept)


def test_seeds_and_names():
    one, other = ("set9", "F16", "gaussian", 25, 0), ("set9", "F16", "gaussian", 25, 1)
    assert np.array_equal(add_noise(FLAT, seed=one), add_noise(FLAT, seed=seed_for(*one)))
    assert not np.array_equal(add_noise(FLAT, seed=one), add_noise(FLAT, seed=other))
    assert np.array_equal(add_noise(FLAT, "gaussian", 0), FLAT)


@pytest.mark.parametrize("arguments, word", [
    (("speckle", 25), "kind 'speckle' is not known"), (("gaussian", -1), "level -1"),
    (("gaussian", float("nan")), "level nan"), (("gaussian", "25"), "level '25'"),
    (("poisson", 0), "photons"), (("poisson", float("inf")), "level inf"), (("gaussian", True), "level True"),
    (("gaussian", 25, 0.5), "seed 0.5"),
])
def test_refused(arguments, word):
    with pytest.raises(B2GError, match=word):
        add_noise(FLAT, *arguments)


def test_negative_light_has_no_poisson_noise():
    with pytest.raises(B2GError, match="negative values, down to -0.5"):
        add_noise(FLAT - 1, "poisson", 30)


# estimate_sigma. The bounds are wider than what was measured by half, and narrow enough to matter.


@pytest.mark.parametrize("sigma", [5, 10, 25, 50, 100])
@pytest.mark.parametrize("shape, within", [((256, 256), 0.01), ((256, 256, 3), 0.015), ((64, 64, 3), 0.02)])
def test_sigma_of_flat_pictures(shape, within, sigma):
    noisy = add_noise(np.full(shape, 0.5, np.float32), "gaussian", sigma, seed=sigma)
    assert estimate_sigma(noisy) == pytest.approx(sigma, rel=within)


@pytest.mark.parametrize("name", ["skimage/astronaut", "skimage/coffee", "skimage/chelsea", "skimage/rocket"])
@pytest.mark.parametrize("sigma, within", [(10, 0.04), (25, 0.02), (50, 0.02), (100, 0.02)])
def test_sigma_of_photographs(name, sigma, within):
    noisy = add_noise(load(name), "gaussian", sigma, seed=2)
    assert estimate_sigma(noisy) == pytest.approx(sigma, rel=within)


@pytest.mark.parametrize("name", ["skimage/camera", "skimage/coins", "skimage/brick"])
@pytest.mark.parametrize("sigma, within", [(5, 0.06), (10, 0.05), (25, 0.025), (50, 0.02), (100, 0.02)])
def test_sigma_of_gray_photographs(name, sigma, within):
    noisy = add_noise(load(name), "gaussian", sigma, seed=2)
    assert estimate_sigma(noisy) == pytest.approx(sigma, rel=within)


def test_the_stated_limits_of_the_estimate():
    grass, photograph = load("skimage/grass"), load("skimage/astronaut")
    assert 11 < estimate_sigma(add_noise(grass, "gaussian", 10)) < 12.5
    noisy = add_noise(photograph, "gaussian", 50)
    blurred = (noisy + np.roll(noisy, 1, axis=0)) / 2  # its true sigma is 50 / sqrt(2)
    assert estimate_sigma(blurred) < 0.95 * 50 / np.sqrt(2)


@pytest.mark.parametrize("name", ["skimage/astronaut", "skimage/camera", "skimage/page"])
@pytest.mark.parametrize("kind, level, clip", [("gaussian", 50, True), ("poisson", 30, False), ("poisson", 300, False)])
def test_noise_that_depends_on_brightness_has_its_root_mean_square(name, kind, level, clip):
    clean = load(name)
    noisy = add_noise(clean, kind, level, seed=1)
    noisy = noisy.clip(0, 1) if clip else noisy
    assert estimate_sigma(noisy) == pytest.approx(255 * np.sqrt(((noisy - clean) ** 2).mean()), rel=0.09)


@pytest.mark.parametrize("shape", [(13, 12), (13, 12, 3), (2, 13, 12, 3)])
def test_the_patches_spectra_are_those_of_a_loop(shape, monkeypatch):
    monkeypatch.setattr(noise_module, "_MANY", 8)
    picture = np.random.RandomState(3).rand(*shape)
    stack = picture.reshape(-1, *picture.shape[-3:]) if picture.ndim > 2 else picture[None, ..., None]
    channels, step = stack.shape[-1], 2 if len(stack) == 1 else 3  # 30 patches of one picture, 60 of two, 8 wanted
    red, green, blue = np.moveaxis(stack, -1, 0) if channels == 3 else [stack[..., 0]] * 3
    planes = [red + green + blue, red - blue, red - 2 * green + blue]
    planes = [plane / np.sqrt(n) for plane, n in zip(planes, (3, 2, 6))] if channels == 3 else [red]
    wanted = []
    for count in range(len(stack)):
        for top in range(0, 6, step):
            for left in range(0, 5, step):
                found = [dctn(plane[count, top:top + 8, left:left + 8], norm="ortho") ** 2 for plane in planes]
                wanted.append([f.ravel() for f in found])
    batch = torch.from_numpy(stack).permute(0, 3, 1, 2)
    _, power = noise_module._patch_spectra(batch)
    np.testing.assert_allclose(power[..., 1:], np.array(wanted)[..., 1:], rtol=1e-9, atol=1e-12)
    low = [i + j for i in range(8) for j in range(8) if noise_module._LOW[8 * i + j]]
    high = [i + j for i in range(8) for j in range(8) if noise_module._HIGH[8 * i + j]]
    assert (min(low), max(low), min(high), max(high)) == (1, 6, 8, 14)


def test_the_choice_of_flat_patches_does_not_change_the_variance_of_white_noise():
    """A choice by all frequencies would take the patches that happen to hold little noise: some 10 % less."""
    ratios = []
    for seed in range(200):
        noise = torch.from_numpy(np.random.RandomState(seed).standard_normal((1, 1, 40, 40)))
        _, power = noise_module._patch_spectra(noise)
        low, high = power[..., noise_module._LOW].sum((1, 2)), power[..., noise_module._HIGH]
        ratios.append(high[low.argsort()[:50]].mean())
    assert_mean(ratios, 1.0, unlike=0.93)


def test_the_share_of_flat_patches_grows_until_texture_comes_in():
    random = np.random.RandomState(4)
    low, high = np.arange(4000.0), random.chisquare(1, (4000, 1, 28))
    all_flat, error = noise_module._of_flattest(low, high, 4000 / 10)
    assert abs(all_flat - np.median(high.mean(0))) < 1e-12 and 0 < error < 0.05
    textured = high + (np.arange(4000) > 1300)[:, None, None] * 3.0  # beyond the flattest 0.3
    assert noise_module._of_flattest(low, textured, 400)[0] == np.median(textured[:1200].mean(0))

def blurred_noise(shape, sigma, seed, reach=1):
    """Noise of standard deviation ``sigma`` on 0..255 that each pixel shares with its neighbours, and its kernel."""
    kernel = np.ones(2 * reach + 1) / np.sqrt(2 * reach + 1)  # of unit energy: the deviation stays
    noise = np.random.RandomState(seed).standard_normal(shape) * sigma / 255
    for axis in (0, 1):
        noise = scipy.ndimage.convolve1d(noise, kernel, axis=axis, mode="wrap")
    return noise.astype(np.float32), kernel


def band_levels(kernel, sigma):
    """The level of such noise at each frequency of an 8 x 8 patch, from its covariances alone."""
    shared = np.correlate(kernel, kernel, "full")
    covariance = scipy.linalg.toeplitz(np.pad(shared[len(kernel) - 1 :], (0, 8))[:8])
    waves = scipy.fft.dct(np.eye(8), norm="ortho", axis=0)
    along = np.diag(waves @ covariance @ waves.T)
    power, frequency = sigma**2 * np.outer(along, along), np.add.outer(range(8), range(8))
    return [np.sqrt(power[(frequency >= a) & (frequency <= b)].mean()) for a, b in ((1, 2), (3, 4))]


@pytest.mark.parametrize("reach, within", [(0, 0.03), (1, 0.05)])
@pytest.mark.parametrize("shape", [(256, 256), (256, 256, 3)])
def test_the_level_of_correlated_noise_is_that_of_its_low_frequencies(shape, reach, within):
    noise, kernel = blurred_noise(shape, 10, seed=3, reach=reach)
    lower, upper = band_levels(kernel, 10)
    assert estimate_correlated_sigma(0.5 + noise) == pytest.approx(np.sqrt(lower * upper), rel=within)
    if reach:  # a level of 18, of which the high frequencies show next to nothing
        assert np.sqrt(lower * upper) > 17 and estimate_sigma(0.5 + noise) < 4


@pytest.mark.parametrize("name", ["skimage/astronaut", "skimage/coffee", "skimage/chelsea"])
def test_the_level_of_correlated_noise_on_photographs(name):
    clean = load(name)
    noise, kernel = blurred_noise(clean.shape, 8, seed=4)
    level = np.sqrt(np.prod(band_levels(kernel, 8)))
    found = estimate_correlated_sigma(clean + noise)
    assert 0.9 * level < found < 1.6 * level and estimate_sigma(clean + noise) < 0.3 * level
    assert estimate_correlated_sigma(clean) < 0.6 * found


def test_sigma_does_not_depend_on_the_container_or_on_brightness():
    noisy = add_noise(load("skimage/astronaut@128+170+40"), "gaussian", 25, seed=0)
    sigma = estimate_sigma(noisy)
    assert estimate_sigma(torch.from_numpy(noisy).permute(2, 0, 1)) == sigma
    assert estimate_sigma(noisy + 0.2) == pytest.approx(sigma, rel=1e-3)
    assert estimate_sigma(noisy * 0.5) == pytest.approx(sigma / 2, rel=1e-3)


def test_sigma_of_nothing_is_nothing():
    assert estimate_sigma(FLAT) == pytest.approx(0, abs=1e-6)
    assert 0 < estimate_sigma(add_noise(np.full((16, 16), 0.5), "gaussian", 25)) < 50
