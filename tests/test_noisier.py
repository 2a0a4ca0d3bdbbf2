"""Methods that add noise of a known strength: the correction in closed form, losses by hand,
and what becomes of a picture."""

import numpy as np
import pytest
import skimage.data
import torch
from killed import killed
from oracles import assert_mean, assert_rate

import b2g
import b2g.noisier
from b2g.crops import CropObjective, Drawn
from b2g.errors import B2GError
from b2g.method import Circumstances
from b2g.methods import IDDP, METHODS, Noisier2Noise, NoisyAsClean
from b2g.methods.iddp import corrupt
from b2g.noisier import corrected, noisier
from b2g.seeds import torch_generator

NAMES = ("noisy_as_clean", "noisier2noise", "iddp")
ASTRONAUT = skimage.data.astronaut()[20:84, 200:264].astype(np.float32) / 255
TINY = dict(steps=4, batch=1, side=16, layers=2, width=4)
SIGMA = 25 / 255
QUIET = dict(progress=False, precision="float32")


def batch(picture):
    return torch.from_numpy(np.ascontiguousarray(picture)).reshape(*picture.shape[:2], -1).permute(2, 0, 1)[None].float()


def dirty(clean=ASTRONAUT, seed=0):
    return b2g.add_noise(np.ascontiguousarray(clean), "gaussian", 25, seed=seed)


# ---- the correction ----


