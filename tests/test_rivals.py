"""MASH, Pixel2Pixel and NLR: one-image methods for noise that may be alike in neighbouring pixels."""

import itertools

import numpy as np
import pytest
import skimage.data
import torch
from killed import killed

import b2g
from b2g import bank as bank_room
from b2g.bank import nearest_pixels, pixel_bank
from b2g.errors import B2GError
from b2g.masks import bernoulli_mask
from b2g.method import Circumstances
from b2g.methods import mash, nlr, pixel2pixel
from b2g.methods.mash import MASH, shuffle_tiles, tile_spread
from b2g.methods.nlr import NLR
from b2g.methods.pixel2pixel import Compact, Pixel2Pixel, draw_pair
from b2g.refill import refilled
from b2g.seeds import torch_generator
from b2g.shuffle import shuffle_down, shuffle_up

ASTRONAUT = skimage.data.astronaut()[20:84, 200:264].astype(np.float32) / 255
PLAIN = Circumstances(precision="float32", seed=3)
SHORT = {
    "mash": MASH.profile("smoke", steps=8, width=4, head=(4, 4), passes=2, gaps=(0.0, 0.0), shuffle_from=3),
    "pixel2pixel": Pixel2Pixel.profile("smoke", steps=8, width=4, sigma=25.0),
    "nlr": NLR.profile("smoke", steps=8, width=4, blocks=1, passes=2, stride=2),
}
OBJECTIVES = {"mash": mash._MaskedFit, "pixel2pixel": pixel2pixel._PairFit, "nlr": nlr._RefilledFit}


def weights(network):
    return sum(p.numel() for p in network.parameters())


def noisy(height=20, width=24, channels=3, seed=0):
    clean = ASTRONAUT[:height, :width] if channels == 3 else ASTRONAUT[:height, :width, 1]
    return b2g.add_noise(np.ascontiguousarray(clean), "gaussian", 25, seed=seed)


def batch(picture):
    picture = picture if picture.ndim == 3 else picture[..., None]
    return torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None]


# ---- MASH ----


def masked_fit(method, given, masked=0.4, shuffle=False):
    return mash._MaskedFit(method, given, masked, shuffle, PLAIN)


def test_mash_has_the_network_of_noise2noise():
    assert weights(masked_fit(MASH(), torch.zeros(1, 3, 32, 32)).network) == 991_203


@pytest.mark.parametrize("profile, gap, expected", [
    ("official", 1.0, (0.1, False)), ("official", 1.01, (0.5, False)), ("official", 2.0, (0.5, False)),
    ("official", 2.01, (0.9, True)), ("paper", 1.5, (0.2, False)), ("paper", 2.5, (0.5, False)),
    ("paper", 2.51, (0.8, True)),
])  # fmt: skip
def test_the_gap_chooses_the_share_to_hide(profile, gap, expected):
    assert MASH.profile(profile).choose(gap) == expected


def test_the_gap_is_that_of_two_trainings(monkeypatch):
    """What the final training gets is what Eq. 10 says of the two levels, and the history tells it."""
    asked, trained = [], []
    monkeypatch.setattr(MASH, "level", lambda self, _, masked, where: asked.append(masked) or 10 + 4 * masked)
    plain = MASH._train
    monkeypatch.setattr(MASH, "_train", lambda self, *given: trained.append(given[1:3]) or plain(self, *given))
    answer = SHORT["mash"].changed(gaps=(1.0, 2.0))(batch(noisy()), PLAIN)
    assert asked == [0.2, 0.8] and trained == [(0.9, True)]
    assert answer.history[-1]["gap"] == pytest.approx(2.4) and answer.history[-1]["masked"] == 0.9


def test_the_level_is_the_spread_of_what_was_removed_on_0_to_255(monkeypatch):
    given = batch(noisy())
    monkeypatch.setattr(MASH, "_train", lambda self, noisy, *_: (0.5 * noisy, []))
    expected = 255 * float(np.std(0.5 * given.double().numpy()))
    assert MASH().level(given, 0.2, PLAIN) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("flatness", ["local", "tile"])
