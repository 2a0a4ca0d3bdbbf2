"""Noise2Self, Noise2Void, Noise2Same and Noise2Fast: networks that learn from pixels kept from them."""

import itertools

import numpy as np
import pytest
import skimage.data
import torch
from killed import killed
from oracles import assert_rate
from torch import nn

import b2g
from b2g.by_channel import each_channel
from b2g.crops import CropObjective, Drawn
from b2g.errors import B2GError
from b2g.fit import build
from b2g.masks import grid_masks, ring_fill, stratified_mask
from b2g.method import Circumstances, Denoised
from b2g.methods import METHODS, Noise2Fast, Noise2Same, Noise2Self, Noise2Void
from b2g.methods.noise2fast import FieldNetwork, FieldObjective, fields, ordered_pairs
from b2g.methods.noise2same import same_loss
from b2g.methods.noise2self import GridObjective
from b2g.methods.noise2void import neighbour_fill
from b2g.networks.shallow_unet import ShallowUNet

CPU = torch.device("cpu")
ASTRONAUT = skimage.data.astronaut()[20:84, 200:264].astype(np.float32) / 255
TINY = {  # a few steps of a few weights
    "noise2self": dict(steps=6, width=4, depth=3, every=2),
    "noise2void": dict(steps=4, width=2, patch=16, batch=2),
    "noise2same": dict(steps=4, width=2, patch=16, batch=2, halve_every=2),
    "noise2fast": dict(steps=6, width=3, depth=2),
}


def noisy(height=16, width=16, channels=3):
    clean = ASTRONAUT[:height, :width] if channels == 3 else ASTRONAUT[:height, :width, 1]
    return b2g.add_noise(np.ascontiguousarray(clean), "gaussian", 25, seed=0)


def quick(given, name, **more):
    return b2g.denoise(given, name, "smoke", progress=False, precision="float32", **(TINY[name] | more))


# ---- what all four do ----


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("size, channels", [((16, 16), 3), ((17, 35), 1)])
def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(name, size, channels):
    given, state = noisy(*size, channels), torch.get_rng_state()
    first, again, other = (quick(given, name, seed=seed) for seed in (3, 3, 4))
    assert first.image.tobytes() == again.image.tobytes() != other.image.tobytes()
    assert first.image.shape == given.shape and 0 <= first.image.min() and first.image.max() <= 1
    assert torch.equal(state, torch.get_rng_state())
    METHODS[name]()
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("name", TINY)
def test_the_clean_picture_is_only_shown(name):
    given = noisy()
    alone, shown = quick(given, name), quick(given, name, clean=ASTRONAUT[:16, :16].copy(), log_every=1)
    assert alone.image.tobytes() == shown.image.tobytes()
    assert all("psnr" in entry for entry in shown.history) and "psnr" not in alone.history[-1]


@pytest.mark.parametrize("name", TINY)
def test_flat_and_far_values_are_welcome(name):
    assert np.isfinite(quick(2 * noisy() - 0.5, name).image).all()
    assert np.isfinite(quick(np.full((16, 16), 0.5, np.float32), name).image).all()


STOPPED = {
    "noise2self": (GridObjective, {}),
    "noise2void": (CropObjective, {}),
    "noise2void, per channel": (CropObjective, dict(per_channel=True)),
    "noise2same": (CropObjective, {}),
    "noise2fast": (FieldObjective, {}),
}


@pytest.mark.parametrize("what", STOPPED)
def test_a_killed_fit_goes_on_to_the_same_bytes(what, tmp_path, monkeypatch):
    name, (objective, more) = what.split(",")[0], STOPPED[what]
    given, path = noisy(20, 24), tmp_path / "fit.ckpt"
    settings = dict(steps=9, seed=2, clean=np.ascontiguousarray(ASTRONAUT[:20, :24])) | more
    expected = quick(given, name, **settings)
    whole = objective.loss
    with killed(monkeypatch, objective, 6):
        quick(given, name, checkpoint=path, **settings)
    assert len(list(tmp_path.iterdir())) == 1
    steps = []
    monkeypatch.setattr(objective, "loss", lambda self, step: steps.append(step) or whole(self, step))
    found = quick(given, name, checkpoint=path, **settings)
    assert found.image.tobytes() == expected.image.tobytes() and not list(tmp_path.iterdir()) and steps[0] == 6
    assert [entry["loss"] for entry in found.history] == [entry["loss"] for entry in expected.history]