@pytest.mark.parametrize("strength", [0.3, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("spread", [0.02, 0.1, 1.0])
def test_the_correction_turns_one_posterior_mean_into_the_other(strength, spread):
    """For x ~ N(0, spread^2) both means are linear in z, with the slopes of the normal distribution."""
    shown = torch.linspace(-2, 2, 9, dtype=torch.float64)
    whole = spread**2 + SIGMA**2 * (1 + strength**2)
    answer = (spread**2 + SIGMA**2) / whole * shown  # E[y | z], to which a fit to y tends
    assert torch.allclose(corrected(answer, shown, strength), spread**2 / whole * shown, rtol=1e-9, atol=1e-12)


def test_the_correction_of_a_regression_on_the_noisy_picture_is_that_on_the_clean_one():
    """By draws: the slope of y on z, corrected, is the slope of x on z, and far from both others."""
    random, strength, many = np.random.RandomState(0), 0.5, 400_000
    clean = 0.15 * random.standard_normal(many)
    noisy = clean + SIGMA * random.standard_normal(many)
    shown = noisier(torch.from_numpy(noisy), strength * SIGMA, torch_generator(1)).numpy()
    slope = float(corrected(torch.tensor((noisy @ shown) / (shown @ shown)), torch.tensor(1.0), strength))
    assert_mean((clean - slope * shown) * shown / shown.var(), 0.0, unlike=(clean @ shown) / (shown @ shown) - slope + 0.1)
    assert abs(slope - (noisy @ shown) / (shown @ shown)) > 0.1


def test_added_noise_is_white_and_of_its_level(generator):
    picture = torch.full((1, 3, 120, 120), 0.5)
    added = (noisier(picture, SIGMA, generator) - picture).numpy() / SIGMA
    assert_mean(added, 0.0, unlike=0.06)
    assert_mean(added**2, 1.0, unlike=1.1)
    assert_mean(added[..., 1:] * added[..., :-1], 0.0, unlike=0.06)


# ---- the losses ----


def test_the_pairs_go_from_noisier_to_noisy():
    given, method = torch.rand(2, 1, 8, 8), NoisyAsClean(strength=0.7)
    shown = noisier(given, 0.7 * SIGMA, torch_generator(5)).numpy()
    expected = ((0.5 * shown - given.numpy()) ** 2).mean()
    loss = method.loss_of(lambda z: 0.5 * z, Drawn(given), torch.tensor(0.0), SIGMA, torch_generator(5))
    assert float(loss) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", ["gaussian", "signs"])
def test_the_cycle_pulls_the_second_answer_to_the_first(kind):
    """For f = a y by hand; the slope by a runs through the second answer alone."""
    given, slope = torch.rand(2, 1, 8, 8), torch.tensor(0.6, requires_grad=True)
    method = IDDP(corruption=kind, warm=0.5, weight=3)
    run = lambda picture: slope * picture  # noqa: E731
    loss, generator = method.loss_of(run, Drawn(given), torch.tensor(0.5), SIGMA, torch_generator(5)), torch_generator(5)
    prior, shown = 0.6 * given, noisier(given, SIGMA, generator)
    again = corrupt(prior, given, kind, SIGMA, generator)
    first, second = 0.6 * shown - given, 0.6 * again - prior
    assert float(loss.detach()) == pytest.approx(float(first.square().mean() + 3 * second.square().mean()), rel=1e-5)
    loss.backward()
    assert float(slope.grad) == pytest.approx(float((2 * first * shown + 6 * second * again).mean()), rel=1e-4)
    warm = method.loss_of(run, Drawn(given), torch.tensor(0.49), SIGMA, torch_generator(5))
    pairs = NoisyAsClean().loss_of(run, Drawn(given), torch.tensor(0.49), SIGMA, torch_generator(5))
    assert torch.equal(warm, pairs) and not torch.equal(warm, loss)


@pytest.mark.parametrize("kind, answer, cycle", [
    ("signs", lambda p: p, 0.0), ("gaussian", lambda p: p, SIGMA**2),
    ("signs", torch.zeros_like, 0.0), ("gaussian", torch.zeros_like, 0.0),
])  # fmt: skip
def test_why_the_cycle_needs_the_pairs(kind, answer, cycle):
    """A constant answer costs it nothing, nor under random signs does an answer that changes nothing."""
    given = torch.rand(1, 3, 64, 64)
    whole, pairs = (
        float(IDDP(corruption=kind, warm=warm).loss_of(answer, Drawn(given), torch.tensor(0.9), SIGMA, torch_generator(0)))
        for warm in (0.5, 1.0)
    )
    assert whole - pairs == pytest.approx(cycle, rel=0.05, abs=1e-7) and pairs > 0


def test_random_signs_keep_the_size_of_what_was_removed(generator):
    prior, noisy = torch.rand(2, 1, 3, 64, 64, generator=generator).double()
    again = corrupt(prior, noisy, "signs", SIGMA, generator)
    assert torch.allclose((again - prior).abs(), (noisy - prior).abs(), atol=1e-12)
    kept = ((again - prior) * (noisy - prior) > 0).sum()
    assert_rate(kept, prior.numel(), 0.5, unlike=[0.44, 0.56])


# ---- the answers ----


def test_noisy_as_clean_looks_at_the_picture_itself_and_noisier2noise_at_corrected_draws(monkeypatch):
    monkeypatch.setattr(CropObjective, "run", lambda self, picture: 0.8 * picture)
    given, where = batch(dirty()), Circumstances(precision="float32")
    for method in (NoisyAsClean, Noisier2Noise, IDDP):
        monkeypatch.setattr(method, "fitted", lambda self, noisy, circumstances, _=None: (self.objective(noisy, circumstances), []))
    assert torch.equal(NoisyAsClean(**TINY)(given, where).estimate, 0.8 * given)
    assert torch.equal(IDDP(**TINY)(given, where).estimate, 0.8 * given)
    method = Noisier2Noise(**TINY, strength=0.7, sigma=25, draws=3)  # at 0.5 the answers to 0.8 z would all be 0
    generator = method.objective(given, where).generators[0]
    shown = [noisier(given, 0.7 * SIGMA, generator) for _ in range(3)]
    expected = sum((1.49 * 0.8 * z - z) / 0.49 for z in shown) / 3
    assert torch.allclose(method(given, where).estimate, expected, atol=1e-6)


def test_noisier2noise_estimates_sigma_once_for_all_draws_and_shows_what_it_answers(monkeypatch):
    given, asked = batch(dirty()), []
    plain = b2g.noisier.given_or_estimated
    monkeypatch.setattr(b2g.noisier, "given_or_estimated", lambda *a: asked.append(a) or plain(*a))
    method = Noisier2Noise(**TINY, strength=0.7, draws=5)
    clean = batch(np.ascontiguousarray(ASTRONAUT))
    found = method(given, Circumstances(precision="float32", clean=clean))
    assert len(asked) == 2  # by the fit and by the answer
    # What the history shows is a corrected answer, not the network's own, and leaves no trace in the fit.
    assert torch.equal(found.estimate, method(given, Circumstances(precision="float32")).estimate)
    objective, _ = method.fitted(given, Circumstances(precision="float32"))
    moment = method.answer(objective, given, method.level(given), torch_generator(0))
    assert found.history[-1]["psnr"] == pytest.approx(b2g.metrics.psnr(clean, moment), abs=1e-3)


def test_the_network_is_a_small_dncnn():
    network = NoisyAsClean().network(3)
    assert sum(p.numel() for p in network.parameters()) == (27 * 32 + 32) + 4 * (288 * 32 + 32) + (288 * 3 + 3)


def test_sigma_is_estimated_where_it_is_not_given():
    given = batch(dirty())
    for name in NAMES:
        assert 255 * METHODS[name]().level(given) == pytest.approx(b2g.estimate_sigma(given))
        assert METHODS[name](sigma=30).level(given) == pytest.approx(30 / 255)
        with pytest.raises(B2GError, match=f"{name} needs a positive noise level sigma on 0..255, not 0.0"):
            METHODS[name](**TINY)(torch.full((1, 1, 32, 32), 0.5))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size, channels", [((16, 16), 3), ((17, 35), 1)])
def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(name, size, channels):
    clean = ASTRONAUT[: size[0], : size[1]] if channels == 3 else ASTRONAUT[: size[0], : size[1], 1]
    given, state = dirty(clean), torch.get_rng_state()
    runs = [b2g.denoise(given, name, **TINY, sigma=25, seed=seed, **QUIET) for seed in (3, 3, 4)]
    first, again, other = (run.image.tobytes() for run in runs)
    assert first == again != other and runs[0].image.shape == given.shape
    assert torch.equal(state, torch.get_rng_state())
    shown = b2g.denoise(given, name, **TINY, sigma=25, seed=3, clean=np.ascontiguousarray(clean), **QUIET)
    assert shown.image.tobytes() == first and "psnr" in shown.history[-1]


@pytest.mark.parametrize("name", NAMES)
def test_a_killed_fit_goes_on_to_the_same_bytes(name, tmp_path, monkeypatch):
    """Killed in the middle of IDDP's cycle, too."""
    given, path = dirty(ASTRONAUT[:20, :24]), tmp_path / "fit.ckpt"
    settings = TINY | dict(steps=8, sigma=25, seed=2) | QUIET
    expected = b2g.denoise(given, name, **settings)
    with killed(monkeypatch, CropObjective, 6):
        b2g.denoise(given, name, checkpoint=path, **settings)
    assert path.exists()
    assert b2g.denoise(given, name, checkpoint=path, **settings).image.tobytes() == expected.image.tobytes()


@pytest.mark.parametrize("name, settings, sentence", [
    ("noisy_as_clean", dict(sigma=0), "noisy_as_clean's sigma is a noise level on 0..255 and must be positive, not 0.0"),
    ("noisier2noise", dict(strength=0), "strength is the share of noise that is added and must be positive, not 0.0"),
    ("noisier2noise", dict(draws=0), "draws must be at least 1, not 0"),
    ("noisier2noise", dict(noise="poisson"), "noisier2noise has no setting 'noise': its settings are sigma, strength"),
    ("iddp", dict(warm=0), r"warm is the share of steps before the cycle and must lie in \(0, 1\], not 0.0"),
    ("iddp", dict(weight=0), "weight is what the cycle counts beside the pairs and must be positive, not 0.0"),
    ("iddp", dict(warm=1.5), r"warm .* \(0, 1\], not 1.5"),
    ("iddp", dict(corruption="poisson"), "corruption must be one of gaussian, signs, not 'poisson'"),
    ("noisy_as_clean", dict(side=15), "side must be at least 16, not 15"),
    ("noisy_as_clean", dict(batch=0), "batch must be at least 1, not 0"),
    ("noisy_as_clean", dict(layers=1), "layers must be at least 2, not 1"),
    ("noisy_as_clean", dict(width=0), "width must be at least 1, not 0"),
    ("noisy_as_clean", dict(steps=0), "steps must be at least 1, not 0"),
    ("noisy_as_clean", dict(decay_from=2), "decay_from is a share of the steps"),
])  # fmt: skip
def test_an_impossible_setting_is_refused(name, settings, sentence):
    with pytest.raises(B2GError, match=sentence) as raised:
        METHODS[name].profile(None, **settings)
    assert "\n" not in str(raised.value)


def test_pictures_side_by_side_are_refused():
    with pytest.raises(B2GError, match="use together=False"):
        b2g.denoise(np.stack([dirty(), dirty(seed=1)]), "iddp", together=True, **TINY, **QUIET)
