import dataclasses
import types

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image

import b2g
from b2g import images
from b2g.errors import B2GError, Diverged
from b2g.face import choose_device, choose_method
from b2g.method import Denoised
from b2g.methods import B2G, METHODS, ZSN2N
from b2g.seeds import seed_for

PICTURE = np.ascontiguousarray(skimage.data.astronaut()[20:37, 200:219])  # uint8, 17 x 19
TINY = ZSN2N(steps=2, width=4)


def tiny(noisy, **more):
    return b2g.denoise(noisy, TINY, **({"progress": False, "precision": "float32"} | more))


# ---- what goes in comes out ----


GIVEN = {
    "array": lambda unit: unit, "gray array": lambda unit: unit[..., 0],
    "batch": lambda unit: np.stack([unit, 1 - unit]), "float64": lambda unit: unit.astype(np.float64),
    "8 bit": lambda unit: (unit * 255).round().astype(np.uint8),
    "16 bit": lambda unit: (unit * 65535).round().astype(np.uint16),
    "tensor": lambda unit: torch.from_numpy(unit).permute(2, 0, 1),
    "gray tensor": lambda unit: torch.from_numpy(unit[..., 0]),
    "tensors": lambda unit: torch.from_numpy(np.stack([unit, 1 - unit])).permute(0, 3, 1, 2),
    "half": lambda unit: torch.from_numpy(unit).permute(2, 0, 1).half(),
}  # fmt: skip


@pytest.mark.parametrize("kind", GIVEN)
def test_the_answer_is_of_the_callers_own_kind(kind):
    given = GIVEN[kind](PICTURE.astype(np.float32) / 255)
    image = tiny(given).image
    assert type(image) is type(given) and image.shape == given.shape and image.dtype == given.dtype
    white = {"8 bit": 255, "16 bit": 65535}.get(kind, 1)
    assert np.abs(np.asarray(image, float) / white - np.asarray(given, float) / white).mean() < 0.3


def test_all_kinds_of_one_picture_have_one_answer(tmp_path):
    images.write(tmp_path / "in.png", PICTURE)
    unit = PICTURE.astype(np.float32) / 255
    expected = tiny(PICTURE).image
    assert expected.dtype == np.uint8
    assert np.array_equal(tiny(str(tmp_path / "in.png")).image, expected)
    assert np.array_equal(tiny(tmp_path / "in.png").image, expected)
    pil = tiny(Image.fromarray(PICTURE)).image
    assert isinstance(pil, Image.Image) and np.array_equal(np.asarray(pil), expected)
    assert np.array_equal((tiny(unit).image * 255).round().astype(np.uint8), expected)
    tensor = tiny(torch.from_numpy(unit).permute(2, 0, 1)).image
    assert np.array_equal((tensor.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8), expected)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_in_sixteen_bits_out(suffix, tmp_path):
    deep = PICTURE.astype(np.uint16) * 257 + 3
    images.write(tmp_path / f"in{suffix}", deep)
    result = tiny(tmp_path / f"in{suffix}")
    result.save(tmp_path / f"out{suffix}")
    written = images.read(tmp_path / f"out{suffix}")
    assert result.image.dtype == written.dtype == np.uint16 and np.array_equal(written, result.image)
    assert len(np.unique(written % 257)) > 100  # more than 8 bits blown up


def test_the_input_is_left_as_it_was():
    array, tensor = PICTURE.astype(np.float32) / 255, torch.rand(3, 16, 18).requires_grad_()
    copies = array.copy(), tensor.detach().clone()
    tiny(array), tiny(tensor)
    assert np.array_equal(array, copies[0]) and torch.equal(tensor, copies[1]) and tensor.grad is None


# ---- several pictures ----