@pytest.mark.parametrize("name, settings, sentence", [
    ("noise2self", dict(cell=1), "cell must be at least 2, not 1"),
    ("noise2self", dict(every=0), "every must be at least 1, not 0"),
    ("noise2self", dict(depth=1), "depth must be at least 2, not 1"),
    ("noise2self", dict(width=0), "width must be at least 1, not 0"),
    ("noise2self", dict(answer="best"), "answer must be one of whole, blind, not 'best'"),
    ("noise2self", dict(steps=0), "steps must be at least 1, not 0"),
    ("noise2void", dict(masked=0.0), "masked is the share .*, not 0.0"),
    ("noise2void", dict(masked=0.3), "masked is the share .*, not 0.3"),
    ("noise2void", dict(error="cubed"), "error must be one of absolute, squared, not 'cubed'"),
    ("noise2void", dict(radius=0), "radius must be at least 1, not 0"),
    ("noise2void", dict(patch=8), "patch must be at least 16, not 8"),
    ("noise2void", dict(batch=0), "batch must be at least 1, not 0"),
    ("noise2void", dict(kernel=4), "kernel .* must be odd, not 4"),
    ("noise2void", dict(levels=0), "levels must be at least 1, not 0"),
    ("noise2void", dict(learning_rate=0), "learning_rate must be positive"),
    ("noise2same", dict(masked=1), "masked is the share"),
    ("noise2same", dict(weight=-1), "weight is lambda .*, not -1"),
    ("noise2same", dict(halve_every=0), "halve_every must be at least 1, not 0"),
    ("noise2same", dict(kernel=2), "kernel .* must be odd, not 2"),
    ("noise2fast", dict(patience=0), "patience must be at least 1, not 0"),
    ("noise2fast", dict(width=0), "width must be at least 1, not 0"),
    ("noise2fast", dict(depth=0), "depth must be at least 1, not 0"),
])  # fmt: skip
def test_an_impossible_setting_is_refused(name, settings, sentence):
    with pytest.raises(B2GError, match=sentence) as raised:
        METHODS[name].profile(None, **settings)
    assert "\n" not in str(raised.value)


# ---- Noise2Self ----


def grid(picture, width=4, every=1):
    from b2g.networks.dncnn import DnCNN

    network = build(lambda: DnCNN(picture.shape[1], 3, width, bias=False, residual=False), 0, CPU)
    return GridObjective(network, picture, 4, every, "float32")


def test_official_noise2self_says_what_the_code_says():
    method = Noise2Self.profile("official")
    assert (method.steps, method.learning_rate, method.cell, method.every, method.answer) == (500, 0.01, 4, 10, "whole")
    network = method.objective(torch.rand(1, 1, 16, 16), Circumstances()).network
    assert sum(p.numel() for p in network.parameters()) == 223_104


def test_the_loss_of_noise2self_is_that_of_the_hidden_pixels_over_all(generator):
    picture = torch.rand(1, 3, 9, 10, generator=generator)
    objective = grid(picture)
    for step in (0, 4, 17):
        loss, estimate = objective.loss(step)
        mask = grid_masks(9, 10)[step % 15][None]
        answer = objective.network(ring_fill(picture, mask)).detach().numpy()
        total = 0.0
        for c, y, x in np.ndindex(3, 9, 10):
            if (y % 4) * 4 + x % 4 == step % 15:
                total += (float(answer[0, c, y, x]) - float(picture[0, c, y, x])) ** 2
        assert float(loss.detach()) == pytest.approx(total / (3 * 9 * 10), rel=1e-4) and estimate is None


def test_the_last_phase_is_for_validation_alone(generator):
    """Its pixels are never asked for in a step; they alone make the score."""
    picture = torch.rand(1, 1, 16, 16, generator=generator)
    other = picture.clone()
    other[..., 3::4, 3::4] += 1.0
    seen, steps = [], range(31)
    objective = grid(picture)
    objective._gap = lambda mask: seen.append(mask) or torch.zeros(())
    for step in steps:
        objective.loss(step)
    assert all(torch.equal(mask[0], grid_masks(16, 16)[step % 15]) for step, mask in zip(steps, seen))
    objective.validate(1)
    assert torch.equal(seen[-1][0], grid_masks(16, 16)[15])
    first, second = grid(picture), grid(other)
    first.validate(1), second.validate(1)
    assert first.best != second.best


