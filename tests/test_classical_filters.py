"""Non-local means, wavelets, total variation: calibration against loops, rules for sigma, gains, refusals."""

import numpy as np
import pytest
import pywt
import skimage.data
import torch
from skimage.restoration import denoise_tv_chambolle

import b2g
from b2g.errors import B2GError
from b2g.method import Circumstances
from b2g.methods import METHODS, NonLocalMeans, TotalVariation, WaveletShrinkage
from b2g.methods.nlm import numbers

NAMES = ("nlm", "wavelet", "tv")
CLEAN = np.ascontiguousarray(skimage.data.astronaut()[20:84, 200:264].astype(np.float32) / 255)


def noisy(height=64, width=64, channels=3, level=25, seed=0):
    clean = CLEAN[:height, :width] if channels == 3 else CLEAN[:height, :width, 1]
    return b2g.add_noise(np.ascontiguousarray(clean), "gaussian", level, seed=seed)


def batch(picture):
    picture = picture if picture.ndim == 3 else picture[..., None]
    return torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None].float()


def answer(method, picture):
    estimate = method(batch(picture)).estimate[0].permute(1, 2, 0).numpy()
    return estimate if picture.ndim == 3 else estimate[..., 0]


# ---- calibration ----


def neighbours(picture, y, x):
    """The mean of the four neighbours, mirrored at the border without the border pixel itself."""
    height, width = picture.shape[:2]
    at = lambda i, side: abs(i) if i < side else 2 * side - 2 - i  # noqa: E731
    places = [(at(y - 1, height), x), (at(y + 1, height), x), (y, at(x - 1, width)), (y, at(x + 1, width))]
    return np.mean([picture[place] for place in places], axis=0)


