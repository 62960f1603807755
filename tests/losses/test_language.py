"""What a language model is asked to predict, against loops over rows, words and documents."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen import losses
from jaxgen.models import causal_mask, document_mask, prefix_mask

KEY = jax.random.key(3)
CLS, SEP, MASK = 2, 3, 4
ORDINARY = np.arange(100, 150)  # none of them is in a text here, so a random token is seen


@partial(jax.jit, static_argnames="rate")
def masked_words(key, ids, begins, maskable, rate=0.15, masked=0.8, random=0.1):
    return losses.masked_words(
        key, ids, begins, maskable, ORDINARY, MASK, rate, masked=masked, random=random
    )


def text(rows, length):
    """Ids, where words of about two tokens begin, and rows with padding, holes, and nothing."""
    rng = np.random.default_rng(0)
    maskable = (np.arange(length) < rng.integers(1, length + 1, (rows, 1))) & (
        rng.random((rows, length)) < 0.9
    )
    maskable[0] = True
    maskable[1] = False
    maskable[2] = np.arange(length) == 5
    return rng.integers(5, 99, (rows, length)), rng.random((rows, length)) < 0.5, maskable


def words_of(begins, maskable):
    """The positions of each word of a row."""
    words = []
    for i in np.flatnonzero(maskable):
        if begins[i] or i == 0 or not maskable[i - 1]:
            words.append([])
        words[-1].append(int(i))
    return words


def by_hand(bits, fate, other, ids, begins, maskable, rate, masked, random):
    """Row by row and word by word: what is read, and the chosen positions of each row."""
    read, chosen = ids.copy(), [[] for _ in ids]
    for b in range(len(ids)):
        words = words_of(begins[b], maskable[b])
        words.sort(key=lambda w, b=b: -(bits[b, w[0]] // 2).astype(int))
        count = maskable[b].sum()
        budget = max(round(rate * count), int(count > 0))
        for word in words:
            if len(chosen[b]) + len(word) > budget:
                break
            chosen[b] += word
        for k, i in enumerate(chosen[b]):
            if fate[b, k] < masked:
                read[b, i] = MASK
            elif fate[b, k] < masked + random:
                read[b, i] = ORDINARY[other[b, k]]
    return read, chosen


@pytest.mark.parametrize("rate", [0.25, 0.5, 1.0])
def test_masked_words_against_a_loop(rate):
    ids, begins, maskable = text(40, 20)
    found = masked_words(KEY, ids, begins, maskable, rate, 0.4, 0.3)
    order_key, fate_key, token_key = jax.random.split(KEY, 3)
    bits = np.array(jax.random.bits(order_key, ids.shape, jnp.uint32))
    fate = np.array(jax.random.uniform(fate_key, found.at.shape))
    other = np.array(jax.random.randint(token_key, found.at.shape, 0, len(ORDINARY)))
    read, chosen = by_hand(bits, fate, other, ids, begins, maskable, rate, 0.4, 0.3)
    assert found.at.shape == (40, round(rate * 20))
    np.testing.assert_array_equal(found.ids, read)
    for b, places in enumerate(chosen):
        np.testing.assert_array_equal(found.at[b, : len(places)], places)
        np.testing.assert_array_equal(found.weights[b], np.arange(found.at.shape[1]) < len(places))
    # Surplus slots are positions of the row, too, each only once.
    np.testing.assert_array_equal(found.targets, np.take_along_axis(ids, np.array(found.at), 1))
    assert all(len(set(row)) == len(row) for row in np.array(found.at).tolist())


@pytest.mark.parametrize("rate", [0.15, 0.5])
def test_words_are_chosen_whole_and_fill_the_budget(rate):
    ids, begins, maskable = text(200, 40)
    found = masked_words(KEY, ids, begins, maskable, rate)
    for b in range(len(ids)):
        words = words_of(begins[b], maskable[b])
        chosen = set(np.array(found.at[b])[np.array(found.weights[b]) > 0].tolist())
        assert all(chosen.issuperset(word) or chosen.isdisjoint(word) for word in words)
        budget = max(round(rate * maskable[b].sum()), int(maskable[b].any()))
        longest = max(map(len, words), default=1)
        assert chosen <= set(np.flatnonzero(maskable[b]).tolist())
        assert budget - longest < len(chosen) <= budget
    one_token = masked_words(KEY, ids, np.ones_like(begins), maskable, rate)
    count = maskable.sum(1)
    np.testing.assert_array_equal(
        one_token.weights.sum(1), np.maximum(np.rint(rate * count), count > 0)
    )


def test_eighty_ten_ten():
    rng = np.random.default_rng(0)
    ids = rng.integers(5, 99, (512, 512))
    maskable = (ids > 10) & (np.arange(512) < 480)
    found = jax.tree.map(
        np.array, masked_words(KEY, ids, rng.random(ids.shape) < 0.7, maskable, 0.5)
    )
    chosen = found.weights > 0
    read = np.take_along_axis(found.ids, found.at, 1)[chosen]
    total = read.size
    assert total > 1e5
    is_random = np.isin(read, ORDINARY)
    kept = read == found.targets[chosen]
    assert np.all((read == MASK) | is_random | kept)
    for share, expected in ((read == MASK, 0.8), (is_random, 0.1), (kept, 0.1)):
        assert abs(share.mean() - expected) < 3 * np.sqrt(expected * (1 - expected) / total)
    assert np.all(np.take_along_axis(maskable, found.at, 1)[chosen])
    counts = np.array([np.sum(read == token) for token in ORDINARY])
    expected = is_random.sum() / len(ORDINARY)
    squares = np.sum((counts - expected) ** 2) / expected
    freedom = len(ORDINARY) - 1
    assert abs(squares - freedom) < 4 * np.sqrt(2 * freedom)
    # The fate of a token does not depend on that of the token before it.
    masked = np.take_along_axis(found.ids, found.at, 1) == MASK
    pairs = chosen[:, 1:]
    both = (masked[:, 1:] & masked[:, :-1])[pairs].mean()
    assert abs(both - 0.64) < 3 * np.sqrt(3 * 0.64 * 0.36 / pairs.sum())


def test_words_of_one_length_are_chosen_equally_often():
    ids = np.full((20_000, 26), 7)
    inside = (np.arange(26) > 0) & (np.arange(26) < 25)
    begins, maskable = (np.broadcast_to(x, ids.shape) for x in (np.arange(26) % 2 == 1, inside))
    found = masked_words(KEY, ids, begins, maskable, 1 / 3)
    at = np.array(found.at)[np.array(found.weights) > 0]
    assert at.size == 8 * len(ids)  # 4 of the 12 words in each row
    counts = np.bincount(at, minlength=26)[1:25]
    sigma = np.sqrt(len(ids) * (1 / 3) * (2 / 3))
    assert np.abs(counts - len(ids) / 3).max() < 3 * sigma
    first = np.bincount(np.array(found.at[:, 0]), minlength=26)[1:25:2]  # of each row
    assert np.abs(first - len(ids) / 12).max() < 3 * np.sqrt(len(ids) * (1 / 12) * (11 / 12))


def test_another_key_another_choice():
    ids, begins, maskable = text(8, 40)
    a, same, b = (masked_words(key, ids, begins, maskable) for key in (KEY, KEY, jax.random.key(4)))
    jax.tree.map(np.testing.assert_array_equal, a, same)
    assert np.any(a.at != b.at)
    assert np.any(a.at[0] != masked_words(KEY, ids[[0, 0]], begins[[0, 0]], maskable[[0, 0]]).at[1])


@pytest.mark.parametrize("dtype", [np.uint8, np.int16])
def test_padding_and_special_tokens_are_no_targets(dtype):
    """[CLS] a b [SEP] [PAD] [PAD] at rate 1 asks for a and b (transformers, issue 11155)."""
    ids = np.array([[CLS, 50, 60, SEP, 0, 0]], dtype)
    for begins in (np.ones((1, 6)), np.array([[1, 1, 0, 0, 0, 0]]), np.zeros((1, 6))):
        found = masked_words(KEY, ids, begins, ids > SEP, 1.0, 1.0, 0.0)
        assert set(np.array(found.targets)[np.array(found.weights) > 0]) == {50, 60}
        np.testing.assert_array_equal(found.ids, [[CLS, MASK, MASK, SEP, 0, 0]])
        assert found.ids.dtype == found.targets.dtype == dtype
        assert (found.at.dtype, found.weights.dtype) == (np.int32, np.float32)


def test_the_smallest_rate_asks_for_one_token():
    ids, begins, maskable = text(20, 30)
    found = masked_words(KEY, ids, np.ones_like(begins), maskable, 1e-6)
    np.testing.assert_array_equal(found.weights[:, 0], maskable.any(1))
    # A row of one word of two tokens has a budget of one: the word does not fit.
    found = masked_words(KEY, ids[:1, :2], np.array([[1, 0]]), np.ones((1, 2)), 1e-6)
    np.testing.assert_array_equal(found.weights, [[0]])
    np.testing.assert_array_equal(found.ids, ids[:1, :2])


def rows_of_documents(*rows):
    """Ids [CLS] x_1 .. x_n [SEP] [SEP] of each n, every x another one, and document numbers."""
    length = max(sum(n + 3 for n in row) for row in rows) + 1
    ids, documents = np.zeros((2, len(rows), length), int)
    for b, row in enumerate(rows):
        start, token = 0, 10
        for number, n in enumerate(row):
            ids[b, start : start + n + 3] = [CLS, *range(token, token + n), SEP, SEP]
            documents[b, start : start + n + 3] = number + 1
            start, token = start + n + 3, token + n
    return ids, documents


ROWS = [(5, 2, 3), (1, 9), (0, 4, 0), (2, 1, 1), (12,)]


def test_next_tokens_against_a_loop():
    ids, documents = rows_of_documents(*ROWS)
    found = jax.jit(losses.next_tokens)(ids, documents)
    assert found.at is None
    np.testing.assert_array_equal(found.ids, ids)
    targets = []
    for b in range(len(ids)):
        for t in range(ids.shape[1]):
            inside = t + 1 < ids.shape[1] and documents[b, t] == documents[b, t + 1] != 0
            assert found.weights[b, t] == inside
            if inside:
                assert found.targets[b, t] == ids[b, t + 1]
                targets.append(ids[b, t + 1])
    # All tokens but the first of each document.
    assert sorted(targets) == sorted(ids[ids * (ids != CLS) > 0])
    assert np.all(np.isin(found.targets, ids))
    assert found.weights.dtype == np.float32
    assert not seen_targets(causal_mask(ids.shape[1]) & document_mask(documents), found.weights)


def seen_targets(mask, weights):
    """The predictions whose target is seen, through any number of layers."""
    sees = np.array(np.broadcast_to(mask, (len(weights), *mask.shape[1:])))
    for _ in range(5):
        sees |= np.einsum("bts,bsu->btu", sees.astype(int), sees.astype(int)) > 0
    return [(b, t) for b, t in np.argwhere(weights) if sees[b, t, t + 1 :].any()]


def split(ids, separator, s):
    """A document with a separator after s tokens, and its segments."""
    n = len(ids) - 3
    read = [*ids[: s + 1], separator, *ids[s + 1 : n + 2]]
    return read, [0] * (s + 2) + [1] * (n - s + 1)


def test_prefix_targets_against_a_loop():
    ids, documents = rows_of_documents(*ROWS)
    found, segments = jax.jit(losses.prefix_targets)(KEY, ids, documents, SEP)
    expected, weights, parts = ids.copy(), np.zeros_like(ids), np.zeros_like(ids)
    for b, row in enumerate(ROWS):
        for number, n in enumerate(row):
            if n:
                (here,) = np.where(documents[b] == number + 1)
                s = int(np.sum(segments[b, here] == 0)) - 2
                assert 1 <= s <= max(n - 1, 1)
                expected[b, here], parts[b, here] = split(ids[b, here], SEP, s)
                weights[b, here[s + 1 : n + 2]] = 1
    np.testing.assert_array_equal(found.ids, expected)
    np.testing.assert_array_equal(segments, parts)
    np.testing.assert_array_equal(found.weights, weights)
    np.testing.assert_array_equal(found.targets[:, :-1], expected[:, 1:])
    np.testing.assert_array_equal(np.sort(found.ids), np.sort(ids))  # every token, once
    assert found.at is None
    assert (segments.dtype, found.weights.dtype) == (np.int32, np.float32)


def test_prefix_targets_are_hidden_and_their_source_is_not():
    ids, documents = rows_of_documents(*ROWS)
    found, segments = jax.jit(losses.prefix_targets)(KEY, ids, documents, SEP)
    mask = np.array(prefix_mask(segments) & document_mask(documents))
    assert not seen_targets(mask, found.weights)
    for b, t in np.argwhere(found.weights):
        source = (documents[b] == documents[b, t]) & (np.array(segments[b]) == 0)
        np.testing.assert_array_equal(mask[b, t, source], True)
    # By the documents alone they are seen.
    assert seen_targets(document_mask(documents), found.weights)


def test_each_split_is_equally_likely_in_each_document():
    ids, documents = (np.repeat(x, 20_000, 0) for x in rows_of_documents((5, 3)))
    found, segments = jax.jit(losses.prefix_targets)(KEY, ids, documents, 1)
    starts = np.argmax(np.array(segments)[:, :8], 1), np.argmax(np.array(segments)[:, 8:], 1)
    pairs, counts = np.unique(np.stack(starts), axis=1, return_counts=True)
    assert pairs.T.tolist() == [[s + 2, t + 2] for s in (1, 2, 3, 4) for t in (1, 2)]
    sigma = np.sqrt(len(ids) * (1 / 8) * (7 / 8))
    assert np.abs(counts - len(ids) / 8).max() < 3 * sigma
    np.testing.assert_array_equal(np.sum(found.ids == 1, 1), 2)  # the separator that is given
