"""What any weight of the consensus would have given, from three records a picture,
and what held pixels chose.

The mean square error of w f + (1 - w) g is F w^2 + G (1 - w)^2 + 2 X w (1 - w), where F and G are the
members' own and X is the mean product of their errors. The records of f, g and of their mean at one weight
give F, G and X, so the error at every weight follows, but for what clipping to [0, 1] adds. Choosing the
weight by it takes the clean picture: it bounds from above what an estimated weight can gain. A fourth record,
of the consensus whose weight held pixels told, says what an estimate does gain.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from b2g.method import canonical_json
from b2g.methods import METHODS


@dataclass(frozen=True)
class Mixture:
    """A noisy picture on which both members and their mean were run, with mean square errors.

    ``held`` is that of the mean whose weight held pixels told, None where it was not run.
    """

    picture: str
    level: float
    network: float
    patches: float
    mixed: float
    used: float
    held: float | None = None

    @property
    def where(self):
        """The data set, with its crops: "set9", "bsds500_train@128"."""
        name, _, crop = self.picture.partition("@")
        return name.partition("/")[0] + (f"@{crop}" if crop else "")

    @cached_property
    def product(self):
        """X: the mean product of both members' errors."""
        return (self.mixed - self.used**2 * self.network - (1 - self.used) ** 2 * self.patches) / (
            2 * self.used * (1 - self.used))  # fmt: skip

    @property
    def correlation(self):
        """Of the two errors: 1 where a mean gains nothing over members that are equally good."""
        return self.product / (self.network * self.patches) ** 0.5

    def error(self, weight):
        """The mean square error at a weight of the network."""
        own = weight**2 * self.network + (1 - weight) ** 2 * self.patches
        return own + 2 * weight * (1 - weight) * self.product

    @property
    def best(self):
        """The weight with the least error, in [0, 1]: it takes the clean picture to know it."""
        bend = self.network + self.patches - 2 * self.product
        if bend <= 0:  # the errors are as alike as they can be: the better member alone
            return float(self.network < self.patches)
        return float(np.clip((self.patches - self.product) / bend, 0, 1))

    def gain(self, weight):
        """dB over the weight that was used."""
        return 10 * np.log10(self.error(self.used) / self.error(weight))

    @property
    def gain_of_held(self):
        """dB of the weight that held pixels told over the weight that was used; NaN where it was not run."""
        return np.nan if self.held is None else 10 * np.log10(self.mixed / self.held)

    def over_members(self, error):
        """dB of a mean with this mean square error over the better member."""
        return 10 * np.log10(min(self.network, self.patches) / error)


def mixtures(records, profile="halves", weighed="fast"):
    """Every `Mixture` of consensus in a profile of fixed weight with one network, Gaussian noise,
    sorted by picture.

    ``weighed`` is the profile with the same members whose weight held pixels tell.
    """
    method, told = (METHODS["consensus"].profile(name) for name in (profile, weighed))
    network, patches = (member.identity() for member in method.members(method.sigma))
    found = {}
    for record in records:
        if record.done and record.psnr is not None and record.noise == "gaussian":
            found.setdefault(canonical_json(record.settings), {})[record.key] = 10 ** (-record.psnr / 10)
    sides = [found.get(text, {}) for text in (network, patches, method.identity())]
    alike = told.members(told.sigma) == method.members(method.sigma)
    held = found.get(told.identity(), {}) if alike else {}
    mixed = 0 < method.weight < 1 and method.networks == 1 and method.weighing == "fixed"
    shared = sorted(set.intersection(*map(set, sides))) if mixed else []
    return [Mixture(key[0], key[2], *(side[key] for side in sides), method.weight, held.get(key)) for key in shared]


HEADER = ("pictures", "n", "network", "patches", "halves", "over the better", "correlation of errors",
          "best weights", "gain by them", "gain by held pixels")  # fmt: skip


def rows(found):
    """Rows for :func:`b2g.report.markup.table` under `HEADER`: one for each data set and level.

    All means are over all its pictures; the last is None unless held pixels told a weight for each of them.
    """
    lines = []
    for where, level in sorted({(each.where, each.level) for each in found}):
        some = [each for each in found if (each.where, each.level) == (where, level)]
        best, told = [each.best for each in some], float(np.mean([each.gain_of_held for each in some]))
        means = [np.mean([-10 * np.log10(getattr(each, name)) for each in some])
                 for name in ("network", "patches", "mixed")]
        lines.append([
            f"{where}, σ\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}{level:g}",
            f"{len({each.picture for each in some})}",
            *(f"{mean:.2f}" for mean in means),
            f"{np.mean([each.over_members(each.mixed) for each in some]):+.2f}",
            f"{np.mean([each.correlation for each in some]):.2f}", f"{min(best):.2f} to {max(best):.2f}",
            f"{np.mean([each.gain(each.best) for each in some]):+.2f}", None if np.isnan(told) else f"{told:+.2f}",
        ])  # fmt: skip
    return lines
