"""Training on many pictures: recipes, frozen and fresh noise, weights files, resuming, releases,
the command line."""

import hashlib
import json
import os
import types
from dataclasses import replace

import numpy as np
import pytest
import torch

import b2g
import b2g.__main__ as cli
import b2g.fit as engine
from b2g import datasets, released, training
from b2g.errors import B2GError
from b2g.methods.blind2unblind import Blind2UnblindMany
from b2g.methods.neighbor2neighbor import Neighbor2NeighborMany
from b2g.methods.noise2noise import Noise2Noise
from b2g.released import read_weights, release, write_weights
from b2g.training import Recipe, freeze, load_bytes, train, training_crops
from b2g.training_command import chosen, named

PICTURES = ("skimage/astronaut@48", "skimage/chelsea@40", "skimage/rocket@48")
MANY = (Noise2Noise, Neighbor2NeighborMany, Blind2UnblindMany)
TINY = dict(steps=3, batch=2, side=16)


@pytest.fixture(autouse=True)
def few_pictures(monkeypatch):
    """Training pictures that need no download."""
    monkeypatch.setattr(training, "training_names", lambda recipe, limit=None: list(PICTURES)[:limit])


def small(kind=Noise2Noise, **changes):
    method = kind(width=4)
    return method, method.chosen_recipe(**(TINY | changes))


def trained(folder, kind=Noise2Noise, name="w", **changes):
    method, recipe = small(kind, **changes)
    return train(method, recipe, folder / f"{name}.safetensors", precision="float32")


def picture(channels=3):
    clean = b2g.load("skimage/astronaut@32")
    return b2g.add_noise(clean if channels == 3 else clean[..., 1], "gaussian", 25, seed=0)


# ---- recipes and noise ----


def test_the_training_pictures_are_400_and_in_no_test_set():
    names = datasets.names("bsds500_train")
    tested = {datasets.digest(name) for name in datasets.names() if not name.startswith(("bsds500_train", "train400"))}
    assert len(names) == 400 and not tested & {datasets.digest(name) for name in names}


def test_the_noise_of_a_picture_is_its_own_and_the_same_in_every_training():
    recipe = Recipe("r", 1, 1e-3)
    clean = load_bytes(PICTURES[0], 3)
    one, two = (freeze(PICTURES[0], clean, recipe) for _ in range(2))
    second, other = freeze(PICTURES[0], clean, recipe, 1), freeze("another", clean, recipe)
    assert torch.equal(one, two) and not torch.equal(one, second) and not torch.equal(one, other)
    noise = torch.stack([p - clean / 255 for p in (one, second, other)])
    assert float(noise.std() * 255) == pytest.approx(25, rel=4 / (2 * noise.numel()) ** 0.5)
    together = torch.corrcoef(noise.flatten(1)) - torch.eye(3)
    assert float(together.abs().max()) < 4.5 / clean.numel() ** 0.5


def test_a_range_of_levels_gives_every_picture_one_of_them():
    recipe = Recipe("r", 1, 1e-3, sigma=0.0, sigma_to=50.0)
    clean = torch.full((1, 1, 32, 32), 128, dtype=torch.uint8)
    levels = [float((freeze(f"p{k}", clean, recipe) - 128 / 255).std() * 255) for k in range(60)]
    assert 0 <= min(levels) < 8 and 42 < max(levels) < 55 and abs(np.mean(levels) - 25) < 4 * 50 / (12 * 60) ** 0.5


def test_frozen_crops_repeat_their_noise_and_fresh_ones_never_do():
    device, fixed = torch.device("cpu"), dict(side=40, batch=1)
    clean = load_bytes(PICTURES[1], 3) / 255.0
    for noise, distinct in (("frozen", 8), ("fresh", 40)):
        method, recipe = small(noise=noise, **fixed)
        crops = training_crops(method, recipe, [PICTURES[1]], device, torch.Generator().manual_seed(0))
        drawn = [crops.draw() for _ in range(40)]
        assert len({d.noisy.numpy().tobytes() for d in drawn}) <= distinct and drawn[0].other is not None
        assert len({d.noisy.numpy().tobytes() for d in drawn}) > distinct - 3
        sums = [float(d.other.sum()) for d in drawn]
        assert abs(np.mean(sums) - float(clean.sum())) < 5 * 25 / 255 * clean.numel() ** 0.5


