"""Pictures: the pixels asked for, in a file that is whole."""

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from experiments.lib.pictures import beside, figure, grid, save_png, sheet


@pytest.mark.parametrize("channels", [1, 3])
def test_png_keeps_the_pixels(tmp_path, channels):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, channels), np.uint8)
    for image in (pixels, pixels / 255, jnp.asarray(pixels / 255, jnp.float32)):
        save_png(tmp_path / "new" / "image.png", image)
        with Image.open(tmp_path / "new" / "image.png") as read:
            np.testing.assert_array_equal(np.asarray(read).reshape(pixels.shape), pixels)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["image.png"]


def test_png_clips(tmp_path):
    save_png(tmp_path / "image.png", np.array([[[-1.0], [0.5], [2.0]]]))
    with Image.open(tmp_path / "image.png") as read:
        assert np.asarray(read).tolist() == [[0, 128, 255]]


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 2), (1, 5, 7, 3)])
def test_png_of_another_shape(tmp_path, shape):
    with pytest.raises(ValueError, match=r"expected \[H, W, 1\] or \[H, W, 3\]"):
        save_png(tmp_path / "image.png", np.zeros(shape))


def test_grid_puts_each_image_in_its_place():
    images = np.arange(5 * 2 * 3).reshape(5, 2, 3, 1) / 30
    sheet = grid(images, columns=2, pad=1, scale=1)
    assert sheet.shape == (3 * 4, 2 * 5, 1)
    for i, image in enumerate(images):
        top, left = 4 * (i // 2) + 1, 5 * (i % 2) + 1
        np.testing.assert_allclose(sheet[top : top + 2, left : left + 3], image, rtol=1e-6)
    assert (sheet[8:, 5:] == 1).all()  # the place that is left over
    assert (sheet[[0, 3, 4]] == 1).all()


def test_grid_enlarges_small_images():
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8)
    sheet = grid(images, columns=3)
    assert sheet.shape == (60, 180, 3)
    np.testing.assert_allclose(sheet[6:54:6, 6:54:6], images[0] / 255, rtol=1e-6)
    assert grid(np.zeros((1, 64, 64, 1)), columns=1).shape == (66, 66, 1)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_sheet_is_a_grid_below_its_title_and_right_of_its_labels(channels):
    images = np.random.default_rng(0).uniform(size=(6, 8, 8, channels))
    cells, titled = grid(images, columns=3), sheet(images, 3, "six images")
    np.testing.assert_array_equal(titled[-len(cells) :], cells)
    assert titled.shape[1] == cells.shape[1]
    title = titled[: -len(cells)]
    assert title.min() < 0.5 < title.mean() < 1  # black on white
    labelled = sheet(images, 3, "six images", ["upper", "lower"])
    np.testing.assert_array_equal(labelled[-len(cells) :, -cells.shape[1] :], cells)
    labels = labelled[-len(cells) :, : -cells.shape[1]].reshape(2, -1)
    assert (labels.min(axis=1) < 0.5).all()  # each row has its own, in its own height
    assert not np.array_equal(*labels)


def test_a_long_title_is_wrapped_and_whole():
    images = np.ones((1, 8, 8, 1))
    short, long = (sheet(images, 1, "word " * n)[:-60, :, 0] for n in (1, 6))
    assert len(long) > 4 * len(short)
    assert (long[:, [0, 1, -2, -1]] == 1).all()  # nothing is cut at the edges
    wide = sheet(np.ones((9, 8, 8, 1)), 9, "word " * 6)
    assert len(wide) < len(long)


def test_labels_that_do_not_fit_the_rows():
    with pytest.raises(ValueError, match="3 labels of rows; expected 2"):
        sheet(np.zeros((4, 8, 8, 1)), 2, "title", ["a", "b", "c"])


def test_sheets_beside_each_other():
    tall, low = np.zeros((50, 10, 3)), np.full((20, 30, 3), 0.5)
    both = beside(tall, low)
    assert len(both) == 50
    np.testing.assert_array_equal(both[:, :10], tall)
    np.testing.assert_array_equal(both[:20, -30:], low)
    assert (both[20:, -30:] == 1).all()
    assert (both[:, 10:-30] == 1).all()
    assert both.shape[1] > 40


def test_a_figure_is_an_image_of_what_was_drawn():
    def draw(sheet):
        sheet.patch.set_facecolor("red")

    image = figure(draw, width=2, height=1)
    assert image.shape == (100, 200, 3)
    np.testing.assert_array_equal(image[50, 100], [1, 0, 0])
