"""The tests that compare runs: each takes the evidence and a claim's parameters, and returns cases.

``sets`` maps pictures ("set9", "set9@64") to levels. ``ours`` and ``theirs`` are settings that a side
changes. ``steps`` shortens the faithful reading. ``instead`` is the side of central crops that may stand for
whole pictures in the faithful reading; in the reading ``paper`` nothing may.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np

from b2g.report.printed import printed_value
from b2g.report.readings import DECIDING, configured, pictures, rival, words
from b2g.report.statistics import bootstrap, paired, picture_means
from b2g.verdicts.evidence import Evidence
from b2g.verdicts.judgement import (
    DECIDED,
    FAILS,
    HOLDS,
    LEAST,
    MISSING,
    UNTESTABLE,
    Case,
    decide,
    enough,
    fact,
)

UNITS = {"psnr": "dB", "ssim_2d": "", "lpips": ""}
SIGNS = {"gaussian": "σ", "poisson": "λ"}


def readings_of(readings) -> tuple[tuple[str, bool], ...]:
    """The readings that decide, and the letter beside the paper's own."""
    beside = (("letter", False),) if "paper" in readings else ()
    return tuple((reading, True) for reading in readings) + beside


def choices(where: str, reading: str, instead: int | None) -> list[str]:
    """Where a reading may be measured, the best first."""
    if instead and reading == "faithful" and "@" not in where:
        return [where, f"{where}@{instead}"]
    return [where]


def shown(found, unit: str = "dB") -> str:
    """A mean with its interval, as a page prints it."""
    if found.mean is None:
        return ""
    span = f" [{found.low:+.2f}, {found.high:+.2f}]" if found.low is not None else ""
    return f"{found.mean:+.2f}{span} {unit}".strip()


def beats(evidence: Evidence, sets, theirs, ours=None, steps=None, effect=0.0, metric="psnr", lower=False,
          allowance=0.0, instead=None, readings=DECIDING, noise="gaussian", least=LEAST):
    """Ours scores better than each of theirs, everywhere: paired differences over pictures.

    ``ours`` may be a list: each of them must. ``lower``: a lower score is better. ``allowance``: ours may be
    worse by so much ("comparable"). Rivals that the package has not are named in one case for all.
    """
    cases, absent, variants = [], {}, ours if isinstance(ours, list) else [ours]
    rule = dict(effect=effect, metric=metric, lower=lower, least=least, allowance=allowance)
    everything = product(readings_of(readings), variants, theirs, sets.items())
    for (reading, decides), own, other, (where, levels) in everything:
        for level in levels:
            sides = configured(reading, own, steps), rival(reading, other, steps, level)
            if sides[1] is None:
                absent.setdefault(other["method"])
                continue
            case = _contest(evidence, choices(where, reading, instead), sides, noise, level, rule)
            own_words = f"{words(own)} " if len(variants) > 1 else ""
            what = f"{_place(case.what, noise, level)}, {own_words}over {words(other)}"
            cases.append(replace(case, what=what, reading=reading, decides=decides))
    cases += [Case(f"over {', '.join(absent)}", UNTESTABLE, "not in this package", reading=reading)
              for reading in (readings if absent else ())]
    return [case for case in cases if case.decides or case.n]


def _place(where: str, noise: str, level: float) -> str:
    return f"{where}, {SIGNS[noise]} = {level:g}" if noise in SIGNS else where


def _contest(evidence, places, sides, noise, level, rule) -> Case:
    """One comparison, on the first of the places that decides, or else on the one with most pictures."""
    tried = []
    for where in places:
        names = pictures(where)
        if len(names) < rule["least"]:
            tried.append(Case(where, UNTESTABLE, f"{len(names)} such pictures at hand"))
            continue
        first, second = (evidence.runs(side, names, noise, level) for side in sides)
        differences = paired(first, second, rule["metric"])[1] * (-1 if rule["lower"] else 1)
        outcome, found = decide(differences + rule["allowance"], rule["effect"], rule["least"])
        value, lacking = shown(bootstrap(differences), UNITS.get(rule["metric"], "")), ()
        value += failed_words([state for side in sides for state in evidence.failures(side, names, noise, level)])
        if outcome == MISSING:
            lacking = evidence.shortage(sides, names, noise, level, found.n, rule["least"])
            value += _more(differences, rule)
        tried.append(Case(where, outcome, value, found.n, lacking=lacking))
        if outcome in DECIDED:
            break
    # Of two places without pictures, the crops cost less: they stand last.
    return max(reversed(tried), key=lambda case: (case.outcome in DECIDED, case.n or 0))


def failed_words(states) -> str:
    """How many runs failed, and how: a failed run is no score, and is not repeated."""
    return f"; {len(states)} failed ({', '.join(sorted(set(states)))})" if states else ""


def _more(differences, rule) -> str:
    if len(differences) < rule["least"]:
        return ""
    return f"; about {enough(differences + rule['allowance'], rule['effect'])} pictures would tell"


def best_value(evidence: Evidence, sets, field, chosen, values, over, ours=None, steps=None, effect=0.05,
               readings=DECIDING, least=LEAST):
    """One value of a setting is the best of a grid: it beats those in ``over`` by ``effect``,
    and none beats it.

    A flat curve has no best value: ``over`` are its far ends, which the best must leave behind.
    """
    cases = []
    for (reading, decides), (where, levels) in product(readings_of(readings), sets.items()):
        names = pictures(where)
        points = {value: configured(reading, {**(ours or {}), field: value}, steps) for value in values}
        for level in levels:
            runs = {value: evidence.runs(point, names, "gaussian", level) for value, point in points.items()}
            case = _peak(runs, chosen, over, effect, least)
            lacking = (evidence.shortage(points.values(), names, "gaussian", level, case.n, least)
                       if case.outcome == MISSING else ())
            cases.append(replace(case, what=_place(where, "gaussian", level), reading=reading, lacking=lacking,
                                 decides=decides))
    return [case for case in cases if case.decides or case.n]


