"""Recorruption: its two halves, the loss they make, pilots that see nothing but u, and fits that go on."""

import numpy as np
import pytest
import torch
from oracles import assert_mean, assert_rate
from test_loop import twin
from torch import nn

from b2g.errors import B2GError
from b2g.loop import flip
from b2g.network import Architecture, EncoderDecoder
from b2g.recorrupt import RecorruptedLoop, recorrupt

SIGMA = 25 / 255
SHAPE = (1, 3, 40, 48)


def random(seed=2, shape=SHAPE):
    return torch.rand(shape, generator=twin(seed))


class Asked(nn.Module):
    """A network that answers as it is told and remembers what it was shown."""

    def __init__(self, answer=lambda seen: 0 * seen[:, :3]):
        super().__init__()
        self.answer, self.seen = answer, []
        self.factor = nn.Parameter(torch.ones(()))

    def forward(self, seen, mask, generator):
        assert mask is None
        self.seen.append(seen)
        return self.factor * self.answer(seen)


def loop(network=None, noisy=None, seed=3, sigma=SIGMA, **readings):
    readings = dict(precision="float32") | readings
    noisy = random() if noisy is None else noisy
    return RecorruptedLoop(network or Asked(), noisy, sigma, generator=twin(seed), **readings)


def expected_pair(noisy, generator, strength=0.5):
    """u and t by the printed formula, of the noise that this generator draws next."""
    noise = torch.randn(noisy.shape, generator=generator)
    return noisy + strength * SIGMA * noise, noisy - SIGMA / strength * noise


# ---- the two halves ----


@pytest.mark.parametrize("strength", [0.5, 2.0])
def test_the_halves_have_the_stated_variances_and_are_uncorrelated(strength, generator):
    shape = (1, 1, 200, 200)
    first, second = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    clean = torch.rand(shape, generator=generator, dtype=torch.float64)
    u, t = (half - clean for half in recorrupt(clean + SIGMA * first, SIGMA, strength, second))
    square = SIGMA**2
    assert_mean(u, 0, unlike=0.2 * SIGMA)
    assert_mean(t, 0, unlike=0.2 * SIGMA)
    assert_mean(u**2, square * (1 + strength**2), unlike=square * (1 + strength))
    assert_mean(t**2, square * (1 + strength**-2), unlike=square * (1 + 1 / strength))
    # The same strength on both sides would leave (1 - alpha^2) sigma^2, noise of the wrong sign 2 sigma^2.
    assert_mean(u * t, 0, unlike=0.5 * square)


@pytest.mark.parametrize("strength, flips", [(0.5, True), (1.5, False)])
def test_the_loss_is_that_to_the_clean_picture_and_a_constant(strength, flips, generator):
    """E |f(u) - t|^2 = E |f(u) - x|^2 + (1 + 1/alpha^2) sigma^2 for a fixed f, here a blur of u."""
    clean = torch.rand(1, 1, 32, 32, generator=generator, dtype=torch.float64)
    blur = nn.AvgPool2d(3, 1, 1)
    one = loop(Asked(lambda seen: blur(seen) ** 2 - seen), clean, strength=strength, flips=flips)
    differences = []
    for _ in range(400):
        one.noisy = clean + SIGMA * torch.randn(clean.shape, generator=generator, dtype=torch.float64)
        loss, part = one.loss(0)
        assert loss.dtype == torch.float64
        differences.append(float(loss.detach()) - float((part.picture - clean).square().mean()))
    constant = (1 + strength**-2) * SIGMA**2
    assert_mean(differences, constant, unlike=0.9 * constant)


# ---- what the network is shown ----


