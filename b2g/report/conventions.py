"""Which SSIM the paper printed: its figures beside both conventions, measured on our own answers."""

from collections import defaultdict
from operator import attrgetter
from typing import NamedTuple

import numpy as np

from b2g import datasets
from b2g.report.printed import Printed

NAMES = {"ssim_2d": "2-D", "ssim_matlab_volume": "volume"}


class Convention(NamedTuple):
    """A printed cell beside means over our records of the same method, data and noise.

    ``pictures`` of ``of`` have been run; ``nearest`` is the convention whose mean is closer to the printed
    SSIM, None until all pictures are there.
    """

    cell: Printed
    label: str
    pictures: int
    of: int
    psnr: float
    ssim_2d: float
    ssim_matlab_volume: float
    nearest: str | None


def conventions(cells, records):
    """Our means beside the printed cells, for every method that both have; whole pictures, unclipped noise.

    Parameters
    ----------
    cells : iterable of Printed
    records : iterable of Record
        Repeats of a picture are averaged first, then the pictures.
    """
    groups = defaultdict(list)
    for record in records:
        if record.done and record.crop is None and record.protocol == "unclipped":
            groups[record.dataset, record.noise, f"{record.level:g}", record.method].append(record)
    place = attrgetter("our_dataset", "noise", "level", "our_method")
    return [row for cell in cells for row in _rows(cell, groups.get(place(cell), ()))]


def _rows(cell, records):
    by_label = defaultdict(list)
    for record in records:
        if None not in (record.psnr, record.ssim_2d, record.ssim_matlab_volume):
            by_label[record.label].append(record)
    return [_row(cell, label, group) for label, group in sorted(by_label.items())]


def _row(cell, label, records):
    by_picture = defaultdict(list)
    for record in records:
        by_picture[record.picture].append((record.psnr, record.ssim_2d, record.ssim_matlab_volume))
    means = np.mean([np.mean(scores, axis=0) for scores in by_picture.values()], axis=0)
    total = len(datasets.names(cell.our_dataset))
    nearest = None
    if len(by_picture) == total:
        nearest = min(NAMES.values(), key=dict(zip(NAMES.values(), np.abs(means[1:] - cell.ssim))).get)
    return Convention(cell, label, len(by_picture), total, *map(float, means), nearest)
