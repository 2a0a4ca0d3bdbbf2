import dataclasses
import json
import re

import numpy as np
import pytest
import skimage.data
import torch
from killed import killed
from torch import nn

import b2g
from b2g.errors import B2GError
from b2g.fit import build
from b2g.loop import BlindSpotLoop
from b2g.losses import b2g_loss, uniform_loss
from b2g.method import Circumstances, Denoised, added_later, canonical_json
from b2g.methods import (
    B2G, BM3D, METHODS, ZSN2N, Consensus, LIChI, NLRidge, Noise2Fast, Noise2Same, Noise2Self, Noise2Void, Self2Self,
)  # fmt: skip
from b2g.methods.ap_bsn import APBSN, APBSNMany
from b2g.methods.dgunet import DGUNet
from b2g.methods.hqssl import HQSSL
from b2g.methods.lg_bpn import LGBPN, PUBLISHED, LGBPNMany
from b2g.methods.mpi import MPI, MPIScratch
from b2g.methods.dip import DIP
from b2g.methods.blind2unblind import Blind2Unblind, Blind2UnblindMany
from b2g.methods.neighbor2neighbor import Neighbor2Neighbor, Neighbor2NeighborMany
from b2g.methods.noise2noise import Noise2Noise
from b2g.methods.mash import MASH
from b2g.methods.nlr import NLR
from b2g.methods.pixel2pixel import Pixel2Pixel
from b2g.methods.iddp import IDDP
from b2g.methods.noisier2noise import Noisier2Noise
from b2g.methods.noisy_as_clean import NoisyAsClean
from b2g.methods import NonLocalMeans, PlugAndPlay, TotalVariation, WaveletShrinkage
from b2g.methods.zs_n2n import NoisePredictor, _PairObjective, pair_downsample
from b2g.posterior import posterior_mean
from b2g.recorrupt import RecorruptedLoop
from b2g.shuffle import from_mosaic, to_mosaic
from b2g.window import Canvas

FITTED = ("b2g", "self2self", "zs_n2n")
ASTRONAUT = skimage.data.astronaut()[20:84, 200:264].astype(np.float32) / 255
SHORT = {"b2g": dict(steps=3), "self2self": dict(steps=3, passes=2), "zs_n2n": dict(steps=3, width=4)}


def quick(noisy, name, **more):
    return b2g.denoise(noisy, name, "smoke", progress=False, precision="float32", **(SHORT[name] | more))


def noisy(height=16, width=16, channels=3, seed=0):
    clean = ASTRONAUT[:height, :width] if channels == 3 else ASTRONAUT[:height, :width, 1]
    return b2g.add_noise(np.ascontiguousarray(clean), "gaussian", 25, seed=seed)


# ---- settings, profiles, identity ----


def test_the_registry_knows_each_method_by_its_name():
    assert METHODS == {
        "b2g": B2G, "consensus": Consensus, "self2self": Self2Self, "zs_n2n": ZSN2N, "bm3d": BM3D,
        "nl_ridge": NLRidge, "lichi": LIChI,
        "noise2self": Noise2Self, "noise2void": Noise2Void, "noise2same": Noise2Same, "noise2fast": Noise2Fast,
        "mpi": MPI, "mpi_scratch": MPIScratch,
        "dip": DIP,
        "neighbor2neighbor": Neighbor2Neighbor, "neighbor2neighbor_many": Neighbor2NeighborMany,
        "blind2unblind": Blind2Unblind, "blind2unblind_many": Blind2UnblindMany, "noise2noise": Noise2Noise,
        "ap_bsn": APBSN, "ap_bsn_many": APBSNMany, "hqssl": HQSSL, "dgunet": DGUNet, "lg_bpn": LGBPN,
        "lg_bpn_many": LGBPNMany,
        "mash": MASH, "pixel2pixel": Pixel2Pixel, "nlr": NLR,
        "noisy_as_clean": NoisyAsClean, "noisier2noise": Noisier2Noise, "iddp": IDDP,
        "pnp": PlugAndPlay, "nlm": NonLocalMeans, "wavelet": WaveletShrinkage, "tv": TotalVariation,
    }  # fmt: skip
    for name, method in METHODS.items():
        assert (
            method.name == name and method.default_profile in method.profiles and "smoke" in method.profiles
        )
        assert method.label and method.cost
        # What a reader can follow: the word "doi" alone is no source.
        assert re.search(r"\bdoi 10\.\d{4,}/\S|https://\S+\.\S", method.source), method.source


@pytest.mark.parametrize("name, profile", [(name, p) for name, m in METHODS.items() for p in m.profiles])
def test_every_profile_can_be_made_and_named(name, profile):
    method = METHODS[name].profile(profile)
    for key, value in METHODS[name].profiles[profile].items():
        assert getattr(method, key) == value
    json.loads(method.identity())


def test_the_default_profile():
    assert B2G.profile() == B2G.profile("fast") and ZSN2N.profile() == ZSN2N() and BM3D.profile() == BM3D()
    assert Self2Self.profile() == Self2Self(normaliser="self2self")


def test_profiles_say_what_the_papers_say():
    paper = B2G.profile("paper")
    assert (paper.learning_rate, paper.omega, paper.gamma, paper.masked) == (2e-5, 0.8, 0.5, 0.25)
    assert (paper.detail_threshold, paper.standout_threshold, paper.passes, paper.answer) == (
        40,
        25,
        40,
        "passes",
    )
    assert (paper.mask, paper.visible, paper.attention_between) == ("distance", "attached", "none")
    faithful = B2G.profile("faithful")
    assert faithful.mask == "gradient" and faithful.visible == "detached" and faithful.standout == "half"
    official, printed = Self2Self.profile("official"), Self2Self.profile("paper")
    assert (official.learning_rate, official.steps, official.passes) == (1e-4, 150_000, 100)
    assert (printed.learning_rate, printed.steps, printed.passes) == (1e-5, 450_000, 50)
    assert (ZSN2N().learning_rate, ZSN2N().steps) == (1e-3, 2000)


