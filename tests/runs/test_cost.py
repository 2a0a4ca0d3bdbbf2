"""What a run would cost, from records of its like."""

import math

import pytest

from b2g.face import choose_method
from b2g.methods import METHODS
from b2g.runs import Record, specify
from b2g.runs.cost import Costs, estimate_seconds, pixels, spoken
from b2g.runs.plan import make_plan

FAST = METHODS["b2g"].profile("fast")


def record(crop, steps, seconds, **outcome):
    run = specify(f"skimage/astronaut@{crop}", FAST.changed(steps=steps))
    return Record.of(run, **{"cpu_seconds": seconds, "seconds": seconds, "device": "cpu"} | outcome)


def test_linear_in_steps_and_a_power_of_the_pixels_between_the_nearest_sizes():
    records = [record(64, 100, 4.0), record(128, 100, 10.0), record(128, 200, 22.0)]
    step = (10 / 100 + 22 / 200) / 2  # the median of two is their mean
    power = math.log(step / 0.04) / math.log(4)
    assert estimate_seconds(FAST, 128**2, records) == pytest.approx(step * FAST.steps)
    assert estimate_seconds(FAST, 256**2, records) == pytest.approx(step * 4**power * FAST.steps) and 0.6 < power < 0.8
    assert estimate_seconds(FAST, 96**2, records) == pytest.approx(0.04 * 2.25**power * FAST.steps)
    assert estimate_seconds(FAST.changed(omega=0.1), 64**2, records) == pytest.approx(4.0 / 100 * FAST.steps)


@pytest.mark.parametrize("large, power", [(2.0, 0.0), (64.0, 1.0), (8.0, 0.5)])
def test_the_power_lies_between_that_of_windows_and_that_of_whole_pictures(large, power):
    records = [record(64, 100, 4.0), record(128, 100, large)]
    assert estimate_seconds(FAST, 512**2, records) == pytest.approx(large / 100 * 16**power * FAST.steps)


def test_one_size_or_two_that_hardly_differ_tell_no_power():
    for records in ([record(64, 100, 4.0)], [record(64, 100, 4.0), record(80, 100, 40.0)]):
        nearest = 0.04 / 64**2 if len(records) == 1 else 0.4 / 80**2
        assert estimate_seconds(FAST, 256**2, records) == pytest.approx(nearest * 256**2 * FAST.steps)


def test_what_was_never_run_has_no_price():
    assert estimate_seconds(METHODS["bm3d"](), 64**2, [record(64, 100, 4.0)]) is None
    assert estimate_seconds(FAST, 64**2, [record(64, 100, 4.0, state="diverged")]) is None
    assert estimate_seconds(FAST, 64**2, [record(64, 100, 4.0)], device="cuda") is None


def test_the_steps_of_a_method_that_fits_nothing_are_no_factor():
    run = specify("skimage/astronaut@64", choose_method("lichi", "official"))
    costs = Costs([Record.of(run, psnr=30.0, seconds=2.0, cpu_seconds=2.0, device="cpu")])
    assert costs.seconds(choose_method("lichi", "official"), 64 * 64) == pytest.approx(2.0)
    assert costs.seconds(choose_method("lichi", "official", steps=6), 128 * 128) == pytest.approx(8.0)


def test_the_price_of_tasks():
    plan = make_plan("t", [{"pictures": "skimage/coffee", "crop": 64, "methods": [{"b2g/fast": {"steps": 50}}, "bm3d"]}])
    assert Costs([record(64, 100, 4.0)]).of_tasks(plan.tasks) == (pytest.approx(2.0), 1)


def test_pixels_come_from_the_manifest():
    assert pixels("set9/F16") == 512 * 512 and pixels("set9/F16@100+1+2") == 100 * 100


@pytest.mark.parametrize("seconds, words", [(4.2, "4 s"), (99, "99 s"), (150, "2 min"), (9000, "2.5 h"),
                                            (100_000, "28 h"), (400_000, "5 days")])  # fmt: skip
def test_durations_are_spoken(seconds, words):
    assert spoken(seconds) == words
