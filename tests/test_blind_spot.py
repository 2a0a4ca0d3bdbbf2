"""The networks that are blind by construction, and the methods that live on it: AP-BSN and HQSSL."""

import dataclasses
import itertools

import numpy as np
import pytest
import skimage.data
import torch
from killed import killed_after

import b2g
from b2g.asymmetric import refined
from b2g.crops import CropObjective, Crops, Drawn
from b2g.errors import B2GError
from b2g.fit import Schedule, build, fit
from b2g.likelihood import answers_for, mean_and_covariance, negative_log_likelihood, posterior
from b2g.method import Circumstances
from b2g.methods.ap_bsn import APBSN, APBSNMany
from b2g.methods.hqssl import HQSSL, HalfPlaneWithNoise
from b2g.networks.blind_spot import DilatedBlindSpot, HalfPlane, UpwardConv2d, down, upward_pool
from b2g.shuffle import in_parts

ASTRONAUT = skimage.data.astronaut()[20:84, 200:264].astype(np.float32) / 255
CPU = torch.device("cpu")
NETWORKS = {
    "dilated": lambda: DilatedBlindSpot(3, 8, 3),
    "half planes": lambda: HalfPlane(3, 9, 4, 5),
    "half planes, gray": lambda: HalfPlane(1, 2, 4, 2),
}


def noisy(size=64):
    clean = np.ascontiguousarray(ASTRONAUT[:size, :size])
    return clean, b2g.add_noise(clean, "gaussian", 25, seed=0)


def tensor(picture):
    return torch.from_numpy(picture).permute(2, 0, 1)[None]


# ---- networks ----


@pytest.mark.parametrize("channels, weights", [(3, 3_656_131), (1, 3_655_745)])
def test_the_dilated_network_has_the_stated_3_66_million_weights(channels, weights):
    assert sum(p.numel() for p in DilatedBlindSpot(channels).parameters()) == weights
    assert round(weights / 1e6, 2) == 3.66


def test_the_half_plane_network_is_noise2noises_u_net_and_three_merging_layers():
    branch = HalfPlane(3, 9).branch
    convolutions = [m for m in branch.modules() if isinstance(m, UpwardConv2d)]
    assert [m.out_channels for m in convolutions] == [48] * 7 + [96] * 10
    assert [m.in_channels for m in convolutions] == [3] + [48] * 6 + [96, 96] + [144, 96] * 3 + [99, 96]


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("size", [(16, 16), (21, 34)])
def test_no_answer_sees_its_own_pixel_and_all_see_their_neighbours(name, size):
    """By the slope of the answer in the picture, at corners, borders and within; then by a large change."""
    network = build(NETWORKS[name], 0, CPU)
    channels = 1 if "gray" in name else 3
    picture = torch.rand(1, channels, *size, generator=torch.Generator().manual_seed(1), requires_grad=True)
    height, width = size
    for row, column in ((0, 0), (0, width - 1), (height - 1, 0), (height - 1, width - 1), (7, 9), (8, 8)):
        answer = network(picture)
        slope = torch.autograd.grad(answer[..., row, column].sum(), picture)[0].abs().sum((0, 1))
        assert slope[row, column] == 0
        around = slope[max(0, row - 1) : row + 2, max(0, column - 1) : column + 2]
        assert (around > 0).sum() == around.numel() - 1
        changed = picture.detach().clone()
        changed[..., row, column] += 3.0
        moved = (network(changed) - answer).detach().abs()
        assert moved[..., row, column].max() <= 1e-6 < moved.max()


def test_an_upward_layer_sees_no_row_below_and_the_pool_moves_up_by_one(generator):
    features = torch.rand(1, 2, 9, 7, generator=generator)
    layer, changed = UpwardConv2d(2, 3), features.clone()
    changed[..., 5:, :] += 1
    same = (layer(changed) == layer(features)).all(1)[0].all(1)
    assert same.tolist() == [True] * 5 + [False] * 4
    assert torch.equal(down(features)[..., 1:, :], features[..., :-1, :]) and (down(features)[..., 0, :] == 0).all()
    pooled = upward_pool(features)
    assert pooled.shape == (1, 2, 5, 4)
    for i, j in itertools.product(range(5), range(4)):
        seen = features[..., max(0, 2 * i - 1) : 2 * i + 1, 2 * j : 2 * j + 2].amax((-2, -1))
        assert torch.equal(pooled[..., i, j], seen)


# ---- AP-BSN ----


