import pytest
import torch
from oracles import assert_rate
from torch import nn

from b2g.errors import B2GError
from b2g.loop import BlindSpotLoop, MaskLaw, flip
from b2g.losses import uniform_loss
from b2g.masks import bernoulli_mask, detail_distance, detail_index, dual_mask, gradient_index
from b2g.network import Architecture, EncoderDecoder

SHAPE = (1, 3, 40, 48)


def twin(seed=1):
    return torch.Generator().manual_seed(seed)


def random(seed=2):
    return torch.rand(SHAPE, generator=twin(seed))


class Asked(nn.Module):
    """A network that answers as it is told and remembers what it was asked, and whether with gradients."""

    def __init__(self, answer=lambda image, mask, guide: image):
        super().__init__()
        self.answer, self.asked = answer, []
        self.factor = nn.Parameter(torch.ones(()))

    def forward(self, image, mask, generator, guide):
        self.asked.append((image, mask, guide, torch.is_grad_enabled()))
        return self.factor * self.answer(image, mask, guide)


def loop(network=None, noisy=None, seed=3, **readings):
    readings = (
        dict(precision="float32", loss=lambda blind, visible, noisy, mask: uniform_loss(blind, noisy, mask))
        | readings
    )
    return BlindSpotLoop(
        network or Asked(), random() if noisy is None else noisy, generator=twin(seed), **readings
    )


def drawn(loop, steps):
    """The masks of the steps, as the loss saw them."""
    masks, given = [], loop.loss_of
    loop.loss_of = lambda blind, visible, noisy, mask: (
        masks.append(mask) or given(blind, visible, noisy, mask)
    )
    for step in range(steps):
        loop.loss(step)
    return masks


# ---- flips ----


@pytest.mark.parametrize("which, axes", [(0, ()), (1, (-1,)), (2, (-2,)), (3, (-2, -1))])
def test_flip_is_its_own_inverse(which, axes):
    picture = random()
    assert torch.equal(flip(picture, which), torch.from_numpy(picture.numpy().copy()).flip(axes))
    assert torch.equal(flip(flip(picture, which), which), picture)


@pytest.mark.parametrize("which", range(4))
def test_a_flip_told_by_a_tensor_is_the_flip_told_by_a_number(which):
    picture = random().contiguous(memory_format=torch.channels_last).requires_grad_()
    told = flip(picture, torch.tensor(which))
    assert torch.equal(told, flip(picture, which)) and told.is_contiguous(memory_format=torch.channels_last)
    weights = random(5)
    (told * weights).sum().backward()
    assert torch.equal(picture.grad, flip(weights, which))


def test_flips_are_drawn_evenly_and_undone():
    noisy = random()
    network = Asked()
    several = loop(network, noisy)
    for step in range(800):
        answer = several.loss(step)[1]
        assert torch.equal(answer, noisy)  # a network that answers what it is shown
    shown = [image for image, *_ in network.asked]
    for which in range(4):
        assert_rate(sum(torch.equal(image, flip(noisy, which)) for image in shown), 800, 0.25, [0.1, 0.5])


def test_the_mask_is_flipped_with_the_picture():
    network = Asked(lambda image, mask, guide: image + 2 * mask)
    noisy, masks = random(), []
    one = loop(
        network,
        noisy,
        loss=lambda blind, visible, noisy, mask: masks.append((blind.detach(), mask)) or blind.sum(),
    )
    for step in range(8):
        one.loss(step)
    assert all(torch.allclose(blind, noisy + 2 * mask) for blind, mask in masks)
    assert len({tuple(image[0, 0, 0, :3].tolist()) for image, *_ in network.asked}) > 1


def test_no_flips_on_request():
    network, noisy = Asked(), random()
    drawn(loop(network, noisy, flips=False), 8)
    assert all(torch.equal(image, noisy) for image, *_ in network.asked)


# ---- which masks ----


