"""``b2g sweep | records | verify`` as a user types them."""

import pytest

from b2g.__main__ import main
from b2g.runs.store import read_folder, write_folder

PLAN = """
title: one short run
blocks:
- pictures: [skimage/astronaut]
  crop: 32
  keep: true
  methods: [{zs_n2n: {steps: 3}}]
"""


@pytest.fixture
def place(tmp_path):
    (tmp_path / "plan.yml").write_text(PLAN)
    return tmp_path


def sweep(place, *words):
    return main(["sweep", str(place / "plan.yml"), "--data", str(place / "data"), "--quiet", "--device", "cpu", *words])


def test_sweep_says_what_is_missing_does_it_and_verify_agrees(place, capsys):
    assert sweep(place, "--dry-run") == 0
    assert "1 runs, 0 done, 1 missing" in capsys.readouterr().out
    assert not (place / "data/records/runs.csv").exists()
    assert sweep(place) == 0
    assert "1 done, 0 failed, 0 missing" in capsys.readouterr().out
    records, _ = read_folder(place / "data/records")
    assert len(records) == 1 and (place / f"data/gallery/{records[0].id}.png").exists()
    assert main(["verify", "--data", str(place / "data"), "--rerun", "1"]) == 0
    assert "1 records, 1 kept pictures, 1 run again: 0 problems." in capsys.readouterr().out
    (place / f"data/gallery/{records[0].id}.png").unlink()
    assert main(["verify", "--data", str(place / "data")]) == 1
    assert records[0].id in capsys.readouterr().err


def test_records_merge(place, capsys):
    sweep(place)
    records, _ = read_folder(place / "data/records")
    write_folder(place / "other", [records[0]], {})
    capsys.readouterr()
    assert main(["records", "merge", str(place / "other"), "--data", str(place / "new")]) == 0
    assert "1 new, 0 better, 0 known" in capsys.readouterr().out
    assert main(["records", "merge", str(place / "other/runs.csv"), "--data", str(place / "new")]) == 0
    assert "0 new, 0 better, 1 known" in capsys.readouterr().out
    assert main(["records", "merge", str(place / "data/.working/runs.sqlite"), "--data", str(place / "new")]) == 0
    assert read_folder(place / "new/records")[0] == records


@pytest.mark.parametrize(
    "words, say",
    [(["sweep", "table9"], "no plan"), (["sweep", "set9-crops", "--jobs", "0"], "--jobs"),
     (["records", "merge"], "at least one"), (["records", "merge", "absent.csv"], "does not exist"),
     (["sweep", "absent.yml"], "no plan")],
)  # fmt: skip
def test_bad_words_end_with_one_sentence(words, say, capsys, tmp_path):
    assert main([*words, "--data", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert say in error and error.count("\n") == 1


def test_without_a_plan_all_are_listed(capsys):
    assert main(["sweep"]) == 0
    listed = capsys.readouterr().out
    assert "ablation-masks" in listed and "set9-crops" in listed
