"""Large pictures in bounded memory: any method on overlapping tiles, whose answers are blended (``tile=``).

Peak memory then depends on the tile, no longer on the picture; what every tile shares with the whole, and a
single fit would have learnt from all of it, is lost. So a tiled answer is another answer: tile and overlap
belong to what a result says of itself (:meth:`Tiled.identity`), though to no method's settings.
"""

from __future__ import annotations

import json
import math
import numbers
from dataclasses import dataclass, fields, replace
from pathlib import Path

import torch
from torch import Tensor
from tqdm.auto import tqdm

from b2g.anscombe import estimate_photons
from b2g.errors import B2GError, Diverged
from b2g.files import replacing
from b2g.method import Circumstances, Denoised, Method, canonical_json
from b2g.noise import level_by
from b2g.seeds import seed_for

LEAST = 32  # pixels on a tile's side
OVERLAP = 32


@dataclass(frozen=True)
class Tiled(Method):
    """``method`` on square tiles of side ``tile``, neighbours sharing at least ``overlap`` pixels.

    All tiles of a picture have one size, so their overlaps may be wider than asked for. A picture that fits
    into one tile is denoised as without tiles, to the same bytes. Otherwise every tile is denoised on its
    own, with a seed from its place; a method that takes the noise level and was not told it (``sigma``, or
    ``photons`` of Poisson noise) gets that of the whole picture. Each entry of the history says its ``tile``,
    counted by rows from 0.
    """

    method: Method
    tile: int
    overlap: int = OVERLAP

    def __post_init__(self):
        for name, value in (("tile", self.tile), ("overlap", self.overlap)):
            if isinstance(value, bool) or not isinstance(value, numbers.Integral):
                raise B2GError(f"{name} must be a whole number of pixels, not {value!r}.")
            object.__setattr__(self, name, int(value))
        if self.tile < LEAST:
            raise B2GError(f"tile must be at least {LEAST} pixels, not {self.tile}.")
        if not 0 <= self.overlap <= self.tile // 2:
            raise B2GError(f"overlap must be from 0 to half the tile, which is {self.tile // 2}, not {self.overlap}.")

    @property
    def name(self) -> str:
        return self.method.name

    def changed(self, **changes) -> "Tiled":
        """A copy with some of the method's own settings replaced."""
        return replace(self, method=self.method.changed(**changes))

    def config(self) -> dict:
        return self.method.config() | {"tile": self.tile, "overlap": self.overlap}

    def identity(self) -> str:
        return canonical_json(json.loads(self.method.identity()) | {"tile": self.tile, "overlap": self.overlap})

    def __call__(self, noisy: Tensor, circumstances: Circumstances = Circumstances()) -> Denoised:
        """Denoise ``noisy`` ``(1, C, H, W)`` in [0, 1] tile by tile."""
        rows, columns = (windows(length, self.tile, self.overlap) for length in noisy.shape[-2:])
        if len(rows) == len(columns) == 1:
            return self.method(noisy, circumstances)
        if circumstances.watch is not None:
            raise B2GError("watch serves one fit, but each tile is a fit of its own; leave out tile.")
        method = told(self.method, noisy)
        places = [(row, column) for row in rows for column in columns]
        work = _Work(noisy, circumstances.checkpoint, circumstances.identity(self, noisy))
        shown = dict(desc=f"{self.name} tiles", disable=None if circumstances.progress else True, leave=False)
        for row, column in tqdm(places[work.done :], total=len(places), initial=work.done, **shown):
            work.add(method(*_tile(noisy, row, column, circumstances)), row, column)
        work.close()
        return Denoised(work.blended, work.history)


def tiled(method: Method, tile: int | None, overlap: int = OVERLAP) -> Method:
    """``method`` itself (``tile=None``), or on tiles."""
    return method if tile is None else Tiled(method, tile, overlap)


