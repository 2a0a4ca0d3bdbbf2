"""Pixel-shuffle downsampling against a loop over pixels; there and back is the identity to the bit."""

import numpy as np
import pytest
import torch

from b2g.errors import B2GError
from b2g.shuffle import from_mosaic, shuffle_down, shuffle_up, to_mosaic

SIZES = [(16, 16), (17, 16), (16, 19), (23, 31)]


def by_loop(picture, stride):
    """Every part, pixel by pixel; beyond the border the picture is reflected about its
    last row and column."""
    batch, channels, height, width = picture.shape
    rows, columns = -(-height // stride), -(-width // stride)
    mirrored = lambda place, size: place if place < size else 2 * (size - 1) - place  # noqa: E731
    parts = np.zeros((batch * stride**2, channels, rows, columns))
    for b, i, j, y, x in np.ndindex(batch, stride, stride, rows, columns):
        where = mirrored(stride * y + i, height), mirrored(stride * x + j, width)
        parts[b * stride**2 + i * stride + j, :, y, x] = picture[b, :, where[0], where[1]]
    return parts


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("stride", [1, 2, 3, 5])
def test_the_parts_are_those_of_a_loop_and_go_back(size, stride, generator):
    picture = torch.rand(2, 3, *size, generator=generator)
    parts = shuffle_down(picture, stride)
    np.testing.assert_array_equal(parts.numpy(), by_loop(picture.numpy(), stride).astype(np.float32))
    assert torch.equal(shuffle_up(parts, stride, *size), picture)


def test_a_picture_alone_is_its_row_of_the_batch(generator):
    pictures = torch.rand(2, 1, 18, 20, generator=generator)
    apart = [shuffle_down(one, 3) for one in pictures.split(1)]
    assert torch.equal(shuffle_down(pictures, 3), torch.cat(apart))


def test_correlated_noise_is_nearly_independent_in_the_parts(generator):
    white = torch.randn(1, 1, 256, 256, generator=generator)
    noise = torch.nn.functional.avg_pool2d(white, 2, 1)  # neighbours share half of their noise

    def correlation(picture):
        left, right = picture[..., :-1].flatten(), picture[..., 1:].flatten()
        return float(torch.corrcoef(torch.stack([left, right]))[0, 1])

    error = 4.5 / 255  # 4.5 standard deviations of a correlation of some 65 000 pairs
    assert abs(correlation(noise) - 0.5) < error and abs(correlation(shuffle_down(noise, 2))) < error


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_a_mosaic_holds_the_parts_as_tiles_and_goes_back(size, stride, generator):
    picture = torch.rand(2, 3, *size, generator=generator)
    mosaic, parts = to_mosaic(picture, stride), shuffle_down(picture, stride)
    height, width = parts.shape[-2:]
    for b, i, j in np.ndindex(2, stride, stride):
        tile = mosaic[b, :, i * height : (i + 1) * height, j * width : (j + 1) * width].numpy()
        tile = tile[:, :: -1 if i % 2 else 1, :: -1 if j % 2 else 1]
        np.testing.assert_array_equal(tile, parts[b * stride**2 + i * stride + j].numpy())
    assert torch.equal(from_mosaic(mosaic, stride, *size), picture)


def test_tiles_meet_in_pixels_that_are_alike():
    """Of a ramp, whose steps are 1 a pixel, a mosaic has no larger step across a seam than within a tile."""
    ramp = torch.arange(24.0).expand(1, 1, 24, 24)
    steps = to_mosaic(ramp, 3).diff(dim=-1).abs()
    assert steps.max() == 3 and set(steps[0, 0, 0, [7, 15]].tolist()) == {1.0}


@pytest.mark.parametrize("stride", [0, -1, 17])
def test_an_impossible_stride_is_refused(stride):
    with pytest.raises(B2GError, match=f"stride must lie between 1 and .* shorter side, not be {stride}"):
        shuffle_down(torch.zeros(1, 1, 16, 30), stride)


def test_parts_that_make_no_picture_are_refused():
    with pytest.raises(B2GError, match="parts of stride 2 come 4 to a picture; 6 do not"):
        shuffle_up(torch.zeros(6, 1, 8, 8), 2, 16, 16)
