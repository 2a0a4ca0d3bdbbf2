"""Neighbor2Neighbor and Blind2Unblind: samplers, masks and losses against plain loops; gains; determinism;
resume."""

import numpy as np
import pytest
import skimage.data
import torch

import b2g
import b2g.fit as engine
from b2g.errors import B2GError
from b2g.method import Circumstances
from b2g.methods.blind2unblind import (
    Blind2Unblind, Blind2UnblindMany, blind_answer, blind_answer_in_turn, combined_answer, ramp, revisible_loss, step_loss,
)  # fmt: skip
from b2g.methods.neighbor2neighbor import (
    Neighbor2Neighbor, Neighbor2NeighborMany, draw_pairs, neighbour_loss, neighbours,
)  # fmt: skip

CLEAN = np.ascontiguousarray(skimage.data.astronaut()[20:84, 200:264].astype(np.float32) / 255)
QUICK = {Neighbor2Neighbor: dict(steps=3, width=4, side=16), Blind2Unblind: dict(steps=3, width=4, side=16)}


def noisy(size=64, channels=3):
    clean = CLEAN[:size, :size] if channels == 3 else CLEAN[:size, :size, 1]
    return b2g.add_noise(np.ascontiguousarray(clean), "gaussian", 25, seed=0)


def drawer(seed=0):
    return torch.Generator().manual_seed(seed)


def pictures(*shape, seed=0):
    return torch.rand(shape, generator=drawer(seed))


# ---- Neighbor2Neighbor ----


