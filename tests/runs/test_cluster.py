"""Sweeps on real Ray clusters: nothing is lost with a worker, a node or the driver, or done twice."""

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import types
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from b2g.__main__ import main
from b2g.errors import B2GError
from b2g.runs import Record, Store, cluster, sweep
from b2g.runs.engine import in_this_process
from b2g.runs.plan import make_plan
from b2g.runs.store import read_folder
from b2g.runs.work import Outcome

# One cluster serves most tests of this file, so they share a worker of pytest-xdist (--dist loadgroup).
pytestmark = pytest.mark.xdist_group("ray")
BUSY = "Ray does not start on a machine as busy as this one"
MISSING = "Ray is not installed: pip install 'b2g[ray]'"
QUIET = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}


@pytest.fixture(scope="module")
def ray():
    """Ray; what is still connected at the end of this file is shut down."""
    ray = pytest.importorskip("ray", reason=MISSING)
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import this file
    yield ray
    ray.shutdown()


@pytest.fixture
def here(ray):
    """The address of a cluster with two CPUs and a GPU that is only said to be there."""
    try:
        if not ray.is_initialized():
            ray.init("local", num_cpus=2, num_gpus=1, object_store_memory=cluster.OBJECT_STORE, **QUIET)
        return ray.get_runtime_context().gcs_address
    except Exception as error:  # Ray's half a dozen processes must answer within its own deadlines
        ray.shutdown()
        pytest.skip(f"{BUSY}: {type(error).__name__} {error}")


def plan(runs, **block):
    """Runs of a small picture that differ in their draw of noise, ``repeat`` 0, 1, ..."""
    block = {"pictures": ["skimage/astronaut@32"], "methods": [{"b2g/smoke": {"steps": 3}}]} | block
    return make_plan("test", [block | {"repeats": list(range(runs))}])


def states(outcomes):
    return {outcome.record.repeat: outcome.record.state for outcome in outcomes}


def works(before=lambda run: None):
    """Stands for `carry_out`: calls ``before``, then says that the run is done."""

    def work(run, keep, device, precision, threads):
        seen = before(run)
        return Outcome(Record.of(run, psnr=float(run.repeat), reason=str(seen or ""), device=device))

    return work


def wait_for(condition, what, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.02)


# ---- what comes out ----


def test_the_records_are_those_of_this_process(here, tmp_path):
    """Every column but the times, the histories, and every byte of the pictures; on one thread both times."""
    wanted = plan(2, methods=[{"b2g/smoke": {"steps": 3}}, "zs_n2n/smoke"], watch="psnr", keep=True)
    found = []
    for name, engine in (
        ("ray", cluster.on_ray("float32", gpus=0)),
        ("here", in_this_process("cpu", "float32")),
    ):
        store = Store(tmp_path / f"{name}.sqlite")
        swept = sweep(wanted, store, engine, gallery=tmp_path / name)
        assert (swept.done, swept.failed, swept.missing) == (4, 0, 0)
        records = [replace(r, seconds=None, cpu_seconds=None, finished="") for r in store.records()]
        histories = store.histories()
        for entry in sum(histories.values(), []):
            del entry["seconds"]
        found.append((records, histories, {p.name: p.read_bytes() for p in (tmp_path / name).iterdir()}))
        store.close()
    assert found[0] == found[1]
    records, histories, pictures = found[0]
    assert {r.id for r in records} == {task.run.id for task in wanted.tasks} == set(histories)
    assert len({r.psnr for r in records}) == 4 and len(pictures) == 5


def test_no_more_tasks_are_sent_than_soon_have_a_slot(here):
    taken = []
    tasks = (taken.append(task) or task for task in plan(100).tasks)
    outcomes = cluster.on_ray(gpus=0, work=works())(tasks)
    next(outcomes)
    assert len(taken) == max(cluster.LEAST, 2 * cluster.AHEAD)
    assert len(list(outcomes)) == 99 and len(taken) == 100


