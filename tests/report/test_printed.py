"""The paper's cells are read as printed, found under its words and ours, and counted row by row."""

import csv
from collections import Counter
from pathlib import Path

import pytest

from b2g.datasets import describe
from b2g.errors import B2GError
from b2g.methods import METHODS
from b2g.report import printed as paper
from b2g.report.printed import STATED, printed, printed_value

ROOT = Path(paper.__file__).parents[2]


def test_every_cell_is_there_once_and_as_in_the_file():
    with open(ROOT / "data" / "printed.csv", newline="") as file:
        lines = list(csv.reader(file))[1:]
    cells = printed()
    assert [[str(cell.table), cell.dataset, cell.noise, cell.level, cell.method, cell.psnr_text,
             cell.ssim_text] for cell in cells] == [line[:7] for line in lines]
    assert max(Counter((cell.row, cell.method) for cell in cells).values()) == 1


def test_the_tables_are_full():
    rows = Counter(cell.row for cell in printed())
    counts = Counter((table, count) for (table, *_), count in rows.items())
    # 4 levels of 3 sets and 2 of one; 2 levels of 4 sets; 2 levels; 3 columns. 11 methods, 14 in Table 5.
    assert counts == {(2, 11): 14, (3, 11): 8, (4, 11): 2, (5, 14): 3}


@pytest.mark.parametrize("query, words", [
    (dict(dataset="Set9", level="25", method="B2G"), "32.01/0.965"),
    (dict(dataset="set9", level=25, method="b2g"), "32.01/0.965"),
    (dict(dataset="set9", level=25.0, method="self2self"), "31.74/0.956"),
    (dict(table=3, dataset="kodak24", level=50, method="MPI"), "26.68/0.713"),
    (dict(noise="poisson", level=30, method="N2N"), "34.97/0.930"),
    (dict(table=5, level="sRGB validation", method="MASH"), "35.06/0.851"),
    (dict(table=5, level="raw-RGB benchmark", method="LG-BPN"), "–"),
])
def test_a_cell_is_found_under_both_names(query, words):
    assert [cell.words for cell in printed(**query)] == [words]


def test_underlined_figures_are_few_and_known():
    [cell] = printed(2, "set9", level=75, method="b2g")
    assert cell.psnr_underlined and not cell.ssim_underlined
    assert 0 < sum(cell.psnr_underlined for cell in printed()) < len({cell.row for cell in printed()}) + 1


def test_values_are_numbers_and_dashes_are_none():
    assert printed_value("set9", 25, "bm3d") == 31.67
    assert printed_value("set9", 25, "bm3d", "ssim") == 0.955
    assert printed_value("SIDD", "raw-RGB benchmark", "AP-BSN") is None
    assert printed_value("SIDD", 25, "BM3D") is None


@pytest.mark.parametrize("query, word", [
    (dict(dataset="set10"), "'set10'"), (dict(method="DnCNN"), "no method"), (dict(level=15), "no level 15"),
    (dict(table=6), "no table 6"),
])
def test_what_the_paper_does_not_have_is_named(query, word):
    with pytest.raises(B2GError, match=word):
        printed(**query)
    with pytest.raises(B2GError, match="'lpips'"):
        printed_value("set9", 25, "bm3d", "lpips")


def test_our_names_exist():
    assert {name for name in paper.METHODS.values() if name} <= set(METHODS)
    assert {cell.method for cell in printed()} == set(paper.METHODS)
    assert {cell.dataset for cell in printed()} == set(paper.DATASETS)
    ours = {dataset.dataset for dataset in describe()} | {"sidd"}  # SIDD has samples only, under sidd_sample
    assert set(paper.DATASETS.values()) <= ours


def test_every_method_belongs_to_one_group():
    groups = [*paper.ONE_PICTURE, *paper.MANY_PICTURES, *paper.SUPERVISED, "BM3D"]
    assert sorted(groups) == sorted(paper.METHODS)


def test_the_wheel_carries_what_is_read():
    assert '"data/printed.csv" = "b2g/_data/printed.csv"' in (ROOT / "pyproject.toml").read_text()


def test_what_the_text_states_has_its_place():
    assert STATED["omega"].value == 0.8 and STATED["omega, useful range"].value == (0.2, 1.0)
    assert STATED["epsilon_s"].value in STATED["thresholds tried"].value
    assert STATED["epsilon_g"].value in STATED["thresholds tried"].value
    assert all("Section 5" in stated.where for stated in STATED.values())