def test_neighbours_are_adjacent_pixels_of_one_cell_and_never_the_same():
    rows, columns = torch.meshgrid(torch.arange(12), torch.arange(16), indexing="ij")
    places = torch.stack((rows, columns, rows))[None].float().expand(2, -1, -1, -1)
    first, second = neighbours(places, draw_pairs(places.shape, drawer()))
    assert first.shape == second.shape == (2, 3, 6, 8)
    apart = (first - second).abs()
    assert torch.equal(apart[:, 0] + apart[:, 1], torch.ones(2, 6, 8))  # beside or above, never diagonal
    for one in (first, second):
        assert torch.equal(one[:, 0] // 2, torch.arange(6.0)[:, None].expand(2, 6, 8))
        assert torch.equal(one[:, 1] // 2, torch.arange(8.0).expand(2, 6, 8))
        assert torch.equal(one[:, 0], one[:, 2])  # alike for all channels


def test_the_eight_pairs_are_all_there_and_equally_likely():
    cell = torch.arange(4.0).reshape(1, 1, 2, 2)
    found = {tuple(int(x) for x in neighbours(cell, torch.full((1, 1, 1, 1), k))) for k in range(8)}
    assert found == {(0, 1), (1, 0), (0, 2), (2, 0), (1, 3), (3, 1), (2, 3), (3, 2)}
    counts = draw_pairs((4, 3, 200, 200), drawer()).flatten().bincount(minlength=8).numpy()
    assert np.abs(counts - 5000).max() < 4.5 * 5000**0.5 and len(counts) == 8


def test_the_neighbour_loss_is_its_formula_in_a_loop():
    noisy, run = pictures(2, 3, 9, 8).double(), lambda picture: picture.square() + 0.3
    pairs = draw_pairs((2, 3, 8, 8), drawer(4))
    kept, total, count = noisy[:, :, :8].numpy(), 0.0, 0
    ends = ((0, 1), (0, 2), (1, 0), (1, 3), (2, 3), (2, 0), (3, 2), (3, 1))  # as the bits of the draw say
    for index in np.ndindex(2, 3, 4, 4):
        b, c, i, j = index
        one, two = (kept[b, c, 2 * i + p // 2, 2 * j + p % 2] for p in ends[int(pairs[b, 0, i, j])])
        f = lambda v: v**2 + 0.3  # noqa: E731
        total += (f(one) - two) ** 2 + 1.7 * (f(one) - two - (f(one) - f(two))) ** 2
        count += 1
    assert float(neighbour_loss(run, noisy, 1.7, drawer(4))) == pytest.approx(total / count, rel=1e-12)


def test_no_gradient_runs_through_the_answer_to_the_whole_picture():
    scale, asked = torch.tensor(0.5, requires_grad=True), []

    def run(picture):
        asked.append((picture.shape[-1], torch.is_grad_enabled()))
        return scale * picture

    neighbour_loss(run, pictures(1, 1, 8, 8), 2.0, drawer()).backward()
    assert asked == [(8, False), (4, True)] and scale.grad is not None


def test_lambda_grows_with_the_fit_and_the_answers_label_says_what_was_used():
    objective = Neighbor2Neighbor(**QUICK[Neighbor2Neighbor]).objective(pictures(1, 1, 20, 20), Circumstances())
    seen = []
    objective.loss_of, inner = lambda run, drawn, share: seen.append(float(share)) or inner(run, drawn, share), objective.loss_of
    for step in range(3):
        objective.loss(step)
    assert seen == pytest.approx([0, 1 / 3, 2 / 3])
    assert (Neighbor2Neighbor.label, Neighbor2NeighborMany.label) == ("one image", "many images")
    assert (Blind2Unblind.label, Blind2UnblindMany.label) == ("one image", "many images")


# ---- Blind2Unblind ----


def test_the_mapper_of_the_identity_is_the_ring_filled_picture():
    noisy = pictures(2, 3, 10, 9)
    padded = np.pad(noisy.numpy(), ((0, 0), (0, 0), (1, 1), (1, 1)), mode="reflect")
    expected = np.zeros(noisy.shape)
    for y in range(3):
        for x in range(3):
            weight = {0: 0, 1: 1, 2: 0.5}[abs(y - 1) + abs(x - 1)]
            expected += weight / 6 * padded[..., y : y + 10, x : x + 9]
    assert np.allclose(blind_answer(lambda picture: picture, noisy), expected, atol=1e-6)


def test_no_pixel_of_the_blind_answer_depends_on_its_own_noise():
    noisy = pictures(1, 2, 20, 20)
    network = Blind2UnblindMany(width=4).network(2)
    with torch.no_grad():
        blind, visible = blind_answer(network, noisy), network(noisy)
        for y, x in ((0, 0), (7, 9), (19, 3)):
            changed = noisy.clone()
            changed[0, :, y, x] += 0.5
            now = blind_answer(network, changed)
            assert torch.allclose(now[0, :, y, x], blind[0, :, y, x], atol=1e-6)
            assert float((now - blind).abs().max()) > 1e-4
            assert float((network(changed) - visible)[0, :, y, x].abs().min()) > 1e-4


def test_one_mask_after_another_gives_the_same_blind_picture():
    noisy, network = pictures(1, 3, 18, 21), Blind2UnblindMany(width=4).network(3)
    with torch.no_grad():
        assert torch.allclose(blind_answer(network, noisy), blind_answer_in_turn(network, noisy), atol=1e-5)


def test_the_revisible_loss_and_its_gradient_are_their_closed_forms():
    blind, visible, noisy = (pictures(1, 2, 5, 6, seed=k).double() for k in range(3))
    blind.requires_grad_(), visible.requires_grad_()
    loss = revisible_loss(blind, visible, noisy, 3.0)
    loss.backward()
    h, v, y = (one.detach().numpy() for one in (blind, visible, noisy))
    mixed = h - y + 3.0 * (v - y)
    assert float(loss.detach()) == pytest.approx(np.mean((h - y) ** 2) + np.mean(mixed**2), rel=1e-12)
    assert np.allclose(blind.grad, 2 * ((h - y) + mixed) / h.size) and visible.grad is None


def test_beta_stands_and_then_grows_in_a_line():
    shares = torch.tensor([0.0, 0.4, 0.8, 0.9, 1.0], dtype=torch.float64)
    assert ramp(shares, 2, 20, 0.8).tolist() == pytest.approx([2, 2, 2, 11, 20])


def test_the_visible_pass_of_a_step_is_without_gradient():
    asked = []

    def run(picture):
        asked.append((len(picture), torch.is_grad_enabled()))
        return picture * torch.ones((), requires_grad=True)

    step_loss(Blind2Unblind(), run, pictures(2, 1, 8, 8), torch.tensor(0.9))
    assert asked == [(2, False), (32, True)]


def test_the_answers_are_blind_visible_and_the_mix_of_both():
    noisy, run = pictures(1, 3, 8, 8), lambda picture: picture * 2
    answers = {kind: combined_answer(Blind2Unblind(output=kind), run, noisy) for kind in ("blind", "visible", "mid")}
    assert torch.equal(answers["visible"], noisy * 2)
    assert torch.allclose(answers["blind"], blind_answer(run, noisy), atol=1e-6)
    assert torch.allclose(answers["mid"], (answers["blind"] + 20 * answers["visible"]) / 21)


# ---- both ----


@pytest.mark.parametrize("method", QUICK)
@pytest.mark.parametrize("size, channels", [(16, 1), (19, 3)])
def test_the_same_seed_gives_the_same_bits(method, size, channels):
    given, before = noisy(size, channels), torch.random.get_rng_state()
    one, two, other = (
        b2g.denoise(given, method(**QUICK[method]), seed=seed, progress=False, precision="float32", clean=given)
        for seed in (0, 0, 1)
    )
    assert np.array_equal(one.image, two.image) and not np.array_equal(one.image, other.image)
    assert one.image.shape == given.shape and "psnr" in one.history[-1]
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("method", QUICK)
def test_a_killed_fit_goes_on_to_the_same_bits(method, tmp_path, monkeypatch):
    given, settings = noisy(20), method(**QUICK[method])
    whole = b2g.denoise(given, settings, progress=False, precision="float32").image
    clock, place = iter(range(0, 10**9, 61)), tmp_path / "fit.ckpt"
    monkeypatch.setattr(engine.time, "perf_counter", lambda: float(next(clock)))

    def killed(objective, step):
        if step == 3:
            raise KeyboardInterrupt
        return {}

    with pytest.raises(KeyboardInterrupt):
        b2g.denoise(given, settings, progress=False, precision="float32", checkpoint=place, watch=killed, log_every=1)
    assert place.exists()
    again = b2g.denoise(given, settings, progress=False, precision="float32", checkpoint=place).image
    assert np.array_equal(again, whole)


@pytest.mark.parametrize("method, change, sentence", [
    (Neighbor2Neighbor, dict(regulariser=-1.0), "regulariser must be at least 0"),
    (Neighbor2NeighborMany, dict(gain=0.0), "gain lie in"),
    (Neighbor2Neighbor, dict(side=7), "side must be at least 8, not 7"),
    (Neighbor2Neighbor, dict(batch=0), "batch must be at least 1, not 0"),
    (Neighbor2Neighbor, dict(steps=0), "steps must be at least 1, not 0"),
    (Neighbor2NeighborMany, dict(width=0), "width must be at least 1, not 0"),
    (Blind2Unblind, dict(output="best"), "output must be one of mid, visible, blind, not 'best'"),
    (Blind2Unblind, dict(beta=30.0), "beta grows, from at least 0, to last_beta, not from 30.0 to 20.0"),
    (Blind2UnblindMany, dict(start=1.0), r"start .* must lie in \[0, 1\), not 1.0"),
    (Blind2Unblind, dict(side=4), "side must be at least 8, not 4"),
    (Blind2Unblind, dict(batch=0), "batch must be at least 1, not 0"),
    (Blind2Unblind, dict(learning_rate=0.0), "learning_rate must be positive"),
])  # fmt: skip
def test_an_impossible_setting_is_refused_in_one_sentence(method, change, sentence):
    with pytest.raises(B2GError, match=sentence) as raised:
        method(**change)
    assert "\n" not in str(raised.value)
