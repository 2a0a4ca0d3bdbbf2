"""Paired differences against a loop, intervals against SciPy, a closed form and simulated coverage."""

import math
from statistics import NormalDist
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from b2g.errors import B2GError
from b2g.report import statistics
from b2g.report.statistics import Interval, bootstrap, expanded_level, paired, per_picture, pictures_needed, power


def run(picture="set9/F16", psnr=30.0, **changes):
    values = dict(picture=picture, noise="gaussian", level=25.0, repeat=0, protocol="unclipped", state="done",
                  psnr=psnr, ssim_2d=None) | changes  # fmt: skip
    key = tuple(values[name] for name in ("picture", "noise", "level", "repeat", "protocol"))
    return SimpleNamespace(key=key, **values)


# --- pairs --------------------------------------------------------------------------------------------

def test_pairs_share_picture_noise_level_repeat_and_protocol():
    rng = np.random.default_rng(0)

    def side():
        return [run(f"set9/{p}", rng.normal(), level=level, repeat=r, protocol=protocol, noise=noise)
                for p in "cab" for level in (50.0, 25.0) for r in (0, 1) for protocol in ("unclipped", "clipped")
                for noise in ("gaussian", "poisson")]

    first, second = side(), side()
    del first[3], second[17], second[5]
    expected = {}
    for a in first:
        for b in second:
            if all(getattr(a, k) == getattr(b, k) for k in ("picture", "noise", "level", "repeat", "protocol")):
                expected.setdefault((a.picture, a.noise, a.level, a.protocol), []).append(a.psnr - b.psnr)
    keys, differences = paired(reversed(first), second)
    assert keys == sorted(expected) and differences.dtype == np.float64
    np.testing.assert_allclose(differences, [np.mean(expected[key]) for key in keys], rtol=1e-12)


def test_repeats_are_averaged_so_that_a_picture_counts_once():
    first = [run(psnr=value, repeat=r) for r, value in enumerate((30.0, 31.0, 35.0))]
    second = [run(psnr=value, repeat=r) for r, value in enumerate((29.0, 29.0, 29.0))]
    assert paired(first, second)[1].tolist() == [3.0]


def test_only_finished_runs_with_the_metric_count():
    first = [run("set9/a"), run("set9/b", state="diverged"), run("set9/c", psnr=None)]
    second = [run("set9/a", 29.5), run("set9/b"), run("set9/c")]
    keys, differences = paired(first, second)
    assert [key[0] for key in keys] == ["set9/a"] and differences.tolist() == [0.5]
    assert paired(first, second, "ssim_2d")[0] == []
    with pytest.raises(B2GError, match="no metric 'mse'"):
        paired(first, second, "mse")


def test_levels_are_pooled_within_a_picture():
    keys = [("a", "gaussian", 25.0, "unclipped"), ("a", "gaussian", 50.0, "unclipped"),
            ("b", "gaussian", 25.0, "unclipped")]
    assert per_picture(keys, [1.0, 2.0, 5.0]).tolist() == [1.5, 5.0]


def test_means_of_pictures():
    rows = [run("b", 20.0), run("a", 10.0), run("a", 13.0, repeat=1), run("a", 99.0, state="killed")]
    assert statistics.picture_means(rows) == {"a": 11.5, "b": 20.0}


# --- intervals ----------------------------------------------------------------------------------------

@pytest.mark.parametrize("n", [6, 9, 24])
def test_the_interval_is_the_percentiles_of_resampled_means(n):
    values = np.random.default_rng(n).gamma(2.0, size=n)
    found = bootstrap(values, draws=20_000, seed=1)
    rng, means = np.random.default_rng(7), []
    for _ in range(20_000):  # the oracle: a loop with a stream of its own
        means.append(np.mean([values[rng.integers(n)] for _ in range(n)]))
    level = expanded_level(n)
    for bound, share in ((found.low, (1 - level) / 2), (found.high, (1 + level) / 2)):
        below = np.mean(np.asarray(means) <= bound)  # binomial about its share, on both sides: a z-test
        assert abs(below - share) < 4 * math.sqrt(2 * share * (1 - share) / 20_000) + 1e-9
    assert found.mean == pytest.approx(values.mean(), rel=1e-12) and found.n == n


def test_scipys_own_interval_at_the_expanded_level():
    values = np.random.default_rng(3).normal(size=12)
    peer = stats.bootstrap((values,), np.mean, n_resamples=10_000, method="percentile",
                           confidence_level=expanded_level(12), random_state=0).confidence_interval
    found = bootstrap(values)
    assert (found.low, found.high) == pytest.approx(tuple(peer), rel=1e-12)
    assert bootstrap(values) == found and bootstrap(values, seed=1) != found


