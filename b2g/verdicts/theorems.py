"""The tests of Section 4's theorems, by the functions of :mod:`b2g.theory`: no run is needed.

The chapters on theory and on the game show the same at length; here each is decided at the smallest size that
can tell. Everything is drawn from fixed seeds.
"""

from __future__ import annotations

import dataclasses
from functools import cache

import numpy as np
import torch

from b2g import masks, theory
from b2g.theory import game, integrals
from b2g.verdicts.evidence import Evidence
from b2g.verdicts.judgement import aside, fact

OMEGA, GAMMA, SIGMA, THRESHOLD = 0.8, 0.5, 25.0, 40.0
DRAWS, SIDE = 240, 40
# How each reading takes d^g: Eq. 3.4 says neither, so a statement about it is decided for both.
VIEWS = {"paper": ("forward", "sum"), "faithful": ("forward", "component")}


# What the payoff of Theorem 2 may be: as displayed, as in words,
# each with f fixed at its best or as the state itself.
PAYOFFS = {"f": "the displayed payoff f(Ω(y)), f = x*", "log f": "the payoff log f(Ω(y)) of the words, f = x*",
           "x": "the displayed payoff, f the state itself", "log x": "the payoff of the words, f the state itself",
           "x*/x": "a payoff that mends it, x*/x"}


@cache
def scene() -> torch.Tensor:
    """A piece of a photograph, ``(1, 1, SIDE, SIDE)``, with edges and flat ground."""
    from b2g import load

    return torch.tensor(np.asarray(load(f"skimage/camera@{SIDE}+190+60"))).double().reshape(1, 1, SIDE, SIDE)


def _bernoulli(generator):
    return lambda noisy: masks.bernoulli_mask(noisy.shape, 0.25, generator=generator)


@cache
def draws(width: float = 1.0, count: int = DRAWS) -> theory.Draws:
    """Noisy pictures of the scene, each answered blind and sighted by a Gaussian average."""
    generator = torch.Generator().manual_seed(0)
    return theory.simulate(theory.gaussian_average(width), scene(), SIGMA, _bernoulli(generator), count,
                           generator=generator)


def viewed(run: theory.Draws, reading: str) -> theory.Draws:
    """The same draws with d^g as a reading takes it."""
    operator, combine = VIEWS[reading]
    return dataclasses.replace(run, operator=operator, combine=combine)


def invariance(evidence: Evidence):
    """Assumption 1: on J, the answers ignore the picture on J;
    f(Omega(y)) and f(y) of a network of the package."""
    from b2g.fit import build
    from b2g.network import Architecture, EncoderDecoder

    shape = Architecture(width=4, head=(4, 4), depth=2, masked_layers="first", norm="all", dropout="none")
    network = build(lambda: EncoderDecoder(1, shape), 0, torch.device("cpu")).double()
    small, subset = scene()[..., 10:18, 20:28], torch.zeros(1, 1, 8, 8).double()
    subset[..., 2::4, 2::4] = 1.0
    kept = 1 - subset
    blind = theory.dependence(lambda y: network(y * kept, kept), small, subset)
    sighted = theory.dependence(lambda y: network(y), small, subset)
    words = "largest derivative {:.1e}".format
    return [fact("f(Ω(y)) on the masked pixels J", blind.assumption_1, words(blind.inside)),
            fact("f(y) on J, the other half of Eq. 3.4", sighted.assumption_1, words(sighted.inside))]


def _smooth(u, v):
    return torch.exp(-u * v) * torch.cos(v)


def propositions(evidence: Evidence):
    """Propositions 1 and 2 (Eq. 4.2, 4.3) as printed, on functions that meet their conditions;
    mended ones beside."""
    unit = (0.0, 1.0)
    jump = integrals.step_after(0.7)
    here, there = theory.continuity(jump, unit, 0.2, 1e-3), theory.continuity(jump, unit, 0.7, 1e-6)
    printed, mended = theory.printed_leibniz(torch.ones_like, (1.0, 3.0)), theory.leibniz(_smooth, unit, 0.8)
    at_s = theory.continuity(_smooth, unit, 0.4, 1e-2)
    return [
        fact("Proposition 1: Eq. 4.2 at one s makes the integral continuous on the interval",
             here.epsilon > 0 or there.change < 0.5,
             f"Eq. 4.2 holds at 0.2, the integral jumps by {there.change:.0f} at 0.7"),
        fact("Proposition 2: Eq. 4.3, integral and derivative in one variable", printed.holds, printed.words),
        aside(fact("mended: Eq. 4.2 at s makes it continuous at s", at_s.holds,
                   f"{at_s.change:.1e} ≤ {at_s.bound:.1e}")),
        aside(fact("mended: Eq. 4.3 in two variables", mended.holds, mended.words)),
    ]


def corollary_1(evidence: Evidence):
    """Eq. 4.4 where its premise is met: f unbiased for x,
    and f unbiased for the printed target (I - Omega)(x)."""
    run = draws()
    hidden = 1 - run.mask[:1]
    whole = theory.corollary_1(run.noisy, run.clean)
    letter = theory.corollary_1(run.noisy * hidden, theory.hidden_target(run.clean, run.mask[:1]))
    premise = theory.corollary_1(run.blind, run.clean)
    words = "largest z {:.1f}".format
    return [fact("f unbiased for x: the mean gradient is that of x", whole.holds(), words(whole.largest_z)),
            fact("f unbiased for (I - Ω)(x): the mean gradient is that of it", letter.holds(),
                 words(letter.largest_z)),
            aside(fact("premise: a blind average is unbiased", premise.holds(), words(premise.largest_z)))]


