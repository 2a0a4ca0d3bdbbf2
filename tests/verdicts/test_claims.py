"""The claims' file is sound; verdicts need no typed outcome; nothing but the two readings decides;
the page says all."""

import html
import inspect
import json
import re
from pathlib import Path

import pytest
import yaml
from claim_records import configured, evidence, flat, side
from docutils.nodes import make_id

from b2g.errors import B2GError
from b2g.methods import METHODS
from b2g.report.readings import pictures
from b2g.verdicts import arguments, cells, claims, listing, theorems
from b2g.verdicts.evidence import Evidence
from b2g.verdicts.judgement import FAILS, HOLDS, MISSING, OUTCOMES, PART, UNTESTABLE, Case, Wanted, verdict_of

ROOT = Path(__file__).parents[2]
ROWS = yaml.safe_load((ROOT / "data" / "claims.yml").read_text("utf-8"))["claims"]
FROM_RUNS = [row["id"] for row in ROWS if claims.claims()[row["id"]].basis == "runs"]


# --- the file -------------------------------------------------------------------------------------------

def test_every_claim_is_there_once_and_read_whole():
    assert len(ROWS) == len({row["id"] for row in ROWS}) == len(claims.claims())
    assert {row["kind"] for row in ROWS} == set(claims.KINDS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["id"])
def test_a_claim_says_where_it_stands_and_how_it_is_tested(row):
    assert set(row) <= {"id", "where", "claim", "kind", "written", "test", "with", "quote", "chapter"}
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", row["id"])
    assert re.search(r"Section|Abstract", row["where"])
    assert len(row["written"]) > 60 and row["claim"].endswith(".")
    assert len(row.get("quote", "").split()) <= 12, "a quotation of at most a dozen words"
    # No outcome is typed: the words of one are in the header alone.
    assert not any(word in json.dumps(row).lower() for word in ("does not hold", "not yet enough", "holds in part"))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["id"])
def test_a_claims_parameters_are_those_of_its_test(row):
    test = claims.TESTS[row["test"]]
    inspect.signature(test).bind(Evidence(), **row.get("with", {}))
    assert test.__doc__


@pytest.mark.parametrize("row", [row for row in ROWS if "chapter" in row], ids=lambda row: row["id"])
def test_the_chapter_that_shows_more_is_there_with_its_heading(row):
    name, _, anchor = row["chapter"].partition("#")
    notebook = json.loads((ROOT / "book" / name).read_text("utf-8"))
    text = "\n".join("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown")
    headings = {make_id(line.lstrip("# ")) for line in text.splitlines() if line.startswith("#")}
    assert not anchor or anchor in headings


@pytest.mark.parametrize(
    "change", [{"kind": "opinion"}, {"test": "guess"}, {"verdict": "holds"}, {"written": None, "claim": None}]
)
def test_a_damaged_claim_is_refused(change):
    row = {key: value for key, value in (ROWS[0] | change).items() if value is not None}
    with pytest.raises(B2GError, match=ROWS[0]["id"]):
        claims.read_claim(row)


def test_an_unknown_slug_is_named():
    with pytest.raises(B2GError, match="'theorem-3'"):
        claims.badge("theorem-3")


# --- what decides ---------------------------------------------------------------------------------------

def everything(*extra):
    """Runs of the two readings and their rivals on crops of 64 and 128: some claims come out decided."""
    groups = list(extra)
    for level in (25, 50, 75, 100):
        bm3d = METHODS["bm3d"].profile("official", sigma=float(level))
        groups.append(side(bm3d, "set9@128", flat(0), [level]))
    groups.append(side(configured("faithful"), "set9@128", flat(-1), (25, 50, 75, 100)))
    for changes in ({}, {"omega": 0.0}, {"mask": "bernoulli"}, {"standout": "none"}):
        gain = 0.3 * len(changes)
        groups.append(side(configured("faithful", changes, 400), "set9@64", flat(gain), (25, 50, 75, 100), cpu_seconds=9.0))
    return groups


