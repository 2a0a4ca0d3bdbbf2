"""The benchmarks' tables are read with checks, and what plans still need is priced by records."""

import math
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from b2g.errors import B2GError
from b2g.face import choose_method
from b2g.report import benchmarks
from b2g.report.benchmarks import Cost, Floor, SideBySide
from b2g.runs.plan import read_plan
from b2g.runs.record import Record
from b2g.runs.spec import specify

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import kept
import memory

COST = dict(method="b2g/fast", size=256, tile=0, device="cpu", machine="one, 2 cores", precision="bfloat16", threads=1,
            steps=16, all_steps=300, whole_seconds=13.107, start_mb=300.0, peak_mb=800.0, cuda_mb=None)  # fmt: skip
FLOOR = dict(profile="fast", size=512, channels=3, engine="eager", device="cpu", machine="one", precision="bfloat16", threads=1,
             gflop=10.0, mb_as_written=20.0, ms=300.0, floor_ms=100.0, fused_floor_ms=60.0, peak_gflops=100.0, bandwidth_gbs=9.0)
SIDE = dict(method="b2g", profile="fast", pictures=8, size=64, channels=1, how="grouped", device="cuda", machine="card",
            precision="bfloat16", threads=1, steps=40, alone=10.0, together=0.5)  # fmt: skip


def cost(**changes):
    return Cost(**{**COST, **changes})


@pytest.mark.parametrize("kind, values", [(Cost, COST), (Floor, FLOOR), (SideBySide, SIDE)])
def test_what_a_benchmark_keeps_is_read_back(kind, values, tmp_path):
    assert benchmarks.stored(kind, tmp_path) == []
    for _ in range(2):  # a second time takes the place of the first
        kept.keep(kind, [{**values, "torch": "2"}, {**values, "size": 1024, "torch": "2"}], ("machine", "size"), tmp_path)
    assert benchmarks.stored(kind, tmp_path) == [kind(**values), kind(**{**values, "size": 1024})]


def test_figures_that_follow_from_a_row():
    assert cost().per_megapixel == pytest.approx(200.0, rel=1e-4) and cost().memory == 500.0 and cost(cuda_mb=70.0).memory == 70.0
    assert Floor(**FLOOR).over_floor == 3.0 and Floor(**FLOOR).over_fused_floor == 5.0
    assert SideBySide(**SIDE).times == 20.0


def test_the_benchmark_of_cost_has_the_columns_that_are_read():
    assert {f.name for f in fields(Cost)} <= set(memory.COLUMNS)


