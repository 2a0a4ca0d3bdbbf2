"""Why the consensus is a plain mean: what any other weight would have given, from three records a picture.

The mean square error of w f + (1 - w) g is F w^2 + G (1 - w)^2 + 2 X w (1 - w), where F and G are the
members' own and X is the mean product of their errors. The records of f, g and of their mean at one weight give
F, G and X, so the error at every weight follows, but for what clipping to [0, 1] adds. Choosing the weight by
it takes the clean picture: it bounds from above what an estimated weight can gain.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from b2g.method import canonical_json
from b2g.methods import METHODS


@dataclass(frozen=True)
class Mixture:
    """A noisy picture on which both members and their mean were run, with mean square errors."""

    picture: str
    level: float
    network: float
    patches: float
    mixed: float
    used: float

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
    def over_members(self):
        """dB of the mean over the better member."""
        return 10 * np.log10(min(self.network, self.patches) / self.mixed)


def mixtures(records, profile="fast"):
    """Every `Mixture` of consensus in a profile with one network, Gaussian noise, sorted by picture."""
    method = METHODS["consensus"].profile(profile)
    network, patches = (member.identity() for member in method.members(method.sigma))
    found = {}
    for record in records:
        if record.done and record.psnr is not None and record.noise == "gaussian":
            found.setdefault(canonical_json(record.settings), {})[record.key] = 10 ** (-record.psnr / 10)
    sides = [found.get(text, {}) for text in (network, patches, method.identity())]
    mixed = 0 < method.weight < 1 and method.networks == 1
    shared = sorted(set.intersection(*map(set, sides))) if mixed else []
    return [Mixture(key[0], key[2], *(side[key] for side in sides), method.weight) for key in shared]


def common(some):
    """(weight, dB): the one weight, in hundredths, with the highest mean gain over all of `some`."""
    weights = np.linspace(0, 1, 101)
    gains = [np.mean([each.gain(weight) for each in some]) for weight in weights]
    place = int(np.argmax(gains))
    return float(weights[place]), float(gains[place])


HEADER = ("pictures", "n", "network", "patches", "mean", "over the better", "correlation of errors",
          "best weights", "gain by them", "one weight for all", "its gain")  # fmt: skip


def rows(found):
    """Rows for :func:`b2g.report.markup.table` under `HEADER`: one for each data set and level."""
    lines = []
    for where, level in sorted({(each.where, each.level) for each in found}):
        some = [each for each in found if (each.where, each.level) == (where, level)]
        best, (weight, gain) = [each.best for each in some], common(some)
        means = [np.mean([-10 * np.log10(getattr(each, name)) for each in some])
                 for name in ("network", "patches", "mixed")]
        lines.append([
            f"{where}, σ\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}{level:g}",
            f"{len({each.picture for each in some})}",
            *(f"{mean:.2f}" for mean in means), f"{np.mean([each.over_members for each in some]):+.2f}",
            f"{np.mean([each.correlation for each in some]):.2f}", f"{min(best):.2f} to {max(best):.2f}",
            f"{np.mean([each.gain(each.best) for each in some]):+.2f}", f"{weight:.2f}", f"{gain:+.2f}",
        ])  # fmt: skip
    return lines