def test_the_spread_of_tiles_is_a_loop(flatness, generator):
    picture = torch.rand(1, 2, 9, 14, generator=generator)
    expected = np.zeros((2, 3))
    for i, j in itertools.product(range(2), range(3)):
        tile = picture[0, :, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4].numpy()
        cells = [tile[:, y : y + 2, x : x + 2] for y in range(3) for x in range(3)]
        spreads = [np.mean([c.std() for c in cell]) for cell in (cells if flatness == "local" else [tile])]
        expected[i, j] = max(spreads)
    assert np.allclose(tile_spread(picture, 4, flatness), expected / expected.max(), atol=1e-6)


def test_a_shuffle_permutes_flat_tiles_and_nothing_else(generator):
    picture = torch.rand(1, 3, 10, 13, generator=generator)
    flat = torch.tensor([[True, False, True], [False, True, False]])
    found = shuffle_tiles(picture, flat, 4, generator)
    moved = torch.zeros(10, 13, dtype=torch.bool)
    for i, j in itertools.product(range(2), range(3)):
        place = (slice(4 * i, 4 * i + 4), slice(4 * j, 4 * j + 4))
        before, after = (p[0][:, *place].flatten(1).T.tolist() for p in (picture, found))
        assert sorted(before) == sorted(after)  # whole colours, each once
        assert (before != after) == bool(flat[i, j])
        moved[place] = flat[i, j]
    assert torch.equal(found[..., ~moved], picture[..., ~moved])


@pytest.mark.parametrize("error", ["absolute", "squared"])
def test_the_loss_of_mash_counts_hidden_entries_over_all(error):
    given = batch(noisy(32, 32))
    fit = masked_fit(SHORT["mash"].changed(error=error), given)
    fit.target = 0.7 * given
    mask = bernoulli_mask(given.shape, 0.4, generator=fit.generator.clone_state())
    answer = fit.network(given * mask, None).detach().double().numpy()
    gap = np.abs((1 - mask.numpy()) * (answer - 0.7 * given.double().numpy()))
    expected = gap.mean() if error == "absolute" else (gap**2).mean()
    assert float(fit.loss(0)[0].detach()) == pytest.approx(expected, rel=1e-5)


def test_mash_never_shows_a_hidden_entry():
    given = batch(noisy(32, 32))
    fit = masked_fit(SHORT["mash"], given)
    before = fit.generator.get_state()
    answer, mask = fit.predict(), None
    fit.generator.set_state(before)
    mask = bernoulli_mask(given.shape, 0.4, generator=fit.generator)
    fit.generator.set_state(before)
    fit.noisy = given + (1 - mask)
    assert torch.equal(fit.predict(), answer) and 0.5 < float(mask.mean()) < 0.7


def test_the_target_is_shuffled_once_where_the_estimate_is_flat(monkeypatch):
    given = batch(noisy(32, 32))
    fit = masked_fit(SHORT["mash"].changed(flat=0.3), given, shuffle=True)
    estimate = torch.zeros_like(given)
    estimate[..., 16:] = torch.rand(1, 3, 32, 16, generator=torch_generator(1))
    monkeypatch.setattr(fit, "predict", lambda: estimate)
    fit.loss(2)
    assert torch.equal(fit.target, given) and not fit.capturable and masked_fit(SHORT["mash"], given).capturable
    fit.loss(3)
    kept = fit.target
    assert torch.equal(kept[..., 16:], given[..., 16:]) and not torch.equal(kept[..., :16], given[..., :16])
    fit.loss(4)
    assert fit.target is kept


# ---- Pixel2Pixel ----


@pytest.mark.parametrize("channels, count", [(3, 151_235), (1, 148_929)])
def test_pixel2pixel_has_some_150_thousand_weights(channels, count):
    assert weights(Compact(channels)) == count


