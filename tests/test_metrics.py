import math
import os

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from b2g import add_noise, datasets, load, psnr, ssim
from b2g.errors import B2GError

MIRROR = os.environ.get("B2G_DATA_MIRROR", "")
needs_data = pytest.mark.skipif(not os.path.isdir(MIRROR), reason="B2G_DATA_MIRROR names no folder")


def pair(shape=(24, 27, 3), seed=0):
    random = np.random.RandomState(seed)
    clean = random.rand(*shape)
    return clean, np.clip(clean + 0.1 * random.randn(*shape), 0, 1)


def test_one_gray_level_off_is_48_13_db():
    for clean in (np.full((16, 16), 100, np.uint8), np.full((20, 16, 3), 30, np.uint8)):
        assert psnr(clean, clean + np.uint8(1)) == pytest.approx(20 * math.log10(255), abs=1e-4)
        assert round(psnr(clean, clean + np.uint8(1)), 2) == 48.13


def test_psnr_of_a_known_error():
    clean = np.zeros((16, 16, 3), np.float32)
    estimate = clean.copy()
    estimate[3, 4, 1] = 0.5  # one of 768 values: 0.25 / 768
    assert psnr(clean, estimate) == pytest.approx(10 * math.log10(768 / 0.25), abs=1e-6)
    assert psnr(clean, clean) == math.inf


def test_psnr_agrees_with_scikit_image():
    clean, estimate = pair()
    wanted = peak_signal_noise_ratio(clean, estimate, data_range=1)
    assert psnr(clean, estimate) == pytest.approx(wanted, abs=1e-5)


def test_clipping_and_rounding():
    clean = np.zeros((16, 16), np.float32)
    estimate = clean.copy()
    estimate[0, 0], estimate[0, 1], estimate[0, 2] = -0.3, 1.4, 0.6 / 255
    small, level = (0.6 / 255) ** 2, (1 / 255) ** 2
    mse = {"clip": 1 + small, "plain": 0.09 + 1.96 + small, "rounded": 1 + level}
    db = {name: -10 * math.log10(value / 256) for name, value in mse.items()}
    assert psnr(clean, estimate) == pytest.approx(db["clip"], abs=1e-5)
    assert psnr(clean, estimate, clip=False) == pytest.approx(db["plain"], abs=1e-5)
    assert psnr(clean, estimate, rounded=True) == pytest.approx(db["rounded"], abs=1e-5)


def window():
    taps = [math.exp(-(k * k) / (2 * 1.5**2)) for k in range(-5, 6)]
    return [tap / sum(taps) for tap in taps]


def similarity(x, y, weights):
    """SSIM of one window, two-pass moments, straight from the definition."""
    mx, my = (weights * x).sum(), (weights * y).sum()
    vx, vy = (weights * (x - mx) ** 2).sum(), (weights * (y - my) ** 2).sum()
    cov = (weights * (x - mx) * (y - my)).sum()
    c1, c2 = 0.0001, 0.0009
    return (2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))


def loop_2d(clean, estimate):
    weights, values = np.outer(window(), window()), []
    for c in range(clean.shape[2]):
        for i in range(clean.shape[0] - 10):
            for j in range(clean.shape[1] - 10):
                cut = np.s_[i:i + 11, j:j + 11, c]
                values.append(similarity(clean[cut], estimate[cut], weights))
    return np.mean(values)


def loop_volume(clean, estimate):
    weights = np.einsum("i,j,k->ijk", window(), window(), window())
    padded = [np.pad(image, 5, mode="edge") for image in (clean, estimate)]
    return np.mean([similarity(*(image[i:i + 11, j:j + 11, k:k + 11] for image in padded), weights)
                    for i, j, k in np.ndindex(clean.shape)])


