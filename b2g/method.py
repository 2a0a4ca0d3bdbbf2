"""What every denoising method is: a frozen dataclass of its settings, called on a noisy picture.

A method class carries, beside its fields, the class attributes ``name``, ``label`` (what it is allowed to use),
``revision`` (raised whenever its output changes), ``source``, ``cost`` and ``profiles`` (named settings). Its settings
as canonical JSON, with name and revision, are the identity of a run.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from b2g.errors import B2GError


@dataclass(frozen=True)
class Circumstances:
    """What a run is carried out with; none of it belongs to the method's identity.

    ``clean`` ``(1, C, H, W)`` is only ever shown (PSNR in the progress bar and the history), never used.
    ``checkpoint`` names a file that a killed fit goes on from.
    """

    device: torch.device = torch.device("cpu")
    seed: int = 0
    progress: bool = False
    precision: str = "auto"
    clean: Tensor | None = None
    checkpoint: Path | None = None

    def identity(self, method: "Method", noisy: Tensor) -> str:
        """What a checkpoint belongs to: the method's identity, the seed and the picture's digest."""
        digest = hashlib.sha256(noisy.detach().float().cpu().contiguous().numpy().tobytes()).hexdigest()
        return canonical_json({"method": method.identity(), "seed": self.seed, "noisy": digest})


@dataclass(frozen=True)
class Denoised:
    """A method's answer: ``estimate`` ``(1, C, H, W)`` and its ``history``, one dict a logged step."""

    estimate: Tensor
    history: list[dict] = field(default_factory=list)


@dataclass(frozen=True)
class Method:
    """Base of all methods: profiles and identity. Concrete classes add fields and ``__call__``."""

    name: ClassVar[str]
    label: ClassVar[str] = "one image"
    revision: ClassVar[int] = 1
    source: ClassVar[str]
    cost: ClassVar[str]
    default_profile: ClassVar[str]
    profiles: ClassVar[dict[str, dict]]

    @classmethod
    def profile(cls, name: str | None = None, **changes) -> "Method":
        """The settings called ``name`` (the class's default profile if None), with ``changes`` to single fields."""
        name = name or cls.default_profile
        if name not in cls.profiles:
            raise B2GError(f"{cls.name} has no profile {name!r}: choose one of {', '.join(cls.profiles)}.")
        return cls(**cls.profiles[name]).changed(**changes)

    def changed(self, **changes) -> "Method":
        """A copy with some fields replaced; unknown names and values of another type are refused."""
        known = {f.name: getattr(self, f.name) for f in fields(self)}
        for key, value in changes.items():
            if key not in known:
                raise B2GError(f"{self.name} has no setting {key!r}: its settings are {', '.join(known) or 'none'}.")
            changes[key] = _like(known[key], value, f"{self.name}'s setting {key}")
        return replace(self, **changes)

    def identity(self) -> str:
        """Canonical JSON of name, revision and every setting: equal exactly when two runs are meant to be."""
        return canonical_json({"method": self.name, "revision": self.revision, **asdict(self)})

    def __call__(self, noisy: Tensor, circumstances: Circumstances = Circumstances()) -> Denoised:
        raise NotImplementedError


def _like(old, new, what: str):
    """``new`` as the type of ``old``; a whole number is welcome where a fraction is expected."""
    if isinstance(old, float) and isinstance(new, int) and not isinstance(new, bool):
        return float(new)
    if isinstance(old, tuple) and isinstance(new, (list, tuple)) and len(old) == len(new):
        return tuple(_like(o, n, what) for o, n in zip(old, new))
    if old is not None and new is not None and type(old) is not type(new):
        raise B2GError(f"{what} is of type {type(old).__name__} (now {old!r}); {new!r} is not.")
    return new


def canonical_json(value) -> str:
    """JSON with sorted keys, no spaces, ASCII only: one text for one value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