def theorem_1(evidence: Evidence, power=0.05):
    """Eq. 4.5 as printed: for a blind average, and for an f that meets conditions (i) to (iii) to the letter.

    Holds only where a gap of the share ``power`` would have been seen.
    """
    example = torch.Generator().manual_seed(1)
    literal = theory.simulate(theory.pointwise_unbiased(scene(), SIGMA / 255), scene(), SIGMA, _bernoulli(example),
                              DRAWS, generator=example)
    cases = []
    for name, run in (("a blind average", draws()), ("an f that meets the printed conditions", literal)):
        for reading, (operator, combine) in VIEWS.items():
            sides = theory.theorem_1(viewed(run, reading), OMEGA, GAMMA)
            holds = sides.holds() and sides.resolution() < power
            cases.append(fact(f"{name}, {operator} differences, {combine}", holds, sides.words))
    return cases


def noise2self(evidence: Evidence, power=0.05):
    """Eq. 4.6 for a function that is blind on the masked pixels, under a mask that ignores the noise."""
    sides = theory.noise2self(draws())
    return [fact("a blind average, Bernoulli masks", sides.holds() and sides.resolution() < power, sides.words)]


def noise2self_dual(evidence: Evidence):
    """Eq. 4.6 under the dual mask of Eq. 3.1, which is drawn from the noise:
    a perfect and a blurred estimate x_m."""
    cases, blurred = [], theory.gaussian_average(1.5)(scene(), torch.ones_like(scene()))
    for name, estimate in (("x_m = x", scene()), ("x_m = x with blurred details", blurred)):
        generator = torch.Generator().manual_seed(2)

        def draw(noisy, estimate=estimate, generator=generator):
            detail = masks.detail_index(masks.detail_distance(noisy, estimate), THRESHOLD)
            return masks.dual_mask(detail, generator=generator)

        run = theory.simulate(theory.gaussian_average(1.0), scene(), SIGMA, draw, DRAWS, generator=generator)
        sides = theory.noise2self(run)
        cases.append(fact(name, sides.holds(), sides.words))
    return cases


def theorem_2(evidence: Evidence):
    """Theorem 2: the sign of the derivative, and whether the dynamics end at x* under
    each payoff that it names."""
    random = np.random.default_rng(0)
    states, goal = 0.9 * random.dirichlet(np.ones(5), 40) + 0.02, random.dirichlet(3 * np.ones(5))
    cases = []
    for name, words in PAYOFFS.items():
        path = game.replicator(theory.PAYOFFS[name], states, goal, step=0.05, steps=1500)
        share = game.converged_share(path, goal, 0.01)
        case = fact(f"ends at x* under {words}", share == 1, f"from {100 * share:.0f} % of {len(states)} starts")
        cases.append(aside(case) if name == "x*/x" else case)
    payoff, h = theory.PAYOFFS["x*/x"], 1e-6
    velocity = game.replicator_field(payoff, states, goal)
    ends = [theory.distance_like(goal, states + side * h * velocity, True) for side in (1, -1)]
    slope, printed = (ends[0] - ends[1]) / (2 * h), game.printed_distance_rate(payoff, states, goal, goal)
    agree = bool(np.allclose(slope, printed, rtol=1e-3, atol=1e-6))
    cases.append(fact("dD/dt = (x* - x)ᵀF, as the proof prints", agree,
                      f"measured over printed {float(np.median(slope / printed)):+.2f}"))
    return cases


@cache
def _widths(count=40):
    """Draws of Gaussian averages of many widths, each on the same noise and masks."""
    widths = np.linspace(0.35, 1.85, 11)
    return widths, [draws(float(width), count) for width in widths]


def supervised_minimum(evidence: Evidence):
    """The loss of Eq. 3.9 is least for the same denoiser as the supervised loss,
    of Gaussian averages of any width.

    The paper's reading: f(y) attached. The faithful one: f(y) held fixed, its width chosen last; where that
    settles, started from the narrowest.
    """
    widths, runs = _widths()
    best = int(np.argmin([float(run.energy((run.blind - run.clean)[:, :, None]).mean()) for run in runs]))
    attached = int(np.argmin([theory.trained_loss(viewed(run, "paper"), OMEGA, GAMMA).left for run in runs]))
    replies = []
    for sighted in runs:
        mixed = [dataclasses.replace(viewed(run, "faithful"), visible=sighted.visible) for run in runs]
        replies.append(int(np.argmin([theory.trained_loss(run, OMEGA, GAMMA).left for run in mixed])))
    settled = 0
    for _ in widths:
        settled = replies[settled]
    found = {"paper": attached, "faithful": settled}
    return [fact("width of the best average, within a step of the grid", abs(index - best) <= 1,
                 f"{widths[index]:.2f} pixels, supervised {widths[best]:.2f}", reading)
            for reading, index in found.items()]


TESTS = (invariance, propositions, corollary_1, theorem_1, noise2self, noise2self_dual, theorem_2, supervised_minimum)