def test_folders_go_along_as_whole_paths(here, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("B2G_CACHE", "kept/here")
    work = works(lambda run: os.environ["B2G_CACHE"])
    (outcome,) = cluster.on_ray(gpus=0, work=work)(plan(1).tasks)
    assert outcome.record.reason == str(tmp_path / "kept/here")


def test_runs_share_a_gpu_as_told(here, tmp_path):
    """Two runs on halves of one GPU wait for each other, which ends only if they are there together."""

    def meet(run):
        (tmp_path / str(run.repeat)).touch()
        wait_for(lambda: len(list(tmp_path.iterdir())) == 2, "the other run")
        return os.environ["CUDA_VISIBLE_DEVICES"]

    outcomes = list(cluster.on_ray(gpus=0.5, work=works(meet))(plan(2).tasks))
    assert [(o.record.device, o.record.reason) for o in outcomes] == [("cuda", "0")] * 2
    (alone,) = cluster.on_ray(work=works(lambda run: os.environ["CUDA_VISIBLE_DEVICES"]))(plan(1).tasks)
    assert (alone.record.device, alone.record.reason) == ("cuda", "0"), "given by default"


# ---- what goes wrong ----


def test_a_killed_worker_is_tried_again(here, tmp_path):
    """SIGKILL from outside while a run is at work; the run, and all others, end done."""

    def hang_once(run):
        tries = tmp_path / str(run.repeat)
        with open(tries, "a") as file:
            print(os.getpid(), file=file)
        if run.repeat == 1 and len(tries.read_text().split()) == 1:
            time.sleep(1000)

    def kill():
        wait_for(lambda: (tmp_path / "1").exists() and (tmp_path / "1").read_text(), "the run to begin")
        os.kill(int((tmp_path / "1").read_text()), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    outcomes = list(cluster.on_ray(gpus=0, work=works(hang_once))(plan(4).tasks))
    killer.join()
    assert states(outcomes) == dict.fromkeys(range(4), "done")
    assert [len((tmp_path / str(i)).read_text().split()) for i in range(4)] == [1, 2, 1, 1]


def test_a_run_that_never_survives_is_recorded_as_killed(here, tmp_path):
    def die(run):
        if run.repeat == 1:
            with open(tmp_path / "tries", "a") as file:
                print("one more", file=file)
            os.kill(os.getpid(), signal.SIGKILL)

    outcomes = list(cluster.on_ray(gpus=0, work=works(die))(plan(3).tasks))
    assert states(outcomes) == {0: "done", 1: "killed", 2: "done"}
    killed = next(o.record for o in outcomes if not o.record.done)
    tries = len((tmp_path / "tries").read_text().splitlines())
    assert tries == cluster.RETRIES + 1 and f"each of {tries} tries" in killed.reason
    assert killed.run() == plan(3).tasks[1].run and killed.machine == ""


def test_a_task_that_raises_ends_nothing_else(here):
    def stumble(run):
        if run.repeat == 0:
            raise ZeroDivisionError("by run 0")

    outcomes = list(cluster.on_ray(gpus=0, work=works(stumble))(plan(3).tasks))
    assert states(outcomes) == {0: "failed", 1: "done", 2: "done"}
    assert {o.record.reason for o in outcomes} == {"", "ZeroDivisionError: by run 0"}


def test_a_node_without_the_package_ends_the_sweep(here, monkeypatch):
    """Else it would fail all runs in no time. A module that only the driver has stands for b2g."""
    module = types.ModuleType("only_here")
    exec("def work(*words): pass", module.__dict__)
    monkeypatch.setitem(sys.modules, "only_here", module)
    with pytest.raises(B2GError, match="No module named 'only_here'.*install this package"):
        list(cluster.on_ray(gpus=0, work=module.work)(plan(3).tasks))


def all_but_one_hang(folder):
    """What a run does: that which comes first ends, the others leave a file with their process's number and
    hang. Tasks begin in no set order.
    """

    def hang(run):
        try:
            (folder / "first").touch(exist_ok=False)
        except FileExistsError:
            (folder / f"hangs-{os.getpid()}").touch()
            time.sleep(1000)

    return hang


def give_up(folder, **where):
    """A sweep that is given up while both slots of the cluster hang."""
    outcomes = cluster.on_ray(gpus=0, work=works(all_but_one_hang(folder)), **where)(plan(20).tasks)
    assert next(outcomes).record.done
    wait_for(lambda: len(list(folder.glob("hangs-*"))) == 2, "both workers to be at work")
    outcomes.close()


def wait_for_the_end_of_what_hangs(folder):
    pids = [int(path.name.partition("-")[2]) for path in folder.glob("hangs-*")]
    wait_for(lambda: not any(psutil.pid_exists(pid) for pid in pids), "the workers to end")


def test_a_sweep_given_up_leaves_the_cluster_free(here, ray, tmp_path):
    give_up(tmp_path)
    wait_for_the_end_of_what_hangs(tmp_path)
    assert ray.is_initialized() and len(list(cluster.on_ray(gpus=0, work=works())(plan(3).tasks))) == 3


JOINED = """
import sys, time
from pathlib import Path
import ray, test_cluster
ray.cloudpickle.register_pickle_by_value(test_cluster)
test_cluster.give_up(Path(sys.argv[2]), address=sys.argv[1])
print("given up", flush=True)
time.sleep(1000)
"""


def test_a_sweep_given_up_leaves_a_joined_cluster_free(here, tmp_path):
    """While the program that gave it up goes on: its runs end with its connection."""
    told = {"stdout": subprocess.PIPE, "cwd": Path(__file__).parent}
    driver = subprocess.Popen([sys.executable, "-c", JOINED, here, str(tmp_path)], **told)
    try:
        assert driver.stdout.readline() == b"given up\n"
        wait_for_the_end_of_what_hangs(tmp_path)
        assert driver.poll() is None
    finally:
        driver.kill()
        driver.communicate()
    assert len(list(cluster.on_ray(gpus=0, work=works())(plan(3).tasks))) == 3


DRIVER = """
import sys, time
from functools import partial
import ray, test_cluster
from b2g.__main__ import main
from b2g.runs import cluster
ray.cloudpickle.register_pickle_by_value(test_cluster)
cluster.on_ray = partial(cluster.on_ray, work=test_cluster.works(lambda run: time.sleep(0.2)))
sys.exit(main(sys.argv[1:]))
"""


def test_a_killed_driver_loses_only_runs_in_flight(here, tmp_path):
    """`b2g sweep` joins the cluster, is killed in mid-sweep, and goes on: every run is done once."""
    (tmp_path / "plan.yml").write_text("""
title: killed
blocks: [{pictures: [skimage/astronaut@32], methods: [b2g/smoke], repeats: [%s]}]
""" % ", ".join(map(str, range(30))))
    words = f"sweep {tmp_path}/plan.yml --engine ray --gpus 0 --quiet --data {tmp_path}".split()
    told = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "cwd": Path(__file__).parent}
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, *words, "--address", here], **told)
    base = tmp_path / ".working/runs.sqlite"

    try:
        wait_for(lambda: driver.poll() is not None or count(base), "the first record")
    finally:
        driver.kill()
        told = driver.communicate()[0].decode()
    store = Store(base)
    before = store.records()
    store.close()
    assert 0 < len(before) < 30, told
    assert main(words) == 0
    after, _ = read_folder(tmp_path / "records")
    assert sorted(r.repeat for r in after) == list(range(30)) and all(r.done for r in after)
    assert [r for r in after if r.id in {b.id for b in before}] == before, "what was kept was not done again"


