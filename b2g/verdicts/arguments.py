"""The tests of what Section 3 argues without an experiment: signs, a limit, the masks. No run is needed."""

from __future__ import annotations

import numpy as np
import torch

from b2g import masks, theory
from b2g.verdicts.evidence import Evidence
from b2g.verdicts.judgement import fact
from b2g.verdicts.theorems import SIGMA, THRESHOLD, VIEWS, draws, viewed

PHOTOGRAPHS = ("camera", "astronaut", "coffee", "chelsea")


def signs(evidence: Evidence, share=0.01):
    """d^c and d^g are never negative (the step from Eq. 3.6 to 3.7):
    less than ``share`` of the masked values are."""
    run, hidden = draws(), draws().mask < 0.5
    content = float((run.content[:, :, 0][hidden] < 0).double().mean())
    cases = [fact("d^c is not negative", content < share, f"{100 * content:.0f} % are")]
    for reading, (_, combine) in VIEWS.items():
        gap = viewed(run, reading).gap
        below = float((gap[hidden[:, :, None].expand_as(gap)] < 0).double().mean())
        cases.append(fact(f"d^g is not negative, read as {combine}", below < share, f"{100 * below:.0f} % are"))
    return cases


def omega_limit(evidence: Evidence, tolerance=0.05):
    """As omega grows, d^g tends to 0 and x* = f(Omega(y)) + omega d^g to f(y) (after Eq. 3.7).

    For a network that may answer anything, Eq. 3.7 is a linear problem: with the answers v = f(y) given, the
    blind answers b solve (I - omega D) b = y - omega D v on a line of masked pixels, D the forward
    difference.
    """
    random = np.random.default_rng(0)
    size = 200
    clean = np.repeat(random.random(10), size // 10)
    noisy = clean + random.normal(0, SIGMA / 255, size)
    sighted = np.convolve(np.pad(clean, 2, "edge"), np.ones(5) / 5, "valid")
    difference = np.eye(size, k=1) - np.eye(size)
    difference[-1] = 0
    gaps, away = [], []
    for omega in (1.0, 1e2, 1e4):
        blind = np.linalg.solve(np.eye(size) - omega * difference, noisy - omega * difference @ sighted)
        gap = difference @ (sighted - blind)
        gaps.append(float(np.abs(gap).mean()))
        away.append(float(np.linalg.norm(blind + omega * gap - sighted) / np.linalg.norm(noisy - sighted)))
    return [fact("d^g tends to 0", gaps[-1] < tolerance * gaps[0], f"mean size {gaps[0]:.1e} to {gaps[-1]:.1e}"),
            fact("x* tends to f(y)", away[-1] < tolerance,
                 f"stays {away[-1]:.2f} of the way from f(y) to y: it is y, noise included")]


def mask_rate(evidence: Evidence, masked=0.25, levels=(25, 50, 75, 100), tolerance=0.01):
    """The dual mask hides ``masked`` of all values whatever the noise,
    in each reading of the max in Eq. 3.1."""
    cases = []
    for over in ("channel", "max", "euclidean"):
        rates = {}
        for sigma in levels:
            generator = torch.Generator().manual_seed(sigma)
            noisy = torch.randn(1, 3, 96, 96, generator=generator) * sigma / 255
            detail = masks.detail_index(masks.detail_distance(noisy, torch.zeros_like(noisy), over), THRESHOLD)
            rates[sigma] = masks.masked_fraction(masks.dual_mask(detail, masked, 0.0, generator=generator))
        words = ", ".join(f"{100 * rate:.0f} % at σ = {sigma}" for sigma, rate in rates.items())
        reached = all(abs(rate - masked) <= tolerance for rate in rates.values())
        cases.append(fact(f"distance over {over}, perfect estimate", reached, words))
    return cases


def detail_is_edge(evidence: Evidence, levels=(25, 50, 75, 100), share=0.5):
    """Most of what the detail index marks is edge: the tenth of the pixels where the
    clean gradient is largest.

    x_m is what the paper says of it: free of noise, details blurred. The paper's reading marks by Eq. 3.1 at
    each level, the faithful one by the gradient of x_m, which no noise enters.
    """
    cases = []
    for name in PHOTOGRAPHS:
        clean = _photograph(name)
        edges = masks.gradient_index(clean, 0.1)
        estimate = theory.gaussian_average(1.5)(clean, torch.ones_like(clean))
        hits = {("faithful", "any σ"): _hit(masks.gradient_index(estimate, 0.1), edges)}
        for sigma in levels:
            generator = torch.Generator().manual_seed(sigma)
            noisy = clean + sigma / 255 * torch.randn((10, *clean.shape[1:]), generator=generator)
            distance = masks.detail_distance(noisy, estimate.expand_as(noisy))
            hits["paper", f"σ = {sigma}"] = _hit(masks.detail_index(distance, THRESHOLD), edges)
        cases += [fact(f"{name}, {words}", hit > share, f"{100 * hit:.0f} % of the marked pixels are edge", reading)
                  for (reading, words), hit in hits.items()]
    return sorted(cases, key=lambda case: case.reading)


def _photograph(name: str) -> torch.Tensor:
    from b2g import load

    picture = np.asarray(load(f"skimage/{name}@128"))
    return torch.tensor(picture.reshape(*picture.shape[:2], -1)).permute(2, 0, 1)[None].float()


def _hit(marked: torch.Tensor, edges: torch.Tensor) -> float:
    return float((marked * edges).sum() / marked.sum())


TESTS = (signs, omega_limit, mask_rate, detail_is_edge)
