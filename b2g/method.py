"""What every denoising method is: a frozen dataclass of its settings, called on a noisy picture.

A method class carries, beside its fields, the class attributes ``name``, ``label`` (what it is allowed to
use), ``revision`` (raised whenever its output changes), ``source``, ``cost`` and ``profiles`` (named
settings). Its settings as canonical JSON, with name and revision, are the identity of a run.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Callable, ClassVar

import numpy as np
import torch
from torch import Tensor

from b2g.errors import B2GError


def added_later(default):
    """A field that joined a method after runs of it were recorded,
    with the value that leaves those runs as they were.

    At this value it stays out of :meth:`Method.identity`, so the old runs are still the same runs.
    """
    return field(default=default, metadata={"added_later": True})


@dataclass(frozen=True)
class Circumstances:
    """What a run is carried out with; none of it belongs to the method's identity.

    ``clean`` ``(1, C, H, W)`` is only ever shown (PSNR in the progress bar and the history), never used.
    ``checkpoint`` names a file that a killed fit goes on from. ``log_every`` thins the history (None: a
    hundred entries). ``watch`` looks on at every entry of the history, to which its numbers are added; it is
    given the fit's objective and the number of steps done, and must leave no trace in the run
    (:mod:`b2g.runs.watch`). ``engine`` is how a fit takes its steps: ``"auto"``, ``"eager"`` or ``"graph"``
    (:mod:`b2g.capture`).
    """

    device: torch.device = torch.device("cpu")
    seed: int = 0
    progress: bool = False
    precision: str = "auto"
    clean: Tensor | None = None
    checkpoint: Path | None = None
    watch: Callable[[object, int], dict[str, float]] | None = None
    log_every: int | None = None
    engine: str = "auto"

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
    """Base of all methods: profiles and identity. Concrete classes add fields,
    their checks and ``__call__``."""

    name: ClassVar[str]
    label: ClassVar[str] = "one image"
    revision: ClassVar[int] = 1
    source: ClassVar[str]
    cost: ClassVar[str]
    default_profile: ClassVar[str]
    profiles: ClassVar[dict[str, dict]]

    def __post_init__(self):
        """Bring every setting to its default's type, or refuse it; subclasses then check the values."""
        for f in fields(self):
            value = _like(f.default, getattr(self, f.name), f"{self.name}'s setting {f.name}")
            object.__setattr__(self, f.name, value)

    @classmethod
    def profile(cls, name: str | None = None, **changes) -> "Method":
        """The settings called ``name`` (the class's default profile if None),
        with ``changes`` to single fields."""
        name = name or cls.default_profile
        if name not in cls.profiles:
            raise B2GError(f"{cls.name} has no profile {name!r}: choose one of {', '.join(cls.profiles)}.")
        return cls(**cls.profiles[name]).changed(**changes)

    def changed(self, **changes) -> "Method":
        """A copy with some fields replaced; unknown names and impossible values are refused."""
        known = [f.name for f in fields(self)]
        for key in changes:
            if key not in known:
                raise B2GError(f"{self.name} has no setting {key!r}: its settings are {', '.join(known) or 'none'}.")
        return replace(self, **changes)

    def config(self) -> dict:
        """Every setting by its name, as a result tells it."""
        return asdict(self)

    def identity(self) -> str:
        """Canonical JSON of name, revision and settings: equal exactly when two runs are meant to be.

        A setting that was added later is left out while it has its default (:func:`added_later`).
        """
        silent = {f.name for f in fields(self) if "added_later" in f.metadata and getattr(self, f.name) == f.default}
        settings = {name: value for name, value in asdict(self).items() if name not in silent}
        return canonical_json({"method": self.name, "revision": self.revision, **settings})

    def __call__(self, noisy: Tensor, circumstances: Circumstances = Circumstances()) -> Denoised:
        raise NotImplementedError


def _like(default, value, what: str):
    """``value`` as the type of ``default`` (None: a number or nothing);
    a whole number may stand for a fraction."""
    value = value.item() if isinstance(value, np.generic) else value
    if default is None:
        return None if value is None else _like(1.0, value, what)
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if isinstance(default, tuple) and isinstance(value, (list, tuple)) and len(default) == len(value):
        return tuple(_like(d, v, what) for d, v in zip(default, value))
    if type(default) is not type(value):
        raise B2GError(f"{what} is of type {type(default).__name__} (such as {default!r}); {value!r} is not.")
    if isinstance(value, float) and not math.isfinite(value):
        raise B2GError(f"{what} must be a finite number, not {value}.")
    return value


def check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise B2GError(f"{name} must be one of {', '.join(allowed)}, not {value!r}.")


def check_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise B2GError(f"{name} must be at least {least}, not {value}.")


def canonical_json(value) -> str:
    """JSON with sorted keys, no spaces, ASCII only: one text for one value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
