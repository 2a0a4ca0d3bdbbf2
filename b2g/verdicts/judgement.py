"""How a claim is judged: a case is decided by an interval, cases add up to a reading, readings to a verdict.

Five outcomes, no others. All rules by which a verdict comes about stand in this file; data/claims.yml and the
page of the verdicts repeat them in words.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from b2g.report.statistics import Interval, bootstrap, pictures_needed

HOLDS, PART, FAILS = "holds", "holds in part", "does not hold"
MISSING, UNTESTABLE = "not yet enough runs", "cannot be tested here"
OUTCOMES = (HOLDS, PART, FAILS, MISSING, UNTESTABLE)
DECIDED = (HOLDS, PART, FAILS)
# Fewer pictures decide nothing; resampling fewer than five values cannot reach 95 %.
LEAST = 5
# Two decimals of a decibel are printed; no test is asked to see less than this.
RESOLUTION = 0.05


@dataclass(frozen=True)
class Wanted:
    """A run that a case lacks: its method as JSON, the picture, and the estimated CPU seconds (None:
    unknown)."""

    method: str
    picture: str
    noise: str
    level: float
    seconds: float | None = None


@dataclass(frozen=True)
class Case:
    """One measurement of a claim: what was compared, what came out, how it was decided.

    ``reading`` is the reading of the paper that was run ("" where none enters); ``lacking`` the runs that are
    missing. A case with ``decides=False`` is shown and changes no verdict.
    """

    what: str
    outcome: str
    value: str = ""
    n: int | None = None
    reading: str = ""
    lacking: tuple[Wanted, ...] = ()
    decides: bool = True


def fact(what: str, holds: bool, value: str = "", reading: str = "") -> Case:
    """A case that is true or false without sampling pictures."""
    return Case(what, HOLDS if holds else FAILS, value, reading=reading)


def aside(case: Case) -> Case:
    """The same case, shown without a say in the verdict."""
    return replace(case, decides=False)


def decide(values, effect: float = 0.0, least: int = LEAST) -> tuple[str, Interval]:
    """Whether ``values`` (one a picture: ours minus theirs) say "better", by at least ``effect``.

    Holds if the whole interval lies above 0 and reaches ``effect``; in part if it lies above 0 and wholly
    under ``effect``; fails if it lies below 0, or reaches 0 or less and stays under ``effect``; else more is
    needed.
    """
    found = bootstrap(values)
    if found.n < max(least, 2):
        return MISSING, found
    if found.low > 0:
        return (HOLDS if found.high >= effect else PART), found
    return (FAILS if found.high < 0 or found.high < effect else MISSING), found


def within(values, low: float = -np.inf, high: float = np.inf, least: int = LEAST) -> tuple[str, Interval]:
    """Whether the mean of ``values`` lies in [low, high]: holds if the interval does,
    fails if it lies outside."""
    found = bootstrap(values)
    if found.n < max(least, 2):
        return MISSING, found
    if low <= found.low and found.high <= high:
        return HOLDS, found
    return (FAILS if found.high < low or found.low > high else MISSING), found


def enough(values, effect: float = 0.0, resolution: float = RESOLUTION) -> int:
    """About how many pictures would decide: 80 % power at the effect in question, more than there are."""
    values = np.asarray(list(values), dtype=np.float64)
    spread = values.std(ddof=1) if len(values) > 1 else 0.0
    if not spread > 0:
        return len(values) + 1
    size = max(effect, abs(float(values.mean())), resolution)
    return max(pictures_needed(size, float(spread)), len(values) + 1)


def enough_within(values, low: float = -np.inf, high: float = np.inf) -> int:
    """About how many pictures would tell on which side of the nearer bound the mean lies,
    more than there are."""
    values = np.asarray(list(values), dtype=np.float64)
    spread, mean = float(values.std(ddof=1)), float(values.mean())
    distance = min(abs(mean - low), abs(mean - high))
    if not (spread > 0 and 0 < distance < np.inf):
        return len(values) + 1
    return max(pictures_needed(distance, spread), len(values) + 1)


def every(outcomes) -> str:
    """All cases of a claim together ("on every set, at every level").

    One case that fails refutes the whole, and leaves "in part" where another holds. What cannot be tested
    here is left out and keeps the rest from more than "in part".
    """
    outcomes = list(outcomes)
    judged = {outcome for outcome in outcomes if outcome != UNTESTABLE}
    if not judged:
        return UNTESTABLE
    if FAILS in judged:
        return PART if judged & {HOLDS, PART} else FAILS
    if MISSING in judged:
        return MISSING
    return PART if PART in judged or UNTESTABLE in outcomes else HOLDS


def across(by_reading: dict[str, str]) -> str:
    """The verdict from the outcomes of the readings that count.

    An undecided reading is left out and keeps the rest from more than "in part". Readings that differ:
    "in part".
    """
    decided = {outcome for outcome in by_reading.values() if outcome in DECIDED}
    if not decided:
        return MISSING if MISSING in by_reading.values() else UNTESTABLE
    if decided == {FAILS}:
        return FAILS
    complete = all(outcome in DECIDED for outcome in by_reading.values())
    return HOLDS if decided == {HOLDS} and complete else PART


def verdict_of(cases) -> str:
    """The one verdict of a claim's cases."""
    by_reading: dict[str, list[str]] = {}
    for case in cases:
        if case.decides:
            by_reading.setdefault(case.reading, []).append(case.outcome)
    return across({reading: every(outcomes) for reading, outcomes in by_reading.items()})


def scope_of(cases) -> str:
    """In words, where a verdict rests on one reading while another counts too."""
    found = {}
    for case in cases:
        if case.decides and case.reading:
            found.setdefault(case.reading, []).append(case.outcome)
    outcomes = {reading: every(those) for reading, those in found.items()}
    decided = [reading for reading, outcome in outcomes.items() if outcome in DECIDED]
    open_ = [reading for reading in outcomes if reading not in decided]
    if decided and open_:
        return f"decided for the reading {' and '.join(decided)} alone; {' and '.join(open_)}: not yet"
    if len(set(outcomes.values())) < 2:
        return ""
    return "; ".join(f"{reading}: {outcome}" for reading, outcome in outcomes.items())
