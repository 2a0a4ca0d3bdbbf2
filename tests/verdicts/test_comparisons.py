"""Each test of a claim is driven to each of its outcomes by made-up records."""

from types import SimpleNamespace

import numpy as np
import pytest
from claim_records import configured, evidence, flat, pictures, record, side

from b2g.errors import B2GError
from b2g.methods import METHODS
from b2g.verdicts import comparisons, fits
from b2g.verdicts.judgement import FAILS, HOLDS, MISSING, PART, UNTESTABLE, verdict_of

BM3D = METHODS["bm3d"].profile("official", sigma=25.0)
GIVEN = dict(sets={"set9": [25]}, theirs=[{"method": "bm3d", "sigma": "given"}], instead=128)
FAITHFUL, PAPER, LETTER = (configured(name) for name in ("faithful", "paper", "letter"))


def judged(test, found, **given):
    cases = test(found, **given)
    return verdict_of(cases), cases


# --- better than ----------------------------------------------------------------------------------

@pytest.mark.parametrize(
    "faithful, paper, expected",
    [(1.0, 1.0, HOLDS), (1.0, -1.0, PART), (-1.0, -1.0, FAILS), (1.0, None, PART), (-1.0, None, FAILS),
     (None, None, MISSING), (None, 1.0, PART)],
)  # fmt: skip
def test_better_than_a_rival_in_both_readings(faithful, paper, expected):
    groups = [side(BM3D, "set9", flat(0))]
    groups += [side(method, "set9", flat(gain)) for method, gain in ((FAITHFUL, faithful), (PAPER, paper))
               if gain is not None]
    assert judged(comparisons.beats, evidence(*groups), **GIVEN)[0] == expected


def test_an_effect_claimed_and_an_allowance_move_the_bar():
    runs = evidence(side(BM3D, "set9", flat(0)), *(side(m, "set9", flat(0.05)) for m in (FAITHFUL, PAPER)))
    assert judged(comparisons.beats, runs, **GIVEN)[0] == HOLDS
    assert judged(comparisons.beats, runs, **GIVEN, effect=0.5)[0] == PART
    worse = evidence(side(BM3D, "set9", flat(0)), *(side(m, "set9", flat(-0.3)) for m in (FAITHFUL, PAPER)))
    assert judged(comparisons.beats, worse, **GIVEN)[0] == FAILS
    assert judged(comparisons.beats, worse, **GIVEN, allowance=0.5)[0] == HOLDS


def test_crops_may_stand_for_whole_pictures_in_the_faithful_reading_alone():
    runs = evidence(*(side(m, "set9@128", flat(gain)) for m, gain in ((BM3D, 0), (FAITHFUL, 1), (PAPER, 1))))
    outcome, cases = judged(comparisons.beats, runs, **GIVEN)
    assert outcome == PART
    assert {run.picture for run in cases[1].lacking} <= set(pictures("set9"))
    found = {case.reading: (case.outcome, case.n, case.what.partition(",")[0]) for case in cases}
    assert found == {"faithful": (HOLDS, 9, "set9@128"), "paper": (MISSING, 0, "set9")}
    assert judged(comparisons.beats, runs, **GIVEN | {"instead": None})[0] == MISSING


def test_where_nothing_is_there_yet_the_cheaper_runs_are_asked_for():
    cases = judged(comparisons.beats, evidence(), **GIVEN)[1]
    asked = {case.reading: {run.picture.partition("@")[2] for run in case.lacking} for case in cases}
    assert asked == {"faithful": {"128"}, "paper": {""}}


@pytest.mark.parametrize("short", [dict(steps=400), dict(width=24), dict(learning_rate=4e-3), dict(answer="average")])
def test_a_shortened_paper_is_not_the_paper(short):
    runs = evidence(side(BM3D, "set9", flat(0)), side(PAPER.changed(**short), "set9", flat(5)))
    assert judged(comparisons.beats, runs, **GIVEN)[0] == MISSING


def test_the_letter_is_shown_and_decides_nothing():
    runs = side(BM3D, "set9", flat(0)), side(LETTER, "set9", flat(-5))
    outcome, cases = judged(comparisons.beats, evidence(*runs), **GIVEN)
    assert outcome == MISSING
    assert [(case.outcome, case.decides) for case in cases if case.reading == "letter"] == [(FAILS, False)]


