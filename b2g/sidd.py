"""SIDD's validation blocks, which everyone fetches on their own: `load("sidd_validation/07-31")`.

The two files ValidationNoisyBlocksSrgb.mat and ValidationGtBlocksSrgb.mat hold 40 scenes of 32 blocks each,
bytes (40, 32, 256, 256, 3). They are found in `folder`, or in the folder that the environment's B2G_SIDD
names. Scenes and blocks are counted from 01. Source: Abdelhamed, Lin and Brown, CVPR 2018, doi
10.1109/CVPR.2018.00182.
"""

import hashlib
import os
import re
from functools import lru_cache
from pathlib import Path

import numpy as np

from b2g.errors import B2GError

DATASET = "sidd_validation"
SCENES, BLOCKS = 40, 32
FILES = {"noisy": "ValidationNoisyBlocksSrgb.mat", "clean": "ValidationGtBlocksSrgb.mat"}
_NAME = re.compile(rf"{DATASET}/(\d\d)-(\d\d)")


def is_sidd(name) -> bool:
    """Whether a picture's name says that it is one of these blocks."""
    return isinstance(name, str) and name.partition("/")[0] == DATASET


def names() -> list[str]:
    """The 1280 names, sorted."""
    scenes, blocks = range(1, SCENES + 1), range(1, BLOCKS + 1)
    return [f"{DATASET}/{scene:02d}-{block:02d}" for scene in scenes for block in blocks]


def load_block(name: str, part: str = "clean", folder=None) -> np.ndarray:
    """One block as bytes (H, W, 3); `part` is "clean" or "noisy".

    Raises
    ------
    B2GError
        For a name or a part that there is not, and for files that are missing, of MATLAB 7.3, broken, or hold
        something else.
    """
    match = _NAME.fullmatch(name)
    if match is None or part not in FILES:
        raise B2GError(f"{part} picture {name!r} is not known; the blocks of SIDD are the clean and noisy "
                       f"{DATASET}/01-01 to {DATASET}/{SCENES}-{BLOCKS}")
    scene, block = (int(number) - 1 for number in match.groups())
    blocks = _blocks(part, _folder(folder))
    if not (0 <= scene < blocks.shape[0] and 0 <= block < blocks.shape[1]):
        raise B2GError(f"picture {name!r} is not known; {FILES[part]} has {blocks.shape[0]} scenes of "
                       f"{blocks.shape[1]} blocks, counted from 01")
    return np.ascontiguousarray(blocks[scene, block])


def digest(name: str, folder=None) -> str:
    """The SHA-256 that stands for a block: of the pixels of its clean and its noisy picture."""
    parts = (load_block(name, part, folder) for part in ("clean", "noisy"))
    return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()


def _folder(folder) -> Path:
    folder = folder if folder is not None else os.environ.get("B2G_SIDD", "")
    if not str(folder):
        raise B2GError(f"SIDD's validation blocks are fetched by hand: set B2G_SIDD to the folder with "
                       f"{FILES['noisy']} and {FILES['clean']}")
    return Path(folder)


def _blocks(part: str, folder: Path) -> np.ndarray:
    """All blocks of a file, (scenes, blocks, H, W, 3)."""
    path = folder / FILES[part]
    try:
        state = path.stat()
    except OSError:
        raise B2GError(f"{path} is missing; get it from SIDD's page and set B2G_SIDD to its folder") from None
    return _read(path, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=2)
def _read(path: Path, changed: int, size: int) -> np.ndarray:
    """The array in the file at `path`; kept, for a sweep asks for one block after another."""
    from scipy.io import loadmat

    try:
        content = loadmat(path)
    except NotImplementedError:
        raise B2GError(f"{path} is a file of MATLAB 7.3, which SciPy does not read; save it again with "
                       "-v7") from None
    except Exception as error:
        raise B2GError(f"{path} is not a whole MATLAB file; get it again from SIDD's page") from error
    blocks = content.get(path.stem)
    of_bytes = isinstance(blocks, np.ndarray) and blocks.dtype == np.uint8
    if not of_bytes or blocks.ndim != 5 or blocks.shape[-1] != 3:
        raise B2GError(f"{path} has no array {path.stem} of bytes (scenes, blocks, height, width, 3); get "
                       "SIDD's own file")
    blocks.setflags(write=False)
    return blocks
