import math
from dataclasses import replace

import numpy as np
import pytest
import skimage.data
import torch
from oracles import assert_mean, assert_rate
from tape import Tape
from torch import nn

import b2g
import b2g.fit as engine
from b2g import together
from b2g.averaged import AveragedWeights
from b2g.capture import GraphSteps
from b2g.errors import B2GError, Diverged
from b2g.fit import fit
from b2g.method import Circumstances
from b2g.methods import B2G, BM3D, ZSN2N, Self2Self
from b2g.seeds import seed_for
from b2g.stack import HOW, StackedConv2d, convolve, stack_networks
from b2g.together import Losses, OwnFlips, bytes_a_picture, denoise_together, stack_objectives, together_at_once
from b2g.window import Canvas

PLAIN = Circumstances(precision="float32")
SMALL = dict(steps=3, width=4, head=(5, 4))
METHODS = {
    "masked": B2G.profile("masked", **SMALL),
    "faithful": B2G.profile("faithful", **SMALL | dict(steps=4, dual_from=1, refresh=2)),
    "paper": B2G.profile("paper", **SMALL | dict(learning_rate=1e-2)),
    "uniform mask": B2G.profile("masked", **SMALL, mask="uniform", per_channel=False, flips=False),
    "from the output": B2G.profile("masked", **SMALL, standout_on="output", standout="all", standout_scale="range"),
    "most parts": B2G.profile("masked", **SMALL, visible="attached", gradient_features=True, masked_layers="all",
                              dropout="all", loss_norm="all", target="hidden"),
    "in a window": B2G.profile("masked", **SMALL, side=64),
    "patches as pilot": B2G.profile("masked", **SMALL, depth=3, mask="gradient", pilot="patches", patches="nl_ridge",
                                    sigma=60.0),
    "recorrupted": B2G.profile("fast", **SMALL, draws=2),
    "recorrupted anew": B2G.profile("fast", **SMALL, patches="none"),
    "self2self": Self2Self.profile("smoke", **SMALL, normaliser="self2self"),
    "zs_n2n": ZSN2N(steps=3, width=4),
}  # fmt: skip


class Chance:
    """In place of torch's random numbers: streams for each picture, whether it comes alone or in a stack."""

    def __init__(self, monkeypatch, pictures):
        self.streams = [np.random.RandomState(100 + k) for k in pictures]
        self.flips = [np.random.RandomState(200 + k) for k in pictures]
        self.places = np.random.RandomState(300)
        monkeypatch.setattr(torch, "rand", self.rand)
        monkeypatch.setattr(torch, "randint", self.randint)

    def normal(self, shape, **_):
        """For ``torch.randn``, which only some methods draw at their steps."""
        assert shape[0] == len(self.streams)
        return torch.from_numpy(np.stack([stream.standard_normal(tuple(shape)[1:]) for stream in self.streams]))

    def rand(self, shape, **_):
        assert shape[0] == len(self.streams)
        return torch.from_numpy(np.stack([stream.random_sample(tuple(shape)[1:]) for stream in self.streams]))

    def randint(self, below, shape, **_):
        if below != 4 or shape == (1,):  # where a window lies, which draw is seen: one for all
            return torch.tensor(self.places.randint(below)).reshape(shape)
        assert shape == ((len(self.flips), 1, 1, 1) if len(self.flips) > 1 else ())
        return torch.tensor([flips.randint(4) for flips in self.flips]).reshape(shape)


def pictures(count, channels=3, size=32, seed=1):
    return torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(seed))


def double(objective):
    """The objective in float64; averaged weights hold the network's tensors and are made again."""
    objective.network.double()
    for name in ("seen", "targets", "counted"):
        if getattr(objective, name, None) is not None:
            setattr(objective, name, getattr(objective, name).double())
    if hasattr(objective, "averaged"):
        objective.averaged = AveragedWeights(objective.network, objective.averaged.decay)
    objective.noisy = objective.noisy.double()
    return objective


def traced(objective, method):
    """The fit's running average, and the losses of every step, a row ``(pictures,)`` each."""
    each = []
    watch = lambda objective, _: each.append(objective.loss_of.last.tolist()) or {}  # noqa: E731
    stacked = isinstance(getattr(objective, "loss_of", None), Losses)
    average = None if method.name == "zs_n2n" else getattr(method, "average", 0.99)
    windows = getattr(method, "side", 0) or getattr(method, "input", "masked") == "recorrupted"
    average = Canvas(objective.noisy, average) if windows else average
    result = fit(objective, method.schedule(), average=average, log_every=1, watch=watch if stacked else None)
    return result.average, each if stacked else [[entry["loss"]] for entry in result.history]