def test_identity_is_canonical_and_never_changes_unnoticed():
    """A stored record is found by this text: where it must change, ``revision`` must rise with it."""
    assert (
        ZSN2N().identity() == '{"learning_rate":0.001,"method":"zs_n2n","revision":1,"steps":2000,"width":48}'
    )
    assert Self2Self.profile("official").identity() == (
        '{"dropout":0.3,"flips":true,"head":[64,32],"keep":0.7,"learning_rate":0.0001,"method":"self2self",'
        '"normaliser":"self2self","passes":100,"revision":1,"steps":150000,"width":48}'
    )
    assert BM3D().identity() == '{"method":"bm3d","revision":1,"sigma":null}'


@pytest.mark.parametrize("name", METHODS)
def test_every_setting_and_the_revision_are_part_of_the_identity(name, monkeypatch):
    method = METHODS[name](**BASE_OF.get(name, {}))
    others = OTHER | OTHER_OF.get(name, {})
    found = {method.identity()}
    for field in dataclasses.fields(method):
        value = getattr(method, field.name)
        if isinstance(value, str) or field.name in OTHER_OF.get(name, {}):
            other = others[field.name]
        elif isinstance(value, tuple):
            other = (value[0] + 1, *value[1:])
        else:
            other = {bool: not value, int: 71, float: 0.123, type(None): 25.0}[type(value)]
        found.add(method.changed(**{field.name: other}).identity())
    monkeypatch.setattr(METHODS[name], "revision", METHODS[name].revision + 1)
    found.add(method.identity())
    assert len(found) == len(dataclasses.fields(method)) + 2


def test_a_setting_added_later_leaves_the_identity_of_older_runs_alone():
    @dataclasses.dataclass(frozen=True)
    class Grown(ZSN2N):
        extra: int = added_later(0)

    assert Grown(steps=7).identity() == ZSN2N(steps=7).identity()
    assert Grown(steps=7, extra=1).identity() != ZSN2N(steps=7).identity()
    assert json.loads(Grown(extra=2).identity())["extra"] == 2


def test_what_b2g_learnt_later_leaves_its_older_runs_alone():
    """At its default, none of these settings is in an identity; at another value each is."""
    later = dict(input="recorrupted", noise="poisson", sigma=25.0, strength=0.7, draws=3, patches="lichi", side=64,
                 weights=0.9, posterior="local", depth=4, dilation=2, shuffle=2)  # fmt: skip
    assert not set(later) & set(json.loads(B2G().identity()))
    for name, value in later.items():
        assert json.loads(B2G(output="linear", **{name: value}).identity())[name] == value
    assert "colour" not in json.loads(ZSN2N().identity())


OTHER = dict(
    decay="cosine", visible="attached", operator="sobel", combine="sum", loss_norm="all", target="hidden",
    detail_over="max", pilot="average", masked_layers="all", norm="none", attention="none",
    attention_between="none", standout="all", standout_on="output", standout_scale="range", mask="uniform",
    dropout="all", output="sigmoid", answer="passes", normaliser="self2self", standout_below="drop",
    noise="poisson", input="recorrupted", patches="lichi", posterior="local", colour="opponent",
)  # fmt: skip

# What a method must be set to, so that each of its settings may be changed alone.
BASE_OF = {"b2g": dict(output="linear"), **{name: dict(calibration="sigma") for name in ("nlm", "wavelet", "tv")},
           "pnp": dict(prior="ffdnet"), "lg_bpn_many": PUBLISHED}
PATCH = dict(reaches=(3, 10), hidden=5, test_shrink=(0.5, 0.8), refine_shrink=(0.5, 0.43))
OTHER_OF = {  # where a setting's name has other values than in OTHER
    "consensus": dict(network="best", patches="nl_ridge", weighing="held", patches_profile="official"),
    "noise2self": dict(answer="blind"),
    "noise2void": dict(error="squared"),
    "mpi": dict(statistics="stored"),
    "dip": dict(loss="sure", stopping="variance"),
    "neighbor2neighbor": dict(decay="constant"),
    "pnp": dict(prior="dncnn", weights="other.pth", noise="correlated"),
    "bm3d": dict(noise="correlated"),
    **{name: dict(calibration="j_invariant", stride=3, answer="j_invariant", wavelet="db2", levels=3) for name in ("nlm", "wavelet", "tv")},
    "blind2unblind": dict(output="blind", beta=1.5, last_beta=30.0, decay="constant"),
    "blind2unblind_many": dict(output="blind", beta=1.5, last_beta=30.0, weights="other.safetensors", recipe="full"),
    "neighbor2neighbor_many": dict(weights="other.safetensors", recipe="full"),
    "noise2noise": dict(weights="other.safetensors", recipe="full"),
    "ap_bsn": dict(decay="constant"),
    "ap_bsn_many": dict(weights="other.safetensors", recipe="full"),
    "lg_bpn": dict(decay="constant", width=64, **PATCH),
    "lg_bpn_many": dict(weights="other.safetensors", recipe="full", width=64, **PATCH),
    "hqssl": dict(weights="other.safetensors", recipe="full"),
    "dgunet": dict(weights="other.safetensors", recipe="full"),
    "iddp": dict(corruption="signs"),
    "mash": dict(error="squared", flatness="tile"),
}


