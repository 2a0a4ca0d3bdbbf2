"""Every method on one photograph gains as many dB as when it was last measured: no fewer, and no more.

``bands.csv`` has a row for each method and number of channels. ``gain`` is the least that the method must
gain over the noisy picture, a promise that measuring does not touch; ``psnr`` is what it reached, in dB, and
``band`` how far from that it may fall on either side. A new method, or a change of one that is meant, is
measured by

    python tests/test_bands.py NAME ...

which writes the rows of these methods anew. Another processor rounds otherwise, and a fit makes much of
little: so ``psnr`` is the mean over runs whose pictures differ in the last bit, and ``band`` follows from
their spread. What a method needs and has not got here, weights or a package, skips it.
"""

import csv
import math
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch

import b2g
from b2g.errors import B2GError
from b2g.methods import METHODS
from b2g.released import release_name, released
from b2g.trained import Trained

TABLE = Path(__file__).with_name("bands.csv")
COLUMNS = ("method", "channels", "gain", "psnr", "band")
LACKING = "has no released weights|could not be downloaded|needs the package"
COLOUR = np.ascontiguousarray(skimage.data.astronaut()[20:84, 200:264].astype(np.float32) / 255)
RUNS = 5  # that a row is measured by
STEADY, USUAL = 0.1, 0.3  # dB: the band where rounding is not felt, and the narrowest where it is
CLEAN = {3: COLOUR, 1: np.ascontiguousarray(COLOUR.mean(-1))}


