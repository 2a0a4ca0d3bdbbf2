import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from oracles import assert_mean, assert_rate, gradient

from b2g.errors import B2GError
from b2g.layers import ChannelAttention, GradientLayer, MaskedConv2d, TStandout, convolution, dilated, dropout


def twin(seed=1):
    return torch.Generator().manual_seed(seed)


def randn(*shape, seed=2, dtype=torch.float64):
    return torch.randn(shape, generator=twin(seed), dtype=dtype)


def random_mask(*shape, hidden=0.4, seed=4):
    return (torch.rand(shape, generator=twin(seed)) >= hidden).double()


def masked_convolution(channels_in, channels_out, normaliser, seed=6, dilation=1):
    layer = MaskedConv2d(channels_in, channels_out, normaliser, dilation).double()
    for k, parameter in enumerate(layer.parameters()):
        parameter.data = randn(*parameter.shape, seed=seed + k)
    return layer


# ---- masked convolution ----


def loop_convolution(layer, features, mask, entries, dilation=1):
    weight, bias = (p.detach().numpy() for p in layer.convolution.parameters())
    features, mask = features.numpy(), np.broadcast_to(mask.numpy(), features.shape)
    batch, channels, height, width = features.shape
    out, seen = np.zeros((batch, len(bias), height, width)), np.zeros((batch, 1, height, width))
    for b in range(batch):
        for i in range(height):
            for j in range(width):
                total, visible = np.zeros(len(bias)), 0
                for c in range(channels):
                    for a in range(3):
                        for d in range(3):
                            row, column = i + (a - 1) * dilation, j + (d - 1) * dilation
                            if 0 <= row < height and 0 <= column < width and mask[b, c, row, column] == 1:
                                visible += 1
                                total += weight[:, c, a, d] * features[b, c, row, column]
                seen[b, 0, i, j] = visible > 0
                out[b, :, i, j] = bias + (total * entries / visible if visible else 0)
    return out, seen


@pytest.mark.parametrize("normaliser, entries", [("window", 27), ("self2self", 9)])
@pytest.mark.parametrize("mask_channels, hidden", [(3, 0.4), (1, 0.4), (1, 0.95), (3, 0.0)])
def test_masked_convolution_is_the_loop(normaliser, entries, mask_channels, hidden):
    layer = masked_convolution(3, 2, normaliser)
    features, mask = randn(2, 3, 6, 7), random_mask(2, mask_channels, 6, 7, hidden=hidden)
    expected, expected_mask = loop_convolution(layer, features, mask, entries)
    found, found_mask = layer(features, mask)
    assert np.allclose(found.detach(), expected, rtol=0, atol=1e-12)
    assert np.array_equal(found_mask, expected_mask) and (hidden < 0.9 or expected_mask.min() == 0)


@pytest.mark.parametrize("mask_channels, hidden, dilation", [(3, 0.4, 2), (1, 0.95, 2), (1, 0.4, 3), (3, 0.0, 5)])
def test_dilated_windows_are_those_of_the_loop(mask_channels, hidden, dilation):
    layer = masked_convolution(3, 2, "window", dilation=dilation)
    features, mask = randn(2, 3, 8, 7), random_mask(2, mask_channels, 8, 7, hidden=hidden)
    expected, expected_mask = loop_convolution(layer, features, mask, 27, dilation)
    found, found_mask = layer(features, mask)
    assert np.allclose(found.detach(), expected, rtol=0, atol=1e-12) and np.array_equal(found_mask, expected_mask)


@pytest.mark.parametrize("channels", [(35, 16), (3, 16), (12, 3)])
def test_a_dilated_convolution_is_in_float32_on_a_cpu(channels):
    """Its bfloat16 gradient was seen to end the process."""
    layer = convolution(*channels, 2).to(memory_format=torch.channels_last)
    features = randn(1, channels[0], 64, 64, dtype=torch.float32).contiguous(memory_format=torch.channels_last)
    features.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        answer = layer(features)
    assert answer.dtype == torch.float32
    plain = F.conv2d(features, layer.weight, layer.bias, padding=2, dilation=2)
    assert torch.equal(answer, plain) and type(convolution(*channels)) is torch.nn.Conv2d
    answer.square().mean().backward()
    assert features.grad.isfinite().all() and layer.weight.grad.isfinite().all()


