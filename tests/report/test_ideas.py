"""What ideas are worth, against loops over made-up runs: pairing, bases, kinds, words, costs,
sums of parts."""

from dataclasses import fields

import numpy as np
import pytest
from scipy import stats

from b2g.methods import METHODS
from b2g.report import ideas
from b2g.report.idea_words import IDEAS, ORDER, idea_of, table_rows, words
from b2g.report.ideas import kind_of, planned, pooled, studies, told, unplanned
from b2g.runs.plan import make_plan
from b2g.runs.record import Record
from b2g.runs.spec import specify

B2G = METHODS["b2g"]
CROPS = [f"bsds500_train/{name}@128" for name in ("106005", "146074", "198004", "79073", "100075")]
SHORT = dict(steps=400)


def plan(*methods, levels=(25, 50), pictures=CROPS):
    blocks = [{"pictures": list(pictures), "levels": list(levels), "methods": list(methods)}]
    return [task.run for task in make_plan("", blocks).tasks]


def record(picture, method, psnr, level=25.0, **changes):
    outcome = dict(psnr=psnr, cpu_seconds=60.0, device="cpu", machine="here") | changes
    return Record.of(specify(picture, method, "gaussian", level), **outcome)


def runs_of(gains, levels=(25.0,), crops=CROPS, seed=0, **costs):
    """{(crop, level): row of PSNRs} and its records: method 0 at some PSNR,
    the others above it by `gains`."""
    rng, table, records = np.random.default_rng(seed), {}, []
    for crop in crops:
        for level in levels:
            base = 25 + rng.normal(0, 3)
            table[crop, level] = [base, *(base + gain + rng.normal(0, 0.1) for gain in gains.values())]
            records += [record(crop, method, psnr, level)
                        for method, psnr in zip([B2G.profile("masked", **SHORT), *gains], table[crop, level])]
    return table, records


MASKED, FLIPLESS = {"b2g/masked": SHORT}, {"b2g/masked": SHORT | {"flips": False}}
WIDE = {"b2g/masked": SHORT | {"width": 32}}
BOTH = {"b2g/masked": SHORT | {"width": 32, "flips": False}}
NO_FLIPS, WIDER = (B2G.profile("masked", **SHORT, **change) for change in ({"flips": False}, {"width": 32}))


def test_gains_are_paired_with_the_base_and_their_interval_is_students():
    table, records = runs_of({NO_FLIPS: -0.3})
    [study] = studies(records, plan(MASKED, FLIPLESS, levels=[25]))
    [row] = study.rows
    gain = row.gains["gaussian", 25.0]
    expected = np.array([table[crop, 25.0][1] - table[crop, 25.0][0] for crop in sorted(CROPS)])
    np.testing.assert_allclose(gain.differences, expected, rtol=1e-9)
    peer = stats.t.interval(0.95, 4, expected.mean(), stats.sem(expected))
    assert (gain.interval.low, gain.interval.high) == pytest.approx(peer)
    assert (row.idea, row.words, gain.wanted, gain.missing, gain.cost) == ("symmetries", "no flips", 5, 0, 1.0)


def test_only_the_planned_noise_pictures_and_settings_count():
    _, records = runs_of({NO_FLIPS: -0.3}, crops=CROPS[:3])
    _, others = runs_of({NO_FLIPS: +9.0}, levels=(50.0,), seed=1)
    _, elsewhere = runs_of({NO_FLIPS: +9.0}, crops=["set9/F16@128", "skimage/chelsea@128"], seed=2)
    longer = [record(crop, B2G.profile("masked", steps=500, flips=False), 60.0) for crop in CROPS]
    [study] = studies(records + others + elsewhere + longer, plan(MASKED, FLIPLESS, levels=[25]))
    gain = study.rows[0].gains["gaussian", 25.0]
    assert gain.pictures == tuple(sorted(CROPS[:3])) and gain.interval.mean < 0
    assert (gain.wanted, gain.missing) == (5, 4)  # two crops, the row and its base


def test_reported_sets_never_enter():
    wanted = plan(MASKED, FLIPLESS, pictures=[*CROPS, "set9/F16", "skimage/chelsea"])
    assert {run.picture.partition("/")[0] for run in wanted} == {"bsds500_train", "set9", "skimage"}
    sets = {run.picture.partition("/")[0] for run in planned()}
    assert sets <= set(ideas.TUNING) and planned("table2") == () and planned("no-such-plan") == ()


