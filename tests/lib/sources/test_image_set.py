"""What is drawn for a test split, and what stays in memory."""

import numpy as np
import pytest

from experiments.lib.dataset import Arrays, Remembered
from experiments.lib.sources import image_set
from experiments.lib.sources.image_set import Images, drawn_for_test, remembered


def test_one_in_ten_is_drawn_and_stays_drawn():
    names = [f"{place}.png" for place in range(5000)]
    drawn = drawn_for_test(names)
    assert 430 < drawn.sum() < 570
    few = names[1000:2000]
    np.testing.assert_array_equal(drawn_for_test(few), drawn[1000:2000])
    np.testing.assert_array_equal(drawn_for_test(names[::-1]), drawn[::-1])


@pytest.mark.parametrize("count", range(2, 12))
def test_of_few_at_least_one_is_drawn_and_one_is_left(count):
    for start in range(50):
        drawn = drawn_for_test([str(start + place) for place in range(count)])
        assert 0 < drawn.sum() < count


def test_a_set_that_fits_is_remembered(monkeypatch):
    def images(split):
        part = split({"image": np.zeros((5, 2, 2, 3), np.uint8)})
        return Images("noise", part, part, (2, 2, 3), 256)

    on_disk, in_memory = images(lambda columns: _Lazy(Arrays(columns))), images(Arrays)
    assert isinstance(remembered(on_disk).train, Remembered)
    assert remembered(in_memory) is in_memory
    monkeypatch.setattr(image_set, "_MEMORY", 119)  # ten images have 120 bytes
    assert remembered(on_disk) is on_disk


class _Lazy:
    def __init__(self, split):
        self.split = split

    def __len__(self):
        return len(self.split)

    def __getitem__(self, index):
        return self.split[index]
