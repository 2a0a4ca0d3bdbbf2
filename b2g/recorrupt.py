r"""Recorruption: pairs for training from one noisy picture whose noise level is known or estimated.

.. math:: u = y + \alpha\sigma n, \qquad t = y - \sigma n / \alpha, \qquad n \sim N(0, I)

For white Gaussian noise of standard deviation sigma, u and t are independent given the clean picture x, and
both have the mean x: a network fitted to t from u is fitted as if to x (Pang, Zheng, Quan and Ji, CVPR 2021,
doi 10.1109/CVPR46437.2021.00208). Unlike a mask, which hides a pixel wholly, recorruption hides a share of
every pixel's noise, and the network may use the pixel itself.

The network may be given a *pilot* beside u: the answer of a patch-based denoiser to u, which it then mends. A
function of u alone, the pilot is as independent of t as u is.
"""

from __future__ import annotations

from contextlib import contextmanager
from copy import copy
from typing import Callable

import torch
from torch import Tensor, nn

from b2g.averaged import AveragedWeights
from b2g.errors import B2GError
from b2g.fit import autocast
from b2g.loop import draw_number, flip
from b2g.window import Part, cut, draw_window

_PASSES, _CHECKED = 2, 8  # answers whose mean is checked (dropout and flips differ), and recorruptions at most
_WEIGHED = 2**17  # pixels of recorruptions that another denoiser is asked for: its answers may be slow


def recorrupt(noisy: Tensor, sigma: float, strength: float, noise: Tensor) -> tuple[Tensor, Tensor]:
    """u and t from ``noisy`` ``(B, C, H, W)`` and standard normal ``noise`` of its shape.

    ``sigma`` is in the picture's units, ``strength`` is alpha.
    """
    return noisy + strength * sigma * noise, noisy - sigma / strength * noise


