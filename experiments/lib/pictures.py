"""Images to PNG files, many images to one captioned sheet, and drawings to images."""

import functools
import io
import pathlib
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from experiments.lib.workdir import write_atomic

_TEXT = 14  # pixels of a letter's height
_MARGIN = 6  # pixels around a text
_GAP = 24  # pixels between two sheets


def save_png(path: str | pathlib.Path, image) -> None:
    """Writes a PNG file atomically: a reader sees the whole file or none.

    Args:
      path: of the file; its folder is created if needed.
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


def sheet(
    images, columns: int, title: str, rows: Sequence[str] = (), pad: int = 1, scale: int = 0
) -> np.ndarray:
    """A grid with a title above it, and a label to the left of each row.

    Args:
      images: as in `grid`; likewise columns, pad and scale.
      columns: likewise.
      title: what is shown and what rows and columns mean; wrapped to the width of the sheet.
      rows: a label for each row, or none.
      pad: likewise.
      scale: likewise.

    Returns:
      [H', W', C], floating point in [0, 1].

    Raises:
      ValueError: another number of labels than of rows.
    """
    cells = grid(images, columns, pad, scale)
    if rows:
        count = -(-len(images) // columns)
        if len(rows) != count:
            raise ValueError(f"{len(rows)} labels of rows; expected {count}")
        width = max(round(_font().getlength(label)) for label in rows) + 2 * _MARGIN + 1
        height = len(cells) // count
        labels = np.concatenate([_text(label, width, height) for label in rows])
        labels = np.broadcast_to(labels, (*labels.shape[:2], cells.shape[-1]))
        cells = np.concatenate([labels, cells], axis=1)
    above = _text(title, cells.shape[1])
    above = np.broadcast_to(above, (*above.shape[:2], cells.shape[-1]))
    return np.concatenate([above, cells])


def beside(*sheets) -> np.ndarray:
    """Sheets from left to right, their upper edges aligned, white between and below them.

    Args:
      *sheets: [H, W, C] each, floating point in [0, 1], all with the same C.
    """
    tallest = max(len(one) for one in sheets)
    parts = []
    for i, one in enumerate(sheets):
        space = [(0, tallest - len(one)), (_GAP if i else 0, 0), (0, 0)]
        parts.append(np.pad(one, space, constant_values=1))
    return np.concatenate(parts, axis=1)


@functools.cache
def _font():
    return ImageFont.load_default(_TEXT)


def _text(text: str, width: int, height: int = 0) -> np.ndarray:
    """Black on white: [height, width, 1], f32; height 0: as high as the lines need."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and _font().getlength(longer) > width - 2 * _MARGIN:
            lines.append(word)
        else:
            lines[-1] = longer
    spacing = _TEXT + _MARGIN // 2
    needed = spacing * len(lines) + _MARGIN
    image = Image.new("L", (width, height or needed), 255)
    draw, top = ImageDraw.Draw(image), max(0, (image.height - needed) // 2) + _MARGIN // 2
    for i, line in enumerate(lines):
        draw.text((_MARGIN, top + i * spacing), line, fill=0, font=_font())
    return np.asarray(image, np.float32)[..., None] / 255


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
