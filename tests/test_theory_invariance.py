"""Assumption 1, Definition 1 and the denoisers of the examples."""

import math

import oracles
import pytest
import torch
from theory_scenes import scene

from b2g import masks
from b2g.errors import B2GError
from b2g.theory import (
    coverage,
    dependence,
    expected_coverage,
    gaussian_average,
    identity_map,
    sum_over_masks,
)


def test_gaussian_average_equals_the_slow_one(generator):
    image = torch.rand((2, 1, 6, 5), generator=generator, dtype=torch.float64)
    mask = (torch.rand(image.shape, generator=generator) > 0.3).double()
    fast, width = gaussian_average(0.8)(image, mask), 0.8
    radius = round(3 * width)
    for b in range(2):
        for i in range(6):
            for j in range(5):
                total = weight = 0.0
                for u in range(max(0, i - radius), min(6, i + radius + 1)):
                    for v in range(max(0, j - radius), min(5, j + radius + 1)):
                        square = (u - i) ** 2 + (v - j) ** 2
                        w = math.exp(-square / (2 * width**2)) * float(mask[b, 0, u, v])
                        total, weight = total + w * float(image[b, 0, u, v]), weight + w
                assert float(fast[b, 0, i, j]) == pytest.approx(total / weight, rel=1e-10)
    with pytest.raises(B2GError, match="width"):
        gaussian_average(0.0)(image, mask)


def test_assumption_1_and_condition_2_are_opposites(generator):
    image = torch.rand((1, 1, 5, 5), generator=generator, dtype=torch.float64)
    subset = (torch.arange(25).reshape(1, 1, 5, 5) % 3 == 0).double()
    average, mask = gaussian_average(0.8), 1 - subset
    blind = dependence(lambda y: average(y * mask, mask), image, subset)
    assert blind.assumption_1 and not blind.condition_2
    sighted = dependence(lambda y: average(y, torch.ones_like(y)), image, subset)
    assert not sighted.assumption_1 and sighted.inside > 0.05
    pointwise = dependence(lambda y: y**2, image, subset)
    assert pointwise.condition_2 and not pointwise.assumption_1
    assert pointwise.inside == pytest.approx(float((2 * image[subset == 1]).max()))
    constant = dependence(torch.ones_like, image, subset)
    assert constant.assumption_1 and constant.condition_2
    with pytest.raises(B2GError, match="one picture"):
        dependence(torch.ones_like, image.expand(2, 1, 5, 5), subset)


def test_masks_cover_the_picture_but_their_answers_do_not_add_up(generator):
    drawn = masks.bernoulli_mask((3, 1, 100, 100), 0.25, generator=generator)
    oracles.assert_rate(coverage(drawn) * 1e4, 1e4, expected_coverage(0.25, 3), unlike=[0.75, 1 - 1e-6])
    image = scene(100)
    total = sum_over_masks(identity_map, image, drawn.double())
    assert float(total.mean() / image.mean()) == pytest.approx(2.25, abs=0.05)  # three times 3/4