@pytest.mark.parametrize("kind", ["distance", "gradient"])
def test_the_first_mask_is_bernoulli_and_the_later_ones_follow_the_estimate(kind):
    """Eq. 3.10 by hand: with a network whose answer is known, every mask of the loop is foretold."""
    estimate, noisy = random(5), random()
    law = MaskLaw(kind=kind, detail_masked=0.0, detail_threshold=60.0, detail_fraction=0.3)
    masks = drawn(loop(Asked(lambda *_: estimate), noisy, law=law, flips=False), 4)
    generator = twin(3)
    if kind == "distance":
        detail = detail_index(detail_distance(noisy, estimate), 60.0)
    else:
        detail = gradient_index(estimate, 0.3)
    assert 0.2 < detail.mean() < 0.7
    assert torch.equal(masks[0], bernoulli_mask(SHAPE, 0.25, generator=generator))
    for mask in masks[1:]:
        assert torch.equal(mask, dual_mask(detail, 0.25, 0.0, generator=generator))
        assert mask[detail == 1].min() == 1


@pytest.mark.parametrize("visible", ["none", "detached"])
def test_the_detail_is_looked_for_at_its_steps_only(visible):
    noisy, looked = random(), []

    class Law(MaskLaw):
        def detail(self, noisy, estimate):
            looked.append(step)
            return super().detail(noisy, estimate)

    readings = dict(law=Law(kind="distance"), visible=visible, dual_from=3, refresh=4)
    one = loop(Asked(lambda image, *_: image + 0.3), noisy, **readings)
    for step in range(13):
        one.loss(step)
        assert (one.detail is None) == (step < 3)
    assert looked == [3, 7, 11]


@pytest.mark.parametrize("visible, asked", [("none", 2), ("detached", 2), ("attached", 2)])
def test_the_estimate_of_the_visible_pilot_is_the_newest_f_of_y(visible, asked):
    """With f(y) at hand no pass is spent on it; without, one is, and it leaves no gradient."""
    answers = iter(0.1 * k + random(k) for k in range(20))
    network = Asked(lambda *_: next(answers))
    seen = []

    class Law(MaskLaw):
        def detail(self, noisy, estimate):
            seen.append(estimate)
            return super().detail(noisy, estimate)

    one = loop(network, law=Law(kind="distance"), visible=visible, flips=False)
    one.loss(0)
    before = len(network.asked)
    one.loss(1)
    assert len(network.asked) - before == asked
    if visible == "none":
        assert torch.equal(seen[0], 0.1 * before + random(before))  # a pass of its own, unmasked, at step 1
        assert network.asked[before][1] is None and network.asked[before][3] is False
    else:
        assert torch.equal(seen[0], 0.0 + random(0))  # f(y) of step 0, its first pass


def test_the_estimate_of_the_average_pilot_is_the_mean_of_the_blind_answers():
    pictures = [random(k) for k in range(20)]
    answers = iter(pictures)
    one = loop(
        Asked(lambda *_: next(answers)),
        law=MaskLaw(kind="distance"),
        pilot="average",
        flips=False,
        dual_from=3,
    )
    for step in range(4):
        one.loss(step)
    weights = [0.95**age for age in (2, 1, 0)]
    expected = sum(w * p for w, p in zip(weights, pictures)) / sum(weights)
    assert torch.equal(one.detail, detail_index(detail_distance(one.noisy, expected.contiguous())))
    assert next(answers) is pictures[4]  # one pass a step, none for the estimate


def test_before_any_answer_the_average_pilot_takes_the_noisy_picture():
    one = loop(law=MaskLaw(kind="distance"), pilot="average", dual_from=0)
    one.loss(0)
    assert one.detail.max() == 0


@pytest.mark.parametrize("kind, per_channel", [("bernoulli", True), ("bernoulli", False), ("uniform", True)])
def test_plain_laws_never_look_at_the_estimate(kind, per_channel):
    one = loop(law=MaskLaw(kind=kind, masked=0.4, per_channel=per_channel))
    masks = torch.cat(drawn(one, 20))
    assert one.detail is None and len(one.network.asked) == 20
    assert (masks[:, 0] == masks[:, 1]).all() == (not per_channel)
    assert_rate((masks[:, 0] == 0).sum(), masks[:, 0].numel(), 0.4, [0.37, 0.43])
    counts = (masks == 0).sum((-2, -1))
    assert (counts == round(0.4 * 40 * 48)).all() == (kind == "uniform")


