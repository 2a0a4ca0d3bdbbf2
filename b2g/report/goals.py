"""The project's targets of speed, each beside what was measured, machine by machine. Nothing is run here.

The targets of quality, and the cost of `fast` over that of `best`, are in :mod:`b2g.report.targets`.
"""

from collections import defaultdict
from dataclasses import dataclass

from b2g.methods import METHODS
from b2g.report import benchmarks
from b2g.report.readings import pictures
from b2g.report.timing import configured

MANY = 100  # pictures side by side, at the least
SIDES = (256, 1024)  # of the pictures whose cost a pixel is compared
HEADER = ("target", "wanted", "measured", "outcome")


@dataclass(frozen=True)
class Goal:
    """A target: ``found`` maps machines to values, of which each must be at most (or at
    ``least``) ``limit``."""

    words: str
    wanted: str
    limit: float
    found: dict
    form: str = "{:.2f}"
    least: bool = False
    how: str = ""

    @property
    def reached(self):
        """Whether every machine reaches it; None where none was measured."""
        if not self.found:
            return None
        return all(value >= self.limit if self.least else value <= self.limit for value in self.found.values())

    def row(self):
        """The line of a table, as text."""
        measured = "; ".join(f"{self.form.format(value)} ({machine})" for machine, value in self.found.items())
        outcome = {True: "reached", False: "missed", None: f"not measured: {self.how}"}[self.reached]
        return self.words, self.wanted, measured or "–", outcome


def goals(records, races, costs, floors, sides):
    """Every target of speed, from runs, races and the benchmarks' rows."""
    steps = [row for row in floors if _gpu(row) and (row.profile, row.size) == ("fast", 512)]
    stacks = [row for row in sides if _gpu(row) and row.pictures >= MANY]
    return [
        Goal("A step of b2g/fast for 512 × 512 pixels on a GPU, over the floor of its operations", "at most 2.5", 2.5,
             _per_machine(steps, lambda row: row.over_floor, min),
             how="python benchmarks/floor.py --size 512 --device cuda --store"),
        *(Goal(f"{name}/{profile} on all of Set9 at sigma 25, on an H100", f"under {limit} s", limit,
               whole_set(records, name, profile), "{:.0f} s", how="b2g sweep beyond-set9 --device cuda")
          for name, profile, limit in (("b2g", "fast", 90), ("b2g", "best", 600), ("consensus", "fast", 600))),
        Goal(f"Small pictures a second side by side on a GPU, {MANY} or more, over one after another", "at least 20",
             20, _per_machine(stacks, lambda row: row.times, max), "{:.1f}", least=True,
             how="python benchmarks/side_by_side.py --pictures 128 --device cuda --store"),
        Goal("b2g/fast on a colour picture of 256 × 256, on two CPU cores", "under 180 s", 180, on_cpu(races),
             "{:.0f} s",
             how="b2g sweep time"),
        Goal(f"Seconds a pixel of b2g/fast with sides of {SIDES[1]} over those with sides of {SIDES[0]}, on a CPU",
             "at most 1", 1.0, per_pixel(costs), how="python benchmarks/memory.py"),
        Goal("Peak memory in tiles over that of the whole, on the largest picture that has both (the worst method)",
             "below 1", 1.0, in_tiles(costs), how="python benchmarks/memory.py"),
    ]  # fmt: skip


def _gpu(row):
    return row.device.startswith("cuda")


def _per_machine(rows, value, choose):
    """{machine: the best value}: precision and engine are the user's choice."""
    values = defaultdict(list)
    for row in rows:
        values[row.machine].append(value(row))
    return {machine: choose(values[machine]) for machine in sorted(values)}


def whole_set(records, name, profile, dataset="set9", level=25.0, card="H100"):
    """{machine: seconds of all whole pictures of the set}, where all were run;
    repeats of a picture count once."""
    wanted, method = set(pictures(dataset)), METHODS[name].profile(profile)
    spent = defaultdict(lambda: defaultdict(list))
    for record in records:
        if (record.done and record.picture in wanted and (record.noise, record.level) == ("gaussian", level)
                and _gpu(record) and card in record.machine and configured(record) == method):
            spent[record.machine][record.picture].append(record.seconds)
    return {machine: sum(sum(times) / len(times) for times in by_picture.values())
            for machine, by_picture in sorted(spent.items()) if by_picture.keys() == wanted}


def on_cpu(races, picture="skimage/astronaut@256"):
    """{machine: seconds of b2g/fast}, the longest of the levels."""
    found = defaultdict(list)
    for race in races:
        timed = race.of("b2g", "fast")
        if race.device == "cpu" and race.picture == picture and timed:
            found[race.machine].append(timed.record.seconds)
    return {machine: max(times) for machine, times in found.items()}


def per_pixel(costs, method="b2g/fast"):
    """{machine: seconds a pixel at the larger of `SIDES` over those at the smaller}."""
    found = {}
    for (where, *_), rows in benchmarks.grouped([row for row in costs if not row.tile], "method").items():
        sizes = {row.size: row.per_megapixel for row in rows if row.method == method and row.device == "cpu"}
        if set(SIDES) <= sizes.keys():
            found[where[1]] = sizes[SIDES[1]] / sizes[SIDES[0]]
    return found


def in_tiles(costs):
    """{machine: the largest ratio, over methods, of the memory in tiles to that of the whole}."""
    found = defaultdict(list)
    for (where, *_), rows in benchmarks.grouped(costs, "method").items():
        sizes = defaultdict(dict)
        for row in rows:
            sizes[row.size]["tiles" if row.tile else "whole"] = row.memory
        both = [size for size, memory in sizes.items() if len(memory) == 2 and memory["whole"] > 0]
        if both:
            found[where[1]].append(sizes[max(both)]["tiles"] / sizes[max(both)]["whole"])
    return {machine: max(ratios) for machine, ratios in found.items()}
