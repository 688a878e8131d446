"""Image files of every mode that Pillow writes."""

import contextlib
import io

import numpy as np
import pytest
import torch
from PIL import Image

from edgesearch.data.decode import decode_image
from edgesearch.errors import DataError


def save(path, values):
    Image.fromarray(values).save(path)
    return path


COLOUR = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 255]]], np.uint8)


def test_rgb_stays_exact(tmp_path):
    image = decode_image(save(tmp_path / "a.png", COLOUR), 3)
    assert image.dtype == torch.uint8
    assert torch.equal(image, torch.from_numpy(COLOUR).permute(2, 0, 1))


def test_rgb_to_grey_by_luminance(tmp_path):
    image = decode_image(save(tmp_path / "a.png", COLOUR), 1)
    assert image.tolist() == [[[76, 150], [29, 255]]]


def test_grey_to_three_equal_channels(tmp_path):
    grey = np.array([[0, 100], [200, 255]], np.uint8)
    image = decode_image(save(tmp_path / "a.png", grey), 3)
    assert image.tolist() == [grey.tolist()] * 3


def test_one_bit(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(np.array([[0, 255]], np.uint8)).convert("1").save(path)
    with Image.open(path) as image:
        assert image.mode == "1"
    assert decode_image(path, 1).tolist() == [[[0, 255]]]


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_sixteen_bits_are_scaled_not_clipped(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    values = np.array([[0, 257, 32768, 65535]], np.uint16)
    Image.fromarray(values).save(path)
    assert decode_image(path, 1).tolist() == [[[0, 1, 128, 255]]]
    assert decode_image(path, 3).shape == (3, 1, 4)


def test_thirty_two_bit_integers_within_sixteen_bits(tmp_path):
    path = tmp_path / "a.tif"
    Image.fromarray(np.array([[0, 65535]], np.int32)).save(path)
    assert decode_image(path, 1).tolist() == [[[0, 255]]]


@pytest.mark.parametrize("values", [[0, 70_000], [-1, 5]])
def test_thirty_two_bit_integers_beyond_are_refused(tmp_path, values):
    path = tmp_path / "a.tif"
    Image.fromarray(np.array([values], np.int32)).save(path)
    with pytest.raises(DataError, match=rf"a.tif: pixel values {values[0]} to {values[1]}"):
        decode_image(path, 1)


def test_floating_point_is_refused(tmp_path):
    path = tmp_path / "a.tif"
    Image.fromarray(np.zeros((2, 2), np.float32)).save(path)
    with pytest.raises(DataError, match="floating-point numbers"):
        decode_image(path, 1)


def test_palette(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(COLOUR).quantize(4).save(path)
    with Image.open(path) as image:
        assert image.mode == "P"
    assert torch.equal(decode_image(path, 3), torch.from_numpy(COLOUR).permute(2, 0, 1))


def test_palette_with_a_transparent_entry_shows_black(tmp_path):
    path = tmp_path / "a.png"
    image = Image.new("P", (2, 1))
    image.putpalette([200, 100, 50, 1, 2, 3])
    image.putpixel((1, 0), 1)
    image.save(path, transparency=0)
    assert decode_image(path, 3)[:, 0].T.tolist() == [[0, 0, 0], [1, 2, 3]]


def test_palette_with_alpha_channel(tmp_path):
    path = tmp_path / "a.tif"
    image = Image.new("PA", (2, 1))
    image.putpalette([200, 100, 50])
    image.putpixel((1, 0), (0, 255))
    image.save(path)
    with Image.open(path) as image:
        assert image.mode == "PA"
    assert decode_image(path, 3)[:, 0].T.tolist() == [[0, 0, 0], [200, 100, 50]]


def test_alpha_is_laid_on_black(tmp_path):
    values = np.array([[[255, 100, 0, 0], [255, 100, 0, 128], [255, 100, 0, 255]]], np.uint8)
    image = decode_image(save(tmp_path / "a.png", values), 3)
    assert image[:, 0].T.tolist() == [[0, 0, 0], [128, 50, 0], [255, 100, 0]]


def test_grey_with_alpha(tmp_path):
    path = tmp_path / "a.png"
    Image.merge("LA", (Image.new("L", (2, 1), 200), Image.new("L", (2, 1), 0))).save(path)
    assert decode_image(path, 1).tolist() == [[[0, 0]]]


def test_cmyk_jpeg(tmp_path):
    path = tmp_path / "a.jpg"
    Image.new("RGB", (16, 16), (250, 20, 20)).convert("CMYK").save(path, quality=100)
    with Image.open(path) as image:
        assert image.mode == "CMYK"
    red, green, blue = decode_image(path, 3)[:, 8, 8].tolist()
    assert red > 240
    assert green < 30
    assert blue < 30


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, orientation):
    turn = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    upright = np.zeros((16, 32), np.uint8)
    upright[:8, :8] = 255
    stored = Image.fromarray(upright)
    if orientation in turn:
        stored = stored.transpose(turn[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "a.jpg"
    stored.save(path, exif=exif, quality=100)
    image = decode_image(path, 1)
    assert image.shape == (1, 16, 32)
    assert (image[0].int() - torch.from_numpy(upright).int()).abs().max() < 40


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0garbage"]
)
def test_damaged_exif_does_not_cost_the_image(tmp_path, exif):
    path = tmp_path / "a.jpg"
    Image.new("L", (16, 16), 90).save(path, exif=exif)
    assert decode_image(path, 1)[0, 8, 8] == 90


def test_first_frame_of_an_animation(tmp_path):
    path = tmp_path / "a.gif"
    frames = [Image.new("L", (4, 4), value) for value in (10, 200)]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    assert decode_image(path, 1).unique().tolist() == [10]


def jpeg_bytes():
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(buffer, "jpeg")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "cannot identify"),
        (b"not an image", "cannot identify"),
        (jpeg_bytes()[:1500], "truncated"),
        (jpeg_bytes()[:20], "."),
    ],
)
def test_damaged_files_are_refused_by_name(tmp_path, content, reason):
    path = tmp_path / "bad.jpg"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"can be read; found: .*bad.jpg: .*{reason}"):
        decode_image(path, 3)


def test_missing_file_and_folder_are_refused(tmp_path):
    with pytest.raises(DataError, match="No such file"):
        decode_image(tmp_path / "none.png", 3)
    with pytest.raises(DataError, match="directory"):
        decode_image(tmp_path, 3)


def test_every_truncation_is_either_read_or_refused(tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(COLOUR.repeat(8, 0).repeat(8, 1)).save(buffer, "png")
    content = buffer.getvalue()
    path = tmp_path / "a.png"
    readable = 0
    for length in range(0, len(content), 3):
        path.write_bytes(content[:length])
        with contextlib.suppress(DataError):
            readable += decode_image(path, 3).shape == (3, 16, 16)
    assert readable < len(range(0, len(content), 3))
