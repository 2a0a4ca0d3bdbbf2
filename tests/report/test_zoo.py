"""The zoo has every method, its cells say what the records say, and nothing is counted by hand."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from b2g.errors import B2GError
from b2g.methods import METHODS
from b2g.report import own_figures, zoo, zoo_tables
from b2g.report import records as stored
from b2g.report.parameters import parameters
from b2g.report.printed import printed
from b2g.report.quoted import quoted
from b2g.report.zoo import LABELS, NOT_BUILT
from b2g.runs import plan as plans
from b2g.runs.plan import make_plan, read_plan
from b2g.runs.record import Record
from b2g.trained import Trained

ROOT = Path(zoo.__file__).parents[2]
TASKS = read_plan("zoo").tasks
PICTURES = tuple(dict.fromkeys(task.run.picture for task in TASKS))


def record(run, psnr=30.0, **outcome):
    return Record.of(run, **({"psnr": psnr, "cpu_seconds": 8.0, "seconds": 9.0, "device": "cpu"} | outcome))


def runs_of(name, picture=PICTURES[0]):
    runs = [task.run for task in TASKS if task.run.picture == picture]
    return [run for run in runs if json.loads(run.method)["method"] == name]


@pytest.fixture(scope="module")
def empty():
    return zoo.zoo([])


def test_the_plan_has_three_pictures_and_every_method_that_can_run():
    assert len(PICTURES) == 3
    planned = {json.loads(task.run.method)["method"] for task in TASKS}
    assert {name for name, method in METHODS.items() if not issubclass(method, Trained)} <= planned
    assert {(task.run.noise, task.run.level) for task in TASKS} == {("gaussian", 25.0), ("real", 0.0)}
    # the others' terms are non-commercial
    assert {task.run.picture for task in TASKS if task.keep} == {"set9/House"}


def test_many_image_methods_join_a_plan_when_their_weights_are_released(monkeypatch):
    block = {"pictures": ["skimage/coffee@64"], "methods": ["noise2noise", "tv"]}
    monkeypatch.setattr(plans, "released", lambda: {"noise2noise-small-3": {}})

    def names(**more):
        tasks = make_plan("t", [block | more]).tasks
        return [json.loads(task.run.method)["method"] for task in tasks]

    assert names(released=3) == names() == ["noise2noise", "tv"]
    assert names(released=1) == ["tv"]
    given = block | {"released": 1, "methods": [{"noise2noise": {"weights": "mine.safetensors"}}]}
    assert len(make_plan("t", [given]).tasks) == 1


def test_every_method_has_a_row_with_label_and_source(empty):
    assert {row.name for row in empty.rows} == set(METHODS)
    assert empty.pictures == PICTURES
    for row in empty.rows:
        assert row.label == METHODS[row.name].label and row.label in LABELS and row.source
        assert set(row.cells) == set(PICTURES)
        assert all(cell.psnr is None and cell.lacks for cell in row.cells.values())
    places = [LABELS.index(row.label) for row in empty.rows]
    assert places == sorted(places)


def test_what_has_no_record_says_its_cost_or_why(empty):
    rows = {row.title: row for row in empty.rows}
    assert rows["tv"].cells[PICTURES[0]].lacks == "cost unknown"
    assert METHODS["tv"].cost in rows["tv"].cells[PICTURES[0]].why
    [run] = runs_of("tv")
    known = zoo.zoo([record(replace_picture(run, "set9/House@128"), cpu_seconds=3.0)])
    cell = {row.title: row for row in known.rows}["tv"].cells[PICTURES[0]]
    assert cell.lacks == "≈ 12 s"  # four times the pixels
    for name, method in METHODS.items():
        if issubclass(method, Trained) and not runs_of(name):
            assert "b2g train" in rows[name].why and "\n" not in rows[name].why
            assert {cell.lacks for cell in rows[name].cells.values()} == {"no weights"}


def replace_picture(run, picture):
    return replace(run, picture=picture)


def test_cells_are_the_records_and_the_difference_is_to_bm3d_told_sigma():
    blind, told = sorted(runs_of("bm3d"), key=lambda run: run.configured().sigma is not None)
    records = [record(runs_of("tv")[0], 29.5), record(blind, 31.0), record(told, 32.0)]
    rows = {row.title: row for row in zoo.zoo(records).rows}
    cell = rows["tv"].cells[PICTURES[0]]
    assert (cell.psnr, cell.over, cell.seconds, cell.lacks) == (29.5, -2.5, 8.0, "")
    assert rows["bm3d"].cells[PICTURES[0]].over == -1.0
    assert rows["bm3d+sigma=given"].cells[PICTURES[0]].over == 0.0
    real = next(run for run in runs_of("bm3d", PICTURES[2]) if run.configured().noise == "gaussian")
    [other] = runs_of("tv", PICTURES[2])
    rows = {row.title: row for row in zoo.zoo([record(real, 36.0), record(other, 36.5)]).rows}
    assert rows["tv"].cells[PICTURES[2]].over == 0.5


def test_a_run_that_failed_shows_its_reason():
    failed = record(runs_of("tv")[0], None, state="refused", reason="it said no")
    cell = {row.title: row for row in zoo.zoo([failed]).rows}["tv"].cells[PICTURES[0]]
    assert (cell.psnr, cell.lacks, cell.why) == (None, "refused", "it said no")


def test_what_does_harm_and_what_is_above_a_row_is_named(empty, monkeypatch):
    reached = {"tv": 19.5, "wavelet": 29.0, "nlm": 18.0, "nl_ridge": 19.96, "bm3d": 29.5, "pnp": 31.0}
    found = zoo.zoo([record(runs_of(name)[0], psnr, psnr_noisy=20.0) for name, psnr in reached.items()])
    assert found.noisy == dict.fromkeys(PICTURES) | {PICTURES[0]: 20.0}
    monkeypatch.setattr(zoo_tables, "table", lambda header, lines, *words: lines)
    [bm3d] = [row.title for row in found.rows if row.name == "bm3d" and row.cells[PICTURES[0]].psnr]
    assert zoo_tables.around(found, "wavelet") == [
        ("House", "20.00", "nlm, tv", bm3d),
        *((zoo_tables.short(picture), "–", "none", "none") for picture in PICTURES[1:]),
    ]
    assert [line[1:] for line in zoo_tables.around(empty, "tv")] == [("–", "none", "none")] * 3


def test_rows_are_sorted_by_label_then_by_decibels():
    found = zoo.zoo([record(runs_of("tv")[0], 28.0), record(runs_of("wavelet")[0], 29.0)])
    titles = [row.title for row in found.of("classical")]
    assert titles[:2] == ["wavelet", "tv"]


@pytest.mark.parametrize("name, channels, count", [
    ("self2self", 3, 991_203), ("zs_n2n", 3, 22_275), ("zs_n2n", 1, 21_313), ("noise2fast", 1, 259_201),
    ("mash", 3, 991_203), ("noise2noise", 3, 991_203), ("tv", 3, None), ("bm3d", 3, None),
])  # fmt: skip
def test_parameters_are_those_that_the_methods_state(name, channels, count):
    profile = "official"
    assert parameters(METHODS[name].profile(profile), channels) == count


def test_a_network_with_a_prior_is_counted_without_its_weights(monkeypatch):
    monkeypatch.setenv("B2G_DATA_MIRROR", "/nowhere")
    monkeypatch.setenv("B2G_OFFLINE", "1")
    monkeypatch.setenv("B2G_CACHE", "/nowhere")
    assert 0.7e6 < parameters(METHODS["mpi"].profile("official")) < 0.8e6
    assert parameters(METHODS["pnp"]()) > 0.8e6 and parameters(METHODS["pnp"](), 1) > 0.5e6


def test_what_is_not_built_is_not_in_the_registry():
    assert len({each.name for each in NOT_BUILT}) == len(NOT_BUILT)
    for each in NOT_BUILT:
        assert each.label in LABELS and each.why.endswith(".") and "doi" in each.source
        assert each.name.lower().replace("-", "_") not in METHODS


def test_the_tables_render(empty):
    found = zoo.zoo([record(runs_of("tv")[0], 29.5), record(runs_of("bm3d")[0], 31.0)])
    shown = repr(zoo_tables.shown(found, "classical"))
    assert "29.50" in shown and "cost unknown" in shown
    assert zoo_tables.short("set9/House") == "House" and zoo_tables.short(PICTURES[2]) == "polyu"
    assert all(row.title in repr(zoo_tables.empty(empty)) for row in empty.rows if row.why)
    assert all(name in repr(zoo_tables.sources(empty)) for name in METHODS)
    assert "N2V2" in repr(zoo_tables.not_built())


def test_the_chapter_says_of_every_method_what_it_does():
    cells = json.loads((ROOT / "book" / "zoo.ipynb").read_text("utf-8"))["cells"]
    prose = "".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    assert [name for name in METHODS if f"**`{name}`**" not in prose] == []


def test_answers_are_the_middle_of_what_was_kept(monkeypatch):
    """tv's answer is in the gallery, wavelet's is not although its record says so, nlm's was not kept."""
    picture = np.arange(160 * 160 * 3).reshape(160, 160, 3) / 1e5
    [tv], [wavelet], [nlm] = runs_of("tv"), runs_of("wavelet"), runs_of("nlm")
    part = "48,48,160,160"
    records = [record(tv, 29.5, kept=part), record(wavelet, 30.5, kept=part), record(nlm)]

    def gallery(name):
        if name != tv.id:
            raise B2GError("not here")
        return picture

    monkeypatch.setattr(stored, "picture", gallery)
    monkeypatch.setattr(stored, "noisy", lambda one: picture + 1)
    monkeypatch.setattr(stored, "clean", lambda one: picture + 2)
    shown = zoo_tables.answers(records, zoo.zoo(records), PICTURES[0], side=10)
    assert list(shown) == ["noisy", "tv", "clean"]
    assert np.array_equal(shown["tv"], picture[75:85, 75:85]) and shown["clean"].shape == (10, 10, 3)
    assert zoo_tables.answers([], zoo.zoo([]), PICTURES[0]) == {}