# ---- a stack is its pictures one by one ----


@pytest.mark.parametrize("name, how", [*((name, "grouped") for name in METHODS), ("most parts", "products")])
def test_with_equal_chance_a_stack_is_its_pictures_fitted_alone(name, how, monkeypatch):
    """In float64, every part of the method on: weights, running averages and losses agree to rounding."""
    method, noisy = METHODS[name], pictures(3, size=72 if name == "in a window" else 32)
    make = lambda k: double(method.objective(noisy[k : k + 1], replace(PLAIN, seed=k)))  # noqa: E731
    alone = [make(k) for k in range(3)]
    stack = stack_objectives([make(k) for k in range(3)], 0, how)
    before = [parameter.clone() for parameter in stack.network.parameters()]
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    chance = Chance(monkeypatch, range(3))
    if name == "recorrupted anew":
        monkeypatch.setattr(torch, "randn", lambda shape, **_: chance.normal(shape))
    average, losses = traced(stack, method)
    assert all(tensor.dtype == torch.float64 for tensor in stack.network.parameters())
    moved = [float((new - old).detach().abs().max()) for new, old in zip(stack.network.parameters(), before)]
    assert max(moved) > 1e-3
    for k in range(3):
        chance = Chance(monkeypatch, [k])
        average_alone, losses_alone = traced(alone[k], method)
        pairs = zip(stack.network.named_parameters(), alone[k].network.parameters(), strict=True)
        for (label, ours), theirs in pairs:
            assert torch.allclose(ours[k], theirs, rtol=0, atol=1e-9), label
        assert average is None or torch.allclose(average[k], average_alone[0], rtol=0, atol=1e-9)
        assert np.allclose([row[k] for row in losses], [float(row[0]) for row in losses_alone], rtol=1e-9, atol=0)


@pytest.mark.parametrize("name", [*B2G.profiles, "self2self"])
def test_the_answers_and_histories_are_those_of_the_solo_runs(name, monkeypatch):
    """Whatever a profile comes to be: refused, or the same as the solo runs with equal chance."""
    method = METHODS[name] if name in METHODS else B2G.profile(name, **SMALL)
    # Pixels are held out when an objective is made, with its own seed:
    # that chance is not the one made equal here.
    method = method.changed(steps=2, passes=2, **({} if name == "self2self" else {"draws": 1, "hold": 0.0}))
    noisy, clean, seeds = pictures(3, channels=1), pictures(3, 1, seed=2), [7, 5, 9]
    try:
        together_at_once(method, noisy, PLAIN, True)
    except B2GError as error:
        assert "use together=False" in str(error)
        return
    Chance(monkeypatch, range(3))
    ours = denoise_together(method, noisy, replace(PLAIN, clean=clean), seeds)
    for k, answer in enumerate(ours):
        Chance(monkeypatch, [k])
        alone = method(noisy[k : k + 1], replace(PLAIN, seed=seeds[k], clean=clean[k : k + 1]))
        assert torch.allclose(answer.estimate, alone.estimate, atol=2e-4), k
        assert [entry["step"] for entry in answer.history] == [1, 2]
        for one, other in zip(answer.history, alone.history):
            assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)
        shown = b2g.psnr(clean[k : k + 1], answer.estimate)
        assert answer.history[-1]["psnr"] == pytest.approx(shown, abs=1e-6)
    assert not torch.allclose(ours[0].estimate, ours[1].estimate, atol=1e-2)


def test_each_picture_of_a_stack_is_trusted_as_if_alone():
    method = B2G.profile("fast", **SMALL | dict(dropout="none", flips=False, draws=2, hold=0.3, steps=6))
    noisy = pictures(3)
    make = lambda k: method.objective(noisy[k : k + 1], replace(PLAIN, seed=k))  # noqa: E731
    stack = stack_objectives([make(k) for k in range(3)], 0, "grouped")
    fit(stack, method.schedule(), average=Canvas(stack.noisy, 0.5))
    with stack.settled():
        shares, weights = stack.trusted.flatten().tolist(), [w.detach().clone() for w in stack.network.parameters()]
    assert len(set(shares)) > 1
    for k in range(3):
        alone = make(k)
        with torch.no_grad():
            for mine, theirs in zip(alone.network.parameters(), weights, strict=True):
                mine.copy_(theirs[k])
        assert float(alone.trust()) == pytest.approx(shares[k], abs=2e-3)