def test_ssim_2d_is_the_definition():
    clean, estimate = pair()
    assert ssim(clean, estimate) == pytest.approx(loop_2d(clean, estimate), abs=1e-6)
    wanted = loop_2d(clean[..., :1], estimate[..., :1])
    assert ssim(clean[..., 0], estimate[..., 0]) == pytest.approx(wanted, abs=1e-6)


def test_ssim_matlab_volume_is_the_definition():
    clean, estimate = pair()
    assert ssim(clean, estimate, "matlab-volume") == pytest.approx(loop_volume(clean, estimate), abs=1e-6)


def test_ssim_matlab_volume_of_gray_has_two_axes():
    clean, estimate = (image[..., 0] for image in pair())
    weights = np.outer(window(), window())
    padded = [np.pad(image, 5, mode="edge") for image in (clean, estimate)]
    wanted = np.mean([similarity(*(image[i:i + 11, j:j + 11] for image in padded), weights)
                      for i, j in np.ndindex(clean.shape)])
    assert ssim(clean, estimate, "matlab-volume") == pytest.approx(wanted, abs=1e-6)


def test_ssim_2d_agrees_with_scikit_image():
    clean, estimate = pair((64, 65, 3))
    wanted = structural_similarity(
        clean, estimate, data_range=1, channel_axis=2, gaussian_weights=True, sigma=1.5,
        use_sample_covariance=False)
    assert ssim(clean, estimate) == pytest.approx(wanted, abs=1e-6)


def test_the_conventions_differ_on_a_photograph_and_agree_on_equals():
    clean = load("skimage/astronaut@64+200+60")
    estimate = add_noise(clean, "gaussian", 25)
    assert abs(ssim(clean, estimate) - ssim(clean, estimate, "matlab-volume")) > 0.05
    for convention in ("2d", "matlab-volume"):
        assert ssim(clean, clean, convention) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("measure", [psnr, ssim])
def test_containers_and_several_pictures(measure):
    clean, estimate = pair((2, 24, 27, 3))
    each = [measure(one, other) for one, other in zip(clean, estimate)]
    assert measure(clean, estimate) == pytest.approx(np.mean(each), abs=1e-9)
    tensors = [torch.from_numpy(image).permute(0, 3, 1, 2) for image in (clean, estimate)]
    assert measure(*tensors) == measure(clean, estimate) == measure(clean, tensors[1])


def test_refused():
    clean, estimate = pair()
    with pytest.raises(B2GError, match="cannot be compared.*pass two of one size"):
        psnr(clean, estimate[:-1])
    with pytest.raises(B2GError, match="convention '3d' is not known; use one of 2d, matlab-volume"):
        ssim(clean, estimate, "3d")
    with pytest.raises(B2GError, match="NaN"):
        psnr(clean, estimate * np.nan)


# CBM3D on Set9 at sigma 25, noise unclipped, as `np.random.seed(0)` draws it. Self2Self (CVPR 2020) prints
# 31.67 dB and 0.955 for CBM3D on this set: the second is MATLAB's volume, and no other convention comes near.


def cbm3d(name):
    bm3d = pytest.importorskip("bm3d")
    clean = load(name)
    noisy = add_noise(clean, "gaussian", 25, seed=0)
    estimate = bm3d.bm3d_rgb(noisy.astype(float), 25 / 255)
    return psnr(clean, estimate), ssim(clean, estimate), ssim(clean, estimate, "matlab-volume")


@needs_data
def test_cbm3d_on_a_part_of_house():
    scores = cbm3d("set9/House@96")
    assert scores[0] == pytest.approx(31.23, abs=0.02)
    assert scores[1:] == pytest.approx([0.775, 0.968], abs=0.001)


@needs_data
@pytest.mark.slow
def test_cbm3d_on_set9():
    scores = np.mean([cbm3d(name) for name in datasets.names("set9")], axis=0)
    assert scores[0] == pytest.approx(31.70, abs=0.02)
    assert scores[1:] == pytest.approx([0.843, 0.956], abs=0.001)