def test_without_a_pilot_every_step_recorrupts_anew():
    noisy, network = random(), Asked()
    one = loop(network, noisy, flips=False)
    parts = [one.loss(step) for step in range(3)]
    generator = twin(3)
    for shown, (loss, part) in zip(network.seen, parts):
        u, t = expected_pair(noisy, generator)
        assert torch.allclose(shown, u, atol=1e-6) and torch.allclose(part.picture, u, atol=1e-6)
        assert float(loss.detach()) == pytest.approx(float((u - t).square().mean()), rel=1e-5)


def test_a_pilot_is_a_function_of_u_alone_and_is_asked_once_a_draw():
    noisy, asked = random(), []

    def pilot(shown, sigma):
        asked.append((shown.clone(), sigma))
        return 0.5 * shown + 0.1 * len(asked)

    network = Asked(lambda seen: seen[:, :3] - seen[:, 3:])  # from the pilot's answer back to u
    one = loop(network, noisy, pilot=pilot, draws=3, strength=0.5, flips=False)
    generator = twin(3)
    pairs = [expected_pair(noisy, generator) for _ in range(3)]
    assert len(asked) == 3
    for (shown, level), (u, _) in zip(asked, pairs):
        assert torch.allclose(shown, u, atol=1e-6) and level == pytest.approx(SIGMA * 1.25**0.5)
    which = []
    for step in range(300):
        loss, part = one.loss(step)
        seen = network.seen[-1]
        [k] = [k for k, (u, _) in enumerate(pairs) if torch.allclose(seen[:, :3], u, atol=1e-6)]
        u, t = pairs[k]
        assert torch.allclose(seen[:, 3:], 0.5 * u + 0.1 * (k + 1), atol=1e-6)
        assert torch.allclose(part.picture, u, atol=1e-6)  # the pilot's answer and the change that the network asks for
        assert float(loss.detach()) == pytest.approx(float((u - t).square().mean()), rel=1e-4)
        which.append(k)
    assert len(asked) == 3
    for k in range(3):
        assert_rate(which.count(k), 300, 1 / 3, [0.05, 0.65])
    # The noisy picture itself: nothing added, its own level, the pilot asked once.
    for _ in range(2):
        assert torch.allclose(one.see(), noisy, atol=1e-6)
    assert len(asked) == 4 and torch.equal(asked[3][0], noisy) and asked[3][1] == SIGMA


def test_flips_are_drawn_evenly_and_undone():
    noisy = random(shape=(1, 3, 16, 20))
    network = Asked(lambda seen: torch.zeros_like(seen))
    one = loop(network, noisy)
    assert all(torch.allclose(one.see(), noisy) for _ in range(400))
    for which in range(4):
        assert_rate(sum(torch.equal(s, flip(noisy, which)) for s in network.seen), 400, 0.25, [0.02, 0.6])


@pytest.mark.parametrize("piloted", [False, True])
def test_a_window_shows_its_part_and_knows_its_place(piloted):
    noisy, network = random(shape=(1, 3, 70, 90)), Asked()
    pilot = (lambda shown, sigma: shown) if piloted else None
    one = loop(network, noisy, side=64, pilot=pilot, draws=1, flips=False)
    for step in range(4):
        _, part = one.loss(step)
        assert part.picture.shape == (1, 3, 64, 64) == (*network.seen[-1].shape[:1], 3, *network.seen[-1].shape[2:])
        where = part.rows[:, None], part.columns
        if piloted:
            assert torch.equal(part.picture, one.seen[:, 3:][:, :, *where])
        assert (part.picture - noisy[:, :, *where]).std() == pytest.approx(0.5 * SIGMA, rel=0.05)
        assert not part.picture.requires_grad
    assert one.predict().shape == one.see().shape == noisy.shape


# ---- the averaged weights ----