def nearest_by_loop(picture, patch, window, count):
    height, width = picture.shape[-2:]
    reach = patch // 2
    grown = np.pad(picture[0].double().numpy(), ((0, 0), (reach, reach), (reach, reach)), mode="reflect")
    found = np.zeros((count, height, width), int)
    for i, j in itertools.product(range(height), range(width)):
        own, candidates = grown[:, i : i + patch, j : j + patch], []
        for y in range(max(0, i - window // 2), min(height, i + (window + 1) // 2)):
            for x in range(max(0, j - window // 2), min(width, j + (window + 1) // 2)):
                distance = ((grown[:, y : y + patch, x : x + patch] - own) ** 2).sum()
                candidates.append((distance if (y, x) != (i, j) else -1.0, y * width + x))
        found[:, i, j] = [place for _, place in sorted(candidates)[:count]]
    return found


@pytest.mark.parametrize("shape, patch, window", [((3, 11, 14), 5, 6), ((1, 9, 8), 3, 7)])
@pytest.mark.parametrize("entries", [2**23, 1])
def test_the_nearest_pixels_are_a_loop_in_bands_of_any_height(shape, patch, window, entries, generator, monkeypatch):
    monkeypatch.setitem(bank_room._ENTRIES, "cpu", entries)
    picture = torch.rand(1, *shape, generator=generator)
    found = nearest_pixels(picture, patch, window, 4)
    assert np.array_equal(found, nearest_by_loop(picture, patch, window, 4))
    bank = pixel_bank(picture, found)
    assert torch.equal(bank[0], picture[0])
    assert torch.equal(bank[2, :, 5, 3], picture[0].flatten(1)[:, found[2, 5, 3]])


def test_the_two_of_a_pair_never_share_a_pixel_and_all_pairs_are_alike(generator):
    """12 ordered pairs of 4 members, 6400 pixels: each count within 4.5 standard deviations."""
    members = torch.arange(4.0)[:, None, None, None].expand(4, 2, 80, 80)
    first, second = draw_pair(members, generator)
    assert torch.equal(first[:, 0], first[:, 1]) and torch.equal(second[:, 0], second[:, 1])
    counts = torch.bincount((4 * first[0, 0] + second[0, 0]).long().flatten(), minlength=16).view(4, 4)
    assert counts.diagonal().sum() == 0
    share, pixels = 1 / 12, 6400
    apart = ((counts - pixels * share) / (pixels * share * (1 - share)) ** 0.5)[~torch.eye(4, dtype=torch.bool)]
    assert apart.abs().max() < 4.5


def test_the_milestones_are_those_of_torch():
    schedule = Pixel2Pixel.profile("official").schedule()
    adam = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    other = torch.optim.lr_scheduler.MultiStepLR(adam, [1500, 2000, 2500], gamma=0.5)
    for step in range(3000):
        assert schedule.factor(step) == adam.param_groups[0]["lr"]
        adam.step(), other.step()


@pytest.mark.parametrize("sigma, count", [(5, 2), (10, 2), (15, 2), (17, 4), (25, 4), (35, 4), (36, 8), (90, 8)])
def test_more_noise_asks_for_more_similar_pixels(sigma, count):
    assert Pixel2Pixel(sigma=sigma).count(torch.zeros(1, 1, 16, 16)) == count
    assert Pixel2Pixel(sigma=sigma, used=3).count(torch.zeros(1, 1, 16, 16)) == 3


def test_pixel2pixel_estimates_sigma_where_it_is_not_given():
    assert Pixel2Pixel().count(batch(noisy(64, 64))) == 4
    with pytest.raises(B2GError, match="pixel2pixel needs a positive noise level sigma"):
        Pixel2Pixel().count(torch.full((1, 1, 32, 32), 0.5))


def test_the_answer_to_a_dark_picture_is_not_black():
    """From middle gray Adam overshot to where the sigmoid is flat: the mean ended below 0.001, at 22 dB."""
    clean = 0.15 * ASTRONAUT
    found = b2g.denoise(b2g.add_noise(clean, "gaussian", 5, seed=0), "pixel2pixel", "smoke", steps=60, width=64,
                        learning_rate=1e-3, side=0, device="cpu", precision="float32", progress=False).image
    assert b2g.psnr(clean, found) > 30 and abs(found.mean() - clean.mean()) < 0.02


def test_the_loss_of_pixel2pixel_is_the_absolute_difference_of_a_pair():
    fit = SHORT["pixel2pixel"].objective(batch(noisy(16, 16)), PLAIN)
    seen, target = draw_pair(fit.bank, fit.generator.clone_state())
    expected = np.abs(fit.network(seen).detach().double().numpy() - target.double().numpy()).mean()
    assert float(fit.loss(0)[0].detach()) == pytest.approx(expected, rel=1e-5) and len(fit.bank) == 4


# ---- NLR ----


def test_nlr_has_half_a_million_weights():
    fit = NLR().objective(torch.rand(1, 3, 16, 16), PLAIN)
    assert weights(fit.network) == 504_803


@pytest.mark.parametrize("shape, patch", [((3, 19, 22), 4), ((1, 16, 17), 8)])
def test_the_refilled_picture_is_a_loop(shape, patch, generator):
    picture = torch.rand(1, *shape, generator=generator)
    given = picture[0].double().numpy()
    height, width = (side // 2 * 2 for side in shape[1:])
    small = given[:, :height, :width].reshape(shape[0], height // 2, 2, width // 2, 2).mean((2, 4))
    places = lambda side: sorted({*range(0, side - patch + 1, patch // 4), side - patch})  # noqa: E731
    theirs = [small[:, y : y + patch, x : x + patch]
              for y in places(small.shape[1]) for x in places(small.shape[2])]  # fmt: skip
    total, count = np.zeros_like(given), np.zeros_like(given)
    for y, x in itertools.product(places(shape[1]), places(shape[2])):
        own = given[:, y : y + patch, x : x + patch]
        total[:, y : y + patch, x : x + patch] += min(theirs, key=lambda other: ((other - own) ** 2).sum())
        count[:, y : y + patch, x : x + patch] += 1
    assert count.min() > 0 and np.allclose(refilled(picture, patch)[0], total / count, atol=1e-6)


@pytest.mark.parametrize("stride", [1, 2])
def test_the_loss_of_nlr_is_prediction_and_consistency(stride):
    given = batch(noisy(18, 20))
    fit = SHORT["nlr"].changed(stride=stride, consistency=0.3, keep=0.25).objective(given, PLAIN)
    mask = bernoulli_mask(given.shape, 0.75, generator=fit.generator.clone_state())
    seen = given * mask + refilled(given) * (1 - mask)
    with torch.no_grad():
        apart = shuffle_up(fit.network(shuffle_down(seen, stride)), stride, 18, 20).double().numpy()
        whole = fit.network(seen).double().numpy()
    hidden = 1 - mask.numpy()
    expected = np.abs(hidden * (apart - given.numpy())).mean() + 0.3 * np.abs(hidden * (apart - whole)).mean()
    assert float(fit.loss(0)[0].detach()) == pytest.approx(expected, rel=1e-5)


def test_nlr_never_shows_a_hidden_entry():
    given = batch(noisy(18, 20))
    fit = SHORT["nlr"].objective(given, PLAIN)
    before = fit.generator.get_state()
    answer = fit.predict()
    fit.generator.set_state(before)
    mask = bernoulli_mask(given.shape, 1 - SHORT["nlr"].keep, generator=fit.generator)
    fit.generator.set_state(before)
    fit.noisy = given + (1 - mask)
    assert torch.equal(fit.predict(), answer)


# ---- what they all do ----


@pytest.mark.parametrize("name", SHORT)
@pytest.mark.parametrize("size, channels", [((16, 16), 3), ((17, 35), 1)])
def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(name, size, channels):
    given, state = noisy(*size, channels), torch.get_rng_state()
    method = SHORT[name].changed(steps=4)
    first, again, other = (
        b2g.denoise(given, method, seed=seed, progress=False, precision="float32") for seed in (3, 3, 4)
    )
    drop = lambda history: [{k: v for k, v in e.items() if k != "seconds"} for e in history]  # noqa: E731
    assert first.image.tobytes() == again.image.tobytes()
    assert drop(first.history) == drop(again.history) != drop(other.history)
    assert first.image.shape == given.shape and 0 <= first.image.min() and first.image.max() <= 1
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("name", SHORT)
def test_a_killed_fit_goes_on_to_the_same_bytes(name, tmp_path, monkeypatch):
    """MASH is killed in its last training, two steps after the target was shuffled."""
    given, path = noisy(40, 36), tmp_path / "fit.ckpt"
    clean = np.ascontiguousarray(ASTRONAUT[:40, :36])
    how = dict(seed=2, progress=False, precision="float32", clean=clean)
    method = SHORT[name].changed(side=32)
    expected = b2g.denoise(given, method, **how)
    with killed(monkeypatch, OBJECTIVES[name], 5, lambda fit: getattr(fit, "shuffle_from", 3) is not None):
        b2g.denoise(given, method, checkpoint=path, **how)
    assert path.exists()
    found = b2g.denoise(given, method, checkpoint=path, **how)
    assert found.image.tobytes() == expected.image.tobytes() and not list(tmp_path.iterdir())
    drop = lambda history: [{k: v for k, v in e.items() if k != "seconds"} for e in history]  # noqa: E731
    assert drop(found.history) == drop(expected.history) and "psnr" in found.history[0]


@pytest.mark.parametrize("method, settings, sentence", [
    (MASH, dict(probe_low=0), "probe_low is a share of hidden entries and must lie between 0 and 1, not 0.0"),
    (MASH, dict(masked_high=1), "masked_high is a share"),
    (MASH, dict(gaps=(2, 1)), "gaps are two noise levels on 0..255, the smaller one first"),
    (MASH, dict(flat=-1), "flat is a share of the largest spread"),
    (MASH, dict(error="huber"), "error must be one of absolute, squared"),
    (MASH, dict(flatness="global"), "flatness must be one of local, tile"),
    (MASH, dict(tile=1), "tile must be at least 2, not 1"),
    (MASH, dict(shuffle_from=-1), "shuffle_from must be at least 0"),
    (MASH, dict(passes=0), "passes must be at least 1"),
    (MASH, dict(side=31), "side is 0 .* at least 32 pixels, not 31"),
    (MASH, dict(width=0), "width must be at least 1"),
    (MASH, dict(steps=0), "steps must be at least 1"),
    (Pixel2Pixel, dict(sigma=0), "pixel2pixel's sigma is a noise level on 0..255, positive, not 0.0"),
    (Pixel2Pixel, dict(used=1), "used is 0 .* or at least 2 similar pixels, not 1"),
    (Pixel2Pixel, dict(patch=6), "patch is the odd side of a pixel's surroundings, not 6"),
    (Pixel2Pixel, dict(window=4), "window must be at least 5"),
    (Pixel2Pixel, dict(side=15), "side is 0 .* at least 16 pixels, not 15"),
    (Pixel2Pixel, dict(width=0), "width must be at least 1"),
    (Pixel2Pixel, dict(learning_rate=0), "learning_rate must be positive"),
    (NLR, dict(keep=1), "keep is the share of entries that stay, between 0 and 1, not 1.0"),
    (NLR, dict(consistency=-0.1), "consistency is a weight"),
    (NLR, dict(stride=0), "stride must be at least 1"),
    (NLR, dict(patch=1), "patch must be at least 2"),
    (NLR, dict(blocks=0), "blocks must be at least 1"),
    (NLR, dict(side=-1), "side is 0 .* at least 32 pixels, not -1"),
    (NLR, dict(steps=0), "steps must be at least 1"),
])  # fmt: skip
def test_an_impossible_setting_is_refused(method, settings, sentence):
    with pytest.raises(B2GError, match=sentence) as raised:
        method.profile(None, **settings)
    assert "\n" not in str(raised.value)
