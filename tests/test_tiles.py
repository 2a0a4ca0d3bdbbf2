import dataclasses
import json
import types
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch

import b2g
from b2g.errors import B2GError, Diverged
from b2g.method import Circumstances, Denoised, Method
from b2g.methods import ZSN2N, NLRidge
from b2g.seeds import seed_for
from b2g.tiles import Tiled, told, windows

PICTURE = b2g.load("skimage/astronaut@90+150+20")
QUIET = {"progress": False, "precision": "float32"}
TINY = ZSN2N(steps=3, width=4)


@dataclasses.dataclass(frozen=True)
class Shift(Method):
    """Adds a constant of the tile's seed to a picture, and keeps what it was given."""

    name: ClassVar[str] = "shift"
    scale: float = 0.0
    calls: ClassVar[list] = []

    def __call__(self, noisy, circumstances=Circumstances()):
        self.calls.append((noisy, circumstances))
        return Denoised(noisy + self.scale * (circumstances.seed % 7), [{"step": 1}, {"step": 2}])


@pytest.fixture(autouse=True)
def calls():
    Shift.calls.clear()
    return Shift.calls


# ---- the windows ----


@pytest.mark.parametrize("length, tile, overlap", [
    (33, 32, 0), (63, 32, 16), (64, 32, 0), (90, 40, 8), (100, 40, 20), (769, 128, 32), (1000, 512, 32), (2000, 97, 31),
])
def test_windows_reach_from_border_to_border_overlap_enough_and_sum_to_one(length, tile, overlap):
    starts, weights = zip(*windows(length, tile, overlap))
    assert starts[0] == 0 and starts[-1] == length - tile and all(len(weight) == tile for weight in weights)
    assert all(0 < b - a <= tile - overlap for a, b in zip(starts, starts[1:]))
    fewer = len(starts) - 1  # with one window less, some pixel would lack its overlap
    assert fewer * tile - (fewer - 1) * overlap < length
    total = np.zeros(length)
    for start, weight in zip(starts, weights):
        assert weight.min() > 0
        total[start : start + tile] += weight.double().numpy()
    np.testing.assert_allclose(total, 1, atol=1e-6)


def test_two_windows_cross_like_squared_cosines():
    (_, first), (start, second) = windows(56, 32, 8)
    angle = np.pi / 2 * (np.arange(8) + 0.5) / 8
    np.testing.assert_allclose(first, [1] * 24 + list(np.cos(angle) ** 2), atol=1e-7)
    np.testing.assert_allclose(second, list(np.sin(angle) ** 2) + [1] * 24, atol=1e-7)
    assert start == 24


def test_a_side_no_longer_than_the_tile_has_one_window():
    for length in (32, 31):
        ((start, weight),) = windows(length, 32, 8)
        assert start == 0 and torch.equal(weight, torch.ones(length))


# ---- the answer ----


@pytest.mark.parametrize("shape", [(90, 70), (90, 70, 3), (33, 90, 3), (32, 33)])
def test_tiles_of_a_method_that_changes_nothing_are_the_picture(shape, calls):
    picture = np.random.RandomState(1).rand(*shape).astype(np.float32)
    image = b2g.denoise(picture, Shift(), tile=32, overlap=12, **QUIET).image
    np.testing.assert_allclose(image, picture, atol=3e-7)
    assert len(calls) > 1 and all(noisy.shape[-2:] == (32, 32) for noisy, _ in calls)


