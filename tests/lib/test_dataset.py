"""Splits: remembered, cut in parts, held out, and those without any data."""

import numpy as np

from experiments.lib.dataset import Arrays, Dataset, Remembered, generated, held_out


class _Disk:
    """Counts what is read of it."""

    def __init__(self):
        self.reads = []

    def __len__(self):
        return 5

    def __getitem__(self, index):
        self.reads.extend(index.tolist())
        image = np.ones((len(index), 2, 2, 1), np.uint8) * index[:, None, None, None]
        return {"image": image.astype(np.uint8), "label": index.astype(np.int32)}


def test_a_remembered_split_is_read_once_and_stays_the_same():
    disk = _Disk()
    split = Remembered(disk)
    for wanted in ([3, 1], [1, 4, 3], [0, 1]):
        batch = split[np.array(wanted)]
        np.testing.assert_array_equal(batch["label"], wanted)
        np.testing.assert_array_equal(batch["image"][:, 0, 0, 0], wanted)
        assert (batch["image"].dtype, batch["label"].dtype) == (np.uint8, np.int32)
    assert disk.reads == [0, 3, 1, 4, 0]  # the first one twice: it told the columns
    assert split[4]["image"].shape == (2, 2, 1)
    assert split[4]["label"] == 4
    assert len(split) == 5


def test_what_is_held_out_is_the_last_fifth():
    numbers = Arrays({"number": np.arange(11)})
    data = held_out(Dataset(numbers, "unseen"))
    assert [part[np.arange(len(part))]["number"].tolist() for part in data] == [
        [0, 1, 2, 3, 4, 5, 6, 7],
        [8, 9, 10],
    ]


def test_generated_examples_are_numbers():
    data = generated(3)
    assert data.train[np.array([2, 0])]["number"].tolist() == [2, 0]
    assert len(data.train) == len(data.test) == 3
