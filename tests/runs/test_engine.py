"""Sweeps: nothing twice, nothing lost, and a failure is a record with its reason."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from PIL import Image

import b2g
from b2g.errors import B2GError
from b2g.method import Denoised, Method
from b2g.methods import METHODS
from b2g.runs import Store, sweep
from b2g.runs.engine import choose_engine, devices, in_this_process, processes
from b2g.runs.plan import make_plan
from b2g.runs.verify import verify
from b2g.runs.work import carry_out

SMOKE = {"pictures": ["skimage/astronaut", "skimage/coffee"], "crop": 64, "levels": [25],
         "methods": [{"b2g/smoke": {"steps": 4}}, {"zs_n2n": {"steps": 4}}]}  # fmt: skip


@pytest.fixture
def plan():
    return make_plan("two methods on two pictures", [SMOKE])


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "runs.sqlite")
    yield store
    store.close()


def test_a_sweep_does_every_run_once_and_then_nothing(plan, store):
    swept = sweep(plan, store, in_this_process())
    assert (swept.total, swept.before, swept.done, swept.failed, swept.missing) == (4, 0, 4, 0, 0)
    again = sweep(plan, store, lambda tasks: pytest.fail("ran again") if tasks else iter(()))
    assert (again.before, again.done) == (4, 0)
    assert {r.id for r in store.records()} == {task.run.id for task in plan.tasks}


def test_a_record_says_what_denoise_gives(plan, store):
    """The scores against a call by hand, with noise drawn by its name."""
    sweep(plan, store, in_this_process())
    for record in store.records():
        clean = b2g.load(record.picture)
        noisy = b2g.add_noise(clean, "gaussian", 25, seed=(*record.picture.split("/"), "gaussian", 25, 0))
        answer = b2g.denoise(noisy, record.run().configured(), seed=0, progress=False).image
        error = np.mean((np.clip(answer, 0, 1).astype(float) - clean) ** 2)
        assert record.psnr == pytest.approx(-10 * np.log10(error), abs=6e-5)
        assert record.psnr_noisy == pytest.approx(-10 * np.log10(np.mean((noisy.astype(float) - clean) ** 2)), abs=6e-5)
        rounded = np.rint(np.clip(answer.astype(float), 0, 1) * 255) / 255
        assert record.psnr_8bit == pytest.approx(-10 * np.log10(np.mean((rounded - clean) ** 2)), abs=6e-5)


def test_worker_processes_give_the_same_records(plan, store, tmp_path):
    here = Store(tmp_path / "here.sqlite")
    sweep(plan, here, in_this_process())
    sweep(plan, store, processes(["cpu", "cpu"]))
    assert [(r.id, r.psnr, r.state) for r in store.records()] == [(r.id, r.psnr, r.state) for r in here.records()]


class Troublesome(Method):
    """Does not denoise: ends as its environment variable says."""

    name, source, cost, default_profile, profiles = "troublesome", "-", "-", "official", {"official": {}}

    def __call__(self, noisy, circumstances=None):
        how = os.environ["TROUBLE"]
        if how == "nan":
            return Denoised(noisy * float("nan"))
        if how == "memory":
            raise MemoryError("no more")
        if how == "refuse":
            raise B2GError("too small.")
        raise ZeroDivisionError("a bug")


@pytest.mark.parametrize("how, state, reason", [("nan", "diverged", "not finite"), ("memory", "out of memory", "no more"),
                                                ("refuse", "refused", "too small"), ("bug", "failed", "ZeroDivisionError")])  # fmt: skip
def test_a_failure_is_a_record_and_the_sweep_goes_on(monkeypatch, store, how, state, reason):
    monkeypatch.setitem(METHODS, "troublesome", Troublesome)
    monkeypatch.setenv("TROUBLE", how)
    plan = make_plan("t", [SMOKE | {"methods": ["troublesome", {"zs_n2n": {"steps": 2}}]}])
    swept = sweep(plan, store, in_this_process())
    assert (swept.done, swept.failed, swept.missing) == (2, 2, 0)
    bad = [r for r in store.records() if not r.done]
    assert {r.state for r in bad} == {state} and all(reason in r.reason and r.psnr is None for r in bad)
    assert sweep(plan, store, in_this_process()).done == 0  # a failure is not tried again unasked
    assert sweep(plan, store, in_this_process(), retry=True).failed == 2


def test_a_killed_worker_costs_its_own_run(store):
    """The worker is killed in mid-run; the run's record says so,
    and the other run is done by a new worker."""
    plan = make_plan("t", [SMOKE | {"methods": [{"zs_n2n": {"steps": 200_000}}], "pictures": ["skimage/astronaut"]},
                           SMOKE | {"methods": [{"zs_n2n": {"steps": 2}}], "pictures": ["skimage/coffee"]}])  # fmt: skip
    before = set(_children())
    outcomes = iter(processes(["cpu"])(plan.tasks))
    def kill():
        for _ in range(600):
            time.sleep(0.1)
            busy = [pid for pid in set(_children()) - before if _cpu(pid) > 4 and "resource_tracker" not in _words(pid)]
            if busy:
                os.kill(busy[0], signal.SIGKILL)
                return

    killer = threading.Thread(target=kill)
    killer.start()
    first = next(outcomes).record
    killer.join()
    second = next(outcomes).record
    assert (first.state, "signal 9" in first.reason) == ("killed", True)
    assert second.done and not list(outcomes)


def _children(parent=None) -> list[int]:
    parent = parent or os.getpid()
    return [int(pid) for pid in os.listdir("/proc") if pid.isdigit() and _parent(pid) == parent]


def _stat(pid) -> list[str]:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()
    except OSError:
        return ["?", "0"] + ["0"] * 20


def _parent(pid) -> int:
    return int(_stat(pid)[1])


def _cpu(pid) -> float:
    return (int(_stat(pid)[11]) + int(_stat(pid)[12])) / os.sysconf("SC_CLK_TCK")


def _words(pid) -> str:
    try:
        with open(f"/proc/{pid}/cmdline") as file:
            return file.read()
    except OSError:
        return ""


def test_a_timeout_ends_a_run(store):
    plan = make_plan("t", [SMOKE | {"methods": [{"zs_n2n": {"steps": 200_000}}], "pictures": ["skimage/astronaut"]}])
    sweep(plan, store, processes(["cpu"], timeout=8))
    (record,) = store.records()
    assert record.state == "killed" and "8 s" in record.reason


PLAN = """
title: many short runs
blocks:
- pictures: [skimage/astronaut]
  crop: 32
  repeats: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]
  methods:
  - zs_n2n: {steps: 30}
