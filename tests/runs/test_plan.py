"""Plans: what a block stands for, counted and compared with a loop written out."""

import itertools

import pytest

from b2g import datasets
from b2g.errors import B2GError
from b2g.methods import METHODS
from b2g.runs import read_plan, specify
from b2g.runs.plan import make_plan, plan_names

BLOCK = {"pictures": ["skimage/astronaut", "skimage/coffee"], "crop": 64, "levels": [25, 50], "repeats": [0, 1],
         "methods": [{"b2g/fast": {"steps": 10}}, {"bm3d": {"sigma": "given"}}], "keep": ["coffee"]}  # fmt: skip


def test_a_block_is_the_product_of_its_lists_pictures_outermost():
    expected = []
    for name, level in itertools.product(("astronaut@64", "coffee@64"), (25.0, 50.0)):
        for method in (METHODS["b2g"].profile("fast", steps=10), METHODS["bm3d"](sigma=level)):
            for repeat in (0, 1):
                expected.append(specify(f"skimage/{name}", method, "gaussian", level, repeat))
    plan = make_plan("t", [BLOCK])
    assert [task.run for task in plan.tasks] == expected
    assert [task.keep for task in plan.tasks] == ["coffee" in run.picture for run in expected]


def test_a_grid_multiplies_and_a_run_wanted_twice_stands_once():
    block = {"pictures": "skimage/astronaut", "methods": ["b2g/fast"]}
    grid = block | {"grid": {"omega": [0.2, 0.8], "gamma": [0.5, 1.0]}}
    plan = make_plan("t", [grid, block | {"keep": True}])
    pairs = [(task.run.configured().omega, task.run.configured().gamma) for task in plan.tasks]
    assert pairs == [(0.2, 0.5), (0.2, 1.0), (0.8, 0.5), (0.8, 1.0)]
    assert [task.keep for task in plan.tasks] == [False, False, True, False]  # the second block is omega .8, gamma .5


@pytest.mark.parametrize("take", [1, 3, 9, 50])
def test_take_is_an_evenly_spaced_subset(take):
    names = datasets.names("set9")
    plan = make_plan("t", [{"pictures": "set9", "take": take, "methods": ["bm3d"]}])
    taken = [task.run.picture for task in plan.tasks]
    assert len(taken) == min(take, len(names)) and taken == sorted(set(taken)) and set(taken) <= set(names)
    places = [names.index(name) for name in taken]
    steps = {second - first for first, second in zip(places, places[1:])}
    assert not steps or max(steps) - min(steps) <= 1


def test_real_noise_needs_no_level():
    (task,) = make_plan("t", [{"pictures": ["sidd_sample/danet"] if "sidd_sample/danet" in datasets.names() else
                               datasets.names("polyu")[:1], "noise": "real", "methods": ["bm3d"]}]).tasks
    assert (task.run.level, task.run.protocol) == (0.0, "as given")


def test_limited_keeps_whole_pictures():
    plan = make_plan("t", [BLOCK])
    assert {task.run.picture for task in plan.limited(1).tasks} == {"skimage/astronaut@64"}
    assert plan.limited(None) == plan


def test_missing_is_what_has_no_record():
    plan = make_plan("t", [BLOCK])
    done = {plan.tasks[0].run.id, plan.tasks[3].run.id}
    assert [task.run.id for task in plan.missing(done)] == [t.run.id for i, t in enumerate(plan.tasks) if i not in (0, 3)]


@pytest.mark.parametrize("name", plan_names())
def test_every_plan_that_comes_with_the_package_is_sound(name):
    plan = read_plan(name)
    assert plan.tasks and plan.title
    for task in plan.tasks:
        assert task.run.configured().identity() == task.run.method


@pytest.mark.parametrize(
    "text, word",
    [("title: x", "blocks"), ("blocks: [", "YAML"), ("blocks: [{pictures: set9}]", "methods"),
     ("blocks: [{pictures: set9, methods: [bm3d], colour: red}]", "colour"),
     ("blocks: [{pictures: set8, methods: [bm3d]}]", "set8"), ("blocks: [{pictures: set9, methods: [bm4d]}]", "bm4d"),
     ("blocks: [{pictures: set9, methods: [b2g/slow]}]", "slow"),
     ("blocks: [{pictures: set9, methods: [{b2g: {omga: 1}}]}]", "omga")],
)  # fmt: skip
def test_a_bad_plan_is_refused_with_its_word(tmp_path, text, word):
    (tmp_path / "plan.yml").write_text(text)
    with pytest.raises(B2GError, match=word):
        read_plan(tmp_path / "plan.yml")


def test_an_unknown_plan_names_the_known_ones():
    with pytest.raises(B2GError, match="set9-crops"):
        read_plan("table9")
