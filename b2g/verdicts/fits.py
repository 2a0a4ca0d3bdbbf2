"""The tests that look into a fit: what was watched along it (b2g.runs.watch), what it cost,
and its pictures."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import replace
from itertools import product

import numpy as np
from scipy.stats import spearmanr

from b2g.errors import B2GError
from b2g.report import records as stored
from b2g.report.readings import DECIDING, configured, pictures, rival, words
from b2g.verdicts.comparisons import choices, readings_of, shown
from b2g.verdicts.evidence import Evidence
from b2g.verdicts.judgement import LEAST, MISSING, Case, decide, enough_within, within

# The levels that runs of Set9 have; times are averaged over them.
LEVELS = (25, 50, 75, 100)


def watched(evidence: Evidence, where, levels, quantity, low=-np.inf, high=np.inf, steps=None, readings=DECIDING,
            least=3):
    """A quantity of the training (b2g.runs.watch) lies in [low, high] at the end of the fit.

    One value a picture: the mean over its levels and repeats.
    """
    cases = []
    for reading, decides in readings_of(readings):
        values = defaultdict(list)
        for record, history in evidence.watched(reading, where, levels, steps):
            found = [entry[quantity] for entry in history if entry.get(quantity) is not None]
            if found:
                values[record.picture].append(found[-1])
        case = _bounded(f"{quantity.replace('_', ' ')} at the end", values, {"low": low, "high": high}, least)
        lacking = evidence.unwatched(reading, where, levels, steps, case.n, least)
        lacking = lacking if case.outcome == MISSING else ()
        cases.append(replace(case, reading=reading, lacking=lacking, decides=decides))
    return [case for case in cases if case.decides or case.n]


def _bounded(what, values, bounds, least) -> Case:
    """A case of one mean value a picture, within bounds."""
    means = [np.mean(each) for each in values.values()]
    outcome, found = within(means, least=least, **bounds)
    open_ = outcome == MISSING and found.n >= least
    more = f"; about {enough_within(means, **bounds)} pictures would tell" if open_ else ""
    return Case(what, outcome, shown(found, "") + more, found.n)


def tracks(evidence: Evidence, where, levels, steps=None, readings=DECIDING, correlation=0.9, rise=0.05, least=3):
    """The self-supervised and the supervised loss converge together (Figure 5).

    Along the logged steps their rank correlation is at least ``correlation``, and the supervised loss ends at
    most ``rise`` (a share) above the lowest value that it had.
    """
    cases = []
    for reading, decides in readings_of(readings):
        agree, risen = defaultdict(list), defaultdict(list)
        for record, history in evidence.watched(reading, where, levels, steps):
            found = np.array([[entry["self_supervised_loss"], entry["supervised_loss"]] for entry in history
                              if "supervised_loss" in entry])
            if len(found) > 3:
                agree[record.picture].append(float(spearmanr(*found.T).statistic))
                risen[record.picture].append(float(found[-1, 1] / found[:, 1].min() - 1))
        pair = (_bounded("rank correlation of the two losses", agree, {"low": correlation}, least),
                _bounded("rise of the supervised loss at the end, as a share", risen, {"high": rise}, least))
        lacking = evidence.unwatched(reading, where, levels, steps, pair[0].n, least)
        cases += [replace(case, reading=reading, lacking=lacking if case.outcome == MISSING else (), decides=decides)
                  for case in pair]
    return [case for case in cases if case.decides or case.n]


def _times(evidence, method, names, level):
    """{(picture, device, machine): mean CPU seconds} of a configured method; clock seconds on a GPU."""
    groups = defaultdict(list)
    for record in evidence.runs(method, names, "gaussian", level):
        spent = record.cpu_seconds if record.device.startswith("cpu") else record.seconds
        if spent and not record.watch:  # watching costs time of its own
            groups[record.picture, record.device, record.machine].append(spent)
    return {key: float(np.mean(values)) for key, values in groups.items()}


def _ratios(evidence, first, second, where, levels):
    """{picture: time of ``first`` over time of ``second``}: same picture, level, device and machine."""
    found = defaultdict(list)
    for level in levels:
        one, other = (_times(evidence, method, pictures(where), level) for method in (first, second))
        for key in one.keys() & other.keys():
            found[key[0]].append(one[key] / other[key])
    return {picture: float(np.mean(values)) for picture, values in found.items()}


def time_exponent(evidence: Evidence, small, large, low=0.8, high=1.2, steps=None, readings=DECIDING, least=LEAST):
    """The time of a step grows as pixels to the power of one (Eq. 3.15): the exponent lies in [low, high].

    ``small`` and ``large`` are central crops of one data set;
    ``steps`` are those of the faithful runs on the small.
    """
    cases = []
    sides = [int(where.partition("@")[2]) for where in (small, large)]
    span = 2 * math.log(sides[1] / sides[0])
    for reading, decides in readings_of(readings):
        methods = configured(reading, None, steps), configured(reading)
        one, two = (_step_times(evidence, method, where) for method, where in zip(methods, (small, large)))
        exponents = [math.log(two[key] / one[key]) / span for key in sorted(one.keys() & two.keys())]
        outcome, found = within(exponents, low, high, least)
        lacking = sum((evidence.shortage([method], pictures(where), "gaussian", LEVELS[0], found.n, least)
                       for method, where in zip(methods, (small, large))), ()) if outcome == MISSING else ()
        cases.append(Case(f"exponent of time in pixels, {small} to {large}", outcome, shown(found, ""), found.n,
                          reading, lacking, decides))
    return [case for case in cases if case.decides or case.n]


def _step_times(evidence, method, where) -> dict:
    """{(picture without its crop, device, machine): seconds a step}, the mean over levels."""
    groups = defaultdict(list)
    for level in LEVELS:
        for (name, *machine), spent in _times(evidence, method, pictures(where), level).items():
            groups[(name.partition("@")[0], *machine)].append(spent / method.steps)
    return {key: float(np.mean(values)) for key, values in groups.items()}


def time_share(evidence: Evidence, where, without, low=0.5, steps=None, readings=DECIDING, least=LEAST):
    """Parts of the method take the larger part of the time:
    1 - (time without them) / (time with them) > low."""
    cases = []
    for reading, decides in readings_of(readings):
        whole, bare = configured(reading, None, steps), configured(reading, without, steps)
        ratios = _ratios(evidence, bare, whole, where, LEVELS)
        outcome, found = within([1 - ratio for ratio in ratios.values()], low=low, least=least)
        lacking = evidence.shortage((whole, bare), pictures(where), "gaussian", LEVELS[0], found.n, least)
        what = f"share of the time that {words(without)} saves"
        lacking = lacking if outcome == MISSING else ()
        cases.append(Case(what, outcome, shown(found, ""), found.n, reading, lacking, decides))
    return [case for case in cases if case.decides or case.n]


def time_ratio(evidence: Evidence, where, theirs, high=2.0, levels=LEVELS, readings=("paper",), steps=None, least=3):
    """Ours takes at most ``high`` times the time of each rival, on the same picture and machine."""
    cases = []
    for reading in readings:
        for other in theirs:
            sides = configured(reading, None, steps), rival(reading, other, steps, levels[0])
            ratios = _ratios(evidence, *sides, where, levels)
            outcome, found = within(list(ratios.values()), high=high, least=least)
            lacking = evidence.shortage(sides, pictures(where), "gaussian", levels[0], found.n, least)
            cases.append(Case(f"time over that of {words(other)}, {where}", outcome, shown(found, "times"), found.n,
                              reading, lacking if outcome == MISSING else ()))
    return cases


def _gray(picture):
    return picture.mean(-1) if picture.ndim == 3 else picture


def gradient_map(picture):
    """The length of the forward differences of the gray picture."""
    gray = np.pad(_gray(picture), ((0, 1), (0, 1)), mode="edge")
    return np.hypot(gray[:-1, 1:] - gray[:-1, :-1], gray[1:, :-1] - gray[:-1, :-1])


def entropy_map(picture):
    """The entropy [bits] of the gray values in a disk of radius 5 about each pixel."""
    from skimage.filters.rank import entropy
    from skimage.morphology import disk

    return entropy(np.rint(255 * _gray(picture).clip(0, 1)).astype(np.uint8), disk(5))


MAPS = {"gradient": gradient_map, "entropy": entropy_map}


def map_error(record, kind):
    """Mean absolute difference of a map of the kept answer and of the clean picture;
    None where none was kept."""
    try:
        answer, clean = stored.picture(record.id), stored.clean(record)
    except B2GError:
        return None
    return float(np.abs(MAPS[kind](answer) - MAPS[kind](clean)).mean())


def nearer(evidence: Evidence, map, sets, theirs, ours=None, steps=None, instead=None, readings=DECIDING,
           least=LEAST):
    """Our answers' gradient or entropy map is nearer to the clean picture's than theirs, in kept pictures."""
    cases = []
    everything = product(readings_of(readings), theirs, sets.items())
    for (reading, decides), other, (where, levels) in everything:
        sides = {level: (configured(reading, ours, steps), rival(reading, other, steps, level)) for level in levels}
        places = reversed(choices(where, reading, instead))  # of two without pictures, the crops cost less
        case = max((_nearer(evidence, map, place, sides, least) for place in places), key=lambda case: case.n)
        what = f"{map} map, {case.what}, over {words(other)}"
        cases.append(replace(case, what=what, reading=reading, decides=decides))
    return [case for case in cases if case.decides or case.n]


def _nearer(evidence, kind, where, sides, least) -> Case:
    """The share by which our error is less, one value a picture: the mean over the levels."""
    gains = defaultdict(list)
    for level, methods in sides.items():
        ours, theirs = ({r.picture: error for r in evidence.runs(method, pictures(where), "gaussian", level)
                         if r.kept and (error := map_error(r, kind)) is not None} for method in methods)
        for name in ours.keys() & theirs.keys():
            gains[name].append(1 - ours[name] / theirs[name])
    outcome, found = decide([np.mean(values) for values in gains.values()], 0.0, least)
    value = f"error less by a share of {shown(found, '')}" if found.n else "no answers of both sides were kept"
    level, methods = next(iter(sides.items()))
    lacking = evidence.shortage(methods, pictures(where), "gaussian", level, found.n, least)
    return Case(where, outcome, value, found.n, lacking=lacking if outcome == MISSING else ())


TESTS = (watched, tracks, time_exponent, time_share, time_ratio, nearer)
