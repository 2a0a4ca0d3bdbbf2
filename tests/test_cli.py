import dataclasses
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import tifffile
from PIL import Image

import b2g
import b2g.__main__ as cli
from b2g import images
from b2g.methods import METHODS, ZSN2N

PICTURE = np.ascontiguousarray(skimage.data.astronaut()[20:37, 200:219])  # uint8, 17 x 19
TINY = ["--method", "zs_n2n", "--set", "steps=2", "--set", "width=4", "--precision", "float32"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Each test works in a folder of its own with in.png, gray.tif, deep.tif, small.png and text.png."""
    monkeypatch.chdir(tmp_path)
    images.write("in.png", PICTURE)
    images.write("gray.tif", PICTURE[..., 0])
    images.write("deep.tif", PICTURE.astype(np.uint16) * 257 + 3)
    (tmp_path / "text.png").write_text("no picture")
    Image.fromarray(PICTURE[:8, :8]).save("small.png")
    return tmp_path


def run(*arguments):
    return cli.main([str(argument) for argument in arguments])


def listing(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


# ---- denoise ----


def test_a_file_becomes_the_file_that_the_face_would_give(folder, capsys):
    assert run("denoise", "in.png", "-o", "out.png", "--seed", 3, *TINY) == 0
    expected = b2g.denoise(
        "in.png", ZSN2N(steps=2, width=4), seed=3, precision="float32", progress=False
    ).image
    assert np.array_equal(images.read("out.png"), expected)
    out, error = capsys.readouterr()
    assert re.fullmatch(r"in\.png -> out\.png  \d+\.\d s on \w+\n", out) and error == ""
    assert images.read("in.png").tobytes() == PICTURE.tobytes()


@pytest.mark.parametrize("name, dtype, shape", [
    ("deep.tif", np.uint16, (17, 19, 3)), ("gray.tif", np.uint8, (17, 19)), ("in.png", np.uint8, (17, 19, 3)),
])  # fmt: skip
def test_depth_and_colour_are_kept_and_the_name_says_denoised(name, dtype, shape, folder):
    assert run("denoise", name, *TINY) == 0
    stem, suffix = name.split(".")
    written = images.read(f"{stem}-denoised.{suffix}")
    assert written.dtype == dtype and written.shape == shape


def test_the_answer_goes_beside_its_picture(folder):
    (folder / "sub").mkdir()
    os.rename("in.png", "sub/in.png")
    assert run("denoise", "sub/in.png", *TINY) == 0 and (folder / "sub" / "in-denoised.png").exists()


def test_tiles_are_those_of_the_face_and_are_refused_before_anything_is_done(folder, capsys):
    Image.fromarray(skimage.data.astronaut()[:40, :50]).save("large.png")
    assert run("denoise", "large.png", "-o", "out.png", "--tile", 32, "--overlap", 8, *TINY) == 0
    expected = b2g.denoise("large.png", ZSN2N(steps=2, width=4), precision="float32", progress=False, tile=32, overlap=8)
    assert np.array_equal(images.read("out.png"), expected.image)
    assert run("denoise", "large.png", "-o", "new/", "--tile", 8, *TINY) == 2
    assert "tile must be at least 32" in capsys.readouterr().err and not (folder / "new").exists()


def test_noise_prints_the_estimate_of_every_picture(capsys):
    pictures = [images.read(name) for name in ("in.png", "deep.tif")]
    estimates = [(b2g.estimate_sigma(picture), b2g.estimate_correlated_sigma(picture)) for picture in pictures]
    assert run("noise", "in.png", "deep.tif") == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{name}  sigma {white:.2f} of 255 if the noise is white, {shared:.2f} if neighbouring pixels share it"
        for name, (white, shared) in zip(("in.png", "deep.tif"), estimates)
    ]
    assert run("noise", "nowhere.png") == 2 and "nowhere.png" in capsys.readouterr().err


def test_a_picture_with_hardly_any_white_noise_is_said_to_be_one(capsys):
    clean = skimage.data.astronaut()[:64, :64]
    Image.fromarray(clean).save("clean.png")
    how = ["--method", "nl_ridge", "--profile", "smoke", "--quiet"]
    assert run("denoise", "clean.png", *how) == 0
    assert "hardly any white noise was found" in (said := capsys.readouterr().err) and "--set noise=correlated" in said
    assert run("denoise", "clean.png", "--noise", "gaussian:25", *how) == 0
    assert run("denoise", "clean.png", *how, "--set", "noise=correlated") == 0
    assert run("denoise", "clean.png", *how, "--set", "sigma=5") == 0
    masked = ["--profile", "smoke", "--set", "steps=2", "--set", "width=4", "--set", "head=(4, 4)", "--quiet"]
    assert run("denoise", "clean.png", *masked) == 0  # b2g where it hides pixels: no level is asked for
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", ["out", "out.v2/"])
def test_several_pictures_go_to_a_folder_that_need_not_exist(name, folder, capsys):
    assert run("denoise", "in.png", "gray.tif", "-o", f"new/{name}", *TINY) == 0
    name = name.strip("/")
    assert listing(folder / "new") == [name, f"{name}/gray-denoised.tif", f"{name}/in-denoised.png"]
    assert len(capsys.readouterr().out.splitlines()) == 2


@pytest.mark.parametrize("output", ["kept", "kept/", "new/"])
def test_one_picture_may_go_to_a_folder_too(output, folder):
    (folder / "kept").mkdir()
    assert run("denoise", "in.png", "-o", output, *TINY) == 0
    assert (folder / output / "in-denoised.png").is_file()


def test_a_picture_of_a_data_set_goes_to_the_current_folder(folder, capsys):
    assert run("denoise", "skimage/astronaut@16+200+20", "--noise", "gaussian:25", *TINY) == 0
    written = images.read("skimage-astronaut@16+200+20-denoised.png")
    clean = b2g.load("skimage/astronaut@16+200+20")
    noisy = b2g.add_noise(clean, "gaussian", 25, seed=0)
    assert written.shape == (16, 16, 3)
    before, after = re.search(r"(\S+) -> (\S+) dB", capsys.readouterr().out).groups()
    assert float(before) == pytest.approx(b2g.psnr(clean, noisy, clip=False), abs=0.006)
    assert float(after) == pytest.approx(
        b2g.psnr(clean, images.read("skimage-astronaut@16+200+20-denoised.png")), abs=0.05
    )


def test_noise_follows_the_seed_and_clean_only_scores(folder, capsys):
    for seed in (0, 1):
        assert (
            run("denoise", "in.png", "-o", f"{seed}.png", "--noise", "poisson:30", "--seed", seed, *TINY) == 0
        )
    assert (
        run("denoise", "in.png", "-o", "again.png", "--noise", "poisson:30", "--clean", "in.png", *TINY) == 0
    )
    assert (
        (folder / "0.png").read_bytes()
        == (folder / "again.png").read_bytes()
        != (folder / "1.png").read_bytes()
    )
    first, _, again = (line.split("  ")[-1] for line in capsys.readouterr().out.splitlines())
    assert first == again and first.endswith(" dB")


@pytest.mark.parametrize("text, value", [
    ("steps=7", dict(steps=7)), ("omega=1", dict(omega=1.0)), ("flips=false", dict(flips=False)),
    ("flips=False", dict(flips=False)), ("head=[8,9]", dict(head=(8, 9))), ("head=(8, 9)", dict(head=(8, 9))),
    ("head=8,9", dict(head=(8, 9))), ("mask=gradient", dict(mask="gradient")),
    ("mask='gradient'", dict(mask="gradient")),
    ("learning_rate=1e-4", dict(learning_rate=1e-4)), ('mask="gradient"', dict(mask="gradient")),
])  # fmt: skip
def test_settings_are_read_as_json_or_as_python_writes_them(text, value, monkeypatch):
    seen = []
    monkeypatch.setattr(
        b2g,
        "denoise",
        lambda noisy, method, **_: seen.append(method) or (_ for _ in ()).throw(KeyboardInterrupt),
    )
    assert run("denoise", "in.png", "--set", text) == 130
    assert seen == [METHODS["b2g"].profile("fast", **value)]


def test_a_killed_fit_leaves_no_file_and_says_so(folder, monkeypatch, capsys):
    before = listing(folder)

    def killed(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(b2g, "denoise", killed)
    assert run("denoise", "in.png", "-o", "out.png") == 130
    assert listing(folder) == before
    assert capsys.readouterr().err == "b2g denoise: interrupted; no file was left half-written.\n"


def test_a_write_that_fails_leaves_no_file(folder, monkeypatch, capsys):
    before = listing(folder)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert run("denoise", "in.png", "-o", "out.png", *TINY) == 2
    assert listing(folder) == before and "No space left on device" in capsys.readouterr().err


# ---- bad input ----


BAD = {
    "missing file": ("denoise nowhere.png", "nowhere.png does not exist"),
    "a later missing file": ("denoise in.png nowhere.png -o out", "nowhere.png does not exist"),
    "not a picture": ("denoise text.png", "text.png cannot be read as a picture"),
    "a folder": ("denoise .", "cannot be read as a picture"),
    "an empty name": ("denoise ''", "cannot be read as a picture"),
    "too small": ("denoise small.png", "small.png is 8 x 8 pixels"),
    "unknown picture of a data set": ("denoise skimage/astronot", "did you mean skimage/astronaut"),
    "a bad crop": ("denoise skimage/astronaut@9999", "reaches beyond the picture"),
    "unknown method": ("denoise in.png --method dncnn", "there is no method 'dncnn'"),
    "unknown profile": ("denoise in.png --profile quick", "b2g has no profile 'quick'"),
    "unknown setting": ("denoise in.png --set stepps=3", "b2g has no setting 'stepps'"),
    "a setting without a value": ("denoise in.png --set steps", "--set takes NAME=VALUE"),
    "a setting of another type": ("denoise in.png --set steps=many", "setting steps is of type int"),
    "an impossible setting": ("denoise in.png --set steps=0", "steps must be at least 1"),
    "a setting that is no number": ("denoise in.png --set omega=NaN", "omega must be a finite number"),
    "unknown device": ("denoise in.png --device tpu", "device must be 'auto', 'cpu' or 'cuda', not 'tpu'"),
    "absent device": ("denoise in.png --device cuda:99", "device 'cuda:99' is not on this machine"),
    "unknown precision": (
        "denoise in.png --profile smoke --precision half",
        "precision must be 'auto', 'float32' or 'bfloat16'",
    ),
    "precision of a method without": ("denoise gray.tif --method bm3d --precision half", "precision must be"),
    "unknown noise": ("denoise in.png --noise salt:5", "noise of kind 'salt' is not known"),
    "noise without a level": ("denoise in.png --noise gaussian", "--noise takes KIND:LEVEL"),
    "noise of no level": ("denoise in.png --noise gaussian:loud", "--noise takes KIND:LEVEL"),
    "negative noise": ("denoise in.png --noise gaussian:-5", "level -5.0"),
    "noise of NaN": ("denoise in.png --noise gaussian:nan", "level nan"),
    "negative seed": ("denoise in.png --seed -1", "seed must be a whole number"),
    "negative seed with noise": ("denoise in.png --seed -1 --noise gaussian:5", "seed"),
    "several pictures, one file": ("denoise in.png gray.tif -o in.png", "several pictures need a folder"),
    "several pictures, one new file": (
        "denoise in.png gray.tif -o out.png",
        "several pictures need a folder",
    ),
    "several pictures, a file in the way": ("denoise in.png gray.tif -o text.png/out", "text.png"),
    "one picture twice": ("denoise in.png in.png -o out", "in-denoised.png"),
    "an unknown suffix": ("denoise in.png -o out.xyz", "names no format"),
    "no suffix": ("denoise in.png -o out", "names no format"),
    "16 bits to JPEG": ("denoise deep.tif -o out.jpg", "holds 8 bits"),
    "no such folder": ("denoise in.png -o nowhere/out.png", "nowhere"),
    "clean of another size": ("denoise in.png --clean skimage/astronaut@16", "clean is"),
    "clean of another colour": ("denoise in.png --clean gray.tif", "clean is"),
    "missing clean": ("denoise in.png --clean nowhere.png", "nowhere.png does not exist"),
    "clean for several": (
        "denoise in.png gray.tif --clean in.png",
        "--clean and --checkpoint go with one picture",
    ),
    "checkpoint in no folder": (
        "denoise in.png --profile smoke --checkpoint nowhere/x.ckpt",
        "its folder does not exist",
    ),
    "checkpoint that is none": (
        "denoise in.png --profile smoke --checkpoint text.png",
        "is not a checkpoint",
    ),
    "score of two sizes": ("score in.png skimage/astronaut@16", "score needs equal sizes"),
    "score of two colours": (
        "score in.png gray.tif",
        "19x17 with 3 channels but gray.tif is 19x17 with 1 channel:",
    ),
    "score of nothing": ("score in.png nowhere.png", "nowhere.png does not exist"),
    "unknown data set": ("datasets set99", "data set 'set99' is not known"),
    "fetch what": ("datasets --fetch", "--fetch"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_exit_code_2_and_one_line(case, folder, capsys, monkeypatch):
    monkeypatch.setattr(ZSN2N, "__call__", lambda *_: pytest.fail("a fit was begun"))
    line, sentence = BAD[case]
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    arguments = shlex.split(line)
    if arguments[0] == "denoise" and not {"--method", "--set", "--profile"} & set(arguments):
        arguments += TINY
    assert run(*arguments) == 2
    out, error = capsys.readouterr()
    assert out == "" and error.endswith("\n") and error.count("\n") == 1
    assert error.startswith(f"b2g {arguments[0]}: ") and sentence in error
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert (
        not (folder / "out").exists()
        and not (folder / "nowhere").exists()
        and not (folder / "out.png").exists()
    )


def test_a_picture_with_nan_is_refused(folder, capsys):
    spoilt = PICTURE.astype(np.float32) / 255
    spoilt[3, 4, 1] = np.nan
    tifffile.imwrite("nan.tif", spoilt, photometric="rgb")
    assert run("denoise", "nan.tif", *TINY) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "nan.tif has 1 NaN" in error


# ---- the other commands ----


def test_score_prints_the_measures_of_the_package(capsys):
    images.write("noisy.png", b2g.add_noise(PICTURE, "gaussian", 25, seed=0))
    assert run("score", "in.png", "noisy.png") == 0
    clean, noisy = images.read("in.png"), images.read("noisy.png")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"PSNR {b2g.psnr(clean, noisy):.2f} dB"
    assert lines[1].startswith(f"SSIM {b2g.ssim(clean, noisy):.4f} ")
    assert lines[2].startswith(f"SSIM {b2g.ssim(clean, noisy, 'matlab-volume'):.4f} ") and len(lines) == 3
    assert run("score", "gray.tif", "gray.tif") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "PSNR inf dB" and lines[1].startswith("SSIM 1.0000") and len(lines) == 2


def test_methods_lists_every_method_with_its_facts_by_label(capsys):
    assert run("methods") == 0
    head, *groups = capsys.readouterr().out.rstrip("\n").split("\n\n")
    starts = [head.index(title) for title in ("name", "label", "cost", "default", "profiles", "source")]
    cells = [[[line[a:b].strip() for a, b in zip(starts, [*starts[1:], None])] for line in group.split("\n")]
             for group in groups]  # fmt: skip
    assert sorted(row[0] for rows in cells for row in rows) == sorted(METHODS)
    assert len({rows[0][1] for rows in cells}) == len(cells) == len({m.label for m in METHODS.values()})
    for rows in cells:
        for name, label, *facts in rows:
            method = METHODS[name]
            profiles = ", ".join(method.profiles)
            assert label == method.label == rows[0][1]
            assert facts == [method.cost, method.default_profile, profiles, method.source]


@pytest.mark.parametrize("name", ["zs_n2n", "nlm"])
def test_methods_with_a_name_tells_its_settings(name, capsys):
    method = METHODS[name]
    assert run("methods", name) == 0
    out = capsys.readouterr().out
    for fact in (method.label, method.cost, method.source, method.__doc__.strip()[:60]):
        assert fact in out
    for field in dataclasses.fields(method):
        assert f"\n  {field.name} = {field.default!r}\n" in out
    for profile, changes in method.profiles.items():
        default = " (the default)" if profile == method.default_profile else ""
        told = ", ".join(f"{key}={value!r}" for key, value in changes.items()) or "nothing"
        assert f"\n  {profile}{default}: {told}\n" in out


def test_an_inherited_setting_is_explained_and_an_unknown_method_refused(capsys):
    assert run("methods", "tv") == 0 and "``stride`` is the distance" in capsys.readouterr().out
    assert run("methods", "median") == 2
    error = capsys.readouterr().err
    assert error.startswith("b2g methods: method 'median' is not known; choose one of b2g,") and error.count("\n") == 1


def test_datasets_lists_the_sets_and_the_pictures_of_one(capsys):
    assert run("datasets") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [entry.dataset for entry in b2g.datasets.describe()]
    assert run("datasets", "skimage") == 0
    assert capsys.readouterr().out.split() == b2g.datasets.names("skimage")
    assert run("datasets", "skimage", "--fetch") == 0  # these come with scikit-image: nothing to download


@pytest.mark.parametrize(
    "arguments", [[], ["denoise"], ["sharpen"], ["denoise", "in.png", "--sigma", "5"], ["score", "in.png"]]
)
def test_a_line_that_cannot_be_parsed_is_exit_code_2(arguments, capsys):
    with pytest.raises(SystemExit) as raised:
        run(*arguments)
    assert raised.value.code == 2 and "usage: b2g" in capsys.readouterr().err


# ---- as a program ----


def start(*arguments):
    environment = os.environ | {"PYTHONPATH": str(Path(b2g.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "b2g", *arguments]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_the_program_ends_with_the_code_and_no_traceback():
    with start("denoise", "nowhere.png") as program:
        out, error = program.communicate()
    assert program.returncode == 2 and out == ""
    assert error.startswith("b2g denoise: nowhere.png does not exist") and error.count("\n") == 1


def test_a_reader_that_has_seen_enough_is_no_error():
    with start("datasets", "bsd300") as program:
        program.stdout.close()
        assert program.stderr.read() == ""
    assert program.returncode == 0
