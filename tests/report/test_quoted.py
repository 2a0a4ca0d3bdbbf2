"""A cell is told to be another paper's figure when it is one, and not when it is not."""

import csv
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from b2g.report import printed as paper
from b2g.report import quoted as others
from b2g.report.printed import Printed, printed
from b2g.report.quoted import Quoted, quoted

ROOT = Path(others.__file__).parents[2]


def cell(method, psnr, ssim="0.900", dataset="set", level="25"):
    return Printed(3, dataset, "gaussian", level, method, psnr, ssim)


def quote(method, psnr, ssim="0.900", trained_on="one picture", dataset="set", level="25"):
    return Quoted("Source", "1", dataset, "gaussian", level, method, psnr, ssim, trained_on)


@pytest.mark.parametrize("psnr, ssim, word", [
    ("30.00", "0.900", "equal"), ("30.00", "", "equal"), ("30.00", "0.901", "PSNR equal, SSIM not"),
    ("30.10", "0.900", "SSIM equal, PSNR near"), ("29.90", "", "near"), ("30.05", "0.905", "near"),
    ("30.11", "0.900", "different"), ("31.00", "", "different"),
])
def test_how_close_two_figures_are(psnr, ssim, word):
    assert others.status(cell("A", "30.00"), quote("A", psnr, ssim)) == word


def test_each_cell_gets_its_closest_figure():
    quotes = [quote("A", "29.95"), quote("A", "30.00", "0.950"), quote("B", "30.00"),
              quote("A", "30.00", level="50")]
    [origin] = others.origins([cell("A", "30.00"), cell("C", "30.00"), cell("A", "", "")], quotes)
    assert origin.status == "PSNR equal, SSIM not" and origin.quote is quotes[1]


def test_a_figure_under_another_name_is_found():
    [origin] = others.renamed([cell("A", "30.00"), cell("B", "30.00")], [quote("B", "30.00")])
    assert (origin.cell.method, origin.quote.method) == ("A", "B")
    # The PSNR alone, or a source without SSIM, proves nothing.
    assert others.renamed([cell("A", "30.00")], [quote("B", "30.00", ""), quote("C", "30.00", "0.901")]) == []


def test_training_on_other_pictures_is_found_in_the_one_picture_columns_only():
    quotes = [quote("B2U", "30.00", trained_on="noisy pictures"),
              quote("N2N", "31.00", trained_on="noisy pairs"), quote("S2S", "29.00")]
    cells = [cell("B2U", "30.00"), cell("N2N", "31.00"), cell("S2S", "29.00"),
             cell("B2U", "28.00", level="50")]
    assert [origin.cell.method for origin in others.not_alone(cells, quotes)] == ["B2U"]
    assert others.not_alone([cell("B2U", "30.01")], quotes) == []
    assert others.not_alone([replace(cells[0], table=5)], quotes) == []  # that one says nothing of zero-shot


def test_one_picture_above_clean_training_is_found():
    quotes = [quote("N2C", "30.00", trained_on="clean pictures"),
              quote("X", "30.50", trained_on="clean pictures"), quote("N2N", "29.00", trained_on="noisy pairs")]
    cells = [cell("B2G", "30.51"), cell("S2S", "30.50"), cell("Ne2Ne", "32.00")]
    [origin] = others.above_supervision(cells, quotes)
    assert origin.cell.method == "B2G" and origin.quote.method == "X" and origin.status == "+0.01 dB"
    quotes.append(quote("B2G", "30.51", trained_on="noisy pictures"))  # then it is no one-picture figure
    assert others.above_supervision(cells, quotes) == []


def test_the_stored_figures_are_whole_and_placed_where_the_paper_is():
    with open(ROOT / "data" / "quoted.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == list(others.COLUMNS) and len(rows) - 1 == len(quoted()) > 100
    places = {(one.dataset, one.noise, one.level) for one in printed()}
    assert {one.place for one in quoted()} <= places
    assert max(Counter((one.source, *one.place, one.method) for one in quoted()).values()) == 1
    assert {one.trained_on for one in quoted()} == {
        "nothing", "one picture", "other pictures first", "noisy pictures", "noisy pairs", "clean pictures"}
    for one in quoted():
        assert 20 < one.psnr < 60 and (not one.ssim_text or 0.4 < float(one.ssim_text) < 1)


def test_what_is_known_of_the_papers_figures():
    found = others.origins(printed(), quoted())
    equal = {(o.cell.dataset, o.cell.level) for o in found if o.status == "equal" and o.cell.method == "S2S"}
    assert equal >= {("Set9", "25"), ("Set9", "50"), ("Kodak24", "25"), ("Set14", "25")}
    assert {o.cell.method for o in others.renamed(printed(), quoted())} == {"PnP"}
    assert {o.cell.method for o in others.not_alone(printed(), quoted())} == {"B2U"}
    assert "B2G" not in {o.cell.method for o in found}  # nobody else prints it
    assert '"data/quoted.csv" = "b2g/_data/quoted.csv"' in (ROOT / "pyproject.toml").read_text()
    assert {one.method for one in quoted()} & set(paper.METHODS)