def test_equal_settings_have_one_identity_however_they_were_given():
    assert B2G().changed(head=[32, 16], masked=0.25, steps=1000).identity() == B2G().identity()
    texts = {
        B2G(omega=omega, head=head).identity()
        for omega in (1, 1.0, np.float32(1))
        for head in ([9, 8], (9, 8))
    }
    assert len(texts) == 1 and texts == {B2G().changed(omega=1, head=[9, 8]).identity()}
    assert (
        BM3D(sigma=25).identity()
        == BM3D(sigma=25.0).identity()
        == BM3D().changed(sigma=np.int64(25)).identity()
    )
    assert BM3D(sigma=25).changed(sigma=None) == BM3D()


def test_canonical_json_is_one_text_for_one_value():
    assert canonical_json({"b": (1, 2.5), "a": "é"}) == '{"a":"\\u00e9","b":[1,2.5]}'


@pytest.mark.parametrize("name, settings, sentence", [
    ("b2g", dict(stepps=3), "b2g has no setting 'stepps': its settings are steps, learning_rate"),
    ("b2g", dict(steps="many"), "b2g's setting steps is of type int .*; 'many' is not"),
    ("b2g", dict(steps=2.5), "b2g's setting steps is of type int .*; 2.5 is not"),
    ("b2g", dict(flips=1), "b2g's setting flips is of type bool .*; 1 is not"),
    ("b2g", dict(omega=True), "b2g's setting omega is of type float .*; True is not"),
    ("b2g", dict(omega=None), "b2g's setting omega is of type float .*; None is not"),
    ("b2g", dict(head=[1, 2, 3]), "b2g's setting head is of type tuple"),
    ("b2g", dict(head=["a", 2]), "b2g's setting head is of type int"),
    ("b2g", dict(omega=float("nan")), "b2g's setting omega must be a finite number, not nan"),
    ("b2g", dict(learning_rate=float("inf")), "b2g's setting learning_rate must be a finite number, not inf"),
    ("b2g", dict(steps=0), "steps must be at least 1, not 0"),
    ("b2g", dict(learning_rate=-1), "learning_rate must be positive, not -1"),
    ("b2g", dict(decay="slow"), "decay must be one of"),
    ("b2g", dict(visible="yes"), "visible must be one of"),
    ("b2g", dict(operator="laplace"), "operator must be one of"),
    ("b2g", dict(combine="product"), "combine must be one of"),
    ("b2g", dict(loss_norm="some"), "loss_norm must be one of"),
    ("b2g", dict(target="clean"), "target must be one of"),
    ("b2g", dict(mask="gauss"), "mask must be"),
    ("b2g", dict(masked=0), "masked is the share"),
    ("b2g", dict(detail_over="mean"), "detail_over must be"),
    ("b2g", dict(pilot="clean"), "pilot must be one of"),
    ("b2g", dict(width=0), "width must be at least 1, not 0"),
    ("b2g", dict(head=[0, 4]), "head must be at least 1, not"),
    ("b2g", dict(standout="most"), "standout must be one of"),
    ("b2g", dict(standout_on="both"), "standout_on must be one of"),
    ("b2g", dict(standout_scale="log"), "standout_scale must be one of"),
    ("b2g", dict(output="tanh"), "output must be one of"),
    ("b2g", dict(rate=1.0), "rate is the share"),
    ("b2g", dict(answer="best"), "answer must be one of"),
    ("b2g", dict(average=1), r"decay must lie in \[0, 1\), not 1"),
    ("b2g", dict(passes=0), "passes must be at least 1, not 0"),
    ("b2g", dict(answer="median"), "answer must be one of average, passes, visible, not 'median'"),
    ("b2g", dict(input="noisy"), "input must be one of masked, recorrupted, not 'noisy'"),
    ("b2g", dict(noise="speckle"), "noise must be one of gaussian, poisson, correlated, not 'speckle'"),
    ("b2g", dict(patches="bm3d"), "patches must be one of none, nl_ridge, lichi, not 'bm3d'"),
    ("b2g", dict(posterior="half"), "posterior must be one of none, global, local, not 'half'"),
    ("b2g", dict(sigma=0), "b2g's sigma is a noise level on 0..255 and must be positive, not 0.0"),
    ("b2g", dict(sigma=25, noise="poisson"), "b2g's sigma belongs to noise='gaussian'"),
    ("b2g", dict(strength=0), "strength .* must be positive, not 0.0"),
    ("b2g", dict(hold=1.0), r"hold .* in \[0, 1\), not 1.0"),
    ("b2g", dict(draws=-1), "draws must be at least 0, not -1"),
    ("b2g", dict(side=-1), "side must be at least 0, not -1"),
    ("b2g", dict(side=63), "side is 0 .* or a window of at least 64 pixels, not 63"),
    ("b2g", dict(depth=1), "depth must be at least 2, not 1"),
    ("b2g", dict(dilation=0), "dilation must be at least 1, not 0"),
    ("b2g", dict(shuffle=0), "shuffle must be at least 1, not 0"),
    ("b2g", dict(weights=1.0), r"weights .* in \[0, 1\), not 1.0"),
    ("b2g", dict(pilot="patches", patches="none"), "pilot='patches' needs a patch-based denoiser"),
    ("b2g", dict(input="recorrupted", visible="attached"), "visible f.y. belongs to masks"),
    ("b2g", dict(input="recorrupted", visible="none", output="sigmoid"), "set output='linear'"),
    ("b2g", dict(input="masked", side=64, mask="distance"), "side.* goes with a mask of a fixed law"),
    ("b2g", dict(input="masked", side=64, standout_on="output"), "side.* goes with a mask of a fixed law"),
    ("self2self", dict(keep=1.0), "keep is the share .* and must lie between 0 and 1, not 1.0"),
    ("self2self", dict(keep=0), "keep is the share"),
    ("self2self", dict(dropout=1.0), "dropout is the share"),
    ("self2self", dict(normaliser="liu"), "normaliser must be one of"),
    ("self2self", dict(passes=0), "passes must be at least 1, not 0"),
    ("zs_n2n", dict(width=0), "width must be at least 1, not 0"),
    ("zs_n2n", dict(steps=0), "steps must be at least 1, not 0"),
    ("bm3d", dict(sigma=-1), "sigma .* must be positive, not -1"),
    ("bm3d", dict(sigma="high"), "sigma is of type float .*; 'high' is not"),
    ("bm3d", dict(sigma=float("nan")), "sigma must be a finite number, not nan"),
    ("bm3d", dict(steps=3), "bm3d has no setting 'steps': its settings are sigma"),
])  # fmt: skip
def test_an_impossible_setting_is_refused_when_the_method_is_made(name, settings, sentence):
    with pytest.raises(B2GError, match=sentence) as raised:
        METHODS[name].profile(None, **settings)
    assert "\n" not in str(raised.value)


