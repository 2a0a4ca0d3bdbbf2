"""The paper's claims (data/claims.yml) and their verdicts, computed from records,
printed cells and the theory.

    from b2g.verdicts import claims
    claims.badge("theorem-1")        # one verdict, for any chapter
    claims.judge_all()               # all of them

A claim names a test and its parameters; the test returns cases; :mod:`b2g.verdicts.judgement` adds them up.
No outcome is written anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache

import yaml

from b2g.errors import B2GError
from b2g.report import records as stored
from b2g.report.pages import Verdict
from b2g.verdicts import arguments, cells, comparisons, fits, theorems
from b2g.verdicts.evidence import Evidence
from b2g.verdicts.judgement import FAILS, HOLDS, MISSING, PART, UNTESTABLE, Case, scope_of, verdict_of

KINDS = {"result": "Results: what the method reaches", "ablation": "Ablations: what each part does",
         "theory": "Theory: what is proved", "method": "Method: what each part is said to be",
         "cost": "Cost: what it takes"}
BADGES = {HOLDS: True, PART: "part", FAILS: False, MISSING: "missing", UNTESTABLE: "untestable"}
BASIS = {comparisons: "runs", fits: "runs", cells: "the paper's own pages",
         theorems: "algebra and simulation", arguments: "algebra and simulation"}
TESTS = {test.__name__: test for module in BASIS for test in module.TESTS}


@dataclass(frozen=True)
class Claim:
    """One claim of the paper in our words, and the test that was written before any run.

    ``where`` it stands; ``written`` is the test in plain words; ``test`` the name of its function and
    ``given`` its parameters; ``chapter`` the page that shows more ("theory.ipynb#equation-45-theorem-1").
    """

    id: str
    where: str
    claim: str
    kind: str
    written: str
    test: str
    given: dict = field(default_factory=dict, hash=False)
    quote: str = ""
    chapter: str = ""

    @property
    def basis(self) -> str:
        """What decides it: runs, the paper's own pages, or algebra and simulation."""
        return BASIS[next(module for module in BASIS if TESTS[self.test] in module.TESTS)]


@dataclass(frozen=True)
class Judged:
    """A claim with its cases; everything else follows from them."""

    claim: Claim
    cases: tuple[Case, ...]

    @property
    def outcome(self) -> str:
        return verdict_of(self.cases)

    @property
    def verdict(self) -> Verdict:
        """The badge with the claim's words, the same on every page."""
        return Verdict(self.claim.claim, BADGES[self.outcome], scope_of(self.cases))

    @property
    def lacking(self) -> dict:
        """{reading: (runs, CPU seconds, runs of unknown cost)} of what is missing, each run counted once."""
        found = {}
        for case in self.cases:
            if case.decides and case.lacking:
                found.setdefault(case.reading, set()).update(case.lacking)
        return {reading: (len(runs), sum(run.seconds or 0.0 for run in runs), sum(run.seconds is None for run in runs))
                for reading, runs in found.items()}


@cache
def claims() -> dict[str, Claim]:
    """All claims by their ids, in the order of the file."""
    rows = yaml.safe_load(stored._stored("claims.yml").read_text("utf-8"))["claims"]
    found = [read_claim(row) for row in rows]
    if len({claim.id for claim in found}) < len(found):
        raise B2GError("data/claims.yml names a claim twice: every id must be its own.")
    return {claim.id: claim for claim in found}


def read_claim(row: dict) -> Claim:
    """A claim from its entry, refused where a field is missing, unknown, or names no test or kind."""
    row = {("given" if key == "with" else key): value for key, value in row.items()}
    try:
        claim = Claim(**row)
    except TypeError as error:
        raise B2GError(f"the claim {row.get('id')!r} cannot be read: {error}.") from error
    if claim.kind not in KINDS or claim.test not in TESTS:
        raise B2GError(f"the claim {claim.id!r} has kind {claim.kind!r} and test {claim.test!r}; kinds are "
                       f"{', '.join(KINDS)}, tests are {', '.join(TESTS)}.")
    return claim


@cache
def _stored_evidence() -> Evidence:
    return Evidence.stored()


def judge(slug: str, evidence: Evidence | None = None) -> Judged:
    """The verdict on one claim, from the stored records or from `evidence`."""
    if slug not in claims():
        raise B2GError(f"there is no claim {slug!r}; data/claims.yml has {', '.join(claims())}.")
    claim = claims()[slug]
    return _judge(slug) if evidence is None or claim.basis != "runs" else _run(claim, evidence)


@cache
def _judge(slug: str) -> Judged:
    return _run(claims()[slug], _stored_evidence())


def _run(claim: Claim, evidence: Evidence) -> Judged:
    return Judged(claim, tuple(TESTS[claim.test](evidence, **claim.given)))


def judge_all(evidence: Evidence | None = None) -> list[Judged]:
    """The verdicts on all claims, in the order of the file."""
    return [judge(slug, evidence) for slug in claims()]


def badge(slug: str) -> Verdict:
    """The verdict on one claim as a chapter shows it; make it the last expression of a cell,
    or display it."""
    return judge(slug).verdict