class RecorruptedLoop:
    """The objective of one noisy picture ``(1, C, H, W)``:
    mend the pilot's answer to u (or u itself) toward t.

    ``draws`` recorruptions are made once, with the ``pilot``'s answer to each; without a pilot they are made
    anew at every step. ``sigma`` is the noise's standard deviation in the picture's units, ``strength`` is
    alpha. Each step looks at a window of ``side`` pixels (0: all). ``hold`` is the share of pixels that never
    count in the loss, and tell at the end how much of the network's change to trust (:meth:`trust`; 0: all of
    it). ``weights`` is the decay of the averaged weights that answer afterwards (0: the last ones).
    """

    capturable = True

    def __init__(
        self,
        network: nn.Module,
        noisy: Tensor,
        sigma: float,
        *,
        strength: float = 0.5,
        pilot: Callable[[Tensor, float], Tensor] | None = None,
        draws: int = 4,
        hold: float = 0.0,
        side: int = 0,
        weights: float = 0.0,
        flips: bool = True,
        generator: torch.Generator,
        precision: str = "auto",
    ):
        if not sigma > 0:
            raise B2GError(f"recorruption needs a positive noise level, not {sigma}.")
        if not strength > 0:
            raise B2GError(f"strength is the share of noise that is added and must be positive, not {strength}.")
        if pilot is not None and draws < 1:
            raise B2GError(f"draws counts recorruptions and must be at least 1, not {draws}.")
        self.network, self.noisy, self.sigma, self.strength = network, noisy, sigma, strength
        self.side, self.flips, self.generator, self.precision = side, flips, generator, precision
        self.averaged = AveragedWeights(network, weights)
        self.pilot, self.seen, self.targets, self.whole = pilot, None, None, None
        self.trusted: float | Tensor = 1.0
        self.counted = torch.ones_like(noisy[:, :1])
        if pilot is not None:
            self.seen, self.targets = self._prepare(pilot, draws)
            if hold:
                drawn = torch.rand(self.counted.shape, generator=generator, device=noisy.device)
                self.counted = (drawn >= hold).to(noisy.dtype)

    def _noise(self, like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=self.generator, device=like.device)

    @property
    def level(self) -> float:
        """The standard deviation of a recorruption's noise, in the picture's units."""
        return self.sigma * (1 + self.strength**2) ** 0.5

    def _prepare(self, pilot: Callable[[Tensor, float], Tensor], draws: int) -> tuple[Tensor, Tensor]:
        """The recorruptions with their pilots ``(draws, 2 C, H, W)``,
        and the targets ``(draws, C, H, W)``."""
        seen, targets = [], []
        for _ in range(draws):
            shown, target = recorrupt(self.noisy, self.sigma, self.strength, self._noise(self.noisy))
            seen.append(torch.cat((shown, pilot(shown, self.level)), 1))
            targets.append(target)
        return torch.cat(seen), torch.cat(targets)

    def _draw(self, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
        """What the network sees in a window, and its target."""
        if self.seen is None:
            part = cut(self.noisy, rows, columns)
            return recorrupt(part, self.sigma, self.strength, self._noise(part))
        which = torch.randint(len(self.seen), (1,), generator=self.generator, device=self.noisy.device)
        return tuple(cut(pictures.index_select(0, which), rows, columns) for pictures in (self.seen, self.targets))

    def answer(self, seen: Tensor) -> Tensor:
        """The mended last channels of ``seen`` (the pilot, or u itself), as float32."""
        which = draw_number(4, self.generator) if self.flips else 0
        channels = self.noisy.shape[1]
        with autocast(seen.device, self.precision):
            change = self.network(flip(seen, which), None, self.generator)
        return seen[:, -channels:] + flip(change.float(), which)

    def loss(self, step: int) -> tuple[Tensor, Part]:
        """The mean square between the answer to u and t in one window."""
        self.averaged.update()  # by the step before
        rows, columns = draw_window(self.noisy.shape[-2:], self.side, self.generator)
        seen, target = self._draw(rows, columns)
        answer = self.answer(seen)
        loss = self.loss_of(answer, target, cut(self.counted, rows, columns))
        return loss, Part(answer.detach(), rows, columns)

    @staticmethod
    def loss_of(answer: Tensor, target: Tensor, counted: Tensor) -> Tensor:
        """The mean square over the pixels that count, ``(B, 1, h, w)`` with 1 for those."""
        return ((answer - target).square().mean(1, keepdim=True) * counted).sum() / counted.sum().clamp_min(1.0)

    @torch.no_grad()
    def predict(self) -> Tensor:
        """One answer to a recorruption of the whole picture, ``(1, C, H, W)``."""
        rows, columns = draw_window(self.noisy.shape[-2:], 0, self.generator)
        return self.answer(self._draw(rows, columns)[0])

    @contextmanager
    def settled(self):
        """Within the block, answers come from the averaged weights and are trusted as
        far as held pixels say."""
        self.averaged.update()  # by the last step
        with self.averaged.used():
            self.trusted = self.trust()
            try:
                yield
            finally:
                self.trusted = 1.0

    @torch.no_grad()
    def trust(self) -> float | Tensor:
        """The share of the network's change that the held pixels bear out, ``(B, 1, 1, 1)`` in [0, 1].

        The s that makes pilot + s change nearest to the targets of pixels that never counted in the loss. The
        noise of these targets is independent of all that the change was made of, so this estimates the best s
        for the clean picture: less than 1 where the network learnt noise by heart.
        """
        if not self.holds:
            return 1.0
        channels = self.noisy.shape[1]
        return self._borne_out(
            (self._mended(seen), seen[:, -channels:], target) for seen, target in self._recorrupted(_CHECKED)
        )

    @property
    def holds(self) -> bool:
        """Whether there are pixels that never count in the loss, and recorruptions to judge them by."""
        return self.seen is not None and bool((self.counted == 0).any())

    @torch.no_grad()
    def share_beside(self, other: Callable[[Tensor, float], Tensor]) -> float | Tensor:
        """The network's share in its mean with another denoiser that held pixels bear out,
        ``(B, 1, 1, 1)`` in [0, 1].

        As :meth:`trust`, with ``other(u, sigma)`` in the pilot's place; to be asked within :meth:`settled`.
        It is the best share for recorruptions, whose noise is a little stronger than the picture's. Raises
        where no pixels were held back.
        """
        if not self.holds:
            raise B2GError("a share is told by pixels that were held back; set hold above 0, and a patch denoiser.")
        channels, level = self.noisy.shape[1], self.level
        draws = min(_CHECKED, max(1, _WEIGHED // self.noisy[0, 0].numel()))
        return self._borne_out(
            (self._trusted(seen), other(seen[:, :channels], level), target)
            for seen, target in self._recorrupted(draws)
        )

    def _recorrupted(self, most: int):
        """Up to ``most`` of the recorruptions with their targets, each as a batch."""
        for index in range(min(len(self.seen), most)):
            yield self._pick(self.seen, index), self._pick(self.targets, index)

    def _mended(self, seen: Tensor) -> Tensor:
        return sum(self.answer(seen) for _ in range(_PASSES)) / _PASSES

    def _trusted(self, seen: Tensor) -> Tensor:
        """The pilot and the trusted share of what the network changes of it."""
        pilot = seen[:, -self.noisy.shape[1] :]
        return pilot + self.trusted * (self._mended(seen) - pilot)

    def _borne_out(self, answers) -> Tensor:
        """The s in [0, 1] for which base + s (answer - base) is nearest to the targets at held pixels.

        ``answers`` yields (answer, base, target), each ``(B, C, H, W)``; the result is ``(B, 1, 1, 1)``.
        """
        held, borne, size = 1 - self.counted, 0.0, 0.0
        for answer, base, target in answers:
            change = (answer - base) * held
            borne = borne + (change * (target - base)).sum((1, 2, 3), keepdim=True)
            size = size + change.square().sum((1, 2, 3), keepdim=True)
        return (borne / size.clamp_min(1e-12)).clamp(0, 1)

    @staticmethod
    def _pick(pictures: Tensor, index: int) -> Tensor:
        """One of the recorruptions ``(draws, C, H, W)``, as a batch."""
        return pictures[index : index + 1]

    @torch.no_grad()
    def see(self) -> Tensor:
        """One answer to the noisy picture itself, nothing added, ``(1, C, H, W)``."""
        if self.pilot is None:
            return self.answer(self.noisy)
        if self.whole is None:
            self.whole = torch.cat((self.noisy, self.pilot(self.noisy, self.sigma)), 1)
        pilot = self.whole[:, -self.noisy.shape[1] :]
        return pilot + self.trusted * (self.answer(self.whole) - pilot)

    @torch.no_grad()
    def look(self, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """A mask that hides nothing and two answers, drawn from ``generator``: the fit never notices."""
        aside = copy(self)
        aside.generator = generator
        return torch.ones_like(self.noisy), aside.predict(), aside.predict()

    def state(self) -> dict:
        return {
            "generator": self.generator.get_state(), "seen": self.seen, "targets": self.targets,
            "counted": self.counted, "averaged": self.averaged.state(),
        }  # fmt: skip

    def load_state(self, state: dict) -> None:
        self.generator.set_state(state["generator"])
        self.averaged.load_state(state["averaged"])
        for name in ("seen", "targets", "counted"):
            setattr(self, name, None if state[name] is None else state[name].to(self.noisy.device))
