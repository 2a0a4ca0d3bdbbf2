"""When to stop a fit without a clean picture: where its outputs vary least (ES-WMV).

Wang, Li, Zhuang, Chen, Liang and Sun, Early stopping for deep image prior, TMLR 2023, doi
10.48550/arXiv.2112.06074. A fit to one noisy picture first learns the picture and then the noise. The
variance of its last W outputs falls on the way to the picture and rises again with the noise; the fit ends
when it has found no smaller one for P steps, and the answer is what it had at the least. W = 100 and P = 1000
are those of the authors' notebook for denoising (github.com/sun-umn/Early_Stopping_for_DIP, ES_WMV.ipynb,
MIT), of at most 5000 steps; the paper's own text was not at hand. The variant with an exponential mean (its
ES_EMV.ipynb), which spares the memory of W pictures, is not built.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from b2g.method import check_least


def check_stop(window: int, patience: int) -> None:
    """Refuse a ``window`` without a variance, or no ``patience``."""
    check_least("window", window, 2)
    check_least("patience", patience, 1)


class LeastVariance:
    r"""The windowed moving variance of outputs :math:`x_t`, and the answer that stood at its least.

    .. math:: \frac{1}{W} \sum_{w=t-W+1}^{t} \Bigl\| x_w - \frac{1}{W} \sum_{i=t-W+1}^{t} x_i \Bigr\|^2,

    divided here, as in the notebook, by the number of values. ``window`` is W, ``patience`` P; ``step`` is
    the number of outputs at the least, ``variance`` the latest, in squares of the picture's units, None until
    W outputs are there. The ``answer`` is what is given ``lag`` steps after the least (patience at most), for
    answers that are means of earlier outputs; None if the fit has ended before. The lag is ours: the notebook
    marks the output at the least itself.
    """

    def __init__(self, window: int, patience: int, lag: int = 0):
        check_stop(window, patience)
        self.window, self.patience, self.lag = window, patience, min(lag, patience)
        self.ring: Tensor | None = None
        self.total: Tensor | None = None
        self.squares: Tensor | None = None
        self.seen, self.step, self.least = 0, 0, math.inf
        self.variance: float | None = None
        self.answer: Tensor | None = None

    @torch.no_grad()
    def add(self, output: Tensor, answer: Tensor) -> bool:
        """Take up an output and the answer of its step, both ``(1, C, H, W)``; True when the fit should
        end."""
        if self.ring is None:
            self.ring = torch.zeros((self.window, *output.shape[1:]), device=output.device)
            self.total = torch.zeros_like(self.ring[0], dtype=torch.float64)
            self.squares = torch.zeros((), dtype=torch.float64, device=output.device)
        place = self.ring[self.seen % self.window]
        new, old = output[0].double(), place.double()
        # Running sums in double precision: what the window leaves is taken off exactly as it was put on.
        self.total += new - old
        self.squares += new.square().sum() - old.square().sum()
        place.copy_(output[0])
        self.seen += 1
        if self.seen < self.window:
            return False
        spread = self.squares - self.total.square().sum() / self.window
        self.variance = float(spread / (self.window * new.numel()))
        if self.variance < self.least:
            self.least, self.step, self.answer = self.variance, self.seen, None
        if self.seen - self.step == self.lag:
            self.answer = answer.detach().clone()
        return self.seen - self.step >= self.patience

    def state(self) -> dict:
        names = ("ring", "total", "squares", "seen", "step", "least", "variance", "answer")
        return {name: getattr(self, name) for name in names}

    def load_state(self, state: dict, device: torch.device) -> None:
        for name, value in state.items():
            setattr(self, name, value.to(device) if isinstance(value, Tensor) else value)
