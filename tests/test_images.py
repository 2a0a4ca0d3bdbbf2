import os

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image, ImageCms

from b2g import files
from b2g.errors import B2GError
from b2g.images import check_writable, read, to_batch, write

WHITE = {"uint8": 255, "uint16": 65535}
SHAPES = [(17, 20), (17, 20, 1), (17, 20, 3), (17, 20, 4), (2, 17, 20, 1), (2, 17, 20, 3), (2, 17, 20, 4)]
DTYPES = ["uint8", "uint16", "float16", "float32", "float64"]


def picture(shape, dtype="uint8", seed=0):
    """Random values that fill the depth; a fourth channel is opaque."""
    values = np.random.RandomState(seed).rand(*shape)
    array = (values * WHITE[dtype] + 0.5 if dtype in WHITE else values).astype(dtype)
    if len(shape) > 2 and shape[-1] in (2, 4):
        array[..., -1] = WHITE.get(dtype, 1)
    return array


def refused(image, *words):
    with pytest.raises(B2GError) as caught:
        to_batch(image)
    message = str(caught.value)
    assert "\n" not in message and not message.endswith(".") and message.count("; ") == 1, message
    for word in words:
        assert word in message, message


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_array_in_and_out(shape, dtype):
    array = picture(shape, dtype)
    kept = array.copy()
    incoming = to_batch(array)
    batch = incoming.batch
    count, height, width = (1, *shape[:2]) if len(shape) < 4 else shape[:3]
    colours = 3 if shape[-1] in (3, 4) else 1
    assert batch.dtype == torch.float32 and batch.is_contiguous()
    assert batch.shape == (count, colours, height, width)
    for n, c, y, x in [(0, 0, 0, 0), (count - 1, colours - 1, 3, 11), (0, colours - 1, 16, 19)]:
        pixel = (array if len(shape) == 4 else array[None])[n]
        value = pixel[y, x] if pixel.ndim == 2 else pixel[y, x, c]
        assert batch[n, c, y, x].item() == pytest.approx(float(value) / WHITE.get(dtype, 1), abs=1e-7)
    back = incoming.restore(batch)
    assert isinstance(back, np.ndarray) and back.dtype == array.dtype and back.shape == array.shape
    np.testing.assert_allclose(back, array, rtol=0, atol=0 if dtype in WHITE else 6e-8)
    batch.zero_(), back.fill(0)
    assert np.array_equal(array, kept), "the caller's array was written to"


@pytest.mark.parametrize("shape", [(17, 20), (1, 17, 20), (3, 17, 20), (2, 1, 17, 20), (2, 3, 17, 20)])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float16", "bfloat16", "float32", "float64"])
def test_tensor_in_and_out(shape, dtype):
    values = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    dtype = getattr(torch, dtype)
    white = WHITE.get(str(dtype)[6:], 1)
    tensor = (values * white).to(dtype)
    kept = tensor.clone()
    incoming = to_batch(tensor)
    assert torch.equal(incoming.batch.flatten(), tensor.flatten().to(torch.float32) / white)
    assert incoming.batch.shape == (1,) * (4 - len(shape)) + shape
    back = incoming.restore(incoming.batch)
    assert back.dtype == dtype and back.shape == shape and back.device == tensor.device
    assert torch.equal(back, tensor.float().double() if dtype == torch.float64 else tensor)
    incoming.batch.zero_(), back.zero_()
    assert torch.equal(tensor, kept), "the caller's tensor was written to"


@pytest.mark.parametrize("dtype, given, wanted", [
    ("uint8", [-0.4, 0.0, 0.1, 0.9990, 1.7], [0, 0, 26, 255, 255]),  # 0.1 is 25.5, to the even 26
    ("uint16", [-0.4, 0.0, 0.5, 0.99999, 1.7], [0, 0, 32768, 65534, 65535]),
    ("float32", [-0.4, 0.0, 0.1, 0.9990, 1.7], [0, 0, 0.1, 0.9990, 1]),
])
@pytest.mark.parametrize("torched", [False, True])
def test_restore_clips_and_rounds(dtype, given, wanted, torched):
    array = np.zeros((16, 16), dtype)
    incoming = to_batch(torch.from_numpy(array) if torched else array)
    estimate = torch.zeros(1, 1, 16, 16)
    estimate[0, 0, 0, :5] = torch.tensor(given)
    back = np.asarray(incoming.restore(estimate))
    np.testing.assert_allclose(back[0, :5].astype(float), wanted, rtol=1e-6)
    assert back.flatten()[5:].max() == 0


