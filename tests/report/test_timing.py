"""Races, curves, equal times and extrapolations, on made-up records."""

import numpy as np
import pytest

from b2g.errors import B2GError
from b2g.face import choose_method
from b2g.report import timing
from b2g.report.figures import plots
from b2g.runs.record import Record
from b2g.runs.spec import specify

PICTURE, SIGMA = "skimage/astronaut@256", 25.0
BM3D = ("bm3d", dict(sigma=SIGMA))


def record(name="b2g/fast", settings={}, seconds=100.0, psnr=30.0, machine="one", watch="psnr", state="done", **other):  # noqa: B006
    method, _, profile = name.partition("/")
    circumstances = {key: other.pop(key) for key in ("cpu_seconds", "device") if key in other}
    run = specify(PICTURE, choose_method(method, profile or None, **settings), watch=watch, **{"level": SIGMA, **other})
    return Record.of(run, state=state, psnr=psnr, psnr_noisy=20.0, seconds=seconds, machine=machine,
                     **{"device": "cpu", **circumstances})


def entries(steps, seconds, psnr=None):
    rows = [{"step": step, "seconds": second} for step, second in zip(steps, seconds)]
    return [row | ({} if psnr is None else {"psnr": value}) for row, value in zip(rows, psnr or steps)]


def race(*records, histories=None):
    [found] = timing.races(list(records), histories or {})
    return found


# ---- which runs belong together ----


def test_only_runs_made_for_it_race_each_other():
    base = record(*BM3D, seconds=4.0)
    fast, other = record(), record("zs_n2n", seconds=50.0)
    strangers = [record(watch=""), record("lichi", state="failed"), record("nl_ridge", machine="two"),
                 record("nl_ridge", level=50.0), record("nl_ridge", repeat=1)]  # fmt: skip
    found = race(base, fast, other, *strangers)
    assert [timed.record for timed in found.runs] == [base, other, fast]
    assert (found.picture, found.level, found.machine, found.device) == (PICTURE, 25.0, "one", "cpu")


def test_a_race_needs_a_reference_and_another():
    assert timing.races([record(), record("zs_n2n")], {}) == []
    assert timing.races([record(*BM3D)], {}) == []


def test_runs_of_another_revision_do_not_count():
    old = record("zs_n2n", seconds=1.0)
    stale = Record.of(old.run(), seconds=1.0, psnr=1.0, machine="one", device="cpu")
    object.__setattr__(stale, "settings", {**old.settings, "revision": 0})
    assert timing.configured(old) is not None and timing.configured(stale) is None
    assert stale not in [t.record for t in race(record(*BM3D), record(), stale).runs]


def test_graphics_cards_race_by_themselves():
    runs = [record(*BM3D), record(), record("zs_n2n", device="cuda:0", machine="card"),
            record("nl_ridge", device="cuda:1", machine="card")]  # fmt: skip
    assert [(r.device, len(r.runs)) for r in timing.races(runs, {})] == [("cpu", 2), ("cuda", 2)]


def test_times_are_told_by_bm3d_and_else_by_nl_ridge():
    ridge, base, fast = record("nl_ridge", seconds=2.0), record(*BM3D, seconds=4.0), record(seconds=100.0)
    assert race(ridge, base, fast).ratio(100.0) == 25.0
    assert race(ridge, fast).reference.record == ridge and race(ridge, fast).ratio(100.0) == 50.0


def test_ratios_of_the_processor_need_both_times():
    base = record(*BM3D, seconds=4.0, cpu_seconds=8.0)
    assert race(base, record(cpu_seconds=80.0)).cpu_ratio(record(cpu_seconds=80.0)) == 10.0
    assert race(base, record()).cpu_ratio(record()) is None


# ---- curves ----


def test_a_curve_ends_when_the_method_does():
    timed = timing.Timed(record(seconds=100.0), tuple(entries([10, 20], [30.0, 60.0], [25.0, 28.0])))
    times, values = timed.curve
    assert times.tolist() == [70.0, 100.0] and values.tolist() == [25.0, 28.0]
    assert timed.reached(69.9) is None and timed.reached(70.0) == 25.0 and timed.reached(99.0) == 25.0
    assert timed.reached(100.0) == 30.0  # its answer, not the last logged one


def test_without_a_history_there_is_the_answer_alone():
    timed = timing.Timed(record("lichi", seconds=9.0, psnr=31.0), ())
    assert [len(part) for part in timed.curve] == [0, 0]
    assert timed.reached(8.9) is None and timed.reached(9.0) == 31.0


def test_the_history_of_a_member_is_no_curve_of_the_whole():
    timed = timing.Timed(record("consensus"), tuple(entries([10, 20], [30.0, 60.0], [25.0, 28.0])))
    assert len(timed.curve[0]) == 0 and timed.reached(99.0) is None