def test_an_unknown_profile_is_refused():
    with pytest.raises(
        B2GError, match=f"b2g has no profile 'quick': choose one of {', '.join(B2G.profiles)}"
    ):
        B2G.profile("quick")


def test_a_checkpoint_belongs_to_picture_seed_and_settings():
    picture, other = torch.zeros(1, 1, 16, 16), torch.zeros(1, 1, 16, 16)
    other[0, 0, 3, 4] = 1e-6
    texts = {
        Circumstances(seed=seed).identity(method, image)
        for seed in (0, 1) for method in (B2G(), B2G(steps=2)) for image in (picture, other)
    }  # fmt: skip
    assert len(texts) == 8
    assert Circumstances(progress=True, precision="float32").identity(B2G(), picture) in texts


# ---- what each method is ----


@pytest.mark.parametrize("channels, weights", [(3, 22_275), (1, 21_313)])
def test_zs_n2n_has_the_weights_of_the_paper(channels, weights):
    assert sum(p.numel() for p in NoisePredictor(channels).parameters()) == weights


def test_pair_downsample_averages_the_diagonals(generator):
    picture = torch.rand(2, 3, 6, 8, generator=generator, dtype=torch.float64)
    first, second = pair_downsample(picture)
    for i in range(3):
        for j in range(4):
            a, b, c, d = (picture[..., 2 * i + y, 2 * j + x] for y in (0, 1) for x in (0, 1))
            assert torch.allclose(first[..., i, j], (b + c) / 2, rtol=1e-14)
            assert torch.allclose(second[..., i, j], (a + d) / 2, rtol=1e-14)
            assert torch.allclose(first[..., i, j] + second[..., i, j], 2 * (a + b + c + d) / 4, rtol=1e-14)


def test_the_halves_of_a_checkerboard_are_constant_and_opposite():
    board = torch.ones(1, 1, 8, 8)
    board[..., ::2, 1::2] = board[..., 1::2, ::2] = -1
    first, second = pair_downsample(board)
    assert (first == -1).all() and (second == 1).all()


def test_the_last_squares_of_odd_sides_give_the_halves_other_pixels():
    """A line that is repeated would give both halves the same noise; a mirrored one does not."""
    picture = torch.rand(1, 1, 9, 7, generator=torch.Generator().manual_seed(3))
    first, second = pair_downsample(ZSN2N(steps=2, width=4).objective(picture, Circumstances()).noisy)
    assert first.shape == second.shape == (1, 1, 5, 4)
    [[seen]] = picture
    for i in range(4):
        assert first[0, 0, i, 3] == (seen[2 * i, 5] + seen[2 * i + 1, 6]) / 2
        assert second[0, 0, i, 3] == (seen[2 * i, 6] + seen[2 * i + 1, 5]) / 2
    for j in range(3):
        assert first[0, 0, 4, j] == (seen[8, 2 * j + 1] + seen[7, 2 * j]) / 2
        assert second[0, 0, 4, j] == (seen[8, 2 * j] + seen[7, 2 * j + 1]) / 2


def test_the_loss_of_zs_n2n_is_residual_and_consistency(generator):
    picture = torch.rand(1, 3, 8, 8, generator=generator)
    network = build(lambda: NoisePredictor(3, 4), 0, torch.device("cpu"))
    f = lambda p: network(p).detach().numpy()  # noqa: E731
    halves = [h for h in pair_downsample(picture)]
    (n1, n2), (p1, p2) = (h.numpy() for h in halves), (h.numpy() - f(h) for h in halves)
    z1, z2 = (h.numpy() for h in pair_downsample(picture - torch.from_numpy(f(picture))))
    mean = lambda v: float((v**2).mean())  # noqa: E731
    expected = (mean(p1 - n2) + mean(p2 - n1)) / 2 + (mean(p1 - z1) + mean(p2 - z2)) / 2
    loss, estimate = _PairObjective(network, picture, "float32").loss(0)
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-5) and estimate is None


def test_the_consistency_term_reaches_the_whole_picture():
    """Its gradient runs through D(y - f(y)) as well: one evaluation of f on the whole picture shows it."""
    picture, sizes = torch.rand(1, 1, 8, 8), []

    class Constant(nn.Module):
        def __init__(self):
            super().__init__()
            self.large, self.small = nn.Parameter(torch.zeros(())), nn.Parameter(torch.zeros(()))

        def forward(self, image):
            sizes.append(image.shape[-1])
            return (self.large if image.shape[-1] == 8 else self.small).expand_as(image)

    network = Constant()
    _PairObjective(network, picture, "float32").loss(0)[0].backward()
    # p_i - D_i(z) = f(y) - f(D_i y) = large - small: the slope there is 0, and moves with either.
    assert sorted(sizes) == [4, 4, 8] and network.large.grad is not None
    network.zero_grad()
    with torch.no_grad():
        network.large.fill_(0.1)
    _PairObjective(network, picture, "float32").loss(0)[0].backward()
    assert float(network.large.grad) == pytest.approx(0.2, rel=1e-5)


