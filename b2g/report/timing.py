"""Quality against time: every method on one picture, from records with ``watch: psnr`` and their histories.

A *race* is what one machine did to one noisy picture. Its times are told beside their ratio to the classical
method of the same race, since only ratios carry over to other machines.
"""

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from b2g.errors import B2GError
from b2g.methods import METHODS
from b2g.report.figures import COLOURS
from b2g.report.training import stored_histories, stored_runs
from b2g.runs.cost import pixels, spoken
from b2g.runs.record import Record

REFERENCES = ("bm3d", "nl_ridge")  # the first that a race has is what its times are told by
HEADER = ("method", "steps", "PSNR, dB", "seconds", "× {}", "CPU seconds", "CPU × {}", "s a megapixel",
          "at its full length")

NOTE = ("Seconds passed on the clock; CPU seconds in all threads of the process. An extrapolated time is that of the "
        "steps taken and, at their pace, of the others; decibels are always those of the steps taken. bm3d was told "
        "sigma; the others estimate it or need none.")


@dataclass(frozen=True)
class Timed:
    """A stored run, and what was logged along it: ``entries`` with ``step``, ``seconds`` and ``psnr``,
    perhaps none.

    The curve is that of one fit's running answer. Where the answer is made of several, as in a consensus, the
    history is not that of the answer, and there is no curve.
    """

    record: Record
    entries: tuple = ()

    @property
    def title(self):
        """The method and what it was set to: ``self2self/official, steps 600``."""
        return self.record.label.replace("+", ", ").replace("=", " ")

    @property
    def curve(self):
        """Seconds and PSNR in dB along the fit, two float64 arrays; empty where it has no such history.

        A history counts from the first step. What a method does before and after its fit is counted before it
        here, so that the curve ends when the method does and no answer stands too early.
        """
        own = "members" not in self.record.settings
        pairs = [(entry["seconds"], entry["psnr"]) for entry in self.entries if own and "psnr" in entry]
        times, values = np.array(pairs, dtype=np.float64).reshape(-1, 2).T
        return times + (self.record.seconds - times[-1] if len(times) else 0), values

    def reached(self, seconds):
        """PSNR in dB by then: of the last logged answer, from the end on of the final one;
        None before the first."""
        if seconds >= self.record.seconds:
            return self.record.psnr
        times, values = self.curve
        by_then = np.searchsorted(times, seconds, side="right")
        return float(values[by_then - 1]) if by_then else None

    @property
    def published(self):
        """(profile, steps) of the profile that this run is but for fewer steps;
        None where it is run to its end."""
        run = configured(self.record)
        for name in run.profiles if is_fit(self.record) else ():
            whole = run.profile(name)
            if name != "smoke" and run.steps < whole.steps and whole.changed(steps=run.steps) == run:
                return name, whole.steps
        return None

    @property
    def extrapolated(self):
        """Seconds at the full length of `published`: those of this run and, at its pace,
        those of the steps not taken.

        The pace is the history's, from its first entry to its last; without two entries,
        that of the whole run.
        """
        if self.published is None:
            return None
        done, (_, full) = self.record.settings["steps"], self.published
        steps = [(entry["step"], entry["seconds"]) for entry in self.entries]
        pace = self.record.seconds / done
        if len(steps) > 1:
            (first, early), (last, late) = steps[0], steps[-1]
            pace = (late - early) / (last - first)
        return self.record.seconds + (full - done) * pace


def configured(record):
    """The method of a record; None where this package has it no longer, or in another revision."""
    try:
        return record.run().configured()
    except B2GError:
        return None


def is_fit(record):
    """Whether the method takes optimiser steps, whose number is its setting ``steps``."""
    return hasattr(METHODS[record.method], "objective")


@dataclass(frozen=True)
class Race:
    """What one machine did to one noisy picture: its runs, the quickest first."""

    picture: str
    noise: str
    level: float
    repeat: int
    device: str
    machine: str
    runs: tuple[Timed, ...]

    @property
    def reference(self):
        """The run that the others' times are told by."""
        named = {timed.record.method: timed for timed in reversed(self.runs)}
        return next(named[name] for name in REFERENCES if name in named)

    def ratio(self, seconds):
        """``seconds`` as a multiple of the reference's."""
        return seconds / self.reference.record.seconds

    def cpu_ratio(self, record):
        """CPU seconds as a multiple of the reference's; None where either was not measured."""
        own, base = record.cpu_seconds, self.reference.record.cpu_seconds
        return own / base if own and base else None

    def of(self, method, profile):
        """The run of a profile with all its steps, None where there is none."""
        whole = METHODS[method].profile(profile)
        return next((timed for timed in self.runs if configured(timed.record) == whole), None)

    def told(self):
        """The machine, and what it was given: one line."""
        cores = "" if self.device.startswith("cpu") else f" ({self.device})"
        return f"{self.machine}{cores}: {self.picture}, {self.noise} noise {self.level:g}"


