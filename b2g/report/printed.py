"""What the paper prints: Tables 2 to 5 of Blind2Grad cell by cell, and the settings that Section 5 states.

Source: AIMS Mathematics 10(6), 2025, 14140-14166, doi 10.3934/math.2025637. The file data/printed.csv holds
the cells as printed, errors included; its last two columns say which figures are underlined there.
"""

import csv
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from b2g.errors import B2GError
from b2g.report import records

# The paper's words, and ours for the same thing; None where the package has no such method.
DATASETS = {"Set9": "set9", "Urban100": "urban100", "HanZi": "hanzi", "BSD68": "bsd68", "Kodak24": "kodak24",
            "CBSD68": "cbsd68", "Set14": "set14", "BSD300": "bsd300", "Planaria": "planaria", "SIDD": "sidd"}
METHODS = {"B2G": "b2g", "S2S": "self2self", "BM3D": "bm3d", "ZS-N2N": "zs_n2n", "DIP": None, "N2S": None,
           "B2U": None, "IDDP": None, "MPI": None, "Ne2Ne": None, "N2N": None, "PnP": None, "DGUNet+": None,
           "HQSSL": None, "AP-BSN": None, "LG-BPN": None, "MASH": None}
# How the head of Tables 2 to 4 groups the methods, and Table 5 its own.
ONE_PICTURE = ("DIP", "N2S", "S2S", "B2U", "IDDP", "ZS-N2N", "MPI", "B2G", "AP-BSN", "LG-BPN", "MASH")
MANY_PICTURES = ("Ne2Ne", "N2N", "HQSSL")
SUPERVISED = ("PnP", "DGUNet+")


@dataclass(frozen=True)
class Printed:
    """A cell as printed. ``psnr`` [dB] and ``ssim`` are None where the paper has a dash.

    ``dataset``, ``level`` and ``method`` are the paper's words, `our_dataset` and `our_method` ours; the
    texts keep the printed decimals. ``level`` is sigma on the scale 0 to 255, lambda in Table 4, and the
    name of a column in Table 5.
    """

    table: int
    dataset: str
    noise: str
    level: str
    method: str
    psnr_text: str
    ssim_text: str
    psnr_underlined: bool = False
    ssim_underlined: bool = False

    @property
    def psnr(self):
        return float(self.psnr_text) if self.psnr_text else None

    @property
    def ssim(self):
        return float(self.ssim_text) if self.ssim_text else None

    @property
    def our_dataset(self):
        return DATASETS.get(self.dataset)

    @property
    def our_method(self):
        return METHODS.get(self.method)

    @property
    def row(self):
        """What the methods of one row of a table have in common."""
        return self.table, self.dataset, self.noise, self.level

    @property
    def words(self):
        """The cell's figures as the paper sets them: "31.67/0.955", or a dash."""
        return f"{self.psnr_text}/{self.ssim_text}" if self.psnr_text else "–"


@cache
def _cells():
    with records._stored("printed.csv").open(newline="", encoding="utf-8") as file:
        return tuple(
            Printed(int(row["table"]), row["dataset"], row["noise"], row["level"], row["method"],
                    row["psnr_db"], row["ssim"], bool(row["psnr_underlined"]), bool(row["ssim_underlined"]))
            for row in csv.DictReader(file))


def printed(table=None, dataset=None, noise=None, level=None, method=None):
    """The printed cells that fit, in the paper's order.

    Parameters
    ----------
    table : int, 2 to 5
    dataset, method : str
        The paper's word ("Kodak24", "S2S") or ours ("kodak24", "self2self").
    noise : str, "gaussian", "poisson" or "real"
    level : str or number
        25, 25.0 and "25" are the same level; Table 5 has words ("sRGB validation").

    Raises
    ------
    B2GError
        If the paper has no such table, data set, noise, level or method at all.

    Examples
    --------
    >>> printed(2, "set9", level=25, method="b2g")[0].words
    '32.01/0.965'
    """
    wanted = {"table": table, "dataset": dataset, "noise": noise, "level": level, "method": method}
    found = _cells()
    for what, value in wanted.items():
        if value is not None:
            if not any(_fits(cell, what, value) for cell in _cells()):
                raise B2GError(f"The paper's tables have no {what} {value!r}; they have {_choices(what)}.")
            found = [cell for cell in found if _fits(cell, what, value)]
    return list(found)


def _fits(cell, what, value):
    if what == "level" and not isinstance(value, str):
        value = f"{value:g}"
    names = {getattr(cell, what), getattr(cell, f"our_{what}", None)}
    return str(value) in {str(name) for name in names if name is not None}


def _choices(what):
    return ", ".join(dict.fromkeys(str(getattr(cell, what)) for cell in _cells()))


def printed_value(dataset, level, method, metric="psnr", noise=None):
    """One printed figure, PSNR [dB] or SSIM; None where the paper has a dash or no such cell.

    Parameters are those of `printed`; `metric` is "psnr" or "ssim".
    """
    if metric not in ("psnr", "ssim"):
        raise B2GError(f"The metric is {metric!r}, but the paper prints 'psnr' and 'ssim' only.")
    found = printed(dataset=dataset, noise=noise, level=level, method=method)
    return getattr(found[0], metric) if found else None


class Stated(NamedTuple):
    """A setting or an optimum that the paper's text states, and where."""

    value: object
    where: str


_SETUP, _MASKS = "Section 5, experimental setup", "Section 5, ablation, Figure 13"
_THRESHOLDS = "Section 5, ablation, Figure 14"
STATED = {
    "omega": Stated(0.8, f"{_SETUP}, synthetic noise; {_MASKS} (b)"),
    "omega, real noise": Stated(0.5, f"{_SETUP}, real noise"),
    "omega, useful range": Stated((0.2, 1.0), f"{_MASKS} (b)"),
    "gamma": Stated(0.5, f"{_SETUP}; Figure 15"),
    "epsilon_s": Stated(25, f"{_THRESHOLDS}; Table 1"),
    "epsilon_g": Stated(40, _THRESHOLDS),
    "thresholds tried": Stated((15, 25, 40, 55, 70, 85, 100), _THRESHOLDS),
    "share of pixels masked": Stated(0.25, _SETUP),
    "slope of the ReLU": Stated(0.1, _SETUP),
    "learning rate": Stated(2e-5, f"{_SETUP}, synthetic noise"),
    "learning rate, real noise": Stated(1e-5, f"{_SETUP}, real noise"),
    "calls for the final result": Stated(40, _SETUP),
    "iterations called enough": Stated(6000, "Section 5, Figure 7 (a)"),
    "iterations between results": Stated(3000, "Section 5, Figure 7 (a)"),
}
