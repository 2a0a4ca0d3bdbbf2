"""Random crops: against plain slicing, in law, in their refusals;
and the objective that is fitted to them."""

import numpy as np
import pytest
import torch
from torch import nn

from b2g.crops import SYMMETRIES, CropObjective, Crops
from b2g.errors import B2GError
from b2g.fit import Schedule, fit


def make(*sizes, channels=3, seed=0):
    """Pictures whose every pixel says where it is: picture, row, column."""
    pictures = []
    for index, (height, width) in enumerate(sizes):
        rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        pictures.append(torch.stack((torch.full_like(rows, index), rows, columns))[None, :channels].float())
    return pictures


def drawer(seed=0):
    return torch.Generator().manual_seed(seed)


def symmetries(square):
    """The eight of a square ``(C, s, s)`` array."""
    for turned in (square, square.transpose(0, 2, 1)):
        for mirrored in (turned, turned[:, :, ::-1]):
            yield from (mirrored, mirrored[:, ::-1])


def test_every_crop_is_a_window_of_one_picture_in_one_of_its_orientations():
    pictures = make((9, 7), (6, 11), (7, 7))
    crops, seen = Crops(pictures, 4, 5, drawer()), set()
    for _ in range(60):
        for crop in crops.draw().noisy.numpy():
            which, top, left = int(crop[0].min()), int(crop[1].min()), int(crop[2].min())
            window = pictures[which].numpy()[0, :, top : top + 4, left : left + 4]
            found = [k for k, one in enumerate(symmetries(window)) if np.array_equal(one, crop)]
            assert len(found) == 1
            seen.add((which, top, left, found[0]))
    assert {one[3] for one in seen} == set(range(8)) and {one[0] for one in seen} == {0, 1, 2}
    assert {one[1] for one in seen if one[0] == 0} == set(range(6))  # every row, the first and the last too
    assert {one[2] for one in seen if one[0] == 1} == set(range(8))


@pytest.mark.parametrize("kind, count", SYMMETRIES.items())
def test_the_symmetries_are_those_asked_for(kind, count):
    crops = Crops(make((4, 4)), 4, 64, drawer(), symmetries=kind)
    assert len({crop.numpy().tobytes() for crop in crops.draw().noisy}) == count


def test_every_picture_is_drawn_equally_often_whatever_its_size():
    crops = Crops(make((4, 40), (4, 4)), 4, 4000, drawer())
    large = float((crops.draw().noisy[:, 0, 0, 0] == 0).float().mean())
    assert abs(large - 0.5) < 4 * (0.25 / 4000) ** 0.5


def test_noisy_clean_and_second_are_cut_alike():
    noisy = make((9, 7), (8, 8))
    clean, other = [p + 100 for p in noisy], [p + 1000 for p in noisy]
    drawn = Crops(noisy, 4, 6, drawer(), clean=clean, other=other).draw()
    assert torch.equal(drawn.clean, drawn.noisy + 100) and torch.equal(drawn.other, drawn.noisy + 1000)


def test_fresh_noise_is_made_anew_of_clean_crops_in_every_draw():
    clean = make((9, 7))
    again = lambda picture, generator: picture + torch.rand(picture.shape, generator=generator)  # noqa: E731
    crops = Crops(None, 4, 6, drawer(), clean=clean, again=again, pairs=True)
    first, second = crops.draw(), crops.draw()
    gaps = [d - drawn.clean for drawn in (first, second) for d in (drawn.noisy, drawn.other)]
    assert all(0 <= float(gap.min()) and float(gap.max()) < 1.001 for gap in gaps)
    assert all(not torch.equal(one, two) for k, one in enumerate(gaps) for two in gaps[:k])


def test_bytes_serve_as_pictures():
    picture = torch.arange(48, dtype=torch.uint8).reshape(1, 3, 4, 4)
    drawn = Crops([picture], 4, 1, drawer(), symmetries="none").draw().noisy
    assert drawn.dtype == torch.float32 and torch.allclose(drawn, picture.float() / 255)


@pytest.mark.parametrize("sizes, side, expected", [
    (((17, 30),), 64, 16), (((40, 40), (18, 99)), 24, 18), (((9, 9),), 9, 9),
])  # fmt: skip
def test_a_small_picture_makes_the_windows_smaller(sizes, side, expected):
    drawn = Crops(make(*sizes), side, 2, drawer()).draw().noisy
    assert drawn.shape == (2, 3, expected, expected) and drawn.is_contiguous(memory_format=torch.channels_last)


def test_the_same_seed_draws_the_same_and_the_global_stream_is_left_alone():
    before = torch.random.get_rng_state()
    one, two, three = (Crops(make((30, 30)), 8, 4, drawer(seed)).draw().noisy for seed in (1, 1, 2))
    assert torch.equal(one, two) and not torch.equal(one, three)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("change, sentence", [
    (dict(side=1), "side at least 2"), (dict(batch=0), "batch at least 1"),
    (dict(symmetries="some"), "symmetries must be one of"), (dict(noisy=None), "need noisy pictures, or clean ones"),
    (dict(noisy=[]), "need noisy pictures"), (dict(again=lambda c, g: c), "need noisy pictures, or clean"),
    (dict(clean=make((8, 9))), "alike in number and sizes"), (dict(other=make((8, 8), (8, 8))), "alike in number"),
])  # fmt: skip
def test_what_cannot_be_cut_is_refused_in_one_sentence(change, sentence):
    with pytest.raises(B2GError, match=sentence) as raised:
        Crops(**(dict(noisy=make((8, 8)), side=4, batch=2, generator=drawer()) | change))
    assert "\n" not in str(raised.value)


# ---- the objective ----


def scale_of(values):
    """A network of one weight."""
    network = nn.Conv2d(1, 1, 1, bias=False)
    nn.init.constant_(network.weight, values)
    return network


def objective(steps=150, seed=0):
    pictures = [torch.rand(1, 1, 12, 12, generator=drawer(5))]
    shares = []

    def loss_of(run, drawn, share):
        shares.append(float(share))
        jitter = torch.rand((), generator=one.generators[1])
        return (run(drawn.noisy) - 2 * drawn.noisy).square().mean() * (1 + jitter)

    crops = Crops(pictures, 8, 2, drawer(seed))
    one = CropObjective(scale_of(0.0), crops, loss_of, drawer(seed + 1), "float32", steps=steps)
    one.shares = shares
    return one


def test_the_engine_fits_a_network_to_crops():
    one = objective()
    result = fit(one, Schedule(150, 0.1, "cosine"))
    assert abs(float(one.network.weight.detach()) - 2) < 0.1 and result.history[-1]["loss"] < 0.01
    assert one.shares == pytest.approx([k / 150 for k in range(150)])
    assert one.run(torch.zeros(1, 1, 4, 4)).dtype == torch.float32


def test_a_state_brings_back_all_chance():
    one = objective()
    one.loss(0)
    kept = one.state()
    first, second = (float(one.loss(k)[0].detach()) for k in (1, 2))
    one.load_state(kept)
    assert int(one.done) == 1
    assert [float(one.loss(k)[0].detach()) for k in (1, 2)] == [first, second]


def test_one_generator_may_serve_both():
    crops = Crops(make((8, 8)), 4, 2, drawer())
    one = CropObjective(scale_of(1.0), crops, lambda *_: None, crops.generator, "float32", steps=1)
    assert one.generators == [crops.generator] and not one.capturable
