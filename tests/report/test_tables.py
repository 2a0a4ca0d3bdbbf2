"""Tables against plain loops over made-up records: what fills a cell, what never may,
and what every layout says."""

import csv
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from b2g import datasets
from b2g.errors import B2GError
from b2g.methods import METHODS
from b2g.report import layouts
from b2g.report.printed import printed
from b2g.report.tables import build, chosen, pairs
from b2g.runs.record import Record
from b2g.runs.spec import specify

B2G = METHODS["b2g"]
SET9 = datasets.names("set9")
GIVEN = METHODS["bm3d"].profile(sigma=25.0)


def run(picture, method, psnr=30.0, level=25.0, noise="gaussian", repeat=0, watch="", protocol="unclipped", **changes):
    outcome = dict(psnr_noisy=20.0, psnr=psnr, psnr_8bit=psnr, ssim_2d=0.8, ssim_matlab_volume=0.9, cpu_seconds=50.0,
                   seconds=60.0, device="cpu", precision="bfloat16")  # fmt: skip
    return Record.of(specify(picture, method, noise, level, repeat, protocol, watch), **outcome | changes)


def failed(picture, method, reason):
    return run(picture, method, None, state="diverged", reason=reason, ssim_2d=None, ssim_matlab_volume=None)


def cell(table, row, column):
    [found] = [cell for (r, c), cell in table.cells.items() if (plain(r.title), c.title) == (row, column)]
    return found


def plain(text):
    return text.replace("\N{NO-BREAK SPACE}", " ")


# --- what fills a cell --------------------------------------------------------------------------------

def test_every_printed_value_stands_in_its_cell():
    for number in (2, 3, 4, 5):
        for metric in ("psnr", "ssim"):
            table = build(number, [], metric)
            for line in printed(table=number):
                texts = {cell.text for (row, column), cell in table.cells.items()
                         if row.dataset == line.our_dataset and column.paper == line.method
                         and (f"{row.level:g}" if isinstance(row.level, float) else row.level) == line.level}
                assert texts == {getattr(line, f"{metric}_text")}


def test_a_complete_cell_is_the_mean_over_pictures_and_its_difference():
    values = np.random.default_rng(0).normal(30, 1, 9)
    records = [run(name, GIVEN, value) for name, value in zip(SET9, values)]
    records += [run(SET9[0], GIVEN, values[0] + 3, repeat=1)]  # a second draw of noise counts within its picture
    found = cell(build(2, records), "Set9, σ = 25", "BM3D")
    mean = (values.sum() + 1.5) / 9
    assert found.ours.mean == pytest.approx(mean, rel=1e-12) and found.ours.n == found.total == 9
    assert found.difference == pytest.approx(mean - 31.67, rel=1e-9) and found.missing == 0
    assert found.ours.low < mean < found.ours.high


def test_a_part_of_a_set_has_no_difference_and_says_what_the_rest_costs():
    rate = 50.0 / (512 * 512)
    cost = {name: rate * float(np.prod(datasets.size(name))) for name in SET9}
    records = [run(name, GIVEN, cpu_seconds=cost[name]) for name in SET9[:3]]
    found = cell(build(2, records), "Set9, σ = 25", "BM3D")
    assert (found.ours.n, found.total, found.missing, found.difference) == (3, 9, 6, None)
    words = Text(build(2, records)._repr_html_()).words
    assert "part: 30.00" in words and "part: 30.00" not in Text(build(2, RECORDS)._repr_html_()).words
    assert found.seconds == pytest.approx(sum(cost[name] for name in SET9[3:]), rel=1e-9)


@pytest.mark.parametrize("record", [
    run(SET9[0] + "@128", GIVEN), run(SET9[0], GIVEN, level=50.0), run(SET9[0], METHODS["bm3d"].profile(sigma=24.0)),
    run(SET9[0], METHODS["bm3d"].profile()), run(SET9[0], GIVEN, protocol="clipped"),
    run("kodak24/01", GIVEN), run(SET9[0], GIVEN, noise="poisson"),
])  # fmt: skip
def test_what_is_not_the_same_experiment_never_fills_the_cell(record):
    assert cell(build(2, [record]), "Set9, σ = 25", "BM3D").ours.n == 0
    assert cell(build(2, [run(SET9[0], GIVEN)]), "Set9, σ = 25", "BM3D").ours.n == 1  # and this one does


@pytest.mark.parametrize("profile, column", [("paper", "B2G, paper"), ("faithful", "B2G, faithful"),
                                             ("fast", "fast"), ("best", "best")])
