"""The watch: every number against a loop or a closed form, and not a bit of the watched run changed by it."""

import numpy as np
import pytest
import torch
from oracles import gradient
from torch import nn

import b2g
from b2g.errors import B2GError
from b2g.fit import fit
from b2g.loop import BlindSpotLoop, MaskLaw
from b2g.losses import b2g_loss, uniform_loss
from b2g.method import Circumstances
from b2g.methods import METHODS, B2G
from b2g.runs.watch import EDGES, OUTLIER, Look, slope_on_noise, take_look, theorem, training

SIGMA = 25 / 255


def twin(seed=1):
    return torch.Generator().manual_seed(seed)


def scene(side=24, channels=3):
    """A clean picture with edges, and a noisy one, ``(1, C, H, W)``."""
    ramp = torch.linspace(0.2, 0.8, side).expand(1, channels, side, side).clone()
    ramp[..., side // 3 :, side // 2 :] += torch.tensor([0.15, -0.1, 0.05])[:channels, None, None]
    ramp += 0.004 * torch.rand(ramp.shape, generator=twin(6))  # no two gradients are equal
    return ramp, ramp + SIGMA * torch.randn(ramp.shape, generator=twin(7))


class Toy(nn.Module):
    """A network that answers as told; ``answer(picture, mask)``, mask None for the whole picture."""

    def __init__(self, answer):
        super().__init__()
        self.answer, self.factor = answer, nn.Parameter(torch.ones(()))

    def forward(self, image, mask, generator, guide):
        return self.factor * self.answer(image, mask)


def blurred(image, mask):
    """Something that depends on all it sees, differently for masked and whole pictures."""
    seen = image if mask is None else image * mask
    return 0.6 * seen + 0.3 * seen.roll(1, -1) + 0.2 * seen.roll(1, -2).square()


def plain(blind, visible, noisy, mask):
    return uniform_loss(blind, noisy, mask)


def loop(answer, noisy, loss=plain, **more):
    more = dict(flips=False, precision="float32", visible="detached") | more
    return BlindSpotLoop(Toy(answer), noisy, loss, generator=twin(3), **more)


def watched(answer, side=24, masks=4, **more):
    clean, noisy = scene(side)
    return training(clean, noisy, seed=5, masks=masks)(loop(answer, noisy, **more), 1)


# ---- networks whose numbers are known beforehand ----


def test_the_identity_keeps_all_of_the_noise():
    found = watched(lambda image, mask: image)
    assert found["slope_visible"] == pytest.approx(1, abs=1e-5)
    assert found["slope_blind"] == pytest.approx(1, abs=1e-5)
    assert found["uniform_loss"] == found["self_supervised_loss"] == 0
    assert found["supervised_loss"] == found["supervised_regularised_loss"] == found["noise_masked"]
    assert found["distance_share"] == 0 and "distance_edge" not in found
    assert "gamma_star_squared" not in found  # d^g vanishes


def test_a_constant_keeps_none_of_it():
    found = watched(lambda image, mask: torch.full_like(image, 0.4))
    clean, noisy = scene()
    assert found["slope_visible"] == pytest.approx(0, abs=1e-5)
    assert found["slope_blind"] == pytest.approx(0, abs=1e-5)
    assert found["psnr_visible"] == found["psnr_blind"]
    error = float((clean - 0.4).square().mean())
    assert found["psnr_blind"] == pytest.approx(-10 * np.log10(error), abs=1e-4)


@pytest.mark.parametrize("share", [-0.5, 0.25])
def test_the_slope_is_the_share_of_the_noise(share):
    clean, noisy = scene()
    found = watched(lambda image, mask: 0.3 + 0.7 * clean + share * (image - clean))
    assert found["slope_visible"] == pytest.approx(share, abs=1e-5)
    flat = torch.zeros(noisy.numel())  # a picture without contrast has no part in the fit
    noise = (noisy - clean).flatten()
    assert slope_on_noise(0.2 + share * noise, flat, noise) == pytest.approx(share, abs=1e-5)


def test_the_clean_picture_leaves_the_noise_alone():
    clean, noisy = scene(side=96)
    objective, drawn = loop(lambda image, mask: clean, noisy), []
    kept = objective.look
    objective.look = lambda generator: drawn.append(kept(generator)) or drawn[-1]
    found = training(clean, noisy)(objective, 1)
    assert found["supervised_loss"] == found["supervised_regularised_loss"] == 0
    assert found["uniform_loss"] == pytest.approx(found["noise_masked"], rel=1e-5)
    # The mean of n^2 over masks that overlap: each value counts as often as it was hidden.
    weight = sum(1 - mask for mask, _, _ in drawn).double()
    error = float((2 * weight.square().sum()).sqrt() / weight.sum()) * SIGMA**2
    assert abs(found["uniform_loss"] - SIGMA**2) < 4 * error
    assert 0.1 * SIGMA**2 > 8 * error, "too few pixels to tell sigma^2 from nine tenths of it"


# ---- every number against a loop ----


def by_loops(clean, noisy, looks, operator, omega):
    """The numbers of the module's docstring, one masked value at a time."""
    names = ("content_negative", "gradient_negative_across", "gradient_negative_down", "both_nonnegative")
    tally = {name: [] for name in names}
    parts = {name: [] for name in ("uniform", "supervised", "noise", "joined", "gap", "cross")}
    for mask, blind, visible in looks:
        whole, part = gradient(visible, operator), gradient(blind, operator)
        for place in zip(*np.nonzero(mask == 0)):
            content = blind[place] - noisy[place]
            gaps = [a[place] - b[place] for a, b in zip(whole, part)]
            tally["content_negative"].append(content < 0)
            for name, gap in zip(names[1:3], gaps):
                tally[name].append(gap < 0)
                tally["both_nonnegative"].append(content >= 0 and gap >= 0)
                parts["joined"].append((content + omega * gap) ** 2)
                parts["gap"].append(gap**2)
                parts["cross"].append(content * gap)
            parts["uniform"].append(content**2)
            parts["supervised"].append((blind[place] - clean[place]) ** 2)
            parts["noise"].append((noisy[place] - clean[place]) ** 2)
    return {name: np.mean(values) for name, values in (tally | parts).items()}


@pytest.mark.parametrize("operator", ["forward", "backward", "sobel"])
def test_losses_signs_and_theorem_are_their_loops(operator):
    clean, noisy = scene(side=16)
    readings = dict(operator=operator, combine="component", omega=0.7)

    def loss(*pictures):
        return b2g_loss(*pictures, gamma=0.5, **readings)

    objective = loop(blurred, noisy, loss, readings=readings)
    looks, kept = [], objective.look
    objective.look = lambda generator: looks.append(kept(generator)) or looks[-1]
    found = training(clean, noisy, masks=3)(objective, 4)
    looks = [[part.double().numpy() for part in look] for look in looks]
    # Losses are means over masks, as in training; the other means are over all masked values at once.
    slow = by_loops(clean.double().numpy(), noisy.double().numpy(), looks, operator, 0.7)
    each = [by_loops(clean.double().numpy(), noisy.double().numpy(), [look], operator, 0.7) for look in looks]
    for name in found.keys() & slow.keys():
        assert found[name] == pytest.approx(slow[name], rel=1e-4), name
    assert len(found.keys() & slow.keys()) == 4
    parts = {"uniform_loss": "uniform", "supervised_loss": "supervised", "noise_masked": "noise"}
    for name, part in parts.items():
        assert found[name] == pytest.approx(np.mean([one[part] for one in each]), rel=1e-4)
    trained = np.mean([one["joined"] + 0.5 * one["uniform"] for one in each])
    assert found["self_supervised_loss"] == pytest.approx(trained, rel=1e-4)
    assert found["supervised_regularised_loss"] < trained
    assert found["cross_term"] == pytest.approx(slow["cross"], rel=1e-4)
    assert found["gradient_energy"] == pytest.approx(slow["gap"], rel=1e-4)
    # Theorem 1's left side under the gamma that mends it is the left side of Eq. 4.6.
    star = found["gamma_star_squared"]
    assert slow["joined"] - star * slow["gap"] == pytest.approx(slow["uniform"], rel=1e-4)


def test_the_clean_picture_takes_the_place_of_y():
    clean, noisy = scene(side=16)
    found = watched(lambda image, mask: image, side=16, loss=plain)
    assert found["supervised_regularised_loss"] == found["supervised_loss"] > found["uniform_loss"]


@pytest.mark.parametrize("combine", ["sum", "magnitude", "separate"])
def test_theorem_follows_the_run_s_reading(combine):
    clean, noisy = scene(side=16)
    look = take_look(loop(blurred, noisy), clean, twin(), 2)
    forward = [np.stack(gradient(part.numpy(), "forward"), 2) for part in (look.visible, look.blind)]
    if combine == "magnitude":
        lengths = [np.sqrt((part**2).sum(2) + 1e-12) for part in forward]
        gap = (lengths[0] - lengths[1])[:, :, None]
    else:
        gap = forward[0] - forward[1]
        gap = gap.sum(2, keepdims=True) if combine == "sum" else gap
    hidden = np.broadcast_to((look.mask.numpy() == 0)[:, :, None], gap.shape)
    content = np.broadcast_to((look.blind - look.noisy).numpy()[:, :, None], gap.shape)
    found = theorem(look, combine=combine, omega=0.5)
    assert found["gradient_energy"] == pytest.approx((gap[hidden] ** 2).mean())
    assert found["cross_term"] == pytest.approx((content * gap)[hidden].mean())


def test_the_detail_sets_are_counted_value_by_value():
    clean, noisy = scene()
    law = MaskLaw("distance", detail_threshold=15.0)
    objective = loop(lambda image, mask: 0.5 * (image + clean), noisy, law=law)
    objective.detail = (noisy > 0.6).float()
    found = training(clean, noisy)(objective, 1)
    x, y = clean.numpy()[0].astype(float), noisy.numpy()[0].astype(float)
    steepness = np.hypot(*gradient(x, "forward"))
    limit = np.sort(steepness.reshape(3, -1))[:, -round(EDGES * 24 * 24)]
    sigma = np.sqrt(np.mean((y - x) ** 2))
    sets = {"distance": np.abs(y - x) / 2 >= 15 / 255, "detail": y > 0.6}
    for name, chosen in sets.items():
        inside = list(zip(*np.nonzero(chosen)))
        edges = sum(steepness[c, i, j] >= limit[c] * (1 - 1e-9) for c, i, j in inside)
        outliers = sum(abs(y[place] - x[place]) >= OUTLIER * sigma for place in inside)
        assert found[f"{name}_share"] == pytest.approx(len(inside) / x.size, rel=1e-5)
        assert found[f"{name}_edge"] == pytest.approx(edges / len(inside), rel=1e-5)
        assert found[f"{name}_outlier"] == pytest.approx(outliers / len(inside), rel=1e-5)
    assert 0 < found["detail_edge"] < 1 and 0 < found["distance_outlier"] < 1


# ---- the run stays as it is ----

STUDIED = {
    "faithful": ("b2g", dict(mask="gradient", visible="detached", standout="half", dual_from=2, refresh=3)),
    "letter": ("b2g", dict(mask="distance", visible="attached", combine="sum", answer="passes")),
    "guided": ("b2g", dict(mask="distance", pilot="average", standout_on="output", dropout="all")),
    "self2self": ("self2self", {}),
}


def timeless(history):
    return [{key: value for key, value in entry.items() if key != "seconds"} for entry in history]


@pytest.mark.parametrize("name", STUDIED)
def test_a_watched_fit_is_the_unwatched_one_bit_for_bit(name, monkeypatch):
    method, settings = STUDIED[name]
    configured = METHODS[method].profile("smoke", steps=10, passes=2, **settings)
    clean, noisy = scene(side=32)
    left = []

    def traced(objective, *given, **more):
        result = fit(objective, *given, **more)
        left.append(objective.state() | objective.network.state_dict())
        return result

    monkeypatch.setattr("b2g.fitted.fit", traced)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    once = Circumstances(seed=3, clean=clean, log_every=1)
    alone = configured(noisy, once)
    looked = configured(noisy, Circumstances(seed=3, clean=clean, log_every=1, watch=training(clean, noisy)))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(alone.estimate, looked.estimate)
    for key, value in left[0].items():
        same = torch.equal(value, left[1][key]) if isinstance(value, torch.Tensor) else True
        assert same, key
    for before, after in zip(timeless(alone.history), looked.history, strict=True):
        assert {key: after[key] for key in before} == before
        assert {"uniform_loss", "slope_visible", "gamma_star_squared", "distance_share"} < after.keys()
    dual = name not in ("self2self",)
    assert ("detail_share" in looked.history[-1]) == dual
    # The same watch tells the same numbers; what it drew was not the fit's.
    again = configured(noisy, Circumstances(seed=3, clean=clean, log_every=1, watch=training(clean, noisy)))
    assert timeless(again.history) == timeless(looked.history)
    other = configured(noisy, Circumstances(seed=3, log_every=10, watch=training(clean, noisy, seed=1)))
    assert len(other.history) == 1 and torch.equal(other.estimate, alone.estimate)
    assert other.history[-1]["uniform_loss"] != looked.history[-1]["uniform_loss"]


def test_batch_statistics_and_modes_stay():
    clean, noisy = scene()
    objective = loop(blurred, noisy)
    norm = nn.BatchNorm2d(3)  # with running statistics, unlike the package's own network
    norm.eval()
    objective.network.answer = lambda image, mask: norm(blurred(image, mask))
    before = {key: value.clone() for key, value in norm.state_dict().items()}
    training(clean, noisy)(objective, 1)
    assert all(torch.equal(value, before[key]) for key, value in norm.state_dict().items())
    assert all(p.grad is None for p in objective.network.parameters()) and not norm.training


def test_denoise_hands_the_watch_on():
    clean, noisy = (np.moveaxis(part[0].numpy(), 0, -1) for part in scene(side=32))
    settings = dict(profile="smoke", steps=6, device="cpu", progress=False)
    found = b2g.denoise(noisy, "b2g", watch=training(clean, noisy), log_every=3, **settings)
    assert [entry["step"] for entry in found.history] == [3, 6]
    assert all(np.isfinite(list(entry.values())).all() and "psnr_blind" in entry for entry in found.history)
    assert np.array_equal(found.image, b2g.denoise(noisy, "b2g", **settings).image)


# ---- what is refused ----


def test_two_sizes_are_refused():
    clean, noisy = scene()
    with pytest.raises(B2GError, match="one picture and its clean version, of one size; clean is"):
        training(clean[..., :20], noisy)


def test_several_pictures_are_refused():
    clean, noisy = scene()
    watch = training(clean, noisy)
    for several in (torch.cat([noisy, noisy]), [noisy[0], noisy[0]]):
        with pytest.raises(B2GError, match="watch serves one picture; denoise the pictures of a"):
            b2g.denoise(several, "b2g", "smoke", watch=watch, progress=False, device="cpu")


def test_a_fit_without_masks_is_refused():
    clean, noisy = scene()
    with pytest.raises(B2GError, match="this method draws no masks"):
        training(clean, noisy)(object(), 1)


def test_a_look_knows_its_noise():
    clean, noisy = scene()
    objective = B2G.profile("smoke").objective(noisy, Circumstances())
    look = take_look(objective, clean, twin(), 2)
    assert isinstance(look, Look) and look.mask.shape == (2, 3, 24, 24)
    assert torch.equal(look.noise[0], (noisy.double() - clean.double())[0])
    assert not torch.equal(look.mask[0], look.mask[1])