@pytest.mark.parametrize("reading, changes", [("paper", {"steps": 400}), ("letter", {"width": 48}), ("fast", {})])
def test_a_claim_cannot_ask_for_another_schedule_or_profile(reading, changes):
    with pytest.raises(B2GError, match="fixes|judged on"):
        configured(reading, changes)


def test_a_rival_that_the_package_has_not_keeps_the_claim_from_holding():
    runs = evidence(side(BM3D, "set9", flat(0)), *(side(m, "set9", flat(1)) for m in (FAITHFUL, PAPER)))
    theirs = [{"method": "bm3d", "sigma": "given"}, {"method": "n2v2"}]
    outcome, cases = judged(comparisons.beats, runs, **GIVEN | {"theirs": theirs})
    assert outcome == PART and any(case.outcome == UNTESTABLE and "n2v2" in case.what for case in cases)
    assert judged(comparisons.beats, runs, **GIVEN | {"theirs": theirs[1:]})[0] == UNTESTABLE


def test_a_data_set_that_is_not_at_hand_cannot_be_tested():
    outcome, cases = judged(comparisons.beats, evidence(), sets={"sidd": [25]}, theirs=[{"method": "zs_n2n"}])
    assert outcome == UNTESTABLE and "0 such pictures" in cases[0].value


def test_lower_is_better_where_the_claim_says_so():
    groups = [side(BM3D, "set9", lambda i, level: 20, lpips=0.4)]
    groups += [side(m, "set9", lambda i, level: 20, lpips=0.3) for m in (FAITHFUL, PAPER)]
    assert judged(comparisons.beats, evidence(*groups), **GIVEN, metric="lpips", lower=True)[0] == HOLDS
    assert judged(comparisons.beats, evidence(*groups), **GIVEN, metric="lpips")[0] == FAILS


def test_missing_runs_are_the_fewest_that_would_do_and_cost_what_is_known():
    costs = SimpleNamespace(seconds=lambda method, size: size / 1e4 if method.name == "bm3d" else None)
    runs = evidence(side(BM3D, "set9", flat(0), count=3), side(FAITHFUL, "set9", flat(1), count=2), costs=costs)
    case = judged(comparisons.beats, runs, **GIVEN | {"instead": None}, readings=["faithful"])[1][0]
    assert case.n == 2 and case.outcome == MISSING
    # Three pictures more: one lacks our side alone, two lack both.
    assert len(case.lacking) == 5
    assert sum(run.seconds is None for run in case.lacking) == 3


def test_a_failed_run_is_named_and_not_asked_for_again():
    failed = [record(FAITHFUL, name, state="diverged") for name in pictures("set9")[:2]]
    runs = evidence(side(BM3D, "set9", flat(0)), failed, side(FAITHFUL, "set9", flat(1))[2:5])
    case = judged(comparisons.beats, runs, **GIVEN | {"instead": None}, readings=["faithful"])[1][0]
    assert "2 failed (diverged)" in case.value and case.n == 3
    assert not {run.picture for run in case.lacking} & set(pictures("set9")[:2])


def test_each_of_several_settings_must_be_better():
    varied = [configured("faithful", {"omega": omega}) for omega in (0.2, 1.0)]
    runs = evidence(side(BM3D, "set9", flat(0)), *(side(m, "set9", flat(g)) for m, g in zip(varied, (1, -1))))
    given = GIVEN | dict(ours=[{"omega": 0.2}, {"omega": 1.0}], readings=["faithful"])
    outcome, cases = judged(comparisons.beats, runs, **given)
    assert outcome == PART and [case.outcome for case in cases] == [HOLDS, FAILS]


# --- the best value of a grid ------------------------------------------------------------------------

GRID = dict(sets={"set9@64": [25]}, field="omega", chosen=0.8, values=[0.0, 0.4, 0.8, 1.0], over=[0.0, 1.0], steps=400)


def peak(scores, **change):
    groups = [side(configured("faithful", {"omega": omega}, 400), "set9@64", flat(score), count=5)
              for omega, score in scores.items()]
    return judged(comparisons.best_value, evidence(*groups), **GRID | change, readings=["faithful"])