def test_each_profile_has_its_own_column(profile, column):
    table = build(2, [run(SET9[0], B2G.profile(profile))])
    filled = {c.title for (_, c), found in table.cells.items() if found.ours.n}
    assert filled == {column}
    assert {c.title for c in table.columns if c.paper == "B2G"} == {"B2G, paper", "B2G, faithful"}
    assert not cell(build(2, [run(SET9[0], B2G.profile(profile, omega=0.3))]), "Set9, σ = 25", column).ours.n


@pytest.mark.parametrize("title, method", [
    ("consensus", METHODS["consensus"].profile("fast")), ("consensus, best", METHODS["consensus"].profile("best")),
    ("LIChI", METHODS["lichi"].profile("opponent")), ("NL-Ridge", METHODS["nl_ridge"].profile("opponent")),
])  # fmt: skip
def test_what_goes_beyond_the_paper_has_columns_of_its_own(title, method):
    table = build(2, [run(SET9[0], method)])
    assert {c.title for (_, c), found in table.cells.items() if found.ours.n} == {title}
    assert not cell(build(2, [run(SET9[0], method.changed(sigma=25.0))]), "Set9, σ = 25", title).ours.n
    [column] = [column for column in table.columns if column.title == title]
    assert column.paper is None and column.note and column.configured("real", "sRGB").noise == "gaussian"


def test_the_kind_of_noise_is_told_to_those_who_work_from_its_level(monkeypatch):
    """Under Poisson noise: the patch methods, consensus, and b2g where it recorrupts,
    but not where it masks."""
    masked = dict(steps=3, mask="bernoulli")
    recorrupted = dict(input="recorrupted", output="linear", patches="nl_ridge", hold=0.1, answer="visible")
    profiles = {"fast": masked | recorrupted, "best": masked}
    for name, settings in profiles.items():
        monkeypatch.setitem(B2G.profiles, name, settings)
    monkeypatch.setitem(METHODS["consensus"].profiles, "best", dict(network="best"))  # masks hold no pixels back
    columns = {column.title: column for column in build(4, []).columns}
    told = {"consensus", "consensus, best", "LIChI", "NL-Ridge", "fast"}
    for title, column in columns.items():
        if column.method and title != "BM3D, blind":
            assert column.told("poisson") == ({"noise": "poisson"} if title in told else {})
            plain = METHODS[column.method].profile(column.profile)
            expected = plain.changed(noise="poisson") if title in told else plain
            assert column.configured("poisson", 30.0) == expected
            given = title == "BM3D"
            assert column.configured("gaussian", 30.0) == (plain.changed(sigma=30.0) if given else plain)
    lichi = METHODS["lichi"].profile("opponent")
    for method, n in ((lichi, 0), (lichi.changed(noise="poisson"), 1)):
        table = build(4, [run("confocal/fish", method, level=30.0, noise="poisson")])
        assert sum(found.ours.n for found in table.cells.values()) == n


def test_its_plan_tells_the_kind_of_noise():
    from b2g.runs.plan import make_plan

    titles = ["BM3D", "consensus", "LIChI", "fast", "ZS-N2N"]
    records = [run("confocal/fish", METHODS["bm3d"].profile(), level=30.0, noise="poisson")]
    table = build(4, records, methods=titles)
    plan = make_plan("all", list(table.blocks()))
    filled = build(4, records + [Record.of(task.run, psnr=31.0, device="cpu") for task in plan.tasks], methods=titles)
    cells = [found for (row, _), found in filled.cells.items() if (row.dataset, row.level) == ("confocal", 30.0)]
    assert len(cells) == 5 and all(found.ours.n == found.total > 1 and found.missing == 0 for found in cells)


def test_crops_are_a_row_of_their_own_without_printed_values():
    table = build(2, [run(f"{name}@128", B2G.profile("faithful")) for name in SET9])
    found = cell(table, "Set9, 128×128 central crops, σ = 25", "B2G, faithful")
    assert (found.ours.n, found.total, found.text, found.difference) == (9, 9, "", None)
    assert cell(table, "Set9, σ = 25", "B2G, faithful").ours.n == 0
    assert "printed values are for whole pictures" in table._repr_html_()
    for records in ([], [run(f"{SET9[0]}@64", B2G.profile("faithful", omega=0.2))]):  # an ablation's fills no column
        assert not any("crops" in row.title for row in build(2, records).rows)


