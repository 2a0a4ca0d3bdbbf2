"""benchmarks/compare.py: which runs it asks for, and that what it prints is what it keeps."""

import importlib.util
import sys
from pathlib import Path

import pytest

from b2g.report import timing
from b2g.runs.plan import make_plan, read_plan
from b2g.runs.store import read_folder

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import compare

WHERE = "skimage/astronaut@32"


def methods(names=compare.METHODS, share=1.0, self2self=600, picture="skimage/astronaut@256", level=25.0):
    plan = make_plan("compare", [compare.block(names, picture, level, share, self2self)])
    return {task.run.configured().name: task.run for task in plan.tasks}


def test_every_method_of_the_benchmark_runs_as_published_but_self2self():
    found = methods()
    assert {"bm3d", "nl_ridge", "lichi", "b2g", "zs_n2n", "consensus", "self2self"} == set(found)
    assert found["self2self"].configured().changed(steps=150_000) == type(found["self2self"].configured()).profile("official")
    assert found["bm3d"].configured().sigma == 25.0 and found["zs_n2n"].configured().steps == 2000


def test_its_runs_are_those_of_the_plan():
    wanted = {task.run.id for task in read_plan("time").tasks}
    for level in (25.0, 50.0):
        block = compare.block(compare.METHODS, "skimage/astronaut@256", level, 1.0, 600)
        assert {task.run.id for task in make_plan("compare", [block]).tasks} <= wanted


def test_a_share_shortens_the_fits_and_nothing_else():
    names, left_out = compare.chosen(["nl_ridge", "zs_n2n", "self2self", "consensus/fast"], 0.1)
    assert names == ["nl_ridge", "zs_n2n", "self2self"] and len(left_out) == 1 and "consensus" in left_out[0]
    found = methods(names, share=0.1, self2self=7)
    assert found["zs_n2n"].configured().steps == 200 and found["self2self"].configured().steps == 7
    assert found["nl_ridge"].id == methods(["nl_ridge"])["nl_ridge"].id


def test_without_bm3d_the_others_run(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    names, [why] = compare.chosen(["bm3d", "nl_ridge"], 1.0)
    assert names == ["nl_ridge"] and "not installed" in why


def test_what_is_printed_is_kept(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("b2g.runs.work._lpips", lambda: None)
    out = tmp_path / "new"
    words = ["--out", str(out), "--picture", WHERE, "--methods", "nl_ridge", "zs_n2n", "--steps-share", "0.002", "--device", "cpu"]
    assert compare.main(words) == 0
    printed = capsys.readouterr().out
    records, histories = read_folder(out)
    [race] = timing.races(records, histories)
    assert race.told() in printed and race.machine in printed
    for row in timing.rows(race):
        assert all(cell in printed for cell in row)
    [fit] = [timed for timed in race.runs if timed.record.method == "zs_n2n"]
    assert len(fit.curve[0]) == 4 and fit.published == ("official", 2000)
    assert compare.main(words) == 2  # times of two calls are not mixed
    assert "name a new folder" in capsys.readouterr().err


@pytest.mark.parametrize("words, complaint", [
    (["--steps-share", "0"], "--steps-share lies above 0"),
    (["--steps-share", "1.5"], "--steps-share lies above 0"),
    (["--self2self-steps", "1"], "at least 2"),
    (["--methods", "no_such"], "there is no method"),
])  # fmt: skip
def test_bad_input_is_one_sentence(words, complaint, tmp_path, capsys):
    assert compare.main(["--out", str(tmp_path), *words]) == 2
    assert complaint in capsys.readouterr().err
