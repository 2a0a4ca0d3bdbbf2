"""Held pixels: they never count in the loss, and tell how much of the network's change
of the pilot to trust."""

import numpy as np
import pytest
import torch
from oracles import assert_rate
from test_loop import twin
from test_recorrupt import SIGMA, Asked, loop, random

from b2g.errors import B2GError


def held_loop(network, noisy, **readings):
    readings = dict(pilot=lambda u, sigma: 0.8 * u + 0.1, draws=3, hold=0.3) | readings
    return loop(network, noisy, **readings)


@pytest.mark.parametrize("side", [0, 64])
def test_held_pixels_never_count_in_the_loss(side):
    noisy = random(shape=(1, 3, 70, 80))
    one = held_loop(Asked(), noisy, side=side, draws=1, flips=False)
    assert_rate((one.counted == 0).sum(), one.counted.numel(), 0.3, [0.2, 0.4])
    loss, part = one.loss(0)
    where = part.rows[:, None], part.columns
    square = ((part.picture - one.targets[:, :, *where]) ** 2).mean(1)[0].numpy()
    counted = one.counted[0, 0][where].numpy() == 1
    assert float(loss.detach()) == pytest.approx(square[counted].mean(), rel=1e-5)
    one.targets[:, :, one.counted[0, 0] == 0] = 1e6  # whatever they hold
    assert torch.equal(held_loop(Asked(), noisy, hold=0.0).counted, torch.ones(1, 1, 70, 80))
    again = held_loop(Asked(), noisy, side=side, draws=1, flips=False)
    again.targets = one.targets
    assert torch.equal(again.loss(0)[0], loss)


@pytest.mark.parametrize("flips", [False, True])
def test_the_trusted_share_is_the_best_on_held_pixels(flips):
    """The s of least |pilot + s change - t|^2 over the held pixels of all recorruptions, by trying many."""
    one = held_loop(Asked(lambda seen: 0.3 * (seen[:, :3] - seen[:, 3:]) + 0.02), random(shape=(1, 3, 32, 36)), flips=flips)
    held = (one.counted == 0).expand(1, 3, 32, 36)[0].numpy()
    parts = []
    for seen, target in zip(one.seen.double().numpy(), one.targets.double().numpy()):
        change = 0.3 * (seen[:3] - seen[3:]) + 0.02
        parts.append((seen[3:][held], change[held], target[held]))
    grid = np.linspace(0, 1, 1001)
    errors = [sum(((pilot + s * change - t) ** 2).sum() for pilot, change, t in parts) for s in grid]
    assert float(one.trust()) == pytest.approx(grid[np.argmin(errors)], abs=2e-3)


@pytest.mark.parametrize("factor, expected", [(4.0, 0.25), (0.5, 1.0), (-1.0, 0.0), (0.0, 0.0)])
def test_a_change_that_goes_too_far_is_cut_back(factor, expected):
    """The pilot errs by a known picture; the network asks for ``factor`` times what would mend it."""
    clean, error = torch.full((1, 3, 96, 96), 0.5), 0.4 * (random(shape=(1, 3, 96, 96)) - 0.5)
    noisy = clean + SIGMA * torch.randn(clean.shape, generator=twin(8))
    one = held_loop(Asked(lambda seen: factor * error), noisy, pilot=lambda u, s: clean - error, draws=6, flips=False)
    with one.settled():
        assert float(one.trusted) == pytest.approx(expected, abs=0.06)
        assert torch.allclose(one.see(), clean - error + float(one.trusted) * factor * error, atol=1e-6)


def test_without_held_pixels_every_change_is_trusted():
    assert held_loop(Asked(), random(), hold=0.0).trust() == 1.0 == loop().trust()


# ---- beside another denoiser ----


@pytest.mark.parametrize("trusted", [0.4, 1.0])
def test_the_share_is_the_best_on_held_pixels(trusted):
    """The s of least |other + s (network - other) - t|^2 over the held pixels of as many recorruptions,
    by trying many."""
    answer = lambda seen: 0.3 * (seen[:, :3] - seen[:, 3:]) + 0.02  # noqa: E731
    one = held_loop(Asked(answer), random(shape=(1, 3, 32, 36)), draws=5, flips=False)
    one.trusted, asked = trusted, []

    def other(picture, level):
        asked.append(level)
        return 0.9 * picture - 0.01

    held, parts = (one.counted == 0).expand(1, 3, 32, 36)[0].numpy(), []
    for seen, target in zip(one.seen.double().numpy(), one.targets.double().numpy()):
        network = seen[3:] + trusted * (0.3 * (seen[:3] - seen[3:]) + 0.02)
        parts.append(((0.9 * seen[:3] - 0.01)[held], network[held], target[held]))
    grid = np.linspace(0, 1, 1001)
    errors = [sum(((base + s * (net - base) - t) ** 2).sum() for base, net, t in parts) for s in grid]
    best = grid[np.argmin(errors)]
    assert float(one.share_beside(other)) == pytest.approx(best, abs=2e-3) and 0.05 < best < 0.95
    assert asked == 5 * [pytest.approx(SIGMA * 1.25**0.5)]


@pytest.mark.parametrize("mine, theirs, expected", [(0.0, 1.0, 1.0), (1.0, 0.0, 0.0), (1.0, -1.0, 0.5), (1.0, -3.0, 0.75)])
def test_the_share_grows_with_what_the_other_errs(mine, theirs, expected):
    """Both err by multiples of one picture: the share that leaves no error is known,
    and nobody told it the truth."""
    clean, error = torch.full((1, 3, 96, 96), 0.5), 0.4 * (random(shape=(1, 3, 96, 96)) - 0.5)
    noisy = clean + SIGMA * torch.randn(clean.shape, generator=twin(8))
    one = held_loop(Asked(lambda seen: mine * error), noisy, pilot=lambda u, s: clean, draws=6, hold=0.5, flips=False)
    assert float(one.share_beside(lambda u, s: clean + theirs * error)) == pytest.approx(expected, abs=0.07)


def test_a_large_picture_is_weighed_by_one_recorruption_and_a_small_one_by_several():
    for side, expected in ((32, 4), (256, 2), (400, 1)):
        asked, one = [], held_loop(Asked(), random(shape=(1, 3, side, side)), draws=4)
        one.share_beside(lambda u, s: asked.append(u) or u)
        assert len(asked) == expected and torch.equal(asked[0], one.seen[:1, :3])


def test_without_held_pixels_no_share_is_told():
    for one in (held_loop(Asked(), random(), hold=0.0), loop()):
        with pytest.raises(B2GError, match="a share is told by pixels that were held back; set hold above 0"):
            one.share_beside(lambda u, s: u)
