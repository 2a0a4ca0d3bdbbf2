"""Consensus: exactly its members' mean, each told the same noise, and named by all of their settings."""

import itertools
import json
import types

import numpy as np
import pytest
import skimage.data
import torch

import b2g
import b2g.fit as engine
from b2g.errors import B2GError
from b2g.loop import BlindSpotLoop
from b2g.method import Circumstances
from b2g.methods import B2G, Consensus, LIChI, NLRidge
from b2g.methods import consensus as module
from b2g.noise import estimate_correlated_sigma, estimate_sigma
from b2g.recorrupt import RecorruptedLoop
from b2g.seeds import seed_for
from b2g.tiles import told

CLEAN = np.ascontiguousarray(skimage.data.astronaut()[20:84, 200:264].astype(np.float32) / 255)
WHERE = Circumstances(seed=5, precision="float32")
TINY = dict(steps=3, width=4, head=(4, 4), mask="bernoulli", learning_rate=8e-3, average=0.9)


@pytest.fixture
def tiny(monkeypatch):
    """A network of three steps in the place of the smoke profile: what is tested here is not its quality."""
    monkeypatch.setitem(B2G.profiles, "smoke", TINY)
    return Consensus.profile("smoke", sigma=25.0)


def batch(size=24, kind="gaussian", level=25):
    noisy = b2g.add_noise(np.ascontiguousarray(CLEAN[:size, :size]), kind, level, seed=0)
    return torch.from_numpy(noisy).permute(2, 0, 1)[None]


def members(sigma=25.0):
    """The two answers, each from its own method."""
    network = B2G.profile("smoke", sigma=sigma)(batch(), WHERE).estimate
    return network, NLRidge.profile(sigma=sigma)(batch(), WHERE).estimate


def test_it_is_the_weighted_mean_of_its_members_bit_for_bit(tiny):
    network, patches = members()
    assert (network - patches).abs().max() > 1e-3
    answer = lambda weight: tiny.changed(weight=weight)(batch(), WHERE).estimate  # noqa: E731
    assert torch.equal(answer(1.0), network) and torch.equal(answer(0.0), patches)
    assert torch.equal(answer(0.5), (network + patches) / 2)
    assert torch.allclose(answer(0.2), 0.2 * network + 0.8 * patches, atol=1e-7)


def test_several_networks_have_seeds_of_their_own_and_one_say_together(tiny, monkeypatch):
    given, answers, plain = [], [], B2G.beside

    def watched(self, noisy, circumstances, other):
        given.append(circumstances)
        answers.append(plain(self, noisy, circumstances, other)[0])
        return answers[-1], 1.0

    monkeypatch.setattr(B2G, "beside", watched)
    answer = tiny.changed(networks=3, weight=1.0)(batch(), WHERE)
    seeds = [one.seed for one in given]
    assert seeds == [5, seed_for(5, "network", 1), seed_for(5, "network", 2)] and len(set(seeds)) == 3
    pictures = [one.estimate for one in answers]
    assert (pictures[0] - pictures[1]).abs().max() > 1e-3
    assert torch.allclose(answer.estimate, sum(pictures) / 3, atol=1e-7)
    assert [entry["step"] for entry in answer.history if "step" in entry] == 3 * [1, 2, 3]
    assert answer.history[0] == {"sigma": 25.0}
    assert torch.equal(tiny.changed(weight=1.0)(batch(), WHERE).estimate, pictures[0])


def test_correlated_noise_is_taken_for_white_noise_of_its_level(tiny):
    noisy = batch()
    level = estimate_correlated_sigma(noisy)
    assert abs(level / estimate_sigma(noisy) - 1) > 0.01  # so either would be seen
    answer = tiny.changed(sigma=None, noise="correlated")(noisy, WHERE)
    assert answer.history[0] == {"sigma": level}
    assert torch.equal(answer.estimate, tiny.changed(sigma=level)(noisy, WHERE).estimate)
    for method in (NLRidge(noise="correlated"), LIChI(noise="correlated", window=15)):
        assert method(noisy).history == [{"sigma": level}]
        assert told(method, noisy).sigma == level


def test_sigma_is_estimated_once_for_all(tiny, monkeypatch):
    asked = []

    def once(noise, noisy):
        asked.append(noisy)
        return 20.0

    def never(noisy):
        raise AssertionError("a member was to be told")

    monkeypatch.setattr(module, "level_by", once)
    monkeypatch.setattr("b2g.noise.estimate_sigma", never)  # what either member would ask
    monkeypatch.setitem(B2G.profiles, "smoke", TINY | dict(input="recorrupted", output="linear"))  # needs sigma
    blind = tiny.changed(sigma=None, networks=2)(batch(), WHERE)
    assert len(asked) == 1 and torch.equal(asked[0], batch())
    assert blind.history[0] == {"sigma": 20.0}
    told = tiny.changed(sigma=20.0, networks=2)(batch(), WHERE)
    assert len(asked) == 1 and torch.equal(blind.estimate, told.estimate)
    assert not torch.equal(tiny.changed(networks=2)(batch(), WHERE).estimate, told.estimate)  # 25 is not 20