@pytest.mark.parametrize("kernel, dilation", [(3, 2), (11, 2), (3, 3), (9, 1)])
@pytest.mark.parametrize("channels", [3, 8, 16, 17, 24, 32, 40, 64])
def test_gradients_of_dilated_convolutions_in_bfloat16_are_those_of_float32(channels, kernel, dilation):
    """Of 17, 24 and 40 channels PyTorch's own are not finite, or end the process: seen before the guard."""
    weight = (randn(8, channels, kernel, kernel, dtype=torch.float32) / kernel / channels**0.5).requires_grad_()
    features = randn(1, channels, 30, 37, dtype=torch.float32).contiguous(memory_format=torch.channels_last)
    features.requires_grad_()
    aim = randn(1, 8, 30, 37, dtype=torch.float32)

    def slopes(enabled):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            answer = dilated(features, weight, None, dilation, always=False)
        rounded = enabled and (dilation == 1 or channels in (3, 8, 16, 32, 64))
        assert answer.dtype == (torch.bfloat16 if rounded else torch.float32)
        return torch.autograd.grad((answer.float() * aim).sum(), (features, weight))

    for found, expected in zip(slopes(True), slopes(False)):
        assert float((found - expected).norm() / expected.norm()) < 0.01  # bfloat16 has 8 bits


@pytest.mark.parametrize("normaliser, factor", [("window", 1), ("self2self", 1 / 5)])
def test_a_fully_visible_layer_is_a_plain_convolution(normaliser, factor):
    layer = masked_convolution(5, 4, normaliser)
    features = randn(1, 5, 8, 9)
    found, mask = layer(features, torch.ones(1, 5, 8, 9, dtype=torch.float64))
    weight, bias = layer.convolution.weight, layer.convolution.bias.view(1, -1, 1, 1)
    plain = factor * F.conv2d(features, weight, padding=1)
    assert torch.allclose((found - bias)[..., 1:-1, 1:-1], plain[..., 1:-1, 1:-1], rtol=1e-12)
    # The outside counts as hidden: 6 of 9 places are seen along a side, 4 of 9 in a corner.
    share = torch.full((8, 9), 1.0, dtype=torch.float64)
    share[0] = share[-1] = share[:, 0] = share[:, -1] = 6 / 9
    share[0, 0] = share[0, -1] = share[-1, 0] = share[-1, -1] = 4 / 9
    assert torch.allclose(found - bias, plain / share, rtol=1e-12) and mask.min() == 1


@pytest.mark.parametrize("normaliser", ["window", "self2self"])
def test_hidden_values_do_not_matter(normaliser):
    layer = masked_convolution(3, 2, normaliser)
    features, mask = randn(1, 3, 8, 8), random_mask(1, 3, 8, 8)
    shouted = torch.where(mask == 1, features, torch.full_like(features, 1e9))
    assert torch.equal(layer(features, mask)[0], layer(shouted, mask)[0])
    assert not torch.equal(layer(features, mask)[0], layer(features + mask, mask)[0])


@pytest.mark.parametrize("masked", [0.25, 0.3])
def test_one_layer_fills_every_window_of_a_colour_picture(masked):
    """27 entries of which a quarter is hidden are never all hidden: only the first layer is truly partial."""
    layer = MaskedConv2d(3, 1)
    mask = (torch.rand(1, 3, 64, 64, generator=twin()) >= masked).float()
    assert layer(mask, mask)[1].min() == 1


