"""benchmarks/gpu.py with tiny work on a CPU: it says what it leaves out, ends in time,
and its records merge."""

import json
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import b2g
from b2g.errors import B2GError
from b2g.floor import Ceilings
from b2g.runs.store import merge_into, read_any, read_folder

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import gpu
import gpu_check
import gpu_speed
import gpu_tables
from protocol import Report, Skip, TimeUp, time_limit

CPU = torch.device("cpu")
PLAN = """
title: tiny
blocks:
- pictures: [skimage/astronaut, set9/House, skimage/camera]
  crop: 32
  methods: [zs_n2n: {steps: 1}, bm3d: {sigma: given}, zs_n2n: {steps: 2}]
"""


@pytest.fixture
def small(monkeypatch):
    """The smallest work that still goes every way."""
    clean = b2g.load("skimage/astronaut@32")
    monkeypatch.setattr(gpu_check, "noisy_crop", lambda: (clean, b2g.add_noise(clean, "gaussian", 25, seed=0)))
    monkeypatch.setattr(gpu_check, "FITTED", ("smoke",))
    monkeypatch.setattr(gpu_check, "SEEDS", 2)
    monkeypatch.setattr(gpu_speed, "measure_ceilings", lambda device, least: Ceilings({"float32": 1e9}, 1e9))
    monkeypatch.setattr(gpu_speed, "pictures_of", lambda wanted, first: ([clean], True))
    step = gpu_speed.measure_step
    monkeypatch.setattr(gpu_speed, "measure_step", lambda *words, least: step(*words, least=0.01))


@pytest.fixture
def plan(tmp_path, monkeypatch):
    """A plan whose Set9 cannot be had here."""
    load = b2g.datasets.load

    def loaded(name):
        if name.startswith("set9"):
            raise B2GError("set9 could not be downloaded")
        return load(name)

    monkeypatch.setattr(gpu_tables.datasets, "load", loaded)
    monkeypatch.setattr("b2g.runs.work._lpips", lambda: None)
    path = tmp_path / "tiny.yml"
    path.write_text(PLAN)
    return str(path)


def called(folder, *words):
    code = gpu.main([words[0], "--out", str(folder), "--device", "cpu", *map(str, words[1:])])
    return code, json.loads((folder / "report.json").read_text())[words[0]]["items"]


def states(items):
    return {item["name"]: item["state"] for item in items}


# ---- check and speed ----


def test_check_says_what_it_leaves_out(tmp_path, small):
    code, items = called(tmp_path, "check", "--steps", 1)
    found = states(items)
    assert code == 0 and found["one pass, CPU bfloat16 against CPU float32"] == "passed"
    assert found["decibels of whole fits, smoke"] == "passed"
    left_out = [item for item in items if item["state"] == "skipped"]
    assert len(left_out) == len(items) - 2 and {item["text"] for item in left_out} == {"no CUDA device here"}
    assert "| the tests for a GPU | skipped | no CUDA device here |" in (tmp_path / "report.md").read_text()


def test_check_notices_another_answer_another_gradient_and_another_fit(small, monkeypatch):
    one_pass, fitted = gpu_check.one_pass, gpu_check.psnr_of
    assert gpu_check.same_pass(CPU, "float32")[0] == "passed"
    for spoil in (lambda a, s: (a + 2e-4, s), lambda a, s: (a, 1.01 * s)):
        answers = iter([spoil(*one_pass(CPU, "float32")), one_pass(CPU, "float32")])
        monkeypatch.setattr(gpu_check, "one_pass", lambda device, precision: next(answers))
        assert gpu_check.same_pass(CPU, "float32")[0] == "failed"
    worse = lambda *words: fitted(*words) - (9.0 if words[6] == "bfloat16" else 0.0)  # noqa: E731
    monkeypatch.setattr(gpu_check, "psnr_of", worse)
    assert gpu_check.decibels(CPU, "smoke", 1, 2)[0] == "failed"


def test_the_tests_for_a_gpu_are_found_and_run(tmp_path):
    assert "tests/test_capture.py" in gpu_check.TESTS
    assert not any("gpu_script" in name for name in gpu_check.TESTS)
    for text, state in (("def test_it(): pass", "passed"), ("def test_it(): assert 0", "failed")):
        path = tmp_path / "test_it.py"
        path.write_text(text)
        assert gpu_check.tests(CPU, [str(path), "-c", "/dev/null"], lambda: 60)[0] == state


def test_speed_measures_what_it_can(tmp_path, small):
    code, items = called(tmp_path, "speed", "--size", 16, 96, "--profile", "smoke", "--whole", "b2g/smoke",
                         "--steps", 2, "--tiles", 2, "--tile", 16)  # fmt: skip
    found = states(items)
    assert code == 0
    assert found["step of b2g/smoke, 96 x 96, eager, float32"] == "measured"
    assert found["step of b2g/smoke, 96 x 96, graph, float32"] == found["cuDNN choosing by trial"] == "skipped"
    by_name = {item["name"]: item for item in items}
    step = by_name["step of b2g/smoke, 96 x 96, eager, bfloat16"]["figures"]
    assert step["over_floor"] == pytest.approx(step["ms"] / step["floor_ms"]) and step["floor_ms"] > 0
    assert set(by_name["steps compared"]["figures"]["exponents"]) == {"eager bfloat16", "eager float32"}
    assert len(by_name["b2g/smoke on set9, sigma 25"]["figures"]["psnr"]) == 1
    assert by_name["2 tiles of 16 x 16 side by side"]["figures"]["ratio"] > 0


