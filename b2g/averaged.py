"""The running average of a network's weights: what a fit at a constant rate circles around.

After Polyak and Juditsky (1992); the exponential form, with the bias of its start removed.
"""

from __future__ import annotations

from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from b2g.errors import B2GError


class AveragedWeights:
    """The exponential mean of the weights of ``network`` over the calls of :meth:`update`;
    the newest counts 1 - ``decay``.

    Everything lies on the network's device, so a CUDA graph may hold an update.
    """

    def __init__(self, network: nn.Module, decay: float):
        if not 0.0 <= decay < 1.0:
            raise B2GError(f"the decay of the averaged weights must lie in [0, 1), not {decay}.")
        self.own = [parameter.detach() for parameter in network.parameters()]
        self.sums = [torch.zeros_like(parameter) for parameter in self.own]
        self.total = torch.zeros((), device=self.own[0].device)
        self.blend = get_ema_multi_avg_fn(decay)
        self.decay = decay

    @torch.no_grad()
    def update(self) -> None:
        """Take the weights up as they now are."""
        self.blend(self.sums, self.own, None)
        self.total.lerp_(torch.ones_like(self.total), 1 - self.decay)

    @contextmanager
    def used(self):
        """Within the block the network has its averaged weights; its own ones after it."""
        kept = [parameter.clone() for parameter in self.own]
        with torch.no_grad():
            for parameter, mean in zip(self.own, self.sums):
                parameter.copy_(mean / self.total)
        try:
            yield
        finally:
            with torch.no_grad():
                for parameter, before in zip(self.own, kept):
                    parameter.copy_(before)

    def state(self) -> tuple[list[Tensor], Tensor]:
        """A copy: it stays what it is while the fit goes on, so that a step can be taken back."""
        return [mean.clone() for mean in self.sums], self.total.clone()

    def load_state(self, state: tuple[list[Tensor], Tensor]) -> None:
        sums, total = state
        for mean, value in zip(self.sums, sums):
            mean.copy_(value)
        self.total.copy_(total)
