"""Images brought to one square size."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from experiments.lib.sources.image_set import Images


def to_square(picture: Image.Image, size: int) -> Image.Image:
    """Crops the largest square around the centre and resizes it to size x size pixels.

    Pillow's Lanczos filter: it is widened where the picture shrinks, so nothing aliases.
    """
    return ImageOps.fit(picture, (size, size), Image.Resampling.LANCZOS)


@dataclass(frozen=True)
class Resized:
    """A split whose images are resized when they are read."""

    split: Any
    size: int
    levels: int

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.split)

    def __getitem__(self, index) -> dict[str, np.ndarray]:
        """One example, or a batch."""
        batch = self.split[index]
        images = batch["image"].reshape(-1, *batch["image"].shape[-3:])
        resized = np.stack([self._resized(image) for image in images])
        return batch | {"image": resized if np.ndim(index) else resized[0]}

    def _resized(self, image: np.ndarray) -> np.ndarray:
        picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
        pixels = np.asarray(to_square(picture, self.size)).reshape(self.size, self.size, -1)
        return np.minimum(pixels, self.levels - 1)  # the filter overshoots at edges


def resized(images: Images, size: int) -> Images:
    """The same set with images of size x size pixels, see `to_square`."""
    train, test = (Resized(split, size, images.levels) for split in (images.train, images.test))
    return images._replace(train=train, test=test, shape=(size, size, images.shape[2]))