def test_self2self_is_equation_1_1_with_bernoulli_masks(monkeypatch):
    made = []
    monkeypatch.setattr(
        BlindSpotLoop, "__init__", lambda self, *given, **readings: made.append((given, readings)) or stop()
    )

    def stop():
        raise InterruptedError

    with pytest.raises(InterruptedError):
        Self2Self(keep=0.7)(torch.zeros(1, 3, 16, 16))
    (network, _, loss), readings = made[0]
    law = readings["law"]
    assert (law.kind, law.per_channel) == ("bernoulli", True) and law.masked == pytest.approx(0.3)
    assert (
        sum(p.numel() for p in network.parameters()) == 991_203 and readings.get("visible", "none") == "none"
    )
    blind, target = torch.rand(2, 1, 3, 16, 16)
    mask = (torch.rand(1, 3, 16, 16) > 0.3).float()
    assert loss(blind, None, target, mask) == uniform_loss(blind, target, mask)


def test_the_loss_of_b2g_is_its_configuration(generator):
    blind, visible, target = torch.rand(3, 1, 3, 16, 16, generator=generator)
    mask = (torch.rand(1, 3, 16, 16, generator=generator) > 0.25).float()
    given = (blind, visible, target, mask)
    assert B2G(visible="detached").loss(*given) == b2g_loss(*given)
    odd = B2G(
        visible="attached",
        omega=0.5,
        gamma=0.2,
        operator="sobel",
        combine="sum",
        loss_norm="all",
        target="hidden",
    )
    readings = dict(omega=0.5, gamma=0.2, operator="sobel", combine="sum", norm="all", target="hidden")
    assert odd.loss(*given) == b2g_loss(*given, stop_gradient=False, **readings)
    visible.requires_grad_(), blind.requires_grad_()
    for method, moved in ((odd, True), (odd.changed(visible="detached"), False)):
        slope = torch.autograd.grad(method.loss(*given), (blind, visible), allow_unused=True)[1]
        assert (slope is not None) == moved
    assert B2G(visible="none").loss(blind, None, target, mask) == uniform_loss(blind, target, mask)
    assert B2G(visible="none", loss_norm="all", target="hidden").loss(
        blind, None, target, mask
    ) == uniform_loss(blind, target, mask, "all", "hidden")


def test_b2g_passes_its_settings_on():
    method = B2G.profile("paper", width=4, head=[4, 6], pilot="average", dual_from=7, refresh=5, flips=False,
                         standout_on="output", standout="all", masked=0.3, detail_over="max")  # fmt: skip
    loop = method.objective(torch.zeros(1, 1, 16, 16), Circumstances())
    assert (loop.visible, loop.pilot, loop.dual_from, loop.refresh) == ("attached", "average", 7, 5)
    assert (loop.guided, loop.flips) == (True, False)
    assert (loop.law.kind, loop.law.masked, loop.law.detail_over) == ("distance", 0.3, "max")
    shape = loop.network.shape
    assert (shape.width, shape.head, shape.norm, shape.standout, shape.dropout) == (
        4,
        (4, 6),
        "decoder",
        "all",
        "none",
    )
    for name in shape.__dataclass_fields__.keys() & method.__dataclass_fields__.keys():
        assert getattr(shape, name) == getattr(method, name)


# ---- what they do to a picture ----


@pytest.mark.parametrize("sigma", [None, 25.0])
def test_bm3d_denoises(sigma):
    pytest.importorskip("bm3d")
    clean = np.ascontiguousarray(ASTRONAUT.mean(-1))
    given = b2g.add_noise(clean, "gaussian", 25, seed=0)
    result = b2g.denoise(given, "bm3d", sigma=sigma, progress=False)
    assert b2g.psnr(clean, result.image) > b2g.psnr(clean, given, clip=False) + 5.5
    assert result.history == [{"sigma": pytest.approx(25, abs=3 if sigma is None else 0)}]


def test_bm3d_takes_small_and_coloured_pictures():
    pytest.importorskip("bm3d")
    assert b2g.denoise(noisy(16, 17), "bm3d", sigma=25).image.shape == (16, 17, 3)
    assert b2g.denoise(noisy(16, 16, 1), "bm3d").image.shape == (16, 16)


def test_bm3d_says_how_to_get_it(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "bm3d", None)
    with pytest.raises(B2GError, match=r"needs the package bm3d .* pip install"):
        b2g.denoise(noisy(channels=1), "bm3d", sigma=25)


@pytest.mark.parametrize("name", FITTED)
@pytest.mark.parametrize("size, channels", [((16, 16), 3), ((17, 35), 1)])
def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(name, size, channels):
    given = noisy(*size, channels)
    copy, state = given.copy(), torch.get_rng_state()
    first, again, other = (quick(given, name, seed=seed) for seed in (3, 3, 4))
    assert first.image.tobytes() == again.image.tobytes() != other.image.tobytes()
    assert first.image.shape == given.shape and 0 <= first.image.min() and first.image.max() <= 1
    assert given.tobytes() == copy.tobytes() and torch.equal(state, torch.get_rng_state())
    drop = lambda history: [{k: v for k, v in e.items() if k != "seconds"} for e in history]  # noqa: E731
    assert drop(first.history) == drop(again.history) != drop(other.history)


