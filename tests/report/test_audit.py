"""Each finding sees the defect planted for it, in the place where it is, and nothing in a clean table."""

import math
from dataclasses import replace

import numpy as np
import pytest

from b2g.report import audit
from b2g.report.printed import Printed, printed

METHODS = ("A", "B", "C", "D", "E", "F", "G", "H")
LEVELS = ("25", "50", "100")


def table(datasets=("one", "two", "three"), levels=LEVELS, noise="gaussian", slope=-0.08):
    """A table as it should be: PSNR falls with the noise, and the SSIM follows from the PSNR alone.

    With lambda in place of sigma the levels stand for weaker and weaker noise, so the PSNR rises.
    """
    cells = []
    for d, dataset in enumerate(datasets):
        for m, method in enumerate(METHODS):
            for k, level in enumerate(levels):
                fall = -3.01 if noise == "gaussian" else 1.7
                psnr = 33 - 0.83 * d + 0.171 * m + fall * k
                ssim = 1 - 10 ** (slope * (psnr - 17) - 0.02 * d)
                cells.append(Printed(2, dataset, noise, level, method, f"{psnr:.2f}", f"{ssim:.3f}"))
    return cells


def changed(cells, place, **texts):
    """The table with other figures in one cell: place = (dataset, method, level)."""
    found = [cell for cell in cells if (cell.dataset, cell.method, cell.level) == place]
    assert len(found) == 1
    return [replace(cell, **texts) if cell is found[0] else cell for cell in cells]


def at(cell):
    return cell.dataset, cell.method, cell.level


CLEAN = table()
WHOLE = [audit.repeats, audit.repeated_runs, audit.not_falling, audit.against_the_noise, audit.odd_steps,
         audit.steeper_than_noise, audit.off_the_curve, audit.odd_decimals, audit.near_noise]


@pytest.mark.parametrize("finding", WHOLE, ids=lambda finding: finding.__name__)
def test_a_clean_table_yields_nothing(finding):
    assert finding(CLEAN) == []
    assert finding(table(levels=("30", "50"), noise="poisson")) == []
    assert finding([]) == []


def test_an_empty_cell_is_no_defect():
    cells = CLEAN + [Printed(2, "one", "gaussian", "25", "dash", "", "")] * 2
    assert all(finding(cells) == [] for finding in WHOLE)


# --- repetition -------------------------------------------------------------------------------------------

def copied(cells, source, target):
    """The table with the runs of one method copied from one data set to another, at the levels given."""
    by_place = {at(cell): cell for cell in cells}
    for level in LEVELS:
        origin = by_place[source[0], source[1], level]
        cells = changed(cells, (*target, level), psnr_text=origin.psnr_text, ssim_text=origin.ssim_text)
    return cells


def test_a_repeated_cell_is_found_wherever_it_stands():
    cells = changed(CLEAN, ("two", "C", "50"), psnr_text="31.39", ssim_text="0.930")
    cells = changed(cells, ("three", "F", "25"), psnr_text="31.39", ssim_text="0.930")
    [repeat] = audit.repeats(cells)
    assert {at(repeat.first), at(repeat.second)} == {("two", "C", "50"), ("three", "F", "25")}
    half = changed(cells, ("two", "C", "50"), ssim_text="0.931")  # the PSNR alone does not count
    assert audit.repeats(half) == []
    assert audit.repeated_runs(cells) == []


def test_a_repeated_run_is_found_and_counts_each_cell():
    cells = copied(CLEAN, ("one", "B"), ("three", "B"))
    assert audit.repeated_runs(cells) == [audit.RepeatedRun("B", "one", "three", ("25", "50", "100"))]
    assert len(audit.repeats(cells)) == 3
    assert audit.chance_of_repeats(cells).copies == 3


def test_one_level_is_no_run():
    cells = table(levels=("25",))
    [origin] = [cell for cell in cells if at(cell) == ("one", "B", "25")]
    cells = changed(cells, ("two", "B", "25"), psnr_text=origin.psnr_text, ssim_text=origin.ssim_text)
    assert len(audit.repeats(cells)) == 1 and audit.repeated_runs(cells) == []


