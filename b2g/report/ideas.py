"""What each idea beyond the paper is worth: paired differences to a base configuration, from records alone.

The plan `quality` declares what is compared; the words follow from the settings. Its first configuration is
the base of all other methods; within a kind (`KINDS`) the first is the base of those that follow. Settings
were chosen by these runs, so only pictures count on which no reported mean rests.
"""

import json
from collections import defaultdict
from dataclasses import dataclass, fields, replace

import numpy as np

from b2g.method import canonical_json
from b2g.methods import METHODS
from b2g.report.idea_words import IDEAS, METHOD, ORDER, idea_of, words
from b2g.report.statistics import Interval, bootstrap, paired, per_picture
from b2g.runs.cost import Costs, pixels
from b2g.runs.plan import plan_names, read_plan
from b2g.runs.record import label

TUNING = ("bsds500_train", "skimage")  # no reported mean rests on these
# What is compared with its like: each method, and of b2g whatever is nearest to one of these profiles.
KINDS = {"b2g": ("fast", "masked")}


def planned(name="quality"):
    """The runs that a plan of the package wants on tuning pictures, in its order; () where there is none."""
    tasks = read_plan(name).tasks if name in plan_names() else ()
    return tuple(task.run for task in tasks if task.run.picture.partition("/")[0] in TUNING)


@dataclass(frozen=True)
class Gain:
    """What a row has over its base at one noise level: ``differences`` in dB, one for each of ``pictures``.

    ``wanted`` pictures are in the plan. ``missing`` runs, of the row or of its base, would take ``seconds``
    (None: nothing like them was ever run). ``cost``: the row's CPU time over its base's, on one machine.
    """

    pictures: tuple[str, ...]
    differences: np.ndarray
    wanted: int
    missing: int
    seconds: float | None
    cost: float | None
    failed: tuple[str, ...] = ()

    @property
    def interval(self) -> Interval:
        return bootstrap(self.differences)

    def on(self, pictures):
        """The differences on these pictures, in this order."""
        return np.array([self.differences[self.pictures.index(name)] for name in pictures])


@dataclass(frozen=True)
class Row:
    """One configuration: its `idea` (or several), its words, its changes, and {level: `Gain`}."""

    idea: str
    words: str
    changes: frozenset
    gains: dict


@dataclass(frozen=True)
class Study:
    """All rows with one base; ``levels`` are (noise, level)."""

    base: str
    levels: tuple
    rows: tuple[Row, ...]
    pictures: tuple[str, ...]

    def parts(self, row, level):
        """What a row's several changes are worth one by one: (sum of their gains, together, n).

        Both are means over the pictures that all have. None where a change has no row of its own, or no run.
        """
        single = {next(iter(other.changes)): other for other in self.rows if len(other.changes) == 1}
        if len(row.changes) < 2 or not row.changes <= single.keys():
            return None
        gains = [other.gains.get(level) for other in [row, *(single[change] for change in row.changes)]]
        if any(gain is None or not gain.pictures for gain in gains):
            return None
        shared = sorted(set.intersection(*(set(gain.pictures) for gain in gains)))
        together, *alone = (gain.on(shared).mean() for gain in gains) if shared else (None,)
        return (float(sum(alone)), float(together), len(shared)) if shared else None


def studies(records, runs=None, device="cpu"):
    """The studies of the plan `quality` (or of `runs`): method against method, then kind by kind."""
    found, costs = _indexed(records), Costs(records, device)
    arms: dict = defaultdict(dict)
    for run in planned() if runs is None else runs:
        settings = _given(json.loads(run.method), run.level)
        arms[kind_of(settings)].setdefault(canonical_json(settings), []).append(run)
    first = {kind: next(iter(some)) for kind, some in arms.items()}
    groups = [{text: arms[kind][text] for kind, text in first.items()}, *arms.values()]
    listed = [[(json.loads(text), runs) for text, runs in group.items()] for group in groups]
    return [_study(group, place > 0, found, costs) for place, group in enumerate(listed) if len(group) > 1]


