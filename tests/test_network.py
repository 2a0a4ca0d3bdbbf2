from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from b2g.errors import B2GError
from b2g.fit import build
from b2g.layers import TStandout
from b2g.network import Architecture, EncoderDecoder

SELF2SELF = Architecture()
BLIND2GRAD = Architecture(norm="all", attention="all", standout="half", dropout="none", masked_layers="first")
SHAPES = {
    "self2self": replace(SELF2SELF, width=4, head=(4, 4)),
    "blind2grad": replace(BLIND2GRAD, width=4, head=(4, 4)),
    "everything": replace(BLIND2GRAD, width=4, head=(4, 4), norm="decoder", standout="all", output="linear",
                          attention_between="none", standout_scale="quantile", masked_layers="all",
                          gradient_features=True),
}  # fmt: skip


def twin(seed=1):
    return torch.Generator().manual_seed(seed)


def make(shape="self2self", channels=3, seed=0):
    shape = SHAPES.get(shape, shape)
    return build(lambda: EncoderDecoder(channels, shape), seed, torch.device("cpu"))


def picture(height=64, width=64, channels=3, seed=2):
    return torch.rand(1, channels, height, width, generator=twin(seed))


def hide(like, hidden=0.3, seed=3):
    return (torch.rand(like.shape, generator=twin(seed)) >= hidden).float()


def layers(shape, channels):
    """(channels in, channels out, halvings) of every convolution, from the text of the architecture."""
    width, depth, (third, fourth) = shape.width, shape.depth, shape.head
    found = [(channels, width, 0), (width, width, 0)] + [
        (width, width, level) for level in range(1, depth + 1)
    ]
    for level in range(depth - 1, 0, -1):
        below = width if level == depth - 1 else 2 * width
        found += [(below + width, 2 * width, level), (2 * width, 2 * width, level)]
    return found + [(2 * width + channels, third, 0), (third, fourth, 0), (fourth, channels, 0)]


# ---- size ----


@pytest.mark.parametrize("channels", [3, 1])
@pytest.mark.parametrize(
    "shape", [SELF2SELF, replace(SELF2SELF, width=24, head=(32, 16)), replace(SELF2SELF, depth=3)]
)
def test_the_number_of_weights(shape, channels):
    found = sum(p.numel() for p in EncoderDecoder(channels, shape).parameters())
    assert found == sum(9 * a * b + b for a, b, _ in layers(shape, channels))
    if shape == SELF2SELF:
        assert found == {3: 991_203, 1: 988_609}[channels]


