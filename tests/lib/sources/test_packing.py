"""Packed rows: nothing lost, nothing twice, few rows; and what stands where in a row."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.lib.batches import test_batches
from experiments.lib.sources.packing import Parts, Rows, pack, parts_of, split_parts
from experiments.lib.sources.pieces import PieceCorpus
from experiments.lib.tokenizer import Specials

_FEW = settings(max_examples=60, deadline=None)
SPECIAL = Specials(pad=0, unknown=1, cls=2, sep=3, mask=4)


def one_by_one(lengths, capacity):
    """The rows of best-fit decreasing as everybody writes it, in lengths."""
    rows = []
    for length in sorted(lengths, reverse=True):
        fitting = [row for row in rows if sum(row) + length <= capacity]
        if fitting:
            max(fitting, key=sum).append(length)
        else:
            rows.append([length])
    return rows


@_FEW
@given(st.integers(1, 40), st.data())
def test_every_item_is_in_one_row_as_best_fit_decreasing_puts_it(capacity, data):
    lengths = np.array(data.draw(st.lists(st.integers(1, capacity), max_size=80)), np.int64)
    items, starts = pack(lengths, capacity)
    assert sorted(items.tolist()) == list(range(len(lengths)))
    assert starts[0] == 0
    assert starts[-1] == len(lengths)
    rows = [lengths[items[a:b]].tolist() for a, b in itertools.pairwise(starts)]
    assert all(0 < sum(row) <= capacity for row in rows)
    # Of rows with as much room, either may get an item; so rows agree in their sums.
    expected = one_by_one(lengths.tolist(), capacity)
    assert sorted(map(sum, rows)) == sorted(map(sum, expected))


@pytest.mark.parametrize(
    ("lengths", "capacity", "rows"),
    [
        ([4] * 12, 16, 3),
        ([5] * 7, 16, 3),
        ([16] * 3, 16, 3),
        ([9, 7] * 5, 16, 5),
        ([8, 4, 2, 2] * 6, 16, 6),
        ([1] * 33, 16, 3),
        ([], 16, 0),
    ],
)
def test_rows_that_can_be_written_down(lengths, capacity, rows):
    items, starts = pack(np.array(lengths, np.int64), capacity)
    assert len(starts) - 1 == rows
    assert sorted(items.tolist()) == list(range(len(lengths)))


@pytest.mark.parametrize("longest", [20, 64, 128])
def test_random_lengths_need_almost_no_padding(longest):
    lengths = np.random.default_rng(0).integers(1, longest + 1, 20_000)
    rows = len(pack(lengths, 128)[1]) - 1
    assert rows <= 1.01 * lengths.sum() / 128 + 1


@_FEW
@given(st.lists(st.integers(0, 30)), st.integers(1, 12))
def test_parts_cover_each_token_once(lengths, most):
    starts = np.concatenate([[0], np.cumsum(np.array(lengths, np.int64))])
    parts = parts_of(starts, most)
    places = [n for a, n in zip(*parts, strict=True) for n in range(a, a + n)]
    assert places == list(range(starts[-1]))
    assert all(1 <= length <= most for length in parts.lengths)
    # No part goes on into the next document, and only the last of a document is short.
    assert set(starts[:-1][np.diff(starts) > 0]) <= set(parts.starts)
    ends = parts.starts + parts.lengths
    assert all(
        length == most or end in starts for length, end in zip(parts.lengths, ends, strict=True)
    )


def corpus(lengths, words=3):
    """Documents of these lengths whose tokens are all different; every third one begins a word."""
    starts = np.concatenate([[0], np.cumsum(np.array(lengths, np.int64))])
    tokens = np.arange(5, 5 + starts[-1], dtype=np.int32)
    begins = np.arange(starts[-1]) % words == 0
    return PieceCorpus("text", None, tokens, begins, starts, ())


def read(batch, closing):
    """The parts of a batch of rows, [CLS] and [SEP] taken off, after a check of all else."""
    found = []
    for ids, documents, begins in zip(*batch.values(), strict=True):
        count = documents.max()
        used = int((documents > 0).sum())
        assert documents[:used].tolist() == sorted(documents[:used])  # side by side, padding last
        assert set(documents[:used]) == set(range(1, count + 1))
        assert not ids[used:].any()
        assert not begins[used:].any()
        for number in range(1, count + 1):
            own = documents == number
            part, starts = ids[own], begins[own]
            assert part[0] == SPECIAL.cls
            assert part[-closing:].tolist() == [SPECIAL.sep] * closing
            tokens = part[1:-closing]
            assert (tokens > 4).all()
            # Words begin where they do in the corpus, and at the beginning of a part.
            first = (tokens - 5) % 3 == 0
            first[0] = True
            assert starts.tolist() == [False, *first, *[False] * closing]
            found.append(tokens.tolist())
    return found


@pytest.mark.parametrize("closing", [1, 2])
def test_both_splits_together_hold_every_token_once(closing):
    lengths = np.random.default_rng(0).integers(0, 60, 50)
    pieces, length = corpus(lengths), 32
    parts = parts_of(pieces.starts, length - 1 - closing)
    train, test = (
        Rows(pieces, p, length, SPECIAL, closing) for p in split_parts(parts, pieces.starts, 0.2)
    )
    found = []
    for rows in (train, test):
        batch = rows[np.arange(len(rows))]
        assert {name: x.dtype for name, x in batch.items()} == {
            "ids": np.int32, "documents": np.int32, "begins": bool
        }  # fmt: skip
        found.append(read(batch, closing))
    assert sorted(token for half in found for part in half for token in part) == list(pieces.tokens)
    assert len(found[1]) == round(0.2 * len(parts.starts))
    expected = [pieces.tokens[a : a + n].tolist() for a, n in zip(*parts, strict=True)]
    assert sorted(found[0] + found[1]) == expected


def test_the_tail_of_a_document_is_kept():
    """130 tokens and blocks of 128: both transformers and others lost the last two."""
    pieces = corpus([130])
    rows = Rows(pieces, parts_of(pieces.starts, 126), 128, SPECIAL, 1)
    assert sorted(map(len, read(rows[np.arange(len(rows))], 1))) == [4, 126]


def test_rows_are_a_split():
    pieces = corpus([5, 9, 1, 13, 7, 2, 11])
    rows = Rows(pieces, parts_of(pieces.starts, 14), 16, SPECIAL, 1)
    assert len(rows) > 3
    whole = rows[np.arange(len(rows))]
    order = np.array([[2, 0], [2, 1]], np.int32)
    for name, column in rows[order].items():
        np.testing.assert_array_equal(column, whole[name][order])
    for name, column in rows[1].items():
        assert column.shape == (16,)
        np.testing.assert_array_equal(column, whole[name][1])
    assert rows[np.arange(0)]["ids"].shape == (0, 16)
    batches = list(test_batches(rows, 3))
    assert sum(int(batch["valid"].sum()) for batch in batches) == len(rows)


@pytest.mark.parametrize("index", [-1, -2, 7, np.array([0, 7]), np.array([[3], [-1]])])
def test_rows_that_are_not_there(index):
    pieces = corpus([14] * 7)
    rows = Rows(pieces, parts_of(pieces.starts, 14), 16, SPECIAL, 1)
    with pytest.raises(IndexError, match="expected 0 to 6"):
        rows[index]


def test_the_draw_of_the_test_is_always_the_same():
    parts, whole = Parts(np.arange(40), np.ones(40, np.int64)), np.array([0, 40])
    train, test = split_parts(parts, whole, 0.1)
    assert len(test.starts) == 4
    assert sorted([*train.starts, *test.starts]) == list(range(40))
    np.testing.assert_array_equal(split_parts(parts, whole, 0.1)[1].starts, test.starts)
    assert len(split_parts(parts.take(np.arange(2)), whole, 0.02)[1].starts) == 1


def test_all_parts_of_a_document_are_on_one_side():
    starts = np.concatenate([[0], np.cumsum(np.random.default_rng(0).integers(0, 60, 70))])
    parts = parts_of(starts, 10)
    owners = [set(np.searchsorted(starts, half.starts, "right")) for half in
              split_parts(parts, starts, 0.2)]  # fmt: skip
    assert not owners[0] & owners[1]
    assert len(owners[1]) == round(0.2 * np.count_nonzero(np.diff(starts)))