@pytest.mark.parametrize("patches, member", [("nl_ridge", NLRidge), ("lichi", LIChI)])
@pytest.mark.parametrize("noise", ["gaussian", "poisson"])
def test_its_members_are_the_named_profiles_told_of_the_noise(patches, member, noise):
    network, other = Consensus(network="best", patches=patches, noise=noise).members(25.0)
    sigma = 25.0 if noise == "gaussian" else None
    assert network == B2G.profile("best", noise=noise, sigma=sigma)
    assert other == member.profile(noise=noise, sigma=sigma)


def test_its_identity_names_every_setting_of_its_members(monkeypatch):
    method, found = Consensus(sigma=25.0), set()
    assert json.loads(method.identity())["members"] == [
        json.loads(member.identity()) for member in method.members(25.0)
    ]
    found.add(method.identity())
    found |= {method.changed(**change).identity() for change in (
        dict(network="best"), dict(patches="nl_ridge"), dict(weight=0.4), dict(networks=2), dict(sigma=24.0),
        dict(sigma=None), dict(sigma=None, noise="poisson"))}  # fmt: skip
    other = LIChI.default_profile
    for where, name, value in ((B2G.profiles, "fast", B2G.profiles["fast"] | dict(rate=0.123)),
                               (LIChI.profiles, other, LIChI.profiles[other] | dict(window=33))):  # fmt: skip
        with monkeypatch.context() as patch:
            patch.setitem(where, name, value)
            found.add(method.identity())
    for member in (B2G, LIChI, Consensus):
        with monkeypatch.context() as patch:
            patch.setattr(member, "revision", member.revision + 1)
            found.add(method.identity())
    with monkeypatch.context() as patch:
        patch.setitem(B2G.profiles, "paper", B2G.profiles["paper"] | dict(rate=0.123))  # no member of it
        assert method.identity() in found
    assert len(found) == 1 + 7 + 2 + 3


