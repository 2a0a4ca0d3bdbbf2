"""Ablations against loops over made-up runs: pairs, fair means, the lead's interval,
and what has not been run."""

import numpy as np
import pytest
from scipy import stats

from b2g.methods import METHODS
from b2g.report import ablations
from b2g.report.ablations import masks, study, threshold_grid, values
from b2g.runs.record import Record
from b2g.runs.spec import specify

CROPS = [f"set9/{name}@64" for name in ("Baboon", "F16", "House", "Lena", "kodim01")]
OMEGAS = (0.0, 0.4, 0.8)
LETTER = dict(steps=400, learning_rate=4e-3, width=24, head=(32, 16), answer="average")


def run(crop, psnr, profile="faithful", level=25.0, state="done", reason="", **changes):
    base = dict(steps=400) if profile == "faithful" else LETTER
    method = METHODS["b2g"].profile(profile, **base | changes)
    return Record.of(specify(crop, method, "gaussian", level), state=state, reason=reason,
                     psnr=psnr if state == "done" else None, ssim_2d=None if psnr is None else psnr / 40)


def omega_runs(gains, seed=0, crops=CROPS):
    rng = np.random.default_rng(seed)
    table = {crop: 25 + rng.normal(0, 3) + np.asarray(gains) + rng.normal(0, 0.01, len(gains)) for crop in crops}
    return table, [run(crop, row[i], omega=omega) for crop, row in table.items() for i, omega in enumerate(OMEGAS)]


def test_gains_are_paired_with_the_papers_choice():
    table, runs = omega_runs([0.0, 0.5, 0.2])
    made = study(runs, "faithful", values("omega", OMEGAS), "0.8", 25)
    for i, point in enumerate(made.points):
        expected = [table[crop][i] - table[crop][2] for crop in sorted(table)]
        np.testing.assert_allclose(point.gains, expected, rtol=1e-9)
        assert point.crops == tuple(sorted(table))
    assert made.n == (5, 5) and not made.failed


def test_the_best_choice_leads_by_an_interval_for_all_comparisons_at_once():
    table, runs = omega_runs([0.0, 0.5, 0.2])
    first, other, lead = study(runs, "faithful", values("omega", OMEGAS), "0.8", 25).lead()
    gains = np.array([row[1] - row[2] for row in table.values()])
    peer = stats.t.interval(1 - 0.05 / 2, 4, gains.mean(), stats.sem(gains))  # five crops: Student's
    assert (first, other, lead.sign) == ("0.4", "0.8", 1) and (lead.low, lead.high) == pytest.approx(peer)
    expected = (1.959964 + 0.841621) ** 2 * gains.var(ddof=1) / 0.005**2  # the textbook's n for 80 % power
    made = study(runs, "faithful", values("omega", OMEGAS), "0.8", 25)
    assert made.needed(0.005) == max(2, int(np.ceil(expected))) and made.needed(0.005) > 2
    # Where the paper's choice is best, its lead is over the runner-up.
    first, other, lead = study(runs, "faithful", values("omega", OMEGAS), "0.4", 25).lead()
    assert (first, other) == ("0.4", "0.8") and lead.mean == pytest.approx(gains.mean())


def test_a_lead_within_the_noise_is_not_told_apart():
    rng = np.random.default_rng(4)
    runs = [run(crop, 25 + rng.normal(), omega=omega) for crop in CROPS for omega in OMEGAS]
    made = study(runs, "faithful", values("omega", OMEGAS), "0.8", 25)
    assert made.lead()[2].sign == 0 and "not told apart" in made.finding and "n = 5" in made.finding


def test_means_are_compared_on_shared_crops_alone():
    table, runs = omega_runs([0.0, 0.5, 0.2])
    # 0.4 was run on two crops only, and the rest must not enter the comparison.
    runs = [r for r in runs if r.settings["omega"] != 0.4 or r.picture in CROPS[:2]]
    made = study(runs, "faithful", values("omega", OMEGAS), "0.8", 25)
    assert {len(point.crops) for point in made.fair()} == {2} and made.n == (2, 5)
    without = study([r for r in runs if r.settings["omega"] != 0.4], "faithful", values("omega", OMEGAS), "0.8", 25)
    assert without.finding.endswith("1 of 3 choices not run") and len(without.fair()) == 2