@pytest.mark.parametrize("at_once", [None, 1, 2, 3, 5])
def test_the_pictures_come_back_in_their_order_however_many_at_once(at_once):
    noisy, method, seeds = pictures(5, 1, 16), ZSN2N(steps=3, width=4), [4, 2, 8, 6, 1]
    ours = denoise_together(method, noisy, PLAIN, seeds, at_once)
    for k, answer in enumerate(ours):
        alone = method(noisy[k : k + 1], replace(PLAIN, seed=seeds[k]))
        assert torch.allclose(answer.estimate, alone.estimate, atol=1e-5)
        assert [e["loss"] for e in answer.history] == pytest.approx([e["loss"] for e in alone.history], rel=1e-4)


def test_every_picture_is_flipped_in_its_own_way_and_back():
    seen, generator = [], torch.Generator().manual_seed(3)

    class Echo(nn.Module):
        def forward(self, image, mask, generator, guide):
            seen.append((image, mask, guide))
            return image + 2 * mask + 4 * guide

    image, mask, guide = pictures(40, 1, 16), pictures(40, 1, 16, seed=2), pictures(40, 1, 16, seed=3)
    flipped = OwnFlips(Echo())
    for _ in range(20):
        assert torch.equal(flipped(image, mask, generator, guide), image + 2 * mask + 4 * guide)
    ways = [(), (-1,), (-2,), (-2, -1)]
    counts = [sum(torch.equal(shown[0][k], image[k].flip(way)) for shown in seen for k in range(40)) for way in ways]
    assert sum(counts) == 800
    for count in counts:
        assert_rate(count, 800, 0.25, [0.1, 0.5])


def test_a_stack_of_equal_pictures_with_equal_seeds_draws_masks_for_each():
    same = pictures(1, 1, 16).expand(4, -1, -1, -1)
    objectives = [METHODS["masked"].objective(picture, PLAIN) for picture in same.split(1)]
    stack = stack_objectives(objectives, 3, "grouped")
    masks = stack._draw()
    assert all(not torch.equal(masks[0], mask) for mask in masks[1:])
    assert torch.equal(masks, stack_objectives(objectives, 3, "grouped")._draw())
    assert not torch.equal(masks, stack_objectives(objectives, 4, "grouped")._draw())


@pytest.mark.slow
def test_side_by_side_gains_as_many_decibels_as_one_after_another():
    """Other random numbers, one law: the paired difference of eight crops, two draws each,
    is zero within its error."""
    photo = skimage.data.astronaut()
    corners = [(60, 180), (130, 210), (300, 100), (20, 400), (350, 300), (200, 60), (420, 200), (250, 330)]
    clean = np.stack([photo[y : y + 32, x : x + 32] for y, x in 2 * corners]).astype(np.float32) / 255
    noisy = np.stack([b2g.add_noise(picture, "gaussian", 25, seed=k) for k, picture in enumerate(clean)])
    method = B2G.profile("smoke")
    gains = []
    for how in (True, False):
        result = b2g.denoise(noisy, method, together=how, precision="float32", progress=False, clean=clean)
        gains.append([b2g.psnr(x, z) - b2g.psnr(x, y) for x, y, z in zip(clean, noisy, result.image)])
    assert np.mean(gains[1]) > 2
    assert_mean(np.subtract(*gains), 0.0, unlike=1.5)


@pytest.mark.parametrize("name, how", [
    ("most parts", "products"), ("recorrupted", "grouped"), ("zs_n2n", "products"),
])  # fmt: skip
def test_a_stacks_step_can_be_recorded_and_replayed(name, how, monkeypatch):
    """On the stand-in for a CUDA graph: bit for bit the eager fit, losses of single pictures included."""
    method = METHODS[name].changed(steps=5, learning_rate=2.0**-8)
    fit_three = lambda: denoise_together(method, pictures(3), PLAIN, [1, 2, 3], how=how)  # noqa: E731
    expected, tapes = fit_three(), []

    def record(engine, objective, optimiser, mean):
        assert objective.capturable
        tapes.append(Tape(optimiser))
        return GraphSteps(objective, optimiser, mean, strict=True, cuda=tapes[-1])

    monkeypatch.setattr(engine, "choose_steps", record)
    found = fit_three()
    assert [graph.replays for graph in tapes[0].graphs] == [2]
    for one, other in zip(expected, found, strict=True):
        assert torch.equal(one.estimate, other.estimate)
        assert [entry["loss"] for entry in one.history] == [entry["loss"] for entry in other.history]


# ---- one that diverges ----