def test_missing_runs_are_priced_by_runs_like_them():
    _, records = runs_of({NO_FLIPS: -0.3}, crops=CROPS[:1])
    gain = studies(records, plan(MASKED, FLIPLESS, levels=[25]))[0].rows[0].gains["gaussian", 25.0]
    assert gain.missing == 8 and gain.seconds == pytest.approx(8 * 60.0)
    gain = studies([], plan(MASKED, FLIPLESS, levels=[25]))[0].rows[0].gains["gaussian", 25.0]
    assert gain.missing == 10 and gain.seconds is None


def test_the_cost_is_that_of_the_same_noisy_pictures_on_one_machine():
    base, slow = B2G.profile("masked", **SHORT), [(60.0, "here"), (90.0, "here"), (999.0, "there")]
    records = [record(crop, base, 25.0, cpu_seconds=30.0) for crop in CROPS]
    records += [record(crop, WIDER, 25.0, cpu_seconds=spent, machine=where) for crop, (spent, where) in zip(CROPS, slow)]
    assert studies(records, plan(MASKED, WIDE, levels=[25]))[0].rows[0].gains["gaussian", 25.0].cost == 150 / 60


def test_a_failed_run_counts_for_nothing_and_is_named():
    _, records = runs_of({NO_FLIPS: -0.3}, crops=CROPS[:4])
    records += [record(CROPS[4], B2G.profile("masked", **SHORT), 25.0),
                record(CROPS[4], NO_FLIPS, None, state="diverged", reason="NaN at step 7")]
    gain = studies(records, plan(MASKED, FLIPLESS, levels=[25]))[0].rows[0].gains["gaussian", 25.0]
    assert (len(gain.pictures), gain.missing, len(gain.failed)) == (4, 0, 1) and "NaN at step 7" in gain.failed[0]


def test_methods_stand_against_the_first_and_kinds_apart():
    wanted = plan("b2g/fast", {"bm3d": {"sigma": "given"}}, "nl_ridge/opponent", "nl_ridge/official", MASKED)
    wanted += plan({"b2g/fast": {"patches": "none"}}, FLIPLESS, "consensus/fast")
    found = {study.base: [row.words for row in study.rows] for study in studies([], wanted)[1:]}
    assert found == {"b2g/fast": ["without a pilot"], "nl_ridge/opponent": ["colours together"],
                     "b2g/masked+steps=400": ["no flips"]}
    against = studies([], wanted)[0]
    assert (against.base, against.levels) == ("b2g/fast", (("gaussian", 25.0), ("gaussian", 50.0)))
    assert [row.words for row in against.rows] == [
        "bm3d+sigma=given", "nl_ridge/opponent", "b2g/masked+steps=400", "consensus/fast"]


def test_a_given_sigma_is_one_configuration_and_finds_its_runs_at_every_level():
    bm3d, masked = METHODS["bm3d"], B2G.profile("masked", **SHORT)
    records = [record(crop, method, psnr, level) for crop in CROPS for level, psnr in ((25.0, 30.0), (50.0, 27.0))
               for method, psnr in ((bm3d.profile(sigma=level), psnr), (masked, psnr - 1 - level / 100))]
    [study] = studies(records, plan({"bm3d": {"sigma": "given"}}, MASKED))
    means = [study.rows[0].gains["gaussian", level].interval.mean for level in (25.0, 50.0)]
    assert study.base == "bm3d+sigma=given" and means == pytest.approx([-1.25, -1.5])


@pytest.mark.parametrize("settings, kind", [
    (B2G.profile("fast"), "b2g/fast"), (B2G.profile("fast", width=48, head=(48, 24)), "b2g/fast"),
    (B2G.profile("fast", steps=900, answer="average"), "b2g/fast"), (NO_FLIPS, "b2g/masked"),
    (B2G.profile("masked", posterior="local", norm="none", standout="none"), "b2g/masked"),
    (METHODS["lichi"].profile("official"), "lichi"), (METHODS["consensus"].profile("best"), "consensus"),
])  # fmt: skip
def test_kinds(settings, kind):
    import json

    assert kind_of(json.loads(settings.identity())) == kind


