"""NL-Ridge and LIChI as methods: against a plain loop over the whole chain, invariances, gains, refusals."""

import numpy as np
import pytest
import skimage.data
import torch
from test_patches import loop_combine

import b2g
from b2g.colour import from_opponent, mixed_variance, to_opponent
from b2g.errors import B2GError
from b2g.groups import find_groups
from b2g.method import Circumstances
from b2g.methods import METHODS, LIChI, NLRidge

NAMES = ("nl_ridge", "lichi")
CLEAN = np.ascontiguousarray(skimage.data.astronaut()[20:84, 200:264].astype(np.float32) / 255)
QUICK = {"nl_ridge": dict(sigma=25.0), "lichi": dict(sigma=25.0)}


def noisy(size=64, level=25, channels=3, kind="gaussian", seed=0):
    clean = CLEAN[:size, :size] if channels == 3 else CLEAN[:size, :size, 1]
    return b2g.add_noise(np.ascontiguousarray(clean), kind, level, seed=seed)


def batch(picture):
    picture = picture if picture.ndim == 3 else picture[..., None]
    return torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None].float()


def run(name, picture, **settings):
    """The unclipped answer of the small profile, ``(1, C, H, W)``."""
    return METHODS[name].profile("smoke", **(QUICK[name] | settings))(batch(picture)).estimate


def sums(plane, side):
    """Sums over the patch at every position, flat, by a loop."""
    rows, columns = plane.shape[0] - side + 1, plane.shape[1] - side + 1
    return np.array([plane[y : y + side, x : x + side].sum() for y in range(rows) for x in range(columns)])


def groups_of(picture, side, method, members):
    guide = torch.from_numpy(picture.mean(axis=2)).float()
    return find_groups(guide, side, method.window, method.stride, members)


# ---- the chains, written out ----


def turned(function, picture):
    """A function of :mod:`b2g.colour` of a NumPy picture."""
    return function(torch.from_numpy(np.asarray(picture, float))).numpy()


def in_colours(colour, step):
    """The answer of ``step(guide, picture, variance)`` to all channels together,
    or to each opponent colour alone."""

    def apart(guide, picture, variance):
        if colour == "joint":
            return step(guide, picture, variance)
        parts = turned(to_opponent, guide), turned(to_opponent, picture), turned(mixed_variance, variance)
        answers = [step(*(part[..., k : k + 1] for part in parts)) for k in range(3)]
        return turned(from_opponent, np.concatenate(answers, axis=2))

    return apart


