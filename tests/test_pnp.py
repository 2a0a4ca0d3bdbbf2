"""Denoiser priors: the networks by hand, the splitting by hand, the released weights on pictures,
refusals."""

import numpy as np
import pytest
import skimage.data
import torch
import torch.nn.functional as F

import b2g
from b2g.errors import B2GError
from b2g.fit import build
from b2g.method import Circumstances
from b2g.methods import PlugAndPlay, pnp
from b2g.networks.dncnn import DnCNN
from b2g.networks.drunet import DRUNet
from b2g.networks.ffdnet import FFDNet
from b2g.weights import fetch_weights

CLEAN = np.ascontiguousarray(skimage.data.astronaut()[20:84, 200:264].astype(np.float32) / 255)
GRAY = np.ascontiguousarray(CLEAN[..., 1])


def here(*names):
    try:
        for name in names:
            fetch_weights(name)
    except B2GError:
        return False
    return True


needs_weights = pytest.mark.skipif(
    not here("ffdnet_color", "dncnn_color_blind", "dncnn_gray_25"),
    reason="the released weights are neither mirrored nor cached, and could not be fetched",
)


def batch(picture):
    picture = picture if picture.ndim == 3 else picture[..., None]
    return torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None].float()


def made(make):
    return build(make, 0, torch.device("cpu")).eval().requires_grad_(False)


def count(network):
    return sum(weights.numel() for weights in network.parameters())


# ---- networks ----


def test_the_networks_have_the_published_sizes():
    with torch.device("meta"):
        assert (count(FFDNet(3)), count(DRUNet(3)), count(DRUNet(1))) == (852_108, 32_640_960, 32_638_656)
        assert count(FFDNet(1)) == (5 * 64 + 13 * 64 * 64 + 64 * 4) * 9 + 14 * 64 + 4
        assert not [name for name, _ in DRUNet(1).named_parameters() if "bias" in name]


def test_ffdnet_is_a_chain_on_folded_pixels():
    network = made(lambda: FFDNet(1))
    picture = torch.rand(1, 1, 5, 8, generator=torch.Generator().manual_seed(0))
    grown = torch.cat((picture, picture[..., -1:, :]), 2)  # the last row again
    parts = [grown[..., y::2, x::2] for y in (0, 1) for x in (0, 1)]
    features = torch.cat((*parts, torch.full_like(parts[0], 30 / 255)), 1)
    convolutions = [layer for layer in network.layers if isinstance(layer, torch.nn.Conv2d)]
    for k, layer in enumerate(convolutions):
        layer.weight.mul_(6**0.5)  # as drawn, the signal would die out on its way
        features = F.conv2d(features, layer.weight, layer.bias, padding=1)
        features = features.clamp_min(0) if k < len(convolutions) - 1 else features
    expected = torch.zeros_like(grown)
    for k, (y, x) in enumerate((y, x) for y in (0, 1) for x in (0, 1)):
        expected[..., y::2, x::2] = features[:, k : k + 1]
    scale = float(expected.std())
    torch.testing.assert_close(network(picture, 30.0), expected[..., :5, :], atol=1e-4 * scale, rtol=1e-4)


def test_drunet_scales_with_its_input_and_takes_any_size():
    """Without biases it is homogeneous: picture and level times a factor give the
    answer times that factor."""
    network = made(lambda: DRUNet(1))
    picture = torch.rand(1, 1, 17, 22, generator=torch.Generator().manual_seed(0))
    whole = network(picture, 40.0)
    assert whole.shape == picture.shape and whole.abs().max() > 0
    torch.testing.assert_close(network(picture / 2, 20.0), whole / 2, atol=1e-4 * float(whole.abs().max()), rtol=1e-3)
    assert (network(picture, 20.0) - whole).abs().max() > 1e-3 * whole.abs().max()
    grown = F.pad(picture, (0, 2, 0, 7), mode="replicate")
    torch.testing.assert_close(network(grown, 40.0)[..., :17, :22], whole)


def test_drunet_takes_the_names_of_the_released_file():
    with torch.device("meta"):
        state = DRUNet(3).state_dict()
    shapes = {
        "m_head.weight": (64, 4, 3, 3), "m_down1.0.res.0.weight": (64, 64, 3, 3), "m_down3.4.weight": (512, 256, 2, 2),
        "m_body.3.res.2.weight": (512, 512, 3, 3), "m_up3.0.weight": (512, 256, 2, 2),
        "m_up1.4.res.2.weight": (64, 64, 3, 3), "m_tail.weight": (3, 64, 3, 3),
    }  # fmt: skip
    assert {name: tuple(state[name].shape) for name in shapes} == shapes
    assert len(state) == 2 + 6 + 7 * 4 * 2  # head and tail, three ways down and up, seven rows of blocks


# ---- the splitting ----


@pytest.mark.parametrize("iterations, levels", [(1, [20.0]), (3, [49.0, (49 * 20) ** 0.5, 20.0])])
def test_the_splitting_is_its_two_steps(iterations, levels, monkeypatch):
    told = []

    class Prior(torch.nn.Module):
        def forward(self, picture, sigma):
            told.append(sigma)
            return 0.8 * picture + sigma / 2550

    monkeypatch.setattr(pnp, "load_prior", lambda *given: Prior())
    noisy = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    found = PlugAndPlay(sigma=20.0, iterations=iterations)(noisy, Circumstances(clean=noisy))
    estimate = noisy
    for level in levels:
        pull = 0.23 * 20**2 / level**2  # the minimiser of |x - y|^2 + pull |x - z|^2
        estimate = 0.8 * (noisy + pull * estimate) / (1 + pull) + level / 2550
    assert told == pytest.approx(levels)
    torch.testing.assert_close(found.estimate, estimate)
    assert [entry["level"] for entry in found.history] == told and "psnr" in found.history[-1]