def test_gray_is_the_luminance():
    colour, gray = (load_bytes(PICTURES[0], channels)[0].float() for channels in (3, 1))
    expected = 0.2989 * colour[0] + 0.5870 * colour[1] + 0.1140 * colour[2]
    assert gray.shape[0] == 1 and float((gray[0] - expected).abs().max()) <= 0.51


def test_only_supervised_methods_see_clean_crops(monkeypatch):
    method, recipe = small(Neighbor2NeighborMany)
    draw = lambda: training_crops(method, recipe, list(PICTURES), torch.device("cpu"), torch.Generator()).draw()  # noqa: E731
    assert draw().clean is None and draw().other is None
    monkeypatch.setattr(Neighbor2NeighborMany, "supervised", True)
    assert draw().clean is not None


@pytest.mark.parametrize("change, sentence", [
    (dict(noise="none"), "noise must be one of frozen, fresh"), (dict(channels=2), "channels must be 1"),
    (dict(sigma=0.0), "sigma must be a positive"), (dict(sigma_to=20.0), "a higher level"),
    (dict(batch=0), "batch must be at least 1"), (dict(side=8), "side must be at least 16"),
    (dict(steps=0), "steps must be at least 1"), (dict(sigma=float("nan")), "sigma must be"),
])  # fmt: skip
def test_an_impossible_recipe_is_refused_in_one_sentence(change, sentence):
    with pytest.raises(B2GError, match=sentence) as raised:
        replace(Recipe("r", 1, 1e-3), **change)
    assert "\n" not in str(raised.value)


# ---- weights and answers ----


@pytest.mark.parametrize("kind", MANY)
def test_a_trained_method_answers_with_its_weights(kind, tmp_path):
    result, before = trained(tmp_path, kind), torch.random.get_rng_state()
    method = kind(width=4, weights=str(result.path))
    answers = [b2g.denoise(picture(), method, progress=False, precision="float32").image for _ in range(2)]
    assert answers[0].shape == (32, 32, 3) and np.array_equal(*answers)
    assert torch.equal(before, torch.random.get_rng_state())
    assert result.history[-1]["step"] == 3 and result.sha256 == hashlib.sha256(result.path.read_bytes()).hexdigest()
    assert kind.label == "many images"


def test_noise2noise_learns_from_pairs_and_has_the_weights_of_the_paper(tmp_path):
    assert sum(p.numel() for p in Noise2Noise().network(3).parameters()) == 991_203
    result = trained(tmp_path, steps=40, learning_rate=1e-2)
    losses = [entry["loss"] for entry in result.history]
    assert np.mean(losses[-10:]) < 0.6 * np.mean(losses[:4])


def test_gray_weights_serve_gray_pictures_only(tmp_path):
    path = str(trained(tmp_path, channels=1).path)
    method = Noise2Noise(width=4, weights=path)
    assert b2g.denoise(picture(1), method, progress=False).image.shape == (32, 32)
    with pytest.raises(B2GError, match="weights of noise2noise for 1 channels, not of noise2noise for 3"):
        b2g.denoise(picture(), method, progress=False)


def test_the_file_says_what_it_is(tmp_path):
    result = trained(tmp_path)
    state, header = read_weights(result.path)
    assert {"method", "settings", "recipe", "seed", "date", "b2g", "pictures_sha256", "channels"} == set(header)
    assert json.loads(header["recipe"])["steps"] == 3 and header["method"] == "noise2noise"
    record = json.loads(result.path.with_suffix(".json").read_text())
    assert record["sha256"] == result.sha256 and record["pictures"] == 3 and record["history"][-1]["step"] == 3
    assert all(value.dtype == torch.float32 for value in state.values())


def test_half_precision_rounds_convolutions_alone(tmp_path):
    state = {"w": torch.tensor([[1 / 3]]), "b": torch.tensor([1 / 3]), "n": torch.tensor(3)}
    write_weights(tmp_path / "a.safetensors", state, {})
    found, _ = read_weights(tmp_path / "a.safetensors")
    assert torch.equal(found["b"], state["b"]) and torch.equal(found["n"], state["n"])
    assert torch.equal(found["w"], state["w"].half().float()) and found["w"].dtype == torch.float32