@pytest.mark.parametrize(
    "scores, expected",
    [
        ({0.0: 0.0, 0.4: 0.5, 0.8: 1.0, 1.0: 0.5}, HOLDS),
        ({0.0: 0.0, 0.4: 1.0, 0.8: 1.0, 1.0: 0.5}, HOLDS),  # a neighbour that ties is no better value
        ({0.0: 0.0, 0.4: 1.5, 0.8: 1.0, 1.0: 0.5}, FAILS),
        ({0.0: 0.0, 0.4: 0.0, 0.8: 0.0, 1.0: 0.0}, FAILS),  # flat: no best value
        ({0.0: 0.0, 0.4: 0.5, 0.8: 1.0}, MISSING),
    ],
)
def test_a_best_value_leaves_the_ends_behind_and_is_beaten_by_none(scores, expected):
    outcome, cases = peak(scores)
    assert outcome == expected
    assert bool(cases[0].lacking) == (expected == MISSING)


def test_a_best_value_says_where_the_highest_mean_was():
    assert "highest mean at 0.4, 0.50 dB above 0.8" in peak({0.0: 0.0, 0.4: 1.5, 0.8: 1.0, 1.0: 0.5})[1][0].value


# --- ranges, means, spreads ---------------------------------------------------------------------------

@pytest.mark.parametrize("wide, narrow, expected", [(1.0, 0.1, HOLDS), (0.1, 1.0, FAILS), (None, 0.1, MISSING)])
def test_one_setting_moves_the_result_more_than_another(wide, narrow, expected):
    groups = []
    for field, span in (("omega", wide), ("gamma", narrow)):
        for value, share in ((0.0, 0.0), (1.0, 1.0)):
            if span is not None:
                groups.append(side(configured("faithful", {field: value}, 400), "set9@64", flat(span * share), count=6))
    given = dict(sets={"set9@64": [25]}, first={"omega": [0.0, 1.0]}, second={"gamma": [0.0, 1.0]}, steps=400)
    assert judged(comparisons.range_larger, evidence(*groups), **given, readings=["faithful"])[0] == expected


@pytest.mark.parametrize("off, count, expected", [(0.0, 9, HOLDS), (-0.2, 9, HOLDS), (-0.5, 9, FAILS), (0.0, 8, MISSING)])
def test_a_printed_mean_is_reached_on_the_very_pictures(off, count, expected):
    level = 25
    target = comparisons.printed_value("set9", level, "b2g")
    groups = [side(m, "set9", lambda i, level: target + off + 0.1 * (i - 4), count=count) for m in (FAITHFUL, PAPER)]
    outcome, cases = judged(comparisons.reaches_printed, evidence(*groups), dataset="set9", levels=[level])
    assert outcome == expected and f"{target:.2f}" in cases[0].what


@pytest.mark.parametrize("ours, theirs, expected", [(0.1, 3.0, HOLDS), (3.0, 0.1, FAILS), (1.0, None, MISSING)])
def test_a_smaller_spread_over_the_pictures(ours, theirs, expected):
    swing = lambda size: lambda index, level: 30 + size * (1 if index % 2 else -1)  # noqa: E731
    groups = [side(FAITHFUL, "set9", swing(ours))]
    if theirs is not None:
        groups.append(side(METHODS["zs_n2n"].profile("official"), "set9", swing(theirs)))
    given = dict(sets={"set9": [25]}, theirs=[{"method": "zs_n2n"}], readings=["faithful"])
    assert judged(comparisons.spread_smaller, evidence(*groups), **given)[0] == expected


# --- inside a fit -------------------------------------------------------------------------------------

def trained(entries, count=3, steps=400):
    method = configured("faithful", None, steps)
    runs = side(method, "set9@64", flat(0), count=count, watch="training")
    return evidence(runs, histories={run.id: entries(index) for index, run in enumerate(runs)})


WATCH = dict(where="set9@64", levels=[25], steps=400, readings=["faithful"])


@pytest.mark.parametrize("value, expected", [(0.0, HOLDS), (0.5, FAILS), (0.1, MISSING)])
def test_a_watched_quantity_at_the_end_of_the_fit(value, expected):
    found = trained(lambda index: [{"step": 0, "slope_visible": 9.0},
                                   {"step": 400, "slope_visible": value + 0.01 * (index - 1)}])
    given = WATCH | dict(quantity="slope_visible", low=-0.1, high=0.1)
    assert judged(fits.watched, found, **given)[0] == expected
    assert judged(fits.watched, evidence(), **given)[0] == MISSING
    assert len(judged(fits.watched, evidence(), **given)[1][0].lacking) == 3


