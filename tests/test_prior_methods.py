"""Deep Image Prior, MPI, their network, and the two that watch a fit:
the safety net and the least variance."""

import os

import numpy as np
import pytest
import skimage.data
import torch
from killed import killed
from torch import nn

import b2g
import b2g.fit as engine
from b2g.capture import WARM_UP, GraphSteps
from b2g.errors import B2GError
from b2g.fit import RunningAverage, fit
from b2g.method import Circumstances
from b2g.methods.dip import DIP, _PriorObjective, stein_risk
from b2g.methods.mpi import MPI, WEIGHTS, FilledAverage, Filling, MPIScratch, _FillingObjective
from b2g.networks.skip import Skip, SkipShape, load_published, published_names
from b2g.safety import SafetyNet
from b2g.stopping import LeastVariance
from b2g.weights import fetch_weights, weights
from tape import Tape

ASTRONAUT = skimage.data.astronaut()[20:84, 200:264].astype(np.float32) / 255
MPI_SHAPE = SkipShape(width=64, skip=64, up="nearest")
MIRROR = os.environ.get("B2G_DATA_MIRROR", "")
needs_weights = pytest.mark.skipif(
    not os.path.isfile(os.path.join(MIRROR, weights()[WEIGHTS]["file"])), reason="B2G_DATA_MIRROR holds no MPI weights"
)
SMALL = {"dip": dict(steps=8, width=4, window=3, patience=4, average=0.8), "mpi_scratch": dict(steps=8, width=4)}
OBJECTIVES = {"dip": _PriorObjective, "mpi_scratch": _FillingObjective}


def count(network):
    return sum(parameter.numel() for parameter in network.parameters())


def noisy(height=20, width=24, channels=3):
    clean = np.ascontiguousarray(ASTRONAUT[:height, :width] if channels == 3 else ASTRONAUT[:height, :width, 1])
    return clean, b2g.add_noise(clean, "gaussian", 25, seed=0)


def batch(picture):
    return torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None].float()


def quick(given, name, **more):
    return b2g.denoise(given, name, "smoke", progress=False, precision="float32", **(SMALL[name] | more))


# ---- the network ----


def layer_weights(channels, out, side):
    return out * channels * side**2 + out + 2 * out


@pytest.mark.parametrize("given, answers, shape, weights", [
    (32, 3, SkipShape(), 2_217_831), (32, 1, SkipShape(), 2_217_573), (6, 3, MPI_SHAPE, 747_395),
])  # fmt: skip
def test_the_skip_network_has_the_weights_of_its_layers(given, answers, shape, weights):
    """Counted layer by layer; 2.2 and 0.75 million as the papers' networks have."""
    w, s = shape.width, shape.skip
    level = lambda c: (  # noqa: E731
        layer_weights(c, s, 1) + layer_weights(c, w, 3) + layer_weights(w, w, 3)
        + 2 * (s + w) + layer_weights(s + w, w, 3) + layer_weights(w, w, 1)
    )  # fmt: skip
    assert level(given) + 4 * level(w) + w * answers + answers == weights
    assert count(Skip(given, answers, shape)) == weights


@pytest.mark.parametrize("size", [(16, 16), (33, 70), (64, 96)])
@pytest.mark.parametrize("up", ["bilinear", "nearest"])
def test_the_skip_network_takes_any_size(size, up):
    answer = Skip(2, 3, SkipShape(width=4, skip=2, up=up))(torch.rand(1, 2, *size))
    assert answer.shape == (1, 3, *size) and 0 < float(answer.detach().min()) and float(answer.detach().max()) < 1


def test_a_size_that_fits_is_not_mirrored_and_any_other_is(monkeypatch):
    network, seen = Skip(1, 1, SkipShape(width=2, skip=2, scales=2)), []
    network.levels[0].down.register_forward_hook(lambda _, given, __: seen.append(given[0].detach()))
    picture = torch.rand(1, 1, 12, 10)
    network(picture[..., :8]), network(picture)
    assert torch.equal(seen[0], picture[..., :8]) and seen[1].shape == (1, 1, 12, 12)
    assert torch.equal(seen[1][..., 10:], picture[..., [9, 8]])