# --- the methods' own figures -----------------------------------------------------------------------------

# How data/quoted.csv calls the paper and the method.
QUOTED = {
    "self2self": ("Self2Self", "S2S"), "mpi": ("MPI", "MPI"), "mash": ("MASH", "MASH"), "nlr": ("NLR", "NLR"),
    "neighbor2neighbor_many": ("Neighbor2Neighbor", "Ne2Ne"), "blind2unblind_many": ("Blind2Unblind", "B2U"),
    "noise2noise": ("Noise2Noise", "N2N"), "pnp": ("DPIR", "DRUNet"),
}  # fmt: skip


def test_every_figure_names_a_method_a_profile_and_a_source():
    for each in own_figures.own_figures():
        assert each.profile in METHODS[each.method].profiles
        assert "doi" in each.source or "github.com" in each.source
        assert each.psnr > 20 and each.protocol
        assert each.pictures or each.why, "what cannot be run says why"


def test_figures_that_other_lists_have_too_are_the_same():
    known = {("b2g", cell.dataset, float(cell.level)): cell.psnr_text for cell in printed()
             if cell.method == "B2G" and cell.noise == "gaussian"}
    for quote in quoted():
        for name, (paper, method) in QUOTED.items():
            if quote.noise == "gaussian" and quote.source.startswith(paper) and quote.method == method:
                known[name, quote.dataset, float(quote.level)] = quote.psnr_text
    ours = {(each.method, each.dataset, each.level): each.psnr_text for each in own_figures.own_figures()
            if each.noise == "gaussian" and each.profile != "faster"}
    both = ours.keys() & known.keys()
    assert len(both) > 15 and {key: ours[key] for key in both} == {key: known[key] for key in both}