def test_noise_beyond_white_and_black_comes_in_unclipped():
    array = np.linspace(-0.7, 1.9, 400, dtype=np.float32).reshape(20, 20)
    incoming = to_batch(array)
    assert np.array_equal(incoming.batch[0, 0].numpy(), array)
    assert np.array_equal(incoming.arrange(incoming.batch), array)
    assert np.array_equal(incoming.restore(incoming.batch), array.clip(0, 1))


def test_big_endian_and_strided_arrays():
    array = picture((40, 60), "uint16")
    for view in (array.astype(">u2"), array[::-1, ::2], np.asfortranarray(array)):
        incoming = to_batch(view)
        back = incoming.restore(incoming.batch)
        assert back.dtype == view.dtype and np.array_equal(back, view)


def test_an_estimate_of_another_picture_is_refused():
    incoming = to_batch(picture((17, 20, 3)))
    for method in (incoming.restore, incoming.arrange):
        with pytest.raises(B2GError, match="does not belong to the array of shape"):
            method(torch.zeros(1, 3, 20, 17))


def test_a_tensor_that_needs_gradients():
    tensor = torch.rand(3, 16, 16, requires_grad=True)
    incoming = to_batch(tensor)
    assert not incoming.batch.requires_grad and not incoming.restore(incoming.batch).requires_grad


def opened(path):
    with Image.open(path) as image:
        image.load()
        return image


def pillow(mode):
    gray, colour = picture((17, 20)), picture((17, 20, 3))
    if mode == "I;16":
        return Image.fromarray(picture((17, 20), "uint16"))
    if mode == "P":
        return Image.fromarray(colour).quantize(16)
    image = Image.fromarray(gray if mode in ("L", "LA") else colour).convert(mode)
    assert image.mode == mode
    return image


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "I;16", "P"])
def test_pillow_in_and_out(mode):
    image = pillow(mode)
    incoming = to_batch(image)
    assert incoming.batch.shape == (1, 1 if mode in ("L", "LA", "I;16") else 3, 17, 20)
    back = incoming.restore(incoming.batch)
    wanted = image.convert("RGB") if mode == "P" else image
    assert back.mode == wanted.mode and np.array_equal(np.asarray(back), np.asarray(wanted))


def test_transparency_is_refused_only_where_it_shows():
    image = pillow("RGBA")
    image.putpixel((3, 4), (1, 2, 3, 254))
    refused(image, "the PIL image", "partly transparent", "flatten")
    gray = pillow("LA")
    gray.putpixel((3, 4), (1, 254))
    refused(gray, "partly transparent")
    array = picture((17, 20, 4), "float32")
    array[3, 4, 3] = 0.99
    refused(array, "partly transparent")
    paletted = pillow("P")
    paletted.info["transparency"] = paletted.getpixel((0, 0))
    refused(paletted, "partly transparent")


def nan_picture(kind):
    array = picture((16, 18, 3), "float32")
    array[4, 5, 1], array[9, 9, 2] = np.nan, -np.inf
    return array if kind == "array" else torch.from_numpy(array.transpose(2, 0, 1).copy())