@pytest.mark.parametrize("stride", [1, 2, 5])
def test_parts_are_every_stride_th_pixel_in_a_frame_of_zeros(stride, generator):
    picture, seen = torch.rand(2, 3, 17, 23, generator=generator), []
    assert torch.equal(in_parts(lambda part: seen.append(part) or part, picture, stride), picture)
    parts = seen[0]
    sides = -(-17 // stride), -(-23 // stride)
    assert parts.shape == (2 * stride**2, 3, sides[0] + 4, sides[1] + 4)
    inner = parts[..., 2:-2, 2:-2].unflatten(0, (2, stride, stride))
    assert parts.sum() == pytest.approx(float(inner.sum()), rel=1e-5)
    for b, i, j in itertools.product(range(2), range(stride), range(stride)):
        own = picture[b, :, i::stride, j::stride]
        assert torch.equal(inner[b, i, j][:, : own.shape[1], : own.shape[2]], own)


@pytest.mark.parametrize("stride", [1, 2, 5])
def test_in_parts_the_network_stays_blind_on_sides_that_are_no_multiple(stride):
    network = build(NETWORKS["dilated"], 0, CPU)
    picture = torch.rand(1, 3, 17, 23, generator=torch.Generator().manual_seed(1))
    before = in_parts(network, picture, stride).detach()
    for row, column in ((16, 22), (15, 21), (14, 20), (0, 22), (8, 9)):
        changed = picture.clone()
        changed[..., row, column] += 3.0
        moved = (in_parts(network, changed, stride).detach() - before).abs()
        assert moved[..., row, column].max() <= 1e-6 < moved.max()


def test_the_refinement_puts_a_share_back_and_averages(generator):
    given, answer, seen = torch.ones(1, 3, 40, 40), torch.zeros(1, 3, 40, 40), []

    def run(picture):
        seen.append(picture.clone())
        return picture + len(seen)

    found = refined(run, given, answer, 8, 0.16, generator)
    assert len(seen) == 8 and all(set(picture.unique().tolist()) == {0.0, 1.0} for picture in seen)
    assert torch.allclose(found, torch.stack(seen).mean(0) + 4.5)
    count = 8 * given.numel()
    share = float(torch.stack(seen).mean())
    assert abs(share - 0.16) < 4 * (0.16 * 0.84 / count) ** 0.5
    assert not torch.equal(seen[0], seen[1]) and not torch.equal(seen[0][:, 0], seen[0][:, 1])
    assert refined(run, given, answer, 0, 0.16, generator) is answer


def test_the_loss_of_ap_bsn_is_the_mean_absolute_difference_over_all_pixels(generator):
    crops = torch.rand(2, 3, 20, 20, generator=generator)
    network = build(NETWORKS["dilated"], 0, CPU)
    for method, stride in ((APBSN(), 5), (APBSNMany.profile("official"), 5), (APBSNMany(), 1)):
        loss = method.training_loss(network, Drawn(crops), 0.0, generator).detach()
        parts = np.zeros((2, 3, 20, 20))
        for i, j in itertools.product(range(stride), range(stride)):
            framed = torch.nn.functional.pad(crops[..., i::stride, j::stride], (2, 2, 2, 2))
            parts[..., i::stride, j::stride] = network(framed)[..., 2:-2, 2:-2].detach().numpy()
        assert float(loss) == pytest.approx(float(np.abs(parts - crops.numpy()).mean()), rel=1e-5)


def test_profiles_say_what_the_paper_says():
    for method in (APBSN.profile("official"), APBSNMany.profile("official")):
        assert (method.width, method.blocks, method.train_stride, method.test_stride) == (128, 9, 5, 2)
        assert (method.pad, method.refinements, method.replaced) == (2, 8, 0.16)
    one, many = APBSN.profile("official"), APBSNMany.profile("official").chosen_recipe()
    assert (one.learning_rate, one.batch, one.side) == (many.learning_rate, many.batch, many.side) == (1e-4, 8, 120)
    full = HQSSL.profile("official").chosen_recipe()
    assert (full.learning_rate, full.batch, full.batch * full.steps) == (3e-4, 4, 2_000_000)


QUICK = dict(steps=3, side=16, width=16, refinements=2)


@pytest.mark.parametrize("size, channels", [((16, 16), 3), ((17, 35), 1)])
def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(size, channels):
    picture = torch.rand(1, channels, *size, generator=torch.Generator().manual_seed(0)) * 1.4 - 0.2
    copy, stream = picture.clone(), torch.get_rng_state()
    method = APBSN.profile("smoke", train_stride=5, test_stride=2, **QUICK)
    first, again, other = (method(picture, Circumstances(seed=seed)).estimate for seed in (3, 3, 4))
    assert first.shape == picture.shape and 0 <= first.min() and first.max() <= 1
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(picture, copy) and torch.equal(stream, torch.get_rng_state())


def test_a_killed_fit_goes_on_to_the_same_bytes(tmp_path, monkeypatch):
    method = APBSN.profile("smoke", **QUICK | dict(steps=6))
    clean, given = (tensor(picture) for picture in noisy(20))
    whole = method(given, Circumstances(clean=clean))
    place = tmp_path / "fit"

    with killed_after(monkeypatch, 4) as stop:
        method(given, Circumstances(clean=clean, checkpoint=place, watch=stop))
    rest = []
    end = method(given, Circumstances(clean=clean, checkpoint=place, watch=lambda o, step: rest.append(step) or {}))
    assert rest == [4, 5, 6] and not place.exists()
    assert torch.equal(end.estimate, whole.estimate)
    assert [e["psnr"] for e in end.history] == [e["psnr"] for e in whole.history]


@pytest.mark.parametrize("method, settings, sentence", [
    (APBSN, dict(train_stride=0), "train_stride must be at least 1, not 0"),
    (APBSN, dict(test_stride=0), "test_stride must be at least 1"),
    (APBSN, dict(pad=-1), "pad must be at least 0"),
    (APBSN, dict(refinements=-1), "refinements must be at least 0"),
    (APBSN, dict(replaced=1.0), r"replaced .* must lie in \[0, 1\), not 1.0"),
    (APBSN, dict(width=0), "width must be at least 1"),
    (APBSN, dict(blocks=-1), "blocks must be at least 0"),
    (APBSN, dict(side=15), "side must be at least 16"),
    (APBSN, dict(batch=0), "batch must be at least 1"),
    (APBSN, dict(steps=0), "steps must be at least 1"),
    (APBSN, dict(decay="slow"), "decay must be one of"),
    (APBSNMany, dict(width=0), "width must be at least 1"),
    (APBSNMany, dict(replaced=-0.1), "replaced is a share"),
    (APBSNMany, dict(recipe="huge"), "has no recipe 'huge'"),
    (HQSSL, dict(train_sigma=-5), "train_sigma.* must be positive, not -5.0"),
    (HQSSL, dict(sigma=0), "sigma.* must be positive, not 0.0"),
    (HQSSL, dict(reward=-1), "reward.* at least 0"),
    (HQSSL, dict(width=0), "width must be at least 1"),
    (HQSSL, dict(depth=0), "depth must be at least 1"),
])  # fmt: skip
def test_an_impossible_setting_is_refused(method, settings, sentence):
    with pytest.raises(B2GError, match=sentence) as raised:
        method.profile(None, **settings)
    assert "\n" not in str(raised.value)


# ---- HQSSL ----


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("varying", [False, True])
def test_the_likelihood_and_the_posterior_are_the_closed_forms(channels, varying):
    """Against NumPy's inverse and determinant, pixel by pixel, in double precision."""
    random = np.random.RandomState(channels)
    answers = torch.from_numpy(random.standard_normal((2, answers_for(channels), 3, 4)))
    given = torch.from_numpy(random.standard_normal((2, channels, 3, 4)))
    sigma = torch.from_numpy(random.uniform(0.2, 0.6, (2, 1, 3, 4))) if varying else 0.3
    mean, covariance = mean_and_covariance(answers, channels)
    losses, expected = [], np.zeros(given.shape)
    for b, i, j in itertools.product(range(2), range(3), range(4)):
        upper = np.zeros((channels, channels))
        upper[np.triu_indices(channels)] = answers[b, channels:, i, j]
        prior, variance = upper.T @ upper, float(sigma[b, 0, i, j] if varying else sigma) ** 2
        assert np.allclose(covariance[b, :, :, i, j], prior, rtol=1e-12)
        gap = (given - mean)[b, :, i, j].numpy()
        total = prior + variance * np.eye(channels)
        losses.append(0.5 * gap @ np.linalg.inv(total) @ gap + 0.5 * np.log(np.linalg.det(total)))
        pull = np.linalg.inv(prior) @ mean[b, :, i, j].numpy() + given[b, :, i, j].numpy() / variance
        expected[b, :, i, j] = np.linalg.inv(np.linalg.inv(prior) + np.eye(channels) / variance) @ pull
    assert float(negative_log_likelihood(given, mean, covariance, sigma)) == pytest.approx(np.mean(losses), rel=1e-10)
    assert np.allclose(posterior(given, mean, covariance, sigma), expected, rtol=1e-9, atol=1e-9)


def test_the_posterior_is_the_mean_where_nothing_is_uncertain_and_the_pixel_where_all_is():
    given, mean = torch.rand(2, 1, 3, 4, 4, dtype=torch.float64)
    eye = torch.eye(3, dtype=torch.float64)[None, :, :, None, None].expand(1, 3, 3, 4, 4)
    assert torch.allclose(posterior(given, mean, 0 * eye, 0.1), mean)
    assert torch.allclose(posterior(given, mean, 1e8 * eye, 0.1), given)
    assert torch.allclose(posterior(given, mean, 0.01 * eye, 0.1), (given + mean) / 2)


def test_the_learned_level_is_a_channel_and_its_reward_a_part_of_the_loss(generator):
    method = HQSSL(width=4, depth=2)
    network = build(lambda: method.network(3), 0, CPU)
    crops = torch.rand(2, 3, 16, 16, generator=generator)
    answers = network(crops)
    assert answers.shape == (2, 10, 16, 16) and torch.allclose(answers[:, -1], torch.tensor(25 / 255))
    plain = method.changed(reward=0.0).training_loss(network, Drawn(crops), 0.0, generator)
    known = method.changed(train_sigma=25).training_loss(network, Drawn(crops), 0.0, generator)
    loss = method.training_loss(network, Drawn(crops), 0.0, generator)
    plain, loss = plain.detach(), loss.detach()
    assert float(plain) == pytest.approx(float(known.detach()), rel=1e-5)
    assert float(plain - loss) == pytest.approx(0.1 * 25 / 255, rel=1e-3)
    assert torch.autograd.grad(known, network.log_sigma, retain_graph=True)[0] == 0
    other = method.changed(sigma=50).answer(network, crops, generator)
    assert torch.equal(other, method.changed(train_sigma=50).answer(network, crops, generator))
    assert torch.equal(other, method.changed(train_sigma=9, sigma=50).answer(network, crops, generator))
    assert not torch.equal(other, method.answer(network, crops, generator))
    mean, covariance = mean_and_covariance(answers[:, :-1], 3)
    assert torch.allclose(other, posterior(crops, mean, covariance, 50 / 255), atol=1e-5)


def test_a_learned_level_settles_at_the_noises_own():
    """Where the network is right and certain, the loss is least at the true level, a little above with the
    reward.
    """
    random = np.random.RandomState(0)
    mean = torch.from_numpy(random.uniform(0, 1, (1, 3, 64, 64)))
    given = mean + 0.1 * torch.from_numpy(random.standard_normal(mean.shape))
    levels = np.linspace(0.05, 0.2, 151)
    none = torch.zeros(1, 3, 3, 64, 64, dtype=torch.float64)
    losses = np.array([float(negative_log_likelihood(given, mean, none, level)) for level in levels])
    assert abs(levels[losses.argmin()] - float((given - mean).std(unbiased=False))) < 0.001
    assert 0 <= levels[(losses - 0.1 * levels).argmin()] - levels[losses.argmin()] < 0.002


def test_hqssl_learns_from_noisy_pixels_alone():
    """Fitted to crops of one 64x64 picture at sigma 25;
    seeds 0 and 1 of weights and crops gain 5.4 and 4.7 dB."""
    clean, given = noisy()
    method = HQSSL(width=8, depth=2)
    network = build(lambda: HalfPlaneWithNoise(3, 8, 2), 0, CPU)
    generator = torch.Generator().manual_seed(0)
    loss = lambda run, drawn, share: method.training_loss(run, drawn, share, generator)  # noqa: E731
    objective = CropObjective(network, Crops([tensor(given)], 48, 2, generator), loss, generator, "float32", steps=100)
    fit(objective, Schedule(100, 5e-3, "cosine"))
    with torch.no_grad():
        answer = method.answer(objective.run, tensor(given), generator)
        blind = objective.run(tensor(given))[:, :3]
    before = b2g.psnr(clean, given, clip=False)
    gains = [b2g.psnr(clean, picture[0].permute(1, 2, 0).numpy()) - before for picture in (answer, blind)]
    assert gains[0] > 3.5 and gains[0] > gains[1] + 0.3
    assert float(network.log_sigma.detach()) != pytest.approx(np.log(25 / 255), rel=1e-4)


def test_methods_of_many_images_say_so_and_what_they_depend_on():
    for method in (APBSNMany, HQSSL):
        assert method.label == "many images" and method.capturable and "doi" in method.source
        texts = {method(weights="a").training_identity(), method(weights="b", recipe="full").training_identity()}
        assert len(texts) == 1 != len(texts | {dataclasses.replace(method(), width=5).training_identity()})