@pytest.mark.parametrize("change, words", [
    (dict(machine=""), "names no machine"),
    (dict(size="large"), "size is 'large', which is no number"),
    (dict(whole_seconds="nan"), "whole_seconds is nan, which cannot be"),
    (dict(whole_seconds="0"), "whole_seconds is 0, which cannot be"),
    (dict(peak_mb="-1"), "peak_mb is -1, which cannot be"),
    (dict(steps=""), "steps is '', which is no number"),
])  # fmt: skip
def test_a_row_that_cannot_be_is_refused(change, words, tmp_path):
    row = {name: "" if value is None else str(value) for name, value in {**COST, **change}.items()}
    lines = [",".join(row), ",".join(f'"{cell}"' for cell in row.values())]
    (tmp_path / "cost.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(B2GError, match=words) as found:
        benchmarks.stored(Cost, tmp_path)
    assert "cost.csv, line 2" in str(found.value)


def test_a_missing_column_is_named(tmp_path):
    (tmp_path / "cost.csv").write_text("method,size\nb2g/fast,256\n")
    with pytest.raises(B2GError, match="line 2 has no tile, device"):
        benchmarks.stored(Cost, tmp_path)


def test_rows_are_grouped_by_machine_and_sorted_by_size():
    rows = [cost(size=512), cost(), cost(machine="two"), cost(device="cuda:0"), cost(device="cuda:1", size=128), cost(tile=256)]
    groups = benchmarks.grouped(rows, "method", "tile")
    sizes = {(where[0], where[1], tile): [row.size for row in found] for (where, _, tile), found in groups.items()}
    assert sizes == {("cpu", "one, 2 cores", 0): [256, 512], ("cpu", "one, 2 cores", 256): [256],
                     ("cpu", "two", 0): [256], ("cuda", "one, 2 cores", 0): [128, 256]}  # fmt: skip


def test_the_exponent_is_the_slope_of_logarithms():
    sizes = (128, 256, 512, 1024)
    exact = benchmarks.exponent([cost(size=s, whole_seconds=3 * (s * s) ** 1.25) for s in sizes])
    assert (exact.mean, exact.low, exact.high) == pytest.approx((1.25, 1.25, 1.25)) and exact.n == 4
    noisy = benchmarks.exponent([cost(size=s, whole_seconds=s * s * f) for s, f in zip(sizes, (1.0, 1.3, 0.9, 1.1))])
    x, y = [2 * math.log(s) for s in sizes], [2 * math.log(s) + math.log(f) for s, f in zip(sizes, (1.0, 1.3, 0.9, 1.1))]
    centre, level = sum(x) / 4, sum(y) / 4
    spread = sum((a - centre) ** 2 for a in x)
    slope = sum((a - centre) * (b - level) for a, b in zip(x, y)) / spread
    rest = sum((b - level - slope * (a - centre)) ** 2 for a, b in zip(x, y))
    reach = 4.302653 * math.sqrt(rest / 2 / spread)  # Student's 97.5 % quantile at 2 degrees of freedom
    assert (noisy.mean, noisy.low, noisy.high) == pytest.approx((slope, slope - reach, slope + reach), rel=1e-5)


def test_two_sizes_give_a_slope_and_one_gives_none():
    two = benchmarks.exponent([cost(), cost(size=512, whole_seconds=COST["whole_seconds"] * 4)])
    assert (two.mean, two.low, two.n) == (pytest.approx(1.0), None, 2)
    assert benchmarks.exponent([cost()]).mean is None and benchmarks.exponent([cost(), cost()]).mean is None


PLAN = """
title: tiny
blocks:
- pictures: [skimage/astronaut, skimage/camera]
  crop: 64
  methods: [zs_n2n, bm3d: {sigma: given}, zs_n2n: {steps: 500}]
"""


def done(method, seconds, picture="skimage/astronaut@64", device="cpu", **other):
    return Record.of(specify(picture, method), psnr=30.0, seconds=seconds, cpu_seconds=seconds, device=device, **other)


def test_what_is_left_is_priced_by_runs_like_it(tmp_path):
    path = tmp_path / "tiny.yml"
    path.write_text(PLAN)
    [empty] = benchmarks.left([], [path])
    assert (empty.title, empty.total, empty.missing, empty.seconds, empty.unknown) == ("tiny", 6, 6, 0, 6)
    [known] = benchmarks.left([done(choose_method("zs_n2n"), 80.0)], [path])
    assert (known.missing, known.seconds, known.unknown) == (5, pytest.approx(80.0 + 20.0 + 20.0), 2)
    [card] = benchmarks.left([done(choose_method("zs_n2n"), 80.0)], [path], device="cuda")
    assert (card.missing, card.seconds, card.unknown) == (5, 0, 5)
    [card] = benchmarks.left([done(choose_method("zs_n2n"), 8.0, device="cuda:0")], [path], device="cuda")
    assert (card.seconds, card.unknown) == (pytest.approx(8.0 + 2.0 + 2.0), 2)


def test_a_run_that_failed_is_not_left():
    plan = read_plan("paper-letter")
    failed = Record.of(plan.tasks[0].run, state="diverged", device="cpu")
    [found] = benchmarks.left([failed], ["paper-letter"])
    assert (found.name, found.total, found.missing) == ("paper-letter", len(plan.tasks), len(plan.tasks) - 1)


@pytest.mark.parametrize("kind", benchmarks.FILES)
def test_what_is_stored_today_can_be_read(kind):
    assert all(row.machine for row in benchmarks.stored(kind))
