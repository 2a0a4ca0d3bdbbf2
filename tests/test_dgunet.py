"""DGUNet: sizes as published, its parts against NumPy, stages by what they cannot depend on, and its
training.
"""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import b2g
from b2g import training
from b2g.crops import Drawn
from b2g.errors import B2GError
from b2g.fit import autocast, build
from b2g.methods import dgunet
from b2g.methods.dgunet import DGUNet, charbonnier, over_orientations
from b2g.networks.dgunet import (
    DGUNet as Network, Descent, HalfNorm, LastStage, Merge, Modulation, Operator, Shallow, Stage, UNet,
    project,
)  # fmt: skip
from b2g.report.parameters import parameters
from b2g.training import train

CPU = torch.device("cpu")
SMALL = dict(width=4, growth=2, stages=4)


def weights(network):
    return sum(p.numel() for p in network.parameters())


def slopes(network):
    return sum(m.weight.numel() for m in network.modules() if isinstance(m, nn.PReLU))


def small(seed=0, **changes):
    return build(lambda: Network(3, **(SMALL | changes)), seed, CPU)


def zeroed(*layers):
    with torch.no_grad():
        for layer in layers:
            for parameter in layer.parameters():
                parameter.zero_()


# ---- sizes ----


@pytest.mark.parametrize("channels, width, growth, shared, published", [
    (3, 80, 48, True, 17_216_312), (1, 80, 48, True, 17_195_820), (3, 80, 40, True, 14_424_904),
    (3, 80, 40, False, 48_361_987), (1, 80, 40, False, 48_317_223), (3, 40, 20, False, 12_176_107),
])  # fmt: skip
def test_the_networks_have_the_published_numbers_of_weights(channels, width, growth, shared, published):
    """Counted by hand from the published layers, which share their PReLUs' slopes: 3, or 2 in DGUNet+."""
    with torch.device("meta"):
        network = Network(channels, width, growth, 7, shared)
    assert weights(network) - slopes(network) == published - (3 if shared else 2)
    assert slopes(network) == (9 if shared else 21)


def test_the_stages_of_the_base_network_have_the_published_numbers_of_weights():
    with torch.device("meta"):
        network = Network(3)
        never_called = nn.Conv2d(160, 80, 3, bias=False)
    parts = (network.first, network.between[0], network.last)
    assert [weights(part) - slopes(part) for part in parts] == [6_750_375, 10_174_023, 291_911]
    assert round((weights(network) + weights(never_called)) / 1e6, 2) == 17.33  # as others print it


def test_a_profile_has_these_sizes():
    for name, shared, number in (("official", True, 17_216_318), ("plus", False, 48_362_006)):
        method = DGUNet.profile(name)
        assert (method.stages, method.shared, method.ensemble) == (7, shared, True)
        with torch.device("meta"):
            assert weights(method.network(3)) == number
    assert 0.2e6 < parameters(DGUNet()) < 0.8e6


def test_shared_stages_cost_no_weights_and_own_ones_do():
    assert weights(small(stages=4)) == weights(small(stages=9))
    own = [weights(small(stages=stages, shared=False)) for stages in (4, 5, 6)]
    assert own[2] - own[1] == own[1] - own[0] == weights(small(shared=False).between[0])


def test_the_u_net_has_the_published_widths_and_levels():
    network, sides, outputs = UNet(80, 48, guided=True), (16, 8, 4), []
    network.bottom.register_forward_hook(lambda module, seen, answer: outputs.append(answer.shape))
    with torch.no_grad():
        encoded, decoded = network(torch.rand(1, 80, 16, 16), [], [])
        again = network(torch.rand(1, 80, 16, 16), encoded, decoded)
    for down, back in ((encoded, decoded), again):
        assert [tuple(each.shape) for each in down] == [(1, w, s, s) for w, s in zip((128, 176, 224), sides)]
        assert [tuple(each.shape) for each in back] == [(1, w, s, s) for w, s in zip((80, 128, 176), sides)]
    assert outputs == [(1, 224, 2, 2)] * 2
    assert len(UNet(8, 4, guided=False).modulation) == 0


# ---- parts ----


