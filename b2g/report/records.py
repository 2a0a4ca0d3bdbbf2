"""Stored results: tables in data/records/, and the small pictures that belong to them in data/gallery/."""

import csv
import json
from importlib import resources
from pathlib import Path

import numpy as np
from PIL import Image

from b2g.errors import B2GError


def _stored(*parts):
    """A stored file: in the wheel under b2g/_data, in a working copy under data/ beside the package."""
    packaged = resources.files("b2g").joinpath("_data", *parts)
    path = packaged if packaged.is_file() else Path(__file__).parents[2].joinpath("data", *parts)
    if not path.is_file():
        raise B2GError(f"There is no stored file data/{'/'.join(parts)}; make it with the command its page names.")
    return path


def records(table):
    """The rows of data/records/`table`.csv as dicts, numbers as floats and the settings as a dict."""
    with _stored("records", f"{table}.csv").open(newline="", encoding="utf-8") as file:
        return [{key: _value(text) for key, text in row.items()} for row in csv.DictReader(file)]


def _value(text):
    if text.startswith("{"):
        return json.loads(text)
    try:
        return float(text)
    except ValueError:
        return text


def picture(name):
    """A picture of data/gallery as an array (H, W) or (H, W, 3) in [0, 1]; `name` without its suffix."""
    with _stored("gallery", f"{name}.png").open("rb") as file:
        return np.asarray(Image.open(file)) / 255.0


def specification(name):
    """What a gallery picture was made by: the specification stored in its metadata."""
    with _stored("gallery", f"{name}.png").open("rb") as file:
        return json.loads(Image.open(file).text["b2g"])