def windows(length: int, tile: int, overlap: int) -> list[tuple[int, Tensor]]:
    """The windows along one side: where each begins, and its weights ``(size,)``,
    which sum to 1 at every pixel.

    They are evenly spaced from border to border. Toward a neighbour the weights fall like a squared cosine.
    """
    if length <= tile:
        return [(0, torch.ones(length))]
    count = math.ceil((length - overlap) / (tile - overlap))
    starts = [round(k * (length - tile) / (count - 1)) for k in range(count)]
    ramp = torch.sin(torch.pi / 2 * (torch.arange(overlap, dtype=torch.float64) + 0.5) / max(1, overlap)) ** 2
    weights = torch.ones(count, tile, dtype=torch.float64)
    weights[1:, :overlap] *= ramp
    weights[:-1, tile - overlap :] *= ramp.flip(0)
    total = torch.zeros(length, dtype=torch.float64)
    for start, weight in zip(starts, weights):
        total[start : start + tile] += weight
    return [(start, (weight / total[start : start + tile]).float()) for start, weight in zip(starts, weights)]


def told(method: Method, noisy: Tensor) -> Method:
    """``method`` with the noise level of the whole picture,
    where it has a setting for it that is not given."""
    unknown = {f.name for f in fields(method) if getattr(method, f.name) is None}
    noise = getattr(method, "noise", "gaussian")
    if noise == "poisson":
        return method.changed(photons=estimate_photons(noisy)) if "photons" in unknown else method
    sigma = level_by(noise, noisy) if "sigma" in unknown else 0.0
    return method.changed(sigma=sigma) if sigma > 0 else method


def _tile(noisy: Tensor, row, column, circumstances: Circumstances) -> tuple[Tensor, Circumstances]:
    """A tile of the picture, and the circumstances that belong to it."""
    (top, down), (left, across) = row, column
    part = (..., slice(top, top + len(down)), slice(left, left + len(across)))
    clean, checkpoint = circumstances.clean, circumstances.checkpoint
    return noisy[part].contiguous(), replace(
        circumstances,
        seed=seed_for(circumstances.seed, "tile", top, left),
        clean=None if clean is None else clean[part],
        checkpoint=None if checkpoint is None else checkpoint.with_name(f"{checkpoint.name}.tile"),
    )


class _Work:
    """The blend of the tiles so far; with a ``checkpoint``, a killed run goes on after the last whole tile.

    The tile in work has a checkpoint of its own beside it, its name ending in ``.tile``.
    """

    def __init__(self, noisy: Tensor, checkpoint: Path | None, identity: str):
        self.blended, self.history, self.done = torch.zeros_like(noisy), [], 0
        self.checkpoint, self.identity = checkpoint, identity
        if checkpoint is not None and not checkpoint.parent.is_dir():
            raise B2GError(f"checkpoint {checkpoint} cannot be written: its folder does not exist; create it first.")
        if checkpoint is not None and checkpoint.exists():
            self._resume()

    def _resume(self) -> None:
        try:
            content = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
            found = content["identity"]
        except Exception as error:
            raise B2GError(
                f"{self.checkpoint} is not a checkpoint of tiles; remove it or name another file."
            ) from error
        if found != self.identity:
            raise B2GError(f"{self.checkpoint} belongs to another run (other picture, method, tiles or seed); "
                           "name another file.")  # fmt: skip
        self.blended.copy_(content["blended"])
        self.history, self.done = content["history"], content["done"]

    def add(self, answer: Denoised, row, column) -> None:
        """Blend in the answer to the tile of ``row`` and ``column``; refused if it is not finite."""
        (top, down), (left, across) = row, column
        estimate = answer.estimate.to(self.blended)
        if not torch.isfinite(estimate).all():
            raise Diverged(f"the tile {left} to the right and {top} down diverged; lower learning_rate or use float32.")
        weight = down[:, None].to(estimate) * across.to(estimate)
        self.blended[..., top : top + len(down), left : left + len(across)] += weight * estimate
        self.history += [{"tile": self.done, **entry} for entry in answer.history]
        self.done += 1
        if self.checkpoint is not None:
            with replacing(self.checkpoint) as file:
                names = ("identity", "blended", "history", "done")
                torch.save({name: getattr(self, name) for name in names}, file)

    def close(self) -> None:
        if self.checkpoint is not None:
            self.checkpoint.unlink(missing_ok=True)
