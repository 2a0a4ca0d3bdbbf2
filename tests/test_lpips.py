import hashlib
import os
from pathlib import Path

import numpy as np
import pooch
import pytest
import torch
from requests.exceptions import ConnectionError
from scipy.ndimage import gaussian_filter

from b2g import add_noise, load, weights
from b2g.errors import B2GError
from b2g.lpips import _heads, _network, alexnet, features, head_distance, lpips, squeezenet

MIRROR = os.environ.get("B2G_DATA_MIRROR", "")
needs_weights = pytest.mark.skipif(
    not os.path.isfile(os.path.join(MIRROR, "weights", "squeezenet1_1_features_backbone.pth")),
    reason="B2G_DATA_MIRROR holds no weights of SqueezeNet")


def size(network):
    return sum(weight.numel() for weight in network.parameters())


def test_the_backbones_have_the_published_number_of_weights():
    # Whole networks: 1 235 496 and 61 100 840, less SqueezeNet's 1x1 classifier and
    # AlexNet's three dense layers.
    assert size(squeezenet()) == 1_235_496 - (512 + 1) * 1000 == 722_496
    assert size(alexnet()) == 61_100_840 - (9216 + 1) * 4096 - (4096 + 1) * 4096 - (4096 + 1) * 1000 == 2_469_696


def test_taps_have_the_published_shapes():
    image = torch.zeros(2, 3, 64, 65)
    assert [tuple(tap.shape) for tap in squeezenet()(image)] == [
        (2, 64, 31, 32), (2, 128, 15, 16), (2, 256, 7, 8), (2, 384, 3, 4), (2, 384, 3, 4),
        (2, 512, 3, 4), (2, 512, 3, 4)]  # pools round up: 31 -> 15, 32 -> 16, 16 -> 8, 8 -> 4
    assert [tuple(tap.shape) for tap in alexnet()(image)] == [
        (2, 64, 15, 15), (2, 192, 7, 7), (2, 384, 3, 3), (2, 256, 3, 3), (2, 256, 3, 3)]


def loop(one, other, head):
    """A layer's distance from its definition, pixel by pixel."""
    total = 0.0
    for i, j in np.ndindex(one.shape[1:]):
        first, second = (taken[:, i, j] / np.linalg.norm(taken[:, i, j]) for taken in (one, other))
        total += sum(weight * (a - b) ** 2 for weight, a, b in zip(head, first, second))
    return total / (one.shape[1] * one.shape[2])


def test_a_layers_distance_is_the_definition(generator):
    one, other = torch.rand(2, 2, 6, 4, 5, generator=generator)
    head = torch.rand(6, generator=generator)
    wanted = [loop(*(np.asarray(a, float) for a in pair), head.tolist()) for pair in zip(one, other)]
    assert head_distance(one, other, head).tolist() == pytest.approx(wanted, rel=1e-5)
    assert head_distance(one, 3 * one, head).abs().max() < 1e-6  # only the direction counts
    assert torch.isfinite(head_distance(torch.zeros(1, 6, 2, 2), one[:1, :, :2, :2], head)).all()


@needs_weights
def test_the_whole_distance_is_the_sum_over_seven_layers():
    clean = load("skimage/astronaut@24+200+60")
    noisy = add_noise(clean, "gaussian", 50).clip(0, 1)
    images = [torch.from_numpy(picture.transpose(2, 0, 1))[None].float() for picture in (clean, noisy)]
    taps = [[tap[0].double().numpy() for tap in features(image)] for image in images]
    heads = [head.double().numpy() for head in _heads("squeeze")]
    assert [len(head) for head in heads] == [len(tap) for tap in taps[0]] == [64, 128, 256, 384, 384, 512, 512]
    assert lpips(clean, noisy) == pytest.approx(sum(map(loop, *taps, heads)), rel=1e-4)


@needs_weights
def test_agrees_with_the_value_that_torchmetrics_documents():
    # Its page on learned_perceptual_image_patch_similarity prints 0.1008 for these
    # pictures and net_type="squeeze".
    generator = torch.Generator().manual_seed(123)
    one, other = (torch.rand(10, 3, 100, 100, generator=generator) for _ in range(2))
    assert lpips(one, other) == pytest.approx(0.1008, abs=5e-5)


@needs_weights
def test_zero_for_equals_symmetric_and_growing_with_noise():
    clean = load("skimage/astronaut@64+200+60")
    noisy = [add_noise(clean, "gaussian", level, seed=0) for level in (5, 15, 25, 50, 100)]
    distances = [lpips(clean, picture) for picture in noisy]
    assert lpips(clean, clean) == 0
    assert all(low + 0.01 < high for low, high in zip([0.0, *distances], distances))
    assert lpips(noisy[2], clean) == pytest.approx(distances[2], rel=1e-5)