def test_impossible_shapes_are_refused():
    for shape, sentence in ((dict(width=0), "width must be at least 1"), (dict(up="cubic"), "up must be one of"),
                            (dict(statistics="none"), "statistics must be one of")):  # fmt: skip
        with pytest.raises(B2GError, match=sentence):
            SkipShape(**shape)


@needs_weights
def test_every_published_weight_has_its_place():
    content = torch.load(fetch_weights(WEIGHTS), weights_only=True)["params"]
    kinds = ("weight", "bias")
    learnt = {key: value for key, value in content.items() if key.rsplit(".", 1)[1] in kinds}
    network = Skip(6, 3, MPI_SHAPE)
    names = published_names()
    theirs = {f"{names[own.rsplit('.', 1)[0]]}.{own.rsplit('.', 1)[1]}": own for own in network.state_dict()}
    assert theirs.keys() == learnt.keys() and sum(value.numel() for value in learnt.values()) == 747_395
    load_published(network, fetch_weights(WEIGHTS))
    for key, own in theirs.items():
        assert torch.equal(network.state_dict()[own], learnt[key])


@needs_weights
def test_the_published_network_fills_hidden_pixels_better_than_their_neighbours_do():
    """Untouched, with its stored statistics, on a clean picture: so the layout, up to the last slope,
    is the authors'."""
    clean = batch(skimage.data.astronaut()[0:128, 160:288].astype(np.float32) / 255)
    mask = (torch.rand(clean.shape, generator=torch.Generator().manual_seed(0)) >= 0.3).float()
    network = Skip(6, 3, SkipShape(64, 64, 5, "nearest", "stored"))
    load_published(network, fetch_weights(WEIGHTS))
    with torch.no_grad():
        answer = network(torch.cat((clean * mask, mask), 1))
    window = torch.tensor([[0.5, 1, 0.5], [1, 0, 1], [0.5, 1, 0.5]]).expand(3, 1, 3, 3)
    near = lambda picture: nn.functional.conv2d(picture, window, padding=1, groups=3)  # noqa: E731
    between = near(clean * mask) / near(mask).clamp_min(0.5)
    hidden = mask == 0
    error = lambda picture: float((picture - clean)[hidden].square().mean())  # noqa: E731
    assert 10 * np.log10(error(between) / error(answer)) > 4


def test_another_file_is_refused(tmp_path):
    torch.save({"params": {"net.9.1.weight": torch.zeros(3, 64, 1, 1)}}, tmp_path / "other.pth")
    with pytest.raises(B2GError, match="other.pth does not hold the weights of this network; give MPI's"):
        load_published(Skip(6, 3, MPI_SHAPE), tmp_path / "other.pth")


# ---- stopping ----


def test_the_moving_variance_is_that_of_the_last_outputs():
    pictures = np.random.default_rng(0).random((17, 1, 2, 5, 4)).astype(np.float32)
    pictures[6:11] = pictures[6:11] * 0.01 + 0.5  # where the outputs vary least
    stop, found, ended = LeastVariance(4, 3), [], []
    for number, picture in enumerate(pictures):
        ended.append(stop.add(torch.from_numpy(picture), torch.full((1, 2, 5, 4), float(number))))
        found.append(stop.variance)
    for end in range(3, 17):
        part = pictures[end - 3 : end + 1].astype(np.float64)
        assert found[end] == pytest.approx(((part - part.mean(0)) ** 2).mean(), rel=1e-9)
    best = int(np.argmin(found[3:])) + 3
    assert found[:3] == [None] * 3 and best in (9, 10) and stop.step == best + 1
    assert torch.equal(stop.answer, torch.full((1, 2, 5, 4), float(best)))
    assert ended == [False] * (best + 3) + [True] * (17 - best - 3)