def test_a_picture_that_diverges_spoils_no_other():
    noisy = pictures(3)
    broken = noisy.clone()
    broken[1, 0, 3, 3] = float("inf")
    method = METHODS["masked"]
    fine, ours = (denoise_together(method, batch, PLAIN, [1, 2, 3]) for batch in (noisy, broken))
    assert isinstance(ours[1], Diverged) and "b2g diverged: its loss is nan" in str(ours[1])
    for k in (0, 2):
        assert torch.allclose(ours[k].estimate, fine[k].estimate, rtol=0, atol=1e-6)
        assert [e["loss"] for e in ours[k].history] == pytest.approx([e["loss"] for e in fine[k].history], rel=1e-5)
    assert all(isinstance(answer, Diverged) for answer in denoise_together(method, broken[1:2], PLAIN, [2]))


def test_losses_are_summed_without_those_that_are_not_finite():
    blind = pictures(3, 1, 16).requires_grad_()
    mask = (pictures(3, 1, 16, seed=2) > 0.4).float()
    noisy = pictures(3, 1, 16, seed=3)
    noisy[1] = float("nan")
    losses = Losses(lambda blind, visible, noisy, mask: ((blind - noisy) ** 2 * mask).sum() / mask.sum())
    total = losses(blind, None, noisy, mask)
    total.backward()
    each = [(((blind - noisy)[k] ** 2 * mask[k]).sum() / mask[k].sum()).item() for k in range(3)]
    assert losses.last.tolist() == pytest.approx(each, nan_ok=True) and not losses.last.requires_grad
    assert total.item() == pytest.approx(each[0] + each[2])
    for k in (0, 2):
        slope = 2 * ((blind - noisy) * mask)[k] / mask[k].sum()
        assert torch.allclose(blind.grad[k], slope, atol=1e-7)
    assert math.isnan(losses(blind[1:2], None, noisy[1:2], mask[1:2]).item())