def test_the_best_weights_by_the_validation_are_kept(generator):
    """Normalisation learns while the network is fitted and only then; the score decides,
    not the last step."""
    objective = grid(torch.rand(1, 1, 16, 16, generator=generator), every=2)
    running = objective.network.layers[3]
    scores, weights = iter([3.0, 1.0, 2.0]), objective.network.layers[0].weight
    objective._gap = lambda mask: torch.tensor(next(scores)) if not objective.network.training else torch.zeros(())
    for done in range(1, 7):
        with torch.no_grad():
            weights.fill_(done)
        assert objective.validate(done) is False
    objective.choose()
    assert objective.best == 1.0 and (weights == 4).all()
    objective = grid(torch.rand(1, 1, 16, 16, generator=generator))
    running = objective.network.layers[3]
    before = running.running_mean.clone()
    objective.whole(), objective.blind(), objective.validate(1)
    assert torch.equal(before, running.running_mean)
    objective.loss(0)
    assert not torch.equal(before, running.running_mean)


def test_the_blind_answer_is_j_invariant_and_the_whole_one_is_not(generator):
    picture = torch.rand(1, 3, 16, 18, generator=generator)
    objective = grid(picture)
    blind, whole = objective.blind(), objective.whole()
    for y, x in ((0, 0), (7, 9), (15, 17)):
        objective.noisy = picture.clone()
        objective.noisy[0, :, y, x] += 0.5
        moved = objective.blind()
        assert torch.equal(moved[..., y, x], blind[..., y, x]) and not torch.equal(moved, blind)
        assert not torch.equal(objective.whole()[..., y, x], whole[..., y, x])


def test_the_answer_is_the_one_that_is_asked_for(monkeypatch):
    given = torch.from_numpy(noisy()).permute(2, 0, 1)[None]
    for name in ("whole", "blind"):
        monkeypatch.setattr(GridObjective, name, lambda self, name=name: torch.full((1, 3, 16, 16), len(name) / 10))
    for name in ("whole", "blind"):
        answer = Noise2Self.profile("smoke", **TINY["noise2self"], answer=name)(given).estimate
        assert float(answer.mean()) == pytest.approx(len(name) / 10)


# ---- Noise2Void and Noise2Same ----


@pytest.mark.parametrize("masked, cell", [(0.015, 8), (0.005, 14), (0.06, 4)])
def test_a_stratified_mask_hides_one_pixel_of_every_cell(masked, cell, generator):
    mask = stratified_mask((550, 2, 4 * cell, 3 * cell), masked, generator=generator)
    cells = (1 - mask).unflatten(-1, (3, cell)).unflatten(-3, (4, cell))
    assert (cells.sum((-1, -3)) == 1).all() and not torch.equal(mask[:, 0], mask[:, 1])
    shared = stratified_mask((2, 3, 32, 32), masked, generator=generator, per_channel=False)
    assert (shared == shared[:, :1]).all()
    corner = int((1 - mask)[..., ::cell, ::cell].sum())
    assert_rate(corner, 550 * 2 * 12, 1 / cell**2, [3 / cell**2])
    assert stratified_mask((1, 1, 17, 5), masked, generator=generator).shape == (1, 1, 17, 5)


def test_a_stratified_mask_of_nothing_and_of_too_much(generator):
    with pytest.raises(B2GError, match="masked is a fraction"):
        stratified_mask((1, 1, 8, 8), 1.5, generator=generator)


@pytest.mark.parametrize("centre", [True, False])
def test_hidden_pixels_are_replaced_evenly_from_their_neighbourhood(centre, generator):
    """A picture that numbers its pixels tells where each value comes from."""
    picture = torch.arange(63.0).reshape(1, 1, 7, 9).expand(4000, 1, 7, 9)
    mask = torch.ones(4000, 1, 7, 9)
    mask[..., 0, 1] = mask[..., 4, 4] = 0
    filled = neighbour_fill(picture, mask, 2, generator=generator, centre=centre)
    assert torch.equal(filled[mask == 1], picture[mask == 1])
    for (y, x), rows, columns in (((0, 1), range(3), range(4)), ((4, 4), range(2, 7), range(2, 7))):
        places = [9 * row + column for row in rows for column in columns if centre or (row, column) != (y, x)]
        values, counts = filled[:, 0, y, x].long().unique(return_counts=True)
        assert values.tolist() == sorted(places)
        for count in counts:
            assert_rate(int(count), 4000, 1 / len(places), [2 / len(places)])


