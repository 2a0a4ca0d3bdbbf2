"""Named seeds: the random numbers of a run follow from its name, never from the order of the runs.

`seed_for("set9", "F16", "gaussian", 25, 0)` is the same on every machine and in every year. Adding a
picture to a data set, or changing the order of a sweep, therefore never changes another picture's noise.
"""

import hashlib
import json
import numbers

import numpy as np
import torch

from b2g.errors import B2GError


def _canonical(name):
    """One spelling per value: 25, 25.0 and numpy.float32(25) name the same seed."""
    if isinstance(name, np.generic):
        name = name.item()
    if isinstance(name, str) or name is None or isinstance(name, bool):
        return name
    if isinstance(name, numbers.Integral):
        return int(name)
    if isinstance(name, numbers.Real) and np.isfinite(name):
        return int(name) if float(name).is_integer() else float(name)
    if isinstance(name, tuple | list):
        return [_canonical(part) for part in name]
    raise B2GError(f"a seed cannot be named by {name!r}; use strings, finite numbers or tuples of them")


def seed_for(*names) -> int:
    """The seed that belongs to these names: an integer in [0, 2**63).

    The first 63 bits of the SHA-256 of the names written as canonical JSON.

    Parameters
    ----------
    *names : strings, finite numbers, None, or tuples of them
        For a sweep: data set, image, kind of noise, level, repeat.
    """
    text = json.dumps(_canonical(names), ensure_ascii=True, separators=(",", ":"))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def _checked(seed) -> int:
    if isinstance(seed, bool) or not isinstance(seed, numbers.Integral) or not 0 <= seed < 2**63:
        raise B2GError(f"seed {seed!r} is not a whole number from 0 to 2**63 - 1; use such a number, or "
                       "b2g.seeds.seed_for(...) to make one from names")
    return int(seed)


def torch_generator(seed, device="cpu") -> torch.Generator:
    """A fresh `torch.Generator` on `device`, seeded with `seed` in [0, 2**63).

    PyTorch's CPU generator reads only the low 32 bits of its seed (its CUDA generator reads all), and the
    two devices draw different numbers. Data that must be the same everywhere come from `numpy_random`.
    """
    return torch.Generator(device=device).manual_seed(_checked(seed))


def numpy_random(seed) -> np.random.RandomState:
    """A fresh `numpy.random.RandomState` for `seed` in [0, 2**63).

    RandomState, because NumPy promises never to change its stream; `numpy.random.Generator` makes no such
    promise, and noise that changed with a NumPy release would change every table. Below 2**32 the stream is
    that of `numpy.random.RandomState(seed)`, so other people's `np.random.seed(0)` can be repeated.
    """
    seed = _checked(seed)
    return np.random.RandomState(seed if seed < 2**32 else [seed & 0xFFFFFFFF, seed >> 32])