def count(base):
    """Records in a store that another process may be making."""
    try:
        with contextlib.closing(sqlite3.connect(f"file:{base}?mode=ro", uri=True)) as connection:
            return connection.execute("SELECT count(*) FROM runs").fetchone()[0]
    except sqlite3.OperationalError:
        return 0


# ---- coming and going ----


def test_a_cluster_of_its_own_ends_with_the_sweep(ray, monkeypatch):
    """Also when given up half-way: no process of it is left, and no run is cancelled, at which Ray may abort."""
    ray.shutdown()
    monkeypatch.setattr(ray, "cancel", lambda *words, **more: pytest.fail("cancelled"))
    before = set(psutil.Process().children(recursive=True))
    outcomes = cluster.on_ray(gpus=0, work=works())(plan(20).tasks)
    try:
        assert next(outcomes).record.done
    except B2GError as error:
        pytest.skip(f"{BUSY}: {error}")
    started = set(psutil.Process().children(recursive=True)) - before
    assert {"raylet", "gcs_server"} <= {process.name() for process in started}
    if not ray.cluster_resources().get("GPU"):
        with pytest.raises(B2GError, match="has none"):
            next(cluster.on_ray(gpus=0.5)(plan(1).tasks))
    with pytest.raises(B2GError, match="part of a Ray cluster"):
        next(cluster.on_ray(address="10.0.0.1:6379")(plan(1).tasks))
    outcomes.close()
    assert not ray.is_initialized()
    wait_for(lambda: not any(process.is_running() for process in started), "its processes to end")