def test_the_number_of_weights_that_the_paper_adds():
    plain = sum(p.numel() for p in EncoderDecoder(3, SELF2SELF).parameters())
    whole = sum(
        p.numel() for p in EncoderDecoder(3, replace(BLIND2GRAD, gradient_features=True)).parameters()
    )
    normalised = sum(2 * out for _, out, _ in layers(SELF2SELF, 3)[:-1])
    attention = 4 * 2 * 96 * (96 // 4)  # one a level of the decoder, none at full resolution
    assert whole - plain == normalised + attention + 9 * 96 * 96


@pytest.mark.parametrize("masked_layers", ["all", "first"])
def test_dilation_widens_the_encoder_and_the_head_and_adds_no_weights(masked_layers):
    plain = replace(SHAPES["blind2grad"], masked_layers=masked_layers)
    networks = [make(replace(plain, dilation=dilation)) for dilation in (1, 2)]
    for network, dilation in zip(networks, (1, 2)):
        wide = [network.stem, *network.encoder, network.head]
        assert {m.dilation for part in wide for m in part.modules() if isinstance(m, nn.Conv2d)} == {(dilation,) * 2}
        assert network.last.dilation == (dilation, dilation)
        assert {m.dilation for m in network.decoder.modules() if isinstance(m, nn.Conv2d)} == {(1, 1)}
    one, two = (dict(network.named_parameters()) for network in networks)
    assert all(torch.equal(one[name], two[name]) for name in one) and one.keys() == two.keys()
    answers = [network(picture(40, 36), generator=twin()) for network in networks]
    assert answers[0].shape == answers[1].shape == (1, 3, 40, 36) and not torch.equal(*answers)


@pytest.mark.parametrize("shape", [SELF2SELF, replace(SELF2SELF, width=8, head=(8, 8))])
def test_the_cost_is_linear_in_pixels(shape):
    """Eq. 3.15, and the count itself: 2 x 9 x in x out per pixel of each layer."""
    counted = {}
    for size in ((64, 64), (64, 128)) if shape.width > 8 else ((64, 64), (64, 128), (128, 128)):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            EncoderDecoder(3, shape)(picture(*size), generator=twin())
        counted[size] = counter.get_total_flops()
    per_pixel = sum(2 * 9 * a * b / 4**level for a, b, level in layers(shape, 3))
    for (height, width), flops in counted.items():
        assert flops == round(per_pixel * height * width)


# ---- the layout of Eq. 3.13 and 3.14 ----


@pytest.mark.parametrize("name", SHAPES)
def test_the_chain_of_resolutions(name):
    network, sizes = make(name), []
    for module in network.modules():
        if type(module).__name__ in ("_Encode", "_Decode"):
            module.register_forward_hook(
                lambda _, given, answer: sizes.append(
                    tuple((answer[0] if isinstance(answer, tuple) else answer).shape)
                )
            )
    network(picture(64, 96), generator=twin())
    width, head = 4, 4
    down = [(1, width, 64 // 2**k, 96 // 2**k) for k in (0, 0, 1, 2, 3, 4, 5)]
    up = [(1, 2 * width, 64 // 2**k, 96 // 2**k) for k in (4, 3, 2, 1)] + [(1, head, 64, 96)]
    assert sizes == down + up


def test_the_last_skip_is_the_masked_picture_itself():
    network, seen = make("self2self"), []
    network.head.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    image = picture()
    mask = hide(image)
    network(image, mask, twin())
    assert torch.equal(seen[0][:, -3:], image * mask)


@pytest.mark.parametrize("name", ["self2self", "everything"])
def test_after_the_first_layer_everything_is_seen(name):
    network, masks = make(name), []
    for layer in (network.stem, *network.encoder):
        layer.register_forward_hook(lambda _, given, answer: masks.append((given[1], answer[1])))
    image = picture()
    network(image, hide(image, 0.25), twin())
    assert masks[0][0].min() == 0 and len(masks) == 7
    assert all(answer.min() == 1 for _, answer in masks)


@pytest.mark.parametrize("place, count", [("none", 0), ("half", 1), ("all", 5)])
def test_standout_stands_where_it_is_asked_for(place, count):
    network = EncoderDecoder(1, replace(SHAPES["self2self"], standout=place, dropout="none"))
    assert sum(isinstance(module, TStandout) for module in network.modules()) == count
    if place == "half":
        assert isinstance(network.decoder[-1].standout, TStandout)  # third from the bottom: half resolution


@pytest.mark.parametrize("option, value", [
    ("attention", "deep"), ("standout", "yes"), ("dropout", "0.3"), ("norm", "layer"),
    ("normaliser", "liu"), ("standout_scale", "log"), ("standout_below", "keep"),
    ("masked_layers", "none"), ("attention_between", "tanh"),
    ("output", "tanh"), ("rate", 1.0), ("rate", -0.1), ("width", 0), ("width", -4),
    ("depth", 0), ("depth", 1), ("dilation", 0), ("head", (0, 4)),
])  # fmt: skip
@pytest.mark.parametrize("base", ["self2self", "blind2grad"])
def test_an_architecture_that_cannot_be_is_refused(base, option, value):
    """With its own name, whether or not this base makes use of the option."""
    with pytest.raises(B2GError, match=f"^{option} .* not "):
        EncoderDecoder(3, replace(SHAPES[base], **{option: value}))


# ---- what may be seen ----


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("size", [(64, 64), (50, 37)])
def test_hidden_pixels_are_not_seen(name, size):
    """J-invariance: whatever stands on the masked pixels, the blind answer is the same everywhere."""
    network, image = make(name), picture(*size)
    mask = hide(image)
    answer = network(image, mask, twin())
    shouted = torch.where(mask == 1, image, torch.full_like(image, 1000.0))
    assert torch.equal(network(shouted, mask, twin()), answer)
    place = tuple((mask == 1).nonzero()[0].tolist())
    whispered = image.clone()
    whispered[place] += 0.1
    assert not torch.equal(network(whispered, mask, twin()), answer)


@pytest.mark.parametrize("name", SHAPES)
def test_without_a_mask_all_is_seen(name):
    network, image = make(name), picture(40, 48)
    assert torch.equal(network(image, None, twin()), network(image, torch.ones_like(image), twin()))
    assert not torch.equal(network(image, None, twin()), network(image, hide(image), twin()))


@pytest.mark.parametrize("size", [(16, 16), (16, 67), (17, 33), (33, 17), (31, 65), (64, 48), (67, 67)])
@pytest.mark.parametrize("name", SHAPES)
def test_every_size_is_the_crop_of_the_mirrored_picture(name, size):
    network, image = make(name, channels=1), picture(*size, channels=1)
    mask = hide(image)
    grown = [max(64, -(-side // 32) * 32) for side in size]
    mirror = lambda t: torch.from_numpy(  # noqa: E731
        np.pad(t.numpy(), ((0, 0), (0, 0), *((0, g - s) for g, s in zip(grown, size))), mode="symmetric")
    )
    answer = network(image, mask, twin())
    assert answer.shape == image.shape and torch.isfinite(answer).all()
    assert torch.equal(answer, network(mirror(image), mirror(mask), twin())[..., : size[0], : size[1]])


def test_the_guide_lies_on_the_picture_it_guides():
    """The output that guides T-Standout is mirrored with the picture, not stretched over its mirror."""
    network, kept = make("blind2grad", channels=1), []
    standout = network.decoder[-1].standout
    standout.register_forward_hook(lambda module, given, _: kept.append(module.keep(given[0], given[2])))
    guide = torch.zeros(1, 1, 20, 20)
    guide[..., 10:] = 1.0  # its gradient stands in column 9
    network(picture(20, 20, 1), None, twin(), guide)
    columns = sorted(set(kept[0].nonzero()[:, -1].tolist()))
    # At half resolution column 9 is column 4; its mirror images of period 40 follow, and the mirrored edge's.
    expected = np.pad(guide.numpy(), ((0, 0), (0, 0), (0, 44), (0, 44)), mode="symmetric")
    edges = {int(c) // 2 for c in np.flatnonzero(np.diff(expected[0, 0, 0]))}
    assert columns == sorted(edges) and columns[0] == 4


def test_more_pictures_than_one_are_answered_as_one_by_one():
    """Without batch statistics and chance, that is."""
    network = make(replace(SHAPES["self2self"], dropout="none"))
    images = torch.cat([picture(seed=seed) for seed in (1, 2)])
    together = network(images, hide(images))
    apart = torch.cat([network(image, mask) for image, mask in zip(images.split(1), hide(images).split(1))])
    assert torch.allclose(together, apart, atol=1e-6)


# ---- statistics, chance, derivatives ----


@pytest.mark.parametrize("name", ["blind2grad", "everything"])
def test_no_pass_leaves_statistics_to_the_next(name):
    """f(y) and f(Omega(y)) are normalised each by their own pass, in training and out of it."""
    network, image = make(name), picture()
    mask = hide(image)
    alone = network(image, mask, twin())
    for _ in range(3):
        network(image, None, twin(5))
    assert torch.equal(network(image, mask, twin()), alone) and torch.equal(
        network.eval()(image, mask, twin()), alone
    )
    assert not list(network.buffers())


def test_one_batch_would_mix_the_statistics():
    shape = replace(SHAPES["blind2grad"], standout="none")
    network, image = make(shape), picture()
    mask = hide(image)
    both = network(torch.cat((image, image)), torch.cat((torch.ones_like(mask), mask)), twin())
    assert (both[:1] - network(image, None, twin())).abs().max() > 1e-3


@pytest.mark.parametrize("name", SHAPES)
def test_a_pass_is_a_function_of_its_generator(name):
    network, image, state = make(name), picture(), torch.get_rng_state()
    first, again, other = (network(image, None, twin(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(network(image), network(image))
    assert torch.equal(state, torch.get_rng_state())


def test_a_network_without_dropout_has_no_chance():
    network = make(replace(SHAPES["self2self"], dropout="none"))
    assert torch.equal(network(picture(), None, twin(1)), network(picture(), None, twin(2)))


@pytest.mark.parametrize("name", SHAPES)
def test_the_memory_layout_does_not_matter(name):
    network, image = make(name), picture()
    plain = network(image, None, twin())
    last = network(image.contiguous(memory_format=torch.channels_last), None, twin())
    assert torch.allclose(plain, last, atol=1e-5)


def test_every_weight_has_a_share_in_the_answer():
    for name in SHAPES:
        network, image = make(name), picture()
        network(image, hide(image), twin()).square().sum().backward()
        silent = [
            key for key, p in network.named_parameters() if p.grad is None or not p.grad.abs().max() > 0
        ]
        assert not silent, (name, silent)


def test_initial_weights_are_he_normal_and_the_last_layer_smaller():
    network = EncoderDecoder(3, SELF2SELF)
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 5000:
            gain = 2 / 1.01
            expected = (gain / module.weight[0].numel()) ** 0.5
            assert float(module.weight.detach().std()) == pytest.approx(expected, rel=0.05), name
            assert module.bias.abs().max() == 0
    many = torch.cat([EncoderDecoder(3, SELF2SELF).last.weight.detach().flatten() for _ in range(3)])
    assert float(many.std()) == pytest.approx((1 / (9 * 32)) ** 0.5, rel=0.08)


def test_the_window_normaliser_keeps_the_deep_path_alive_and_the_other_silences_it():
    deviations = {}
    for normaliser in ("window", "self2self"):
        network = make(replace(SELF2SELF, normaliser=normaliser))
        deepest = []
        network.encoder[-1].register_forward_hook(
            lambda _, given, answer: deepest.append(float(answer[0].std()))
        )
        with torch.no_grad():
            network(picture(), hide(picture()), twin())
        deviations[normaliser] = deepest[0]
    assert deviations["window"] > 1e-2 and deviations["self2self"] < 1e-8


@pytest.mark.parametrize("name", ["self2self", "blind2grad"])
def test_gradcheck_of_a_tiny_network(name, monkeypatch):
    # The network answers in float32; here alone it must stay in float64.
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    shape = replace(SHAPES[name], width=2, head=(2, 2), depth=2)
    network = make(shape, channels=1).double()
    image, weights = picture(8, 8, 1).double().requires_grad_(), dict(network.named_parameters())
    mask = hide(image).double()

    def run(image, *values):
        return torch.func.functional_call(network, dict(zip(weights, values)), (image, mask, twin()))

    assert run(image, *weights.values()).dtype == torch.float64
    assert torch.autograd.gradcheck(run, (image, *weights.values()), fast_mode=True, eps=1e-7, atol=1e-4)
    (slope,) = torch.autograd.grad(run(image, *weights.values()).sum(), image)
    assert (slope[mask == 0] == 0).all()


@pytest.mark.parametrize("answers", [None, 1, 3])
def test_the_answer_may_have_channels_of_its_own(answers):
    """A network that is shown a pilot beside the picture answers with one picture."""
    shape = replace(BLIND2GRAD, width=4, head=(4, 4), output="linear")
    network = build(lambda: EncoderDecoder(6, shape, answers), 0, torch.device("cpu"))
    assert network(picture(40, 33, 6)).shape == (1, answers or 6, 40, 33)
    assert network.last.out_channels == (answers or 6) and network.head is not None
    torch.nn.init.zeros_(network.last.weight)
    assert (network(picture(40, 33, 6)) == 0).all()  # what b2g's fit to recorruptions starts from


def test_a_network_without_chance_makes_no_generator(monkeypatch):
    """Seeding one forbids a CUDA graph; one that draws has its own where none is given."""
    picture = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    drawing = EncoderDecoder(1, Architecture(width=4, head=(4, 4)))
    assert torch.equal(drawing(picture), drawing(picture, None, torch.Generator().manual_seed(0)))
    quiet = EncoderDecoder(1, Architecture(width=4, head=(4, 4), dropout="none"))
    monkeypatch.setattr(torch, "Generator", lambda *_: pytest.fail("a generator was made"))
    quiet(picture)
    with pytest.raises(pytest.fail.Exception):
        drawing(picture)