def test_the_sum_of_the_parts_is_taken_on_shared_pictures():
    together = B2G.profile("masked", **SHORT, width=32, flips=False)
    table, records = runs_of({NO_FLIPS: -0.3, WIDER: 0.5, together: 0.1})
    dropped = [r for r in records if not (r.picture == CROPS[0] and r.settings["width"] == 32 and r.settings["flips"])]
    [study] = studies(dropped, plan(MASKED, FLIPLESS, WIDE, BOTH, levels=[25]))
    rows = {row.words: row for row in study.rows}
    assert rows["no flips, width 32"].idea == "several at once"
    alone, both, n = study.parts(rows["no flips, width 32"], ("gaussian", 25.0))
    shared = [np.array(table[crop, 25.0][1:]) - table[crop, 25.0][0] for crop in CROPS[1:]]
    assert n == 4 and alone == pytest.approx(np.mean([row[0] + row[1] for row in shared]))
    assert both == pytest.approx(np.mean([row[2] for row in shared]))
    assert study.parts(rows["no flips"], ("gaussian", 25.0)) is None  # one change has no parts
    without = studies(dropped, plan(MASKED, FLIPLESS, BOTH, levels=[25]))[0]
    assert all(without.parts(row, ("gaussian", 25.0)) is None for row in without.rows)  # a part was not planned


def test_gains_losses_and_what_was_not_told():
    rng = np.random.default_rng(3)
    third = B2G.profile("masked", **SHORT, attention="none")
    table, records = runs_of({NO_FLIPS: -1.0, WIDER: 1.0}, levels=(25.0, 50.0))
    records += [record(crop, third, table[crop, level][0] + rng.choice([-1, 1]), level)
                for crop, level in table]
    made = studies(records, plan(MASKED, FLIPLESS, WIDE, {"b2g/masked": SHORT | {"attention": "none"}}))
    named = {sign: [row.words for _, row, _ in told(made, sign)] for sign in (-1, 0, 1)}
    assert named == {-1: ["no flips"], 0: ["no channel attention"], 1: ["width 32"]}
    fast = [record(crop, B2G.profile("fast"), values[0] - 3, level) for (crop, level), values in table.items()]
    against = studies(records + fast, plan("b2g/fast", MASKED))
    assert [row.gains["gaussian", 25.0].interval.mean for row in against[0].rows] == [pytest.approx(3)]
    assert told(against, 1) == []  # another method is no change of a setting
    row = next(row for row in made[0].rows if row.words == "width 32")
    values = [np.mean([table[crop, level][2] - table[crop, level][0] for level in (25.0, 50.0)]) for crop in CROPS]
    assert pooled(row).n == 5 and pooled(row).mean == pytest.approx(np.mean(values))  # a picture counts once
    assert "symmetries" not in unplanned(made) and "posterior" in unplanned(made)
    assert told(studies([], plan(MASKED, WIDE)), 0) == []  # nothing run: nothing said


def test_the_table_shows_means_intervals_and_what_is_missing():
    table, records = runs_of({NO_FLIPS: 1.0})
    [study] = studies(records, plan(MASKED, FLIPLESS) + plan(WIDE, levels=[50]))
    header, rows = table_rows(study)
    assert header == ["idea", "changed", "σ = 25, dB", "σ = 50, dB", "time"]
    symmetries, size = rows
    mean = np.mean([row[1] - row[0] for row in table.values()])
    assert str(symmetries[2]).startswith(f"+{mean:.2f}; ") and "n = 5" in str(symmetries[2])
    assert symmetries[2][0].kind == "best" and str(symmetries[3]).startswith("10 runs missing, ")
    assert str(size[2]) == "not planned" and size[-1] is None and symmetries[-1] == "1.00×"


def test_every_setting_that_may_change_is_an_idea_once():
    named = [name for names in IDEAS.values() for name in names]
    assert len(named) == len(set(named))
    for method in ("b2g", "nl_ridge", "lichi", "consensus"):
        assert {field.name for field in fields(METHODS[method])} <= set(named)


def test_words():
    assert words({("side", 128), ("flips", False)}) == "window of 128 × 128 pixels, no flips"
    assert words({("patches", "nl_ridge")}) == "NL-Ridge as pilot"
    assert words({("patches", "nl_ridge")}, "consensus") == "patches nl_ridge"
    assert words({("hold", 0.05), ("a_new_setting", 1)}) == "0.05 of the pixels held out, a new setting 1"
    assert idea_of({("patches", "nl_ridge")}, "consensus") == "members" != idea_of({("patches", "nl_ridge")})
    assert idea_of({("head", (8, 8)), ("width", 8)}) == "size" in ORDER


def test_the_plan_of_the_package_has_a_base_for_every_row():
    made = studies([])
    assert made and all(study.rows for study in made)
    assert all(row.changes and row.words for study in made for row in study.rows)
    labels = {(study.base, row.words) for study in made for row in study.rows}
    assert len(labels) == sum(len(study.rows) for study in made)  # no two rows read alike