"""


def test_a_killed_sweep_goes_on_where_it_was(tmp_path):
    """The driver is killed after its third record; what it had is kept, and the next call does the rest,
    no run twice."""
    (tmp_path / "plan.yml").write_text(PLAN)
    command = [sys.executable, "-m", "b2g", "sweep", str(tmp_path / "plan.yml"), "--quiet", "--jobs", "2",
               "--data", str(tmp_path / "data")]  # fmt: skip
    driver = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    base = tmp_path / "data/.working/runs.sqlite"
    while driver.poll() is None and (not base.exists() or len(_ids(base)) < 3):
        time.sleep(0.2)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    kept = _ids(base)
    assert 3 <= len(kept) < 12
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and f"{len(kept)} done, {12 - len(kept)} missing" in done.stdout
    ids = [line.split(",")[0] for line in (tmp_path / "data/records/runs.csv").read_text().splitlines()[1:]]
    assert len(ids) == len(set(ids)) == 12 and kept <= set(ids)


def test_a_killed_sweep_leaves_no_worker_behind(tmp_path):
    """Its worker is in the middle of a run of hours; a second after the driver's death it is gone."""
    (tmp_path / "plan.yml").write_text(PLAN.replace("steps: 30", "steps: 2000000"))
    driver = subprocess.Popen([sys.executable, "-m", "b2g", "sweep", str(tmp_path / "plan.yml"), "--quiet", "--device",
                               "cpu", "--data", str(tmp_path / "data")], stdout=subprocess.DEVNULL)  # fmt: skip
    workers = []
    while not workers:
        time.sleep(0.3)
        workers = [pid for pid in _children(driver.pid) if _cpu(pid) > 4 and "resource_tracker" not in _words(pid)]
    driver.kill()
    driver.wait()
    deadline = time.monotonic() + 60
    while any("spawn_main" in _words(pid) for pid in workers):
        assert time.monotonic() < deadline, "a worker outlived its driver by a minute"
        time.sleep(0.3)


def _ids(base) -> set:
    base = sqlite3.connect(base)
    try:
        return {id for (id,) in base.execute("SELECT id FROM runs")}
    except sqlite3.OperationalError:  # not made yet
        return set()
    finally:
        base.close()


def test_kept_pictures_verify_and_a_changed_one_does_not(tmp_path, store):
    plan = make_plan("t", [SMOKE | {"keep": True}])
    sweep(plan, store, in_this_process(), gallery=tmp_path / "gallery")
    records = store.records()
    assert list(verify(records, tmp_path / "gallery")) == []
    victim, orphan = records[0], records[1]
    path = tmp_path / "gallery" / f"{victim.id}.png"
    with Image.open(path) as picture:
        pixels = np.array(picture)
    pixels[10, 10] ^= 255
    Image.fromarray(pixels).save(path)
    (tmp_path / "gallery" / f"{orphan.id}.png").rename(tmp_path / "gallery" / ("f" * 16 + ".png"))
    (tmp_path / "gallery" / "set9-House-clean.png").write_bytes(path.read_bytes())  # 16 letters, but no id
    found = {(finding.id, finding.problem) for finding in verify(records, tmp_path / "gallery")}
    assert {id for id, _ in found} == {victim.id, orphan.id, "f" * 16}
    problems = " ".join(problem for _, problem in found)
    for words in ("belongs to None", "dB", "not in the gallery", "no record"):
        assert words in problems


def test_a_watched_run_keeps_a_short_history_and_is_not_changed_by_it():
    block = SMOKE | {"pictures": ["skimage/astronaut"], "methods": [{"b2g/smoke": {"steps": 60}}]}
    plain, watched, all_of_it = (
        carry_out(make_plan("t", [block | {"watch": watch}]).tasks[0].run) for watch in ("", "psnr", "training")
    )
    assert plain.history == [] and plain.record.psnr == watched.record.psnr == all_of_it.record.psnr
    assert len({o.record.id for o in (plain, watched, all_of_it)}) == 3
    for outcome in (watched, all_of_it):
        steps = [entry["step"] for entry in outcome.history]
        assert len(steps) <= 27 and steps == sorted(set(steps)) and steps[-1] == 60
    assert "psnr" in watched.history[-1] and "gamma_star_squared" not in watched.history[-1]


def test_slots():
    assert devices("cpu", 3) == ["cpu"] * 3
    assert devices("cuda:0,cuda:1", 2) == ["cuda:0", "cuda:0", "cuda:1", "cuda:1"]
    with pytest.raises(B2GError, match="engine"):
        choose_engine("slurm", "auto", 1, "auto", None)