def test_an_answer_that_lags_is_taken_later():
    pictures = [torch.full((1, 1, 2, 2), float(value)) for value in (0, 9, 5, 5, 1, 8, 2, 7)]
    stop, given = LeastVariance(2, 3, lag=2), [torch.full((1,), float(k)) for k in range(8)]
    ended = [stop.add(picture, answer) for picture, answer in zip(pictures, given)]
    assert stop.step == 4 and float(stop.answer) == 5.0 and ended == [False] * 6 + [True] * 2
    assert LeastVariance(2, 3, lag=9).lag == 3 and DIP(average=0.99).lag() == 100


def test_the_stop_goes_on_from_its_state():
    pictures = torch.rand(9, 1, 1, 3, 3)
    one, other = LeastVariance(3, 20), LeastVariance(3, 20)
    for picture in pictures[:5]:
        one.add(picture, picture)
    other.load_state({k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in one.state().items()}, torch.device("cpu"))
    for picture in pictures[5:]:
        one.add(picture, picture), other.add(picture, picture)
    assert one.variance == other.variance and one.step == other.step and torch.equal(one.answer, other.answer)


def test_the_safety_net_returns_to_a_copy_that_the_next_step_has_proved():
    layer = nn.Linear(1, 1, bias=False)
    net, weight = SafetyNet(layer), layer.weight

    def go(step, value, error):
        with torch.no_grad():
            weight.fill_(value)
        net.look(step, error)
        return float(weight.detach())

    assert go(1, 1.0, 0.010) == 1.0 and net.kept is None  # copied, not yet proved
    assert go(2, 2.0, 0.012) == 2.0 and float(net.kept[0]) == 1.0
    assert go(3, 3.0, 0.012 * 10**0.49) == 3.0  # a fall of 4.9 dB is borne
    assert go(4, 4.0, 0.012 * 10**0.995) == 1.0 and net.restored == 1  # one of 5.05 dB more is not
    assert go(5, 5.0, 0.012) == 5.0
    assert go(101, 7.0, 0.010) == 7.0 and go(102, 8.0, 0.1) == 1.0  # the fresh copy was not sound
    assert go(103, 9.0, 0.012) == 9.0 and float(net.kept[0]) == 1.0


# ---- Deep Image Prior ----


def test_the_profiles_of_dip_say_what_the_notebooks_say():
    official, variance = DIP.profile("official"), DIP.profile("variance")
    assert (official.steps, official.learning_rate, official.average, official.stopping) == (3000, 0.01, 0.99, "fixed")
    assert (official.inputs, official.width, official.skip, official.loss) == (32, 128, 4, "mse")
    assert official.jitter == pytest.approx(1 / 30)
    assert (variance.steps, variance.window, variance.patience, variance.stopping) == (5000, 100, 1000, "variance")


def test_dip_fits_the_whole_noisy_picture_from_fixed_noise_that_trembles():
    given = torch.rand(1, 3, 64, 64)
    loop = DIP(width=4, inputs=5).objective(given, Circumstances(precision="float32"))
    assert loop.given.shape == (1, 5, 64, 64) and 0 <= float(loop.given.min()) and 0.1 >= float(loop.given.max()) > 0.099
    seen = []
    loop.network.register_forward_hook(lambda _, shown, answer: seen.append((shown[0], answer.detach())))
    loss, estimate = loop.loss(0)
    loop.loss(1)
    trembles = [shown - loop.given for shown, _ in seen]
    assert float(loss.detach()) == pytest.approx(float((seen[0][1] - given).square().mean()), rel=1e-6)
    assert torch.equal(estimate, seen[0][1]) and estimate is not loop.given
    for tremble in trembles:
        assert float(tremble.std()) == pytest.approx(1 / 30, rel=0.03)  # 20480 draws: 6 standard errors
    assert abs(float((trembles[0] * trembles[1]).mean())) < 6 / 30**2 / 20480**0.5