def test_the_step_is_the_formula_and_starts_at_one_half(generator):
    step = build(lambda: Descent(3), 0, CPU)
    picture, noisy = torch.rand(2, 2, 3, 8, 9, generator=generator)
    assert step.length.tolist() == [0.5]
    expected = picture - 0.5 * step.back(step.forth(picture) - noisy)
    assert torch.allclose(step(picture, noisy), expected) and not torch.allclose(expected, picture)
    zeroed(step.forth.layers[-1], step.back.layers[-1])
    assert torch.equal(step.forth(picture), picture)
    for length in (0.0, 0.3, 1.0):
        nn.init.constant_(step.length, length)
        assert torch.allclose(step(picture, noisy), (1 - length) * picture + length * noisy, atol=1e-6)
        assert torch.allclose(step(noisy, noisy), noisy, atol=1e-6)


def test_an_operator_is_two_convolutions_beside_the_picture(generator):
    operator = build(lambda: Operator(1), 3, CPU)
    picture = torch.rand(1, 1, 5, 6, generator=generator)
    first, slope, second = (part.double() for part in operator.layers)
    framed = np.pad(picture[0, 0].double().numpy(), 2)
    kernels, back = first.weight[:, 0].detach().numpy(), second.weight[0].detach().numpy()
    inner = np.zeros((64, 7, 8))
    for i in range(1, 6):
        for j in range(1, 7):
            seen = (kernels * framed[i : i + 3, j : j + 3]).sum((1, 2)) + first.bias.detach().numpy()
            inner[:, i, j] = np.where(seen > 0, seen, slope.weight.item() * seen)
    expected = [[(back * inner[:, i : i + 3, j : j + 3]).sum() for j in range(6)] for i in range(5)]
    found = (operator(picture.double()) - picture)[0, 0].detach().numpy()
    assert np.allclose(found, np.array(expected) + second.bias.item(), atol=1e-6)


def test_shallow_features_end_in_a_residual_block_with_attention(generator):
    layer = build(lambda: Shallow(3, 8), 0, CPU)
    picture = torch.rand(1, 3, 8, 8, generator=generator)
    inner = layer.attended[:3](layer.first(picture))
    attention = layer.attended[3]
    scale = torch.sigmoid(attention.excite.weight @ (attention.squeeze.weight @ inner.mean((2, 3)).T).relu())
    assert attention.squeeze.weight.shape == (2, 8)
    assert torch.allclose(layer(picture), layer.first(picture) + inner * scale.T[..., None, None], atol=1e-6)
    zeroed(layer.attended[2])
    assert torch.equal(layer(picture), layer.first(picture))


def test_half_of_the_channels_are_normalised(generator):
    features = 3 * torch.randn(2, 5, 6, 7, generator=generator) + 1
    norm = HalfNorm(5)
    nn.init.uniform_(norm.norm.weight, generator=generator)
    nn.init.uniform_(norm.norm.bias, generator=generator)
    found, given = norm(features).detach().numpy(), features.double().numpy()
    assert np.array_equal(found[:, 2:], features[:, 2:].numpy())
    scale, shift = norm.norm.weight.detach().numpy(), norm.norm.bias.detach().numpy()
    for b in range(2):
        for c in range(2):
            one = given[b, c]
            expected = (one - one.mean()) / np.sqrt(one.var() + 1e-5) * scale[c] + shift[c]
            assert np.allclose(found[b, c], expected, atol=1e-5)


def test_modulation_scales_by_one_to_two_and_shifts(generator):
    layer = build(lambda: Modulation(6, 4), 0, CPU)
    features, encoded = torch.randn(2, 1, 6, 8, 8, generator=generator)
    decoded = torch.randn(1, 4, 8, 8, generator=generator)
    guide = layer.encoded(encoded) + layer.decoded(decoded)
    guide = torch.where(guide > 0, guide, 0.1 * guide)
    expected = features * torch.sigmoid(layer.scale(guide)) + layer.shift(guide) + features
    assert torch.allclose(layer(features, encoded, decoded), expected, atol=1e-6)
    zeroed(layer.scale, layer.shift)
    assert torch.allclose(layer(features, encoded, decoded), 1.5 * features)


# ---- the projection ----