@pytest.mark.parametrize("colour", ["joint", "opponent"])
@pytest.mark.parametrize("kind", ["gaussian", "poisson"])
def test_nl_ridge_is_its_two_steps(kind, colour):
    given = noisy(20, 40, kind=kind)
    level = dict(sigma=40.0) if kind == "gaussian" else dict(noise="poisson", photons=40.0)
    method = NLRidge(patch=(5, 4), group=(6, 9), window=9, colour=colour, **level)
    variance = lambda x: (  # noqa: E731
        np.full(x.shape, (40 / 255) ** 2) if kind == "gaussian" else np.maximum(x, given.mean() / 100) / 40
    )

    def step(side, members, ridge, share, about):
        groups, none = groups_of(about, side, method, members), np.zeros((21 - side) ** 2)

        def one(guide, picture, own):
            noise = sums(own.sum(axis=2), side)
            return loop_combine(groups, guide, picture, ridge * noise, share * noise, none)[0]

        return in_colours(colour, one)(about, given, variance(about))

    second = step(4, 9, 1, 1, step(5, 6, 1.05, 0.05, given))
    found = method(batch(given)).estimate[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(found, second, atol=1e-4)


@pytest.mark.parametrize("colour", ["joint", "opponent"])
def test_lichi_is_its_chain(colour):
    """In opponent colours the chain runs in each colour alone, with the groups of brightness for all."""
    given, sigma = noisy(18, 40).astype(float), 40 / 255
    method = LIChI(sigma=40.0, patch=(5, 4), group=(6, 9), window=9, steps=4, colour=colour)
    found = method(batch(given)).estimate[0].permute(1, 2, 0).numpy()
    if colour == "joint":
        np.testing.assert_allclose(found, chain([given], method, sigma)[0], atol=2e-4)
    else:
        parts = [turned(to_opponent, given)[..., k : k + 1] for k in range(3)]
        expected = turned(from_opponent, np.concatenate(chain(parts, method, sigma), axis=2))
        np.testing.assert_allclose(found, expected, atol=2e-4)


def chain(parts, method, sigma):
    """LIChI of each part ``(18, 18, C)``; the groups are those of the brightness: the mean,
    or the first part."""
    lefts, estimates, channels = list(parts), [], parts[0].shape[2]
    own, entries = np.full(14 * 14, 25 * channels * sigma**2), 16 * channels
    start = groups_of(parts[0], 5, method, 6)
    for given in parts:
        estimates.append(loop_combine(start, given, given, 1.25 * own, 0.25 * own, np.zeros(14 * 14))[0])
    for step, tau in ((1, 0.5625), (2, 0.375), (3, 0.1875), (4, 0.0)):
        groups = groups_of(lefts[0], 4, method, 9) if step in (1, 4) else groups
        for k, given in enumerate(parts):
            estimate, left = estimates[k], lefts[k]
            result = np.zeros((3, *given.shape))
            # One group at a time, since each has a level of its own;
            # numerators and weights are then added up.
            for group in groups.index.flatten(0, 1):
                corners = [divmod(int(at), 15) for at in group]
                removed = np.stack([(given - left)[y : y + 4, x : x + 4] for y, x in corners])
                t = max(1 - removed.std() / sigma, tau + 1e-6)
                single = type(groups)(group[None, None], 4, groups.shape, [(0, 14)])
                noise = np.full(15 * 15, entries * (sigma * t) ** 2)
                total, *means = weighed(single, estimate, left, noise, np.full(15 * 15, tau / t))
                result += np.stack([np.broadcast_to(total[..., None], left.shape), *means])
            estimates[k], lefts[k] = result[1] / result[0], result[2] / result[0]
    np.testing.assert_allclose(lefts, estimates, atol=1e-12)  # nothing is kept at the end
    return estimates


def weighed(group, guide, picture, noise, share):
    """Sum of the weights and of the weighted patches of one group, from its mean and the weights alone."""
    weight = np.zeros(picture.shape[:2])
    corners = [divmod(int(at), 15) for at in group.index[0, 0]]
    model = np.stack([guide[y : y + 4, x : x + 4].ravel() for y, x in corners])
    ridge = noise[0] * np.eye(len(model))
    inverse, ones = np.linalg.inv(model @ model.T + ridge), np.ones(len(model))
    theta = np.eye(len(model)) - noise[0] * (
        inverse - np.outer(inverse @ ones, ones @ inverse) / (ones @ inverse @ ones)
    )
    for row, (y, x) in enumerate(corners):
        weight[y : y + 4, x : x + 4] += np.clip(1 / (theta[row] ** 2).sum(), 1, len(model))
    with np.errstate(invalid="ignore"):
        means = loop_combine(group, guide, picture, noise, noise, share)
    return weight, *(np.where(weight[..., None] > 0, mean * weight[..., None], 0) for mean in means)


# ---- what must hold for any picture ----


@pytest.mark.parametrize("name", NAMES)
def test_brighter_pictures_give_brighter_answers_and_nothing_else(name):
    given = noisy(40)
    change = run(name, given + 0.25) - run(name, given) - 0.25
    assert change.abs().max() < 2e-3 and change.square().mean().sqrt() < 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_picture_and_sigma_scale_together(name):
    given = noisy(40)
    assert torch.allclose(run(name, given / 2, sigma=12.5), run(name, given) / 2, atol=1e-5)
    assert (run(name, given / 2) - run(name, given) / 2).abs().max() > 1e-2  # sigma matters


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("turn", [lambda v: v.flip(2), lambda v: v.flip(3), lambda v: v.mT])
def test_a_mirrored_picture_gives_the_mirrored_answer(name, turn):
    """On a size that the grid of reference patches divides evenly."""
    settings = dict(patch=(5, 5), stride=3)
    given = batch(noisy(41))
    method = METHODS[name].profile("smoke", **(QUICK[name] | settings))
    difference = method(turn(given)).estimate - turn(method(given).estimate)
    assert difference.square().mean().sqrt() < 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_colour_channels_are_treated_alike_and_a_gray_picture_in_colour_is_that_picture(name):
    given = noisy(40)
    swapped = run(name, given[..., [2, 0, 1]])
    assert (swapped - run(name, given)[:, [2, 0, 1]]).square().mean().sqrt() < 1e-4
    answer = run(name, np.repeat(noisy(40, channels=1)[..., None], 3, axis=2))
    assert (answer - answer[:, :1]).abs().max() < 1e-4


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["gaussian", "poisson"])
def test_a_gray_picture_has_no_colours_to_treat_apart(name, kind):
    given = noisy(40, channels=1, kind=kind)
    told = dict(noise="poisson", photons=25.0, sigma=None) if kind == "poisson" else {}
    joint, opponent = (run(name, given, colour=colour, **told) for colour in ("joint", "opponent"))
    assert torch.equal(joint, opponent)
    coloured = [run(name, noisy(40, kind=kind), colour=colour, **told) for colour in ("joint", "opponent")]
    assert (coloured[0] - coloured[1]).abs().max() > 1e-2