@pytest.mark.parametrize("method", ["zs_n2n", "b2g"])
def test_a_batch_is_its_pictures_one_by_one_each_with_a_seed_of_its_own(method):
    unit = PICTURE[:16, :16].astype(np.float32) / 255
    batch = np.stack([unit, unit, unit[::-1]])
    run = lambda noisy, seed: b2g.denoise(  # noqa: E731
        noisy, method, "smoke", steps=2, width=4, seed=seed, progress=False, precision="float32"
    )
    together = run(batch, 7)
    singles = [run(one, 7 if k == 0 else seed_for(7, k)) for k, one in enumerate(batch)]
    assert all(np.array_equal(a, b.image) for a, b in zip(together.image, singles))
    assert not np.array_equal(together.image[0], together.image[1])
    listed = run(list(batch), 7)
    assert isinstance(listed.image, list) and all(
        np.array_equal(a, b) for a, b in zip(listed.image, together.image)
    )
    lose = lambda history: [[(e["step"], e["loss"]) for e in one] for one in history]  # noqa: E731
    assert lose(together.history) == lose(listed.history) == lose([one.history for one in singles])
    assert listed.seconds > 0 and listed.seed == together.seed == 7
    assert np.array_equal(run(batch[:1], 7).image[0], singles[0].image)


@pytest.mark.parametrize("wish", [True, 2])
def test_a_batch_side_by_side_has_the_answers_and_histories_of_one_after_another(wish):
    """ZS-N2N draws nothing but its first weights, so nothing but rounding may differ."""
    batch = np.stack([PICTURE[:16, :16], PICTURE[1:, 3:], PICTURE[:16, 2:18]])[:, :16, :16]
    apart, ours = (tiny(batch, seed=5, clean=batch, together=way) for way in (False, wish))
    assert ours.image.dtype == np.uint8 and ours.image.shape == batch.shape
    assert np.abs(ours.image.astype(int) - apart.image).max() <= 1
    for one, other in zip(ours.history, apart.history, strict=True):
        assert [entry["loss"] for entry in one] == pytest.approx([entry["loss"] for entry in other], rel=1e-4)
    for x, z, history in zip(batch, ours.image, ours.history, strict=True):
        assert history[-1]["psnr"] == pytest.approx(b2g.psnr(x, z), abs=0.05)  # the image is rounded to 8 bits
    assert (ours.identity, ours.config, ours.seed) == (apart.identity, apart.config, apart.seed)


def test_the_pictures_that_diverged_side_by_side_are_named(monkeypatch):
    answers = [Denoised(torch.zeros(1, 3, 17, 19)), Diverged("one"), Diverged("two")]
    monkeypatch.setattr("b2g.face.denoise_together", lambda *_: answers)
    with pytest.raises(Diverged, match=r"zs_n2n diverged on picture 1, 2 \(counted from 0\) of 3; lower"):
        tiny(np.stack([PICTURE] * 3), together=True)


def test_a_list_may_mix_sizes_and_kinds(tmp_path):
    images.write(tmp_path / "in.png", PICTURE)
    given = [PICTURE, torch.rand(1, 20, 16), Image.fromarray(PICTURE[..., 0]), tmp_path / "in.png"]
    answers = tiny(given, clean=[PICTURE, torch.rand(1, 20, 16), PICTURE[..., 0], PICTURE]).image
    assert [type(answer) for answer in answers] == [np.ndarray, torch.Tensor, Image.Image, np.ndarray]
    assert answers[1].shape == (1, 20, 16) and answers[2].mode == "L"


def test_bad_pictures_of_a_list_are_refused_before_the_first_fit(monkeypatch):
    monkeypatch.setattr(ZSN2N, "__call__", lambda *_: pytest.fail("a fit was begun"))
    for later in (np.zeros((8, 8)), "nowhere.png", np.full((16, 16), np.nan)):
        with pytest.raises(B2GError):
            tiny([PICTURE, later])
    with pytest.raises(B2GError, match="clean"):
        tiny([PICTURE, PICTURE], clean=[PICTURE, PICTURE[:16]])


# ---- history, result, saving ----


def test_the_result_tells_what_was_done():
    result = tiny(PICTURE, seed=11)
    assert result.method == "zs_n2n" and result.seed == 11 and result.device == "cpu" and result.seconds > 0
    assert (
        result.config == {"steps": 2, "learning_rate": 1e-3, "width": 4}
        and result.identity == TINY.identity()
    )
    assert [set(entry) for entry in result.history] == [{"step", "loss", "seconds"}] * 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.seed = 1