def test_the_same_seed_trains_the_same_weights_and_a_killed_training_goes_on(tmp_path, monkeypatch):
    one, two = trained(tmp_path, name="a"), trained(tmp_path, name="b")
    assert one.path.read_bytes() == two.path.read_bytes()
    clock, saved = iter(range(0, 10**9, 61)), engine._save

    def killed(path, identity, step, *rest):
        saved(path, identity, step, *rest)
        if step == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(engine.time, "perf_counter", lambda: float(next(clock)))
    monkeypatch.setattr(engine, "_save", killed)
    method, recipe = small()
    place, checkpoint = tmp_path / "c.safetensors", tmp_path / "c.ckpt"
    with pytest.raises(KeyboardInterrupt):
        train(method, recipe, place, precision="float32", checkpoint=checkpoint)
    assert checkpoint.exists() and not place.exists()
    with pytest.raises(B2GError, match="belongs to another run"):
        train(method, replace(recipe, steps=5), place, precision="float32", checkpoint=checkpoint)
    train(method, recipe, place, precision="float32", checkpoint=checkpoint)
    assert place.read_bytes() == one.path.read_bytes() and not checkpoint.exists()


def test_wrong_weights_are_refused_in_one_sentence(tmp_path):
    path = trained(tmp_path).path
    (tmp_path / "cut.safetensors").write_bytes(path.read_bytes()[:200])
    torch.save({"w": torch.zeros(2)}, tmp_path / "pickle.safetensors")
    for method, sentence in (
        (Noise2Noise(width=4, weights=str(tmp_path / "none.safetensors")), "do not exist; name a file that"),
        (Noise2Noise(width=4, weights=str(tmp_path / "cut.safetensors")), "is not a whole safetensors file"),
        (Noise2Noise(width=4, weights=str(tmp_path / "pickle.safetensors")), "is not a whole safetensors file"),
        (Noise2Noise(width=5, weights=str(path)), "weights of another shape"),
        (Neighbor2NeighborMany(width=4, weights=str(path)), "weights of noise2noise for 3 channels, not of neighbor"),
    ):
        with pytest.raises(B2GError, match=sentence) as raised:
            b2g.denoise(picture(), method, progress=False)
        assert "\n" not in str(raised.value)


def test_places_that_cannot_be_written_are_refused_before_the_first_step(tmp_path, monkeypatch):
    method, recipe = small()
    for place, sentence in ((tmp_path / "a.pth", "a .safetensors file"), (tmp_path / "no" / "a.safetensors", "folder")):
        with pytest.raises(B2GError, match=sentence):
            train(method, recipe, place)
    monkeypatch.setattr(os, "access", lambda folder, how: (folder, how) != (tmp_path, os.W_OK))
    with pytest.raises(B2GError, match="its folder is not yours to write to"):
        train(method, recipe, tmp_path / "a.safetensors")


def test_what_cannot_be_written_at_the_end_is_gone_on_from(tmp_path, monkeypatch):
    """The checkpoint stays until the weights are there."""
    clock = iter(range(0, 10**9, 61))
    monkeypatch.setattr(engine, "time", types.SimpleNamespace(perf_counter=lambda: float(next(clock))))
    whole = trained(tmp_path)
    method, recipe = small()
    place, checkpoint = tmp_path / "late.safetensors", tmp_path / "late.ckpt"

    def full(*_):
        raise OSError("No space left on device")

    with monkeypatch.context() as disk, pytest.raises(OSError):
        disk.setattr(training, "write_weights", full)
        train(method, recipe, place, precision="float32", checkpoint=checkpoint)
    assert checkpoint.exists() and not place.exists()
    train(method, recipe, place, precision="float32", checkpoint=checkpoint)
    assert place.read_bytes() == whole.path.read_bytes() and not checkpoint.exists()


# ---- releases ----


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A data folder of its own, in the place of the package's."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "manifest-released.csv").write_text(",".join(released.COLUMNS) + "\n")
    monkeypatch.setattr(released, "carried", lambda *parts: (tmp_path / "data").joinpath(*parts))
    return tmp_path / "data"