def test_prediction_keeps_to_the_masks_of_training():
    shown = Asked(lambda image, mask, guide: torch.ones_like(image) if mask is None else mask)
    one = loop(shown, law=MaskLaw(kind="distance", detail_masked=0.0))
    one.detail = torch.zeros(SHAPE)
    one.detail[..., :20] = 1
    masks = torch.cat([one.predict() for _ in range(40)])
    assert masks[..., :20].min() == 1 and not masks.requires_grad
    flat = masks[..., 20:] == 0
    assert_rate(flat.sum(), flat.numel(), 0.25 * 48 / 28, [0.25, 0.4])
    assert not torch.equal(masks[0], masks[1])


def test_the_estimate_from_elsewhere_is_taken_as_it_is():
    estimate, noisy, network = random(5), random(), Asked()
    one = loop(network, noisy, law=MaskLaw(kind="distance", detail_threshold=60.0), pilot="patches", estimate=estimate)
    one.loss(0)
    assert one.detail is None
    one.loss(1)
    assert torch.equal(one.detail, detail_index(detail_distance(noisy, estimate), 60.0))
    assert len(network.asked) == 2  # no pass is spent on it
    with pytest.raises(B2GError, match="pilot='patches' needs the estimate of a patch-based denoiser; give estimate"):
        loop(law=MaskLaw(kind="distance"), pilot="patches")


# ---- windows ----


@pytest.mark.parametrize("visible", ["none", "detached", "attached"])
def test_a_step_may_look_at_a_window_alone(visible):
    noisy, got, network = random(), [], Asked(lambda image, mask, guide: image if mask is None else image + 2 * mask)
    one = loop(network, noisy, side=24, visible=visible, law=MaskLaw(masked=0.4), loss=lambda *given: (
        got.append(given) or (given[0] - given[2]).square().mean() + (0 if given[1] is None else given[1].mean())))  # fmt: skip
    places = set()
    for step in range(6):
        loss, part = one.loss(step)
        blind, whole, window, mask = got[-1]
        assert torch.equal(window, noisy[:, :, part.rows[:, None], part.columns]) and window.shape[2:] == (24, 24)
        assert torch.allclose(part.picture, window + 2 * mask) and not part.picture.requires_grad
        assert (whole is None) == (visible == "none") and (whole is None or torch.equal(whole, window))
        assert whole is None or whole.requires_grad == (visible == "attached")
        places.add((int(part.rows[0]), int(part.columns[0])))
    assert len(places) > 1
    hidden = torch.cat([mask == 0 for *_, mask in got])
    assert_rate(hidden.sum(), hidden.numel(), 0.4, [0.35, 0.45])
    assert one.predict().shape == one.see().shape == noisy.shape


def test_a_window_as_large_as_the_picture_is_the_plain_step():
    shape = Architecture(width=2, head=(2, 2), dropout="none")
    network, noisy = EncoderDecoder(3, shape), random()
    plain, whole = (loop(network, noisy, side=side, flips=True) for side in (0, 64))
    for step in range(3):
        (loss, answer), (other, part) = plain.loss(step), whole.loss(step)
        assert torch.equal(loss, other) and torch.equal(answer, part.picture)


@pytest.mark.parametrize("readings", [dict(law=MaskLaw(kind="distance")), dict(guided=True)])
def test_a_window_goes_with_a_fixed_law_only(readings):
    with pytest.raises(B2GError, match="a window .side. goes with a mask of a fixed law; take side=0"):
        loop(side=24, **readings)


# ---- f(y) ----


def test_seeing_hides_nothing():
    network, noisy = Asked(lambda image, mask, guide: 3 * image), random()
    one = loop(network, noisy)
    answers = [one.see() for _ in range(8)]
    assert all(torch.equal(answer, 3 * noisy) and not answer.requires_grad for answer in answers)
    assert all(mask is None for _, mask, _, _ in network.asked)


@pytest.mark.parametrize(
    "visible, passes, slope", [("none", 1, 0.0), ("detached", 2, 0.0), ("attached", 2, 1.0)]
)
def test_whether_f_of_y_is_computed_and_may_be_changed(visible, passes, slope):
    network = Asked()
    one = loop(network, visible=visible, loss=lambda blind, whole, noisy, mask: (
        0 * blind.sum() if whole is None else 0 * blind.sum() + whole.mean() / noisy.mean()))  # fmt: skip
    one.loss(0)[0].backward()
    assert len(network.asked) == passes and float(network.factor.grad) == pytest.approx(slope)
    assert [mask is None for _, mask, _, _ in network.asked] == [True, False][-passes:]