def test_the_projection_is_the_least_squares_fit_of_numpy(generator):
    features, maps = (torch.randn(2, channels, 9, 7, generator=generator) for channels in (5, 4))
    maps *= torch.tensor([1e-3, 1.0, 30.0, 1e3])[:, None, None]
    found = project(features, maps)
    for b in range(2):
        columns, given = (part[b].flatten(1).double().numpy().T for part in (maps, features))
        expected = columns @ np.linalg.lstsq(columns, given, rcond=None)[0]
        assert np.allclose(found[b].flatten(1).numpy().T, expected, atol=1e-4)


def test_the_projection_is_one(generator):
    """It keeps what is in the span, leaves a residual at right angles, has rank 16, and minds no scale."""
    maps = torch.randn(1, 16, 8, 8, generator=generator)
    features = torch.randn(1, 3, 8, 8, generator=generator)
    once = project(features, maps)
    assert torch.allclose(project(once, maps), once, atol=2e-3)
    assert torch.allclose(project(maps, maps), maps, atol=2e-3)
    assert float(((features - once) * once).sum((2, 3)).abs().max()) < 1e-2
    every = torch.eye(64).reshape(1, 64, 8, 8)
    assert float(torch.trace(project(every, maps).flatten(2)[0])) == pytest.approx(16, abs=0.01)
    scaled = maps * torch.logspace(-4, 4, 16)[:, None, None]
    assert torch.allclose(project(features, scaled), once, atol=1e-4)
    assert torch.equal(project(0 * features, maps), 0 * features)


def test_maps_that_say_the_same_or_nothing_do_no_harm(generator):
    one = torch.rand(1, 1, 8, 8, generator=generator)
    maps = torch.cat([one] * 15 + [0 * one], 1).requires_grad_()
    features = torch.randn(1, 2, 8, 8, generator=generator)
    found = project(features, maps)
    found.square().sum().backward()
    expected = one * (features * one).sum((2, 3), keepdim=True) / one.square().sum()
    assert torch.allclose(found, expected, atol=1e-3) and torch.isfinite(maps.grad).all()
    with autocast(CPU, "bfloat16"):
        assert project(features, maps).dtype == torch.float32


def test_merging_adds_both_features_convolved(generator):
    layer = build(lambda: Merge(6), 0, CPU)
    features, earlier = torch.randn(2, 1, 6, 8, 9, generator=generator)
    maps = layer.maps(torch.cat((features, earlier), 1))
    assert maps.shape == (1, 16, 8, 9)
    both = torch.cat((features, project(earlier, maps)), 1)
    joined = F.conv2d(both, layer.joined.weight, layer.joined.bias, padding=1)
    assert torch.allclose(layer(features, earlier), features + joined, atol=1e-5)
    alone = F.conv2d(features, layer.joined.weight[:, :6], layer.joined.bias, padding=1)
    assert torch.allclose(layer(features, 0 * earlier), features + alone, atol=1e-5)


# ---- stages ----


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("size", [(16, 16), (17, 23), (24, 40)])
def test_every_stage_gives_a_picture_of_any_size(size, shared):
    for channels in (1, 3):
        network = Network(channels, **SMALL, shared=shared)
        found = network(torch.rand(2, channels, *size))
        assert found.shape == (2, 4, channels, *size) and torch.isfinite(found).all()


def test_other_sides_are_mirrored_and_cropped(generator):
    network = small()
    picture = torch.rand(1, 3, 17, 22, generator=generator)
    grown = np.pad(picture.numpy(), ((0, 0), (0, 0), (0, 7), (0, 2)), mode="reflect")
    expected = network(torch.from_numpy(grown))[..., :17, :22]
    assert torch.allclose(network(picture), expected, atol=1e-6)


@pytest.mark.parametrize("shared", [True, False])
def test_without_its_last_convolution_a_stage_hands_on_what_it_began_with(shared, generator):
    network = small(shared=shared)
    noisy = torch.rand(2, 3, 16, 24, generator=generator)
    zeroed(network.last.tail)
    assert torch.equal(network(noisy)[:, 0], noisy)
    zeroed(network.first.to_picture)
    assert torch.equal(network(noisy)[:, -1], network.first.descent(noisy, noisy))