def held_out(method, picture, knob, phases):
    """The filter's answers at pixels it does not see, over the grids ``phases``; NaN elsewhere. By a loop."""
    given, axis = picture.astype(float), -1 if picture.ndim == 3 else None
    unseen = np.full(given.shape, np.nan)
    for down, across in phases:
        hidden = given.copy()
        places = [(y, x) for y in range(down, given.shape[0], method.stride)
                  for x in range(across, given.shape[1], method.stride)]  # fmt: skip
        for place in places:
            hidden[place] = neighbours(given, *place)
        seen = method.filtered(hidden, knob, axis)
        for place in places:
            unseen[place] = seen[place]
    return unseen


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size, channels, stride, every", [((20, 19), 3, 4, False), ((17, 18), 1, 3, True)])
def test_j_invariant_calibration_is_the_best_of_all_candidates(name, size, channels, stride, every):
    ramp = np.broadcast_to(np.linspace(0.2, 0.8, size[1])[:, None], (*size, channels)).astype(np.float32)
    picture = b2g.add_noise(ramp if channels == 3 else ramp[..., 0], "gaussian", 25, seed=0)
    method = METHODS[name](candidates=5, stride=stride, all_pixels=every, answer="j_invariant")
    whole = [(y, x) for y in range(stride) for x in range(stride)]
    phases = whole if every else [(2, 0)]  # of scikit-image's numbered grids the middle one
    knobs = np.exp(np.linspace(np.log(method.knobs[0]), np.log(method.knobs[1]), 5))
    losses = [np.nanmean((held_out(method, picture, knob, phases) - picture) ** 2) for knob in knobs]
    best = int(np.argmin(losses))
    assert max(losses) > 1.01 * losses[best]  # a real choice
    found = method(batch(picture))
    assert found.history[0][method.knob] == pytest.approx(knobs[best], rel=1e-9)
    assert found.history[0]["held_out_loss"] == pytest.approx(losses[best], rel=1e-6)
    np.testing.assert_allclose(answer(method, picture), held_out(method, picture, knobs[best], whole), atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind, moved", [("j_invariant", False), ("visible", True)])
def test_only_the_j_invariant_answer_is_blind_to_its_own_pixel(name, kind, moved):
    """At a knob that is told, since the choice of it has seen the pixel."""
    picture = noisy(24, 24, 1)
    changed = picture.copy()
    changed[11, 13] += 0.1
    method = METHODS[name](calibration="sigma", sigma=25.0, answer=kind)
    if name == "tv":  # its weight depends on the picture, but not here
        object.__setattr__(method, "set_by", lambda *told: 0.1)
    first, second = answer(method, picture), answer(method, changed)
    assert (first[11, 13] != second[11, 13]) == moved
    assert (first != second).any()


@pytest.mark.parametrize("name", NAMES)
def test_calibration_finds_its_knob_without_sigma(name):
    """On the smooth part of a picture the knob grows with the noise,
    and the answer is near the best knob's."""
    clean = np.ascontiguousarray(skimage.data.astronaut()[:64, 380:444].astype(np.float32) / 255)
    method, knobs = METHODS[name](candidates=8), []
    for level in (10, 40):
        given = b2g.add_noise(clean, "gaussian", level, seed=2)
        knobs.append(method(batch(given)).history[0][method.knob])
    assert knobs[1] > 1.7 * knobs[0]


# ---- the knob by sigma ----


@pytest.mark.parametrize("sigma", [12.0, 40.0])
@pytest.mark.parametrize("channels", [1, 3])
def test_total_variation_removes_as_much_as_there_is_noise(sigma, channels):
    given = noisy(48, 48, channels, sigma)
    method = TotalVariation(calibration="sigma", sigma=sigma)
    weight = method(batch(given)).history[0]["weight"]
    axis = -1 if channels == 3 else None
    expected = denoise_tv_chambolle(given.astype(float), weight, channel_axis=axis)
    np.testing.assert_allclose(answer(method, given), expected, atol=1e-6)
    assert 255 * np.sqrt(((given - expected) ** 2).mean()) == pytest.approx(sigma, rel=0.02)


def test_total_variation_lowers_its_energy_most():
    """||u - y||^2 / 2 + weight TV(u) of the answer is below that of its neighbours in any direction tried."""
    given, random = noisy(16, 16, 1).astype(float), np.random.default_rng(0)
    answer = TotalVariation(steps=5000).filtered(given, 0.1)

    def energy(u):
        down, across = np.zeros_like(u), np.zeros_like(u)
        down[:-1], across[:, :-1] = np.diff(u, axis=0), np.diff(u, axis=1)
        return ((u - given) ** 2).sum() / 2 + 0.1 * np.sqrt(down**2 + across**2).sum()

    assert energy(given) > energy(answer) * 1.2
    for _ in range(20):
        assert energy(answer + 0.02 * random.standard_normal(given.shape)) > energy(answer)


@pytest.mark.parametrize("level, colour, expected", [
    (10, False, (3, 10, 0.4)), (25, False, (5, 10, 0.4)), (45, False, (7, 17, 0.35)), (75, False, (9, 17, 0.35)),
    (76, False, (11, 17, 0.3)), (25, True, (3, 10, 0.55)), (26, True, (5, 17, 0.4)), (120, True, (7, 17, 0.35)),
])  # fmt: skip
def test_non_local_means_has_the_published_numbers(level, colour, expected):
    assert numbers(level, colour) == expected


def test_non_local_means_is_its_weighted_mean():
    """Inside, where no border is mirrored, against a loop over one pixel's window;
    colour shares the weights."""
    given, sigma = noisy(40, 40, 3).astype(float), 25 / 255
    found = NonLocalMeans().filtered(given, 25.0, -1)
    patch = lambda y, x: given[y : y + 2, x : x + 2]  # noqa: E731
    for y, x in ((19, 20), (15, 24)):
        total, weights = 0.0, 0.0
        for v in range(y - 10, y + 11):
            for u in range(x - 10, x + 11):
                distance = max(((patch(y, x) - patch(v, u)) ** 2).mean() - 2 * sigma**2, 0)
                weight = np.exp(-distance / (0.55 * sigma) ** 2)
                total, weights = total + weight * given[v, u], weights + weight
        np.testing.assert_allclose(found[y, x], total / weights, atol=3e-3)  # weights below e^-5 are left out


def test_wavelet_shrinkage_is_bayes_shrink():
    """One gray picture of a size with four scales, band by band."""
    given = b2g.add_noise(np.ascontiguousarray(skimage.data.camera()[100:340, 100:340]), "gaussian", 25).astype(float)
    coarse, *details = pywt.wavedec2(given, "sym8", level=4)
    shrunk = [coarse]
    for bands in details:
        scales = [np.sqrt(max((band**2).mean() - (25 / 255) ** 2, np.finfo(float).eps)) for band in bands]
        shrunk.append(tuple(pywt.threshold(band, (25 / 255) ** 2 / s, "soft") for band, s in zip(bands, scales)))
    method = WaveletShrinkage(calibration="sigma", sigma=25.0)
    np.testing.assert_allclose(answer(method, given.astype(np.float32)), pywt.waverec2(shrunk, "sym8"), atol=1e-5)


# ---- what they do to a picture ----


@pytest.mark.parametrize("name, gain", [("nlm", 4.3), ("wavelet", 4.3), ("tv", 4.2)])
@pytest.mark.parametrize("profile", ["smoke", "official"])
@pytest.mark.parametrize("channels", [1, 3])
def test_they_denoise(name, gain, profile, channels):
    clean = CLEAN if channels == 3 else np.ascontiguousarray(CLEAN[..., 1])
    given = noisy(channels=channels)
    result = b2g.denoise(given, name, profile, progress=False)
    assert result.image.shape == clean.shape and result.image.dtype == np.float32
    assert b2g.psnr(clean, result.image) > b2g.psnr(clean, given, clip=False) + gain
    assert (profile == "smoke") != ("sigma" in result.history[0])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(16, 16), (17, 35)])
