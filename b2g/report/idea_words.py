"""The ideas beyond the paper by name, the settings that are each, and the table of what they are worth."""

import numpy as np

from b2g.report.markup import Lines, Mark
from b2g.runs.cost import spoken

TOGETHER = "several at once"
SIGNS = {"gaussian": "σ", "poisson": "λ"}
# An idea and the settings that are it, of all methods; in the order of a table.
IDEAS = {
    "what is hidden": ("input", "strength", "noise", "mask", "masked", "per_channel", "detail_masked",
                       "detail_threshold", "detail_over", "detail_fraction", "dual_from", "refresh"),
    "pilot": ("patches", "draws", "pilot"),
    "window": ("side", "window", "stride"),
    "noise that neighbours share": ("dilation", "shuffle"),
    "learning rate": ("learning_rate", "decay", "decay_from"),
    "steps": ("steps",),
    "averages": ("weights", "answer", "average", "passes"),
    "held-out pixels": ("hold",),
    "symmetries": ("flips",),
    "dropout": ("standout", "standout_on", "standout_threshold", "standout_scale", "standout_below",
                "dropout", "rate"),
    "attention": ("attention", "attention_between"),
    "normalisation": ("norm", "normaliser", "masked_layers"),
    "size": ("width", "head", "depth", "gradient_features", "output", "patch", "group", "alpha", "keep"),
    "visible branch": ("visible", "omega", "gamma", "operator", "combine", "loss_norm", "target"),
    "posterior": ("posterior",),
    "colours": ("colour",),
    "noise level": ("sigma", "photons"),
    "members": ("network", "networks", "weight", "weighing",
                "patches_profile"),
}
METHOD = "method"  # another method, or another kind of the same
ORDER = (*IDEAS, METHOD, TOGETHER)
_PILOT = {"none": "without a pilot", "nl_ridge": "NL-Ridge as pilot", "lichi": "LIChI as pilot"}
_WORDS = {
    "input": {"masked": "masked pixels", "recorrupted": "recorruption"},
    "patches": _PILOT,
    "pilot": {"patches": "x_m from a patch denoiser"},
    "steps": {0: "the published steps"},
    "side": {0: "the whole picture at every step"},
    "weights": {0.0: "no averaged weights"},
    "hold": {0.0: "no pixels held out"},
    "answer": {"average": "running average of answers", "passes": "mean of passes after the fit",
               "visible": "mean of answers to the noisy picture"},
    "flips": {True: "flips", False: "no flips"},
    "standout": {"none": "no T-Standout", "half": "T-Standout", "all": "T-Standout everywhere"},
    "dropout": {"none": "no dropout", "half": "dropout at half resolution", "all": "dropout everywhere"},
    "attention": {"none": "no channel attention", "all": "channel attention"},
    "norm": {"none": "no batch normalisation", "decoder": "batch normalisation in the decoder",
             "all": "batch normalisation"},
    "visible": {"none": "without f(y)", "detached": "f(y), detached", "attached": "f(y), attached"},
    "posterior": {"none": "no posterior mean", "global": "posterior mean, one weight a picture",
                  "local": "posterior mean, local weights"},
    "weighing": {"fixed": "plain halves", "held": "weight told by held-out pixels"},
    "colour": {"joint": "colours together", "opponent": "opponent colours, each by itself"},
    "sigma": {"given": "told the true sigma", None: "sigma estimated"},
}  # fmt: skip
_PHRASES = {
    METHOD: "{}", "side": "window of {0} \N{MULTIPLICATION SIGN} {0} pixels",
    "weights": "averaged weights, decay {}", "masked": "{} of the pixels hidden",
    "steps": "{} steps", "draws": "{} draws", "hold": "{} of the pixels held out", "networks": "{} networks",
    "strength": "noise added at strength {}", "passes": "{} passes", "mask": "mask by {}",
}  # fmt: skip


def idea_of(changes, method="b2g"):
    """The idea that all changes belong to, or `TOGETHER`."""
    ideas = {_idea(name, method) for name, _ in changes}
    return ideas.pop() if len(ideas) == 1 else TOGETHER


def _idea(name, method):
    if (name, method) == ("patches", "consensus"):
        return "members"
    return next((idea for idea, names in IDEAS.items() if name in names), METHOD)


def words(changes, method="b2g"):
    """Changes in words, in the order of `IDEAS`: "no flips, window of 128 × 128 pixels"."""
    order = [name for names in IDEAS.values() for name in names]
    ordered = sorted(changes, key=lambda change: order.index(change[0]) if change[0] in order else len(order))
    return ", ".join(_phrase(name, value, method) for name, value in ordered)


def _phrase(name, value, method):
    known = {} if (name, method) == ("patches", "consensus") else _WORDS.get(name, {})
    if value in known:
        return known[value]
    text = f"{value:g}" if isinstance(value, float) else value
    text = " and ".join(map(str, value)) if isinstance(value, tuple) else text
    return _PHRASES.get(name, f"{name.replace('_', ' ')} {{}}").format(text)


def level_words(level):
    return f"{SIGNS[level[0]]} = {level[1]:g}" if level[0] in SIGNS else level[0]


def table_rows(study):
    """(header, rows) for :func:`b2g.report.markup.table`: idea, change, gain at each level, and cost."""
    header = ["idea", "changed", *(f"{level_words(level)}, dB" for level in study.levels), "time"]
    gains = [[_cell(row.gains.get(level)) for level in study.levels] for row in study.rows]
    return header, [[row.idea, row.words, *cells, _ratio(row)] for row, cells in zip(study.rows, gains)]


def _cell(gain):
    if gain is None:
        return Mark("not planned", "missing")
    lines, found = [], gain.interval
    if found.n:
        mean = signed(found.mean)
        lines.append(Mark(mean, "best", "the interval lies above zero") if found.sign == 1 else mean)
    if found.low is not None:
        lines.append(f"{signed(found.low)} to {signed(found.high)}")
    if found.n:
        lines.append(f"n = {found.n}")
    if gain.failed:
        lines.append(Mark(f"{len(gain.failed)} runs failed", "missing", "; ".join(gain.failed)))
    if gain.missing:
        price = "unknown" if gain.seconds is None else f"\N{ALMOST EQUAL TO} {spoken(gain.seconds)}"
        lines.append(Mark(f"{gain.missing} runs missing, {price}", "missing"))
    return Lines(lines)


def _ratio(row):
    costs = [gain.cost for gain in row.gains.values() if gain.cost is not None]
    return f"{np.mean(costs):.2f}\N{MULTIPLICATION SIGN}" if costs else None


def signed(value):
    """Decibels with a sign and two decimals, the minus typographic."""
    return f"{value:+.2f}".replace("-", "\N{MINUS SIGN}")
