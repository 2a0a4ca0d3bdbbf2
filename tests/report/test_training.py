"""Series of watched histories, and differences that one changed reading makes, on made-up records."""

from dataclasses import asdict

import numpy as np
import pytest

from b2g.errors import B2GError
from b2g.methods import METHODS, B2G
from b2g.report import records as stored
from b2g.report.contrasts import AMBIGUITIES, HEADER, Ambiguity, ambiguity_rows, contrasts
from b2g.report.markup import table
from b2g.report.training import (
    Watched,
    agreement,
    latter_half,
    mean_series,
    reading,
    rise_from_lowest,
    stored_runs,
    watched,
)
from b2g.runs.record import Record
from b2g.runs.spec import specify

SHORT = dict(steps=400)


def record(picture="set9/F16@64", level=25.0, psnr=28.0, profile="faithful", watch="", state="done", **new):
    method = METHODS["b2g"].profile(profile, **(SHORT | new))
    run = specify(picture, method, level=level, watch=watch)
    return Record.of(run, state=state, psnr=psnr if state == "done" else None)


def entries(**curves):
    rows = [dict(zip(curves, values)) for values in zip(*curves.values())]
    known = [{name: value for name, value in row.items() if value is not None} for row in rows]
    return [{"step": 10 * (k + 1)} | row for k, row in enumerate(known)]


# ---- series ----


def test_a_series_leaves_out_what_was_not_measured():
    fit = Watched(record(), entries(loss=[3.0, 2.0, 1.0], detail_share=[None, 0.2, 0.4]))
    steps, values = fit.series("detail_share")
    assert steps.tolist() == [20, 30] and values.tolist() == [0.2, 0.4]
    assert fit.series("nothing")[0].tolist() == [] and fit.end("nothing") is None


def test_the_end_is_the_mean_of_the_last_fifth():
    values = [float(v) for v in np.random.default_rng(0).random(25)]
    fit = Watched(record(), entries(loss=values))
    assert fit.end("loss") == pytest.approx(sum(values[-5:]) / 5)
    assert fit.end("loss", share=1) == pytest.approx(sum(values) / 25)
    assert Watched(record(), entries(loss=values[:2])).end("loss") == values[1]


def test_means_over_fits_are_taken_at_shared_steps():
    first = Watched(record(), entries(loss=[1.0, 2.0, 3.0]))
    second = Watched(record(), entries(loss=[3.0, None, 5.0]))
    steps, values = mean_series([first, second], "loss")
    assert steps.tolist() == [10, 30] and values.tolist() == [2.0, 4.0]
    assert mean_series([], "loss")[0].tolist() == []


def test_agreement_is_pearson_s():
    first, second = [1.0, 2.0, 4.0, 3.0], [10.0, 30.0, 20.0, 50.0]
    mean = lambda values: sum(values) / 4  # noqa: E731
    covariance = mean([a * b for a, b in zip(first, second)]) - mean(first) * mean(second)
    spread = [np.sqrt(mean([v * v for v in values]) - mean(values) ** 2) for values in (first, second)]
    fit = Watched(record(), entries(a=first, b=second, flat=[1.0] * 4, rare=[None, None, 1.0, 2.0]))
    assert agreement(fit, "a", "b") == pytest.approx(covariance / spread[0] / spread[1])
    assert agreement(fit, "a", "flat") is None and agreement(fit, "a", "rare") is None
    assert agreement(latter_half(fit), "a", "b") is None  # two entries are left


def test_the_rise_is_that_of_running_means():
    values = [9.0, 4.0, 2.0, 3.0, 7.0, 8.0]
    fit = Watched(record(), entries(a=values))
    means = [sum(values[k : k + 3]) / 3 for k in range(4)]
    assert rise_from_lowest(fit, "a", window=3) == pytest.approx(means[-1] / min(means))
    assert rise_from_lowest(fit, "a", window=6) == pytest.approx(1.0)
    assert rise_from_lowest(fit, "a", window=7) is None


def test_only_watched_fits_that_are_done_count():
    good = record(watch="training", psnr=20.0)
    others = [record(), record(watch="psnr"), record(watch="training", level=50.0, state="diverged")]
    late = record(watch="training", level=50.0)
    histories = {run.id: entries(loss=[1.0]) for run in [good, late, *others]}
    found = watched([late, *others, good], histories)
    assert [fit.record for fit in found] == [good, late]
    assert watched([good], {}) == []


@pytest.mark.parametrize("profile, changes, words", [
    ("faithful", {}, "detached, forward, component"),
    ("faithful", dict(loss_norm="all", combine="sum"), "detached, forward, sum, all pixels, target y"),
    ("faithful", dict(loss_norm="all", target="hidden"),
     "detached, forward, component, all pixels, target y-hat"),
    ("paper", {}, "paper: attached, forward, sum"),
    ("fast", {}, "Eq. 1.1 alone"),
])  # fmt: skip
def test_a_reading_in_words(profile, changes, words):
    assert reading(record(profile=profile, **changes).settings) == words