def test_steins_risk_is_the_true_risk_on_the_mean():
    """A linear denoiser of y plus noise of its own: against its mean square error,
    computed with the clean picture."""
    draw, sigma, side = torch.Generator().manual_seed(0), 0.1, 24
    clean = torch.rand(1, 1, side, side, generator=draw)
    kernel = torch.tensor([[[[0.05, 0.1, 0.05], [0.1, 0.5, 0.1], [0.05, 0.1, 0.05]]]])
    f = lambda z: nn.functional.conv2d(z, kernel, padding=1)  # noqa: E731
    gaps, without = [], []
    for _ in range(400):
        y = clean + sigma * torch.randn(clean.shape, generator=draw)
        z = y + 0.05 * torch.randn(clean.shape, generator=draw)
        signs = 2.0 * (torch.rand(clean.shape, generator=draw) > 0.5) - 1.0
        risk = float(stein_risk(f(z), f(z + 1e-3 * signs), y, signs, sigma))
        gaps.append(risk - float((f(z) - clean).square().mean()))
        without.append(gaps[-1] - 2 * sigma**2 * 0.5)
    error = np.std(gaps) / len(gaps) ** 0.5
    assert abs(np.mean(gaps)) < 4 * error and abs(np.mean(without)) > 20 * error


def test_the_risk_is_computed_from_the_noisy_picture_in_float32():
    clean, given = noisy(64, 64)
    loop = DIP(width=4, loss="sure", sigma=25.0).objective(batch(given), Circumstances(precision="bfloat16"))
    assert torch.equal(loop.given, batch(given)) and loop.precision == "float32"
    assert loop.sigma == pytest.approx(25 / 255) and DIP(loss="mse").objective(batch(given), Circumstances()).sigma is None
    estimated = DIP(width=4, loss="sure").objective(batch(given), Circumstances())
    assert estimated.sigma == pytest.approx(b2g.estimate_sigma(batch(given)) / 255)
    seen = []
    loop.network.register_forward_hook(lambda _, shown, answer: seen.append((shown[0].detach(), answer.detach())))
    loss, _ = loop.loss(0)
    (z, first), (moved, second) = seen
    signs = (moved - z).sign()
    assert torch.allclose((moved - z).abs(), torch.full_like(z, 1e-3), atol=1e-6)
    expected = ((first - batch(given)) ** 2).mean() - loop.sigma**2 + 2 * loop.sigma**2 * (
        (signs * (second - first)).sum() / 1e-3 / z.numel()
    )
    assert float(loss.detach()) == pytest.approx(float(expected), rel=1e-4)


def test_the_answer_of_dip_is_the_running_mean_where_the_outputs_vary_least():
    _, given = noisy()
    result = quick(given, "dip", steps=16, log_every=1)
    at = result.history[-1]["answer_step"]
    assert 3 <= at < 16 and result.history[-1]["step"] in (16, at + 4)
    known = {entry["step"]: entry["variance"] for entry in result.history if "variance" in entry}
    assert at == min(known, key=known.get)
    again = quick(given, "dip", steps=min(16, at + 4), stopping="fixed")  # a mean of decay 0.8 lags by 5, patience is 4
    assert again.image.tobytes() == result.image.tobytes()


# ---- MPI ----


def test_the_profiles_of_mpi_say_what_the_paper_says():
    for method in (MPI, MPIScratch):
        official, faster = method.profile(), method.profile("faster")
        assert (official.steps, official.learning_rate, official.masked, official.average) == (1000, 2e-3, 0.3, 0.99)
        assert (faster.steps, faster.average) == (200, 0.9)
    assert MPI.label == "one image, with a prior learned elsewhere" and MPIScratch.label == "one image"


def test_the_mean_of_mpi_moves_at_hidden_pixels_only():
    draw = torch.Generator().manual_seed(0)
    given = torch.rand(1, 2, 4, 3, generator=draw)
    mean, expected = FilledAverage(given, 0.9), given.clone()
    mean.value.zero_()  # a copy: nothing happens to the mean
    touched = torch.zeros_like(given).bool()
    for _ in range(5):
        picture, mask = torch.rand(given.shape, generator=draw), (torch.rand(given.shape, generator=draw) > 0.2).float()
        mean.blend(Filling(picture, mask)), mean.count()
        for place in zip(*np.nonzero(mask.numpy() == 0)):
            expected[place] = 0.9 * expected[place] + 0.1 * picture[place]
            touched[place] = True
    assert torch.allclose(mean.value, expected, atol=1e-6) and touched.any() and not touched.all()
    assert torch.equal(mean.value[~touched], given[~touched])