def test_the_two_passes_are_never_one_batch():
    shape = Architecture(width=2, head=(2, 2), norm="all", dropout="none")
    network, noisy, got = EncoderDecoder(3, shape), random(), []
    one = loop(network, noisy, visible="detached", flips=False,
               loss=lambda *given: got.append((given[0], given[1], given[3])) or given[0].sum())  # fmt: skip
    one.loss(0)
    blind, whole, mask = got[0]
    assert torch.equal(whole, network(one.noisy, None)) and torch.equal(blind, network(one.noisy, mask))


@pytest.mark.parametrize("visible", ["none", "detached"])
def test_the_guide_is_the_last_answer(visible):
    pictures = [random(k) for k in range(10)]
    answers = iter(pictures)
    network = Asked(lambda *_: next(answers))
    one = loop(network, guided=True, visible=visible, flips=False)
    for step in range(3):
        one.loss(step)
    guides = [guide for _, _, guide, _ in network.asked]
    if visible == "none":
        expected = [None, pictures[0], pictures[1]]
    else:  # f(y), then f(Omega(y)), both guided by the f(y) before
        expected = [None, None, pictures[0], pictures[0], pictures[2], pictures[2]]
    assert all(g is e if e is None else torch.equal(g, e) for g, e in zip(guides, expected, strict=True))


def test_the_guide_is_flipped_with_the_picture():
    network = Asked(lambda image, mask, guide: image if guide is None else 2 * image - guide)
    noisy = random()
    one = loop(network, noisy, guided=True)
    assert all(torch.allclose(one.loss(step)[1], noisy) for step in range(12))


def test_nobody_is_guided_unasked():
    network = Asked()
    drawn(loop(network), 3)
    assert all(guide is None for _, _, guide, _ in network.asked)


# ---- state ----


@pytest.mark.parametrize("pilot", ["visible", "average"])
def test_a_loop_goes_on_from_its_state(pilot):
    def fresh():
        torch.manual_seed(0)
        network = EncoderDecoder(3, Architecture(width=2, head=(2, 2), standout="half", dropout="none"))
        return loop(network, law=MaskLaw(kind="gradient"), pilot=pilot, guided=True, refresh=3)

    whole, stopped, resumed = fresh(), fresh(), fresh()
    expected = [whole.loss(step) for step in range(10)][6:]
    for step in range(6):
        stopped.loss(step)
    resumed.load_state(stopped.state())
    found = [resumed.loss(step) for step in range(6, 10)]
    for (loss, answer), (other_loss, other_answer) in zip(expected, found):
        assert torch.equal(loss, other_loss) and torch.equal(answer, other_answer)


def test_the_noisy_picture_is_left_as_it_was():
    noisy = random()
    copy = noisy.clone()
    drawn(loop(Asked(), noisy, visible="detached", law=MaskLaw(kind="distance")), 3)
    assert torch.equal(noisy, copy)


@pytest.mark.parametrize("readings, sentence", [
    (dict(visible="yes"), "visible must be one of none, detached, attached, not 'yes'"),
    (dict(pilot="clean"), "pilot must be one of visible, average, patches, not 'clean'"),
])  # fmt: skip
def test_an_unknown_reading_is_refused_by_name(readings, sentence):
    with pytest.raises(B2GError, match=sentence):
        loop(**readings)


@pytest.mark.parametrize("field, value", [
    ("kind", "gauss"), ("masked", 0.0), ("masked", 1.0), ("masked", -0.1), ("masked", float("nan")),
    ("detail_masked", 1.1), ("detail_masked", -0.1), ("detail_over", "mean"), ("detail_fraction", 1.1),
    ("detail_fraction", -0.1), ("detail_threshold", -1.0), ("detail_threshold", float("nan")),
])  # fmt: skip
def test_an_impossible_law_is_refused_before_the_first_mask(field, value):
    name = "mask" if field == "kind" else field
    with pytest.raises(B2GError, match=f"{name} .*, not {value!r}"):
        MaskLaw(**{field: value})
