"""LG-BPN: the blind patch of its network, its shrunk kernels, and the method in both forms."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import skimage.data
import torch
import torch.nn.functional as F
from killed import killed_after
from torch import nn

import b2g
from b2g.crops import Drawn
from b2g.errors import B2GError
from b2g.fit import build
from b2g.layers import DilatedConv2d
from b2g.method import Circumstances
from b2g.methods.ap_bsn import APBSN
from b2g.methods.lg_bpn import LGBPN, WHITE, LGBPNMany
from b2g.networks.lg_bpn import (
    BlindPatchConv2d, DilatedTransformer, EachAlone, GatedLayer, LocalGlobal, Look, Scale,
    TransposedAttention, patch_mask, shrunk,
)  # fmt: skip
from b2g.shuffle import in_parts

CPU = torch.device("cpu")
ASTRONAUT = skimage.data.astronaut()[20:84, 180:244].astype(np.float32) / 255
TINY = dict(width=8, head=6, blocks=2, transformers=1)
FIT, ANSWER, REFINEMENT = LGBPN().looks()
DND = Look((2, 4), (0.5, 0.65)), Look((2, 2), (0.4, 0.35))

diamond = {(y, x) for y in range(-4, 5) for x in range(-4, 5) if abs(y) + abs(x) <= 4}
square = set(itertools.product((-1, 0, 1), repeat=2))
plus = {(y, x) for y, x in square if abs(y) + abs(x) <= 1}


def network(still=True, **settings):
    """In float64, awake at every pixel; ``still``: with equal weights between all channels, whatever the
    picture.
    """
    made = build(lambda: LocalGlobal(3, **TINY | settings), 0, CPU).double()
    made.head[0].weight.data.abs_()
    for module in made.modules() if still else ():
        if isinstance(module, TransposedAttention):
            torch.nn.init.zeros_(module.temperature)
    return made


def picture(height, width, channels=3, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(1, channels, height, width, generator=generator, dtype=torch.float64)


def seen(run, given, row, column):
    """How much the answer at a pixel hangs on every pixel, ``(H, W)``, by its slope."""
    given = given.clone().requires_grad_()
    return torch.autograd.grad(run(given)[..., row, column].square().sum(), given)[0].abs().sum((0, 1))


# ---- sizes ----


def count(module):
    return sum(weights.numel() for weights in module.parameters())


def test_the_network_has_the_published_4_56_million_weights_layer_by_layer():
    whole = LocalGlobal(3)
    assert count(whole) == 4_558_879
    assert (count(whole.head), count(whole.near), count(whole.near_steps)) == (96, 248_960, 1_526_400)
    assert (count(whole.far), count(whole.tail)) == (1_354_880, 45_507)
    assert [count(block) for block in whole.far_blocks] == 6 * [205_930] and count(whole.far_last) == 147_456
    block = DilatedTransformer(128)
    assert (count(block.attention), count(block.gate), count(block.scale)) == (68_994, 136_680, 128)
    dead = sum(int((1 - conv.kept).sum()) * 24 * 128 for conv in (whole.near, whole.far))
    assert count(whole) - dead == 3_409_951 and dead == 1_148_928


def test_the_kernels_skip_a_diamond_and_the_far_one_every_second_pixel():
    near, far = patch_mask(4, 4), patch_mask(10, 4, 2)
    assert (int(near.sum()), int((near == 0).sum())) == (40, 41)
    assert (int(far.sum()), int((far == 0).sum())) == (108, 333)
    for y, x in itertools.product(range(-10, 11), repeat=2):
        assert far[y + 10, x + 10] == (y % 2 == 0 and x % 2 == 0 and abs(y) + abs(x) > 4)
        if max(abs(y), abs(x)) <= 4:
            assert near[y + 4, x + 4] == ((y, x) not in diamond)


# ---- shrunk kernels ----


@pytest.mark.parametrize("size, factor, side", [
    (9, 0.72, 7), (9, 0.46, 5), (9, 0.5, 5), (9, 0.4, 5), (9, 1.0, 9), (21, 0.8, 17), (21, 0.43, 11),
    (21, 0.65, 15), (21, 0.35, 9),
])  # fmt: skip
def test_a_shrunk_kernel_reads_between_the_pixels(size, factor, side, generator):
    """Against reading the picture bilinearly at every offset, by NumPy."""
    kernel = torch.randn(1, 1, size, size, generator=generator, dtype=torch.float64)
    small = shrunk(kernel, factor)
    assert small.shape == (1, 1, side, side) and torch.allclose(small.sum(), kernel.sum())
    given = np.pad(np.random.RandomState(0).standard_normal((6, 7)), size)
    expected = np.zeros((6, 7))
    for ky, kx in itertools.product(range(size), repeat=2):
        y, x = factor * (ky - size // 2) + size, factor * (kx - size // 2) + size
        top, left = int(np.floor(y)), int(np.floor(x))
        for dy, dx in itertools.product((0, 1), repeat=2):
            share = (1 - abs(top + dy - y)) * (1 - abs(left + dx - x))
            rows, columns = slice(top + dy, top + dy + 6), slice(left + dx, left + dx + 7)
            expected += float(kernel[0, 0, ky, kx]) * share * given[rows, columns]
    alone = torch.from_numpy(given[size:-size, size:-size])[None, None]
    found = F.conv2d(alone, small, padding=side // 2)
    np.testing.assert_allclose(found[0, 0], expected, atol=1e-12)


@pytest.mark.parametrize("apart", [1, 2])
def test_the_kernel_of_the_fit_is_the_masked_one(apart, generator):
    convolution = BlindPatchConv2d(2, 3, 6, 3, apart)
    given = torch.rand(1, 2, 19, 20, generator=generator)
    masked = convolution.weight * patch_mask(6, 3, apart)
    expected = F.conv2d(given, masked, convolution.bias, padding=6)
    assert torch.allclose(convolution(given), expected, atol=1e-5)
    assert torch.allclose(convolution(given, 1.0 - 1e-9), expected, atol=1e-4)


# ---- the parts of the Transformer ----


def test_features_are_scaled_by_their_deviation_and_keep_their_mean():
    given = picture(5, 6, 8)
    layer = Scale(8).double()
    layer.weight.data = torch.arange(1.0, 9.0, dtype=torch.float64)[:, None, None]
    values = given.numpy()
    expected = values / np.sqrt(values.var(1, keepdims=True) + 1e-5) * np.arange(1, 9)[:, None, None]
    np.testing.assert_allclose(layer(given).detach(), expected, rtol=1e-12)


def test_channels_are_mixed_by_how_alike_they_are_over_all_parts():
    """By NumPy, for two pictures of three parts each, head by head."""
    layer = TransposedAttention(4).double()
    layer.temperature.data = torch.tensor([0.7, 2.0], dtype=torch.float64)[:, None, None]
    given = torch.cat([picture(4, 5, 4, seed) for seed in range(6)])
    # By picture, part, query, key or value, head, channel, pixel.
    inside = layer.widen(given).detach().numpy().reshape(2, 3, 3, 2, 2, 20)
    mixed = np.zeros((2, 3, 4, 20))
    for b, head in itertools.product(range(2), range(2)):
        query, key = (inside[b, :, what, head].transpose(1, 0, 2).reshape(2, -1) for what in (0, 1))
        query, key = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (query, key))
        weights = np.exp([0.7, 2.0][head] * query @ key.T)
        weights /= weights.sum(1, keepdims=True)
        for part in range(3):
            mixed[b, part, 2 * head : 2 * head + 2] = weights @ inside[b, part, 2, head]
    expected = layer.last(torch.from_numpy(mixed.reshape(6, 4, 4, 5))).detach()
    np.testing.assert_allclose(layer(given, 2).detach(), expected, atol=1e-9)


def test_the_gate_is_a_half_after_a_gelu_times_the_other():
    layer, given = GatedLayer(4).double(), picture(7, 8, 4)
    inside = layer.widen(given)
    assert inside.shape[1] == 20
    gelu = inside[:, :10] * 0.5 * (1 + torch.erf(inside[:, :10] / 2**0.5))
    assert torch.allclose(layer(given), layer.last(gelu * inside[:, 10:]))


def test_each_channel_alone_is_computed_in_float32(generator):
    """In bfloat16 the slope of its weights depended on what lay in the memory before."""
    layer, given = EachAlone(16), torch.rand(1, 16, 48, 48, generator=generator)
    slopes = []
    for _ in range(4):
        sizes = 10_000, 100_000, 1_000_000
        waste = [torch.full((size,), float("nan"), dtype=torch.bfloat16) for size in sizes]
        del waste
        with torch.autocast("cpu", torch.bfloat16):
            answer = layer(given)
        assert answer.dtype == torch.float32
        slopes.append(torch.autograd.grad(answer.square().sum(), layer.weight)[0])
    assert all(torch.equal(slope, slopes[0]) and slope.isfinite().all() for slope in slopes)


# ---- blindness ----


@pytest.mark.parametrize("look, hidden", [
    (FIT, diamond), (ANSWER, square), (REFINEMENT, {(0, 0)}), (DND[0], plus), (DND[1], {(0, 0)}),
], ids=["fit", "answer", "refinement", "answer, DND", "refinement, DND"])  # fmt: skip
def test_no_answer_sees_the_hidden_patch_around_it(look, hidden):
    """Exact where the attention is still; all other pixels that near are seen."""
    made, given = network(), picture(45, 52)
    for row, column in ((22, 25), (0, 0), (44, 51), (3, 50)):
        slope = seen(lambda given: made(given, look), given, row, column)
        around = {(y - row, x - column) for y, x in slope.nonzero().tolist()}
        assert not around & hidden, (row, column)
        if (row, column) == (22, 25):
            assert {(3, 2), (4, 1), (0, 5), (0, 6)} <= around or look != FIT
            ring = {(y, x) for y, x in itertools.product(range(-2, 3), repeat=2)} - hidden
            assert look == FIT or ring <= around


@pytest.mark.parametrize("size", [(16, 16), (17, 23), (31, 20)])
@pytest.mark.parametrize("look", [FIT, ANSWER, REFINEMENT])
def test_it_is_blind_in_every_corner_of_sides_that_are_no_multiple(size, look):
    made, given = network(), picture(*size)
    height, width = size
    before = made(given, look).detach()
    assert before.shape == given.shape
    for row, column in itertools.product((0, 1, 5, height - 6, height - 1), (0, 4, width - 4, width - 1)):
        changed = given.clone()
        changed[..., row, column] += 3.0
        moved = (made(changed, look).detach() - before).abs()
        assert moved[..., row, column].max() == 0 < moved.max()


def test_white_noise_hides_one_pixel_and_no_more():
    made, given = network(reaches=WHITE["reaches"], hidden=0), picture(24, 25)
    look = Look(WHITE["train_strides"])
    for row, column in ((12, 12), (0, 0), (23, 24)):
        slope = seen(lambda given: made(given, look), given, row, column)
        near = slope[max(0, row - 2) : row + 3, max(0, column - 2) : column + 3]
        assert slope[row, column] == 0 and int((near > 0).sum()) == near.numel() - 1


def test_attention_lets_a_pixel_through_only_as_one_of_many():
    """The published leak: the near branch is blind whatever the attention does, the far one but for the
    weights.
    """
    made, given = network(still=False), picture(40, 40)
    slope = seen(lambda given: made(given, FIT), given, 20, 20)
    assert 0 < slope[20, 20] < 0.02 * slope.max()
    near = lambda given: in_parts(made.near_steps, made.near(made.head(given)), 4, 0)  # noqa: E731
    assert seen(near, given, 20, 20)[20, 20] == 0


# ---- the method ----


def noisy(size=64):
    clean = np.ascontiguousarray(ASTRONAUT[:size, :size])
    return clean, b2g.add_noise(clean, "gaussian", 25, seed=0)


def tensor(image):
    return torch.from_numpy(image).permute(2, 0, 1)[None]


def test_the_settings_are_the_published_ones():
    one, many = LGBPN.profile("official"), LGBPNMany.profile("official")
    for method in (one, many):
        assert (method.width, method.head, method.blocks, method.transformers) == (128, 24, 9, 6)
        assert method.looks() == (Look((4, 5)), Look((3, 4), (0.72, 0.8)), Look((2, 4), (0.46, 0.43)))
        assert (method.refinements, method.replaced) == (8, 0.16)
    recipe = many.chosen_recipe()
    for how in (one, recipe):
        assert (how.learning_rate, how.batch, how.side) == (1e-4, 8, 120)
    assert recipe.steps == 20 * 3068 and "many images" == LGBPNMany.label and LGBPNMany.capturable
    assert LGBPN.label == "one image" and LGBPNMany().network(3).state_dict().keys() == (
        LGBPN.profile("short").network(3).state_dict().keys())  # fmt: skip


def test_the_loss_and_the_answer_look_as_they_should(generator):
    """Seen by a stand-in for the network: the fit's look at the crops, then the answer's, then the
    refinement's.
    """
    method, asked = LGBPN(refinements=3), []
    crops = torch.rand(2, 3, 20, 20, generator=generator)

    def run(given, look):
        asked.append((given, look))
        return given + 0.25

    assert float(method.training_loss(run, Drawn(crops), 0.0, generator)) == pytest.approx(0.25)
    assert asked == [(crops, FIT)]
    answer = method.answer(run, crops[:1], generator)
    assert [look for _, look in asked[1:]] == [ANSWER] + 3 * [REFINEMENT]
    first, again = crops[:1] + 0.25, [given for given, _ in asked[2:]]
    assert all(((given == first) | (given == crops[:1])).all() and (given != first).any() for given in again)
    assert torch.allclose(answer, sum(again) / 3 + 0.25)
    assert torch.equal(replace(method, refinements=0).answer(run, crops[:1], generator), first)


def test_lg_bpn_denoises_a_small_picture():
    """64x64 at sigma 25; seeds 0 and 1 of weights and crops gain 3.8 dB."""
    clean, given = noisy()
    result = b2g.denoise(given, "lg_bpn", "smoke", progress=False)
    assert b2g.psnr(clean, result.image) > b2g.psnr(clean, given, clip=False) + 2.5


QUICK = dict(steps=3, side=16, width=4, head=3, blocks=1, refinements=2)
CAMERA = {name: getattr(LGBPN(), name) for name in WHITE}


@pytest.mark.parametrize("size, channels", [((16, 16), 3), ((17, 35), 1)])
def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(size, channels):
    given = picture(*size, channels).float() * 1.4 - 0.2
    copy, stream = given.clone(), torch.get_rng_state()
    method = LGBPN.profile("smoke", **CAMERA, **QUICK)
    first, again, other = (method(given, Circumstances(seed=seed)).estimate for seed in (3, 3, 4))
    assert first.shape == given.shape and 0 <= first.min() and first.max() <= 1
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(given, copy) and torch.equal(stream, torch.get_rng_state())


def test_a_killed_fit_goes_on_to_the_same_bytes(tmp_path, monkeypatch):
    method = LGBPN.profile("smoke", **CAMERA, **QUICK | dict(steps=6))
    clean, given = (tensor(image) for image in noisy(20))
    whole = method(given, Circumstances(clean=clean))
    place = tmp_path / "fit"

    with killed_after(monkeypatch, 4) as stop:
        method(given, Circumstances(clean=clean, checkpoint=place, watch=stop))
    rest = []
    look = lambda objective, step: rest.append(step) or {}  # noqa: E731
    end = method(given, Circumstances(clean=clean, checkpoint=place, watch=look))
    assert rest == [4, 5, 6] and not place.exists()
    assert torch.equal(end.estimate, whole.estimate)
    assert [e["psnr"] for e in end.history] == [e["psnr"] for e in whole.history]


@pytest.mark.parametrize("method, settings, sentence", [
    (LGBPN, dict(train_strides=(3, 5)), "near kernel reaches 4 pixels, more than the 3 at which stride 3"),
    (LGBPN, dict(train_strides=(4, 4)), "far kernel reaches 10 pixels, more than the 8"),
    (LGBPN, dict(train_strides=(0, 5)), "strides must be at least 1"),
    (LGBPN, dict(test_shrink=(0.2, 0.8)), "near kernel .* its own pixel"),
    (LGBPN, dict(test_shrink=(0.72, 0.0)), r"shrink lie in \(0, 1\], not 4 and 0.0"),
    (LGBPN, dict(refine_shrink=(1.1, 0.4)), r"shrink lie in \(0, 1\]"),
    (LGBPN, dict(refine_shrink=(0.46, 0.2)), "far kernel .* its own pixel"),
    (LGBPN, dict(reaches=(0, 10)), "reaches must be at least 1, not 0"),
    (LGBPN, dict(hidden=8), "near kernel of reach 4 with 8 pixels hidden .* sees nothing"),
    (LGBPN, dict(hidden=-1), "hidden must be at least 0"),
    (LGBPN, dict(width=33), "width must be a multiple of the 2 heads of attention, not 33"),
    (LGBPN, dict(width=0), "width must be at least 2"),
    (LGBPN, dict(head=0), "head must be at least 1"),
    (LGBPN, dict(blocks=-1), "blocks must be at least 0"),
    (LGBPN, dict(transformers=-1), "transformers must be at least 0"),
    (LGBPN, dict(refinements=-1), "refinements must be at least 0"),
    (LGBPN, dict(replaced=1.0), r"replaced .* must lie in \[0, 1\), not 1.0"),
    (LGBPN, dict(side=15), "side must be at least 16"),
    (LGBPN, dict(batch=0), "batch must be at least 1"),
    (LGBPN, dict(steps=0), "steps must be at least 1"),
    (LGBPNMany, dict(width=31), "width must be a multiple"),
    (LGBPN, dict(test_strides=(2, 4)), "near kernel reaches 3 pixels"),
    (LGBPNMany, dict(recipe="huge"), "has no recipe 'huge'"),
])  # fmt: skip
def test_an_impossible_setting_is_refused(method, settings, sentence):
    with pytest.raises(B2GError, match=sentence) as raised:
        method.profile(None, **settings)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("method", [LGBPN.profile("official"), APBSN.profile("official")])
def test_every_dilated_convolution_is_a_guarded_one(method):
    """Of some numbers of channels, PyTorch's own in bfloat16 writes outside of its memory on a CPU."""
    found = [m for m in method.network(3).modules() if isinstance(m, nn.Conv2d) and max(m.dilation) > 1]
    assert found and {type(m) for m in found} <= {DilatedConv2d, EachAlone}


def test_the_published_head_is_fitted_in_bfloat16():
    method = LGBPN(head=24, width=32, blocks=1, transformers=1, steps=3, side=40)
    answer = b2g.denoise(np.random.RandomState(0).rand(40, 40, 3).astype(np.float32), method, device="cpu",
                         precision="bfloat16", progress=False)  # fmt: skip
    assert np.isfinite(answer.image).all() and all(np.isfinite(entry["loss"]) for entry in answer.history)