def test_the_clean_picture_is_shown_against_and_never_used():
    clean = PICTURE.astype(np.float32) / 255
    noisy = b2g.add_noise(clean, "gaussian", 25, seed=0)
    run = lambda **more: b2g.denoise(noisy, B2G.profile("smoke", steps=3), progress=False, **more)  # noqa: E731
    plain, shown = run(), run(clean=clean)
    assert np.array_equal(plain.image, shown.image)
    assert shown.history[-1]["psnr"] == pytest.approx(b2g.psnr(clean, shown.image), abs=1e-3)
    assert "psnr" not in plain.history[-1]


def test_save_writes_one_picture_whole(tmp_path):
    result = tiny(PICTURE)
    result.save(tmp_path / "out.png")
    assert np.array_equal(images.read(tmp_path / "out.png"), result.image)
    assert [path.name for path in tmp_path.iterdir()] == ["out.png"]
    with pytest.raises(B2GError, match="save writes one picture"):
        tiny([PICTURE, PICTURE]).save(tmp_path / "two.png")
    with pytest.raises(B2GError, match="one by one"):
        tiny(np.stack([PICTURE, PICTURE])).save(tmp_path / "two.png")
    with pytest.raises(B2GError, match="suffix"):
        result.save(tmp_path / "out.xyz")
    assert [path.name for path in tmp_path.iterdir()] == ["out.png"]


# ---- choosing ----


def test_methods_are_chosen_by_name_profile_and_setting():
    assert choose_method() == B2G.profile("fast")
    assert choose_method("b2g", "smoke", steps=7) == B2G.profile("smoke").changed(steps=7)
    assert choose_method(TINY) == TINY
    assert choose_method(TINY, steps=9) == ZSN2N(steps=9, width=4)


@pytest.mark.parametrize("arguments, sentence", [
    (dict(method="dncnn"), "there is no method 'dncnn': choose one of b2g, consensus, self2self, zs_n2n, bm3d"),
    (dict(method=B2G), "there is no method"),
    (dict(method=TINY, profile="smoke"), "profile chooses the settings of a method by name"),
    (dict(method="b2g", profile="quick"), "b2g has no profile 'quick'"),
    (dict(method="zs_n2n", stepps=1), "zs_n2n has no setting 'stepps'"),
    (dict(method=TINY, steps=0), "steps must be at least 1"),
    (dict(device="tpu"), "device must be 'auto', 'cpu' or 'cuda', not 'tpu'"),
    (dict(device="meta"), "device must be 'auto', 'cpu' or 'cuda', not 'meta'"),
    (dict(device="cuda:99"), "device 'cuda:99' is not on this machine; use device='auto'"),
    (dict(seed=-1), "seed must be a whole number from 0 up, not -1"),
    (dict(seed=1.5), "seed must be a whole number from 0 up, not 1.5"),
    (dict(seed=True), "seed must be a whole number from 0 up, not True"),
    (dict(seed="0"), "seed must be a whole number from 0 up, not '0'"),
    (dict(precision="float16"), "precision must be 'auto', 'float32' or 'bfloat16', not 'float16'"),
    (dict(clean=PICTURE[:16]), r"clean is \(1, 3, 16, 19\) .* but noisy is \(1, 3, 17, 19\)"),
    (dict(clean=PICTURE[..., 0]), r"clean is \(1, 1, 17, 19\)"),
    (dict(noisy=[]), "the list of pictures is empty"),
    (dict(noisy=[PICTURE] * 2, clean=[PICTURE]), "clean must be a list of 2 pictures"),
    (dict(noisy=[PICTURE] * 2, clean="clean.png"), "clean must be a list of 2 pictures"),
    (dict(noisy=[PICTURE] * 2, clean=PICTURE), "clean must be a list of 2 pictures"),
    (dict(noisy=[PICTURE] * 2, checkpoint="x.ckpt"), "checkpoint serves one picture"),
    (dict(noisy=[PICTURE] * 2, together=True), "together serves pictures of one size in one array"),
    (dict(together="yes"), "together must be 'auto', True, False or a whole number from 1 up, not 'yes'"),
    (dict(noisy=np.stack([PICTURE] * 2), method="bm3d", together=2), "bm3d cannot fit pictures side by side"),
    (dict(noisy=np.stack([PICTURE] * 2), checkpoint="x.ckpt"), "checkpoint serves one picture"),
    (dict(checkpoint="nowhere/x.ckpt"), "its folder does not exist"),
    (dict(noisy=PICTURE[:15]), "at least 16"),
    (dict(noisy=np.where(PICTURE > 100, np.nan, PICTURE / 255)), "NaN"),
    (dict(noisy=PICTURE.astype(float)), "divide by 255"),
    (dict(noisy=PICTURE[..., :2]), "2 channels"),
    (dict(noisy="nowhere.png"), "nowhere.png does not exist"),
    (dict(noisy=None), "a picture cannot be made from"),
], ids=lambda value: str(value)[:40] if isinstance(value, str) else "")  # fmt: skip
def test_bad_input_is_refused_in_one_sentence(arguments, sentence):
    with pytest.raises(B2GError, match=sentence) as raised:
        b2g.denoise(**({"noisy": PICTURE, "method": TINY, "progress": False} | arguments))
    assert "\n" not in str(raised.value)


