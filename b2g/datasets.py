"""Pictures by name: `load("set9/F16")`.

A name is `dataset/picture`; `names()` lists them all and `describe()` the data sets with their terms.
`skimage/...` pictures come inside scikit-image and need no network. The others are fetched once from an
address pinned to a commit and checked against their SHA-256 (see `b2g.fetch`).

`@` cuts out a square: `skimage/astronaut@128` the central 128 x 128 pixels, `skimage/astronaut@128+170+40`
those that begin 170 to the right and 40 down (size+left+top, as in X geometry).
"""

import csv
import difflib
import hashlib
import re
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from b2g import sidd
from b2g.errors import B2GError
from b2g.fetch import fetch_file
from b2g.files import carried
from b2g.images import read, to_batch

_RAW = "https://raw.githubusercontent.com/"
_CROP = re.compile(r"(?P<name>[^@]+)@(?P<size>\d+)(?:\+(?P<left>\d+)\+(?P<top>\d+))?")


@dataclass(frozen=True)
class Dataset:
    """A row of datasets.csv: what the data set is, whose, and under which terms."""

    dataset: str
    title: str
    count: str
    size: str
    terms: str
    citation: str
    source: str

    def __str__(self):
        return f"{self.dataset:14s} {self.count:>3s}  {self.title} ({self.size}); terms: {self.terms}"


@dataclass(frozen=True)
class Listed:
    """A listed file: where it is kept, where it comes from, and under which terms it may be used."""

    name: str
    part: str
    file: str
    sha256: str
    bytes: int
    width: int
    height: int
    address: str
    terms: str
    source: str
    citation: str


def describe() -> list[Dataset]:
    """All data sets, each with title, count, size, terms, citation and source."""
    return list(_datasets().values())


def names(dataset: str | None = None) -> list[str]:
    """The names of all pictures, or of those of one data set, sorted.

    The blocks of "sidd_validation" (`b2g.sidd`) are named only when asked for: not everyone has them.
    """
    if dataset == sidd.DATASET:
        return sidd.names()
    if dataset is not None and dataset not in _datasets():
        raise B2GError(f"data set {dataset!r} is not known; use one of {', '.join(_datasets())}")
    return [name for name in _listed() if dataset in (None, name.partition("/")[0])]


def info(name: str, part: str | None = None) -> Listed:
    """What is known of a picture's file: address, checksum, size, terms, source, citation.

    `part` is "clean" or "noisy"; by default clean where there is one. For hanzi it is the file of the font.
    """
    parts = _find(_split(name)[0])
    if part is not None and part not in parts:
        raise B2GError(f"{name} has no {part} picture, only {' and '.join(parts)}; use load for clean and "
                       "load_noisy for noisy ones")
    return parts[part or min(parts)]  # "clean" sorts before "noisy"


def digest(name: str) -> str:
    """The SHA-256 that stands for a picture, from the manifest alone: of its file (a pair: of both),
    or its pixels."""
    if sidd.is_sidd(name):
        return sidd.digest(_split(name)[0])
    parts = _find(_split(name)[0])
    drawn = _characters().get(_split(name)[0])
    if drawn:
        return drawn["pixels_sha256"]
    sums = [parts[part].sha256 for part in sorted(parts)]
    return sums[0] if len(sums) == 1 else hashlib.sha256("".join(sums).encode()).hexdigest()


def size(name: str) -> tuple[int, int]:
    """Height and width of a picture or of its crop, from the manifest alone."""
    whole, crop = _split(name)
    if sidd.is_sidd(whole):
        return (crop[0], crop[0]) if crop else sidd.load_block(whole).shape[:2]
    listed = info(whole)
    if crop:
        return crop[0], crop[0]
    return (64, 64) if whole in _characters() else (listed.height, listed.width)


def load(name: str) -> np.ndarray:
    """Load a clean picture, or the reference of a real-noise pair.

    Returns
    -------
    float32 array (H, W) or (H, W, 3) in [0, 1].

    Raises
    ------
    B2GError
        When there is no such picture, or its file can be had neither here nor from the network.
    """
    return _load(name, "clean")


def load_noisy(name: str) -> np.ndarray:
    """Load the noisy picture of a pair of polyu, cc, confocal, planaria or sidd_sample, as `load` does."""
    return _load(name, "noisy")


def fetch(name: str) -> list[Path]:
    """Fetch and verify the files of a picture without loading them; their paths."""
    return [_path(listed) for listed in _find(_split(name)[0]).values()]