@pytest.mark.parametrize("name", NAMES)
def test_in_opponent_colours_gray_in_colour_has_no_colour(name):
    """The colour channels of a gray picture are empty, and stay so; red and blue may change places."""
    answer = run(name, np.repeat(noisy(40, channels=1)[..., None], 3, axis=2), colour="opponent")
    assert (answer - answer[:, :1]).abs().max() < 1e-4
    given = noisy(40)
    swapped = run(name, given[..., ::-1], colour="opponent").flip(1)
    assert (swapped - run(name, given, colour="opponent")).square().mean().sqrt() < 1e-4


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("level", [0.1, 25.0, 200.0])
def test_smooth_and_flat_pictures_stay_what_they_are(name, level):
    ramp = np.linspace(0, 1, 48, dtype=np.float32)[:, None] * np.ones((1, 40), np.float32)
    assert (run(name, np.full((40, 40), 0.3, np.float32), sigma=level) - 0.3).abs().max() < 1e-5
    assert torch.isfinite(run(name, ramp, sigma=level)).all()
    if level < 1:
        assert (run(name, ramp, sigma=level) - batch(ramp)).abs().max() < 1e-2


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(16, 16), (16, 33), (35, 17)])
@pytest.mark.parametrize("channels", [1, 3])
def test_small_and_odd_pictures_keep_their_shape(name, shape, channels):
    given = noisy(64, channels=channels)[: shape[0], : shape[1]].copy()
    for level in (8.0, 60.0):  # the papers' patches, groups and windows are cut down to the picture
        result = b2g.denoise(given, name, sigma=level, progress=False, device="cpu")
        assert result.image.shape == given.shape and np.isfinite(result.image).all()


# ---- what they are for ----


@pytest.mark.parametrize("name, channels, gain", [
    ("nl_ridge", 1, 6.2), ("nl_ridge", 3, 7.2), ("lichi", 1, 6.5), ("lichi", 3, 7.6)])
def test_they_denoise(name, channels, gain):
    given, clean = noisy(channels=channels), CLEAN if channels == 3 else CLEAN[..., 1]
    result = b2g.denoise(given, name, sigma=25, progress=False)
    before = b2g.psnr(clean, given, clip=False)
    assert b2g.psnr(clean, result.image) > before + gain
    again = b2g.denoise(given, name, sigma=25, seed=7, progress=False)
    assert again.image.tobytes() == result.image.tobytes() and result.history == [{"sigma": 25.0}]


@pytest.mark.parametrize("name", NAMES)
def test_sigma_is_estimated_when_it_is_not_given(name):
    given = noisy()
    told = b2g.estimate_sigma(given)
    answer = METHODS[name].profile("smoke")(batch(given))
    assert answer.history == [{"sigma": pytest.approx(told)}] and told == pytest.approx(25, rel=0.1)
    assert torch.allclose(answer.estimate, run(name, given, sigma=answer.history[0]["sigma"]))