@pytest.mark.parametrize("which", [0, 1])
def test_a_killed_consensus_goes_on_to_the_same_bytes(which, tiny, tmp_path, monkeypatch):
    """Killed in the first or in the second network's fit."""
    noisy, path = batch()[0].permute(1, 2, 0).numpy(), tmp_path / "fit.ckpt"
    run = lambda **more: b2g.denoise(noisy, tiny, networks=2, progress=False, precision="float32", **more)  # noqa: E731
    expected, plain, steps, clock = run(), BlindSpotLoop.loss, [], itertools.count(0, 61)

    def killed(self, step):
        steps.append(step)
        if len(steps) == 3 * which + 3:
            raise KeyboardInterrupt
        return plain(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(engine, "time", types.SimpleNamespace(perf_counter=lambda: float(next(clock))))
        patch.setattr(BlindSpotLoop, "loss", killed)
        with pytest.raises(KeyboardInterrupt):
            run(checkpoint=path)
    assert [file.name for file in tmp_path.iterdir()] == ["fit.ckpt" if which == 0 else "fit.ckpt.1"]
    found = run(checkpoint=path)
    assert found.image.tobytes() == expected.image.tobytes() and not list(tmp_path.iterdir())


def test_poisson_noise_reaches_both_members(tiny):
    """It is the mean of the members that are told of it, which count the photons themselves."""
    clean = np.concatenate([CLEAN[:24, :24] * 0.15, CLEAN[:24, :24]])
    noisy = torch.from_numpy(b2g.add_noise(clean, "poisson", 40, seed=0)).permute(2, 0, 1)[None]
    told = dict(noise="poisson")
    network = B2G.profile("smoke", **told)(noisy, WHERE).estimate
    patches = NLRidge.profile(**told)(noisy, WHERE).estimate
    answer = tiny.changed(sigma=None, **told)(noisy, WHERE)
    assert torch.equal(answer.estimate, (network + patches) / 2)
    assert set(answer.history[0]) == {"photons"} and answer.history[0]["photons"] == pytest.approx(40, rel=0.3)
    plain = B2G.profile("smoke")(noisy, WHERE).estimate
    assert (network - plain).abs().max() > 1e-3  # the network was told, too


# ---- the share that held pixels tell ----

HELD = dict(steps=3, width=4, head=(4, 4), input="recorrupted", patches="nl_ridge", draws=2, hold=0.2, output="linear",
            standout="none", answer="visible", passes=2)  # fmt: skip


def held(monkeypatch, **more):
    monkeypatch.setitem(B2G.profiles, "smoke", HELD | more)
    return Consensus.profile("smoke", weighing="held", sigma=None if "noise" in more else 25.0, **more)


@pytest.mark.parametrize("networks", [1, 2])
def test_the_mean_is_weighed_as_each_fit_says(networks, monkeypatch):
    method = held(monkeypatch).changed(networks=networks)
    asked, shares, plain = [], iter([0.3, 0.8]), RecorruptedLoop.share_beside

    def told(self, other):
        asked.append((plain(self, other), other(self.noisy, 0.2)))
        return torch.tensor(next(shares)).reshape(1, 1, 1, 1)

    monkeypatch.setattr(RecorruptedLoop, "share_beside", told)
    answer = method(batch(), WHERE)
    patches = NLRidge.profile(sigma=25.0)(batch(), WHERE).estimate
    mean = 0
    for index, share in enumerate([0.3, 0.8][:networks]):
        seed = 5 if index == 0 else seed_for(5, "network", index)
        network = B2G.profile("smoke", sigma=25.0)(batch(), Circumstances(seed=seed, precision="float32")).estimate
        mean = mean + (share * network + (1 - share) * patches) / networks
    assert torch.allclose(answer.estimate, mean, atol=1e-6)
    assert answer.history[-1] == {"share": pytest.approx([0.3, 0.55][networks - 1])}
    # Beside the patch denoiser, told the level that it is asked for.
    assert torch.equal(asked[0][1], NLRidge.profile(sigma=0.2 * 255)(batch()).estimate)
    assert all(0 <= float(share) <= 1 for share, _ in asked)


def test_poisson_noise_is_weighed_where_it_is_gaussian(monkeypatch):
    noisy, asked = batch(kind="poisson", level=40), []
    plain = RecorruptedLoop.share_beside

    def told(self, other):
        asked.append((self.noisy, self.sigma))
        return plain(self, other)

    monkeypatch.setattr(RecorruptedLoop, "share_beside", told)
    answer = held(monkeypatch, noise="poisson")(noisy, WHERE)
    [(seen, sigma)] = asked
    assert not torch.allclose(seen, noisy, atol=0.01) and 0 < sigma
    network = B2G.profile("smoke")(noisy, WHERE).estimate
    patches = NLRidge.profile(noise="poisson")(noisy, WHERE).estimate
    share = answer.history[-1]["share"]
    assert torch.allclose(answer.estimate, share * network + (1 - share) * patches, atol=1e-6)


@pytest.mark.parametrize("settings, sentence", [
    (dict(network="quick"), "network must be one of paper, .*, not 'quick'"),
    (dict(patches="bm3d"), "patches must be one of nl_ridge, lichi, not 'bm3d'"),
    (dict(networks=0), "networks must be at least 1, not 0"),
    (dict(weight=1.2), r"weight is the networks' share and must lie in \[0, 1\], not 1.2"),
    (dict(weight=-0.1), r"weight is the networks' share and must lie in \[0, 1\], not -0.1"),
    (dict(noise="speckle"), "noise must be one of gaussian, poisson, correlated, not 'speckle'"),
    (dict(sigma=0), "sigma is a noise level on 0..255 and must be positive, not 0.0"),
    (dict(weighing="guessed"), "weighing must be one of fixed, held, not 'guessed'"),
    (dict(weight=0.4), "weight is not used with weighing='held'; leave it out, or set weighing='fixed'"),
    (dict(network="masked"), "weighing='held' needs a network that holds pixels back, not 'masked'; set"),
    (dict(sigma=25, noise="poisson"), "consensus's sigma belongs to noise='gaussian'"),
])  # fmt: skip
def test_what_cannot_be_is_refused(settings, sentence):
    with pytest.raises(B2GError, match=sentence) as raised:
        Consensus.profile(None, **settings)
    assert "\n" not in str(raised.value)


def test_the_patch_denoisers_profile_is_the_members_and_the_one_that_weighs(monkeypatch):
    """With NL-Ridge's official profile: joint colours, so another answer than the default's."""
    method, asked = held(monkeypatch).changed(patches_profile="official"), []
    plain = RecorruptedLoop.share_beside

    def told(self, other):
        asked.append(other(self.noisy, 0.2))
        return plain(self, other)

    monkeypatch.setattr(RecorruptedLoop, "share_beside", told)
    answer = method(batch(), WHERE)
    share = answer.history[-1]["share"]
    network = B2G.profile("smoke", sigma=25.0)(batch(), WHERE).estimate
    patches = NLRidge.profile("official", sigma=25.0)(batch(), WHERE).estimate
    assert torch.allclose(answer.estimate, share * network + (1 - share) * patches, atol=1e-6)
    assert torch.equal(asked[0], NLRidge.profile("official", sigma=0.2 * 255)(batch()).estimate)
    assert not torch.equal(asked[0], NLRidge.profile(sigma=0.2 * 255)(batch()).estimate)