@pytest.mark.parametrize("error", ["absolute", "squared"])
def test_the_loss_of_noise2void_is_that_of_the_hidden_pixels(error, generator):
    crops, twin = torch.rand(2, 3, 16, 16, generator=generator), torch.Generator().manual_seed(5)
    method, shown = Noise2Void(masked=0.06, error=error), []
    run = lambda picture: shown.append(picture) or picture * 0.5  # noqa: E731
    loss = method.training_loss(run, Drawn(crops), torch.zeros(()), twin)
    hidden = stratified_mask(crops.shape, 0.06, generator=torch.Generator().manual_seed(5)).numpy() == 0
    gap = (shown[0] * 0.5 - crops).numpy()[hidden]
    assert float(loss) == pytest.approx(float(np.abs(gap).mean() if error == "absolute" else (gap**2).mean()), rel=1e-5)
    assert torch.equal(shown[0][torch.from_numpy(~hidden)], crops[torch.from_numpy(~hidden)])
    assert (shown[0] != crops).sum() > 0.8 * hidden.sum()


def test_official_noise2void_says_what_the_library_says():
    method = Noise2Void.profile("official")
    assert (method.steps, method.batch, method.patch, method.learning_rate) == (100 * 400, 16, 64, 4e-4)
    assert (method.masked, method.radius, method.error, method.per_channel) == (0.015, 5, "absolute", True)
    assert (method.width, method.levels, method.kernel) == (32, 2, 5)
    assert [method.schedule().factor(step) for step in (19_999, 20_000, 39_999)] == [1.0, 0.5, 0.5]


def test_the_loss_of_noise2same_is_its_closed_form(generator):
    whole, blind, given = torch.rand(3, 2, 3, 8, 8, generator=generator, dtype=torch.float64)
    mask = (torch.rand(2, 1, 8, 8, generator=generator) > 0.2).double()
    hidden = np.broadcast_to(mask.numpy() == 0, whole.shape)
    expected = ((whole - given) ** 2).mean() + 2 * ((whole - blind).numpy()[hidden] ** 2).mean() ** 0.5
    assert float(same_loss(whole, blind, given, mask)) == pytest.approx(float(expected), rel=1e-9)
    whole.requires_grad_()
    same_loss(whole, whole.clone(), given, mask).backward()
    assert torch.allclose(whole.grad, 2 * (whole.detach() - given) / whole.numel())  # finite where both agree


def test_noise2same_hides_all_channels_of_a_pixel_and_shows_the_rest(generator):
    crops, shown = torch.rand(2, 3, 28, 28, generator=generator), []
    run = lambda picture: shown.append(picture) or picture  # noqa: E731
    loss = Noise2Same(weight=3.0).training_loss(run, Drawn(crops), torch.zeros(()), generator)
    assert torch.equal(shown[0], crops)
    changed = shown[1] != crops
    assert (changed.sum((-1, -2)) == 4).all() and (changed == changed[:, :1]).all()
    gap = (shown[1] - crops)[changed].square().mean().sqrt()
    assert float(loss) == pytest.approx(3 * float(gap), rel=1e-5)


def test_the_learning_rate_of_noise2same_is_halved_every_so_often():
    factors = [Noise2Same(steps=20_000).schedule().factor(step) for step in (0, 4999, 5000, 10_000, 15_000, 19_999)]
    assert factors == [1, 1, 0.5, 0.25, 0.125, 0.125]
    assert Noise2Same(steps=5000).schedule().factor(4999) == 1


def test_patches_are_standardised_and_the_answer_is_not(generator):
    picture = torch.rand(1, 3, 20, 21, generator=generator) * torch.tensor([0.1, 0.5, 1.0])[:, None, None]
    objective = Noise2Same(**TINY["noise2same"]).objective(picture, Circumstances(precision="float32"))
    assert torch.allclose(objective.standard.mean((-1, -2)), torch.zeros(1, 3), atol=1e-5)
    assert torch.allclose(objective.standard.std((-1, -2)), torch.ones(1, 3), atol=1e-5)
    assert objective.crops.draw().noisy.shape == (2, 3, 16, 16)
    assert torch.isin(objective.crops.draw().noisy, objective.standard).all()
    objective.run = lambda given: given
    assert torch.allclose(objective.answer(), picture, atol=1e-6)