@pytest.mark.parametrize("normaliser", ["window", "self2self"])
def test_gradcheck_of_the_masked_convolution(normaliser):
    layer, mask = masked_convolution(2, 2, normaliser), random_mask(1, 2, 4, 4)
    features = randn(1, 2, 4, 4).requires_grad_()
    names = dict(layer.named_parameters())

    def run(features, *values):
        return torch.func.functional_call(layer, dict(zip(names, values)), (features, mask))[0]

    assert torch.autograd.gradcheck(run, (features, *names.values()))
    (slope,) = torch.autograd.grad(layer(features, mask)[0].square().sum(), features)
    assert (slope[mask == 0] == 0).all() and (slope[mask == 1] != 0).all()


# ---- gradient layer ----


@pytest.mark.parametrize("operator", ["forward", "backward", "central", "sobel"])
def test_gradient_layer_in_both_readings(operator):
    features = randn(2, 3, 5, 6)
    across, down = gradient(features.numpy(), operator)
    assert np.allclose(GradientLayer(operator)(features), np.hypot(across, down), atol=1e-6)
    assert np.allclose(GradientLayer(operator, signed=True)(features), across + down, atol=1e-13)
    assert not list(GradientLayer(operator).parameters())


@pytest.mark.parametrize("signed", [False, True])
def test_gradcheck_of_the_gradient_layer(signed):
    features = randn(1, 2, 4, 4).requires_grad_()
    assert torch.autograd.gradcheck(GradientLayer("sobel", signed), features)


# ---- channel attention (Eq. 3.12) ----