def test_without_a_stored_table_there_are_no_runs(monkeypatch):
    def missing():
        raise B2GError("There is no stored file.")

    monkeypatch.setattr(stored, "runs", missing)
    monkeypatch.setattr(stored, "histories", missing)
    assert stored_runs() == [] == watched()


# ---- contrasts ----


def test_pairs_differ_in_the_named_settings_alone():
    runs = []
    for operator, shift in [("forward", 0.0), ("sobel", 5.0)]:
        for picture, own in [("set9/F16@64", 1.0), ("set9/House@64", 2.0)]:
            shared = dict(picture=picture, operator=operator)
            runs.append(record(visible="detached", psnr=30.0, **shared))
            runs.append(record(visible="attached", psnr=30.0 - own - shift, **shared))
    runs += [
        record(visible="attached", level=50.0),  # without a partner
        record(visible="attached", picture="set9/Lena@64", state="diverged"),
        record(visible="detached", picture="set9/Lena@64"),
        record(visible="attached", omega=0.4, psnr=3.0),  # another weight
    ]
    first, second = {"visible": "attached"}, {"visible": "detached"}
    plain, wide = contrasts(runs, first, second)
    assert plain.base == "b2g/faithful, 400 steps" and wide.base == "b2g/faithful, operator=sobel, 400 steps"
    assert [key[0] for key in plain.keys] == ["set9/F16@64", "set9/House@64"]
    assert plain.differences.tolist() == [-1.0, -2.0] and wide.differences.tolist() == [-6.0, -7.0]
    assert plain.levels == [25.0] and plain.at(25.0).tolist() == [-1.0, -2.0]
    assert plain.at(50.0).tolist() == []
    assert (plain.changed, wide.changed) == (0, 1)


def test_repeats_and_watches_are_one_run_s_circumstances():
    runs = [record(visible="attached", psnr=20.0), record(visible="attached", watch="training", psnr=22.0),
            record(visible="detached", psnr=25.0)]  # fmt: skip
    [found] = contrasts(runs, {"visible": "attached"}, {"visible": "detached"})
    assert found.differences.tolist() == [-4.0]


def test_settings_that_are_lists_are_compared_by_value():
    runs = [record(head=(8, 8), psnr=20.0), record(head=(16, 8), psnr=21.0)]
    [found] = contrasts(runs, {"head": (8, 8)}, {"head": [16, 8]})
    assert found.differences.tolist() == [-1.0]


def test_readings_of_different_settings_are_refused():
    with pytest.raises(B2GError, match="must give values to the same settings"):
        contrasts([], {"visible": "attached"}, {"omega": 0.0})


@pytest.mark.parametrize("ambiguity", AMBIGUITIES, ids=lambda ambiguity: ambiguity.words)
def test_every_ambiguity_names_settings_that_exist(ambiguity):
    readings = list(ambiguity.readings.values())
    assert len(readings) >= 2 and ambiguity.written is not None
    for settings in readings:
        assert set(settings) == set(readings[0])
        made = asdict(B2G.profile("faithful", **settings))
        assert all(made[name] == value for name, value in settings.items())
    assert len({str(settings) for settings in readings}) == len(readings)


def test_each_stated_weight_is_the_paper_s():
    paper = asdict(B2G.profile("paper"))
    for ambiguity in AMBIGUITIES:
        for role, settings in ambiguity.readings.items():
            taken_out = role == "ablated" and "omega" in settings
            assert settings.get("omega", paper["omega"]) == (0.0 if taken_out else 0.8)


def test_the_rows_say_what_was_paired_and_what_was_not():
    sentence = Ambiguity("3.4?", {"visible": "attached", "omega": 0.8}, {"visible": "detached", "omega": 0.8},
                         {"visible": "detached", "omega": 0.0})  # fmt: skip
    runs = [record(visible="attached", psnr=26.0), record(psnr=27.0), record(psnr=29.5, omega=0.0),
            record(psnr=25.0, picture="set9/House@64"), record(psnr=24.5, omega=0.0, picture="set9/House@64"),
            record(psnr=20.0, level=50.0), record(visible="attached", psnr=21.0, level=50.0),
            record(visible="attached", operator="sobel"), record(operator="sobel")]  # fmt: skip
    [row] = ambiguity_rows(runs, [sentence])
    plain = [tuple(line.replace("\u00a0", " ") for line in cell) for cell in row]
    assert plain[0] == ("3.4?", "(all else as faithful, 400 steps)")
    assert plain[1][0] == "as written: visible = attached, omega = 0.8" and plain[2] == ("25", "50")
    assert plain[3] == ("-1.00 [-1.00, -1.00] n 1", "+1.00 [+1.00, +1.00] n 1")
    assert plain[4] == ("-3.50 [-3.50, -3.50] n 1", "–")
    assert plain[5] == ("-1.00 [-2.50, +0.50] n 2", "–")
    empty = ambiguity_rows([])
    assert [row[0][0] for row in empty] == [ambiguity.words for ambiguity in AMBIGUITIES]
    assert "no pair stored yet" in repr(table(HEADER, empty, "All of them."))