@pytest.mark.parametrize("name", NAMES)
def test_poisson_noise_is_told_from_gaussian_noise(name):
    """Photons given or counted, it beats Gaussian noise of the same mean variance, and keeps the mean."""
    clean = np.concatenate([CLEAN * 0.15, CLEAN])  # dark and light: the variances differ
    given = b2g.add_noise(clean, "poisson", 20, seed=0)
    answer = lambda **s: b2g.denoise(given, name, "smoke", progress=False, **s).image  # noqa: E731
    score = lambda **s: b2g.psnr(clean, answer(**s))  # noqa: E731
    poisson = score(noise="poisson", photons=20)
    assert poisson > b2g.psnr(clean, given, clip=False) + 4
    assert poisson > score(sigma=255 * float((clean.mean() / 20) ** 0.5)) + 0.3
    assert score(noise="poisson") > poisson - 0.3
    plain = METHODS[name].profile("smoke", noise="poisson", photons=20.0)(batch(given))
    assert abs(plain.estimate.mean() - given.mean()) < 2e-3 and plain.history == [{"photons": 20.0}]


@pytest.mark.parametrize("name", NAMES)
def test_bands_change_nothing(name, monkeypatch):
    import b2g.patches as patching

    given = noisy(40)
    whole = run(name, given)
    monkeypatch.setattr(patching, "_BAND", 1)
    monkeypatch.setattr(patching, "_ADVANCE", 2)
    monkeypatch.setattr(patching, "_CHUNK", {"cpu": 5000, "cuda": 5000})
    assert torch.allclose(run(name, given), whole, atol=1e-3)


# ---- settings ----


def test_the_papers_numbers_follow_sigma_and_yield_to_settings():
    assert [NLRidge().numbers(sigma) for sigma in (15, 25, 36)] == [
        [(7, 18), (7, 55)], [(9, 18), (9, 90)], [(11, 20), (9, 120)]]  # fmt: skip
    assert NLRidge(patch=(0, 5), group=(7, 0)).numbers(25) == [(9, 7), (5, 90)]
    assert [LIChI().numbers(sigma) for sigma in (10, 30, 31)] == [(9, 6), (11, 9), (13, 11)]
    assert LIChI(patch=(5, 6), steps=2).numbers(50) == (5, 2)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("settings, sentence", [
    (dict(sigma=0), "sigma is a noise level on 0..255 and must be positive, not 0.0"),
    (dict(photons=-3), "photons at white must be positive, not -3.0"),
    (dict(noise="speckle"), "noise must be one of gaussian, poisson, correlated, not 'speckle'"),
    (dict(colour="lab"), "colour must be one of joint, opponent, not 'lab'"),
    (dict(window=8), "window .* must be odd, not 8"),
    (dict(window=0), "window .* must be odd, not 0"),
    (dict(stride=0), "stride must be at least 1, not 0"),
    (dict(patch=(-1, 3)), "patch must be at least 0, not -1"),
    (dict(group=(-2, 3)), "group must be at least .*, not -2"),
])  # fmt: skip
def test_impossible_settings_are_refused(name, settings, sentence):
    with pytest.raises(B2GError, match=sentence) as raised:
        METHODS[name].profile(None, **settings)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("settings, sentence", [
    (dict(alpha=0), "alpha .* positive, not 0.0"), (dict(keep=1), r"keep .* lie in \[0, 1\), not 1.0"),
    (dict(steps=-1), "steps must be at least 0, not -1"), (dict(patch=(7, 0)), "at least 0, not -1")])
def test_impossible_settings_of_lichi_are_refused(settings, sentence):
    with pytest.raises(B2GError, match=sentence):
        LIChI(**settings)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("settings, sentence", [
    (dict(photons=9.0), "photons belong to noise='poisson'"),
    (dict(noise="poisson", sigma=9.0), "sigma belongs to noise='gaussian'"),
    (dict(), "needs a positive noise level sigma"),
    (dict(noise="poisson"), "no Poisson noise to count photons by"),
])  # fmt: skip
def test_what_a_picture_cannot_be_denoised_with_is_refused(name, settings, sentence):
    with pytest.raises(B2GError, match=sentence):
        METHODS[name].profile("smoke", **settings)(torch.zeros(1, 1, 32, 32))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("settings", [dict(sigma=25.0), dict(noise="poisson", photons=30.0)])
def test_a_gpu_gives_the_same_picture(name, settings):
    """But for the order of sums and ties between patches: 0.05 grey values of 255 in the mean square."""
    method, given = METHODS[name].profile(None, **settings), batch(np.clip(noisy(), 0, None))
    here, there = (
        method(given.to(where), Circumstances(device=torch.device(where))).estimate for where in ("cpu", "cuda")
    )
    assert there.is_cuda and (here - there.cpu()).square().mean().sqrt() < 0.05 / 255