def test_mpi_sees_and_answers_for_the_right_pixels():
    given = torch.rand(1, 3, 32, 32)
    loop = MPIScratch(width=4).objective(given, Circumstances(precision="float32"))
    seen = []
    loop.network.register_forward_hook(lambda _, shown, answer: seen.append((shown[0], answer)))
    loss, filling = loop.loss(0)
    shown, answer = seen[0]
    mask = shown[:, 3:]
    assert torch.equal(shown[:, :3], given * mask) and torch.equal(filling.mask, mask)
    assert 0.25 < float((mask == 0).float().mean()) < 0.35 and not torch.equal(mask[:, 0], mask[:, 1])
    hidden = mask == 0
    assert float(loss.detach()) == pytest.approx(float((answer - given)[hidden].square().mean().detach()), rel=1e-5)
    (slope,) = torch.autograd.grad(loss, answer)
    assert (slope[~hidden] == 0).all() and (slope[hidden] != 0).any()
    changed = loop.fill(mask)
    loop.noisy = torch.where(hidden, loop.noisy + 0.5, loop.noisy)
    assert torch.equal(loop.fill(mask), changed)  # hidden values reach no answer


def test_a_gray_picture_is_hidden_in_all_colours_at_once():
    """Through a network of three colours; a pixel hidden in one colour alone would be seen in the others."""
    given = torch.rand(1, 1, 32, 32)
    torch.manual_seed(0)
    loop = _FillingObjective(Skip(6, 3, SkipShape(4, 4)), given, 3, 0.3, torch.Generator().manual_seed(0), "float32")
    seen = []
    loop.network.register_forward_hook(lambda _, shown, answer: seen.append((shown[0], answer.detach())))
    _, filling = loop.loss(0)
    shown, answer = seen[0]
    for colour in range(3):
        assert torch.equal(shown[:, 3 + colour], shown[:, 3]) and torch.equal(shown[:, colour], given[:, 0] * shown[:, 3])
    assert torch.allclose(filling.picture, answer.mean(1, keepdim=True)) and filling.mask.shape == given.shape


def test_mpi_without_its_weights_says_so(monkeypatch, tmp_path):
    monkeypatch.delenv("B2G_DATA_MIRROR", raising=False)
    monkeypatch.setenv("B2G_CACHE", str(tmp_path)), monkeypatch.setenv("B2G_OFFLINE", "1")
    with pytest.raises(B2GError, match="imgnet_30_multchannel_skip.pth could not be downloaded") as raised:
        MPI(steps=1)(torch.rand(1, 3, 16, 16))
    assert "\n" not in str(raised.value)


# ---- what they do to a picture ----


@pytest.mark.parametrize("name", SMALL)
def test_the_same_seed_gives_the_same_bytes_and_leaves_the_global_stream_alone(name):
    _, given = noisy(17, 16, channels=1)
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first = quick(given, name, seed=1)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(6)
    assert quick(given, name, seed=1).image.tobytes() == first.image.tobytes()
    assert quick(given, name, seed=2).image.tobytes() != first.image.tobytes()


@pytest.mark.parametrize("name, more", [
    ("dip", dict(patience=20)), ("dip", dict(loss="sure", sigma=25.0, stopping="fixed")), ("mpi_scratch", {}),
])  # fmt: skip
def test_a_killed_fit_goes_on_to_the_same_bytes(name, more, tmp_path, monkeypatch):
    clean, given = noisy()
    path, settings = tmp_path / "fit.ckpt", dict(clean=clean, seed=2) | more
    expected = quick(given, name, **settings)
    with killed(monkeypatch, OBJECTIVES[name], 5):
        quick(given, name, checkpoint=path, **settings)
    assert path.exists()
    found = quick(given, name, checkpoint=path, **settings)
    assert found.image.tobytes() == expected.image.tobytes() and not path.exists()
    told = lambda result: [{k: v for k, v in e.items() if k != "seconds"} for e in result.history]  # noqa: E731
    assert told(found) == told(expected)