def test_the_stages_unroll_and_more_of_them_begin_alike(generator):
    short, long = small(stages=7), small(stages=9)
    noisy = torch.rand(1, 3, 16, 16, generator=generator)
    found, longer = short(noisy), long(noisy)
    assert found.shape[1] == 7 and torch.equal(found[:, 1:], longer[:, -6:])
    assert isinstance(short.first, Stage) and isinstance(short.last, LastStage)
    estimate, features, encoded, decoded = short.first(noisy, noisy, None, [], [])
    for k in range(2, 7):
        estimate, features, encoded, decoded = short.between[0](estimate, noisy, features, encoded, decoded)
        assert torch.equal(estimate, found[:, 7 - k])
    assert torch.equal(short.last(estimate, noisy, features), found[:, 0])


def test_with_own_weights_a_stage_changes_only_itself_and_what_follows(generator):
    network = small(stages=6, shared=False)
    noisy = torch.rand(1, 3, 16, 16, generator=generator)
    before = network(noisy)
    for k, stage in enumerate(network.between, start=2):
        kept = stage.to_picture.weight.detach().clone()
        zeroed(stage.to_picture)
        changed = (network(noisy) - before).abs().amax((0, 2, 3, 4)).flip(0) > 0
        stage.to_picture.weight.data.copy_(kept)
        assert changed.tolist() == [False] * (k - 1) + [True] * (7 - k)


def test_a_later_stage_hears_of_the_earlier_ones_by_features_encoder_and_decoder(generator):
    network = small()
    noisy = torch.rand(1, 3, 16, 16, generator=generator)
    estimate, *passed = (part for part in network.first(noisy, noisy, None, [], []))
    stage = network.between[0]
    before = stage(estimate, noisy, *passed)[0]
    for place in range(3):
        for level in range(3 if place else 1):
            changed = [passed[0] + 1, list(passed[1]), list(passed[2])] if not place else \
                [passed[0], list(passed[1]), list(passed[2])]  # fmt: skip
            if place:
                changed[place][level] = changed[place][level] + 1
            assert not torch.equal(stage(estimate, noisy, *changed)[0], before)


def test_pictures_of_a_batch_do_not_meet_and_training_is_no_other_state(generator):
    network = small()
    noisy = torch.rand(2, 3, 16, 24, generator=generator)
    together = network(noisy)
    alone = torch.cat([network(one) for one in noisy.split(1)])
    assert torch.allclose(together, alone, atol=1e-5) and torch.equal(network.eval()(noisy), together)


@pytest.mark.parametrize("shared", [True, False])
def test_every_weight_is_learned_from_one_draw(shared, generator):
    network = small(stages=5, shared=shared)
    noisy = torch.rand(1, 3, 24, 24, generator=generator)
    charbonnier(network(noisy), noisy).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


# ---- loss, orientations, settings ----


def test_the_loss_is_that_of_numpy_and_of_perfect_pictures_a_thousandth_a_stage(generator):
    clean = torch.rand(2, 3, 5, 6, generator=generator)
    perfect = clean[:, None].expand(-1, 7, -1, -1, -1)
    assert float(charbonnier(perfect, clean)) == pytest.approx(0.007, rel=1e-4)
    pictures = (3 * torch.rand(2, 4, 3, 5, 6, generator=generator) - 1).requires_grad_()
    loss = charbonnier(pictures, clean)
    given, expected = pictures.detach().double().numpy(), 0.0
    for k in range(4):
        difference = np.clip(given[:, k], 0, 1) - clean.double().numpy()
        expected += np.sqrt(difference**2 + 1e-6).mean()
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-5)
    loss.backward()
    outside = (pictures.detach() < 0) | (pictures.detach() > 1)
    assert (pictures.grad[outside] == 0).all() and (pictures.grad[~outside] != 0).float().mean() > 0.99


