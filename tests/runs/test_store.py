"""Records: through CSV and SQLite without loss; merges in any order end in the same files."""

import csv
import itertools
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from b2g.errors import B2GError
from b2g.methods import METHODS
from b2g.runs import Record, Store, specify
from b2g.runs.store import merge_into, read_any, read_folder, write_folder
from b2g.runs.work import Outcome

PICTURE = "skimage/astronaut@64"


def record(repeat=0, **outcome) -> Record:
    known = {"psnr": 30.1234, "psnr_noisy": 20.17, "finished": "2026-01-01T00:00Z", "cpu_seconds": 1.25} | outcome
    return Record.of(specify(PICTURE, METHODS["b2g"].profile("smoke"), repeat=repeat), **known)


HISTORY = [{"step": 10, "seconds": 0.5, "loss": 0.0123, "psnr": 21.5, "slope_visible": -0.25},
           {"step": 20, "seconds": 1.0, "loss": 0.0101}]  # fmt: skip


def test_a_folder_gives_back_what_was_written(tmp_path):
    records = [record(i, ssim_2d=None, reason='a "quoted", odd\treason', state="failed") for i in range(5)]
    write_folder(tmp_path, records, {records[2].id: HISTORY})
    again, histories = read_folder(tmp_path)
    assert again == sorted(records, key=lambda r: r.id)
    assert histories == {records[2].id: HISTORY}
    header = (tmp_path / "runs.csv").read_text().splitlines()[0]
    assert header.startswith("id,")
    ids = [row["id"] for row in csv.DictReader((tmp_path / "runs.csv").read_text().splitlines())]
    assert ids == sorted(ids)


def test_a_store_gives_back_what_it_was_given_and_opens_again(tmp_path):
    store = Store(tmp_path / "runs.sqlite")
    store.add(Outcome(record(1), HISTORY))
    store.close()
    again = Store(tmp_path / "runs.sqlite")
    assert again.records() == [record(1)] and again.histories() == {record(1).id: HISTORY}


def test_of_two_records_the_done_one_stays_then_the_earlier():
    failed = record(state="killed", psnr=None, finished="2025-01-01T00:00Z")
    early, late = record(psnr=30.0), record(psnr=31.0, finished="2026-02-01T00:00Z")
    for first, second, kept in ((failed, late, late), (late, failed, late), (early, late, early), (late, early, early)):
        store = Store(":memory:")
        store.merge([first])
        store.merge([second])
        assert store.records() == [kept]


def test_merging_is_commutative_and_idempotent(tmp_path):
    """Three files that overlap, in all six orders, once and twice: the same bytes."""
    parts = [
        ([record(0), record(1, state="diverged", psnr=None)], {record(0).id: HISTORY}),
        ([record(1, finished="2026-03-01T00:00Z"), record(2)], {record(2).id: HISTORY[:1]}),
        ([record(0, psnr=29.0, finished="2026-05-01T00:00Z"), record(3)], {record(0).id: HISTORY[1:]}),
    ]
    seen = set()
    for number, order in enumerate(itertools.permutations(parts)):
        folder = tmp_path / str(number)
        for records, histories in (*order, *order):
            merge_into(folder, records, histories)
        seen.add(tuple((folder / name).read_bytes() for name in ("runs.csv", "histories.csv")))
    assert len(seen) == 1
    records, histories = read_folder(tmp_path / "0")
    assert len(records) == 4 and all(r.done for r in records)
    assert histories == {record(0).id: HISTORY, record(2).id: HISTORY[:1]}


def test_merge_counts_what_it_did(tmp_path):
    merge_into(tmp_path, [record(0), record(1, state="killed")], {})
    merged = merge_into(tmp_path, [record(0), record(1), record(2)], {})
    assert (merged.new, merged.better, merged.known) == (1, 1, 1)


def test_a_record_changed_by_hand_is_refused(tmp_path):
    write_folder(tmp_path, [record(0)], {})
    path = tmp_path / "runs.csv"
    path.write_text(path.read_text().replace('""omega"":0.8', '""omega"":0.9'))
    with pytest.raises(B2GError, match="changed by hand"):
        read_folder(tmp_path)


@pytest.mark.parametrize("content", ["nothing\n1\n", "id,picture\nx\n", "id,colour\nx,red\n"])
def test_another_table_is_refused_and_nothing_is_merged(tmp_path, content):
    write_folder(tmp_path / "kept", [record(0)], {})
    before = (tmp_path / "kept/runs.csv").read_bytes()
    (tmp_path / "other.csv").write_text(content)
    with pytest.raises(B2GError):
        merge_into(tmp_path / "kept", *read_any(tmp_path / "other.csv"))
    assert (tmp_path / "kept/runs.csv").read_bytes() == before


def test_what_is_no_store_is_refused(tmp_path):
    (tmp_path / "runs.sqlite").write_bytes(b"not a data base, but longer than a header would be" * 10)
    with pytest.raises(B2GError, match="not a store"):
        Store(tmp_path / "runs.sqlite")
    with pytest.raises(B2GError, match="does not exist"):
        read_any(tmp_path / "absent.csv")


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    write_folder(tmp_path, [record(0)], {})
    before = (tmp_path / "runs.csv").read_bytes()
    monkeypatch.setattr(os, "replace", lambda *paths: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError):
        write_folder(tmp_path, [record(0), record(1)], {})
    assert (tmp_path / "runs.csv").read_bytes() == before and not list(tmp_path.glob(".*part"))


WRITER = """
import sys
sys.path.insert(0, sys.argv[2])
from test_store import record
from b2g.runs import Store
from b2g.runs.work import Outcome
store = Store(sys.argv[1])
for repeat in range(100_000):
    store.add(Outcome(record(repeat)))
    print(repeat, flush=True)
"""


def test_a_kill_loses_no_record_that_was_kept(tmp_path):
    """A writer is killed at a moment of its own; every record it had reported is there, and whole."""
    path = tmp_path / "runs.sqlite"
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path), os.path.dirname(__file__)],
                              stdout=subprocess.PIPE, text=True)  # fmt: skip
    reported = [int(writer.stdout.readline()) for _ in range(20)]
    time.sleep(0.05)
    writer.send_signal(signal.SIGKILL)
    reported += [int(line) for line in writer.stdout.read().split("\n")[:-1]]
    writer.wait()
    writer.stdout.close()
    kept = {r.repeat for r in Store(path).records()}
    assert set(reported) <= kept and len(kept) <= len(reported) + 1


def test_records_are_frozen_values():
    assert record(0) == record(0) and replace(record(0), psnr=1.0) != record(0)
