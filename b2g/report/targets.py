"""The targets of the methods beyond the paper (data/targets.yml), each beside what was measured.

A target is judged on all whole pictures of a set and on nothing less: fewer pictures are "not enough pictures
(n of N)" with what they show so far, and crops are rows of their own, named and never judged.
"""

import csv
from collections import Counter, defaultdict
from dataclasses import dataclass, field

import numpy as np
import yaml

from b2g.errors import B2GError
from b2g.face import choose_method
from b2g.files import carried
from b2g.method import canonical_json
from b2g.report.ideas import cost_ratio
from b2g.report.printed import printed_value
from b2g.report.readings import pictures
from b2g.report.statistics import Interval, bootstrap, paired, picture_means
from b2g.runs.cost import Costs, pixels

AGAINST = ("printed", "bm3d", "time", "sigma")
REACHED, UNJUDGED = "reached", "reported, no target"
NONE = Interval(None, None, None, 0)


@dataclass(frozen=True)
class Target:
    """One entry of data/targets.yml; see the words at its head."""

    id: str
    words: str
    methods: tuple
    against: str
    sets: dict = field(hash=False)
    least: float | None = None
    most: float | None = None
    above: bool = False
    other: str = ""
    of: str = ""


@dataclass(frozen=True)
class Measured:
    """One target on one set at one level, by one method.

    ``psnr`` is the mean over the pictures that were run, ``gain`` the paired differences to CBM3D (or the
    error of sigma), ``printed`` the paper's B2G, ``margin`` what that has over the paper's BM3D, ``value``
    what is judged. ``n`` of ``total`` pictures count. What is ``missing`` would take ``seconds``, None where
    nothing like it was ever run.
    """

    target: Target
    method: str
    where: str
    level: float
    psnr: Interval = NONE
    gain: Interval = NONE
    printed: float | None = None
    margin: float | None = None
    value: float | None = None
    n: int = 0
    total: int = 0
    missing: int = 0
    seconds: float | None = None

    @property
    def crop(self):
        return "@" in self.where

    @property
    def short(self):
        """How far from the target, in its unit; 0 or less where it is reached."""
        if self.value is None or (self.target.least is None and self.target.most is None):
            return None
        digits = 2 if self.target.least is not None else 3
        value = round(self.value, digits)
        short = self.target.least - value if self.target.least is not None else value - self.target.most
        return 10.0**-digits if self.target.above and short == 0 else round(short, digits)

    @property
    def outcome(self):
        """"reached", "missed by 0.12 dB", "not enough pictures (3 of 9)", or that there is no target."""
        if self.crop:
            return f"crops ({self.n} of {self.total}), no target"
        if self.n < self.total:
            return f"not enough pictures ({self.n} of {self.total})"
        if self.short is None:
            return UNJUDGED
        if self.short <= 0:
            return REACHED
        unit = {"time": ".3f", "sigma": ".1f"}.get(self.target.against, ".2f")
        words = {"time": " of the time", "sigma": " percent"}.get(self.target.against, " dB")
        return f"missed by {format(self.short, unit)}{words}"


def targets():
    """All targets, in the order of data/targets.yml."""
    content = yaml.safe_load(carried("targets.yml").read_text("utf-8"))
    found = [Target(**{**entry, "methods": tuple(entry["methods"])}) for entry in content["targets"]]
    for target in found:
        if target.against not in AGAINST:
            allowed = ", ".join(AGAINST)
            raise B2GError(f"Target {target.id} is against {target.against!r}; choose from {allowed}.")
    return found