@pytest.mark.parametrize("image, words", [
    (picture((17, 20, 2)), ["(17, 20, 2)", "2 channels", "pick"]),
    (picture((17, 20, 5)), ["5 channels", "pick"]),
    (picture((3, 17, 20)), ["20 channels", "moveaxis"]),
    (picture((5, 17, 20)), ["20 channels", "(N, H, W, 1)"]),
    (picture((1, 2, 17, 20, 3)), ["5 axes", "(N, H, W, C)"]),
    (picture((400,)), ["1 axes"]),
    (picture((15, 20)), ["15 x 20", "16"]),
    (picture((20, 15, 3)), ["20 x 15"]),
    (np.zeros((0, 16, 16, 3), np.uint8), ["empty"]),
    (np.zeros((0, 0), np.uint8), ["0 x 0"]),
    (np.zeros((16, 16), bool), ["type bool", "uint8"]),
    (np.zeros((16, 16), np.int32), ["type int32"]),
    (np.zeros((16, 16), np.int64), ["type int64"]),
    (np.zeros((16, 16), complex), ["type complex128"]),
    (np.full((16, 16), None), ["type object"]),
    (picture((16, 16)).astype(np.float32), ["far beyond [0, 1]", "divide by 255"]),
    (picture((16, 16), "uint16").astype(np.float64), ["divide by 65535"]),
    (nan_picture("array"), ["2 NaN or infinite values", "(4, 5, 1)", "nan_to_num"]),
    (torch.zeros(2, 16, 16), ["(2, 16, 16)", "2 channels", "pass gray (1) or RGB (3)"]),
    (torch.zeros(16, 16, 3), ["16 channels", "movedim(-1, -3)"]),
    (torch.zeros(1, 4, 16, 16), ["4 channels"]),
    (torch.zeros(1, 1, 3, 16, 16), ["5 axes"]),
    (torch.zeros(3, 15, 16), ["15 x 16"]),
    (torch.zeros(0, 3, 16, 16), ["empty"]),
    (torch.zeros(16, 16, dtype=torch.bool), ["type bool"]),
    (torch.zeros(16, 16, dtype=torch.int32), ["type int32"]),
    (torch.full((16, 16), 128.0), ["divide by 255"]),
    (nan_picture("tensor"), ["2 NaN", "(1, 4, 5)"]),
    ([[1, 2], [3, 4]], ["builtins.list", "NumPy array"]),
    (None, ["NoneType"]),
    (Image.new("CMYK", (20, 20)), ["colour mode CMYK", "convert"]),
    (Image.new("1", (20, 20)), ["colour mode 1"]),
    (Image.new("I", (20, 20)), ["colour mode I,"]),
    (Image.new("HSV", (20, 20)), ["colour mode HSV"]),
    (Image.new("L", (20, 9)), ["9 x 20"]),
])
def test_refused(image, words):
    refused(image, *words)


def test_a_single_nan_is_counted_as_one():
    array = np.zeros((16, 16), np.float32)
    array[0, 7] = np.nan
    refused(array, "1 NaN or infinite value,", "(0, 7)")


# Files


def suffixes(dtype):
    known = {"uint8": [".png", ".tif", ".bmp", ".webp", ".TIFF"], "uint16": [".png", ".tif"]}
    return known.get(dtype, [".tif"])


@pytest.mark.parametrize("dtype, suffix, shape", [
    (dtype, suffix, shape) for dtype in DTYPES for suffix in suffixes(dtype) for shape in SHAPES[:4]])
def test_lossless_files_in_and_out(tmp_path, dtype, suffix, shape):
    path, array = tmp_path / f"in{suffix}", picture(shape, dtype)
    write(path, array)
    assert os.listdir(tmp_path) == [path.name]
    incoming = to_batch(str(path))
    back = incoming.restore(incoming.batch)
    colours = array[..., :3] if array.ndim == 3 and array.shape[2] > 1 else array.reshape(17, 20)
    if suffix == ".webp" and colours.ndim == 2:
        colours = np.stack([colours] * 3, axis=-1)  # WebP knows no gray
    assert back.dtype == array.dtype
    np.testing.assert_allclose(back[..., :3] if back.ndim == 3 else back, colours, rtol=0, atol=6e-8)
    if shape[-1] == 4 and suffix not in (".bmp", ".webp"):
        assert back.shape == shape and back[..., 3].min() == WHITE.get(dtype, 1)
    np.testing.assert_allclose(read(path), colours, rtol=0, atol=6e-8)
    again = tmp_path / f"out{suffix}"
    write(again, back, like=incoming)
    np.testing.assert_array_equal(read(again), read(path))


def test_gray_with_alpha_stays_so(tmp_path):
    pillow("LA").save(tmp_path / "in.png")
    incoming = to_batch(tmp_path / "in.png")
    write(tmp_path / "out.png", incoming.restore(incoming.batch), like=incoming)
    assert opened(tmp_path / "out.png").mode == "LA" and read(tmp_path / "out.png").shape == (17, 20)


