"""The posterior mean: its weight is the one of least true risk, and "local" is a loop over squares."""

import numpy as np
import pytest
import torch

from b2g.errors import B2GError
from b2g.posterior import posterior_mean

SIGMA = 25 / 255


def blind(spread, shape=(1, 3, 160, 160), seed=0):
    """A clean picture, a noisy one, and an estimate whose error is independent of the noise."""
    random = np.random.RandomState(seed)
    clean = random.uniform(0, 1, shape)
    noisy = clean + SIGMA * random.standard_normal(shape)
    return (torch.from_numpy(v) for v in (clean, noisy, clean + spread * random.standard_normal(shape)))


def risk(clean, answer):
    return float((answer - clean).square().mean())


@pytest.mark.parametrize("spread", [0.3 * SIGMA, SIGMA, 2 * SIGMA])
def test_the_weight_is_that_of_least_true_risk(spread):
    clean, noisy, estimate = blind(spread)
    answer = posterior_mean(estimate, noisy, SIGMA)
    weight = float(((answer - estimate) * (noisy - estimate)).sum() / (noisy - estimate).square().sum())
    closed = spread**2 / (spread**2 + SIGMA**2)
    assert weight == pytest.approx(closed, abs=0.015)
    grid = np.linspace(0, 1, 401)
    risks = [risk(clean, estimate + w * (noisy - estimate)) for w in grid]
    assert weight == pytest.approx(grid[np.argmin(risks)], abs=0.02)
    assert risk(clean, answer) == pytest.approx(spread**2 * SIGMA**2 / (spread**2 + SIGMA**2), rel=0.02)
    assert risk(clean, answer) < min(risk(clean, estimate), risk(clean, noisy))


@pytest.mark.parametrize("kind", ["global", "local"])
def test_an_estimate_better_than_the_noise_level_allows_is_left_alone(kind, generator):
    estimate = torch.rand(1, 1, 24, 24, generator=generator)
    noisy = estimate + 0.5 * SIGMA * torch.randn(estimate.shape, generator=generator).clamp(-1.5, 1.5)
    assert torch.equal(posterior_mean(estimate, noisy, SIGMA, kind), estimate)
    assert torch.equal(posterior_mean(estimate, estimate, SIGMA, kind), estimate)


def test_each_picture_of_a_batch_has_its_own_weight(generator):
    estimate = torch.rand(2, 3, 32, 32, generator=generator)
    noisy = estimate + torch.tensor([1.5, 4.0])[:, None, None, None] * SIGMA * torch.randn(
        estimate.shape, generator=generator)  # fmt: skip
    together = posterior_mean(estimate, noisy, SIGMA)
    apart = torch.cat([posterior_mean(e, n, SIGMA) for e, n in zip(estimate.split(1), noisy.split(1))])
    assert torch.allclose(together, apart, atol=1e-7)
    ratio = ((together - estimate) / (noisy - estimate)).flatten(1).median(1).values
    assert ratio[1] - ratio[0] > 0.3


def test_local_is_a_loop_over_squares():
    _, noisy, estimate = blind(SIGMA, (2, 3, 21, 30))
    estimate[..., :9] += 0.2  # an estimate that is worse on one side
    square = ((estimate - noisy) ** 2).mean(1).numpy()
    expected = estimate.numpy().copy()
    for b, y, x in np.ndindex(square.shape):
        around = square[b, max(0, y - 8) : y + 9, max(0, x - 8) : x + 9]
        weight = max(0.0, 1 - SIGMA**2 / around.mean())
        expected[b, :, y, x] += weight * (noisy.numpy() - estimate.numpy())[b, :, y, x]
    np.testing.assert_allclose(posterior_mean(estimate, noisy, SIGMA, "local").numpy(), expected, atol=1e-10)


def test_none_is_none_and_other_kinds_are_refused():
    estimate = torch.zeros(1, 1, 16, 16)
    assert posterior_mean(estimate, estimate + 1, SIGMA, "none") is estimate
    with pytest.raises(B2GError, match="posterior must be one of none, global, local, not 'half'"):
        posterior_mean(estimate, estimate, SIGMA, "half")