class Evidence:
    """Records by what a target asks for, and what was estimated of sigma (rows of noise_level.csv)."""

    def __init__(self, records, estimates=(), device="cpu"):
        self.groups, self.costs, self.estimates = defaultdict(list), Costs(records, device), list(estimates)
        for record in records:
            if record.noise == "gaussian" and record.protocol == "unclipped":
                self.groups[record.picture, record.level, canonical_json(record.settings)].append(record)

    def of(self, method, names, level):
        """(records, pictures without one) of a configured method on pictures at a level."""
        settings = method.identity()
        found = {name: self.groups.get((name, float(level), settings), []) for name in names}
        lacking = [name for name, some in found.items() if not some]
        return [record for some in found.values() for record in some], lacking

    def crops(self, method, dataset, level):
        """The crops of a data set, as "set9@128", on which a method has done runs at a level."""
        settings = method.identity()
        return sorted({f"{dataset}@{name.partition('@')[2]}" for (name, at, text), some in self.groups.items()
                       if "@" in name and name.startswith(f"{dataset}/") and text == settings
                       and at == float(level) and any(record.done for record in some)})

    def price(self, method, names):
        sizes = Counter(map(pixels, names))
        costs = [(self.costs.seconds(method, size), count) for size, count in sizes.items()]
        return None if any(cost is None for cost, _ in costs) else sum(cost * count for cost, count in costs)


def measure(target, evidence):
    """Every `Measured` of a target: its first method always, the others and crops where they have runs."""
    if target.against == "sigma":
        return [_estimate(target, evidence, dataset, level)
                for dataset, levels in target.sets.items() for level in levels]
    found = []
    for dataset, levels in target.sets.items():
        for level in levels:
            for place, name in enumerate(target.methods):
                method = _configured(name)
                whole = _one(target, evidence, name, method, dataset, level)
                found += [whole] if place == 0 or whole.psnr.n else []
                if target.against == "bm3d":
                    found += [_one(target, evidence, name, method, where, level)
                              for where in evidence.crops(method, dataset, level)]
    return found


def _configured(name, **changes):
    method, _, profile = name.partition("/")
    return choose_method(method, profile or None, **changes)


def _one(target, evidence, name, method, where, level):
    names = pictures(where)
    records, lacking = evidence.of(method, names, level)
    psnr = bootstrap(picture_means(records).values())
    told = _configured("bm3d/official", sigma=float(level))
    theirs, unpaired = evidence.of(told, names, level)
    gain = bootstrap(paired(records, theirs)[1])
    dataset = where.partition("@")[0]
    ours, bm3d = (printed_value(dataset, level, column, noise="gaussian") for column in ("B2G", "BM3D"))
    margin = ours - bm3d if ours is not None and bm3d is not None else None
    wanted, other, absent = [(method, lacking)], None, []
    value, n = (psnr.mean - ours if psnr.n and ours is not None else None), psnr.n
    if target.against == "bm3d":
        wanted.append((told, unpaired))
        value, n = gain.mean, gain.n
    elif target.against == "time":
        other = _configured(target.other)
        theirs, absent = evidence.of(other, names, level)
        wanted.append((other, absent))
        value, n = cost_ratio(records, theirs), len(paired(records, theirs)[0])
    prices = [evidence.price(each, some) for each, some in wanted if some]
    return Measured(target, name, where, float(level), psnr, gain, ours, margin, value, n, len(names),
                    sum(len(some) for _, some in wanted), None if None in prices else sum(prices))


# --- the noise level --------------------------------------------------------------------------------------


def estimates():
    """The rows of data/records/noise_level.csv (benchmarks/noise_level.py); [] where there is none."""
    path = carried("records", "noise_level.csv")
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    wanted = {"picture", "channels", "noise", "level", "repeat", "estimate"}
    if rows and not wanted <= set(rows[0]):
        raise B2GError("noise_level.csv lacks columns that benchmarks/noise_level.py writes: run it again.")
    return rows


def _estimate(target, evidence, dataset, level):
    """The error of the blind estimate in percent: the mean of its absolute value, or its largest."""
    errors = defaultdict(list)
    for row in evidence.estimates:
        if (row["noise"], float(row["level"])) == ("gaussian", float(level)) and row["channels"] == "3":
            errors[row["picture"]].append(100 * abs(float(row["estimate"]) / float(level) - 1))
    names = pictures(dataset)
    values = np.array([np.mean(errors[name]) for name in names if name in errors])
    value = (values.max() if target.of == "worst" else values.mean()) if len(values) else None
    return Measured(target, "estimate_sigma", dataset, float(level), gain=bootstrap(values),
                    value=None if value is None else float(value), n=len(values), total=len(names),
                    missing=len(names) - len(values))
