"""One picture file of any kind becomes an array."""

import numpy as np
import pytest
from PIL import Image

from experiments.lib.sources.picture_files import Header, read_header, read_picture


def _both(path, channels=3, **kwargs):
    return read_header(path), read_picture(path, channels, **kwargs)


@pytest.mark.parametrize("suffix", ["png", "webp"])
def test_colour_is_exact_where_the_format_is(tmp_path, paint, suffix):
    pixels = paint(f"a.{suffix}", lossless=True)
    header, image = _both(tmp_path / f"a.{suffix}")
    assert header == Header(12, 8, grey=False)
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, pixels)


def test_grey_has_one_channel_or_three_equal_ones(tmp_path, paint):
    pixels = paint("a.png", mode="L")
    header, image = _both(tmp_path / "a.png", 1)
    assert header == Header(12, 8, grey=True)
    np.testing.assert_array_equal(image, pixels[..., None])
    three = read_picture(tmp_path / "a.png", 3)
    np.testing.assert_array_equal(three, np.repeat(pixels[..., None], 3, axis=2))


def test_sixteen_bits_become_eight(tmp_path):
    deep = np.arange(0, 65536, 257, dtype=np.uint16).reshape(16, 16)
    Image.fromarray(deep).save(tmp_path / "a.png")
    header, image = _both(tmp_path / "a.png", 1)
    assert header.grey
    np.testing.assert_array_equal(image.ravel(), np.arange(256))


def test_one_bit_is_black_and_white(tmp_path):
    bits = np.array([[True, False], [False, True]])
    Image.fromarray(bits).save(tmp_path / "a.png")
    header, image = _both(tmp_path / "a.png", 1)
    assert header == Header(2, 2, grey=True)
    np.testing.assert_array_equal(image[..., 0], bits * 255)


def test_what_is_transparent_lies_on_white(tmp_path):
    pixels = np.array([[[10, 20, 30, 255], [10, 20, 30, 0], [0, 0, 0, 51]]], np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    header, image = _both(tmp_path / "a.png")
    assert not header.grey
    np.testing.assert_array_equal(image, [[[10, 20, 30], [255] * 3, [204] * 3]])
    Image.fromarray(pixels[..., [0, 3]]).save(tmp_path / "grey.png")
    header, image = _both(tmp_path / "grey.png", 1)
    assert header.grey
    np.testing.assert_array_equal(image.ravel(), [10, 255, 204])


def test_a_palette_is_colour(tmp_path):
    palette = Image.new("P", (2, 1))
    palette.putpalette([1, 2, 3, 200, 100, 50])
    palette.putdata([0, 1])
    palette.save(tmp_path / "a.png", transparency=0)
    header, image = _both(tmp_path / "a.png")
    assert not header.grey
    np.testing.assert_array_equal(image, [[[255, 255, 255], [200, 100, 50]]])


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_a_photo_stands_upright(tmp_path, suffix):
    lower = np.zeros((16, 32, 3), np.uint8)
    lower[:, 16:] = 255  # the right half; rotated a quarter clockwise it is below
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(lower).save(tmp_path / f"a.{suffix}", exif=exif)
    header, image = _both(tmp_path / f"a.{suffix}")
    assert header[:2] == (16, 32)
    assert image.shape == (32, 16, 3)
    assert image[:14].max() < 30
    assert image[18:].min() > 225


@pytest.mark.parametrize("mode", ["CMYK", "RGB", "L"])
def test_jpeg(tmp_path, mode):
    Image.new("RGB", (64, 48), (255, 0, 0)).convert(mode).save(tmp_path / "a.jpg")
    header, image = _both(tmp_path / "a.jpg")
    assert header == Header(64, 48, grey=mode == "L")
    expected = [76] * 3 if mode == "L" else [254, 0, 0]
    np.testing.assert_allclose(image[24, 32], expected, atol=2)


def test_the_square_around_the_centre_is_kept(tmp_path):
    wide = np.zeros((40, 100, 3), np.uint8)
    wide[:, 30:70] = (np.arange(40) * 6)[:, None, None]
    Image.fromarray(wide).save(tmp_path / "a.png")
    same = read_picture(tmp_path / "a.png", 3, size=40)
    np.testing.assert_array_equal(same, wide[:, 30:70])
    half = read_picture(tmp_path / "a.png", 3, size=20)
    np.testing.assert_allclose(half[2:-2, :, 0].mean(axis=1), np.arange(20)[2:-2] * 12 + 3, atol=1)


def test_a_small_square_of_a_large_photo_is_its_average(tmp_path, paint):
    stripes = np.zeros((512, 512, 3), np.uint8)
    stripes[::2] = 255
    Image.fromarray(stripes).save(tmp_path / "a.jpg", quality=95)
    small = read_picture(tmp_path / "a.jpg", 3, size=16)
    np.testing.assert_allclose(small, 127.5, atol=6)


@pytest.mark.parametrize(("suffix", "saved"), [("png", {}), ("jpg", {}), ("webp", {})])
def test_a_file_without_its_end_is_found_by_its_header(tmp_path, paint, suffix, saved):
    path = tmp_path / f"a.{suffix}"
    paint(path.name, 64, 64, **saved)
    content = path.read_bytes()
    for cut in (0, 10, len(content) // 2, len(content) - 30):
        path.write_bytes(content[:cut])
        with pytest.raises(Exception):  # noqa: B017  of many kinds
            read_header(path)
    path.write_bytes(content + bytes(1000))
    assert read_header(path)[:2] == (64, 64)


def test_another_format_under_a_known_suffix(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.gif")
    (tmp_path / "a.gif").rename(tmp_path / "a.png")
    with pytest.raises(OSError, match="cannot identify"):
        read_header(tmp_path / "a.png")
