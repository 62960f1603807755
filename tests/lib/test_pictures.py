"""Pictures: the pixels asked for, in a file that is whole."""

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from experiments.lib.pictures import figure, grid, save_png


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


def test_a_figure_is_an_image_of_what_was_drawn():
    def draw(sheet):
        sheet.patch.set_facecolor("red")

    image = figure(draw, width=2, height=1)
    assert image.shape == (100, 200, 3)
    np.testing.assert_array_equal(image[50, 100], [1, 0, 0])
