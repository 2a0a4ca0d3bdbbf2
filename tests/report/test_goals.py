"""Targets of speed: reached, missed or not measured, by made-up rows."""

from dataclasses import replace

import pytest

from b2g.face import choose_method
from b2g.report import timing
from b2g.report.benchmarks import Cost, Floor, SideBySide
from b2g.report.goals import goals, in_tiles, on_cpu, per_pixel, whole_set
from b2g.report.readings import pictures
from b2g.runs.record import Record
from b2g.runs.spec import specify

COST = Cost("b2g/fast", 256, 0, "cpu", "one", "bfloat16", 1, 16, 300, 10.0, 300.0, 700.0, None)
FLOOR = Floor("fast", 512, 3, "graph", "cuda", "card", "bfloat16", 1, 10.0, 20.0, 2.4, 1.0, 0.5, 1e5, 3e3)
SIDE = SideBySide("b2g", "fast", 256, 64, 1, "grouped", "cuda", "card", "bfloat16", 1, 40, 10.0, 0.4)


def done(picture, name="b2g", seconds=9.0, machine="NVIDIA H100", device="cuda", watch="", **other):
    run = specify(picture, choose_method(name), watch=watch, **other)
    return Record.of(run, psnr=30.0, seconds=seconds, machine=machine, device=device)


def by_words(rows, start):
    [goal] = [goal for goal in rows if goal.words.startswith(start)]
    return goal


def test_without_measurements_nothing_is_judged():
    for goal in goals([], [], [], [], []):
        assert goal.reached is None and goal.row()[2] == "–" and goal.row()[3].startswith("not measured: ")


@pytest.mark.parametrize("ms, reached", [(2.5, True), (2.6, False)])
def test_a_step_s_floor_is_that_of_the_fastest_engine_on_a_gpu(ms, reached):
    rows = [replace(FLOOR, ms=ms), replace(FLOOR, ms=9.0, engine="eager"), replace(FLOOR, device="cpu", ms=1.0),
            replace(FLOOR, size=256, ms=1.0), replace(FLOOR, profile="best", ms=1.0)]  # fmt: skip
    goal = by_words(goals([], [], [], rows, []), "A step of b2g/fast")
    assert goal.found == {"card": pytest.approx(ms)} and goal.reached is reached


def test_side_by_side_counts_many_pictures_on_a_gpu():
    rows = [SIDE, replace(SIDE, together=0.1, pictures=99), replace(SIDE, together=0.1, device="cpu")]
    goal = by_words(goals([], [], [], [], rows), "Small pictures")
    assert goal.found == {"card": 25.0} and goal.reached is True
    assert by_words(goals([], [], [], [], [replace(SIDE, together=0.51)]), "Small pictures").reached is False


def test_a_set_counts_only_when_it_is_whole():
    names = pictures("set9")
    records = [done(name) for name in names]
    assert whole_set(records, "b2g", "fast") == {"NVIDIA H100": 81.0}
    again = [*records, done(names[0], repeat=1, seconds=11.0)]
    assert whole_set(again, "b2g", "fast") == {"NVIDIA H100": 82.0}
    assert whole_set(records[1:], "b2g", "fast") == {}
    strangers = [done(names[0], machine="NVIDIA A100"), done(names[0], device="cpu"), done(names[0], level=50.0),
                 done(names[0] + "@64"), done(names[0], name="zs_n2n")]  # fmt: skip
    assert whole_set(records[1:] + strangers, "b2g", "fast") == {}
    goal = by_words(goals(again, [], [], [], []), "b2g/fast on all of Set9")
    assert goal.reached is True and goal.row()[2] == "82 s (NVIDIA H100)"


def test_a_cpu_s_time_is_the_longest_of_the_levels():
    picture = "skimage/astronaut@256"
    runs = [done(picture, name, seconds, "one", "cpu", "psnr", level=level) for name, seconds, level in
            [("nl_ridge", 3.0, 25.0), ("b2g", 150.0, 25.0), ("nl_ridge", 3.0, 50.0), ("b2g", 190.0, 50.0)]]  # fmt: skip
    races = timing.races(runs, {})
    assert on_cpu(races) == {"one": 190.0} and on_cpu(races[:1]) == {"one": 150.0}
    assert by_words(goals([], races, [], [], []), "b2g/fast on a colour").reached is False


def test_seconds_a_pixel_are_compared_on_whole_pictures():
    rows = [COST, replace(COST, size=1024, whole_seconds=200.0), replace(COST, size=1024, tile=256, whole_seconds=1.0),
            replace(COST, method="lichi", whole_seconds=1.0)]  # fmt: skip
    assert per_pixel(rows) == {"one": pytest.approx(20 / 16)} and per_pixel(rows[:1]) == {}


def test_memory_in_tiles_is_that_of_the_worst_method_on_its_largest_picture():
    rows = [replace(COST, size=512, peak_mb=1300.0), replace(COST, size=512, tile=256, peak_mb=550.0),
            replace(COST, size=1024, peak_mb=4300.0), replace(COST, size=1024, tile=256, peak_mb=700.0),
            replace(COST, method="lichi", size=512, peak_mb=1300.0), replace(COST, method="lichi", size=512, tile=256)]  # fmt: skip
    assert in_tiles(rows) == {"one": pytest.approx(0.4)} and in_tiles(rows[:1]) == {}
