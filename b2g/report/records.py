"""Stored results: the runs in data/records/, and the small pictures that belong to them in data/gallery/."""

from functools import cache

import numpy as np
from PIL import Image

from b2g import datasets
from b2g.errors import B2GError
from b2g.files import carried
from b2g.noise import add_noise
from b2g.runs.spec import noise_name
from b2g.runs.store import read_folder
from b2g.runs.work import clean_name, noisy_name


def _stored(*parts):
    """A stored file: in the wheel under b2g/_data, in a working copy under data/ beside the package."""
    path = carried(*parts)
    if not path.is_file():
        raise B2GError(f"There is no stored file data/{'/'.join(parts)}; make it with the command its page names.")
    return path


@cache
def _run_tables():
    path = _stored("records", "runs.csv")
    return read_folder(path.parent)


def runs():
    """Every stored run, done or failed, as :class:`b2g.runs.record.Record`, sorted by id."""
    return list(_run_tables()[0])


def histories():
    """id -> entries along the fit (``step``, ``seconds``, ``loss``, ``psnr`` and what was watched)."""
    return dict(_run_tables()[1])


def clean(record):
    """The clean picture of a record's kept part, from the gallery, in [0, 1]."""
    return picture(clean_name(record))


def noisy(record):
    """The noisy picture of a record's kept part, in [0, 1] where it was kept,
    else drawn again and not clipped.

    It was kept for real noise and where a part was cut out, since the noise is that of the whole.
    """
    height, width = datasets.size(record.picture)
    if record.noise == "real" or record.kept != f"0,0,{width},{height}":
        return picture(noisy_name(record))
    name = noise_name(record.picture, record.noise, record.level, record.repeat)
    drawn = add_noise(clean(record).astype(np.float32), record.noise, record.level, seed=name)
    return drawn.clip(0, 1) if record.protocol == "clipped" else drawn


def picture(name):
    """A picture of data/gallery as an array (H, W) or (H, W, 3) in [0, 1]; `name` without its suffix."""
    with _stored("gallery", f"{name}.png").open("rb") as file:
        return np.asarray(Image.open(file)) / 255.0