PARTS = [  # every reading that changes what a step does, three steps each
    dict(mask="distance", visible="attached", combine="sum", answer="passes", passes=2, norm="decoder"),
    dict(mask="gradient", visible="detached", refresh=2, detail_masked=0.125, attention_between="none"),
    dict(mask="distance", pilot="average", standout_on="output", visible="none", detail_over="euclidean"),
    dict(mask="uniform", masked_layers="all", standout="all", standout_scale="quantile", decay="cosine"),
    dict(gradient_features=True, standout_scale="range", standout_below="drop", output="linear", norm="none"),
    dict(
        dropout="all",
        standout="none",
        attention="half",
        operator="sobel",
        visible="detached",
        combine="magnitude",
    ),
    dict(
        per_channel=False,
        flips=False,
        loss_norm="all",
        target="hidden",
        combine="separate",
        visible="attached",
    ),
    dict(
        normaliser="self2self",
        dropout="half",
        attention="none",
        operator="identity",
        visible="detached",
        decay="halve",
    ),
]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("settings", PARTS, ids=lambda settings: next(iter(settings.values())))
def test_every_reading_runs(settings, precision):
    answer = B2G.profile("smoke", steps=3, **settings)(
        torch.from_numpy(noisy(20, 24, 1))[None, None], Circumstances(precision=precision)
    )
    assert answer.estimate.shape == (1, 1, 20, 24) and torch.isfinite(answer.estimate).all()
    assert [entry["step"] for entry in answer.history] == [1, 2, 3]


@pytest.mark.parametrize("profile", B2G.profiles)
def test_every_profile_of_b2g_runs(profile):
    method = B2G.profile(profile, steps=2, passes=2, width=4, head=(4, 4), dual_from=1)
    assert torch.isfinite(method(torch.from_numpy(noisy(16, 16, 1))[None, None]).estimate).all()


@pytest.mark.parametrize("name", FITTED)
def test_a_picture_called_directly_is_the_picture_through_the_face(name):
    given = noisy()
    method = METHODS[name].profile("smoke", **SHORT[name])
    batch = torch.from_numpy(given).permute(2, 0, 1)[None]
    answer = method(batch, Circumstances(seed=5, precision="float32"))
    assert isinstance(answer, Denoised)
    through = b2g.denoise(given, method, seed=5, progress=False, precision="float32")
    assert np.array_equal(answer.estimate[0].permute(1, 2, 0).clamp(0, 1).numpy(), through.image)


@pytest.mark.parametrize("name", FITTED)
def test_values_outside_0_1_are_welcome(name):
    given = noisy()
    assert given.min() < 0 or given.max() > 1
    assert np.isfinite(quick(2 * given - 0.5, name).image).all()


MASKED = dict(input="masked", output="sigmoid", patches="none", posterior="none", pilot="visible", side=0)
RECORRUPTED = dict(input="recorrupted", output="linear", visible="none", pilot="visible", weights=0.9, draws=2)
STOPPED = {  # fits that are killed and go on, with the loop that they are
    "masks": ("b2g", BlindSpotLoop, MASKED | dict(mask="gradient", visible="detached", refresh=3,
                                                  standout_on="output", answer="passes", passes=2)),
    "masks in a window": ("b2g", BlindSpotLoop, MASKED | dict(side=64, mask="bernoulli", answer="average",
                                                              posterior="local")),
    "recorrupted": ("b2g", RecorruptedLoop, RECORRUPTED | dict(answer="visible", passes=2, standout="half", side=64)),
    "recorrupted, average": ("b2g", RecorruptedLoop, RECORRUPTED | dict(answer="average", average=0.8, side=0)),
    "recorrupted, patches": ("b2g", RecorruptedLoop, RECORRUPTED | dict(patches="nl_ridge", answer="passes",
                                                                        passes=2, side=64)),
    "recorrupted, Poisson": ("b2g", RecorruptedLoop, RECORRUPTED | dict(noise="poisson", answer="average", side=0)),
    "self2self": ("self2self", BlindSpotLoop, {}),
    "zs_n2n": ("zs_n2n", _PairObjective, {}),
}  # fmt: skip


@pytest.mark.parametrize("what", STOPPED)
def test_a_killed_fit_goes_on_to_the_same_bytes(what, tmp_path, monkeypatch):
    """Through the face, with chance, averages, batch statistics and PSNR against the clean picture on."""
    name, objective, more = STOPPED[what]
    clean, path = np.ascontiguousarray(ASTRONAUT[:20, :24]), tmp_path / "fit.ckpt"
    if more.get("side"):
        clean = np.ascontiguousarray(skimage.data.astronaut()[20:90, 200:268].astype(np.float32) / 255)
    given = b2g.add_noise(clean, "gaussian", 25, seed=0)
    settings = dict(steps=8, clean=clean, seed=2) | more
    expected = quick(given, name, **settings)
    with killed(monkeypatch, objective, 5):
        quick(given, name, checkpoint=path, **settings)
    assert path.exists()
    with pytest.raises(B2GError, match="belongs to another run"):
        quick(given, name, checkpoint=path, **(settings | {"seed": 3}))
    found = quick(given, name, checkpoint=path, **settings)
    assert found.image.tobytes() == expected.image.tobytes() and not path.exists()
    assert [entry["loss"] for entry in found.history] == [entry["loss"] for entry in expected.history]


# ---- recorruption, windows and the answer ----


def batch(picture):
    return torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None].float()