def test_levels_never_rise_towards_sigma():
    assert PlugAndPlay(iterations=4).levels(70.0) == pytest.approx([70.0] * 4)
    falling = PlugAndPlay(iterations=4).levels(10.0)
    assert falling[0] == 49 and falling[-1] == 10 and np.allclose(np.diff(np.log(falling)), np.log(10 / 49) / 3)


# ---- released weights ----


def gain(clean, level, **settings):
    given = b2g.add_noise(clean, "gaussian", level, seed=0)
    result = b2g.denoise(given, PlugAndPlay(**settings), progress=False)
    return b2g.psnr(clean, result.image) - b2g.psnr(clean, given, clip=False)


@needs_weights
def test_ffdnet_told_sigma_beats_non_local_means():
    """By 2 dB on this crop, each told sigma 25."""
    given = b2g.add_noise(CLEAN, "gaussian", 25, seed=0)
    means = b2g.denoise(given, "nlm", "official", sigma=25.0, progress=False).image
    prior = b2g.denoise(given, "pnp", prior="ffdnet", sigma=25.0, progress=False).image
    assert b2g.psnr(CLEAN, prior) > b2g.psnr(CLEAN, means) + 2.0


@needs_weights
@pytest.mark.parametrize("clean, level, settings, least", [
    (CLEAN, 25, {}, 8.5), (CLEAN, 50, {}, 11.0), (CLEAN, 25, dict(sigma=25.0, iterations=4), 7.0),
    (CLEAN, 25, dict(prior="dncnn"), 8.3), (GRAY, 25, {}, 6.3), (GRAY, 50, dict(sigma=50.0), 9.5),
    (GRAY, 18, dict(sigma=18.0), 3.3),
])  # fmt: skip
def test_the_released_weights_denoise(clean, level, settings, least):
    assert gain(clean, level, **settings) > least


@needs_weights
def test_smoke_is_the_same_for_every_seed_and_of_any_size():
    given, state = b2g.add_noise(CLEAN[:17, :19].copy(), "gaussian", 25, seed=0), torch.get_rng_state()
    one, other = (b2g.denoise(given, "pnp", "smoke", seed=seed, progress=False).image for seed in (0, 1))
    assert one.tobytes() == other.tobytes() and one.shape == given.shape
    assert torch.equal(state, torch.get_rng_state())


@needs_weights
def test_a_blind_prior_takes_no_level():
    for settings in (dict(sigma=25.0), dict(iterations=2), dict(noise="correlated")):
        with pytest.raises(B2GError, match="DnCNN's colour weights are blind: leave out sigma, noise and iterations"):
            PlugAndPlay(prior="dncnn", **settings)(batch(CLEAN))


@needs_weights
def test_gray_weights_are_not_let_loose_on_weak_noise():
    with pytest.raises(B2GError, match="know sigma 25 and would blur a picture of sigma 9: take another method"):
        PlugAndPlay(sigma=9.0)(batch(GRAY))


# ---- the user's weights ----


def released(network, path):
    """A file as KAIR writes it: a chain of layers is called model."""
    torch.save({key.replace("layers.", "model."): value for key, value in network.state_dict().items()}, path)
    return str(path)


@pytest.mark.parametrize("make, prior", [(FFDNet, "ffdnet"), (DRUNet, "drunet")])
def test_a_file_of_the_user_is_taken(make, prior, tmp_path):
    network = made(lambda: make(1))
    path = released(network, tmp_path / "own.pth")
    found = PlugAndPlay(prior=prior, weights=path, sigma=25.0)(batch(GRAY[:16, :17]))
    torch.testing.assert_close(found.estimate, network(batch(GRAY[:16, :17]), 25.0))


def test_a_file_that_does_not_fit_is_refused(tmp_path):
    path = released(made(lambda: DnCNN(1, 3, norm=False)), tmp_path / "other.pth")
    (tmp_path / "text.pth").write_text("no weights")
    for given, sentence in [
        (path, "other.pth does not hold a FFDNet for pictures of this kind"),
        (str(tmp_path / "text.pth"), "text.pth does not hold a FFDNet"),
        (str(tmp_path / "none.pth"), "weights .*none.pth cannot be read: No such file"),
    ]:
        with pytest.raises(B2GError, match=sentence) as raised:
            PlugAndPlay(prior="ffdnet", weights=given, sigma=25.0)(batch(GRAY))
        assert "\n" not in str(raised.value)


def test_gray_ffdnet_needs_a_file():
    with pytest.raises(B2GError, match="FFDNet's gray weights are not listed"):
        PlugAndPlay(prior="ffdnet", sigma=25.0)(batch(GRAY))


@pytest.mark.parametrize("settings, sentence", [
    (dict(prior="drunet"), "drunet has no listed weights: give weights=PATH"),
    (dict(prior="bm3d"), "prior must be one of auto, ffdnet, dncnn, drunet, not 'bm3d'"),
    (dict(weights="x.pth"), "weights belong to prior='ffdnet' or 'drunet', not to 'auto'"),
    (dict(sigma=-1.0), "pnp's sigma must be positive, not -1.0"),
    (dict(start=0.0), "pnp's start must be positive, not 0.0"),
    (dict(balance=0.0), "pnp's balance must be positive, not 0.0"),
    (dict(iterations=0), "iterations must be at least 1, not 0"),
])  # fmt: skip
def test_an_impossible_setting_is_refused(settings, sentence):
    with pytest.raises(B2GError, match=sentence):
        PlugAndPlay(**settings)
