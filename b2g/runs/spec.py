"""What a run is: the specification that its outcome follows from, and whose hash is its identity."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

import numpy as np

from b2g import datasets
from b2g.errors import B2GError
from b2g.method import Method, canonical_json, check_choice
from b2g.methods import METHODS
from b2g.noise import KINDS, add_noise

NOISES = (*KINDS, "real")
PROTOCOLS = ("unclipped", "clipped", "as given")
WATCHES = ("", "psnr", "training")


@dataclass(frozen=True)
class Run:
    """One picture, one draw of noise, one configured method.

    ``picture`` is a name of :mod:`b2g.datasets`, with its crop; ``digest`` belongs to its file. ``noise`` and
    ``level`` as in :func:`b2g.noise.add_noise` (``"real"``: the data set's own noisy picture, level 0).
    ``repeat`` counts the draws of noise and of weights. ``protocol`` says whether the noisy picture is
    clipped to [0, 1] before it is denoised. ``method`` is the canonical JSON of name, revision and every
    setting. ``watch`` says what is measured along the fit: nothing, the PSNR, or all of
    :mod:`b2g.runs.watch`.

    Device, precision, commit and time are circumstances: recorded, but not part of a run.
    """

    picture: str
    digest: str
    noise: str
    level: float
    repeat: int
    method: str
    protocol: str = "unclipped"
    watch: str = ""

    @property
    def id(self) -> str:
        """The first 16 hexadecimal digits of the SHA-256 of this specification as canonical JSON."""
        spec = asdict(self) | {"method": json.loads(self.method)}
        return hashlib.sha256(canonical_json(spec).encode()).hexdigest()[:16]

    def configured(self) -> Method:
        """The method that this run asks for; refused if this package has it no longer,
        or in another revision."""
        settings = json.loads(self.method)
        name, revision = settings.pop("method"), settings.pop("revision")
        settings.pop("members", None)  # what a method is made of follows from its own settings
        method = METHODS.get(name)
        if method is None or method.revision != revision:
            have = "not here" if method is None else f"at revision {method.revision}"
            raise B2GError(
                f"run {self.id} needs {name} at revision {revision}, which is {have}; install the b2g of then."
            )
        configured = method().changed(**settings)
        if configured.identity() != self.method:
            raise B2GError(f"run {self.id} needs {name} with members of other settings; install the b2g of then.")
        return configured

    def clean(self) -> np.ndarray:
        """The clean picture, or the reference of a pair, float32 ``(H, W)`` or ``(H, W, 3)`` in [0, 1]."""
        return datasets.load(self.picture)

    def noisy(self, clean: np.ndarray) -> np.ndarray:
        """The noisy picture: drawn by the hash of picture, noise, level and repeat, or the data set's own."""
        if self.noise == "real":
            return datasets.load_noisy(self.picture)
        seed = noise_name(self.picture, self.noise, self.level, self.repeat)
        noisy = add_noise(clean, self.noise, self.level, seed=seed)
        return noisy.clip(0, 1) if self.protocol == "clipped" else noisy


def noise_name(picture: str, noise: str, level: float, repeat: int) -> tuple:
    """What a draw of noise is called; its seed is the hash of this (:func:`b2g.seeds.seed_for`)."""
    return (*picture.split("/"), noise, level, repeat)


def specify(
    picture: str,
    method: Method,
    noise: str = "gaussian",
    level: float = 25.0,
    repeat: int = 0,
    protocol: str = "unclipped",
    watch: str = "",
) -> Run:
    """The run of ``method`` on a picture, checked; nothing is loaded."""
    check_choice("noise", noise, NOISES)
    check_choice("protocol", protocol, PROTOCOLS)
    check_choice("watch", watch, WATCHES)
    if (noise == "real") != (protocol == "as given"):
        raise B2GError("real noise comes with protocol 'as given', and only real noise does.")
    if noise != "real" and not level > 0:
        raise B2GError(f"the level of {noise} noise must be positive, not {level}.")
    if repeat < 0:
        raise B2GError(f"repeat counts draws from 0, so it cannot be {repeat}.")
    return Run(picture, datasets.digest(picture)[:16], noise, float(level), repeat, method.identity(), protocol, watch)
