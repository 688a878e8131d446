"""Image files of every mode that Pillow writes."""

import contextlib
import io
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from edgesearch.data import decode
from edgesearch.data.decode import UnreadableImage, decode_image
from edgesearch.errors import DataError

COLOUR = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 255]]], np.uint8)
GREY = np.array([[0, 100], [200, 255]], np.uint8)


def transparent_palette():
    image = Image.new("P", (2, 1))
    image.putpalette([200, 100, 50, 1, 2, 3])
    image.putpixel((1, 0), 1)
    return image


def palette_with_alpha():
    image = Image.new("PA", (2, 1))
    image.putpalette([200, 100, 50])
    image.putpixel((1, 0), (0, 255))
    return image


ALPHA = np.array([[[255, 100, 0, 0], [255, 100, 0, 128], [255, 100, 0, 255]]], np.uint8)
SIXTEEN = np.array([[0, 257, 32768, 65535]], np.uint16)
LINE = Image.merge("LA", (Image.new("L", (2, 1), 200), Image.new("L", (2, 1), 0)))


@pytest.mark.parametrize(
    ("image", "suffix", "mode", "options", "expected"),
    [
        (Image.fromarray(COLOUR), "png", "RGB", {}, COLOUR.transpose(2, 0, 1)),
        (Image.fromarray(COLOUR), "png", "RGB", {}, [[[76, 150], [29, 255]]]),  # by luminance
        (Image.fromarray(GREY), "png", "L", {}, [GREY] * 3),
        (Image.fromarray(GREY[:, ::2]).convert("1"), "png", "1", {}, [[[0], [255]]]),
        (Image.fromarray(SIXTEEN), "png", "I;16", {}, [[[0, 1, 128, 255]]]),  # scaled, not clipped
        (Image.fromarray(SIXTEEN), "tif", "I;16", {}, [[[0, 1, 128, 255]]] * 3),
        (Image.fromarray(SIXTEEN), "pgm", "I", {}, [[[0, 1, 128, 255]]]),
        (Image.fromarray(np.int32([[0, 65535]])), "tif", "I", {}, [[[0, 255]]]),
        (Image.fromarray(COLOUR).quantize(4), "png", "P", {}, COLOUR.transpose(2, 0, 1)),
        (transparent_palette(), "png", "P", {"transparency": 0}, [[[0, 1]], [[0, 2]], [[0, 3]]]),
        (palette_with_alpha(), "tif", "PA", {}, [[[0, 200]], [[0, 100]], [[0, 50]]]),
        (Image.fromarray(ALPHA), "png", "RGBA", {}, [[[0, 128, 255]], [[0, 50, 100]], [[0, 0, 0]]]),
        (LINE, "png", "LA", {}, [[[0, 0]]]),
    ],
)
def test_modes(tmp_path, image, suffix, mode, options, expected):
    path = tmp_path / f"a.{suffix}"
    image.save(path, **options)
    with Image.open(path) as stored:
        assert stored.mode == mode
    decoded = decode_image(path, len(expected))
    assert decoded.dtype == torch.uint8
    assert decoded.tolist() == np.array(expected).tolist()


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.int32([[0, 70_000]]), "a.tif: pixel values 0 to 70000"),
        (np.int32([[-1, 5]]), "a.tif: pixel values -1 to 5"),
        (np.zeros((2, 2), np.float32), "floating-point numbers"),
    ],
)
def test_pixels_without_a_defined_range_are_refused(tmp_path, values, reason):
    Image.fromarray(values).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match=reason):
        decode_image(tmp_path / "a.tif", 1)


def test_cmyk_jpeg(tmp_path):
    path = tmp_path / "a.jpg"
    Image.new("RGB", (16, 16), (250, 20, 20)).convert("CMYK").save(path, quality=100)
    red, green, blue = decode_image(path, 3)[:, 8, 8].tolist()
    assert red > 240 > 30 > max(green, blue)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, orientation):
    turns = [None, None, *(0, 3, 1, 5, 2, 6, 4)]  # Pillow's numbers of the inverse transpositions
    upright = np.zeros((16, 32), np.uint8)
    upright[:8, :8] = 255
    stored = Image.fromarray(upright)
    if turns[orientation] is not None:
        stored = stored.transpose(Image.Transpose(turns[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "a.jpg", exif=exif, quality=100)
    image = decode_image(tmp_path / "a.jpg", 1)
    assert image.shape == (1, 16, 32)
    assert (image[0].int() - torch.from_numpy(upright).int()).abs().max() < 40


@pytest.mark.parametrize("exif", [b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0garbage"])
def test_damaged_exif_does_not_cost_the_image(tmp_path, exif):
    Image.new("L", (16, 16), 90).save(tmp_path / "a.jpg", exif=exif)
    assert decode_image(tmp_path / "a.jpg", 1)[0, 8, 8] == 90


def test_first_frame_of_an_animation(tmp_path):
    frames = [Image.new("L", (4, 4), value) for value in (10, 200)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert decode_image(tmp_path / "a.gif", 1).unique().tolist() == [10]


def encoded(kind):
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "cannot identify"),
        (b"not an image", "cannot identify"),
        (encoded("jpeg")[:1500], "truncated"),
        (encoded("jpeg")[:20], "."),
    ],
)
def test_damaged_files_are_refused_by_name(tmp_path, content, reason):
    (tmp_path / "bad.jpg").write_bytes(content)
    with pytest.raises(DataError, match=rf"can be read; found: .*bad.jpg: .*{reason}"):
        decode_image(tmp_path / "bad.jpg", 3)


def test_a_jpeg_of_any_size_is_reduced(tmp_path):
    """The pixels are compared where the file would be too large for Pillow, 15,000 x 15,000."""
    image = Image.new("L", (15_000, 15_000), 40)
    image.paste(200, (7_500, 0, 15_000, 15_000))
    image.save(tmp_path / "a.jpg")
    decoded = decode_image(tmp_path / "a.jpg", 1)
    assert decoded.shape == (1, 7_500, 7_500)
    assert decoded[0, 100, [0, 3_700, 3_800, 7_499]].tolist() == [40, 40, 200, 200]


def test_other_large_files_are_reduced_up_to_a_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(decode, "KEPT_PIXELS", 1000)
    Image.new("P", (90, 90), 1).save(tmp_path / "a.png")
    assert decode_image(tmp_path / "a.png", 3).shape == (3, 23, 23)
    Image.new("1", (15_000, 15_000), 1).save(tmp_path / "b.png")
    with pytest.raises(
        UnreadableImage, match="b.png: .*225000000 pixels.* at most 178,956,970"
    ) as e:
        decode_image(tmp_path / "b.png", 1)
    assert "too large (JPEG is reduced" in e.value.reason
    there = pickle.loads(pickle.dumps(e.value))  # as worker processes send it
    assert (str(there), there.reason) == (str(e.value), e.value.reason)


@pytest.mark.parametrize(("name", "reason"), [("none.png", "No such file"), ("", "directory")])
def test_missing_file_and_folder_are_refused(tmp_path, name, reason):
    with pytest.raises(DataError, match=reason):
        decode_image(tmp_path / name, 3)


def test_every_truncation_is_either_read_or_refused():
    content = encoded("png")
    for length in range(0, len(content), 97):
        with contextlib.suppress(DataError):
            assert decode_image(io.BytesIO(content[:length]), 3).shape == (3, 64, 64)
