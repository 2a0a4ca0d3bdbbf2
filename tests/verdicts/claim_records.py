"""Made-up records for the tests of the claims: scores that a test chooses,
at settings that the package knows."""

import json
from hashlib import sha256

from b2g.report.readings import configured, pictures
from b2g.runs.record import Record
from b2g.verdicts.evidence import Evidence


class NoCosts:
    """Nothing is known of any run's cost."""

    def seconds(self, method, size):
        return None


def record(method, picture, level=25.0, number=0, **outcome):
    """A record of a configured method; identity and checksum are made up."""
    values = dict(noise="gaussian", repeat=0, protocol="unclipped", watch="", device="cpu", machine="m") | outcome
    settings = json.loads(method.identity())
    name = f"{picture}|{level}|{method.identity()}|{values['watch']}|{number}"
    return Record(id=sha256(name.encode()).hexdigest()[:16], picture=picture, digest="", level=float(level),
                  method=settings["method"], settings=settings, **values)


def side(method, where, score, levels=(25,), count=9, **outcome):
    """Records of a method on the first ``count`` pictures; ``score(index, level)`` gives the PSNR."""
    return [record(method, name, level, psnr=score(index, level), **outcome)
            for level in levels for index, name in enumerate(pictures(where)[:count])]


def flat(value):
    """A score that varies a little from picture to picture, the same for both sides of a pair,
    about ``value``."""
    return lambda index, level: 20 + index + value + 0.01 * (index % 3)


def evidence(*groups, histories=None, costs=None):
    return Evidence([each for group in groups for each in group], histories, costs or NoCosts())


__all__ = ["configured", "evidence", "flat", "pictures", "record", "side"]