def test_the_run_of_another_method_is_no_repeated_run():
    assert audit.repeated_runs(copied(CLEAN, ("one", "B"), ("three", "C"))) == []


def test_chance_makes_as_many_repeats_as_are_expected():
    """Against simulation: figures drawn without any copying have the number of repeats that is predicted."""
    draw = np.random.default_rng(7)
    found, expected = [], []
    for _ in range(60):
        psnr, ssim = draw.uniform(29, 31, 120), draw.uniform(0.75, 0.95, 120)
        cells = [Printed(2, "set", "gaussian", "25", str(i), f"{p:.2f}", f"{s:.3f}")
                 for i, (p, s) in enumerate(zip(psnr, ssim))]
        chance = audit.chance_of_repeats(cells)
        found.append(chance.copies)
        expected.append(chance.expected)
    # 120 cells on 200 x 200 places: 120 * 119 / 2 / 40000 equal pairs, and one standard error of the mean.
    true = 120 * 119 / 2 / 40_000
    assert np.mean(expected) == pytest.approx(true, rel=0.15)
    assert abs(np.mean(found) - true) < 3 * math.sqrt(true / 60)


def test_the_probability_of_copies_is_poisson():
    cells = copied(CLEAN, ("one", "B"), ("three", "B"))
    chance = audit.chance_of_repeats(cells, psnr=1.0, ssim=0.1)
    fewer = sum(math.exp(-chance.expected) * chance.expected**k / math.factorial(k) for k in range(3))
    assert chance.expected > 0 and chance.probability == pytest.approx(1 - fewer, rel=1e-9)
    pairs = len(CLEAN) * (len(CLEAN) - 1) / 2
    assert chance.share == pytest.approx(chance.expected / pairs)


def test_copies_do_not_raise_what_chance_is_to_make():
    one = CLEAN[0]
    chance = audit.chance_of_repeats([one, replace(one, dataset="two"), replace(one, dataset="three")])
    assert (chance.copies, chance.expected, chance.probability) == (2, 0, 0)


def test_only_pairs_that_are_alike_count():
    none = audit.chance_of_repeats(CLEAN, alike=lambda a, b: False)
    assert none.expected == none.share == 0


# --- noise ------------------------------------------------------------------------------------------------

def test_a_figure_that_rises_with_the_noise_is_found():
    cells = changed(CLEAN, ("two", "E", "50"), psnr_text="34.00")
    assert [(at(step.before), at(step.after)) for step in audit.not_falling(cells)] == [
        (("two", "E", "25"), ("two", "E", "50"))]


def test_an_ssim_that_stays_is_found():
    before = next(cell for cell in CLEAN if at(cell) == ("one", "A", "25"))
    cells = changed(CLEAN, ("one", "A", "50"), ssim_text=before.ssim_text)
    [step] = audit.not_falling(cells)
    assert at(step.after) == ("one", "A", "50") and step.ssim == 0 and step.psnr < 0


def test_poisson_figures_that_fall_with_lambda_are_found():
    cells = table(("cells",), ("30", "50"), "poisson")
    assert audit.against_the_noise(cells) == []
    cells = changed(cells, ("cells", "D", "50"), psnr_text="31.00")
    [step] = audit.against_the_noise(cells)
    assert at(step.after) == ("cells", "D", "50")
    assert step.noise == pytest.approx(10 * math.log10(5 / 3))


def test_a_step_unlike_the_others_is_found_with_its_direction():
    [flat] = audit.odd_steps(changed(CLEAN, ("three", "H", "25"), psnr_text="30.00"))
    assert at(flat.before) == ("three", "H", "25") and flat.score > 0
    [steep] = audit.odd_steps(changed(CLEAN, ("three", "H", "100"), psnr_text="24.00"))
    assert at(steep.after) == ("three", "H", "100") and steep.score < 0
    assert steep.typical == pytest.approx(-3.01, abs=0.011)