def test_jpeg_is_near(tmp_path):
    smooth = np.add.outer(np.arange(40), np.arange(60)).astype(np.uint8) * 2
    for array in (smooth, np.stack([smooth, smooth // 2, 255 - smooth], -1)):
        write(tmp_path / "a.jpg", array)
        assert np.abs(read(tmp_path / "a.jpg").astype(int) - array).max() <= 4


def test_floats_are_rounded_into_8_bits_and_kept_in_tiff(tmp_path):
    array = np.linspace(-0.2, 1.2, 400, dtype=np.float32).reshape(20, 20)
    write(tmp_path / "a.png", array)
    assert np.array_equal(read(tmp_path / "a.png"), np.rint(array.clip(0, 1) * 255).astype(np.uint8))
    write(tmp_path / "a.tif", array)
    assert np.array_equal(tifffile.imread(tmp_path / "a.tif"), array)


@pytest.mark.parametrize("image", [
    picture((1, 17, 20, 3)), torch.from_numpy(picture((17, 20, 3)).transpose(2, 0, 1).copy()),
    torch.from_numpy(picture((17, 20, 3)).transpose(2, 0, 1).copy())[None],
    Image.fromarray(picture((17, 20, 3)))])
def test_write_takes_what_to_batch_takes(tmp_path, image):
    write(tmp_path / "a.png", image)
    assert np.array_equal(read(tmp_path / "a.png"), picture((17, 20, 3)))
    write(tmp_path / "b.png", tmp_path / "a.png")
    assert np.array_equal(read(tmp_path / "b.png"), picture((17, 20, 3)))


def make_exif():
    exif = Image.Exif()
    exif[271], exif[274] = "Maker", 6
    return exif


@pytest.mark.parametrize("suffix, dtype", [
    (".png", "uint8"), (".png", "uint16"), (".jpg", "uint8"), (".webp", "uint8"), (".tif", "uint16"),
    (".tif", "float32")])
def test_profile_and_exif_travel(tmp_path, suffix, dtype):
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    source, target = tmp_path / f"in{suffix}", tmp_path / f"out{suffix}"
    source.write_bytes(files.encode(picture((17, 20, 3), dtype), suffix, icc=icc, exif=make_exif().tobytes()))
    incoming = to_batch(source)
    write(target, incoming.restore(incoming.batch), like=incoming)
    if suffix == ".tif":
        with tifffile.TiffFile(target) as tiff:
            page = tiff.pages[0]
            assert page.iccprofile == icc and page.tags[271].value == "Maker" and page.tags[274].value == 6
        return
    with Image.open(target) as image:
        assert image.info["icc_profile"] == icc
        assert dict(image.getexif()) == {271: "Maker", 274: 6}


def test_orientation_survives_a_change_of_format(tmp_path):
    Image.fromarray(picture((17, 20, 3))).save(tmp_path / "in.jpg", exif=make_exif())
    incoming = to_batch(tmp_path / "in.jpg")
    write(tmp_path / "a.tif", incoming.restore(incoming.batch), like=incoming)
    incoming = to_batch(tmp_path / "a.tif")
    write(tmp_path / "b.png", incoming.restore(incoming.batch), like=incoming)
    assert opened(tmp_path / "b.png").getexif()[274] == 6


def test_a_restored_pil_image_keeps_its_profile():
    image = pillow("RGB")
    image.info.update(icc_profile=b"profile", exif=make_exif().tobytes(), dpi=(72, 72))
    incoming = to_batch(image)
    assert incoming.restore(incoming.batch).info == {"icc_profile": b"profile", "exif": make_exif().tobytes()}


def test_kinds_of_tiff(tmp_path):
    path, colour, gray = tmp_path / "a.tif", picture((17, 20, 3), "uint16"), picture((17, 20), "uint16")
    tifffile.imwrite(path, colour.transpose(2, 0, 1), planarconfig="separate", photometric="rgb")
    assert np.array_equal(read(path), colour)
    tifffile.imwrite(path, gray, photometric="miniswhite")
    assert np.array_equal(read(path), 65535 - gray)
    tifffile.imwrite(path, gray, byteorder=">", bigtiff=True)
    assert np.array_equal(read(path), gray)
    Image.fromarray(picture((17, 20, 3))).save(path, compression="tiff_lzw")  # decoded by Pillow
    assert np.array_equal(read(path), picture((17, 20, 3)))


def test_a_jpeg_with_previews_is_one_picture(tmp_path):
    big, small = Image.fromarray(picture((32, 40, 3))), Image.fromarray(picture((16, 20, 3)))
    big.save(tmp_path / "a.mpo", save_all=True, append_images=[small])
    with Image.open(tmp_path / "a.mpo") as image:
        assert image.n_frames == 2
    assert read(tmp_path / "a.mpo").shape == (32, 40, 3)


def bad_file(folder, kind):
    path = folder / f"bad{kind[kind.rfind('.'):]}"
    image, other = pillow("RGB"), Image.new("RGB", (20, 17))
    if kind == "many.tif":
        tifffile.imwrite(path, picture((3, 17, 20)), photometric="minisblack")
    elif kind == "moving.gif":
        image.save(path, save_all=True, append_images=[other])
    elif kind == "cmyk.jpg":
        image.convert("CMYK").save(path)
    elif kind == "cmyk.tif":
        tifffile.imwrite(path, picture((17, 20, 4)), photometric="separated")
    elif kind == "int.tif":
        tifffile.imwrite(path, np.zeros((17, 20), np.int32))
    elif kind == "text.png":
        path.write_text("no picture")
    elif kind == "empty.tif":
        path.write_bytes(b"")
    elif kind == "transparent.png":
        from b2g.files import encode
        clear = picture((17, 20, 4), "uint16")
        clear[0, 0, 3] = 0
        path.write_bytes(encode(clear, ".png"))
    else:  # cut short
        write(path, picture((64, 64, 3), "uint16" if kind.startswith("deep") else "uint8"))
        path.write_bytes(path.read_bytes()[:-2000])
    return path


@pytest.mark.parametrize("kind, word", [
    ("many.tif", "3 pages"), ("moving.gif", "2 frames"), ("cmyk.jpg", "CMYK"), ("cmyk.tif", "CMYK"),
    ("int.tif", "type int32"), ("text.png", "cannot be read"), ("empty.tif", "cannot be read"),
    ("cut.png", "cannot be read"), ("cut.jpg", "cannot be read"), ("cut.tif", "cannot be read"),
    ("deepcut.png", "cannot be read"), ("deepcut.tif", "cannot be read"), ("transparent.png", "transparent")])
def test_refused_files(tmp_path, kind, word):
    refused(bad_file(tmp_path, kind), "bad.", word)


def test_missing_file_and_folder(tmp_path):
    refused(tmp_path / "none.png", "none.png", "does not exist")
    refused(tmp_path, str(tmp_path), "cannot be read")


def test_a_truncated_pil_image_is_refused(tmp_path):
    path = bad_file(tmp_path, "cut.jpg")
    with Image.open(path) as image:
        refused(image, "bad.jpg", "cannot be decoded")


@pytest.mark.parametrize("name, image, word", [
    ("a.xyz", picture((17, 20)), "suffix '.xyz'"), ("a", picture((17, 20)), "suffix ''"),
    ("a.jpg", picture((17, 20), "uint16"), ".png or .tif"),
    ("a.webp", picture((17, 20), "uint16"), ".png or .tif"),
    ("a.bmp", picture((17, 20, 3), "uint16"), ".png or .tif"), ("no/a.png", picture((17, 20)), "folder"),
    ("a.png", picture((2, 17, 20, 3)), "one by one")])
def test_what_cannot_be_written_is_refused_before_and_then(tmp_path, name, image, word):
    for call, given in ((write, image), (check_writable, to_batch(image))):
        with pytest.raises(B2GError) as caught:
            call(tmp_path / name, given)
        assert word in str(caught.value)
    assert os.listdir(tmp_path) == []


def test_a_picture_too_wide_for_its_format(tmp_path):
    with pytest.raises(B2GError, match="WEBP cannot hold this picture"):
        write(tmp_path / "a.webp", np.zeros((16, 16384, 3), np.uint8))


def test_check_writable_lets_good_paths_pass(tmp_path):
    for image in (picture((17, 20, 3)), torch.rand(3, 16, 16).bfloat16(), pillow("RGBA")):
        check_writable(tmp_path / "a.png", to_batch(image))
    with pytest.raises(B2GError, match="is a folder"):
        (tmp_path / "b.png").mkdir()
        check_writable(tmp_path / "b.png", to_batch(picture((17, 20))))


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_failing_write_leaves_the_old_file(tmp_path, monkeypatch, broken):
    path = tmp_path / "a.png"
    write(path, picture((17, 20), seed=1))
    before = path.read_bytes()

    def fail(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files.os, broken, fail)
        with pytest.raises(B2GError, match="a.png cannot be written .No space left"):
            write(path, picture((17, 20), seed=2))
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["a.png"]
    write(path, picture((17, 20), seed=2))
    assert path.read_bytes() != before


def test_an_interrupted_write_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), files.replacing(tmp_path / "a.bin") as stream:
        stream.write(b"half")
        assert len(os.listdir(tmp_path)) == 1
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == []


def test_a_written_file_has_the_usual_rights(tmp_path):
    (tmp_path / "plain").touch()
    write(tmp_path / "a.png", picture((17, 20)))
    assert os.stat(tmp_path / "a.png").st_mode == os.stat(tmp_path / "plain").st_mode
