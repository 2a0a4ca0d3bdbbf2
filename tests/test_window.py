"""Windows: how often each pixel is seen, and the canvas against a loop over pixels."""

import numpy as np
import pytest
import torch
from oracles import assert_rate

from b2g.errors import B2GError
from b2g.fit import RunningAverage
from b2g.window import MARGIN, Canvas, Part, cut, draw_window


def covered(length, side):
    """How often each place of a line is seen: a loop over all middles, the square moved inside."""
    seen = np.zeros(length)
    for middle in range(length):
        first = min(max(middle - side // 2, 0), length - side)
        seen[first : first + side] += 1
    return seen / length


def test_every_pixel_is_seen_as_often_as_the_closed_form_says(generator):
    draws, side, (height, width) = 3000, 20, (31, 50)
    seen, corners = np.zeros((height, width)), 0
    for _ in range(draws):
        rows, columns = draw_window((height, width), side, generator)
        assert torch.equal(rows, torch.arange(side) + rows[0]) and torch.equal(columns, torch.arange(side) + columns[0])
        assert rows[0] >= 0 and rows[-1] < height and columns[0] >= 0 and columns[-1] < width
        seen[int(rows[0]) : int(rows[0]) + side, int(columns[0]) : int(columns[0]) + side] += 1
        corners += int(rows[0] == 0 and columns[0] == 0)
    down, across = covered(height, side), covered(width, side)
    expected = np.outer(down, across)
    deviation = (seen - draws * expected) / np.sqrt(draws * expected * (1 - expected) + 1e-9)
    assert np.abs(deviation).max() < 5.5  # 1550 pixels, each a binomial number
    # Told from squares whose first pixel is drawn evenly, and from one draw that serves both sides.
    assert_rate(corners, draws, down[0] * across[0], [1 / 31 / 12, down[0], across[0]])


@pytest.mark.parametrize("side", [0, 64, 90])
def test_a_window_as_large_as_the_picture_is_the_picture_and_draws_nothing(side, generator):
    before = generator.get_state()
    rows, columns = draw_window((64, 40), side, generator)
    assert torch.equal(rows, torch.arange(64)) and torch.equal(columns, torch.arange(40))
    assert torch.equal(generator.get_state(), before)


def test_a_window_may_be_narrower_in_one_direction_only(generator):
    rows, columns = draw_window((40, 100), 64, generator)
    assert len(rows) == 40 and len(columns) == 64


@pytest.mark.parametrize("rows, columns", [((0, 20), (0, 30)), ((3, 15), (11, 30)), ((0, 20), (7, 19))])
def test_cut_is_the_slice(rows, columns, generator):
    picture = torch.rand(2, 3, 20, 30, generator=generator)
    part = cut(picture, torch.arange(*rows), torch.arange(*columns))
    assert torch.equal(part, picture[:, :, slice(*rows), slice(*columns)])
    assert part.is_contiguous(memory_format=torch.channels_last)


def loop_canvas(noisy, parts, decay):
    """Every pixel's own mean of the answers that fell on it away from inner borders;
    later ones count more."""
    channels, height, width = noisy.shape
    out = noisy.copy()
    for y in range(height):
        for x in range(width):
            fell = []
            for picture, top, left in parts:
                h, w = picture.shape[1:]
                i, j = y - top, x - left
                inside = 0 <= i < h and 0 <= j < w
                clear = (top == 0 or i >= MARGIN) and (top + h == height or i <= h - 1 - MARGIN)
                clear = clear and (left == 0 or j >= MARGIN) and (left + w == width or j <= w - 1 - MARGIN)
                if inside and clear:
                    fell.append(picture[:, i, j])
            if fell:
                weights = np.array([decay**age for age in range(len(fell))][::-1])
                out[:, y, x] = (weights[:, None] * np.array(fell)).sum(0) / weights.sum()
    return out


@pytest.mark.parametrize("decay", [0.0, 0.7, 0.99])
def test_the_canvas_is_each_pixels_own_average(decay, generator):
    height, width, side = 44, 60, 26
    noisy = torch.rand(1, 2, height, width, generator=generator)
    canvas, parts = Canvas(noisy, decay), []
    assert torch.equal(canvas.value, noisy)
    for _ in range(7):
        rows, columns = draw_window((height, width), side, generator)
        picture = torch.rand(1, 2, side, side, generator=generator)
        canvas.add(Part(picture, rows, columns))
        parts.append((picture[0].double().numpy(), int(rows[0]), int(columns[0])))
    expected = loop_canvas(noisy[0].double().numpy(), parts, decay)
    bare = np.all(expected == noisy[0].double().numpy(), axis=0)
    assert 0.02 < bare.mean() < 0.9  # some pixels were seen, and some were not
    np.testing.assert_allclose(canvas.value[0].numpy(), expected, atol=3e-6)
    assert torch.equal(canvas.noisy, noisy)


def test_equal_answers_have_no_bias_and_other_channels_no_share(generator):
    canvas = Canvas(torch.rand(1, 3, 70, 40, generator=generator), 0.9)
    answer = torch.tensor([0.2, 0.5, 0.8])[None, :, None, None].expand(1, 3, 32, 32)
    for _ in range(60):
        canvas.add(Part(answer, *draw_window((70, 40), 32, generator)))
    assert torch.allclose(canvas.value, answer[..., :1, :1].expand(1, 3, 70, 40), atol=1e-6)


def test_of_whole_pictures_it_is_the_engines_running_average(generator):
    canvas, plain = Canvas(torch.zeros(1, 3, 17, 20), 0.8), RunningAverage(0.8)
    whole = torch.arange(17), torch.arange(20)
    for _ in range(5):
        picture = torch.rand(1, 3, 17, 20, generator=generator)
        plain.add(picture)
        canvas.blend(Part(picture, *whole))
        canvas.count()
    assert torch.allclose(canvas.value, plain.value, atol=1e-6)


@pytest.mark.parametrize("decay", [1.0, -0.1, float("nan")])
def test_an_impossible_decay_is_refused(decay):
    with pytest.raises(B2GError, match=r"decay must lie in \[0, 1\), not"):
        Canvas(torch.zeros(1, 1, 16, 16), decay)
