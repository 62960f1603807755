"""Picture files: what a file says of its picture, and the picture as an array."""

import os
import pathlib
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from experiments.lib.sources.resizing import to_square

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
_FORMATS = ("PNG", "JPEG", "WEBP")
_GREY = ("1", "L", "LA", "I")  # Pillow's modes; I and I;16 are grey of 16 bits
_ENDS = {"PNG": b"IEND", "JPEG": b"\xff\xd9", "MPO": b"\xff\xd9"}
_ORIENTATION = 0x0112  # EXIF; 5 to 8 exchange width and height


class Header(NamedTuple):
    """What a file says of its picture.

    Attributes:
      width: of the picture as it is shown, after EXIF's rotation.
      height: likewise.
      grey: it has no colours.
    """

    width: int
    height: int
    grey: bool


def read_header(path: pathlib.Path) -> Header:
    """Reads the header, and makes sure that the file has its end.

    Raises:
      Exception: of many kinds, as Pillow's decoders raise them: the file is no whole picture.
    """
    with Image.open(path, formats=_FORMATS) as picture:
        width, height = picture.size
        # Pillow would decode a PNG to look for EXIF behind its pixels.
        exif = picture.getexif() if picture.format != "PNG" or "exif" in picture.info else {}
        if exif.get(_ORIENTATION, 1) >= 5:
            width, height = height, width
        if not _has_end(path, str(picture.format)):
            picture.load()  # raises if it is cut; bytes after the end are harmless
        return Header(width, height, picture.mode.partition(";")[0] in _GREY)


def _has_end(path: pathlib.Path, form: str) -> bool:
    with path.open("rb") as file:
        file.seek(-min(64, path.stat().st_size), os.SEEK_END)
        return _ENDS.get(form, b"") in file.read()


def read_picture(path: pathlib.Path, channels: int, size: int = 0) -> np.ndarray:
    """Decodes a picture, upright as EXIF's orientation says, on white where it is transparent.

    Args:
      path: of a PNG, JPEG or WebP file; of an animation the first frame is read.
      channels: 3, red, green and blue; or 1, for a picture without colours. 16 bits become 8.
      size: of the square that is cut out, see `to_square`; 0: the whole picture as it is.

    Returns:
      uint8 [H, W, channels].

    Raises:
      Exception: of many kinds, as Pillow's decoders raise them: the file is no whole picture.
    """
    with Image.open(path, formats=_FORMATS) as opened:
        if size:  # a JPEG is decoded at a fraction of its size, if twice what is wanted remains
            opened.draft(opened.mode, (2 * size, 2 * size))
        picture = ImageOps.exif_transpose(opened)
    picture = _plain(picture).convert("L" if channels == 1 else "RGB")
    if size:
        picture = to_square(picture, size)
    return np.asarray(picture).reshape(picture.height, picture.width, channels)


def _plain(picture: Image.Image) -> Image.Image:
    """The same picture with 8 bits and without transparency."""
    if picture.mode.startswith("I"):
        return Image.fromarray((np.asarray(picture) // 257).astype(np.uint8))
    if picture.has_transparency_data:
        white = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(white, picture.convert("RGBA"))
    return picture
