"""Fit a method's network to many pictures: one command, resumed after a kill,
a weights file and its record at the end.

The pictures are the 400 of BSDS500 that are in no test set. Their noise is frozen: drawn once per picture
from its name, as a camera would have left it. ``noise="fresh"`` draws it anew for every crop instead, as the
published code of several methods does: then the same clean crop is seen under many noises, which holds
information that noisy pictures alone do not (github.com/TaoHuang2018/Neighbor2Neighbor, issue 16), and such
weights must be said to have had it.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

import b2g
from b2g import datasets
from b2g.crops import Again, CropObjective, Crops
from b2g.errors import B2GError
from b2g.files import replacing
from b2g.fit import Fit, Schedule, build, fit
from b2g.method import canonical_json, check_choice, check_least
from b2g.noise import add_noise
from b2g.released import write_weights
from b2g.seeds import numpy_random, seed_for, torch_generator

NOISES = ("frozen", "fresh")


@dataclass(frozen=True)
class Recipe:
    """What a network is trained on, how long and how fast;
    every value is part of the released weights' header.

    ``sigma``, on 0..255, is the level of white Gaussian noise, unclipped; with ``sigma_to`` above 0 every
    picture (``noise="frozen"``) or crop (``"fresh"``) has its own, even between the two. ``pictures`` is a
    data set of colour pictures; one channel means their luminance, weights 0.2989, 0.5870, 0.1140.
    """

    name: str
    steps: int
    learning_rate: float
    decay: str = "constant"
    decay_from: float = 0.0
    halvings: int = 1
    batch: int = 4
    side: int = 64
    sigma: float = 25.0
    sigma_to: float = 0.0
    noise: str = "frozen"
    pictures: str = "bsds500_train"
    channels: int = 3

    def __post_init__(self):
        check_choice("noise", self.noise, NOISES)
        check_least("batch", self.batch, 1)
        check_least("side", self.side, 16)
        if self.channels not in (1, 3):
            raise B2GError(f"channels must be 1 (gray) or 3 (colour), not {self.channels}.")
        level = 0 < self.sigma < 1000 and self.sigma_to == 0
        if not level and not 0 <= self.sigma < self.sigma_to < 1000:
            raise B2GError("sigma must be a positive noise level on 0..255, and sigma_to 0 or a higher level, not "
                           f"{self.sigma} and {self.sigma_to}.")
        self.schedule()

    def schedule(self) -> Schedule:
        """How long and how fast the fit goes."""
        return Schedule(self.steps, self.learning_rate, self.decay, self.decay_from, self.halvings)


@dataclass(frozen=True)
class Training:
    """What :func:`train` leaves: the file and its SHA-256, the history,
    and the seconds that the steps took."""

    path: Path
    sha256: str
    history: list[dict]
    seconds: float


def training_names(recipe: Recipe, limit: int | None = None) -> list[str]:
    """The names of the training pictures, the first ``limit`` of them."""
    if limit is not None:
        check_least("limit", limit, 1)
    return datasets.names(recipe.pictures)[:limit]


def load_bytes(name: str, channels: int) -> Tensor:
    """The picture as bytes ``(1, channels, H, W)``; colour, or its rounded luminance."""
    picture = torch.from_numpy(datasets.load(name)).movedim(-1, 0)[None]
    if channels == 1:
        picture = (picture * torch.tensor([0.2989, 0.5870, 0.1140])[:, None, None]).sum(1, keepdim=True)
    return (picture * 255).round().to(torch.uint8)


def freeze(name: str, clean: Tensor, recipe: Recipe, repeat: int = 0) -> Tensor:
    """The noisy picture that belongs to this ``name``: the same in every training, on every machine."""
    level = recipe.sigma
    if recipe.sigma_to:
        drawn = numpy_random(seed_for("training", name, "level")).random_sample()
        level += drawn * (recipe.sigma_to - recipe.sigma)
    return add_noise(clean, "gaussian", level, seed=("training", name, "gaussian", level, repeat))


def fresh_noise(recipe: Recipe) -> Again:
    """``again`` of :class:`b2g.crops.Crops` by this recipe."""

    def again(clean: Tensor, generator: torch.Generator) -> Tensor:
        how = {"generator": generator, "device": clean.device}
        spread = torch.rand((len(clean), 1, 1, 1), **how) * max(recipe.sigma_to - recipe.sigma, 0.0)
        return clean + (recipe.sigma + spread) / 255 * torch.randn(clean.shape, **how)

    return again


def training_crops(method, recipe: Recipe, names: list[str], device: torch.device, generator) -> Crops:
    """The pictures in memory, with as much noise as ``method`` and ``recipe`` ask for."""
    clean, noisy, other = [], [], []
    for name in names:
        picture = load_bytes(name, recipe.channels)
        clean.append(picture.to(device))
        if recipe.noise == "frozen":
            noisy.append(freeze(name, picture, recipe).to(device))
        if recipe.noise == "frozen" and method.pairs:
            other.append(freeze(name, picture, recipe, 1).to(device))
    if recipe.noise == "fresh":
        again = fresh_noise(recipe)
        return Crops(None, recipe.side, recipe.batch, generator, clean=clean, again=again, pairs=method.pairs)
    shown = clean if method.supervised else None
    return Crops(noisy, recipe.side, recipe.batch, generator, clean=shown, other=other or None)


def objective_of(
    method, recipe: Recipe, crops: Crops, device: torch.device, seed: int, precision: str
) -> CropObjective:
    """The network of ``method`` and its training loss on ``crops``, ready to be fitted."""
    network = build(lambda: method.network(recipe.channels), seed_for("weights", seed), device)
    generator = torch_generator(seed_for("loss", seed), device)
    loss_of = lambda run, drawn, share: method.training_loss(run, drawn, share, generator)  # noqa: E731
    return CropObjective(
        network, crops, loss_of, generator, precision, steps=recipe.steps, capturable=method.capturable
    )


def train(
    method,
    recipe: Recipe,
    output: Path,
    *,
    device: torch.device = torch.device("cpu"),
    seed: int = 0,
    progress: bool = False,
    checkpoint: Path | None = None,
    limit: int | None = None,
    precision: str = "auto",
    engine: str = "auto",
) -> Training:
    """Train ``method`` (a :class:`b2g.trained.Trained`) by ``recipe``; weights to ``output``,
    its record beside it.

    ``checkpoint`` names a file that a killed training goes on from, to the same weights. ``limit`` takes only
    the first so many pictures, for trials. Raises :class:`B2GError` before the first step for an ``output``
    that cannot be written.
    """
    output = check_output(output)
    names = training_names(recipe, limit)
    generator = torch_generator(seed_for("crops", seed), device)
    crops = training_crops(method, recipe, names, device, generator)
    header = _header(method, recipe, names, seed)
    objective = objective_of(method, recipe, crops, device, seed, precision)
    result = fit(
        objective, recipe.schedule(), progress=progress, label=f"train {method.name}", checkpoint=checkpoint,
        identity=canonical_json(header), engine=engine, forget=False,
    )  # fmt: skip
    header["date"] = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    sha256 = write_weights(output, objective.network.state_dict(), header)
    trained = {"sha256": sha256, "pictures": len(names), "device": _device_name(device), "precision": precision}
    _write_record(output.with_suffix(".json"), header | trained, method, recipe, result)
    if checkpoint is not None:  # not before: what cannot be written now is not lost
        Path(checkpoint).unlink(missing_ok=True)
    return Training(output, sha256, result.history, result.seconds)


def check_output(output: Path) -> Path:
    """``output`` as a path, refused where no weights could be written after all the steps."""
    output = Path(output)
    if output.suffix != ".safetensors":
        raise B2GError(f"weights are written to a .safetensors file, not to {output}.")
    if output.is_dir() or not output.parent.is_dir():
        raise B2GError(f"{output} cannot be written: it is a folder, or its folder does not exist.")
    if not os.access(output.parent, os.W_OK):
        raise B2GError(f"{output} cannot be written: its folder is not yours to write to; name another by -o.")
    return output


def _header(method, recipe: Recipe, names: list[str], seed: int) -> dict[str, str]:
    """What weights come from, as texts; two trainings with equal ones go on from each other's checkpoints."""
    digests = "".join(datasets.digest(name) for name in names)
    return {
        "method": method.name, "settings": method.training_identity(), "recipe": canonical_json(asdict(recipe)),
        "channels": str(recipe.channels), "seed": str(seed), "b2g": b2g.__version__,
        "pictures_sha256": hashlib.sha256(digests.encode()).hexdigest(),
    }  # fmt: skip


def _write_record(path: Path, known: dict, method, recipe: Recipe, result: Fit) -> None:
    """The record of a training: what is ``known`` of it, all settings, and how the fit went."""
    record = known | {
        "settings": method.config(), "recipe": asdict(recipe), "seconds": round(result.seconds, 1),
        "engine": result.engine, "torch": torch.__version__, "history": result.history,
    }  # fmt: skip
    with replacing(path) as file:
        file.write((json.dumps(record, indent=1, sort_keys=True) + "\n").encode())


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU ({platform.machine()})"