def read_table() -> dict[tuple[str, int], dict]:
    """The rows by method and channels, ``gain``, ``psnr`` and ``band`` as numbers."""
    with open(TABLE, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    numbers = [{key: float(row[key]) for key in ("gain", "psnr", "band")} for row in rows]
    return {(row["method"], int(row["channels"])): found for row, found in zip(rows, numbers)}


def noisy(channels: int) -> np.ndarray:
    """The 64x64 pixels at sigma 25, unclipped: 20.2 dB in colour, 20.3 in gray."""
    return b2g.add_noise(CLEAN[channels], "gaussian", 25, seed=0)


def answer(name: str, given: np.ndarray) -> np.ndarray:
    """What the method makes of it: with its smoke profile, or with its released weights."""
    profile = None if issubclass(METHODS[name], Trained) else "smoke"
    return b2g.denoise(given, name, profile, device="cpu", precision="float32", progress=False).image


def answer_or_skip(name: str, given: np.ndarray) -> np.ndarray:
    try:
        return answer(name, given)
    except B2GError as error:
        if re.search(LACKING, str(error)):
            pytest.skip(str(error))
        raise


def must_have_a_row(name: str, table: dict) -> None:
    """Fail where the method lacks a row: one, or one for each number of channels that its released weights are
    for; without such weights there are no answers yet, and it is skipped.
    """
    has = [channels for method, channels in table if method == name]
    if issubclass(METHODS[name], Trained):
        lacking = [channels for channels in released_channels(name) if channels not in has]
        if not has and not lacking:
            pytest.skip(f"{name} has no released weights")
    else:
        lacking = [] if has else [3]
    if lacking:
        pytest.fail(f"{name} has no row for {lacking} in tests/bands.csv; 'python tests/test_bands.py {name}' makes it.")


def released_channels(name: str) -> list[int]:
    """The numbers of channels for which a trained method has weights."""
    recipe, rows = METHODS[name].profile().recipe, released()
    return [channels for channels in CLEAN if release_name(name, recipe, channels) in rows]


ROWS = read_table()


@pytest.fixture
def offline(monkeypatch):
    """No test downloads weights: they are mirrored, or cached, or the test is skipped."""
    monkeypatch.setenv("B2G_OFFLINE", "1")


@pytest.mark.parametrize("name, channels", ROWS, ids=lambda value: str(value))
def test_a_method_denoises_as_it_did(name, channels, offline):
    row, given = ROWS[name, channels], noisy(channels)
    image = answer_or_skip(name, given)
    assert image.shape == given.shape and image.dtype == np.float32
    before, found = b2g.psnr(CLEAN[channels], given, clip=False), b2g.psnr(CLEAN[channels], image)
    assert found > before + row["gain"]
    assert abs(found - row["psnr"]) <= row["band"], (
        f"{name} has {found:.3f} dB where it had {row['psnr']}: if that is meant, raise its revision and run "
        f"'python tests/test_bands.py {name}'."
    )


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_a_row(name):
    must_have_a_row(name, ROWS)


def test_a_method_without_a_row_is_told_how_to_get_one():
    fail = pytest.fail.Exception
    with pytest.raises(fail, match=r"tv has no row .*python tests/test_bands.py tv' makes it"):
        must_have_a_row("tv", {})


def test_a_trained_method_needs_a_row_as_soon_as_its_weights_are_released(monkeypatch):
    here = sys.modules[__name__]
    monkeypatch.setattr(here, "released", dict)
    with pytest.raises(pytest.skip.Exception, match="noise2noise has no released weights"):
        must_have_a_row("noise2noise", {})
    monkeypatch.setattr(here, "released", lambda: {"noise2noise-small-3": {}, "noise2noise-small-1": {}})
    with pytest.raises(pytest.fail.Exception, match=r"noise2noise has no row for \[1\]"):
        must_have_a_row("noise2noise", {("noise2noise", 3): {}})


def test_the_table_is_sound():
    """Of known methods, in order; each reached more than its promise, by more than twice its band."""
    assert list(ROWS) == sorted(ROWS) and {name for name, _ in ROWS} <= set(METHODS)
    for (name, channels), row in ROWS.items():
        reached = row["psnr"] - b2g.psnr(CLEAN[channels], noisy(channels), clip=False)
        assert 0 < row["gain"] < reached and STEADY <= row["band"] < reached / 2, name


def test_a_small_change_of_a_method_is_seen(monkeypatch):
    """One level less of the wavelet transform, up or down."""
    monkeypatch.setitem(METHODS["wavelet"].profiles, "smoke", dict(levels=1))
    found = b2g.psnr(CLEAN[3], answer("wavelet", noisy(3)))
    assert abs(found - ROWS["wavelet", 3]["psnr"]) > ROWS["wavelet", 3]["band"]


# ---- measuring ----


def in_other_last_bits(given: np.ndarray, run: int) -> np.ndarray:
    """The picture of this run: the 0th as it is, the others moved by at most the last bit of 0.5."""
    moved = np.random.RandomState(run).uniform(-1, 1, given.shape) * 2**-24
    return given if run == 0 else (given + moved).astype(np.float32)


def band_of(spread: float) -> float:
    """How far a run may fall from the mean of runs with this standard deviation, in dB."""
    return STEADY if spread < STEADY / 10 else max(USUAL, math.ceil(20 * 3 * spread) / 20)


def measure(name: str, channels: int, gain: float | None) -> dict:
    """A row of the table; without a promise, ``gain`` is half a dB less than what was reached."""
    clean, given = CLEAN[channels], noisy(channels)
    found = [b2g.psnr(clean, answer(name, in_other_last_bits(given, run))) for run in range(RUNS)]
    reached = np.mean(found) - b2g.psnr(clean, given, clip=False)
    gain = math.floor(10 * (min(found) - np.mean(found) + reached - 0.5)) / 10 if gain is None else gain
    if reached <= gain:
        sys.exit(f"{name} gains {reached:.2f} dB of the {gain} in its promise: mend it, or promise less.")
    return dict(gain=gain, psnr=round(float(np.mean(found)), 2), band=band_of(float(np.std(found, ddof=1))))


def write_table(table: dict[tuple[str, int], dict]) -> None:
    with open(TABLE, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for (name, channels), row in sorted(table.items()):
            writer.writerow(dict(method=name, channels=channels, gain=row["gain"], psnr=f"{row['psnr']:.2f}",
                                 band=f"{row['band']:.2f}"))  # fmt: skip


def main(names: list[str]) -> None:
    """Measure the rows of these methods anew; one without any gets that for colour, a trained one its weights'."""
    torch.set_num_threads(1)
    for name in names or sys.exit("Name the methods whose rows are to be measured."):
        table = read_table()
        has = {at for method, at in table if method == name}
        channels = has | set(released_channels(name)) if issubclass(METHODS[name], Trained) else has or {3}
        for at in sorted(channels):
            table[name, at] = measure(name, at, table.get((name, at), {}).get("gain"))
            print(name, at, table[name, at], flush=True)
        write_table(table)


if __name__ == "__main__":
    main(sys.argv[1:])