def test_entries_without_psnr_make_no_curve():
    assert len(timing.Timed(record(), tuple(entries([10], [30.0]))).curve[0]) == 0


# ---- the full length ----


def test_the_full_length_is_told_at_the_pace_of_the_fit():
    short = record("self2self", dict(steps=600), seconds=1000.0)
    timed = timing.Timed(short, tuple(entries([100, 350, 600], [250.0, 600.0, 850.0])))
    full = choose_method("self2self").steps
    assert timed.published == ("official", full)
    assert timed.extrapolated == pytest.approx(1000.0 + (full - 600) * (850.0 - 250.0) / 500)
    assert timing.Timed(short).extrapolated == pytest.approx(1000.0 * full / 600)


@pytest.mark.parametrize("name, settings", [("self2self", {}), ("b2g/fast", {}), ("bm3d", {}), ("lichi", {}),
                                            ("self2self", dict(steps=600, keep=0.5)), ("consensus", {})])  # fmt: skip
def test_what_is_run_to_its_end_or_like_no_profile_is_not_extrapolated(name, settings):
    timed = timing.Timed(record(name, settings))
    assert timed.published is None and timed.extrapolated is None


def test_the_rows_have_every_figure_and_say_what_is_extrapolated():
    base = record(*BM3D, seconds=4.0, cpu_seconds=5.0, psnr=31.25)
    short = record("self2self", dict(steps=600), seconds=1000.0, cpu_seconds=900.0)
    found = race(base, short)
    first, second = timing.rows(found)
    assert len(first) == len(timing.header(found)) and timing.header(found)[4] == "× bm3d"
    assert first == ("bm3d, sigma given", "–", "31.25", "4.0", "1", "5.0", "1", "61", "run to its end")
    assert second[:8] == ("self2self/official, steps 600", "600", "30.00", "1000.0", "250", "900.0", "180", "15259")
    assert second[8].startswith("150000 steps (official): about 3 days, × 62500") and second[8].endswith(", extrapolated")


# ---- at equal time ----


def test_decibels_at_equal_time():
    base, quick = record(*BM3D, seconds=4.0, psnr=31.0), record("nl_ridge", seconds=1.0, psnr=30.0)
    slow = record(seconds=400.0, psnr=33.0)
    found = race(base, quick, slow, histories={slow.id: entries([1, 2], [80.0, 390.0], [29.0, 32.0])})
    times = timing.equal_times(found, per_decade=1)
    assert times == pytest.approx([0.1, 1.0, 10.0, 100.0])  # a quarter lies nearer to a tenth
    rows = dict((title, cells) for title, *cells in timing.equal_time_rows(found, [0.1, 1.0, 25.0, 100.0]))
    assert rows["nl_ridge/opponent"] == ["–", "30.00", "30.00", "30.00"]
    assert rows["bm3d, sigma given"] == ["–", "31.00", "31.00", "31.00"]
    assert rows["b2g/fast"] == ["–", "–", "29.00", "33.00"]
    assert [timing.leader(found, s) for s in (0.5, 1.0, 4.0, 400.0)] == [
        None, "nl_ridge/opponent", "bm3d, sigma given", "b2g/fast"]  # fmt: skip


def test_equal_times_reach_from_the_quickest_to_the_slowest():
    found = race(record(*BM3D, seconds=4.0), record("nl_ridge", seconds=0.4), record(seconds=4000.0))
    times = timing.equal_times(found, per_decade=2)
    assert times[0] == pytest.approx(0.1) and times[-1] == pytest.approx(1000.0) and len(times) == 9
    assert np.diff(np.log10(times)) == pytest.approx(0.5)


# ---- the figure ----


def test_the_figure_has_a_curve_and_a_mark_for_each_run():
    base, fast = record(*BM3D, seconds=4.0), record(seconds=100.0)
    found = race(base, fast, histories={fast.id: entries([1, 2], [30.0, 90.0], [25.0, 28.0])})
    with plots() as (figure, axes):
        timing.draw(axes, found)
        figure.canvas.draw()
        marks = {line.get_label(): line.get_xydata().tolist() for line in axes.lines if line.get_marker() != "None"}
        curves = [line.get_xydata().tolist() for line in axes.lines if line.get_marker() == "None" and len(line.get_xdata())]
    assert marks == {"bm3d, sigma given": [[4.0, 30.0]], "b2g/fast": [[100.0, 30.0]]}
    assert curves == [[[40.0, 25.0], [100.0, 28.0]]]
    assert "b2g/fast 30.0 dB after 25" in timing.described(found)


def test_what_is_stored_today_can_be_read():
    for found in timing.races():
        assert timing.rows(found) and found.told()


def test_a_method_of_another_package_is_not_configured():
    run = record("zs_n2n")
    object.__setattr__(run, "settings", {**run.settings, "method": "no such method"})
    assert timing.configured(run) is None
    with pytest.raises(B2GError):
        run.run().configured()