def test_the_blend_is_that_of_a_loop_over_pixels(calls):
    noisy = torch.rand(1, 1, 50, 45)
    blended = Tiled(Shift(0.1), 32, 10)(noisy, Circumstances(seed=5)).estimate
    shifts = {(top, left): 0.1 * (seed_for(5, "tile", top, left) % 7) for top in (0, 18) for left in (0, 13)}
    assert [circumstances.seed for _, circumstances in calls] == [seed_for(5, "tile", *place) for place in shifts]
    rise = lambda x: np.sin(np.pi / 2 * (x + 0.5) / 10) ** 2 if x < 10 else 1.0  # noqa: E731
    for i in (0, 17, 18, 20, 27, 31, 32, 49):
        for j in (0, 12, 13, 15, 22, 31, 32, 44):
            weighted = []
            for (top, left), shift in shifts.items():
                if top <= i < top + 32 and left <= j < left + 32:
                    down = rise(i - top) if top else rise(31 - i)
                    across = rise(j - left) if left else rise(31 - j)
                    weighted.append((down * across, shift))
            wanted = sum(w * s for w, s in weighted) / sum(w for w, _ in weighted)
            assert (blended - noisy)[0, 0, i, j].item() == pytest.approx(wanted, abs=1e-6)


def test_a_picture_that_fits_into_a_tile_is_denoised_as_without():
    noisy = b2g.add_noise(PICTURE[:60, :60], seed=1)
    plain = b2g.denoise(noisy, TINY, seed=4, **QUIET)
    for tile in (60, 512):
        result = b2g.denoise(noisy, TINY, seed=4, tile=tile, overlap=16, **QUIET)
        assert np.array_equal(result.image, plain.image)
    assert not np.array_equal(b2g.denoise(noisy, TINY, seed=4, tile=59, overlap=16, **QUIET).image, plain.image)


def test_far_from_the_seams_a_tiled_local_method_gives_the_whole_answer():
    noisy = b2g.add_noise(PICTURE, seed=2)
    method = NLRidge(sigma=25.0)
    whole, tiles = (b2g.denoise(noisy, method, tile=tile, **QUIET).image for tile in (None, 64))
    clean = PICTURE
    assert abs(b2g.psnr(clean, whole) - b2g.psnr(clean, tiles)) < 0.3
    assert np.abs(whole - tiles).max() < 0.25 and b2g.psnr(whole, tiles) > 35


def test_batches_and_lists_are_tiled_too():
    batch = np.stack([PICTURE[:40, :40], PICTURE[-40:, -40:]])
    options = dict(tile=32, overlap=8, seed=3, **QUIET)
    together = b2g.denoise(batch, TINY, **options)
    listed = b2g.denoise([*batch], TINY, **options)
    single = b2g.denoise(batch[0], TINY, **options)
    assert all(np.array_equal(a, b) for a, b in zip(together.image, listed.image))
    assert np.array_equal(single.image, together.image[0])
    assert together.identity == listed.identity == single.identity


def test_clean_is_shown_tile_by_tile_and_the_history_says_which(calls):
    result = b2g.denoise(PICTURE, Shift(), clean=1 - PICTURE, tile=64, overlap=20, **QUIET)
    assert all(torch.allclose(circumstances.clean, 1 - noisy) for noisy, circumstances in calls)
    assert result.history == [{"tile": k, "step": s} for k in range(4) for s in (1, 2)]


# ---- what a result says ----


def test_tile_and_overlap_are_part_of_the_result_but_of_no_method():
    noisy = PICTURE[:40, :40]
    plain, tiled = (b2g.denoise(noisy, TINY, **QUIET, **more) for more in ({}, {"tile": 32, "overlap": 8}))
    assert tiled.config == plain.config | {"tile": 32, "overlap": 8} and tiled.method == "zs_n2n"
    assert json.loads(tiled.identity) == json.loads(plain.identity) | {"tile": 32, "overlap": 8}
    assert plain.identity == TINY.identity()
    assert Tiled(TINY, np.int64(32), 8).identity() == tiled.identity
    assert Tiled(TINY, 32, 8).changed(steps=9) == Tiled(ZSN2N(steps=9, width=4), 32, 8)


# ---- the noise level ----


def test_sigma_is_estimated_once_on_the_whole_picture():
    noisy = b2g.add_noise(PICTURE, "gaussian", 25, seed=2)
    history = b2g.denoise(noisy, "nl_ridge", "smoke", tile=64, **QUIET).history
    assert [entry["sigma"] for entry in history] == 4 * [b2g.estimate_sigma(noisy)]


