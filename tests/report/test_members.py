"""The error at every weight from three records, against pictures whose errors are known."""

import numpy as np
import pytest

from b2g.methods import METHODS
from b2g.report.markup import table
from b2g.report.members import HEADER, Mixture, mixtures, rows
from b2g.runs.record import Record
from b2g.runs.spec import specify

CONSENSUS = METHODS["consensus"].profile("halves")
WEIGHED = METHODS["consensus"].profile("fast")
NETWORK, PATCHES = CONSENSUS.members()
PICTURE = "bsds500_train/106005@128"


def record(picture, method, square, level=25.0, state="done", **place):
    psnr = None if square is None else -10 * np.log10(square)
    return Record.of(specify(picture, method, level=level, **place), psnr=psnr, state=state)


@pytest.fixture(scope="module")
def errors():
    """Two members' errors on one picture, correlated and of unequal size."""
    rng = np.random.default_rng(0)
    common = rng.normal(0, 0.02, 40_000)
    return common + rng.normal(0, 0.025, 40_000), 1.1 * common + rng.normal(0, 0.015, 40_000)


def three(f, g, picture=PICTURE, level=25.0, **place):
    mixed = CONSENSUS.weight * f + (1 - CONSENSUS.weight) * g
    return [record(picture, method, np.mean(error**2), level, **place)
            for method, error in ((NETWORK, f), (PATCHES, g), (CONSENSUS, mixed))]


def test_the_error_at_every_weight_is_that_of_the_mixed_pictures(errors):
    f, g = errors
    [found] = mixtures(three(f, g))
    for weight in (0.0, 0.2, 0.5, 0.9, 1.0):
        assert found.error(weight) == pytest.approx(np.mean((weight * f + (1 - weight) * g) ** 2), rel=1e-9)
    weights = np.linspace(0, 1, 1001)
    grid = weights[np.argmin([np.mean((w * f + (1 - w) * g) ** 2) for w in weights])]
    assert found.best == pytest.approx(grid, abs=1e-3) and 0.05 < found.best < 0.45
    assert found.gain(found.best) == pytest.approx(10 * np.log10(found.error(0.5) / found.error(found.best)))
    assert found.correlation == pytest.approx(np.mean(f * g) / np.sqrt(np.mean(f**2) * np.mean(g**2)), rel=1e-9)
    assert found.gain(found.best) >= max(found.gain(weight) for weight in weights) - 1e-12


def test_the_weight_that_was_used_may_be_any():
    found = Mixture(PICTURE, 25.0, network=4.0, patches=1.0, mixed=0.09 * 4 + 0.49 + 0.42 * 0.5, used=0.3)
    assert found.product == pytest.approx(0.5) and found.error(0.3) == pytest.approx(found.mixed)


def test_a_worse_member_of_the_same_errors_gets_no_weight():
    f = np.random.default_rng(1).normal(0, 0.02, 1000)
    [worse] = mixtures(three(2 * f, f))
    [better] = mixtures(three(f, 2 * f))
    [same] = mixtures(three(f, f))
    assert (worse.best, better.best) == (0.0, 1.0) and same.gain(same.best) == pytest.approx(0, abs=1e-9)


def test_only_runs_of_one_noisy_picture_are_put_together(errors):
    network, patches, mixed = three(*errors)
    other = three(*errors, repeat=1)[2]
    assert mixtures([network, patches, other]) == [] and len(mixtures([network, patches, mixed, other])) == 1
    assert mixtures([network, mixed]) == [] and mixtures([]) == []
    failed = record(PICTURE, PATCHES, None, state="diverged")
    assert mixtures([network, failed, mixed]) == []


def test_what_held_pixels_told_stands_beside_what_is_best(errors):
    f, g = errors
    weighed = record(PICTURE, WEIGHED, np.mean((0.3 * f + 0.7 * g) ** 2))
    [found] = mixtures([*three(f, g), weighed])
    assert found.gain_of_held == pytest.approx(found.gain(0.3)) and 0 < found.gain_of_held < found.gain(found.best)
    assert found.over_members(found.held) == pytest.approx(found.over_members(found.mixed) + found.gain_of_held)
    [alone] = mixtures(three(f, g))
    assert alone.held is None and np.isnan(alone.gain_of_held)
    elsewhere = record(PICTURE, WEIGHED, 1e-4, level=50.0)
    assert mixtures([*three(f, g), elsewhere])[0].held is None


def test_a_weighed_consensus_of_other_members_is_no_fourth(errors, monkeypatch):
    monkeypatch.setitem(METHODS["consensus"].profiles, "fast", dict(network="best", weighing="held"))
    other = METHODS["consensus"].profile("fast")
    assert mixtures([*three(*errors), record(PICTURE, other, 1e-4)])[0].held is None


def test_the_table(errors):
    f, g = errors
    held = [record(PICTURE, WEIGHED, np.mean((0.3 * f + 0.7 * g) ** 2)),
            record("set9/F16", WEIGHED, np.mean((0.2 * f + 0.8 * g) ** 2), 50.0)]
    some = mixtures([*three(f, g), *three(g, f, "bsds500_train/146074@128"), *three(f, g, "set9/F16", 50.0), *held])
    made = rows(some)
    assert [row[0].replace("\N{NO-BREAK SPACE}", " ") for row in made] == [
        "bsds500_train@128, σ = 25", "set9, σ = 50"]
    assert [row[1] for row in made] == ["2", "1"]
    low, high = sorted(each.best for each in some[:2])
    assert made[0][7] == f"{low:.2f} to {high:.2f}" and made[0][9] is None  # one of two has no weight by held pixels
    assert made[1][9] == f"{some[2].gain(0.2):+.2f}"
    table(HEADER, made, "Members")
