"""SIDD's validation blocks, read from small files of the same form."""

import numpy as np
import pytest
from scipy.io import savemat

from b2g import datasets, sidd
from b2g.errors import B2GError

NOISY, CLEAN = sidd.FILES["noisy"], sidd.FILES["clean"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two scenes of three blocks, 20 x 24; the noisy ones are 255 minus the clean ones."""
    clean = np.random.RandomState(0).randint(0, 256, (2, 3, 20, 24, 3)).astype(np.uint8)
    savemat(tmp_path / CLEAN, {"ValidationGtBlocksSrgb": clean})
    savemat(tmp_path / NOISY, {"ValidationNoisyBlocksSrgb": 255 - clean}, do_compression=True)
    monkeypatch.setenv("B2G_SIDD", str(tmp_path))
    return tmp_path, clean


def test_a_block_is_loaded_by_scene_and_block(folder):
    place, clean = folder
    for scene, block in ((1, 1), (2, 3), (1, 2)):
        name = f"sidd_validation/{scene:02d}-{block:02d}"
        expected = clean[scene - 1, block - 1]
        assert np.array_equal(sidd.load_block(name, folder=place), expected)
        loaded = datasets.load(name)
        assert loaded.dtype == np.float32 and np.array_equal(np.rint(loaded * 255), expected)
        assert np.array_equal(np.rint(datasets.load_noisy(name) * 255), 255 - expected)
        assert datasets.size(name) == (20, 24)
    assert np.array_equal(datasets.load("sidd_validation/01-01@16+2+3") * 255, datasets.load(
        "sidd_validation/01-01")[3:19, 2:18] * 255)
    assert datasets.size("sidd_validation/01-01@16") == (16, 16)


def test_names_are_listed_only_when_asked_for():
    found = datasets.names("sidd_validation")
    assert len(found) == 1280 == len(set(found)) and found == sorted(found)
    assert (found[0], found[-1]) == ("sidd_validation/01-01", "sidd_validation/40-32")
    assert not set(found) & set(datasets.names())


def test_a_digest_stands_for_both_pictures(folder):
    place, clean = folder
    first, other = (datasets.digest(f"sidd_validation/01-0{block}") for block in (1, 2))
    assert first != other and first == datasets.digest("sidd_validation/01-01")
    changed = 255 - clean
    changed[0, 0, 0, 0, 0] ^= 1
    savemat(place / NOISY, {"ValidationNoisyBlocksSrgb": changed}, do_compression=True)
    sidd._read.cache_clear()  # the file's time may be the same
    assert datasets.digest("sidd_validation/01-01") != first
    assert datasets.digest("sidd_validation/01-02") == other


@pytest.mark.parametrize("name", ["sidd_validation/1-1", "sidd_validation/00-01", "sidd_validation/03-01",
                                  "sidd_validation/01-04", "sidd_validation/F16", "sidd_validation"])  # fmt: skip
def test_an_unknown_block_is_refused(folder, name):
    with pytest.raises(B2GError, match="is not known") as raised:
        datasets.load(name)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("spoil, sentence", [
    (lambda path: path.unlink(), "is missing; get it"),
    (lambda path: path.write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + bytes(400)), "MATLAB 7.3"),
    (lambda path: path.write_bytes(path.read_bytes()[:300]), "not a whole MATLAB file"),
    (lambda path: path.write_bytes(b"not"), "not a whole MATLAB file"),
    (lambda path: savemat(path, {"other": np.zeros((1, 1, 8, 8, 3), np.uint8)}), "has no array"),
    (lambda path: savemat(path, {path.stem: np.zeros((1, 1, 8, 8, 3))}), "has no array"),
    (lambda path: savemat(path, {path.stem: np.zeros((8, 8, 3), np.uint8)}), "has no array"),
])  # fmt: skip
def test_a_file_that_is_none_is_refused(folder, spoil, sentence):
    spoil(folder[0] / CLEAN)
    sidd._read.cache_clear()
    with pytest.raises(B2GError, match=sentence) as raised:
        datasets.load("sidd_validation/01-01")
    assert "\n" not in str(raised.value)


def test_without_a_folder_the_sentence_says_how(monkeypatch):
    monkeypatch.delenv("B2G_SIDD", raising=False)
    with pytest.raises(B2GError, match="set B2G_SIDD to the folder"):
        datasets.load("sidd_validation/01-01")