def test_nothing_stored_is_said_and_drawn():
    from b2g.report import plots

    made = study([], "letter", masks("letter"), "DM+D", 50)
    assert made.finding == "nothing to compare yet" and made.n == (0, 0) and made.needed(0.05) is None
    with plots() as (_, axes):
        ablations.draw(axes, made)
        assert [text.get_text() for text in axes.get_xticklabels()] == ["DM+D", "DM", "BM+D", "BM", "UM+D", "UM"]


def test_a_figure_shows_each_mean_and_each_crop():
    from b2g.report import plots

    _, runs = omega_runs([0.0, 0.5, 0.2])
    made = study(runs, "faithful", values("omega", OMEGAS), "0.8", 25)
    with plots() as (_, axes):
        ablations.draw(axes, made)
        lines = [line.get_ydata() for line in axes.lines if len(line.get_xdata()) == 3]
        np.testing.assert_allclose(lines, np.transpose([point.gains for point in made.points]))
        means = [container.lines[0].get_ydata()[0] for container in axes.containers]
    np.testing.assert_allclose(means, [made.points[i].gains.mean() for i in (0, 1)])


def test_failures_are_named():
    runs = [run(CROPS[0], 25.0), run(CROPS[0], 24.0, omega=0.4, state="diverged", reason="NaN")]
    made = study(runs, "faithful", values("omega", OMEGAS), "0.8", 25)
    assert made.failed == (f"0.4, {CROPS[0]}: diverged, NaN",)


def test_readings_levels_and_crops_do_not_mix():
    same = run(CROPS[0], 25.0)
    others = [run(CROPS[0], 25.0, level=50.0), run("set9/Baboon@128", 25.0), run(CROPS[0], 25.0, "paper"),
              run(CROPS[0], 25.0, mask="bernoulli")]
    method = METHODS["b2g"].profile("faithful", steps=400)
    assert ablations.select([*others, same], method, 25) == [same]


@pytest.mark.parametrize("reading, dual", [("faithful", "gradient"), ("letter", "distance")])
def test_the_six_masks_are_those_of_the_figure(reading, dual):
    profile = "faithful" if reading == "faithful" else "paper"
    runs = [run(CROPS[0], 20.0 + i, profile, mask=mask, standout=standout)
            for i, (mask, standout) in enumerate((m, s) for m in (dual, "bernoulli", "uniform") for s in ("half", "none"))]
    made = study(runs, reading, masks(reading), "DM+D", 25)
    assert {point.label: point.gains[0] for point in made.points} == {
        "DM+D": 0.0, "DM": 1.0, "BM+D": 2.0, "BM": 3.0, "UM+D": 4.0, "UM": 5.0}


def test_thresholds_make_a_grid_on_the_crops_that_all_share():
    rng, expected = np.random.default_rng(1), np.full((7, 7), np.nan)
    runs, scores = [], {}
    for i, row in enumerate(ablations.THRESHOLDS):
        for j, column in enumerate(ablations.THRESHOLDS[:6]):  # the last column was not run
            for crop in CROPS[:2]:
                scores[i, j, crop] = rng.normal(25, 1)
                runs.append(run(crop, scores[i, j, crop], mask="distance", standout_threshold=row, detail_threshold=column))
    for i in range(7):
        for j in range(6):
            expected[i, j] = np.mean([scores[i, j, crop] - scores[1, 2, crop] for crop in CROPS[:2]])
    more = run(CROPS[2], 25.0, mask="distance", standout_threshold=25.0, detail_threshold=40.0)  # shared by none
    gains, crops = threshold_grid([*runs, more])
    np.testing.assert_allclose(gains, expected)
    assert crops == CROPS[:2]
    np.testing.assert_allclose(threshold_grid(runs, "ssim_2d")[0], expected / 40)
    gains, crops = threshold_grid([])
    assert np.isnan(gains).all() and crops == []