def kind_of(settings):
    """The method's name, and of several profiles (`KINDS`) the one from which the fewest settings differ."""
    name = settings["method"]
    profiles = [profile for profile in KINDS.get(name, ()) if profile in METHODS[name].profiles]
    plain = {profile: json.loads(METHODS[name].profile(profile).identity()) for profile in profiles}
    nearest = min(profiles, key=lambda profile: len(_changes(plain[profile], settings)), default="")
    return f"{name}/{nearest}" if nearest else name


def _given(settings, level):
    """The settings with the word "given" for a sigma that is the level: one configuration at all levels."""
    return settings | {"sigma": "given"} if settings.get("sigma") == level else settings


def _at(settings, level):
    """The inverse of `_given`, as a run has it."""
    return canonical_json(settings | {"sigma": level} if settings.get("sigma") == "given" else settings)


def _changes(base, other):
    """The settings in which `other` differs from `base`, as (field, value)."""
    defaults = {f.name: f.default for f in fields(METHODS[base["method"]])}
    base, other = defaults | base, defaults | other  # a setting that was added later has its default
    return frozenset((name, tuple(other[name]) if isinstance(other[name], list) else other[name])
                     for name in defaults if canonical_json(base[name]) != canonical_json(other[name]))


def _indexed(records):
    found = defaultdict(list)
    for record in records:
        found[(*record.key, canonical_json(record.settings))].append(record)
    return found


def _study(arms, alike, found, costs):
    """The study of a list of (settings, runs), the first of which is the base; `alike`: of one kind."""
    (base, _), *others = arms
    made = []
    for settings, runs in others:
        changes = _changes(base, settings) if alike else frozenset({("method", label(settings))})
        levels = defaultdict(list)
        for run in runs:
            levels[run.noise, run.level].append(run)
        gains = {level: _gain(some, [replace(run, method=_at(base, run.level)) for run in some], found, costs)
                 for level, some in levels.items()}
        made.append(Row(idea_of(changes, base["method"]), words(changes, base["method"]), changes, gains))
    made.sort(key=lambda row: ORDER.index(row.idea))
    levels = sorted({level for row in made for level in row.gains})
    names = sorted({run.picture for _, runs in others for run in runs})
    return Study(label(base), tuple(levels), tuple(made), tuple(names))


def _gain(ours, base, found, costs):
    """What the runs `ours` have over those of the base, on the same noisy pictures."""
    first, second = ([record for run in runs for record in _records(run, found)] for runs in (ours, base))
    keys, differences = paired(first, second)
    lacking = [run for run in (*ours, *base) if not _records(run, found)]
    prices = [costs.seconds(run.configured(), pixels(run.picture)) for run in lacking]
    failed = tuple(f"{record.picture}, {record.label}: {record.state}, {record.reason}"
                   for record in (*first, *second) if not record.done)
    return Gain(tuple(key[0] for key in keys), differences, len({run.picture for run in ours}), len(lacking),
                None if None in prices else sum(prices), cost_ratio(first, second), failed)


def _records(run, found):
    return found.get((run.picture, run.noise, run.level, run.repeat, run.protocol, run.method), [])


def cost_ratio(first, second):
    """CPU time of the first over that of the second on the noisy pictures that both did on one machine."""
    sides = [{(*record.key, record.machine, record.device): record.cpu_seconds
              for record in records if record.done and record.cpu_seconds} for records in (first, second)]
    shared = sides[0].keys() & sides[1].keys()
    return sum(sides[0][key] for key in shared) / sum(sides[1][key] for key in shared) if shared else None


def pooled(row):
    """The gain of a row over all its levels: one value a picture, the mean of its levels."""
    keys = [(name,) for gain in row.gains.values() for name in gain.pictures]
    return bootstrap(per_picture(keys, np.concatenate([gain.differences for gain in row.gains.values()])))


def told(made, sign):
    """(study, row, interval) of the changes whose pooled interval holds zero (0), is above (1) or below."""
    rows = [(study, row, pooled(row)) for study in made for row in study.rows if row.idea != METHOD]
    return [(study, row, found) for study, row, found in rows if found.sign == sign]


def unplanned(made):
    """The ideas of `IDEAS` that no row of the studies is about, alone or with others."""
    names = {name for study in made for row in study.rows for name, _ in row.changes}
    return [idea for idea, settings in IDEAS.items() if not names & set(settings)]