@pytest.mark.parametrize(
    "supervised, expected",
    [(lambda t: 1 - 0.5 * t, HOLDS), (lambda t: 0.5 + t, FAILS), (lambda t: 1 - t if t < 0.96 else 0.08, PART)],
)
def test_two_losses_converge_together_or_apart(supervised, expected):
    times = np.linspace(0, 1, 41)
    found = trained(lambda index: [{"step": int(400 * t), "self_supervised_loss": 2 - t + 1e-3 * index,
                                    "supervised_loss": supervised(t) + 1e-3 * index} for t in times])
    assert judged(fits.tracks, found, **WATCH)[0] == expected
    assert judged(fits.tracks, evidence(), **WATCH)[0] == MISSING


# --- cost ---------------------------------------------------------------------------------------------

@pytest.mark.parametrize("power, expected", [(1.0, HOLDS), (0.5, FAILS), (1.5, FAILS)])
def test_time_grows_linearly_with_pixels_or_not(power, expected):
    small, large = configured("faithful", None, 400), configured("faithful")
    groups = [side(m, f"set9@{s}", flat(0), cpu_seconds=m.steps * (s * s) ** power) for m, s in ((small, 64), (large, 128))]
    given = dict(small="set9@64", large="set9@128", steps=400, readings=["faithful"])
    outcome, cases = judged(fits.time_exponent, evidence(*groups), **given)
    assert outcome == expected and f"{power:+.2f}" in cases[0].value
    assert judged(fits.time_exponent, evidence(groups[0]), **given)[0] == MISSING


@pytest.mark.parametrize("bare, expected", [(0.2, HOLDS), (0.9, FAILS), (None, MISSING)])
def test_parts_of_the_method_take_most_of_the_time_or_not(bare, expected):
    without = {"mask": "bernoulli", "standout": "none"}
    groups = [side(configured("faithful", None, 400), "set9@64", flat(0), cpu_seconds=10.0)]
    if bare is not None:
        groups.append(side(configured("faithful", without, 400), "set9@64", flat(0), cpu_seconds=10.0 * bare))
    given = dict(where="set9@64", without=without, steps=400, readings=["faithful"])
    assert judged(fits.time_share, evidence(*groups), **given)[0] == expected


@pytest.mark.parametrize("times, machine, expected", [(1.5, "m", HOLDS), (30.0, "m", FAILS), (1.5, "other", MISSING)])
def test_times_compare_on_one_machine_only(times, machine, expected):
    fast = METHODS["zs_n2n"].profile("official")
    groups = [side(PAPER, "set9@64", flat(0), count=3, cpu_seconds=10.0 * times),
              side(fast, "set9@64", flat(0), count=3, cpu_seconds=10.0, machine=machine)]
    given = dict(where="set9@64", theirs=[{"method": "zs_n2n"}])
    assert judged(fits.time_ratio, evidence(*groups), **given)[0] == expected


# --- kept pictures --------------------------------------------------------------------------------------

@pytest.mark.parametrize("kind", ["gradient", "entropy"])
@pytest.mark.parametrize("ours, theirs, expected", [(0.02, 0.2, HOLDS), (0.2, 0.02, FAILS)])
def test_maps_of_kept_answers_are_compared_with_the_clean_ones(monkeypatch, kind, ours, theirs, expected):
    clean = np.add.outer(np.arange(32), np.arange(32)) / 64
    noise = np.random.default_rng(0).normal(size=clean.shape)
    groups = [side(FAITHFUL, "set9", flat(0), kept="0,0,32,32"), side(BM3D, "set9", flat(0), kept="0,0,32,32")]
    sizes = {each.id: size for group, size in zip(groups, (ours, theirs)) for each in group}
    monkeypatch.setattr(fits.stored, "picture", lambda name: clean + sizes[name] * noise)
    monkeypatch.setattr(fits.stored, "clean", lambda record: clean)
    given = dict(map=kind, sets={"set9": [25]}, theirs=[{"method": "bm3d", "sigma": "given"}], readings=["faithful"])
    assert judged(fits.nearer, evidence(*groups), **given)[0] == expected
    bare = evidence(*(side(m, "set9", flat(0)) for m in (FAITHFUL, BM3D)))
    assert judged(fits.nearer, bare, **given)[0] == MISSING


def test_the_gradient_map_is_the_loop_over_pixels():
    picture = np.random.default_rng(1).random((5, 6, 3))
    gray = picture.mean(-1)
    expected = [[np.hypot(gray[r, min(c + 1, 5)] - gray[r, c], gray[min(r + 1, 4), c] - gray[r, c]) for c in range(6)]
                for r in range(5)]
    assert fits.gradient_map(picture) == pytest.approx(np.array(expected), abs=1e-12)