def test_runs_of_other_profiles_change_nothing():
    """Every claim that runs decide, with and without splendid runs of `fast` and `best`
    at every place and level."""
    planted = [side(METHODS["b2g"].profile(name), where, flat(20), (25, 50, 75, 100), cpu_seconds=0.1, kept="0,0,9,9")
               for name in ("fast", "best") for where in ("set9", "set9@64", "set9@128")]
    plain, spoilt = evidence(*everything()), evidence(*everything(*planted))
    outcomes = {slug: claims.judge(slug, plain) for slug in FROM_RUNS}
    assert outcomes == {slug: claims.judge(slug, spoilt) for slug in FROM_RUNS}
    assert {FAILS, MISSING} <= {each.outcome for each in outcomes.values()}  # the comparison has something to compare


def test_a_claim_decided_by_one_reading_says_so():
    found = claims.judge("beats-bm3d", evidence(*everything()))
    assert found.outcome == FAILS
    assert found.verdict.detail == "decided for the reading faithful alone; paper: not yet"
    better = evidence(*everything()[:4], side(configured("faithful"), "set9@128", flat(1), (25, 50, 75, 100)))
    assert claims.judge("beats-bm3d", better).outcome == PART


def test_without_a_single_run_nothing_that_needs_runs_is_decided():
    for slug in FROM_RUNS:
        assert claims.judge(slug, evidence()).outcome in (MISSING, UNTESTABLE)


# --- printed cells and what is at hand ------------------------------------------------------------------

def test_a_printed_row_that_b2g_does_not_lead_refutes_its_table():
    whole = verdict_of(cells.first_of_row(None, [2, 3, 4, 5]))
    beaten = cells.first_of_row(None, [2, 3], others=("N2N",))
    assert whole == HOLDS and verdict_of(beaten) == PART
    assert [case.outcome for case in beaten] == [FAILS, HOLDS, FAILS, FAILS]  # CBSD68 25: 0.858 against 0.857
    assert "Urban100 25: N2N" in beaten[0].value  # 30.66 against 30.00
    assert verdict_of(cells.first_of_row(None, [4], others=("N2N",))) == HOLDS  # 0.930 ties 0.930


def test_the_share_of_rows_behind_is_counted():
    # By hand: Urban100 25 (30.66), Kodak24 25 (32.48), CBSD68 25 (31.22) of N2N, Set9 75 (27.86) of Ne2Ne.
    case = cells.seldom_behind(None, [2, 3])[0]
    assert case.value.startswith("4 of 22 rows") and case.outcome == HOLDS
    assert cells.seldom_behind(None, [2, 3], share=0.1)[0].outcome == FAILS


@pytest.mark.parametrize("psnr, levels, expected", [(0.29, [30], HOLDS), (0.29, [50], FAILS), (0.29, [30, 50], PART)])
def test_a_printed_margin_is_compared_to_the_printed_decimals(psnr, levels, expected):
    cases = cells.margin(None, "Planaria", levels, "N2N", psnr)
    assert verdict_of(cases) == expected


def test_what_is_not_at_hand_is_named_until_it_is():
    case, = cells.at_hand(None, ["ne2ne"], ["sidd"], ["the supplement"])
    assert case.outcome == UNTESTABLE
    assert all(word in case.what for word in ("ne2ne", "sidd", "supplement"))
    assert cells.at_hand(None, ["bm3d"], ["set9"])[0].outcome == MISSING


# --- algebra and simulation --------------------------------------------------------------------------------

@pytest.mark.parametrize(
    "test, given, expected",
    [
        (arguments.signs, {}, FAILS), (arguments.signs, {"share": 0.6}, HOLDS),
        (arguments.omega_limit, {}, PART), (arguments.omega_limit, {"tolerance": 1.1}, HOLDS),
        (arguments.mask_rate, {}, PART), (arguments.mask_rate, {"levels": (5,)}, HOLDS),
        (arguments.detail_is_edge, {"share": 0.0, "levels": (25,)}, HOLDS),
        (arguments.detail_is_edge, {"share": 0.9, "levels": (25,)}, FAILS),
        (theorems.invariance, {}, PART), (theorems.propositions, {}, FAILS),
        (theorems.corollary_1, {}, HOLDS), (theorems.theorem_1, {}, FAILS),
        (theorems.noise2self, {}, HOLDS), (theorems.noise2self, {"power": 1e-6}, FAILS),
        (theorems.noise2self_dual, {}, PART), (theorems.theorem_2, {}, FAILS),
        (theorems.supervised_minimum, {}, PART),
    ],
)  # fmt: skip
def test_what_section_3_and_4_argue_is_decided_by_the_theorys_functions(test, given, expected):
    assert verdict_of(test(None, **given)) == expected