def test_failed_runs_are_counted_and_told():
    method = B2G.profile("paper")
    records = [run(SET9[0], method), failed(SET9[1], method, "the loss is NaN & <big>"), failed(SET9[2], method, "x")]
    records += [failed(SET9[3], method, "first try"), run(SET9[3], method, repeat=0)]
    table = build(2, records)
    found = cell(table, "Set9, σ = 25", "B2G, paper")
    assert (found.ours.n, found.missing) == (2, 5)
    assert sorted(found.failed) == ["1 of 9 diverged: the loss is NaN & <big>", "1 of 9 diverged: x"]
    assert "diverged: the loss is NaN &amp; &lt;big&gt;" in table._repr_html_() and "2 failed" in table._repr_html_()


def test_different_devices_within_a_cell_are_said():
    records = [run(name, GIVEN, device="cuda:0" if i < 4 else "cpu") for i, name in enumerate(SET9)]
    mixed = build(2, records)
    assert cell(mixed, "Set9, σ = 25", "BM3D").circumstances == "cpu bfloat16 n=5, cuda bfloat16 n=4"
    assert Text(mixed._repr_html_()).words.count("cuda bfloat16 n=4") == 4  # cell, note, CSV, LaTeX
    same = build(2, [run(name, GIVEN) for name in SET9])
    assert Text(same._repr_html_()).words.count("cpu bfloat16 n=9") == 3  # note, CSV, LaTeX


def test_ssim_of_set9_is_the_volume_with_the_other_beside_it():
    method = B2G.profile("fast")
    table = build(2, [run(SET9[0], method), run("bsd68/001", method)], "ssim")
    ours = cell(table, "Set9, σ = 25", "fast")
    assert (ours.ours.mean, ours.also.mean) == pytest.approx((0.9, 0.8))
    ours = cell(table, "BSD68, σ = 25", "fast")
    assert (ours.ours.mean, ours.also.mean) == pytest.approx((0.8, 0.9))
    words = Text(table._repr_html_()).words
    assert "volume 0.900" in words and "2-D 0.800" in words


def test_other_pictures_than_the_papers_have_rows_of_their_own():
    blind = METHODS["bm3d"].profile()  # Poisson and real noise have no sigma to give
    records = [run(name, blind, level=30.0, noise="poisson") for name in ("planaria/full", "confocal/fish")]
    records += [run("confocal/fish@128", blind, level=30.0, noise="poisson")]
    table = build(4, records)
    assert cell(table, "Planaria, λ = 30", "BM3D").ours.n == 0  # two published figures are not the paper's set
    for title in ("planaria, not in the paper, λ = 30", "confocal, not in the paper, λ = 30",
                  "confocal, not in the paper, 128×128 central crops, λ = 30"):
        found = cell(table, title, "BM3D")
        assert (found.ours.n, found.text, found.difference) == (1, "", None)
        assert cell(table, title, "BM3D, blind").ours.n == 0
    [pair] = [name for name in datasets.names("sidd_sample") if has_clean(name)]
    table = build(5, [run(pair, blind, level=0.0, noise="real", protocol="as given")])
    assert cell(table, "sidd_sample, not in the paper", "BM3D").ours.n == 1
    assert cell(table, "SIDD, sRGB validation", "BM3D").ours.n == 0
    assert len(build(4, []).rows) == 2 and len(build(5, []).rows) == 3


def has_clean(name):
    try:
        return bool(datasets.info(name, "clean"))
    except B2GError:
        return False


def test_rows_and_columns_can_be_chosen():
    table = build(2, [], names=["set9"], levels=[50.0], methods=["BM3D", "fast"])
    assert [plain(row.title) for row in table.rows] == ["Set9, σ = 50"]
    assert [column.title for column in table.columns] == ["BM3D", "fast"]
    with pytest.raises(B2GError, match="2 to 5"):
        build(6, [])
    with pytest.raises(B2GError, match="2 to 5"):
        build(2, [], "lpips")


def test_what_is_missing_is_summed_over_whole_pictures():
    table = build(2, [run(name, GIVEN) for name in SET9[:3]] + [run(SET9[0] + "@64", GIVEN)],
                  names=["set9"], levels=[25.0], methods=["BM3D", "S2S", "DIP"])
    count, seconds, unknown = table.missing()
    assert (count, unknown) == (6 + 9, 9)
    assert seconds == pytest.approx(cell(table, "Set9, σ = 25", "BM3D").seconds)


@pytest.mark.parametrize("value, expected", [([], ["a", 25.0]), ('["a"]', ["a"]), ("a", ["a"]), ([25], [25]), ("[25]", [25])])
def test_names_come_as_a_list_or_as_papermills_text(value, expected):
    assert chosen(value, ("a", 25.0), "level") == expected
    with pytest.raises(B2GError, match="no level 'b' here: choose from a, 25.0"):
        chosen(["b"], ("a", 25.0), "level")