def races(runs=None, histories=None):
    """Every race in the records that has a reference and one run beside it, by picture, level and machine.

    Only runs with ``watch: psnr`` count: these were made to be compared in time, the others under any load.
    """
    runs = stored_runs() if runs is None else runs
    histories = stored_histories() if histories is None else histories
    groups = defaultdict(list)
    for record in runs:
        if record.done and record.watch == "psnr" and record.seconds and configured(record):
            key = record.picture, record.noise, record.level, record.repeat, _kind(record.device), record.machine
            groups[key].append(Timed(record, tuple(histories.get(record.id, ()))))
    found = []
    for key, timed in sorted(groups.items()):
        if len(timed) > 1 and any(t.record.method in REFERENCES for t in timed):
            found.append(Race(*key, tuple(sorted(timed, key=lambda t: (t.record.seconds, t.record.id)))))
    return found


def _kind(device):
    return device.partition(":")[0]


def header(race):
    """The header of `rows`, with the reference's name."""
    return [word.format(race.reference.record.method) for word in HEADER]


def rows(race):
    """The benchmark's table: a line for each run, as text; what is extrapolated says so."""
    size = pixels(race.picture) / 1e6
    lines = []
    for timed in race.runs:
        record = timed.record
        cells = (str(record.settings["steps"]) if is_fit(record) else "–",
                 f"{record.psnr:.2f}", f"{record.seconds:.1f}",
                 ratio_words(race.ratio(record.seconds)), _or_dash(record.cpu_seconds, ".1f"),
                 ratio_words(race.cpu_ratio(record)), f"{record.seconds / size:.0f}")
        lines.append((timed.title, *cells, _full(race, timed)))
    return lines


def _full(race, timed):
    seconds = timed.extrapolated
    if seconds is None:
        return "run to its end"
    name, steps = timed.published
    return f"{steps} steps ({name}): about {spoken(seconds)}, × {ratio_words(race.ratio(seconds))}, extrapolated"


def ratio_words(value):
    """A ratio in three digits, never as a power of ten; a dash for None."""
    return "–" if value is None else f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def _or_dash(value, form):
    return "–" if value is None else format(value, form)


def equal_times(race, per_decade=2):
    """Multiples of the reference's time at which methods are compared,
    from the quickest run's to the slowest's."""
    ends = [race.ratio(timed.record.seconds) for timed in race.runs]
    low, high = (round(per_decade * np.log10(end)) for end in (min(ends), max(ends)))
    return [float(10 ** (k / per_decade)) for k in range(low, high + 1)]


def equal_time_rows(race, times):
    """PSNR of each run at ``times`` (multiples of the reference's), as text;
    a dash before its first answer."""
    seconds = [time * race.reference.record.seconds for time in times]
    return [(timed.title, *(_or_dash(timed.reached(second), ".2f") for second in seconds)) for timed in race.runs]


def leader(race, seconds):
    """The run with the highest PSNR by then; None where nothing is answered yet."""
    found = [(timed.reached(seconds), timed.title) for timed in race.runs if timed.reached(seconds) is not None]
    return max(found)[1] if found else None


def looks(races):
    """{title: (colour, mark)}, one look for a method in all panels."""
    marks = "os^Dv*Pp<>Xh"
    titles = dict.fromkeys(timed.title for race in races for timed in race.runs)
    return {title: (COLOURS[k % len(COLOURS)], marks[k % len(marks)]) for k, title in enumerate(titles)}


def draw(axes, race, look=None):
    """The race on Matplotlib axes: PSNR by seconds (logarithmic; above, their ratio), curves of fits,
    final answers."""
    look = look or looks([race])
    for timed in race.runs:
        colour, mark = look[timed.title]
        axes.plot(*timed.curve, color=colour, linewidth=1.3)
        axes.plot([timed.record.seconds], [timed.record.psnr], mark, color=colour, label=timed.title)
    axes.set(xscale="log", xlabel="seconds", ylabel="PSNR, dB", title=f"{race.noise}, {race.level:g}")
    one = race.reference.record.seconds
    above = axes.secondary_xaxis("top", functions=(lambda s: s / one, lambda ratio: ratio * one))
    above.set_xlabel(f"times {race.reference.record.method}", fontsize=9)
    best = max(timed.record.psnr for timed in race.runs)
    axes.set_ylim(max(race.runs[0].record.psnr_noisy or 0, best - 9), best + 0.5)


def described(race):
    """One sentence for the alternative text of the figure."""
    ends = "; ".join(f"{timed.title} {timed.record.psnr:.1f} dB after {ratio_words(race.ratio(timed.record.seconds))}"
                     for timed in race.runs)
    return f"PSNR against time at level {race.level:g}, times as multiples of {race.reference.record.method}'s: {ends}."
