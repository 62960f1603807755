"""Pictures that are made."""

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def paint(tmp_path):
    """paint(name, width, height, mode, **how it is saved): writes a picture of noise; its array."""

    def paint(name, width=12, height=8, mode="RGB", **saved):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        channels = {"L": (), "RGB": (3,), "RGBA": (4,), "LA": (2,)}[mode]
        rng = np.random.default_rng(list(name.encode()))
        pixels = rng.integers(0, 256, (height, width, *channels)).astype(np.uint8)
        Image.fromarray(pixels, mode).save(path, **saved)
        return pixels

    return paint
