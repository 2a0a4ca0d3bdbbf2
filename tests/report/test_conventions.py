"""Means are over pictures, after repeats; the convention is named only when every picture is there."""

from dataclasses import dataclass

import pytest

from b2g import datasets
from b2g.report.conventions import conventions
from b2g.report.printed import printed

PICTURES = datasets.names("set9")


@dataclass
class Fake:
    """What `conventions` asks of a record."""

    picture: str
    ssim_2d: float = 0.84
    ssim_matlab_volume: float = 0.95
    psnr: float = 31.7
    level: float = 25.0
    noise: str = "gaussian"
    protocol: str = "unclipped"
    method: str = "bm3d"
    label: str = "bm3d"
    crop: int | None = None
    done: bool = True

    @property
    def dataset(self):
        return self.picture.partition("/")[0]


CELLS = printed(dataset="set9", level=25)


def test_the_nearest_convention_is_named_once_all_pictures_are_there():
    [row] = conventions(CELLS, [Fake(name) for name in PICTURES])
    assert (row.pictures, row.of, row.nearest) == (9, 9, "volume")
    assert row.cell.method == "BM3D" and row.ssim_2d == pytest.approx(0.84)
    [row] = conventions(CELLS, [Fake(name, ssim_2d=0.955, ssim_matlab_volume=0.99) for name in PICTURES])
    assert row.nearest == "2-D"
    [row] = conventions(CELLS, [Fake(name) for name in PICTURES[:8]])
    assert (row.pictures, row.nearest) == (8, None)


def test_repeats_do_not_outweigh_pictures():
    records = [Fake(PICTURES[0], ssim_2d=0.6)] * 5 + [Fake(PICTURES[1], ssim_2d=0.8)]
    [row] = conventions(CELLS, records)
    assert row.ssim_2d == pytest.approx(0.7) and row.pictures == 2


@pytest.mark.parametrize("change", [
    dict(crop=128), dict(done=False), dict(protocol="clipped"), dict(level=15.0), dict(method="nothing"),
    dict(noise="poisson"), dict(ssim_2d=None),
])
def test_what_the_paper_does_not_print_is_left_out(change):
    assert conventions(CELLS, [Fake(name, **change) for name in PICTURES]) == []


def test_methods_and_their_settings_stay_apart():
    records = [Fake(PICTURES[0], label="bm3d"), Fake(PICTURES[0], label="bm3d+sigma=estimated"),
               Fake(PICTURES[0], method="zs_n2n", label="zs_n2n")]
    assert [(row.cell.method, row.label) for row in conventions(CELLS, records)] == [
        ("BM3D", "bm3d"), ("BM3D", "bm3d+sigma=estimated"), ("ZS-N2N", "zs_n2n")]