def test_whole_numbers_of_numpy_are_seeds():
    assert np.array_equal(tiny(PICTURE, seed=np.int64(5)).image, tiny(PICTURE, seed=5).image)
    assert tiny(PICTURE, seed=np.int64(5)).seed == 5


def test_devices(monkeypatch):
    assert choose_device("cpu") == choose_device(torch.device("cpu")) == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device().type == "cuda" and choose_device("cuda:1").index == 1
    with pytest.raises(B2GError, match="not on this machine"):
        choose_device("cuda:2")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device().type == "cpu"


def test_an_estimate_that_is_not_finite_is_never_handed_out(monkeypatch):
    monkeypatch.setattr(ZSN2N, "__call__", lambda self, noisy, _: Denoised(noisy * float("nan")))
    with pytest.raises(Diverged, match="zs_n2n diverged: its estimate is not finite"):
        tiny(PICTURE)


def test_a_rate_that_is_too_large_diverges_in_one_sentence():
    with pytest.raises(Diverged, match="diverged"):
        b2g.denoise(
            PICTURE, ZSN2N(steps=60, width=4, learning_rate=1e12), progress=False, precision="float32"
        )


# ---- whatever the caller's own state is ----


@pytest.mark.parametrize("around", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("method", ["b2g", "zs_n2n"])
def test_it_fits_inside_no_grad_and_inference_mode_too(around, method):
    run = lambda: (
        b2g.denoise(  # noqa: E731
            torch.from_numpy(PICTURE).permute(2, 0, 1), method, "smoke", steps=2, width=4, progress=False
        ).image
    )
    expected = run()
    with around():
        found = run()
        assert not torch.is_grad_enabled()
    assert torch.equal(found, expected) and torch.is_grad_enabled()


def test_another_default_dtype_does_not_matter():
    expected = tiny(PICTURE).image
    torch.set_default_dtype(torch.float64)
    try:
        found = tiny(PICTURE).image
        b2g.denoise(
            PICTURE, B2G.profile("smoke", steps=2, mask="gradient"), progress=False, precision="float32"
        )
    finally:
        torch.set_default_dtype(torch.float32)
    assert found.shape == expected.shape


def test_the_callers_random_numbers_and_threads_are_left_alone():
    state, numbers, threads = torch.get_rng_state(), np.random.get_state()[1].copy(), torch.get_num_threads()
    tiny(PICTURE)
    b2g.denoise(PICTURE, B2G.profile("smoke", steps=2), progress=False)
    assert torch.equal(state, torch.get_rng_state()) and np.array_equal(numbers, np.random.get_state()[1])
    assert torch.get_num_threads() == threads


def test_progress_is_for_terminals(capsys):
    tiny(PICTURE, progress=True)
    tiny(PICTURE, progress=False)
    assert capsys.readouterr() == ("", "")


def test_the_names_of_the_face():
    assert set(b2g.__all__) <= set(dir(b2g)) and isinstance(b2g.methods, types.ModuleType)
    assert b2g.methods.METHODS is METHODS and b2g.__version__