def test_pictures_that_cannot_be_had_are_replaced_by_their_sizes(monkeypatch):
    def refuse(name):
        raise B2GError("no network")

    monkeypatch.setattr(gpu_speed.b2g, "load", refuse)
    pictures, real = gpu_speed.pictures_of("set9", 4)
    sizes = [b2g.datasets.size(name) for name in b2g.datasets.names("set9")[:4]]
    assert not real and [picture.shape[:2] for picture in pictures] == sizes
    assert np.isfinite(pictures[0]).all() and pictures[0].dtype == np.float32


# ---- tables ----


def test_the_runs_of_a_plan_are_recorded_and_merge(tmp_path, plan):
    out = tmp_path / "out"
    code, (item,) = called(out, "tables", plan)
    assert code == 0 and item["state"] == "passed" and item["figures"]["runs"] == 4
    assert "4 of 4 have a record" in item["text"] and "set9 could not be downloaded" in item["text"]
    records, _ = read_any(out / "runs.csv")
    assert {(r.picture, r.method, r.state) for r in records} == {
        ("skimage/astronaut@32", "zs_n2n", "done"), ("skimage/camera@32", "zs_n2n", "done")}  # fmt: skip
    assert merge_into(tmp_path / "records", records, {}).new == 4
    code, (item,) = called(out, "tables", plan)
    assert code == 0 and item["figures"]["runs"] == 0  # what has a record is not run again
    code, (item,) = called(tmp_path / "none", "tables", plan, "--leave-out", "bm3d", "zs_n2n")
    assert code == 0 and item["state"] == "skipped"


def test_the_time_limit_ends_a_sweep_and_keeps_its_records(tmp_path, plan, monkeypatch):
    carry_out, begun = gpu_tables.carry_out, []

    def slow(run, *rest):
        begun.append(run.id)
        if len(begun) == 3:
            signal.raise_signal(signal.SIGALRM)  # the limit's own
        return carry_out(run, *rest)

    monkeypatch.setattr(gpu_tables, "carry_out", slow)
    code, (item,) = called(tmp_path / "out", "tables", plan)
    assert code == 0 and item["state"] == "unfinished"
    assert item["text"] == "2 runs done now, 2 of 4 have a record; the time limit came"
    records, _ = read_folder(tmp_path / "out")
    assert sorted(record.id for record in records) == sorted(begun[:2])
    monkeypatch.setattr(gpu_tables, "carry_out", carry_out)
    assert called(tmp_path / "out", "tables", plan)[1][0]["figures"]["runs"] == 2


def test_a_run_that_would_take_longer_than_is_left_is_not_begun(tmp_path, plan, monkeypatch):
    monkeypatch.setattr(gpu_tables.Costs, "seconds", lambda self, method, size: 1e6 if method.steps == 2 else None)
    code, (item,) = called(tmp_path / "out", "tables", plan)
    assert item["state"] == "unfinished" and item["figures"]["runs"] == 2 and "2 were left" in item["text"]


def test_a_failed_run_is_told(tmp_path, plan):
    code, (item,) = called(tmp_path / "out", "tables", plan, "--leave-out", "--precision", "float16")
    assert code == 1 and item["state"] == "failed" and "precision must be" in item["text"]
    code, (item,) = called(tmp_path / "out2", "tables", "no-such-plan")
    assert code == 1 and "there is no plan 'no-such-plan'" in item["text"]


# ---- the protocol ----


def test_a_report_has_a_section_a_call_and_hides_no_item(tmp_path):
    one = Report(tmp_path, "check", CPU)
    one.attempt("good", lambda: ("passed", "yes", {}))
    one.attempt("bad", lambda: 1 / 0)
    one.attempt("absent", lambda: (_ for _ in ()).throw(Skip("not here")))
    with pytest.raises(TimeUp):
        one.attempt("late", lambda: (_ for _ in ()).throw(TimeUp))
    found = states(one.section["items"])
    assert found == {"good": "passed", "bad": "failed", "absent": "skipped", "late": "unfinished"}
    assert one.failed and "ZeroDivisionError" in (tmp_path / "report.md").read_text()
    other = Report(tmp_path, "speed", CPU)
    other.add("a", "measured", "1")
    content = json.loads((tmp_path / "report.json").read_text())
    assert set(content) == {"check", "speed"} and len(content["check"]["items"]) == 4 and not other.failed


def test_the_time_limit_is_lifted_at_the_end_of_its_block():
    with time_limit(0.002) as left:
        assert 0 < left() <= 0.12
    time.sleep(0.2)  # else the signal would come now
    with pytest.raises(TimeUp), time_limit(0.001):
        time.sleep(5)