def _peak(runs, chosen, over, effect, least) -> Case:
    """Whether the scores at ``chosen`` are a peak; ``runs`` maps each value to its records."""
    outcomes, telling, counts = [], {}, []
    for value in runs:
        if value == chosen:
            continue
        outcome, found = decide(paired(runs[chosen], runs[value])[1], effect if value in over else 0.0, least)
        if value not in over and outcome == MISSING and found.n >= least:
            outcome = HOLDS  # a neighbour need not be beaten: it must not be better
        outcomes.append(outcome)
        counts.append(found.n)
        if found.n:
            telling[value] = found
    outcome = FAILS if FAILS in outcomes else MISSING if MISSING in outcomes else HOLDS
    means = {value: found.mean for value, found in telling.items()}
    words_ = [f"over {value:g}: {shown(telling[value])}" for value in over if value in telling]
    if means and min(means.values()) < 0:
        top = min(means, key=means.get)
        words_.append(f"highest mean at {top:g}, {-means[top]:.2f} dB above {chosen:g}")
    elif means:
        words_.append(f"highest mean at {chosen:g}")
    return Case("", outcome, "; ".join(words_), min(counts, default=0))


def range_larger(evidence: Evidence, sets, first, second, ours=None, steps=None, effect=0.05, readings=DECIDING,
                 least=LEAST):
    """The result moves more over the grid ``first`` than over ``second``: the range over each,
    paired by picture."""
    cases = []
    for (reading, decides), (where, levels) in product(readings_of(readings), sets.items()):
        grids = [[configured(reading, {**(ours or {}), **dict(zip(grid, values))}, steps)
                  for values in product(*grid.values())] for grid in (first, second)]
        for level in levels:
            one, other = (_ranges(evidence, points, pictures(where), level) for points in grids)
            common = sorted(one.keys() & other.keys())
            outcome, found = decide([one[name] - other[name] for name in common], effect, least)
            points = {p.identity(): p for points in grids for p in points}.values()
            lacking = evidence.shortage(points, pictures(where), "gaussian", level, found.n, least)
            lacking = lacking if outcome == MISSING else ()
            what = _place(where, "gaussian", level)
            cases.append(Case(what, outcome, shown(found), found.n, reading, lacking, decides))
    return [case for case in cases if case.decides or case.n]


def _ranges(evidence, points, names, level) -> dict[str, float]:
    """{picture: highest minus lowest PSNR over the points}, of the pictures that have every point."""
    scores = [picture_means(evidence.runs(point, names, "gaussian", level)) for point in points]
    common = set.intersection(*map(set, scores))
    return {name: max(s[name] for s in scores) - min(s[name] for s in scores) for name in common}


def reaches_printed(evidence: Evidence, dataset, levels, tolerance=0.3, readings=DECIDING, steps=None):
    """The mean PSNR of a whole data set comes up to the printed one, less ``tolerance``:
    the very same pictures."""
    cases, names = [], pictures(dataset)
    for reading, level in product(readings, levels):
        method, target = configured(reading, None, steps), printed_value(dataset, level, "b2g")
        found = picture_means(evidence.runs(method, names, "gaussian", level))
        what = f"{_place(dataset, 'gaussian', level)}: printed {target:.2f} dB"
        if len(found) < len(names):
            lacking = evidence.shortage([method], names, "gaussian", level, len(found), len(names))
            failed = failed_words(evidence.failures(method, names, "gaussian", level))
            cases.append(Case(what, MISSING, failed.removeprefix("; "), len(found), reading, lacking))
        else:
            mean = float(np.mean(list(found.values())))
            case = fact(what, mean >= target - tolerance, f"{mean:.2f} dB", reading)
            cases.append(replace(case, n=len(found)))
    return cases


def spread_smaller(evidence: Evidence, sets, theirs, steps=None, instead=None, readings=DECIDING, least=LEAST):
    """Our PSNR varies less from picture to picture than theirs: |score - mean|, paired by picture.

    The figure shows ranges; a range of nine pictures is two of them, so the mean deviation is tested.
    """
    cases = []
    for reading, other, (where, levels) in product(readings, theirs, sets.items()):
        for level in levels:
            sides = configured(reading, None, steps), rival(reading, other, steps, level)
            tried = {place: _scores(evidence, sides, place, level) for place in choices(where, reading, instead)}
            place = max(reversed(tried), key=lambda key: len(tried[key]))
            off = np.abs(tried[place] - tried[place].mean(0)) if len(tried[place]) else tried[place]
            outcome, found = decide(off[:, 1] - off[:, 0], 0.0, least)
            lacking = evidence.shortage(sides, pictures(place), "gaussian", level, found.n, least)
            lacking = lacking if outcome == MISSING else ()
            what = f"{_place(place, 'gaussian', level)}, over {words(other)}"
            cases.append(Case(what, outcome, shown(found), found.n, reading, lacking))
    return cases


def _scores(evidence, sides, where, level):
    """PSNR of both sides, ``(pictures, 2)``, on the pictures that both have."""
    one, two = (picture_means(evidence.runs(side, pictures(where), "gaussian", level)) for side in sides)
    return np.array([(one[name], two[name]) for name in sorted(one.keys() & two.keys())]).reshape(-1, 2)


TESTS = (beats, best_value, range_larger, reaches_printed, spread_smaller)
