"""benchmarks/memory.py and noise_level.py: what they compute from their measurements,
on numbers of our own."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import memory
import noise_level


def row(size, whole, tile=0, **more):
    return dict.fromkeys(memory.COLUMNS, "") | {
        "method": "b2g/fast", "size": size, "tile": tile, "device": "cpu", "machine": "a machine, 2 cores", "precision": "float32",
        "threads": 1, "steps": 3, "all_steps": 300, "whole_seconds": whole, "start_mb": 300, "peak_mb": 420,
    } | more  # fmt: skip


def test_the_exponent_is_the_slope_in_logarithms():
    assert memory.exponent([(x, 3 * x**1.25) for x in (100, 1000, 5000)]) == pytest.approx(1.25)
    lines = memory.table([row(s, 2e-4 * s**2) for s in (128, 256, 512)]).splitlines()
    assert lines[-1].endswith("pixels^1.00") and lines[2].split()[1:5] == ["128", "200.0", "3.3", "120"]
    assert "extrapolated from 3 of 300 steps" in lines[2]


def test_only_the_steps_are_extrapolated_and_those_of_every_tile():
    assert memory.in_steps([{"sigma": 3.0}]) == 0
    assert memory.in_steps([{"step": 1, "seconds": 1.0}, {"step": 2, "seconds": 2.5}]) == 2.5
    assert memory.in_steps([{"tile": t, "step": k, "seconds": k + t / 2} for t in (0, 1) for k in (1, 2)]) == 4.5


@pytest.mark.parametrize("size", [128, 300, 700])
def test_the_scene_is_of_the_size_asked_for(size):
    assert memory.scene(size).shape == (size, size, 3)
    steps = memory.counted_steps(size, 300)
    assert 2 <= steps <= 16 and memory.counted_steps(size, 1) == 1


def test_rows_are_stored_once_and_read_back(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "RECORDS", tmp_path / "cost.csv")
    for each in (row(512, 9.0), row(128, 1.0), row(128, 2.0)):
        memory.store(each)
    found = memory.stored()
    assert [(r["size"], r["whole_seconds"], r["machine"]) for r in found] == [
        ("128", "2.0", "a machine, 2 cores"), ("512", "9.0", "a machine, 2 cores")]  # fmt: skip


def test_noise_levels_are_measured_told_and_stored(tmp_path, monkeypatch):
    monkeypatch.setattr(noise_level, "RECORDS", tmp_path / "noise_level.csv")
    how = (["skimage/astronaut"], 32, True, "gaussian", (25, 50), 2)
    rows = noise_level.measure(*how)
    assert [(r["picture"], r["channels"], r["level"], r["repeat"]) for r in rows] == [
        ("skimage/astronaut@32", "1", level, repeat) for level in ("25", "50") for repeat in ("0", "1")]  # fmt: skip
    noise_level.store(rows[2:]), noise_level.store(rows)
    assert noise_level.stored() == rows
    told = [dict(rows[0], estimate=value) for value in ("25.25", "24")]
    line = noise_level.table(told).splitlines()[1].split()
    assert line[-5:] == ["-1.50", "2.50", "-4.00", "50%", "skimage/astronaut@32"]
    errors = [float(r["estimate"]) / float(r["level"]) - 1 for r in rows]
    assert np.abs(errors).max() < 0.2