# ---- layers ----


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("size", [1, 3, 5])
def test_convolve_is_the_sum_over_windows(how, size):
    generator = np.random.RandomState(3)
    features, weight = generator.randn(3, 2, 6, 7), generator.randn(3, 4, 2, size, size)
    padded = np.pad(features, ((0, 0), (0, 0), (size // 2,) * 2, (size // 2,) * 2))
    expected = np.zeros((3, 4, 6, 7))
    for n, o, i, j in np.ndindex(*expected.shape):
        expected[n, o, i, j] = (padded[n, :, i : i + size, j : j + size] * weight[n, o]).sum()
    given = [torch.from_numpy(array).requires_grad_() for array in (features, weight)]
    assert np.allclose(convolve(*given, how).detach().numpy(), expected, atol=1e-12)
    assert torch.autograd.gradcheck(lambda f, w: convolve(f, w, how), given)


@pytest.mark.parametrize("how", HOW)
def test_convolve_computes_in_the_precision_of_autocast(how):
    features, weight = torch.randn(2, 3, 8, 8), torch.randn(2, 4, 3, 3, 3, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        answer = convolve(features, weight, how)
    answer.float().square().sum().backward()
    assert answer.dtype == torch.bfloat16 and weight.grad.dtype == torch.float32
    assert torch.allclose(answer.float(), convolve(features, weight, how), atol=0.15)


@pytest.mark.parametrize("layer, sentence", [
    (nn.Conv2d(2, 2, 3, stride=2, padding=1), "cannot hold Conv2d"),
    (nn.Conv2d(2, 2, 3), "cannot hold Conv2d"),
    (nn.Conv2d(2, 2, 3, padding=1, groups=2), "cannot hold Conv2d"),
    (nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect"), "cannot hold Conv2d"),
    (nn.Conv2d(2, 2, (1, 3), padding=(0, 1)), "cannot hold Conv2d"),
    (nn.Conv2d(2, 2, 2, padding=1), "cannot hold Conv2d"),
    (nn.BatchNorm2d(2), "running batch normalisation"),
    (nn.Sequential(nn.GroupNorm(1, 2)), "cannot hold a layer GroupNorm"),
])  # fmt: skip
def test_what_a_stack_cannot_hold_is_refused(layer, sentence):
    with pytest.raises(B2GError, match=sentence):
        stack_networks([layer, layer], "grouped")


def test_what_differs_among_the_pictures_is_refused():
    objectives = [METHODS["masked"].objective(picture, PLAIN) for picture in pictures(2).split(1)]
    objectives[0].level, objectives[1].level = 1.0, 2.0
    with pytest.raises(B2GError, match="level differs from picture to picture"):
        stack_objectives(objectives, 0, "grouped")
    objectives[1].level = 1.0
    assert isinstance(stack_objectives(objectives, 0, "grouped").network.network.last, StackedConv2d)


# ---- how many at once ----


class Product:
    """A loss whose step keeps the picture and its product with one weight for the slopes:
    8 bytes a number."""

    def __init__(self, noisy):
        self.network, self.noisy = nn.Conv2d(1, 1, 1, bias=False), noisy

    def loss(self, step):
        return (self.noisy * self.network.weight.view(())).square().sum(), None


def test_the_estimate_of_memory_counts_what_is_kept_for_the_slopes():
    assert bytes_a_picture(Product(pictures(1, 1, 20))) == 2 * (2 * 400 * 4) + 16
    one, four = (bytes_a_picture(METHODS["masked"].objective(pictures(1, 1, n), PLAIN)) for n in (64, 128))
    assert 3 < four / one < 4.1


@pytest.mark.parametrize("wish, size, expected", [
    ("auto", 32, 1), (True, 65, 6), (False, 32, 1), (1, 32, 1), (np.int64(4), 32, 4), (9, 32, 6),
])  # fmt: skip
def test_how_many_at_once(wish, size, expected):
    assert together_at_once(ZSN2N(), pictures(6, 1, size), PLAIN, wish) == expected


@pytest.mark.parametrize("method, size, expected", [(ZSN2N(), 128, 6), (ZSN2N(), 130, 1), (BM3D(), 32, 1)])
def test_auto_fits_small_pictures_side_by_side_on_a_gpu(method, size, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2**40, 2**40))
    monkeypatch.setattr(torch.Tensor, "to", lambda self, *_, **__: self)  # no GPU is needed to decide
    where = replace(PLAIN, device=torch.device("cuda"))
    assert together_at_once(method, pictures(6, 1, size), where, "auto") == expected


def test_at_once_is_bounded_by_memory(monkeypatch):
    method, noisy = METHODS["masked"], pictures(6)
    one = bytes_a_picture(method.objective(noisy[:1], PLAIN))
    for room, expected in ((0.5, 1), (3.5, 3), (100, 6)):
        monkeypatch.setattr(together, "_room", lambda device: int(room * one))
        assert together_at_once(method, noisy, PLAIN, True) == expected
    assert together_at_once(method, noisy[:1], PLAIN, True) == 1


def test_half_of_a_gpus_free_memory_may_be_taken(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (8000, 10000))
    assert together._room(torch.device("cuda")) == 4000


@pytest.mark.parametrize("settings", [
    dict(noise="poisson"), dict(posterior="global"),
])  # fmt: skip
def test_what_works_from_the_noise_level_of_one_picture_is_refused(settings):
    with pytest.raises(B2GError, match=f"b2g goes side by side with {next(iter(settings))}=.* only; use together=False"):
        denoise_together(METHODS["masked"].changed(**settings), pictures(2), PLAIN, [0, 1])


def test_true_refuses_what_cannot_be_stacked():
    noisy = pictures(2, 1, 16)
    with pytest.raises(B2GError, match="bm3d cannot fit pictures side by side; use together=False"):
        together_at_once(BM3D(), noisy, PLAIN, True)


@pytest.mark.parametrize("wish", ["yes", 0, -1, 1.5, None])
def test_wishes_that_cannot_be_are_refused(wish):
    with pytest.raises(B2GError, match="together must be 'auto', True, False or a whole number from 1 up"):
        together_at_once(ZSN2N(), pictures(1), PLAIN, wish)


# ---- on a GPU ----

gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")


@gpu
@pytest.mark.parametrize("how", HOW)
def test_a_gpu_fits_the_same_stack(how):
    """ZS-N2N draws nothing, so the two devices differ by rounding alone."""
    noisy, method = pictures(6, 3, 32), ZSN2N(steps=20, width=8)
    there = denoise_together(method, noisy, replace(PLAIN, device=torch.device("cuda")), list(range(6)), how=how)
    here = denoise_together(method, noisy, PLAIN, list(range(6)))
    for ours, theirs in zip(there, here):
        assert torch.allclose(ours.estimate.cpu(), theirs.estimate, atol=1e-2)


@gpu
@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_on_a_gpu_too_a_picture_that_diverges_spoils_no_other(how, precision):
    noisy = pictures(5)
    noisy[2, 0, 3, 3] = float("inf")
    where = Circumstances(device=torch.device("cuda"), precision=precision)
    answers = denoise_together(METHODS["masked"].changed(steps=12), noisy, where, list(range(5)), how=how)
    assert [isinstance(answer, Diverged) for answer in answers] == [False, False, True, False, False]
    assert all(answer.estimate.isfinite().all() for k, answer in enumerate(answers) if k != 2)