@pytest.mark.parametrize("channels", [1, 3])
def test_any_size_gives_the_same_bytes_for_every_seed(name, size, channels):
    given, state = noisy(*size, channels), torch.get_rng_state()
    copy = given.copy()
    first, other = (b2g.denoise(given, name, seed=seed, progress=False).image for seed in (0, 1))
    assert first.shape == given.shape and first.tobytes() == other.tobytes()
    assert given.tobytes() == copy.tobytes() and torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("name", NAMES)
def test_the_clean_picture_changes_nothing(name):
    given = batch(noisy(24, 24))
    told = Circumstances(clean=batch(CLEAN[:24, :24]))
    assert torch.equal(METHODS[name]()(given).estimate, METHODS[name]()(given, told).estimate)


@pytest.mark.parametrize("name, settings, sentence", [
    ("nlm", dict(calibration="oracle"), "calibration must be one of j_invariant, sigma, not 'oracle'"),
    ("nlm", dict(sigma=25.0), "nlm's sigma belongs to calibration='sigma'"),
    ("tv", dict(calibration="sigma", sigma=0.0), "tv's sigma is a level on 0..255, above 0, not 0.0"),
    ("wavelet", dict(candidates=1), "candidates must be at least 2, not 1"),
    ("tv", dict(stride=1), "stride must be at least 2, not 1"),
    ("tv", dict(stride=17), "stride must be at most 16, .* not 17"),
    ("tv", dict(answer="blind"), "answer must be one of visible, j_invariant"),
    ("tv", dict(steps=1), "steps must be at least 2, not 1"),
    ("wavelet", dict(wavelet="bior2.2"), "orthogonal one, such as sym8 or db2, not 'bior2.2'"),
    ("wavelet", dict(wavelet="morl"), "orthogonal one, such as sym8 or db2, not 'morl'"),
    ("wavelet", dict(levels=0), "levels must be at least 1, not 0"),
    ("wavelet", dict(levels=7), "levels must be at most 6, not 7"),
])  # fmt: skip
def test_an_impossible_setting_is_refused(name, settings, sentence):
    with pytest.raises(B2GError, match=sentence):
        METHODS[name](**settings)