def test_a_patch_network_answers_with_what_it_learnt(generator):
    objective = Noise2Void(**TINY["noise2void"]).objective(torch.rand(1, 1, 20, 21, generator=generator), Circumstances())
    norms = [module for module in objective.network.modules() if isinstance(module, nn.BatchNorm2d)]
    objective.loss(0)
    before = [module.running_mean.clone() for module in norms]
    first, second = objective.answer(), objective.answer()
    assert torch.equal(first, second) and objective.network.training
    assert all(torch.equal(one, module.running_mean) for one, module in zip(before, norms))


@pytest.mark.parametrize("size", [(16, 16), (17, 22)])
def test_the_shallow_network_takes_any_size(size, generator):
    picture = torch.rand(2, 3, *size, generator=generator)
    network = build(lambda: ShallowUNet(3, 4), 0, CPU).eval()
    added = build(lambda: ShallowUNet(3, 4, residual=True), 0, CPU).eval()
    assert network(picture).shape == picture.shape
    assert torch.allclose(added(picture), picture + network(picture), atol=1e-6)


def test_the_shallow_network_doubles_its_features_a_level_down():
    """Counted by hand: 3x3, width 4, two halvings, offsets, a scale and a shift a feature."""
    layers = [(1, 4), (4, 4), (4, 8), (8, 8), (8, 16), (16, 8), (16, 8), (8, 4), (8, 4), (4, 4)]
    expected = sum(9 * given * made + 3 * made for given, made in layers) + 4 + 1
    assert sum(p.numel() for p in ShallowUNet(1, 4, 2, 3).parameters()) == expected
    with pytest.raises(B2GError, match="kernel .* odd"):
        ShallowUNet(1, 4, 2, 4)
    with pytest.raises(B2GError, match="at least 1 feature and 1 halving, not 4 and 0"):
        ShallowUNet(1, 4, 0)


# ---- Noise2Fast ----


def test_noise2fast_has_the_weights_of_its_code():
    assert sum(p.numel() for p in FieldNetwork().parameters()) == 259_201
    method = Noise2Fast.profile("official")
    assert (method.learning_rate, method.patience) == (1e-3, 100)


def test_fields_are_the_two_colours_of_the_chequerboard(generator):
    """Against a loop; no pixel is lost, none is twice."""
    picture = torch.rand(1, 2, 6, 5, generator=generator)
    even, odd = fields(picture)
    for y, x in np.ndindex(3, 5):
        rows = (2 * y, 2 * y + 1) if x % 2 == 0 else (2 * y + 1, 2 * y)
        assert torch.equal(even[..., y, x], picture[..., rows[0], x])
        assert torch.equal(odd[..., y, x], picture[..., rows[1], x])


def test_the_four_pairs_are_put_together_again(generator):
    picture = torch.rand(1, 1, 7, 9, generator=generator)
    pairs, seen = ordered_pairs(picture), []
    assert [given.shape[-2:] for given, _ in pairs] == [(3, 8), (3, 8), (6, 4), (6, 4)]
    for given, wanted in pairs:
        both = torch.cat((given.flatten(), wanted.flatten()))
        assert torch.equal(both.sort().values, picture[..., :6, :8].flatten().sort().values)
        seen.append(given.flatten().sort().values)
    for y, x in np.ndindex(6, 4):  # across: by a loop, as the fields that are pushed down above
        assert pairs[2][0][0, 0, y, x] == picture[0, 0, y, 2 * x + y % 2]
        assert pairs[2][1][0, 0, y, x] == picture[0, 0, y, 2 * x + 1 - y % 2]
    # Pushed down or across, a field has the same pixels;
    # the second pair of each kind is the first one turned round.
    assert torch.equal(seen[0], seen[2]) and torch.equal(seen[1], seen[3]) and not torch.equal(seen[0], seen[1])
    assert torch.equal(pairs[0][0], pairs[1][1]) and torch.equal(pairs[2][0], pairs[3][1])


def field_objective(picture, answers=None, patience=3):
    """An objective whose network gives these constant logits, one after the other, to the whole picture."""
    objective = FieldObjective(nn.Linear(1, 1), picture, patience, torch.Generator().manual_seed(0), "float32")
    if answers is not None:
        logits = iter(answers)
        objective._logits = lambda given: torch.full_like(given, next(logits))
    return objective


