"""One fit a channel: for methods that are made for gray pictures and take colour apart."""

from __future__ import annotations

from dataclasses import replace
from typing import Callable

import torch
from torch import Tensor

from b2g.fitted import part_of
from b2g.method import Circumstances, Denoised
from b2g.seeds import seed_for


def each_channel(
    denoise: Callable[[Tensor, Circumstances], Denoised], noisy: Tensor, circumstances: Circumstances
) -> Denoised:
    """``denoise`` for every channel of ``noisy`` ``(1, C, H, W)`` as a gray picture, with a seed of its own.

    The entries of the joint history say which ``channel`` they belong to; their PSNR is that of the channel.
    A gray picture is denoised as it is. Finished channels leave no checkpoint: a killed run fits them again,
    to the same bits, and goes on within the channel that it was at.
    """
    if noisy.shape[1] == 1:
        return denoise(noisy, circumstances)
    clean, answers = circumstances.clean, []
    for channel in range(noisy.shape[1]):
        own = part_of(circumstances, f"channel{channel}", seed_for("channel", channel, circumstances.seed))
        own = replace(own, clean=None if clean is None else clean[:, channel : channel + 1])
        answers.append(denoise(noisy[:, channel : channel + 1].contiguous(), own))
    history = [{"channel": k, **entry} for k, answer in enumerate(answers) for entry in answer.history]
    return Denoised(torch.cat([answer.estimate for answer in answers], 1), history)