def test_where_no_cluster_answers(ray, monkeypatch):
    ray.shutdown()
    with pytest.raises(B2GError, match="cluster at 127.0.0.1:1 cannot be joined .*refused"):
        next(cluster.on_ray(address="127.0.0.1:1")(plan(1).tasks))
    monkeypatch.setenv("RAY_ADDRESS", "ray://127.0.0.1:1")
    with pytest.raises(B2GError, match="cluster at ray://127.0.0.1:1 cannot be joined"):
        next(cluster.on_ray()(plan(1).tasks))
    assert not ray.is_initialized()


@pytest.mark.parametrize("gpus", [-0.5, 2, float("nan")])
def test_a_share_is_of_one_gpu(ray, gpus):
    with pytest.raises(B2GError, match="share of one GPU"):
        cluster.on_ray(gpus=gpus)


def test_without_ray_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(B2GError, match=r"pip install 'b2g\[ray\]'"):
        cluster.on_ray()


@pytest.mark.slow
def test_a_lost_node_costs_no_run(ray, tmp_path):
    """Two nodes with a run each, one is lost: both runs end done, and the cluster is left as it is."""
    from ray.cluster_utils import Cluster

    def meet(run):
        with open(tmp_path / str(run.repeat), "a") as file:
            print(os.getpid(), file=file)
        wait_for(lambda: (tmp_path / "go").exists(), "the node to be lost")

    def lose():
        """The other run may go on only when the lost node's worker has ended with it."""
        wait_for(lambda: all((tmp_path / name).exists() and (tmp_path / name).read_text() for name in "01"), "both runs")
        nodes.remove_node(lost, allow_graceful=False)
        pids = [int((tmp_path / name).read_text()) for name in "01"]
        wait_for(lambda: not all(psutil.pid_exists(pid) for pid in pids), "the worker to end with its node")
        (tmp_path / "go").touch()

    ray.shutdown()
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    lost = nodes.add_node(num_cpus=1)
    loser = threading.Thread(target=lose)
    loser.start()
    outcomes = list(cluster.on_ray(address=nodes.address, work=works(meet))(plan(2).tasks))
    loser.join()
    assert states(outcomes) == {0: "done", 1: "done"}
    assert sorted(len((tmp_path / str(i)).read_text().splitlines()) for i in range(2)) == [1, 2]
    assert len(list(cluster.on_ray(address=nodes.address, work=works())(plan(2).tasks))) == 2
    nodes.shutdown()


@pytest.mark.slow
def test_a_run_without_enough_memory_is_recorded(ray):
    """Ray's own watch on the memory, told that one part in a hundred is too much."""
    ray.shutdown()
    watch = {"memory_usage_threshold": 0.01, "memory_monitor_refresh_ms": 100}
    ray.init("local", num_cpus=1, _system_config=watch, object_store_memory=cluster.OBJECT_STORE, **QUIET)
    (outcome,) = cluster.on_ray(gpus=0, work=works(lambda run: time.sleep(60)))(plan(1).tasks)
    ray.shutdown()
    assert outcome.record.state == "out of memory" and "memory" in outcome.record.reason
