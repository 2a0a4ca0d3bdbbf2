"""Ranks, marks and sentences are judged by the cells: one cell makes a true sentence false."""

from dataclasses import replace

import pytest

from b2g.report import said
from b2g.report.printed import Printed, printed


def row(figures, dataset="set", level="25", number=2, noise="gaussian"):
    """One row of a table: method -> "PSNR/SSIM"."""
    return [Printed(number, dataset, noise, level, method, *words.split("/"))
            for method, words in figures.items()]


ROW = row({"A": "30.00/0.900", "B": "31.00/0.910", "C": "30.50/0.910", "D": "30.50/0.890", "E": "/"})


def test_first_and_second_place_share_ties():
    [by_psnr], [by_ssim] = said.ranks(ROW), said.ranks(ROW, "ssim")
    assert (by_psnr.first, by_psnr.second) == (("B",), ("C", "D"))
    assert (by_ssim.first, by_ssim.second) == (("B", "C"), ("A",))


def test_places_are_counted_row_by_row():
    cells = ROW + row({"A": "35.00/0.9", "B": "34.00/0.9"}, level="50") + row({"A": "3.00/0.9"}, level="75")
    assert said.places(cells, "B") == {"first": 1, "second": 1}
    assert said.places(cells, "A") == {"behind": 1, "first": 2}
    assert said.places(cells, "B", "ssim") == {"first, shared": 2}


def test_only_second_places_may_be_underlined():
    fair = [replace(cell, psnr_underlined=cell.method in "CD") for cell in ROW]
    assert said.wrong_marks(fair) == []
    [wrong] = said.wrong_marks([replace(cell, ssim_underlined=cell.method == "C") for cell in ROW])
    assert (wrong.cell.method, wrong.metric, wrong.second) == ("C", "ssim", ("A",))


def test_margins_have_their_sign_and_skip_what_is_missing():
    found = said.margins(ROW, "C", ("A", "B", "E", "nobody"))
    assert [(one.other.method, one.margin) for one in found] == [("A", 0.5), ("B", -0.5)]


def paper_like(ours="32.00/0.950", last="29.00/0.890"):
    """Small tables in which every sentence is true."""
    figures = {"BM3D": "30.00/0.900", "DIP": "29.00/0.880", "S2S": "31.00/0.920", "B2U": "30.90/0.910",
               "ZS-N2N": "28.00/0.800", "MPI": "30.50/0.900", "B2G": ours, "Ne2Ne": "31.50/0.930",
               "N2N": "31.40/0.930"}
    below = {**figures, "B2G": "31.45/0.940"}
    return (row(figures, "Set9") + row(figures, "two") + row(below, "three") + row(figures, "four", number=3)
            + row({"B2G": "35.29/0.930", "N2N": "35.00/0.930"}, "cells", "30", 4, "poisson")
            + row({"B2G": "34.29/0.920", "N2N": "34.00/0.920"}, "cells", "50", 4, "poisson")
            + row({"B2G": "35.10/0.853", "MASH": last}, "real", "sRGB", 5, "real"))


def test_true_sentences_hold():
    assert [one.words for one in said.sentences(paper_like()) if not one.holds] == []


@pytest.mark.parametrize("number, cells", [
    (0, [replace(cell, psnr_text="32.01") if cell.dataset == "two" and cell.method == "DIP" else cell
         for cell in paper_like()]),
    (1, paper_like(ours="32.00/0.920")),
    (2, [cell for cell in paper_like() if cell.dataset != "three"]),
    (3, [replace(cell, psnr_text="35.20") if cell.level == "30" and cell.method == "B2G" else cell
         for cell in paper_like()]),
    (4, [replace(cell, ssim_text="0.921") if cell.level == "50" and cell.method == "B2G" else cell
         for cell in paper_like()]),
    (5, paper_like(last="35.10/0.800")),
    (6, [replace(cell, psnr_text="30.95") if cell.dataset == "Set9" and cell.method == "MPI" else cell
         for cell in paper_like()]),
])
def test_one_cell_makes_its_sentence_false_and_no_other(number, cells):
    assert [k for k, one in enumerate(said.sentences(cells)) if not one.holds] == [number]


def test_the_next_best_of_a_group():
    cells = [cell for cell in paper_like() if cell.table == 2]
    assert [(one.other.method, one.margin) for one in said.next_best(cells)] == [
        ("S2S", 1.0), ("S2S", 1.0), ("S2S", 0.45)]


def test_of_the_paper_every_sentence_is_judged_and_cells_decide():
    found = said.sentences(printed())
    assert all(one.rows and one.detail and one.where for one in found)
    # The text names 0.29 dB beside a table of two levels; it is the first level's.
    assert [one.holds for one in found if "lambda" in one.words] == [True, False]
