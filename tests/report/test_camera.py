"""The gains over a camera's noise: from records of the plan alone, each data set and method by itself."""

import numpy as np
import pytest

from b2g.report import camera
from b2g.report.statistics import bootstrap
from b2g.runs.plan import read_plan
from b2g.runs.record import Record


def runs_of(dataset, profile):
    tasks = [task.run for task in read_plan(camera.PLAN).tasks if task.run.picture.startswith(f"{dataset}/")]
    return [run for run in tasks if Record.of(run).label == profile]


def done(run, noisy, psnr, seconds=None):
    return Record.of(run, state="done", psnr_noisy=noisy, psnr=psnr, cpu_seconds=seconds)


def test_the_plan_has_each_picture_with_and_without_the_level():
    for dataset in ("cc", "polyu"):
        white, own = runs_of(dataset, "nl_ridge/opponent"), runs_of(dataset, "nl_ridge/camera")
        assert [run.picture for run in white] == [run.picture for run in own] and len(white) == 15
        assert {run.configured().noise for run in own} == {"correlated"}


def test_gains_are_those_of_the_records_by_set_and_method():
    assert camera.gains([]) == []
    own, white = runs_of("cc", "nl_ridge/camera"), runs_of("cc", "nl_ridge/opponent")
    other = runs_of("polyu", "lichi/camera")
    records = [done(run, 30.0 + k, 31.5 + 2 * k, 40.0 + 30 * k**2) for k, run in enumerate(own[:3])]
    records += [done(white[0], 30.0, 30.25), done(other[0], 35.0, 34.0)]
    records += [Record.of(white[1], state="refused", reason="it said no")]
    rows = {(row.dataset, row.label): row for row in camera.gains(records)}
    assert list(rows) == [("cc", "nl_ridge/opponent"), ("cc", "nl_ridge/camera"), ("polyu", "lichi/camera")]
    row = rows["cc", "nl_ridge/camera"]
    assert row.gain.tolist() == [1.5, 2.5, 3.5] and row.noisy == 31.0 and row.planned == 15
    assert row.seconds == 70.0 and rows["cc", "nl_ridge/opponent"].seconds is None
    text = repr(camera.shown(list(rows.values())))
    mean = bootstrap(np.array([1.5, 2.5, 3.5]))
    assert "3 of 15" in text and "+2.50" in text and "70 s" in text and f"{mean.low:+.2f} to {mean.high:+.2f}" in text
    assert "-1.00" in text.replace("\N{MINUS SIGN}", "-")


@pytest.mark.parametrize("rows", [[]])
def test_without_records_the_table_says_none(rows):
    assert "none" in repr(camera.shown(rows))


def test_the_other_plan_sets_the_published_length_beside_the_short_one():
    tasks = [task.run for task in read_plan(camera.LENGTH).tasks]
    assert len({run.picture for run in tasks}) == 1 and {run.noise for run in tasks} == {"real"}
    by_name = {}
    for run in tasks:
        by_name.setdefault(run.configured().name, []).append(run.configured())
    for short, published in by_name.values():
        own = type(published)
        assert (short, published) == (own.profile("short"), own.profile("official"))
    [row] = camera.gains([done(tasks[-1], 34.0, 35.5)], camera.LENGTH)
    assert (row.label, row.planned, row.gain.tolist()) == ("mash/official", 1, [1.5])
    assert camera.gains([done(tasks[-1], 34.0, 35.5)]) == []