def test_the_loss_of_noise2fast_is_the_cross_entropy_of_a_pair(generator):
    picture = 3 * torch.rand(1, 1, 8, 6, generator=generator) - 1
    objective = field_objective(picture)
    assert float(objective.noisy.min()) == 0 and float(objective.noisy.max()) == pytest.approx(1)
    objective._logits = lambda given: 4 * given - 2
    drawn = torch.Generator().manual_seed(0)
    for step in range(8):
        given, wanted = (t.double().numpy() for t in ordered_pairs(objective.noisy)[int(torch.randint(4, (), generator=drawn))])
        chance = 1 / (1 + np.exp(2 - 4 * given))
        expected = -(wanted * np.log(chance) + (1 - wanted) * np.log(1 - chance)).mean()
        assert float(objective.loss(step)[0]) == pytest.approx(float(expected), rel=1e-5)


def test_the_fit_ends_by_the_distance_to_the_noisy_picture(generator):
    """Logits that come nearer to the constant best one, then leave it:
    the mean is of the five up to it and all after."""
    picture = torch.rand(1, 1, 8, 8, generator=generator)
    objective = field_objective(picture, patience=3)
    middle = float(objective.noisy.mean().logit())
    logits = [middle + gap for gap in (4, 3, 2.5, 2, 1.5, 1, 0, 0.4, 0.3, 0.2, 9)]
    objective = field_objective(picture, logits)
    stops = [objective.watch_answer(done) for done in range(1, 11)]
    assert stops == 9 * [False] + [True] and objective.count == 5 + 3
    mean = np.mean([1 / (1 + np.exp(-logit)) for logit in logits[2:10]])
    low, high = float(picture.min()), float(picture.max())
    assert objective.answer().numpy() == pytest.approx(mean * (high - low) + low, abs=1e-5)
    assert objective.constant()


def test_an_official_mean_is_of_105_answers(generator):
    picture = torch.rand(1, 1, 4, 4, generator=generator)
    centre = float(field_objective(picture).noisy.mean().logit())
    objective = field_objective(picture, [centre + 30 / (n + 1) for n in range(30)] + 200 * [centre + 5], 100)
    done = next(done for done in itertools.count(1) if objective.watch_answer(done))
    assert (done, objective.count) == (130, 105)


def test_an_almost_constant_answer_is_fitted_again_slowly(monkeypatch):
    rates, verdicts = [], iter([True, False])
    plain = Noise2Fast._fit
    monkeypatch.setattr(FieldObjective, "constant", lambda self: next(verdicts))
    monkeypatch.setattr(
        Noise2Fast, "_fit", lambda self, noisy, own, schedule: rates.append((schedule.learning_rate, own.seed))
        or plain(self, noisy, own, schedule))  # fmt: skip
    quick(noisy(channels=1), "noise2fast", learning_rate=2e-3)
    assert [rate for rate, _ in rates] == [2e-3, 5e-6] and rates[0][1] != rates[1][1]


def test_a_picture_with_structure_is_not_constant(generator):
    objective = field_objective(torch.rand(1, 1, 8, 8, generator=generator))
    objective._logits = lambda given: 0.1 * given
    objective.watch_answer(1)
    assert not objective.constant()


def test_noise2fast_fits_one_channel():
    with pytest.raises(B2GError, match="one channel at a time, not 3"):
        Noise2Fast().objective(torch.zeros(1, 3, 16, 16), Circumstances())


# ---- channel by channel ----


def test_each_channel_is_a_gray_picture_with_a_seed_of_its_own(tmp_path):
    seen = []

    def halve(picture, own):
        seen.append((picture, own))
        return Denoised(picture / 2, [{"step": 1, "loss": 0.5}])

    picture, clean = torch.rand(2, 1, 3, 16, 16)
    given = Circumstances(seed=7, clean=clean, checkpoint=tmp_path / "fit")
    answer = each_channel(halve, picture, given)
    assert torch.equal(answer.estimate, picture / 2)
    assert [entry["channel"] for entry in answer.history] == [0, 1, 2]
    for channel, (part, own) in enumerate(seen):
        assert torch.equal(part, picture[:, channel : channel + 1]) and torch.equal(own.clean, clean[:, channel : channel + 1])
    assert len({own.seed for _, own in seen} | {7}) == 4 and len({own.checkpoint for _, own in seen}) == 3
    gray = each_channel(halve, picture[:, :1], given)
    assert seen[-1][1] is given and gray.history == [{"step": 1, "loss": 0.5}]