@needs_weights
def test_shifting_brightness_matters_less_than_blur_of_the_same_error():
    """What LPIPS is for: of two pictures with one mean squared error, the blurred one is further away."""
    clean = 0.1 + 0.8 * load("skimage/astronaut@128+170+40")
    blurred = gaussian_filter(clean, (2, 2, 0))
    shifted = clean + np.sqrt(((blurred - clean) ** 2).mean())
    assert shifted.max() <= 1
    assert lpips(clean, blurred) > 3 * lpips(clean, shifted)


@needs_weights
def test_gray_clipping_and_several_pictures():
    clean = load("skimage/camera@64")
    noisy = add_noise(clean, "gaussian", 50, seed=0)
    in_colour = [np.repeat(picture[..., None], 3, axis=2) for picture in (clean, noisy)]
    assert lpips(clean, noisy) == pytest.approx(lpips(*in_colour), rel=1e-6)
    assert lpips(clean, noisy) == lpips(clean, noisy.clip(0, 1)) != lpips(clean, noisy, clip=False)
    pair = [np.stack([one, other]) for one, other in zip(in_colour, in_colour[::-1])]
    assert lpips(*pair) == pytest.approx(lpips(clean, noisy), rel=1e-5)


def test_refused():
    picture = np.zeros((32, 32, 3), np.float32)
    with pytest.raises(B2GError, match="no backbone 'vgg'; use one of squeeze, alex"):
        lpips(picture, picture, "vgg")
    with pytest.raises(B2GError, match="cannot be compared.*pass two of one size"):
        lpips(picture, picture[1:])
    with pytest.raises(B2GError, match="at least 17 x 17 pixels"):
        lpips(picture[:16], picture[:16])


@pytest.fixture
def nowhere(monkeypatch, tmp_path):
    """No mirror, an empty cache, no network, and nothing kept from other tests."""
    monkeypatch.delenv("B2G_DATA_MIRROR", raising=False)
    monkeypatch.delenv("B2G_OFFLINE", raising=False)
    monkeypatch.setenv("B2G_CACHE", str(tmp_path))

    def refuse(*_, **__):
        raise ConnectionError

    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", refuse)
    for kept in (_network, _heads):
        kept.cache_clear()
    yield tmp_path
    for kept in (_network, _heads):
        kept.cache_clear()


@pytest.mark.parametrize("backbone", ["squeeze", "alex"])
def test_without_weights_one_sentence(nowhere, backbone):
    picture = np.zeros((32, 32, 3), np.float32)
    with pytest.raises(B2GError, match="^https://.* could not be downloaded .*; check the network, or "):
        lpips(picture, picture, backbone)
    assert not [path for path in nowhere.rglob("*") if path.is_file()]


@pytest.mark.parametrize("name", ["squeezenet1_1", "alexnet"])
def test_offline_the_network_is_not_asked(nowhere, monkeypatch, name):
    monkeypatch.setenv("B2G_OFFLINE", "1")
    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", lambda *_: pytest.fail("the network was asked"))
    with pytest.raises(B2GError, match="B2G_OFFLINE is set"):
        weights.fetch_weights(name)


def test_alexnets_weights_are_known_by_their_first_digits(nowhere, monkeypatch):
    """From a stand-in of the right layout: found in the cache, checked, its classifier left out."""
    whole = {f"features.{key}": value for key, value in alexnet().state_dict().items()}
    path = nowhere / weights.weights()["alexnet"]["file"]
    path.parent.mkdir()
    torch.save(whole | {"classifier.1.weight": torch.zeros(3)}, path)
    with pytest.raises(B2GError, match="could not be downloaded"):  # another file under that name is not taken
        weights.fetch_weights("alexnet")
    monkeypatch.setattr(weights, "_begins", lambda path, digits: digits == "7be5be79")
    assert weights.fetch_weights("alexnet") == path
    assert all(torch.equal(value, whole[f"features.{key}"]) for key, value in _network("alex").state_dict().items())


def test_a_download_is_kept_only_with_the_right_digits(nowhere, monkeypatch):
    wanted, path = hashlib.sha256(b"right").hexdigest()[:8], nowhere / "folder" / "file.pth"
    for content in (b"wrong", b"right"):
        monkeypatch.setattr(pooch.HTTPDownloader, "__call__",
                            lambda self, address, output, *_: Path(output).write_bytes(content))
        if content == b"wrong":
            with pytest.raises(B2GError, match="another SHA-256"):
                weights._download(path, wanted, "https://example.org/file.pth")
            assert list(path.parent.iterdir()) == []
    assert weights._download(path, wanted, "https://example.org/file.pth").read_bytes() == b"right"
    assert list(path.parent.iterdir()) == [path]


def test_the_list_of_weights():
    rows = weights.weights()
    assert list(rows)[:4] == ["squeezenet1_1", "alexnet", "lpips_squeeze", "lpips_alex"]
    assert all(row["address"].startswith("https://") and row["terms"] and row["citation"] for row in rows.values())
    with pytest.raises(B2GError, match="'vgg' are not known; use one of squeezenet1_1, alexnet"):
        weights.fetch_weights("vgg")
