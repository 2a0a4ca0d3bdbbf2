import dataclasses
import json

import numpy as np
import pytest
import skimage.data
import torch
from torch import nn

import b2g
from b2g.errors import B2GError
from b2g.fit import build
from b2g.loop import BlindSpotLoop
from b2g.losses import b2g_loss, uniform_loss
from b2g.method import Circumstances, Denoised, added_later, canonical_json
from b2g.methods import B2G, BM3D, METHODS, ZSN2N, LIChI, NLRidge, Self2Self
from b2g.methods.zs_n2n import NoisePredictor, _PairObjective, pair_downsample

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
        "b2g": B2G, "self2self": Self2Self, "zs_n2n": ZSN2N, "bm3d": BM3D, "nl_ridge": NLRidge,
        "lichi": LIChI,
    }  # fmt: skip
    for name, method in METHODS.items():
        assert (
            method.name == name and method.default_profile in method.profiles and "smoke" in method.profiles
        )
        assert method.label and method.cost and "doi" in method.source


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
    method = METHODS[name].profile()
    method = method.changed(normaliser="window") if name == "self2self" else method
    found = {method.identity()}
    for field in dataclasses.fields(method):
        value = getattr(method, field.name)
        if isinstance(value, str):
            other = OTHER[field.name]
        elif isinstance(value, tuple):
            other = (value[0] + 1, *value[1:])
        else:
            other = {bool: not value, int: 7, float: 0.123, type(None): 25.0}[type(value)]
        found.add(method.changed(**{field.name: other}).identity())
    monkeypatch.setattr(METHODS[name], "revision", 2)
    found.add(method.identity())
    assert len(found) == len(dataclasses.fields(method)) + 2


def test_a_setting_added_later_leaves_the_identity_of_older_runs_alone():
    @dataclasses.dataclass(frozen=True)
    class Grown(ZSN2N):
        extra: int = added_later(0)

    assert Grown(steps=7).identity() == ZSN2N(steps=7).identity()
    assert Grown(steps=7, extra=1).identity() != ZSN2N(steps=7).identity()
    assert json.loads(Grown(extra=2).identity())["extra"] == 2


OTHER = dict(
    decay="cosine", visible="attached", operator="sobel", combine="sum", loss_norm="all", target="hidden",
    detail_over="max", pilot="average", masked_layers="all", norm="none", attention="none",
    attention_between="none", standout="all", standout_on="output", standout_scale="range", mask="uniform",
    dropout="all", output="linear", answer="passes", normaliser="self2self", standout_below="drop",
    noise="poisson",
)  # fmt: skip


def test_equal_settings_have_one_identity_however_they_were_given():
    assert B2G.profile("fast", head=[32, 16], masked=0.25, steps=1000).identity() == B2G.profile().identity()
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
        B2GError, match="b2g has no profile 'quick': choose one of paper, faithful, best, fast, smoke"
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


@pytest.mark.parametrize(
    "name, channels, gain", [("b2g", 3, 4.0), ("b2g", 1, 3.0), ("self2self", 3, 1.8), ("zs_n2n", 3, 6.5)]
)
def test_the_smoke_profile_denoises(name, channels, gain):
    """64x64 at sigma 25; each bound in dB lies at least half a dB below the worst of three seeds."""
    clean = ASTRONAUT if channels == 3 else np.ascontiguousarray(ASTRONAUT.mean(-1))
    given = b2g.add_noise(clean, "gaussian", 25, seed=0)
    result = b2g.denoise(given, name, "smoke", progress=False)
    assert result.image.shape == clean.shape and result.image.dtype == np.float32
    assert b2g.psnr(clean, result.image) > b2g.psnr(clean, given, clip=False) + gain


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


@pytest.mark.parametrize("profile", ["paper", "faithful", "best", "fast"])
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


@pytest.mark.parametrize("name", FITTED)
def test_a_killed_fit_goes_on_to_the_same_bytes(name, tmp_path, monkeypatch):
    """Through the face, with chance, averages, batch statistics and PSNR against the clean picture on."""
    import itertools
    import types

    import b2g.fit as engine

    clock = itertools.count(0, 61)
    fake = types.SimpleNamespace(perf_counter=lambda: float(next(clock)))
    given, path = noisy(20, 24), tmp_path / "fit.ckpt"
    clean = np.ascontiguousarray(ASTRONAUT[:20, :24])
    settings = dict(steps=8, clean=clean, seed=2)
    if name == "b2g":
        settings |= dict(
            mask="gradient", visible="detached", refresh=3, standout_on="output", answer="passes", passes=2
        )
    expected = quick(given, name, **settings)
    objective = {"zs_n2n": _PairObjective}.get(name, BlindSpotLoop)
    whole = objective.loss

    def killed(self, step):
        if step == 5:
            raise KeyboardInterrupt
        return whole(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(engine, "time", fake)
        patch.setattr(objective, "loss", killed)
        with pytest.raises(KeyboardInterrupt):
            quick(given, name, checkpoint=path, **settings)
    assert path.exists()
    with pytest.raises(B2GError, match="belongs to another run"):
        quick(given, name, checkpoint=path, **(settings | {"seed": 3}))
    found = quick(given, name, checkpoint=path, **settings)
    assert found.image.tobytes() == expected.image.tobytes() and not path.exists()
    assert [entry["loss"] for entry in found.history] == [entry["loss"] for entry in expected.history]