@pytest.mark.parametrize("difference, why, mark", [
    (0.3, "", "within"), (-0.3, "x", "within"), (0.31, "", "open"), (-0.31, "", "open"),
    (-2.0, "x", "explained"),
])  # fmt: skip
def test_a_difference_is_marked(difference, why, mark):
    assert own_figures.judged(difference, why)[0] == mark


def test_ours_is_the_mean_of_the_whole_set_and_nothing_less():
    from b2g import datasets
    from b2g.runs.spec import specify

    [figure] = [each for each in own_figures.own_figures()
                if (each.method, each.profile, each.dataset, each.level) == ("mpi", "faster", "Set9", 25.0)]
    method = METHODS["mpi"].profile("faster")
    values = [30.0 + 0.1 * i for i in range(9)]
    records = [record(specify(name, method), value) for name, value in zip(datasets.names("set9"), values)]
    [whole] = own_figures.compared(records, [figure])
    assert math.isclose(whole.ours, 30.4) and (whole.n, whole.total, whole.mark) == (9, 9, "open")
    [part] = own_figures.compared(records[:8], [figure])
    assert (part.ours, part.n, part.mark) == (None, 8, "not run")
    assert part.words.startswith("not run: ≈ ")
    clipped = [replace(each, protocol="clipped") for each in records]
    assert own_figures.compared(clipped, [figure])[0].mark == "not run"
    assert "31.61" in repr(own_figures.shown(own_figures.compared(records)))


def test_the_plan_of_own_figures_has_what_they_need_and_nothing_else(monkeypatch):
    """Were the weights of the full recipes released, that is; SIDD's blocks are not here."""
    from b2g import datasets

    monkeypatch.delenv("B2G_SIDD", raising=False)
    full = {f"{name}-full-3": {} for name, method in METHODS.items() if method.label == "many images"}
    monkeypatch.setattr(plans, "released", lambda: full)
    needed = {
        (name, each.noise, each.level, METHODS[each.method].profile(each.profile).identity())
        for each in own_figures.own_figures() if each.pictures not in ("", "sidd_validation")
        for name in datasets.names(each.pictures)
    }  # fmt: skip
    runs = [task.run for task in plans.read_plan("own-figures").tasks]
    assert {(run.picture, run.noise, run.level, run.method) for run in runs} == needed
    assert len(runs) == len(needed) > 500


def test_a_set_that_nobody_has_is_not_run(monkeypatch):
    monkeypatch.delenv("B2G_SIDD", raising=False)
    found = [each for each in own_figures.compared([]) if each.figure.pictures == "sidd_validation"]
    assert found and {(each.mark, each.words) for each in found} == {
        ("not run", "not run: the pictures are not here")}
