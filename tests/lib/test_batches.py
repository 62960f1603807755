"""The same batches however they are read."""

import itertools

import numpy as np
import pytest

from experiments.lib.batches import batches, in_blocks, in_order, test_batches
from experiments.lib.dataset import Arrays


@pytest.fixture
def hundred():
    return Arrays({"image": np.arange(100, dtype=np.uint8)[:, None, None, None]})


def _first(source, count, *args, **kwargs):
    read = itertools.islice(batches(source, *args, **kwargs), count)
    return [batch["image"].ravel() for batch in read]


def test_every_epoch_has_each_example_once_in_a_new_order(hundred):
    seen = np.concatenate(_first(hundred, 75, 8, seed=3)).reshape(6, 100)
    for epoch in seen:
        assert sorted(epoch) == list(range(100))
    for one, other in itertools.combinations([np.arange(100), *seen], 2):
        assert (one == other).mean() < 0.1
    assert (seen != np.concatenate(_first(hundred, 75, 8, seed=4)).reshape(6, 100)).any()


def test_a_batch_is_a_function_of_seed_and_number(hundred):
    whole = _first(hundred, 40, 8, seed=3)
    np.testing.assert_array_equal(_first(hundred, 10, 8, seed=3, start=30), whole[30:])
    parts = [_first(hundred, 40, 8, seed=3, processes=(i, 4)) for i in range(4)]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)


def test_a_batch_may_be_larger_than_the_set(hundred):
    (batch,) = _first(hundred, 1, 250, seed=0)
    assert np.bincount(batch).tolist().count(2) + np.bincount(batch).tolist().count(3) == 100


def test_the_test_pass_has_each_example_once_in_order(hundred):
    read = list(test_batches(hundred, 32))
    assert [len(batch["image"]) for batch in read] == [32] * 4
    valid = np.concatenate([batch["valid"] for batch in read])
    images = np.concatenate([batch["image"].ravel() for batch in read])
    assert images[valid].tolist() == list(range(100))
    halves = [list(test_batches(hundred, 32, processes=(i, 2))) for i in range(2)]
    for batch, *parts in zip(read, *halves, strict=True):
        for name in batch:
            joined = np.concatenate([part[name] for part in parts])
            np.testing.assert_array_equal(joined, batch[name])


def test_in_order_there_is_nothing_but_the_examples(hundred):
    read = [batch["image"].ravel() for batch in in_order(hundred, 32)]
    assert [len(images) for images in read] == [32, 32, 32, 4]
    assert np.concatenate(read).tolist() == list(range(100))


@pytest.mark.parametrize("block", [1, 32, 100, 512])
def test_in_blocks_a_function_sees_one_shape_and_each_example_gives_one_row(hundred, block):
    shapes = set()

    def function(batch):
        shapes.add(tuple((name, column.shape) for name, column in batch.items()))
        x = batch["image"][:, 0, 0]
        return {"twice": 2 * x.astype(np.float32), "own": (x[:, 0],)}

    found = in_blocks(function, hundred, block)
    assert shapes == {(("image", (block, 1, 1, 1)),)}
    np.testing.assert_array_equal(found["twice"], 2 * np.arange(100.0)[:, None])
    np.testing.assert_array_equal(found["own"][0], np.arange(100))
