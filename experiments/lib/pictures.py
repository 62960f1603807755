"""Images to PNG files, many images to one grid, and drawings to images."""

import io
import pathlib
from collections.abc import Callable

import numpy as np
from PIL import Image

from experiments.lib.workdir import write_atomic


def save_png(path: str | pathlib.Path, image) -> None:
    """Writes a picture; the file appears whole or not at all.

    Args:
      path: where; its folder is made if needed.
      image: [H, W, 1] or [H, W, 3], uint8, or floating point in [0, 1] (clipped to it).

    Raises:
      ValueError: another shape.
    """
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[-1] not in (1, 3):
        raise ValueError(f"image of shape {image.shape}: expected [H, W, 1] or [H, W, 3]")
    if image.dtype != np.uint8:
        image = np.round(255 * np.clip(image.astype(np.float32), 0, 1)).astype(np.uint8)
    content = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(content, format="PNG")
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, content.getvalue())


def grid(images, columns: int, pad: int = 1, scale: int = 0) -> np.ndarray:
    """Lays images out in rows, left to right and top to bottom.

    Args:
      images: [N, H, W, C], floating point in [0, 1] or uint8; NaN is shown as black.
      columns: images per row; the last row is filled up with white.
      pad: white pixels around each image, before scaling.
      scale: integer factor by which each pixel is enlarged; 0: so that an image's shorter side
        has at least 48 pixels.

    Returns:
      [H', W', C], floating point in [0, 1].
    """
    images = np.asarray(images)
    if images.dtype == np.uint8:
        images = images / np.float32(255)
    images = np.nan_to_num(images.astype(np.float32))
    count, height, width, channels = images.shape
    rows = -(-count // columns)
    missing = rows * columns - count
    images = np.pad(images, [(0, missing), (0, 0), (0, 0), (0, 0)], constant_values=1)
    images = np.pad(images, [(0, 0), (pad, pad), (pad, pad), (0, 0)], constant_values=1)
    cells = images.reshape(rows, columns, height + 2 * pad, width + 2 * pad, channels)
    sheet = cells.transpose(0, 2, 1, 3, 4).reshape(rows * (height + 2 * pad), -1, channels)
    factor = scale or -(-48 // min(height, width))
    return sheet.repeat(factor, axis=0).repeat(factor, axis=1)


def figure(draw: Callable, width: float = 8, height: float = 5) -> np.ndarray:
    """A drawing as an image.

    Args:
      draw: (matplotlib Figure) -> None; fills the figure it is given.
      width: inches, of 100 pixels each.
      height: likewise.

    Returns:
      [100 height, 100 width, 3], floating point in [0, 1].
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415  slow to import
    from matplotlib.figure import Figure  # noqa: PLC0415

    sheet = Figure((width, height), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(sheet)
    draw(sheet)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3] / np.float32(255)
