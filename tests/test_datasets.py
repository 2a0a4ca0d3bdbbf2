import hashlib
import os
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pooch
import pytest
from skimage import data as skimage_data

from b2g import datasets, fetch, load, load_noisy, psnr
from b2g.errors import B2GError
from b2g.images import read, write

MIRROR = os.environ.get("B2G_DATA_MIRROR", "")
needs_data = pytest.mark.skipif(not os.path.isdir(MIRROR), reason="B2G_DATA_MIRROR names no folder")


@pytest.fixture
def alone(monkeypatch, tmp_path):
    """No mirror, an empty cache, no patience."""
    monkeypatch.delenv("B2G_DATA_MIRROR", raising=False)
    monkeypatch.setenv("B2G_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(fetch, "_RETRIES", 2)
    monkeypatch.setattr(pooch.core.time, "sleep", lambda seconds: None)
    return tmp_path / "cache"


# The lists


def test_every_data_set_lists_as_many_pictures_as_it_says():
    counts = {entry.dataset: int(entry.count) for entry in datasets.describe()}
    assert counts == {name: len(datasets.names(name)) for name in counts}
    assert sum(counts.values()) == len(datasets.names()) == len(set(datasets.names()))
    assert datasets.names() == sorted(datasets.names())


def test_every_listed_file_is_pinned_and_has_terms():
    for name in datasets.names():
        for part in ("clean", "noisy"):
            try:
                entry = datasets.info(name, part)
            except B2GError:
                continue
            if not name.startswith("skimage/"):
                host, owner, repository, commit, *path = entry.address.removeprefix("https://").split("/")
                assert host == "raw.githubusercontent.com" and len(commit) == 40 and int(commit, 16) and path
            assert len(entry.sha256) == 64 and int(entry.sha256, 16) and entry.bytes > 0
            assert entry.width >= 64 and entry.height >= 64
            assert entry.terms and entry.source and entry.citation
    files = {datasets.info(name).file for name in datasets.names()}
    assert all(not Path(file).is_absolute() and ".." not in file for file in files)


def test_pairs():
    noisy = {name.partition("/")[0] for name in datasets.names() if has(name, "noisy")}
    assert noisy == {"polyu", "cc", "confocal", "planaria", "sidd_sample"}
    alone = [name for name in datasets.names() if not has(name, "clean")]
    assert alone == ["sidd_sample/mmbsn", "sidd_sample/self2selfplus"]


def has(name, part):
    try:
        return datasets.info(name, part).part == part
    except B2GError:
        return False


def test_describe_says_the_terms():
    lines = [str(entry) for entry in datasets.describe()]
    assert any(line.startswith("polyu") and "non-commercial" in line for line in lines)
    assert all("\n" not in line for line in lines)


# What comes with scikit-image


def test_an_embedded_picture_is_scikit_images_own(alone):
    for name, shape in (("astronaut", (512, 512, 3)), ("camera", (512, 512)), ("rocket", (427, 640, 3))):
        picture = load(f"skimage/{name}")
        assert picture.dtype == np.float32 and picture.shape == shape
        assert np.array_equal(picture, getattr(skimage_data, name)().astype(np.float32) / np.float32(255))


def test_every_embedded_picture_loads_without_network(alone):
    for name in datasets.names("skimage"):
        entry, picture = datasets.info(name), load(name)
        assert picture.shape[:2] == (entry.height, entry.width) and 0 <= picture.min() < picture.max() <= 1
    assert not alone.exists()


def test_a_changed_embedded_picture_is_noticed(monkeypatch, tmp_path):
    (tmp_path / "data").mkdir()
    write(tmp_path / "data" / "astronaut.png", np.zeros((512, 512, 3), np.uint8))
    monkeypatch.setattr(datasets.resources, "files", lambda package: tmp_path)
    with pytest.raises(B2GError, match="skimage/astronaut is missing from this scikit-image or is another"):
        load("skimage/astronaut")


def test_crops():
    whole = load("skimage/coffee")  # 600 wide, 400 high
    assert np.array_equal(load("skimage/coffee@128"), whole[136:264, 236:364])
    assert np.array_equal(load("skimage/coffee@100+500+300"), whole[300:, 500:])
    assert load("skimage/coffee@100+500+300").flags.c_contiguous


@pytest.mark.parametrize("name, words", [
    ("set9/f16", "did you mean set9/F16"), ("set9", "did you mean set9/"),
    ("no/where", "data sets are skimage"), ("", "data sets are"), (7, "name is text"),
    ("skimage/coffee@", "no crop after its @"),
    ("skimage/coffee@128x128", "no crop"), ("skimage/coffee@401", "600 wide and 400 high"),
    ("skimage/coffee@0", "reaches beyond"), ("skimage/coffee@100+501+0", "reaches beyond"),
    ("sidd_sample/mmbsn", "no clean picture, only noisy"),
])
def test_unknown_names(alone, name, words):
    with pytest.raises(B2GError) as caught:
        load(name)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_no_noisy_partner_and_no_such_data_set():
    with pytest.raises(B2GError, match="kodak24/01 has no noisy picture, only clean"):
        load_noisy("kodak24/01")
    with pytest.raises(B2GError, match="data set 'set8' is not known; use one of skimage, set9"):
        datasets.names("set8")


def test_tables_inside_an_installed_package_come_first(monkeypatch, tmp_path):
    (tmp_path / "_data").mkdir()
    (tmp_path / "_data" / "hanzi.csv").write_text("name,codepoint\n000,U+4E00\n")
    monkeypatch.setattr(datasets.resources, "files", lambda package: tmp_path)
    assert datasets._rows("hanzi.csv") == [{"name": "000", "codepoint": "U+4E00"}]
    assert len(datasets._rows("datasets.csv")) == len(datasets.describe())  # not in there: beside the package


# Fetching


CONTENT = bytes(range(256)) * 2000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Answers as its script says, one word a request, the last word from then on."""

    script, asked = ("whole",), 0

    def next_word(self):
        self.asked += 1
        return self.script[min(self.asked, len(self.script)) - 1]


class Answer(BaseHTTPRequestHandler):
    def do_GET(self):  # noqa: N802
        word = self.server.next_word()
        if word.isdigit():
            return self.send_error(int(word))
        body = {"whole": CONTENT, "cut": CONTENT[:300_000], "other": CONTENT[::-1]}[word]
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    server = Server(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    server.address = f"http://127.0.0.1:{server.server_port}/a.bin"
    yield server
    server.shutdown(), server.server_close(), thread.join()


def left(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_download_is_kept_and_not_repeated(alone, server):
    path = fetch.fetch_file("set/a.bin", DIGEST, server.address)
    assert path == alone / "set" / "a.bin" and path.read_bytes() == CONTENT
    assert fetch.fetch_file("set/a.bin", DIGEST, server.address) == path
    assert server.asked == 1 and left(alone) == ["set/a.bin"]


def test_a_damaged_cache_is_replaced(alone, server):
    (alone / "set").mkdir(parents=True)
    (alone / "set" / "a.bin").write_bytes(CONTENT[:-1])
    assert fetch.fetch_file("set/a.bin", DIGEST, server.address).read_bytes() == CONTENT


@pytest.mark.parametrize("script", [("cut", "whole"), ("other", "whole"), ("503", "cut", "whole")])
def test_a_failed_attempt_is_repeated(alone, server, script):
    server.script = script
    assert fetch.fetch_file("set/a.bin", DIGEST, server.address).read_bytes() == CONTENT
    assert server.asked == len(script) and left(alone) == ["set/a.bin"]


@pytest.mark.parametrize("word, reason, asked", [
    ("cut", "SHA-256|broke", 3), ("other", "SHA-256", 3), ("500", "answers 500", 3),
    ("404", "answers 404", 3)])
def test_what_does_not_arrive_whole_is_refused_and_not_kept(alone, server, word, reason, asked):
    server.script = (word,)
    with pytest.raises(B2GError, match=f"({reason}).*B2G_DATA_MIRROR to a folder that holds set/a.bin"):
        fetch.fetch_file("set/a.bin", DIGEST, server.address)
    assert server.asked == asked and left(alone) == []


def test_a_failed_download_leaves_an_older_file(alone, server):
    server.script = ("cut",)
    (alone / "set").mkdir(parents=True)
    (alone / "set" / "a.bin").write_bytes(b"older")
    with pytest.raises(B2GError):
        fetch.fetch_file("set/a.bin", DIGEST, server.address)
    assert (alone / "set" / "a.bin").read_bytes() == b"older"


def test_offline_with_nothing_cached_is_one_sentence(alone, monkeypatch):
    monkeypatch.setattr(datasets, "_RAW", "unused")
    with pytest.raises(B2GError) as caught:
        fetch.fetch_file("set9/F16.png", DIGEST, "http://127.0.0.1:9/F16.png")  # port 9 refuses
    message = str(caught.value)
    assert "could not be downloaded" in message and "B2G_DATA_MIRROR" in message and "\n" not in message


def test_a_cache_that_cannot_be_written(alone):
    alone.write_text("a file where the folder should be")
    with pytest.raises(B2GError, match="cannot be stored.*B2G_CACHE"):
        fetch.fetch_file("set/a.bin", DIGEST, "http://127.0.0.1:9/a.bin")


def test_a_mirror_is_read_in_place_and_checked(alone, monkeypatch, tmp_path, server):
    mirror = tmp_path / "mirror"
    (mirror / "set").mkdir(parents=True)
    (mirror / "set" / "a.bin").write_bytes(CONTENT)
    monkeypatch.setenv("B2G_DATA_MIRROR", str(mirror))
    assert fetch.fetch_file("set/a.bin", DIGEST, server.address) == mirror / "set" / "a.bin"
    assert not alone.exists() and server.asked == 0
    (mirror / "set" / "a.bin").write_bytes(CONTENT[:-1] + b"x")
    with pytest.raises(B2GError, match="SHA-256 differs"):
        fetch.fetch_file("set/a.bin", DIGEST, server.address)
    (mirror / "set" / "a.bin").unlink()  # what the mirror lacks is downloaded
    assert fetch.fetch_file("set/a.bin", DIGEST, server.address) == alone / "set" / "a.bin"
    monkeypatch.setenv("B2G_DATA_MIRROR", str(tmp_path / "gone"))
    with pytest.raises(B2GError, match="gone, which is not a folder"):
        fetch.fetch_file("set/a.bin", DIGEST, server.address)


def test_the_cache_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("B2G_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert fetch.cache_folder() == tmp_path / "b2g"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert fetch.cache_folder() == Path.home() / ".cache" / "b2g"


# The files themselves, where they are at hand


@needs_data
@pytest.mark.parametrize("name, shape", [
    ("set9/F16", (512, 512, 3)), ("set9/House", (256, 256, 3)), ("kodak24/01", (512, 768, 3)),
    ("bsd68/001", (481, 321)), ("cbsd68/101085", (481, 321, 3)), ("hanzi/000", (64, 64)),
    ("confocal/mice", (512, 512)), ("sidd_sample/danet", (256, 256, 3)), ("planaria/full", (442, 1000)),
    ("train400/001", (180, 180)), ("urban100/001", (644, 1024, 3)), ("set14/comic", (361, 250, 3))])
def test_mirrored_pictures(name, shape):
    picture = load(name)
    assert picture.shape == shape and picture.dtype == np.float32 and 0 <= picture.min() < picture.max() <= 1


@needs_data
def test_mirrored_pairs_have_the_known_noise():
    cc = [psnr(load(name), load_noisy(name)) for name in datasets.names("cc")]
    assert np.mean(cc) == pytest.approx(33.41, abs=0.01)  # the figure usually quoted
    assert psnr(load("sidd_sample/danet"), load_noisy("sidd_sample/danet")) == pytest.approx(16.15, abs=0.01)


@needs_data
def test_bsd68_is_the_gray_of_cbsd68():
    for gray, colour in list(zip(datasets.names("bsd68"), sorted(datasets.names("cbsd68"))))[::17]:
        luma = load(colour) @ np.array([0.2989, 0.5870, 0.1140], np.float32)
        assert np.abs(load(gray) - luma).max() < 1.6 / 255


@needs_data
def test_the_characters_are_drawn_as_listed():
    """`load` refuses other pixels, so that it returns at all is the test; and they are 128 different ones."""
    tiles = {load(name).tobytes() for name in datasets.names("hanzi")[::16]}
    assert len(tiles) == 8
    assert len({row["pixels_sha256"] for row in datasets._rows("hanzi.csv")}) == 128


@needs_data
def test_drawn_characters_agree_with_tiles_drawn_elsewhere():
    drawn = Path(MIRROR, "hanzi", "tiles")
    if not drawn.is_dir():
        pytest.skip("the mirror has no drawn tiles")
    for tile in sorted(drawn.iterdir())[5::16]:
        assert np.array_equal(np.rint(load(f"hanzi/{tile.name[:3]}") * 255), read(tile))


@needs_data
def test_another_rendering_of_a_character_is_noticed(monkeypatch):
    row = {"codepoint": "U+5353", "pixels_sha256": "0"}
    monkeypatch.setattr(datasets, "_characters", lambda: {"hanzi/000": row})
    with pytest.raises(B2GError, match="hanzi/000 is drawn by this Pillow with other pixels"):
        load("hanzi/000")


@needs_data
def test_a_damaged_mirror_is_refused_by_name(monkeypatch, tmp_path):
    file = datasets.info("set9/House").file
    (tmp_path / file).parent.mkdir()
    shutil.copy(Path(MIRROR, file), tmp_path / file)
    monkeypatch.setenv("B2G_DATA_MIRROR", str(tmp_path))
    assert datasets.fetch("set9/House@64") == [tmp_path / file]
    os.truncate(tmp_path / file, 1000)
    with pytest.raises(B2GError, match="image_House256rgb.png is not the file that was listed"):
        load("set9/House")


@needs_data
@pytest.mark.slow
def test_every_mirrored_file_loads():
    for name in datasets.names():
        for part in ("clean", "noisy"):
            entry = datasets.info(name, part) if has(name, part) else None
            if entry and (Path(MIRROR, entry.file).is_file() or not entry.address):
                picture = (load if part == "clean" else load_noisy)(name)
                assert picture.shape[:2] == (entry.height, entry.width) and picture.dtype == np.float32
                assert 0 <= picture.min() <= picture.max() <= 1


def test_offline_nothing_is_asked_of_the_network(monkeypatch, tmp_path):
    monkeypatch.setenv("B2G_OFFLINE", "1")
    monkeypatch.setenv("B2G_CACHE", str(tmp_path))
    monkeypatch.delenv("B2G_DATA_MIRROR", raising=False)
    monkeypatch.setattr("b2g.fetch._download", lambda *words: pytest.fail("it asked"))
    with pytest.raises(B2GError, match="B2G_OFFLINE is set"):
        load("set9/House")
