"""The rules of a verdict, against truth tables written out by hand and intervals by SciPy."""

import itertools

import numpy as np
import pytest
from scipy import stats

from b2g.verdicts import judgement
from b2g.verdicts.judgement import (
    FAILS,
    HOLDS,
    MISSING,
    PART,
    UNTESTABLE,
    Case,
    Wanted,
    across,
    decide,
    enough,
    enough_within,
    every,
    scope_of,
    verdict_of,
    within,
)

SPREAD = np.array([-0.1, -0.05, 0.0, 0.05, 0.1])


@pytest.mark.parametrize(
    "values, effect, expected",
    [
        (1.0 + SPREAD, 0.0, HOLDS),
        (1.0 + SPREAD, 1.0, HOLDS),  # the interval reaches the effect claimed
        (1.0 + SPREAD, 2.0, PART),  # better, but by less
        (-1.0 + SPREAD, 0.0, FAILS),
        (0.0 + SPREAD, 0.5, FAILS),  # nothing, and an effect of 0.5 is excluded
        (0.0 + SPREAD, 0.0, MISSING),
        (0.0 + 10 * SPREAD, 0.5, MISSING),
        (1.0 + SPREAD[:4], 0.0, MISSING),  # four pictures decide nothing
        ([], 0.0, MISSING),
        ([1.0], 0.0, MISSING),
    ],
)
def test_a_case_is_decided_by_its_interval(values, effect, expected):
    assert decide(values, effect)[0] == expected


def test_few_values_get_students_interval():
    values = [1.0, 1.5, 2.2]
    found = judgement.bootstrap(values)
    low, high = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-12)
    assert decide(values, least=3)[0] == (HOLDS if low > 0 else MISSING)
    assert decide(np.array(values) + 1, least=3)[0] == HOLDS


@pytest.mark.parametrize("shift, expected", [(0.5, HOLDS), (2.0, FAILS), (-1.0, FAILS), (1.0, MISSING), (0.0, MISSING)])
def test_a_mean_lies_within_bounds_outside_or_astride(shift, expected):
    assert within(shift + SPREAD, 0.0, 1.0)[0] == expected


def test_the_pictures_that_would_tell_grow_with_the_square_of_the_spread():
    few, many = enough(0.02 + 10 * SPREAD), enough(0.02 + 30 * SPREAD)
    assert many == pytest.approx(9 * few, rel=0.02)
    assert enough(10 + SPREAD) == len(SPREAD) + 1  # told already: never fewer than there are
    assert enough([1.0]) == 2 and enough([]) == 1


def test_the_pictures_that_would_tell_a_bound_grow_as_the_mean_comes_near_it():
    values = 10 * SPREAD
    assert enough_within(values + 1.2, high=1.0) == pytest.approx(4 * enough_within(values + 1.4, high=1.0), rel=0.02)
    assert enough_within(values, high=0.0) == enough_within([1.0, 1.0], high=0.5) + 3 == len(values) + 1


def test_every_agrees_with_its_words_on_all_triples():
    """The rule again, from its sentence: one failure refutes,
    leaving "in part" beside something that holds."""
    for triple in itertools.product((HOLDS, PART, FAILS, MISSING, UNTESTABLE), repeat=3):
        some = {word: word in triple for word in (HOLDS, PART, FAILS, MISSING, UNTESTABLE)}
        if all(outcome == UNTESTABLE for outcome in triple):
            expected = UNTESTABLE
        elif some[FAILS]:
            expected = PART if some[HOLDS] or some[PART] else FAILS
        elif some[MISSING]:
            expected = MISSING
        else:
            expected = PART if some[PART] or some[UNTESTABLE] else HOLDS
        assert every(triple) == expected


@pytest.mark.parametrize(
    "faithful, paper, expected",
    [
        (HOLDS, HOLDS, HOLDS), (FAILS, FAILS, FAILS), (HOLDS, FAILS, PART), (PART, PART, PART), (PART, HOLDS, PART),
        (HOLDS, MISSING, PART), (MISSING, HOLDS, PART), (FAILS, MISSING, FAILS), (MISSING, FAILS, FAILS),
        (MISSING, MISSING, MISSING), (UNTESTABLE, UNTESTABLE, UNTESTABLE), (UNTESTABLE, MISSING, MISSING),
        (HOLDS, UNTESTABLE, PART),
    ],
)  # fmt: skip
def test_one_reading_alone_never_makes_a_claim_hold(faithful, paper, expected):
    assert across({"faithful": faithful, "paper": paper}) == expected


def test_a_case_beside_changes_neither_verdict_nor_scope():
    cases = [Case("a", HOLDS, reading="faithful"), Case("a", MISSING, reading="paper")]
    beside = Case("a", FAILS, reading="letter", decides=False)
    assert verdict_of(cases) == verdict_of([*cases, beside]) == PART
    assert scope_of([*cases, beside]) == "decided for the reading faithful alone; paper: not yet"
    assert scope_of([cases[1], Case("b", MISSING, reading="faithful")]) == ""
    assert scope_of([cases[0], Case("b", FAILS, reading="paper")]) == "faithful: holds; paper: does not hold"


def test_a_wanted_run_counts_once():
    run = Wanted("{}", "set9/F16", "gaussian", 25.0, 3.0)
    assert len({run, Wanted("{}", "set9/F16", "gaussian", 25.0, 3.0)}) == 1