def test_what_was_told_stays_and_what_takes_no_level_is_left_alone():
    noisy = torch.from_numpy(b2g.add_noise(PICTURE, "poisson", 40, seed=2)).permute(2, 0, 1)[None]
    for method in (TINY, NLRidge(sigma=10.0), NLRidge(noise="poisson", photons=9.0)):
        assert told(method, noisy) == method
    counted = told(NLRidge(noise="poisson"), noisy)
    assert counted.photons == pytest.approx(40, rel=0.15) and counted.sigma is None


# ---- checkpoints ----


def test_a_killed_run_goes_on_after_its_last_whole_tile(tmp_path, calls, monkeypatch):
    noisy, where = torch.rand(1, 3, 40, 60), tmp_path / "run.pt"
    method, circumstances = Tiled(Shift(0.1), 32, 8), Circumstances(seed=2, checkpoint=where)
    whole = method(noisy, dataclasses.replace(circumstances, checkpoint=None))
    places = len(calls)
    assert places == 6
    plain = Shift.__call__

    def killed(self, tile, given):
        if len(calls) == places + 4:
            raise KeyboardInterrupt
        return plain(self, tile, given)

    monkeypatch.setattr(Shift, "__call__", killed)
    with pytest.raises(KeyboardInterrupt):
        method(noisy, circumstances)
    monkeypatch.setattr(Shift, "__call__", plain)
    assert where.exists()
    with pytest.raises(B2GError, match="another run"):
        Tiled(Shift(0.2), 32, 8)(noisy, circumstances)
    resumed = method(noisy, circumstances)
    assert len(calls) == places + 6, "tiles that were done were done again"
    assert torch.equal(resumed.estimate, whole.estimate) and resumed.history == whole.history
    assert {given.checkpoint for _, given in calls[places:]} == {Path(f"{where}.tile")} and not where.exists()


def test_a_file_that_is_no_checkpoint_is_left_alone(tmp_path):
    (tmp_path / "text").write_text("mine")
    for where, word in ((tmp_path / "text", "not a checkpoint"), (tmp_path / "no" / "file", "folder does not exist")):
        with pytest.raises(B2GError, match=word):
            b2g.denoise(PICTURE, Shift(), tile=32, overlap=8, checkpoint=where, **QUIET)
    assert (tmp_path / "text").read_text() == "mine"


def test_a_tiled_fit_leaves_no_checkpoint_behind(tmp_path):
    noisy = PICTURE[:40, :40]
    kept = b2g.denoise(noisy, TINY, tile=32, overlap=8, checkpoint=tmp_path / "run.pt", **QUIET).image
    assert np.array_equal(kept, b2g.denoise(noisy, TINY, tile=32, overlap=8, **QUIET).image)
    assert list(tmp_path.iterdir()) == []


# ---- refused ----


@pytest.mark.parametrize("tile, overlap, word", [
    (31, 0, "at least 32"), (64, 33, "from 0 to half the tile, which is 32"), (64, -1, "overlap must be"),
    (64.0, 8, "whole number"), (True, 8, "whole number"), ("64", 8, "tile must be"), (64, None, "overlap must be"),
])  # fmt: skip
def test_bad_tiles_are_refused(tile, overlap, word):
    with pytest.raises(B2GError, match=word):
        b2g.denoise(PICTURE, TINY, tile=tile, overlap=overlap, **QUIET)


def test_one_watch_cannot_see_many_fits():
    with pytest.raises(B2GError, match="watch"):
        b2g.denoise(PICTURE, TINY, tile=32, overlap=8, watch=lambda *_: {}, **QUIET)


def test_a_tile_that_diverges_is_named(monkeypatch):
    monkeypatch.setattr(Shift, "__call__", lambda self, noisy, _: types.SimpleNamespace(
        estimate=noisy / (0 if noisy.mean() > 0.5 else 1), history=[]))  # fmt: skip
    picture = np.full((32, 60), 0.2, np.float32)
    picture[:, 40:] = 0.9
    with pytest.raises(Diverged, match="tile 28 to the right and 0 down"):
        b2g.denoise(picture, Shift(), tile=32, overlap=2, **QUIET)