def test_for_normal_values_the_interval_is_nearly_students():
    values = stats.norm.ppf((np.arange(9) + 0.5) / 9)
    reach = stats.t.ppf(0.975, 8) * values.std(ddof=1) / 3
    found = bootstrap(values, draws=50_000)
    assert (found.low, found.high) == pytest.approx((-reach, reach), rel=0.08)
    assert 1.96 * values.std() / 3 < 0.85 * reach  # plain percentiles would fail


def coverage(n, level_of, trials=1500, seed=0):
    rng, hits = np.random.default_rng(seed), 0
    for _ in range(trials):
        values = rng.normal(size=n)
        means = values[rng.integers(n, size=(400, n))].mean(1)
        low, high = np.quantile(means, [(1 - level_of(n)) / 2, (1 + level_of(n)) / 2])
        hits += low <= 0.0 <= high
    return hits / trials


def test_the_interval_of_nine_pictures_covers_as_often_as_it_says_and_a_plain_one_does_not():
    trials = 600
    rng = np.random.default_rng(11)
    found = [bootstrap(rng.normal(0.3, 1.0, 9), draws=800, seed=k) for k in range(trials)]
    share = np.mean([interval.low <= 0.3 <= interval.high for interval in found])
    z = (share - 0.95) / math.sqrt(0.95 * 0.05 / trials)
    assert abs(z) < 3.3
    # Power: the plain percentiles, whose coverage is known in closed form (0.898),
    # would have been told apart.
    plain = 1 - 2 * stats.t.sf(1.96 * math.sqrt(8 / 9), 8)
    share = coverage(9, lambda n: 0.95)
    assert abs(share - plain) / math.sqrt(plain * (1 - plain) / 1500) < 3.3
    assert (share - 0.95) / math.sqrt(0.95 * 0.05 / 600) < -3.3


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_too_few_values_to_resample_have_students_interval(n):
    values = np.random.default_rng(n).normal(size=n)
    peer = stats.t.interval(0.95, n - 1, values.mean(), stats.sem(values))
    found = bootstrap(values)
    assert (found.low, found.high) == pytest.approx(peer, rel=1e-9)
    assert bootstrap(values, seed=1) == found  # nothing was drawn


def test_one_value_has_no_interval():
    assert bootstrap([]) == Interval(None, None, None, 0)
    assert bootstrap([2.0]) == Interval(2.0, None, None, 1) and bootstrap([2.0]).sign is None
    assert bootstrap([2.0] * 5) == Interval(2.0, 2.0, 2.0, 5)
    with pytest.raises(B2GError, match="finite"):
        bootstrap([1.0, math.nan])


def test_the_sign_is_that_of_an_interval_without_zero():
    assert [Interval(0.0, *bounds, 9).sign for bounds in ((0.1, 0.2), (-0.2, -0.1), (-0.1, 0.1))] == [1, -1, 0]


# --- power --------------------------------------------------------------------------------------------

@pytest.mark.parametrize("effect, spread, n", [(0.1, 0.3, 9), (-0.2, 0.3, 24), (0.05, 0.5, 100)])
def test_power_is_how_often_a_z_test_finds_the_effect(effect, spread, n):
    rng, trials = np.random.default_rng(n), 20_000
    z = rng.normal(effect, spread / math.sqrt(n), trials) / (spread / math.sqrt(n))
    share, expected = np.mean(np.abs(z) > 1.959964), power(effect, spread, n)
    assert abs(share - expected) / math.sqrt(expected * (1 - expected) / trials) < 4


@pytest.mark.parametrize("effect, spread", [(0.1, 0.3), (0.05, 0.12), (-0.3, 0.31)])
def test_so_many_pictures_are_enough_and_one_fewer_is_not(effect, spread):
    n = pictures_needed(effect, spread)
    assert power(effect, spread, n) >= 0.8 > power(effect, spread, n - 1)


def test_the_textbook_case():
    normal = NormalDist()  # one standard deviation at 80 %: (1.960 + 0.842)^2 = 7.85
    assert pictures_needed(1.0, 1.0) == math.ceil((normal.inv_cdf(0.975) + normal.inv_cdf(0.8)) ** 2) == 8
    assert pictures_needed(100.0, 1.0) == 2 and pictures_needed(0.1, 0.3) == 71


def test_what_has_no_power_is_refused():
    for wrong in (0.0, -1.0, math.nan):
        with pytest.raises(B2GError, match="spread"):
            power(0.1, wrong, 9)
    with pytest.raises(B2GError, match="difference of zero"):
        pictures_needed(0.0, 0.3)
