"""How verdicts are shown: a table of counts, and each claim with its badge,
its test and what was measured."""

from __future__ import annotations

import html
from collections import Counter

from b2g.report.figures import Shown
from b2g.report.markup import STYLE, Mark, table
from b2g.report.pages import Verdict
from b2g.verdicts.claims import KINDS, Judged, judge_all
from b2g.verdicts.judgement import FAILS, HOLDS, MISSING, OUTCOMES, PART, UNTESTABLE

# Only translucent colours and the page's own: light and dark pages need no second set.
LOOK = """<style>
.b2g-claim{border:1px solid rgba(128,128,128,.35);border-radius:6px;padding:.6em .9em;margin:.8em 0}
.b2g-claim p{margin:.35em 0}.b2g-claim .b2g-small{font-size:.85em;opacity:.85}
.b2g-claim summary{cursor:pointer;font-size:.9em}
.b2g-claim .b2g-aside{opacity:.7;font-style:italic}
.b2g-claim .b2g-what{min-width:9em}
</style>"""


def overview(judged=None) -> Shown:
    """How many claims of each kind came out how."""
    judged = judge_all() if judged is None else judged
    counts = Counter((each.claim.kind, each.outcome) for each in judged)
    rows = [[outcome, *(_count(counts[kind, outcome]) for kind in KINDS),
             _count(sum(counts[kind, outcome] for kind in KINDS))] for outcome in OUTCOMES]
    rows.append(["all", *(_count(sum(counts[kind, outcome] for outcome in OUTCOMES)) for kind in KINDS),
                 str(len(judged))])
    return table(["verdict", *KINDS, "all"], rows, "The paper's claims, by verdict and kind")


def _count(number: int):
    return Mark("0", "missing") if number == 0 else str(number)


def page(kind: str, judged=None) -> Shown:
    """All claims of a kind, one under the other."""
    those = [each for each in (judge_all() if judged is None else judged) if each.claim.kind == kind]
    alt = "\n".join(f"{each.verdict!r}" for each in those)
    return Shown(LOOK + STYLE + "".join(claim_markup(each) for each in those), alt)


def claim_markup(judged: Judged) -> str:
    """One claim as HTML."""
    claim, verdict = judged.claim, judged.verdict
    quoted = _small(f"In the paper’s words: “{claim.quote}”") if claim.quote else ""
    scope = _small(_sentence(verdict.detail)) if verdict.detail else ""
    lacking = "".join(map(_small, missing_words(judged)))
    more = (f'<p class="b2g-small"><a href="{html.escape(claim.chapter.replace(".ipynb", ".html"))}">'
            "The chapter that shows more</a></p>") if claim.chapter else ""
    head = f"<p>{verdict.badge} <strong>{html.escape(claim.claim)}</strong></p>"
    return (f'<section class="b2g-claim" id="claim-{claim.id}">{head}{_small(f"{claim.where}. By {claim.basis}.")}'
            f'{quoted}{_small(f"Test: {claim.written}")}{scope}{_cases(judged)}{lacking}{more}</section>')


def _small(words: str) -> str:
    return f'<p class="b2g-small">{html.escape(words)}</p>'


def _sentence(words: str) -> str:
    return words[:1].upper() + words[1:] + ("" if words.endswith(".") else ".")


def _cases(judged: Judged) -> str:
    """The cases as a table that scrolls by itself; it starts folded where it is long."""
    columns = ["compared", "measured", "outcome"]
    if any(case.reading for case in judged.cases):
        columns.insert(0, "reading")
    if any(case.n is not None for case in judged.cases):
        columns.insert(-1, "n")
    rows = "".join(_case(case, columns) for case in judged.cases)
    titles = "".join(f'<th scope="col">{title}</th>' for title in columns)
    folded = "" if len(judged.cases) > 6 else " open"
    label = html.escape(f"Measurements for: {judged.claim.claim}")
    return (f"<details{folded}><summary>What was measured: {html.escape(tally(judged))}</summary>"
            f'<div class="b2g-scroll" role="region" tabindex="0" aria-label="{label}"><table class="b2g-table">'
            f"<thead><tr>{titles}</tr></thead><tbody>{rows}</tbody></table></div></details>")


def tally(judged: Judged) -> str:
    """How many cases of each deciding reading came out how: "faithful: 2 hold, 1 does not hold, 5 open"."""
    names = {HOLDS: ("holds", "hold"), PART: ("holds in part", "hold in part"), FAILS: ("does not hold", "do not hold"),
             MISSING: ("open", "open"), UNTESTABLE: ("not testable", "not testable")}
    counts: dict[str, Counter] = {}
    for case in judged.cases:
        if case.decides:
            counts.setdefault(case.reading, Counter())[case.outcome] += 1
    parts = []
    for reading, found in counts.items():
        words = ", ".join(f"{count} {names[outcome][count > 1]}" for outcome in OUTCOMES if (count := found[outcome]))
        parts.append(f"{reading}: {words}" if reading else words)
    return "; ".join(parts)


def _case(case, columns) -> str:
    cells = {"reading": case.reading or "–", "compared": case.what, "measured": case.value or "–",
             "n": "" if case.n is None else str(case.n),
             "outcome": case.outcome + ("" if case.decides else ", shown beside")}
    kind = "" if case.decides else ' class="b2g-aside"'
    words = [html.escape(cells[name]) for name in columns]
    wide = [' class="b2g-what"' if name in ("compared", "measured") else "" for name in columns]
    rest = "".join(f"<td{width}>{word}</td>" for width, word in zip(wide[1:], words[1:]))
    return f'<tr{kind}><th scope="row"{wide[0]}>{words[0]}</th>{rest}</tr>'


def missing_words(judged: Judged) -> list[str]:
    """What runs a claim lacks and what they would cost, a sentence for each reading."""
    found = []
    for reading, (runs, seconds, unknown) in judged.lacking.items():
        cost = f"about {_time(seconds)} on one CPU core" if unknown < runs else "of unknown cost"
        partly = f", {unknown} of them of unknown cost" if 0 < unknown < runs else ""
        named = f" for the reading {reading}" if reading else ""
        found.append(f"Missing{named}: at least {runs} run{'s' * (runs > 1)}, {cost}{partly}.")
    return found


def _time(seconds: float) -> str:
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(1, seconds):.0f} seconds"


def glance(judged=None) -> Shown:
    """Every claim on a line of its own, with a link to its entry on this page; sorted by verdict."""
    judged = sorted(judge_all() if judged is None else judged, key=lambda each: OUTCOMES.index(each.outcome))
    lines = "".join(f'<p style="margin:.25em 0">{each.verdict.badge} '
                    f'<a href="#claim-{each.claim.id}">{html.escape(each.claim.claim)}</a></p>' for each in judged)
    return Shown(lines, "\n".join(repr(each.verdict) for each in judged))


def legend() -> Shown:
    """The five badges, each beside its word for those who do not see colours."""
    keys = (True, "part", False, "missing", "untestable")
    return Shown(f"<p>{' '.join(Verdict('', key).badge for key in keys)}</p>", ", ".join(OUTCOMES))