def test_released_weights_are_found_by_recipe_and_checked(tmp_path, data):
    method = Noise2Noise(width=4)
    with pytest.raises(B2GError, match="no released weights of recipe 'small' for 3 channels; run 'b2g train noise2n"):
        b2g.denoise(picture(), method, progress=False)
    path = trained(tmp_path).path
    row, again = release(path, data), release(path, data)
    assert row == again and len(released.released()) == 1 and row["name"] == "noise2noise-small-3"
    given = replace(method, weights=str(path))
    assert np.array_equal(*(b2g.denoise(picture(), m, progress=False).image for m in (method, given)))
    (data / row["file"]).write_bytes(b"something else")
    with pytest.raises(B2GError, match="missing or not the file that was released"):
        b2g.denoise(picture(), method, progress=False)


def test_what_cannot_be_released_is_refused(tmp_path, data, monkeypatch):
    path = trained(tmp_path).path
    monkeypatch.setattr(released, "MOST_BYTES", 100)
    with pytest.raises(B2GError, match="at most 100"):
        release(path, data)
    monkeypatch.undo()
    write_weights(tmp_path / "other.safetensors", {"w": torch.zeros(2, 2)}, {})
    with pytest.raises(B2GError, match="was not written by 'b2g train'"):
        release(tmp_path / "other.safetensors", data)
    for text in ("{}", "[]", "{", ""):
        path.with_suffix(".json").write_text(text)
        with pytest.raises(B2GError, match="is missing, damaged or another one's"):
            release(path, data)
    path.with_suffix(".json").unlink()
    with pytest.raises(B2GError, match="is missing, damaged or another one's"):
        release(path, data)


def test_every_released_file_is_there_and_small():
    rows = released.released()
    for row in rows.values():
        path = released.carried(*row["file"].split("/"))
        content = path.read_bytes()
        assert len(content) == int(row["bytes"]) <= released.MOST_BYTES
        assert hashlib.sha256(content).hexdigest() == row["sha256"]
        assert released.carried(*row["record"].split("/")).is_file()
    assert sum(int(row["bytes"]) for row in rows.values()) < 20_000_000


# ---- the command line ----


def test_train_and_release_say_what_they_wrote(tmp_path, data, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    recipes = Noise2Noise.recipes | {"small": replace(Noise2Noise.recipes["small"], **TINY)}
    monkeypatch.setattr(Noise2Noise, "recipes", recipes)
    command = ["train", "noise2noise", "--channels", "1", "--limit", "2", "--device", "cpu", "--quiet"]
    assert cli.main(command) == 0
    line = capsys.readouterr().out
    assert line.startswith("noise2noise -> noise2noise-small-first2-1.safetensors  3 steps, loss ") and line.count("\n") == 1
    assert cli.main(["release", "noise2noise-small-first2-1.safetensors", "--data", str(data)]) == 0
    assert list(released.released()) == ["noise2noise-small-first2-1"]  # a trial does not pass for the training
    assert cli.main([*command, "-o", "x.pth"]) == 2 and "a .safetensors file" in capsys.readouterr().err
    assert cli.main(["train", "lichi"]) == 2 and "'lichi' is no method to be trained" in capsys.readouterr().err
    assert cli.main(["release", "none.safetensors", "--data", str(data)]) == 2
    assert cli.main(["release", "none.safetensors", "--data", str(tmp_path)]) == 2


def test_a_changed_recipe_has_another_name():
    method, recipe = chosen("neighbor2neighbor_many", "full", dict(sigma=50.0, noise="fresh", channels=1))
    assert method.gain == 0.1 and named(recipe, method.chosen_recipe()).name == "full-fresh-50-1108200"
    method, recipe = chosen("noise2noise", "small", dict(channels=1))
    assert named(recipe, method.chosen_recipe()) == recipe and recipe.name == "small"
    assert named(recipe, method.chosen_recipe(), 5) == replace(recipe, name="small-first5")
    with pytest.raises(B2GError, match="has no recipe 'large': choose one of full, small"):
        chosen("noise2noise", "large", {})
