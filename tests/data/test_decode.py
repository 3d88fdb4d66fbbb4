"""Every kind of file that people have, written by Pillow, and every way a file can be broken."""

import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lmwp_models.data.decode import read_image, read_mask, shrink
from lmwp_models.errors import UserError


@pytest.fixture
def colours() -> np.ndarray:
    """A smooth RGB picture, 20 x 30, so that lossy files stay close."""
    y, x = np.mgrid[0:20, 0:30]
    return np.stack([8 * x, 12 * y, 4 * (x + y)], axis=2).astype(np.uint8)


@pytest.fixture
def grey(colours: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(colours[:, :, 0])


@pytest.mark.parametrize(
    ("suffix", "options", "tolerance"),
    [
        ("png", {}, 0),
        ("bmp", {}, 0),
        ("webp", {"lossless": True}, 0),
        ("tif", {}, 0),
        ("jpg", {"quality": 98, "subsampling": 0}, 6),
        ("webp", {"quality": 98}, 12),
    ],
)
def test_formats(tmp_path, colours, suffix, options, tolerance) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(colours).save(path, **options)
    image = read_image(path)
    assert image.dtype == np.uint8
    assert image.shape == (20, 30, 3)
    assert np.abs(image.astype(int) - colours).max() <= tolerance


def test_the_suffix_does_not_matter(tmp_path, colours) -> None:
    path = tmp_path / "really_a_png.jpg"
    Image.fromarray(colours).save(path, format="PNG")
    assert np.array_equal(read_image(path), colours)


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp"])
def test_grey_is_repeated(tmp_path, grey, suffix) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(grey).save(path)
    image = read_image(path)
    assert image.shape == (20, 30, 3)
    assert np.ptp(image, axis=2).max() == 0
    assert np.abs(image[:, :, 0].astype(int) - grey).max() <= 4


def test_one_bit_image(tmp_path, grey) -> None:
    Image.fromarray(grey > 100).save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png")[:, :, 1], np.where(grey > 100, 255, 0))


def test_sixteen_bits_are_scaled_not_clipped(tmp_path) -> None:
    levels = np.array([[0, 256, 257, 32768, 65407, 65535]], np.uint16)
    for name in ("a.png", "a.tif"):
        Image.fromarray(levels).save(tmp_path / name)
        assert read_image(tmp_path / name)[0, :, 2].tolist() == [0, 1, 1, 128, 255, 255]
        assert read_mask(tmp_path / name)[0].tolist() == [0, 1, 1, 128, 255, 255]


def test_palette(tmp_path, colours) -> None:
    few = colours // 64 * 64
    Image.fromarray(few).quantize(256, dither=Image.Dither.NONE).save(tmp_path / "a.png")
    assert np.abs(read_image(tmp_path / "a.png").astype(int) - few).max() <= 2


def test_cmyk(tmp_path, colours) -> None:
    for name in ("a.jpg", "a.tif"):
        Image.fromarray(colours).convert("CMYK").save(tmp_path / name, quality=98)
        assert np.abs(read_image(tmp_path / name).astype(int) - colours).mean() < 3


def test_transparency_is_laid_over_white(tmp_path) -> None:
    pixels = np.array([[[200, 0, 0, 255], [200, 0, 0, 0], [0, 0, 0, 128]]], np.uint8)
    for name, options in (("a.png", {}), ("a.webp", {"lossless": True})):
        Image.fromarray(pixels).save(tmp_path / name, **options)
        got = read_image(tmp_path / name)[0]
        assert got[0].tolist() == [200, 0, 0]
        assert got[1].tolist() == [255, 255, 255]
        assert np.abs(got[2].astype(int) - 127).max() <= 1


@pytest.mark.parametrize("mode", ["P", "L", "RGB"])
def test_a_transparent_colour_is_laid_over_white(tmp_path, mode) -> None:
    image = Image.fromarray(np.array([[[0, 0, 0], [102, 102, 102]]], np.uint8)).convert(mode)
    key = image.getpixel((0, 0))
    image.save(tmp_path / "a.png", transparency=key)
    assert read_image(tmp_path / "a.png")[0].tolist() == [[255, 255, 255], [102, 102, 102]]


def test_grey_with_alpha(tmp_path) -> None:
    Image.fromarray(np.array([[[40, 255], [40, 0]]], np.uint8), "LA").save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png")[0, :, 0].tolist() == [40, 255]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_exif_orientation(tmp_path, colours, orientation, suffix) -> None:
    turned = {
        1: colours,
        2: colours[:, ::-1],
        3: colours[::-1, ::-1],
        4: colours[::-1],
        5: colours.transpose(1, 0, 2),
        6: colours[::-1].transpose(1, 0, 2),
        7: colours[::-1, ::-1].transpose(1, 0, 2),
        8: colours[:, ::-1].transpose(1, 0, 2),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(colours).save(path, exif=exif, quality=98)
    image = read_image(path)
    assert image.shape == turned.shape
    assert np.abs(image.astype(int) - turned).mean() < 4


@pytest.mark.parametrize("suffix", ["gif", "png", "webp"])
def test_an_animation_gives_its_first_frame(tmp_path, suffix) -> None:
    frames = [Image.new("RGB", (6, 5), colour) for colour in ("red", "blue")]
    path = tmp_path / f"a.{suffix}"
    options = {"lossless": True} if suffix == "webp" else {}
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=50, **options)
    assert np.array_equal(read_image(path), np.asarray(frames[0]))


def test_masks_keep_their_levels(tmp_path, grey) -> None:
    Image.fromarray(grey).save(tmp_path / "grey.png")
    Image.fromarray(np.repeat(grey[:, :, None], 3, 2)).save(tmp_path / "rgb.png")
    palette = Image.fromarray(grey).convert("P", palette=Image.Palette.ADAPTIVE, colors=256)
    palette.save(tmp_path / "palette.png")
    Image.fromarray(np.dstack([grey, np.full_like(grey, 255)]), "LA").save(tmp_path / "la.png")
    for name in ("grey", "rgb", "palette", "la"):
        assert np.array_equal(read_mask(tmp_path / f"{name}.png"), grey), name


def test_one_bit_mask(tmp_path, grey) -> None:
    Image.fromarray(grey > 100).save(tmp_path / "a.png")
    assert np.array_equal(read_mask(tmp_path / "a.png"), np.where(grey > 100, 255, 0))


def test_grey_mask_as_colour_jpeg(tmp_path, grey) -> None:
    Image.fromarray(np.repeat(grey[:, :, None], 3, 2)).save(tmp_path / "a.jpg", quality=60)
    assert np.abs(read_mask(tmp_path / "a.jpg").astype(int) - grey).max() < 25


def test_label_maps_and_coloured_masks_mark_all_that_is_not_black(tmp_path) -> None:
    inside = np.zeros((8, 9), bool)
    inside[2:5, 3:7] = True
    want = np.where(inside, np.uint8(255), np.uint8(0))
    Image.fromarray(inside.astype(np.uint8)).save(tmp_path / "label.png")
    red = np.zeros((8, 9, 3), np.uint8)
    red[inside] = (128, 0, 0)
    Image.fromarray(red).save(tmp_path / "red.png")
    classes = Image.fromarray(inside.astype(np.uint8)).convert("P")
    classes.putpalette([0, 0, 0, 128, 0, 0])
    classes.save(tmp_path / "classes.png")
    for name in ("label", "red", "classes"):
        assert np.array_equal(read_mask(tmp_path / f"{name}.png"), want), name


def test_transparent_pixels_of_a_mask_are_background(tmp_path) -> None:
    pixels = np.array([[[255, 255, 255, 255], [255, 255, 255, 0]]], np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert read_mask(tmp_path / "a.png").tolist() == [[255, 0]]


def _png(width: int, height: int) -> bytes:
    """A PNG whose header claims a size and whose pixels are missing."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        checksum = zlib.crc32(kind + body)
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"x") + chunk(b"IEND", b"")
    )


def _truncated(path: Path, share: float) -> bytes:
    data = path.read_bytes()
    return data[: int(len(data) * share)]


@pytest.mark.parametrize("reader", [read_image, read_mask])
@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"just some text", "not a picture"),
        (b"\xff\xd8\xff\xe0" + bytes(50), "cannot read"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture"),
        (_png(30_000, 30_000), "million pixels"),
        (_png(5, 5), "damaged"),
    ],
)
def test_bad_bytes_are_one_line_that_names_the_file(tmp_path, reader, data, reason) -> None:
    path = tmp_path / "bad.png"
    path.write_bytes(data)
    with pytest.raises(UserError, match=reason) as caught:
        reader(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.9])
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp", "tif"])
def test_truncated_files(tmp_path, suffix, share) -> None:
    path = tmp_path / f"a.{suffix}"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(_truncated(path, share))
    with pytest.raises(UserError, match=r"cannot read .*a\."):
        read_image(path)


def test_missing_file_and_folder(tmp_path) -> None:
    with pytest.raises(UserError, match="No such file"):
        read_image(tmp_path / "none.png")
    with pytest.raises(UserError, match="directory"):
        read_image(tmp_path)


def test_float_levels_are_refused(tmp_path) -> None:
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(UserError, match="floating-point"):
        read_mask(tmp_path / "a.tif")


def test_a_large_picture_is_read_without_a_warning(tmp_path) -> None:
    """Pillow warns at a limit that cameras reach, and refuses at twice that."""
    path = tmp_path / "large.png"
    Image.new("1", (40, 45)).save(path)
    code = f"""
from PIL import Image
from lmwp_models.data.decode import read_mask
Image.MAX_IMAGE_PIXELS = 1000
print(read_mask({str(path)!r}).shape)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(45, 40)"
    assert done.stderr == ""


def test_shrink(colours, grey) -> None:
    assert shrink(colours, 30) is colours
    assert shrink(colours, 15).shape == (10, 15, 3)
    assert shrink(grey, 7).shape == (5, 7)
    assert shrink(np.zeros((2, 400), np.uint8), 50).shape == (1, 50)
    checks = np.indices((64, 64)).sum(0).astype(np.uint8) % 2 * 255
    assert np.abs(shrink(checks, 16)[2:-2, 2:-2].astype(int) - 127).max() < 20