def test_b2g_passes_its_recorruption_on(monkeypatch):
    asked = []
    monkeypatch.setattr(B2G, "_patched", lambda self, shown, sigma: asked.append(sigma) or 0.9 * shown)
    given = batch(noisy())
    method = B2G(**RECORRUPTED, strength=0.7, patches="nl_ridge", sigma=30.0, side=64, flips=False, width=4,
                 head=(4, 6), depth=3)  # fmt: skip
    loop = method.objective(given, Circumstances(precision="float32"))
    assert isinstance(loop, RecorruptedLoop) and (loop.strength, loop.side, loop.flips) == (0.7, 64, False)
    assert loop.sigma == pytest.approx(30 / 255) and loop.averaged.decay == 0.9 and len(loop.seen) == 2
    assert asked == pytest.approx(2 * [30 / 255 * (1 + 0.7**2) ** 0.5])
    assert (loop.network.shape.width, loop.network.shape.depth) == (4, 3)
    assert torch.equal(loop.see(), 0.9 * given)  # an untrained network changes nothing
    alone = method.changed(patches="none").objective(given, Circumstances(precision="float32"))
    assert torch.equal(alone.see(), given) and len(asked) == 3


@pytest.mark.parametrize("size, draws", [((512, 512), 4), ((1000, 900), 4), ((400, 250), 6), ((16, 16), 16)])
def test_small_pictures_draw_more_recorruptions(size, draws):
    """About half a million pixels in all, from 4 to 16 pictures; a number that is set is kept."""
    assert draws == min(16, max(4, -(-(2**19) // (size[0] * size[1]))))
    pixels = size[0] * size[1]
    assert B2G().count_draws(pixels) == draws and B2G(draws=2).count_draws(pixels) == 2


def test_the_pilot_is_the_named_denoiser_told_the_level_that_it_sees(monkeypatch):
    told = []
    monkeypatch.setattr(
        NLRidge, "__call__", lambda self, noisy, *_: told.append(self) or Denoised(torch.zeros_like(noisy))
    )
    B2G(**RECORRUPTED, patches="nl_ridge", sigma=20.0)._patched(batch(noisy()), 30 / 255)
    assert told == [NLRidge.profile(sigma=told[0].sigma)] and told[0].sigma == pytest.approx(30.0)


def test_sigma_is_estimated_where_it_is_not_given():
    given = batch(noisy(64, 64))
    loop = B2G(**RECORRUPTED).objective(given, Circumstances())
    assert 255 * loop.sigma == pytest.approx(b2g.estimate_sigma(given)) and 255 * loop.sigma == pytest.approx(25, rel=0.1)
    flat = torch.full((1, 1, 32, 32), 0.5)
    with pytest.raises(B2GError, match="b2g needs a positive noise level sigma on 0..255, not 0.0; give sigma"):
        B2G(**RECORRUPTED).objective(flat, Circumstances())


def test_the_patch_based_pilot_of_the_mask_is_asked_once(monkeypatch):
    asked = []
    monkeypatch.setattr(B2G, "_patched", lambda self, shown, sigma: asked.append(shown) or 0.5 * shown)
    given = batch(noisy())
    method = B2G(mask="distance", pilot="patches", patches="lichi", width=4, head=(4, 4), dual_from=0)
    loop = method.objective(given, Circumstances(precision="float32"))
    loop.loss(0)
    assert len(asked) == 1 and torch.equal(loop._estimate(), 0.5 * given)


@pytest.mark.parametrize("settings", [MASKED | dict(side=64), RECORRUPTED | dict(side=64), RECORRUPTED | dict(side=0)])
def test_windows_and_recorruptions_are_averaged_on_a_canvas(settings, monkeypatch):
    """A fit of 12 steps by hand, in the engine's order, gives the picture of the method."""
    given, kept = batch(noisy_at(70, 80)), []
    method = B2G(**settings | dict(answer="average", average=0.8, width=4, head=(4, 4), steps=12, sigma=25.0))
    plain = Canvas.blend
    monkeypatch.setattr(Canvas, "blend", lambda self, part: kept.append(part) or plain(self, part))
    answer = method(given, Circumstances(precision="float32", seed=1)).estimate
    assert len(kept) == 12 and all(len(part.rows) == (64 if settings["side"] else 70) for part in kept)
    canvas = Canvas(given, 0.8)
    for part in list(kept):
        canvas.add(part)
    assert torch.equal(answer, canvas.value)


def noisy_at(height, width):
    clean = skimage.data.astronaut()[20 : 20 + height, 200 : 200 + width].astype(np.float32) / 255
    return b2g.add_noise(np.ascontiguousarray(clean), "gaussian", 25, seed=0)


def test_a_visible_answer_is_the_mean_of_passes_with_nothing_hidden():
    given = batch(noisy())
    method = B2G(steps=2, width=4, head=(4, 4), answer="visible", passes=3, flips=False)
    seen, plain = [], BlindSpotLoop.see
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BlindSpotLoop, "see", lambda self: seen.append(plain(self)) or seen[-1])
        answer = method(given, Circumstances(precision="float32")).estimate
    assert len(seen) == 3 and torch.allclose(answer, sum(seen) / 3, atol=1e-7)


@pytest.mark.parametrize("answer", ["passes", "visible"])
def test_answers_after_a_fit_to_recorruptions_come_from_the_averaged_weights(answer, monkeypatch):
    given, inside = batch(noisy()), []
    for name in ("see", "predict"):
        plain = getattr(RecorruptedLoop, name)
        monkeypatch.setattr(RecorruptedLoop, name, lambda self, name=name, plain=plain: inside.append(
            (name, self.network.last.weight.clone(), self.averaged)) or plain(self))  # fmt: skip
    B2G(**RECORRUPTED, steps=4, width=4, head=(4, 4), answer=answer, passes=2)(given, Circumstances())
    assert [name for name, _, _ in inside] == 2 * [{"passes": "predict", "visible": "see"}[answer]]
    for _, weight, averaged in inside:
        where = [parameter.shape for parameter in averaged.own].index(weight.shape)
        mean = averaged.sums[where] / averaged.total
        assert torch.allclose(weight, mean) and not torch.allclose(averaged.own[where], mean)


@pytest.mark.parametrize("kind", ["global", "local"])
def test_the_posterior_mean_is_taken_of_the_answer(kind):
    given, where = batch(noisy(32, 32)), Circumstances(precision="float32")
    method = B2G(steps=3, width=4, head=(4, 4), sigma=20.0)
    expected = posterior_mean(method(given, where).estimate, given, 20 / 255, kind)
    assert torch.equal(method.changed(posterior=kind)(given, where).estimate, expected)


@pytest.mark.parametrize("more, gain", [(dict(), 3.0), (dict(patches="nl_ridge"), 6.5)])
def test_a_fit_to_recorruptions_denoises(more, gain):
    """64x64 at sigma 25, estimated; the pilot brings most of the gain, the network must not undo it."""
    given = b2g.add_noise(ASTRONAUT, "gaussian", 25, seed=0)
    settings = RECORRUPTED | dict(answer="visible", passes=4, steps=60, width=12, head=(12, 8), learning_rate=4e-3,
                                  side=0, weights=0.95) | more  # fmt: skip
    result = b2g.denoise(given, B2G(**settings), progress=False)
    assert b2g.psnr(ASTRONAUT, result.image) > b2g.psnr(ASTRONAUT, given, clip=False) + gain


def test_poisson_noise_is_told_to_the_fit():
    """Dark and light side by side, the photons counted."""
    clean = np.concatenate([ASTRONAUT[:32] * 0.15, ASTRONAUT[32:]])
    given = b2g.add_noise(clean, "poisson", 20, seed=0)
    settings = RECORRUPTED | dict(patches="nl_ridge", answer="visible", passes=4, steps=30, width=8, head=(8, 8), side=0)
    image = b2g.denoise(given, B2G(**settings, noise="poisson"), progress=False, clean=clean)
    assert b2g.psnr(clean, image.image) > b2g.psnr(clean, given, clip=False) + 4
    assert all("psnr" not in entry for entry in image.history)  # that of a transformed picture would say nothing
    with pytest.raises(B2GError, match="watch .* leave out noise='poisson'"):
        b2g.denoise(given, B2G(**settings, noise="poisson"), progress=False, watch=lambda objective, step: {})


@pytest.mark.parametrize("settings", [MASKED, RECORRUPTED], ids=["masked", "recorrupted"])
def test_poisson_noise_is_gaussian_on_the_stabilised_picture(settings):
    """The method itself, by hand: Anscombe's transform scaled to about [0, 1], sigma told, and back."""
    from b2g.anscombe import anscombe, estimate_photons, inverse_anscombe

    given = torch.from_numpy(b2g.add_noise(ASTRONAUT[:32, :32].copy(), "poisson", 30, seed=0)).permute(2, 0, 1)[None]
    method = B2G(**settings, steps=2, width=4, head=(4, 4), noise="poisson")
    where = Circumstances(precision="float32", seed=4)
    photons = estimate_photons(given)
    scale = 2 * photons**0.5
    stable = anscombe(given * photons) / scale
    inner = method.changed(noise="gaussian", sigma=255 / scale)(stable, where).estimate
    expected = inverse_anscombe(inner * scale) / photons
    assert torch.equal(method(given, where).estimate, expected)
    residual = (stable - torch.from_numpy(ASTRONAUT[:32, :32].copy()).permute(2, 0, 1)[None].clamp(0, 1).sqrt()).std()
    assert float(residual * scale) == pytest.approx(1.0, rel=0.15)  # the noise of a transformed count


# ---- noise that neighbours share ----


@pytest.mark.parametrize("settings", [MASKED, RECORRUPTED | dict(sigma=25.0)], ids=["masked", "recorrupted"])
def test_a_shuffled_fit_is_that_of_the_mosaic(settings):
    """Odd sides: the mosaic is larger than the picture, and is cut back; PSNR is shown of the mosaics."""
    given, where = batch(noisy(17, 21)), Circumstances(precision="float32", seed=3, clean=batch(ASTRONAUT[:17, :21]))
    method = B2G(**settings, steps=2, width=4, head=(4, 4), dilation=2)
    mosaic = to_mosaic(given, 2)
    assert mosaic.shape == (1, 3, 18, 22)
    alone = method(mosaic, dataclasses.replace(where, clean=to_mosaic(where.clean, 2)))
    found = method.changed(shuffle=2)(given, where)
    assert torch.equal(found.estimate, from_mosaic(alone.estimate, 2, 17, 21))
    assert [entry["psnr"] for entry in found.history] == [entry["psnr"] for entry in alone.history]
    objective = method.changed(shuffle=2).objective(given, where)
    assert torch.equal(objective.noisy, mosaic) and objective.network.shape.dilation == 2


def test_what_a_shuffled_fit_cannot_do_is_refused():
    method = B2G(steps=2, width=4, head=(4, 4), shuffle=2)
    with pytest.raises(B2GError, match="watch compares with the clean picture, not with its mosaic"):
        method(batch(noisy()), Circumstances(watch=lambda objective, step: {}))
    with pytest.raises(B2GError, match="b2g goes side by side with shuffle=1 only; use together=False"):
        b2g.denoise(np.stack([noisy(), noisy(seed=1)]), method, together=True, progress=False)
    with pytest.raises(B2GError, match="stride must lie between 1 and the picture's shorter side, not be 17"):
        method.changed(shuffle=17)(batch(noisy()))