@pytest.mark.parametrize("method", [
    DIP(width=4, stopping="variance", window=3), DIP(width=4, loss="sure", sigma=25.0), MPIScratch(width=4),
], ids=["dip", "sure", "mpi"])  # fmt: skip
def test_replayed_steps_are_the_eager_ones_bit_for_bit(method, monkeypatch):
    given, tapes, found = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1)), [], []
    method = method.changed(steps=WARM_UP + 4, learning_rate=2.0**-8)  # a rate that float32 holds exactly

    def choose(engine, objective, optimiser, mean):
        tapes.append(Tape(optimiser))
        return GraphSteps(objective, optimiser, mean, cuda=tapes[-1])

    for taped in (False, True):
        loop = method.objective(given, Circumstances(precision="float32"))
        mean, stop = FilledAverage(given, 0.9), None
        if isinstance(method, DIP):
            mean = RunningAverage(0.9)
            stop = lambda step, loop=loop, mean=mean: loop.after(step, mean)  # noqa: E731
        if taped:
            monkeypatch.setattr(engine, "choose_steps", choose)
        found.append((loop, fit(loop, method.schedule(), average=mean, stop=stop)))
    (plain, expected), (recorded, again) = found
    assert again.engine == "graph" and tapes[0].graphs[0].replays == 4
    assert torch.equal(expected.average, again.average)
    for one, other in zip(plain.network.parameters(), recorded.network.parameters(), strict=True):
        assert torch.equal(one, other)
    if isinstance(method, DIP):
        assert plain.safety.level == recorded.safety.level and plain.told() == recorded.told()


@pytest.mark.parametrize("make, sentence", [
    (lambda: DIP(stopping="best"), "stopping must be one of fixed, variance, not 'best'"),
    (lambda: DIP(loss="l1"), "loss must be one of mse, sure, not 'l1'"),
    (lambda: DIP(window=1), "window must be at least 2, not 1"),
    (lambda: DIP(patience=0), "patience must be at least 1, not 0"),
    (lambda: DIP(inputs=0), "inputs must be at least 1, not 0"),
    (lambda: DIP(width=0), "width must be at least 1, not 0"),
    (lambda: DIP(skip=0), "skip must be at least 1, not 0"),
    (lambda: DIP(sigma=0.0), "sigma is a noise level on 0..255 and must be positive, not 0.0"),
    (lambda: DIP(jitter=-0.1), "jitter .* must be at least 0, not -0.1"),
    (lambda: DIP(average=1.0), r"average is a decay and must lie in \[0, 1\), not 1.0"),
    (lambda: DIP(steps=0), "steps must be at least 1, not 0"),
    (lambda: DIP(learning_rate=0.0), "learning_rate must be positive, not 0.0"),
    (lambda: MPI(masked=0.0), "masked is the share of hidden values and must lie between 0 and 1, not 0.0"),
    (lambda: MPI(average=1.0), r"average is a decay and must lie in \[0, 1\), not 1.0"),
    (lambda: MPI(statistics="none"), "statistics must be one of batch, stored, not 'none'"),
    (lambda: MPIScratch(width=0), "width must be at least 1, not 0"),
    (lambda: MPIScratch(steps=0), "steps must be at least 1, not 0"),
])  # fmt: skip
def test_an_impossible_setting_is_refused(make, sentence):
    with pytest.raises(B2GError, match=sentence) as raised:
        make()
    assert "\n" not in str(raised.value)


def test_stein_needs_a_noise_level():
    with pytest.raises(B2GError, match="dip needs a positive noise level sigma on 0..255, not 0.0; give sigma"):
        DIP(loss="sure").objective(torch.full((1, 1, 32, 32), 0.5), Circumstances())