def test_its_plan_fills_it():
    from b2g.runs.plan import make_plan

    def table(records):
        return build(2, records, names=["set9"], levels=[25.0], methods=["BM3D", "fast", "B2G, paper", "DIP"])

    plan = make_plan("all", list(table([]).blocks(repeats=(0, 1))))
    assert len(plan.tasks) == 2 * 9 * 3
    records = [Record.of(task.run, psnr=30.0 + task.run.repeat, device="cpu") for task in plan.tasks]
    assert {found.ours.n for (_, c), found in table(records).cells.items() if c.method} == {9}
    assert {found.ours.mean for (_, c), found in table(records).cells.items() if c.method} == {30.5}
    one = make_plan("one", list(table([]).blocks(profile="fast", pictures=2)))
    assert [(t.run.picture, t.run.configured()) for t in one.tasks] == [(n, B2G.profile("fast")) for n in SET9[:2]]


def test_two_columns_are_compared_picture_by_picture():
    rng = np.random.default_rng(2)
    scene, gain = rng.normal(30, 3, 9), rng.normal(0.5, 0.05, 9)
    records = [run(name, GIVEN, scene[i]) for i, name in enumerate(SET9)]
    records += [run(name, B2G.profile("fast"), scene[i] + gain[i]) for i, name in enumerate(SET9[:7])]
    records += [run(SET9[0], B2G.profile("best"))]  # one picture has no interval, and no row
    [(row, column, found)] = pairs(build(2, records), records)
    assert (plain(row.title), column.title, found.n, found.sign) == ("Set9, σ = 25", "fast", 7, 1)
    assert found.mean == pytest.approx(gain[:7].mean(), rel=1e-9)
    means = build(2, records)  # while the means themselves cannot be told apart
    assert cell(means, "Set9, σ = 25", "BM3D").ours.high > cell(means, "Set9, σ = 25", "fast").ours.low


# --- the layouts --------------------------------------------------------------------------------------

class Text(HTMLParser):
    """What a reader reads, and a check that what opens closes."""

    def __init__(self, markup):
        super().__init__()
        self.words, self.rows, self.open = "", [], []
        self.feed(markup)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1] += [""] * int(dict(attributes).get("colspan", 1))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words += data + " "
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data + " "


RECORDS = [run(name, GIVEN, 31.0 + i) for i, name in enumerate(SET9)] + [failed(SET9[0], B2G.profile("paper"), "a_b 5%")]


def test_html_has_a_cell_for_every_row_and_column():
    table = build(2, RECORDS)
    rows = Text(table._repr_html_()).rows
    assert len(rows) == len(table.rows) + 2 and {len(row) for row in rows} == {len(table.columns) + 1}
    words = rows[2][1 + [column.title for column in table.columns].index("BM3D")].split()
    assert words[:3] == ["printed", "31.67", "35.00"] and words[-4:] == ["+3.33", "9", "of", "9"]
    assert "not run" in " ".join(rows[3]) and "http" not in table._repr_html_()


def test_csv_can_be_read_back():
    table = build(2, RECORDS)
    lines = list(csv.DictReader(io.StringIO(table.to_csv())))
    assert len(lines) == len(table.rows) * len(table.columns)
    [line] = [line for line in lines if (line["dataset"], line["level"], line["column"]) == ("set9", "25.0", "BM3D")]
    assert (float(line["printed"]), float(line["ours"]), line["n"], line["of"]) == (31.67, 35.0, "9", "9")
    assert float(line["difference"]) == pytest.approx(3.33, abs=1e-5)
    assert json.dumps(lines).count("1 of 9 diverged: a_b 5%") == 1


def test_latex_is_a_grid_of_balanced_cells():
    table = build(2, RECORDS)
    lines = table.to_latex().splitlines()
    body = [line for line in lines[lines.index(r"\midrule") + 1:lines.index(r"\bottomrule")]]
    assert len(body) == len(table.rows)
    for line in body:
        assert line.endswith(r" \\") and len(re.findall(r"(?<!\\)&", line)) == len(table.columns)
        assert line.count("{") == line.count("}")
    assert r"\makecell{31.67 \\ 35.00}" in body[0] and body[0].startswith(r"Set9, $\sigma$~=~25 &")
    assert all(line.startswith("%") for line in lines[lines.index(r"\end{tabular}") + 1:])


@pytest.mark.parametrize("text, expected", [
    ("a_b & 5%", r"a\_b \& 5\%"), ("{x} $ #", r"\{x\} \$ \#"), ("a\\b", r"a\textbackslash{}b"),
    ("σ × −1", r"$\sigma$ $\times$ $-$1")])
def test_latex_escapes_what_would_break_it(text, expected):
    assert layouts.latex(text) == expected