def test_a_fall_beyond_that_of_the_noise_is_found():
    cells = changed(CLEAN, ("one", "C", "50"), psnr_text="26.00")
    [step] = audit.steeper_than_noise(cells)
    assert at(step.after) == ("one", "C", "50")
    assert step.noise == pytest.approx(-20 * math.log10(2)) and step.psnr < step.noise


def test_answers_little_better_than_their_input_are_found():
    cells = changed(CLEAN, ("two", "G", "25"), psnr_text="22.00")
    [row] = audit.near_noise(cells)
    assert at(row.cell) == ("two", "G", "25") and row.noisy == pytest.approx(20 * math.log10(255 / 25))
    assert audit.near_noise(cells, margin=1.0) == []


@pytest.mark.parametrize("sigma", [25, 75, 200])
def test_clipping_a_black_and_white_picture_gains_what_is_predicted(sigma):
    draw = np.random.default_rng(3)
    picture = 255.0 * draw.integers(0, 2, 400_000)
    noisy = picture + sigma * draw.standard_normal(picture.size)
    for given, formula in ((noisy, audit.noisy_psnr), (noisy.clip(0, 255), audit.clipped_two_valued_psnr)):
        measured = 10 * math.log10(255**2 / np.mean((given - picture) ** 2))
        assert formula(sigma) == pytest.approx(measured, abs=0.03)


# --- SSIM and decimals ------------------------------------------------------------------------------------

def test_an_ssim_of_another_definition_is_found():
    cells = changed(CLEAN, ("two", "B", "50"), ssim_text="0.600")
    [row] = audit.off_the_curve(cells)
    assert at(row.cell) == ("two", "B", "50") and row.score < 0
    clean = next(cell for cell in CLEAN if at(cell) == ("two", "B", "50"))
    assert row.expected == pytest.approx(clean.ssim, abs=2e-3)
    [row] = audit.off_the_curve(changed(CLEAN, ("two", "B", "50"), ssim_text="0.990"))
    assert row.score > 0


def test_foreign_cells_at_one_end_do_not_tilt_the_line():
    foreign = {(dataset, method, "100") for dataset in ("one", "two", "three") for method in "AB"}
    cells = [replace(cell, ssim_text=f"{cell.ssim - 0.5:.3f}") if at(cell) in foreign else cell
             for cell in CLEAN]
    rows = audit.off_the_curve(cells)
    clean = {at(cell): cell.ssim for cell in CLEAN}
    assert {at(row.cell) for row in rows} == foreign
    assert max(abs(row.expected - clean[at(row.cell)]) for row in rows) < 5e-3


def test_a_fifth_of_the_cells_may_be_foreign():
    cells = [replace(cell, ssim_text=f"{cell.ssim - 0.2:.3f}") if cell.method == "B" else cell
             for cell in CLEAN]
    assert sorted(at(row.cell) for row in audit.off_the_curve(cells)) == sorted(
        at(cell) for cell in CLEAN if cell.method == "B")


@pytest.mark.parametrize("metric, text", [
    ("psnr", "22.455"), ("psnr", "31.7"), ("ssim", "0.95"), ("psnr", "31")])
def test_another_number_of_decimals_is_found(metric, text):
    cells = changed(CLEAN, ("one", "D", "25"), **{f"{metric}_text": text})
    assert [(at(row.cell), row.metric, row.text) for row in audit.odd_decimals(cells)] == [
        (("one", "D", "25"), metric, text)]


# --- the paper --------------------------------------------------------------------------------------------

def test_the_defects_that_are_known_in_the_paper_are_found():
    cells = printed()
    assert audit.RepeatedRun("MPI", "Kodak24", "Set14", ("25", "50")) in audit.repeated_runs(cells)
    repeated = {at(cell) for repeat in audit.repeats(cells) for cell in repeat}
    assert ("CBSD68", "MPI", "25") in repeated
    assert [(row.cell.dataset, row.text) for row in audit.odd_decimals(cells)] == [("HanZi", "22.455")]
    foreign = {(row.cell.dataset, row.cell.method) for row in audit.off_the_curve(cells) if row.score < 0}
    assert {("Set9", "ZS-N2N"), ("Set9", "MPI")} <= foreign
    assert len(audit.against_the_noise(cells)) == 11