def test_theorem_1_would_be_seen_to_hold_with_its_cross_term(monkeypatch):
    """The same judge on the mended identity: the test can say "holds"."""
    monkeypatch.setattr(theorems.theory, "theorem_1", theorems.theory.mended_theorem_1)
    assert verdict_of(theorems.theorem_1(None)) == HOLDS


def test_theorem_2_would_be_seen_to_hold_under_a_payoff_that_mends_it(monkeypatch):
    mended = theorems.theory.PAYOFFS["x*/x"]
    monkeypatch.setattr(theorems.theory, "PAYOFFS", dict.fromkeys(theorems.PAYOFFS, mended))
    monkeypatch.setattr(theorems.game, "printed_distance_rate", theorems.game.distance_rate)
    assert verdict_of(theorems.theorem_2(None)) == HOLDS


# --- the page -------------------------------------------------------------------------------------------

def made_up(outcome, **change):
    claim = claims.read_claim(ROWS[0] | {"claim": "A < B & more."})
    return claims.Judged(claim, (Case("σ = 25", outcome, "+0.10 dB", 9, "faithful", **change),))


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_a_claim_shows_its_badge_its_test_and_its_measurements(outcome):
    found = made_up(outcome)
    markup = listing.claim_markup(found)
    assert f">{outcome}</span>" in markup and "A &lt; B &amp; more." in markup
    assert html.escape(found.claim.written) in markup and "+0.10 dB" in markup and "<td>9</td>" in markup
    assert repr(found.verdict).startswith(f"{outcome}: A < B")


def test_missing_runs_are_counted_once_with_what_they_cost():
    runs = tuple(Wanted("{}", f"set9/{k}", "gaussian", 25.0, seconds) for k, seconds in enumerate((3600, 3600, None)))
    found = made_up(MISSING, lacking=runs)
    twice = claims.Judged(found.claim, found.cases * 2)
    for each in (found, twice):
        words, = listing.missing_words(each)
        assert words == ("Missing for the reading faithful: at least 3 runs, about 2 hours on one CPU core, "
                         "1 of them of unknown cost.")


def test_a_folded_list_of_cases_says_how_they_came_out():
    outcomes = [("faithful", HOLDS), ("faithful", HOLDS), ("faithful", FAILS), ("paper", MISSING)]
    cases = tuple(Case("", outcome, reading=reading) for reading, outcome in outcomes)
    found = claims.Judged(made_up(HOLDS).claim, (*cases, Case("", FAILS, reading="letter", decides=False)))
    assert listing.tally(found) == "faithful: 2 hold, 1 does not hold; paper: 1 open"


def test_the_overview_counts_every_claim_once():
    judged = [made_up(HOLDS), made_up(HOLDS), made_up(PART)]
    shown = repr(listing.overview(judged))  # result, ablation, theory, method, cost, all
    for line in (r"holds +2 +0 +0 +0 +0 +2", r"holds in part +1 +0 +0 +0 +0 +1", r"all +3 +0 +0 +0 +0 +3"):
        assert re.search(rf"^{line}$", shown, re.MULTILINE)


def test_a_page_of_a_kind_has_each_of_its_claims():
    judged = claims.judge_all(evidence())
    for kind in claims.KINDS:
        markup = listing.page(kind, judged)._repr_html_()
        assert re.findall(r'id="claim-([a-z0-9-]+)"', markup) == [row["id"] for row in ROWS if row["kind"] == kind]


def test_a_badge_is_the_pages_own_verdict():
    assert claims.badge("poisson-margin") == claims.judge("poisson-margin").verdict
    assert "holds in part" in claims.badge("poisson-margin")._repr_html_()


def test_pictures_of_a_claim_are_the_data_sets_own():
    assert len(pictures("set9")) == 9 and pictures("set9@64")[0].endswith("@64") and pictures("sidd") == ()
