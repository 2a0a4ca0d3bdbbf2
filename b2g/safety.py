"""A safety net under a fit that now and then falls: the weights go back to an earlier copy."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

EVERY = 100  # steps from copy to copy
FALL = 5.0  # dB


class SafetyNet:
    """Puts the weights of ``network`` back where the output's PSNR against the noisy picture falls by more
    than 5 dB.

    After Deep Image Prior's notebook (doi 10.1007/s11263-020-01303-4), which compares each step with the one
    before and copies all weights nearly every step. Here every hundredth step is copied, and a copy serves
    only when the next step has shown that it is sound. Adam's own memory stays, as there. ``restored`` counts
    the returns.
    """

    def __init__(self, network: nn.Module):
        self.parameters = [parameter.detach() for parameter in network.parameters()]
        self.kept: list[Tensor] | None = None
        self.fresh: list[Tensor] | None = None
        self.level, self.kept_level, self.restored = -math.inf, -math.inf, 0

    @torch.no_grad()
    def look(self, step: int, error: float) -> None:
        """After step ``step`` (from 1), whose output had the mean square ``error``."""
        level = -10 * math.log10(max(error, 1e-12))
        if level < self.level - FALL and self.kept is not None:
            for parameter, before in zip(self.parameters, self.kept):
                parameter.copy_(before)
            self.level, self.fresh, self.restored = self.kept_level, None, self.restored + 1
            return
        if self.fresh is not None:  # this step's output is that of the copy
            self.kept, self.kept_level, self.fresh = self.fresh, level, None
        self.level = level
        if step % EVERY == 1:
            self.fresh = [parameter.clone() for parameter in self.parameters]

    def state(self) -> dict:
        return {name: getattr(self, name) for name in ("kept", "fresh", "level", "kept_level", "restored")}

    def load_state(self, state: dict) -> None:
        device = self.parameters[0].device
        for name, value in state.items():
            setattr(self, name, [one.to(device) for one in value] if isinstance(value, list) else value)