def _load(name, part):
    if sidd.is_sidd(name):
        picture = to_batch(sidd.load_block(_split(name)[0], part))
        return _crop(picture.arrange(picture.batch), name)
    listed = info(name, part)
    array = _draw(listed) if listed.name.startswith("hanzi/") else _decode(_path(listed))
    picture = to_batch(array)
    return _crop(picture.arrange(picture.batch), name)


def _path(listed) -> Path:
    if listed.address:
        return fetch_file(listed.file, listed.sha256, listed.address)
    path = Path(str(resources.files("skimage") / "data")) / Path(listed.file).name
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != listed.sha256:
        raise B2GError(f"{listed.name} is missing from this scikit-image or is another picture there; "
                       "reinstall scikit-image")
    return path


def _decode(path) -> np.ndarray:
    if path.suffix != ".mat":
        return read(path)
    from scipy.io import loadmat

    return next(value for key, value in loadmat(path).items() if not key.startswith("__"))


def _draw(listed) -> np.ndarray:
    """A character in white on black, by the recipe of Noise2Self: 64 x 64, font size 50, origin (7, -1)."""
    row = _characters()[listed.name]
    font = ImageFont.truetype(str(_path(listed)), 50, layout_engine=ImageFont.Layout.BASIC)
    tile = Image.new("L", (64, 64), 0)
    ImageDraw.Draw(tile).text((7, -1), chr(int(row["codepoint"][2:], 16)), font=font, fill=255)
    array = np.asarray(tile)
    if hashlib.sha256(array.tobytes()).hexdigest() != row["pixels_sha256"]:
        raise B2GError(f"{listed.name} is drawn by this Pillow with other pixels than those listed; install "
                       "another release of Pillow (10.0, 11.3 and 13.0 draw the listed ones)")
    return array


def _split(name):
    """The name without its crop, and the crop (size, left, top) or None."""
    if not isinstance(name, str):
        raise B2GError(f"a picture's name is text such as 'skimage/astronaut', not {name!r}")
    if "@" not in name:
        return name, None
    match = _CROP.fullmatch(name)
    if match is None:
        raise B2GError(f"{name!r} has no crop after its @; write size or size+left+top, e.g. "
                       "skimage/astronaut@128+170+40")
    return match["name"], tuple(None if match[k] is None else int(match[k]) for k in ("size", "left", "top"))


def _crop(picture, name):
    crop = _split(name)[1]
    if crop is None:
        return picture
    (height, width), (size, left, top) = picture.shape[:2], crop
    left, top = ((width - size) // 2, (height - size) // 2) if left is None else (left, top)
    if left < 0 or top < 0 or left + size > width or top + size > height or size < 1:
        raise B2GError(f"{name} reaches beyond the picture, which is {width} wide and {height} high; cut "
                       "less")
    return np.ascontiguousarray(picture[top:top + size, left:left + size])


def _find(name) -> dict[str, Listed]:
    if name not in _listed():
        dataset = name.partition("/")[0]
        if dataset not in _datasets():
            raise B2GError(f"picture {name!r} is not known: a name is data set/picture, and the data sets "
                           f"are {', '.join(_datasets())}")
        near = difflib.get_close_matches(name, names(dataset), 3, 0.5) or names(dataset)[:3]
        raise B2GError(f"picture {name!r} is not known; did you mean {' or '.join(near)}? "
                       f"b2g.datasets.names({dataset!r}) lists all")
    return _listed()[name]


def _rows(table) -> list[dict]:
    """A table that the wheel carries in b2g/_data and a working copy in data/ beside the package."""
    return list(csv.DictReader(carried(table).read_text("utf-8").splitlines()))


@cache
def _datasets() -> dict[str, Dataset]:
    return {row["dataset"]: Dataset(**row) for row in _rows("datasets.csv")}


@cache
def _characters() -> dict[str, dict]:
    return {f"hanzi/{row['name']}": row for row in _rows("hanzi.csv")}


@cache
def _listed() -> dict[str, dict[str, Listed]]:
    """name -> part -> file."""
    found = {}
    for row in _rows("manifest.csv"):
        dataset = _datasets()[row["dataset"]]
        drawn = row["part"] == "font"
        for name in _characters() if drawn else [f"{row['dataset']}/{row['name']}"]:
            part = "clean" if drawn else row["part"]
            found.setdefault(name, {})[part] = Listed(
                name, part, row["file"], row["sha256"], *(int(row[k]) for k in ("bytes", "width", "height")),
                row["github"] and _RAW + row["github"], dataset.terms, dataset.source, dataset.citation)
    return dict(sorted(found.items()))