@pytest.mark.parametrize("between", ["none", "relu"])
@pytest.mark.parametrize("channels, reduction", [(8, 4), (3, 4), (6, 1)])
def test_channel_attention_is_equation_3_12(between, channels, reduction):
    layer, features = ChannelAttention(channels, reduction, between).double(), randn(2, channels, 5, 7)
    first, second = layer.squeeze.weight.detach().numpy(), layer.excite.weight.detach().numpy()
    assert first.shape == (max(1, channels // reduction), channels) and second.shape == first.shape[::-1]
    expected = np.zeros((2, channels))
    for b in range(2):
        mean = np.array([features[b, c].numpy().sum() / 35 for c in range(channels)])
        inner = first @ mean
        inner = np.array([max(0.0, value) for value in inner]) if between == "relu" else inner
        expected[b] = [1 / (1 + math.exp(-value)) for value in second @ inner]
    assert np.allclose(layer.scale(features).detach(), expected, rtol=1e-12)
    assert np.allclose(layer(features).detach(), features.numpy() * expected[..., None, None], rtol=1e-12)
    assert 0 < expected.min() and expected.max() < 1


def test_the_two_readings_of_equation_3_12_differ():
    plain, relu = (ChannelAttention(8, 4, between).double() for between in ("none", "relu"))
    relu.load_state_dict(plain.state_dict())
    scales = [layer.scale(randn(8, 8, 5, 5)) for layer in (plain, relu)]
    assert not torch.allclose(*scales)


@pytest.mark.parametrize("between", ["none", "relu"])
def test_gradcheck_of_channel_attention(between):
    layer, features = ChannelAttention(4, 2, between).double(), randn(2, 4, 3, 3).requires_grad_()
    names = dict(layer.named_parameters())
    run = lambda f, *v: torch.func.functional_call(layer, dict(zip(names, v)), (f,))  # noqa: E731
    assert torch.autograd.gradcheck(run, (features, *names.values()))


# ---- dropout and T-Standout (Eq. 3.11) ----


def test_dropout_drops_at_its_rate_and_keeps_the_expectation():
    features = torch.full((2, 4, 100, 100), 2.0)
    answer = dropout(features, 0.3, twin())
    assert torch.allclose(answer[answer != 0], torch.tensor(2 / 0.7))
    assert_rate((answer == 0).sum(), answer.numel(), 0.3, [0.25, 0.35])
    assert_mean(answer, 2.0, unlike=2.1)
    neighbours = (answer[:, 0] == 0) & (answer[:, 1] == 0)
    assert_rate(neighbours.sum(), neighbours.numel(), 0.09, [0.3, 0.13])


def test_dropout_without_a_rate_changes_nothing():
    features = randn(1, 2, 5, 5)
    assert torch.equal(dropout(features, 0.0, twin()), features)


def steps(height=60, width=64):
    """Stripes: every fourth column ends in a step of 0.5, the rest is flat, so eta is known by sight."""
    row = (torch.arange(width) // 4 % 2) * 0.5 + 0.25
    features = row.expand(2, 3, height, width).clone()
    edges = torch.zeros(width, dtype=bool)
    edges[3:-1:4] = True
    return features, edges.expand(features.shape)


def test_units_on_an_edge_are_never_dropped_and_the_others_at_the_rate():
    features, edges = steps()
    standout = TStandout(rate=0.3, threshold=25)
    generator, passes = twin(), 20
    total = torch.zeros_like(features)
    dropped = 0
    for _ in range(passes):
        answer = standout(features, generator)
        assert torch.equal(answer[edges], features[edges])
        flat = answer[~edges]
        assert ((flat == 0) | torch.isclose(flat, features[~edges] / 0.7)).all()
        dropped += int((flat == 0).sum())
        total += answer
    assert_rate(dropped, passes * int((~edges).sum()), 0.3, [0.25, 0.35])
    assert_mean(
        (total / passes / features)[~edges], 1.0, unlike=1.02
    )  # undropped or unscaled units would show


@pytest.mark.parametrize("threshold, kept", [(127.4, True), (127.6, False)])
def test_the_raw_threshold_is_on_0_255(threshold, kept):
    features, edges = steps()  # the steps are 0.5, 127.5 of 255
    assert torch.equal(
        TStandout(threshold=threshold).keep(features), edges if kept else torch.zeros_like(edges)
    )


def keep_by_hand(features, guide, scale, threshold, fraction):
    """Eq. 3.11 unit by unit; a guide is reduced to the features' size by its largest gradient."""
    signal = features if guide is None else guide
    across, down = gradient(signal, "forward")
    size = np.sqrt(across**2 + down**2 + 1e-12)
    span = signal.max((-2, -1)) - signal.min((-2, -1))
    if guide is not None:
        size, span = size.max(1, keepdims=True), span.max(1, keepdims=True)
        height, width = features.shape[-2:]
        big_height, big_width = guide.shape[-2:]
        pooled = np.zeros((*size.shape[:2], height, width))
        for i in range(height):
            rows = slice(i * big_height // height, -((i + 1) * big_height // -height))
            for j in range(width):
                columns = slice(j * big_width // width, -((j + 1) * big_width // -width))
                pooled[..., i, j] = size[..., rows, columns].max((-2, -1))
        size = pooled
    kept = np.zeros(size.shape, bool)
    for entry in np.ndindex(size.shape[:2]):
        if scale == "raw":
            kept[entry] = size[entry] >= threshold / 255
        elif scale == "range":
            kept[entry] = size[entry] >= threshold / 255 * span[entry]
        else:
            count = size[entry].size - round((1 - fraction) * size[entry].size)
            kept[entry].flat[np.argsort(-size[entry], axis=None)[:count]] = True
    return np.broadcast_to(kept, features.shape)


GUIDES = [(None, 40), ((12, 14), 70), ((25, 33), 90), ((6, 7), 70), ((5, 4), 70)]


@pytest.mark.parametrize("scale", ["raw", "range", "quantile"])
@pytest.mark.parametrize("guided, threshold", GUIDES)
def test_every_reading_of_equation_3_11(scale, guided, threshold):
    features = 0.1 * randn(2, 3, 12, 14)
    guide = None if guided is None else 0.1 * randn(2, 5, *guided, seed=9)
    threshold = threshold * 1.5 if scale == "range" else threshold  # these features span about 2/3
    if scale == "quantile" and guided is not None:
        # Pooling repeats gradients, and equal ones have no order; with one pixel a unit none is repeated.
        guide = 0.1 * randn(2, 5, 12, 14, seed=9)
    expected = keep_by_hand(features.numpy(), None if guide is None else guide.numpy(), scale, threshold, 0.2)
    assert 0 < expected.mean() < 1
    assert np.array_equal(
        TStandout(threshold=threshold, scale=scale, fraction=0.2).keep(features, guide), expected
    )


def test_signed_gradients_protect_rising_edges_only():
    features, edges = steps()
    kept = TStandout(signed=True).keep(features)
    rising = edges & (features == 0.25)
    assert torch.equal(kept, rising) and 0 < kept.sum() < edges.sum()


def test_the_quantile_protects_its_share_whatever_the_scale():
    features = randn(1, 3, 20, 20)
    standout = TStandout(scale="quantile", fraction=0.25)
    assert (standout.keep(features).sum((-2, -1)) == 100).all()
    assert torch.equal(standout.keep(features), standout.keep(1000 * features))
    ranged = TStandout(scale="range")
    assert torch.equal(ranged.keep(features), ranged.keep(1000 * features))
    assert not torch.equal(TStandout().keep(features), TStandout().keep(features / 100))


def test_the_quantile_never_protects_more_than_its_share_of_equal_gradients():
    features, edges = steps()
    assert (
        not TStandout(scale="quantile", fraction=0.1).keep(features).any()
    )  # a quarter of the units tie for it
    assert torch.equal(TStandout(scale="quantile", fraction=0.4).keep(features), edges)


def test_the_letter_drops_all_others_and_nothing_is_random():
    features, edges = steps()
    standout = TStandout(below="drop")
    answers = [standout(features, twin(seed)) for seed in (1, 2)]
    assert torch.equal(*answers) and torch.equal(answers[0], features * edges)


@pytest.mark.parametrize("scale", ["raw", "range", "quantile"])
@pytest.mark.parametrize("below", ["dropout", "drop"])
def test_gradcheck_of_standout_with_a_fixed_generator(scale, below):
    standout = TStandout(rate=0.4, threshold=60, scale=scale, below=below)
    features = (0.3 * randn(1, 2, 5, 5)).requires_grad_()
    answer = standout(features, twin())
    assert 0 < (answer == 0).sum() < answer.numel()
    assert torch.autograd.gradcheck(lambda f: standout(f, twin()), features)


def test_standout_is_a_function_of_its_generator():
    features, state = randn(1, 4, 16, 16), torch.get_rng_state()
    standout = TStandout()
    first, again, other = (standout(features, twin(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(state, torch.get_rng_state())


def test_standout_stays_on_in_evaluation():
    features = randn(1, 4, 16, 16)
    assert torch.equal(TStandout()(features, twin()), TStandout().eval()(features, twin()))


@pytest.mark.parametrize("make, sentence", [
    (lambda: MaskedConv2d(1, 1, "liu"), "normaliser must be one of window, self2self, not 'liu'"),
    (lambda: ChannelAttention(4, between="tanh"), "between must be 'none' or 'relu', not 'tanh'"),
    (lambda: TStandout(scale="log"), "scale must be 'raw', 'range' or 'quantile', not 'log'"),
    (lambda: TStandout(below="keep"), "below must be 'dropout' or 'drop', not 'keep'"),
    (lambda: TStandout(rate=1.0), r"rate .* must lie in \[0, 1\), not 1.0"),
    (lambda: TStandout(rate=-0.1), r"rate .* must lie in \[0, 1\), not -0.1"),
    (lambda: TStandout(fraction=1.5), r"fraction .* must lie in \[0, 1\], not 1.5"),
])  # fmt: skip
def test_an_unknown_reading_is_refused_by_name(make, sentence):
    with pytest.raises(B2GError, match=sentence):
        make()