def test_settled_answers_come_from_the_averaged_weights():
    noisy = random(shape=(1, 3, 16, 16))
    network = Asked(lambda seen: torch.ones_like(seen))
    one, values = loop(network, noisy, weights=0.8, flips=False), [1.0, 4.0, -2.0, 3.0]
    for step, value in enumerate(values):
        one.loss(step)  # takes up what the step before has left
        with torch.no_grad():
            network.factor.fill_(values[step + 1] if step + 1 < len(values) else 7.0)
    seen = [1.0, *values[1:], 7.0]
    weights = np.array([0.8**age for age in range(len(seen))][::-1])
    with one.settled():
        assert torch.allclose(one.see() - noisy, torch.tensor((weights * seen).sum() / weights.sum()).float(), atol=1e-5)
    assert torch.allclose(one.see() - noisy, torch.tensor(7.0), atol=1e-5)


def test_without_averaged_weights_the_last_ones_answer():
    noisy, network = random(shape=(1, 3, 16, 16)), Asked(lambda seen: torch.ones_like(seen))
    one = loop(network, noisy)
    one.loss(0)
    with torch.no_grad():
        network.factor.fill_(0.25)
    with one.settled():
        assert torch.allclose(one.see() - noisy, torch.tensor(0.25), atol=1e-6)


# ---- chance and state ----


def test_a_look_draws_from_its_own_generator():
    one = loop()
    before = one.generator.get_state()
    mask, first, second = one.look(twin(9))
    assert (mask == 1).all() and torch.equal(one.generator.get_state(), before)
    again = one.look(twin(9))
    assert torch.equal(first, again[1]) and torch.equal(second, again[2]) and not torch.equal(first, second)


@pytest.mark.parametrize("piloted", [False, True])
def test_a_loop_goes_on_from_its_state(piloted):
    """Also where the pilot would not answer the same twice: what it said is part of the state."""
    said = []

    def pilot(shown, sigma):
        said.append(0)
        return shown + len(said)

    def fresh():
        torch.manual_seed(0)
        network = EncoderDecoder(6 if piloted else 3, Architecture(width=2, head=(2, 2), standout="half", output="linear"), 3)
        return loop(network, seed=len(said) + 3, pilot=pilot if piloted else None, draws=2, weights=0.9)

    def walk(one, steps):
        for step in steps:
            loss, part = one.loss(step)
            one.network.zero_grad()
            loss.backward()
            with torch.no_grad():
                for parameter in one.network.parameters():
                    parameter -= 1e-3 * parameter.grad
            yield loss.detach(), part.picture

    whole, resumed = fresh(), fresh()
    list(walk(whole, range(4)))
    state, weights = whole.state(), [p.detach().clone() for p in whole.network.parameters()]
    expected = list(walk(whole, range(4, 7)))
    resumed.load_state(state)
    with torch.no_grad():
        for parameter, value in zip(resumed.network.parameters(), weights):
            parameter.copy_(value)
    found = list(walk(resumed, range(4, 7)))
    for (loss, picture), (other_loss, other) in zip(expected, found):
        assert torch.equal(loss, other_loss) and torch.equal(picture, other)
    for one in (whole, resumed):
        one.generator.manual_seed(1)
    with whole.settled(), resumed.settled():
        assert torch.equal(whole.predict(), resumed.predict())


def test_the_noisy_picture_is_left_as_it_was():
    noisy = random()
    copy = noisy.clone()
    one = loop(noisy=noisy)
    one.loss(0)
    one.see()
    assert torch.equal(noisy, copy)


@pytest.mark.parametrize("given, sentence", [
    (dict(sigma=0.0), "recorruption needs a positive noise level, not 0.0"),
    (dict(sigma=float("nan")), "recorruption needs a positive noise level, not nan"),
    (dict(strength=0.0), "strength .* must be positive, not 0.0"),
    (dict(pilot=lambda u, s: u, draws=0), "draws .* at least 1, not 0"),
    (dict(weights=1.0), r"decay of the averaged weights must lie in \[0, 1\), not 1.0"),
])  # fmt: skip
def test_what_cannot_be_is_refused(given, sentence):
    with pytest.raises(B2GError, match=sentence):
        loop(**given)