def test_the_answer_is_the_mean_over_eight_orientations(generator):
    picture = torch.rand(1, 2, 5, 7, generator=generator)
    seen = []
    assert torch.allclose(over_orientations(lambda one: seen.append(one) or one, picture), picture)
    assert len({one.numpy().tobytes() for one in seen}) == 8

    def run(one):  # nothing about it is alike in any two directions
        return one.cumsum(-1) + one.roll(1, -2)

    square, expected = picture[..., :5].double(), np.zeros((2, 5, 5))
    for turns in range(4):
        for mirror in (False, True):
            view = np.rot90(square[0].numpy(), turns, (1, 2))
            view = view.transpose(0, 2, 1) if mirror else view
            answer = np.cumsum(view, 2) + np.roll(view, 1, 1)
            answer = answer.transpose(0, 2, 1) if mirror else answer
            expected += np.rot90(answer, -turns, (1, 2)) / 8
    assert np.allclose(over_orientations(run, square)[0].numpy(), expected)


def test_it_says_that_it_sees_clean_pictures():
    assert DGUNet.supervised and not DGUNet.pairs and DGUNet.label == "many images"
    assert "supervised ceiling" in DGUNet.__doc__ and "supervised ceiling" in dgunet.__doc__
    for name in ("full", "plus"):
        recipe = DGUNet.recipes[name]
        assert (recipe.learning_rate, recipe.batch, recipe.side, recipe.sigma) == (1e-4, 16, 128, 25.0)
        assert recipe.steps == 80 * 320 * 300 // 16
    assert DGUNet.profile("official").recipe == "full" and DGUNet.profile("plus").recipe == "plus"
    assert DGUNet.recipes["small"].noise == "frozen" and DGUNet().recipe == "small"


@pytest.mark.parametrize("change, sentence", [
    (dict(width=1), "width must be at least 2"), (dict(growth=-1), "growth must be at least 0"),
    (dict(stages=2), "stages must be at least 3"), (dict(recipe="none"), "dgunet has no recipe 'none'"),
])  # fmt: skip
def test_what_cannot_be_is_refused_in_one_sentence(change, sentence):
    with pytest.raises(B2GError, match=sentence) as raised:
        DGUNet(**change)
    assert "\n" not in str(raised.value)


# ---- training ----


@pytest.mark.parametrize("precision, steps, loss_left, error_left", [
    ("float32", 50, 0.5, 0.7), ("bfloat16", 12, 0.9, 1.5)
])  # fmt: skip
def test_two_crops_are_learned(precision, steps, loss_left, error_left):
    pictures = [b2g.load(f"skimage/{name}@16") for name in ("astronaut", "chelsea")]
    clean = torch.from_numpy(np.stack(pictures)).movedim(-1, 1)
    noisy = clean + 25 / 255 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    method = DGUNet(width=4, growth=2, stages=3)
    network = build(lambda: method.network(3), 0, CPU)
    optimiser = torch.optim.Adam(network.parameters(), 5e-3)

    def run(picture):
        with autocast(CPU, precision):
            answer = network(picture)
        return answer.float()

    losses = []
    for _ in range(steps):
        loss = method.training_loss(run, Drawn(noisy, clean), torch.zeros(()), None)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert np.mean(losses[-4:]) < loss_left * losses[0]
    error = method.answer(run, noisy, None).detach() - clean
    assert float(error.square().mean()) < error_left * float((noisy - clean).square().mean())


def test_trained_weights_answer_alone_and_over_orientations(tmp_path, monkeypatch):
    names = ["skimage/astronaut@48", "skimage/chelsea@40"]
    monkeypatch.setattr(training, "training_names", lambda recipe, limit=None: names)
    method = DGUNet(width=2, growth=2, stages=3)
    recipe = method.chosen_recipe(steps=3, batch=2, side=16)
    result = train(method, recipe, tmp_path / "w.safetensors", precision="float32")
    assert json.loads(result.path.with_suffix(".json").read_text())["settings"]["stages"] == 3
    noisy = b2g.add_noise(b2g.load("skimage/rocket@20"), "gaussian", 25, seed=0)[:, :17]
    here = method.changed(weights=str(result.path))
    one, eight = (b2g.denoise(noisy, each, progress=False, precision="float32").image
                  for each in (here, here.changed(ensemble=True)))  # fmt: skip
    assert one.shape == eight.shape == (20, 17, 3) and not np.array_equal(one, eight)
    network = here.loaded(3, CPU)
    expected = network(torch.from_numpy(noisy).movedim(-1, 0)[None].contiguous()).detach()[0, 0].clamp(0, 1)
    assert np.allclose(one, expected.movedim(0, -1).numpy(), atol=1e-5)
