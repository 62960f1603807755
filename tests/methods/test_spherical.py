"""JoSE's steps against transcriptions, and what is drawn for a batch."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import spherical_embedding
from experiments.lib.errors import UserError
from experiments.methods import spherical
from experiments.methods.spherical_steps import RULES, Block
from jaxgen.losses import joint_hinge_loss

CONFIG = dataclasses.replace(spherical_embedding.SMOKE, learning_rate=0.04, steps=20, settle=0.25)


def unit(rng, *shape):
    x = rng.standard_normal(shape)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def pair_block(rng, length=2):
    """A block whose word at 0 has the context at 1, and no other pair."""
    pairs = np.zeros((1, length, length), bool)
    pairs[0, 0, 1] = True
    return Block(
        tokens=np.arange(length)[None],
        drawn=length + np.arange(length)[None],
        pairs=pairs,
        kept=np.zeros((1, length), bool),
        words=unit(rng, 1, length, 6),
        contexts=unit(rng, 1, length, 6),
        documents=np.repeat(unit(rng, 1, 1, 6), length, axis=1),
        negatives=unit(rng, 1, length, 6),
    )


def by_program(u, v, n, rate, margin):
    """The C program's updates of a word, its context and a negative, without renormalising."""
    f, h = u @ v, n @ v
    if f - h >= margin:
        return u, v, n
    new_u = u + rate * (1 - f) * (v - f * u)
    new_n = n + rate * 2 * h * (h * n - v)
    new_v = v + rate * (1 - f + h) * ((u - f * v) - (n - h * v))
    return new_u, new_v, new_n


def by_paper(u, v, d, n, rate, margin):
    """Riemannian steps of the joint hinge, scaled by 1 + x.g / |g|."""
    if margin - u @ v - u @ d + n @ v + n @ d <= 0:
        return u, v, d, n
    moved = []
    for x, g in ((u, -(v + d)), (v, n - u), (d, n - u), (n, v + d)):
        moved.append(x - rate * (1 + x @ g / np.linalg.norm(g)) * (g - (x @ g) * x))
    return moved


@pytest.mark.parametrize("seed", range(8))
def test_a_single_pair_moves_as_in_the_program(seed, x64):
    block = pair_block(np.random.default_rng(seed))
    words, contexts, negatives, documents, _ = RULES["split"](0.15, 0.15, 1, block)
    u, v, n = block.words[0, 0], block.contexts[0, 1], block.negatives[0, 0]
    expected = by_program(u, v, n, 0.04, 0.15)
    moved = (
        u + 0.04 * words.step[0, 0],
        v + 0.04 * contexts.step[0, 1],
        n + 0.04 * negatives.step[0, 0],
    )
    for ours, theirs in zip(moved, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-10)
    assert not np.any(documents.step)
    assert words.count[0, 0] == float(not np.array_equal(expected[0], u))


@pytest.mark.parametrize("seed", range(8))
def test_a_single_word_and_its_document_move_as_in_the_program(seed, x64):
    block = pair_block(np.random.default_rng(seed))
    kept = np.array([[True, False]])
    block = block._replace(pairs=np.zeros((1, 2, 2), bool), kept=kept)
    words, contexts, negatives, documents, hinge = RULES["split"](0.15, 0.3, 1, block)
    u, d, n = block.words[0, 0], block.documents[0, 0], block.negatives[0, 0]
    expected = by_program(u, d, n, 0.04, 0.3)
    np.testing.assert_allclose(u + 0.04 * words.step[0, 0], expected[0], rtol=1e-10)
    np.testing.assert_allclose(d + 0.04 * documents.step[0, 0], expected[1], rtol=1e-10)
    np.testing.assert_allclose(n + 0.04 * negatives.step[0, 0], expected[2], rtol=1e-10)
    np.testing.assert_allclose(hinge, max(0, 0.3 - u @ d + n @ d), rtol=1e-10)
    assert not np.any(contexts.step)


@pytest.mark.parametrize("seed", range(8))
def test_a_single_pair_moves_as_in_the_paper(seed, x64):
    block = pair_block(np.random.default_rng(seed))
    words, contexts, negatives, documents, hinge = RULES["joint"](0.15, 0.6, 1, block)
    u, v, d, n = (
        block.words[0, 0],
        block.contexts[0, 1],
        block.documents[0, 0],
        block.negatives[0, 0],
    )
    expected = by_paper(u, v, d, n, 0.04, 0.15)
    np.testing.assert_allclose(u + 0.04 * words.step[0, 0], expected[0], rtol=1e-10)
    np.testing.assert_allclose(v + 0.04 * contexts.step[0, 1], expected[1], rtol=1e-10)
    np.testing.assert_allclose(d + 0.04 * documents.step[0, 0], expected[2], rtol=1e-10)
    np.testing.assert_allclose(n + 0.04 * negatives.step[0, 0], expected[3], rtol=1e-10)
    np.testing.assert_allclose(hinge, max(0, 0.15 - u @ v - u @ d + n @ v + n @ d), rtol=1e-10)


def random_block(rng, length):
    """Many pairs, and random words that often are words of the block."""
    block = pair_block(rng, length)
    return block._replace(
        tokens=rng.integers(0, 6, (1, length)),
        drawn=rng.integers(0, 6, (1, length)),
        pairs=rng.random((1, length, length)) < 0.5,
        kept=rng.random((1, length)) < 0.7,
    )


def negatives_of(block, i, count):
    """Places of the random words of the word at i."""
    length = block.drawn.shape[1]
    return [(i + k * length // count) % length for k in range(count)]


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_block_adds_the_steps_of_its_pairs(count, x64):
    """The sum over all pairs, negatives and documents, by loops."""
    block = random_block(np.random.default_rng(count), 7)
    words, contexts, negatives, documents, _ = RULES["split"](0.15, 0.4, count, block)
    tokens, drawn = block.tokens[0], block.drawn[0]
    u, v, d, n = (np.asarray(x[0]) for x in block[4:])
    steps, counts = [np.zeros_like(x) for x in (u, v, d, n)], np.zeros((4, 7))

    def add(i, y, others, place, word, margin):
        for k in negatives_of(block, i, count):
            if drawn[k] == word:
                continue
            moved = by_program(u[i], y, n[k], 1.0, margin)
            old, at = (u[i], y, n[k]), (i, place, k)
            for table, row, x, new in zip((0, others, 3), at, old, moved, strict=True):
                steps[table][row] += new - x
                counts[table][row] += float(np.any(moved[0] != u[i]))

    for i, j in np.argwhere(block.pairs[0]):
        add(i, v[j], 1, j, tokens[j], 0.15)
    for i in np.flatnonzero(block.kept[0]):
        add(i, d[i], 2, i, tokens[i], 0.4)
    assert counts.min(axis=1).max() > 0
    found = (words, contexts, documents, negatives)
    for ours, theirs, number in zip(found, steps, counts, strict=True):
        np.testing.assert_allclose(ours.step[0], theirs, rtol=1e-9, atol=1e-12)
        np.testing.assert_array_equal(ours.count[0], number)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_block_adds_the_gradients_of_the_joint_hinge(count, x64):
    """The paper's steps from the gradients of the summed hinges, by autodiff."""
    block = random_block(np.random.default_rng(count), 7)
    found = RULES["joint"](0.3, 0.6, count, block)[:4]

    def loss(tables):
        u, v, d, n = tables
        total = 0.0
        for i, j in np.argwhere(block.pairs[0]):
            for k in negatives_of(block, i, count):
                if block.drawn[0, k] != block.tokens[0, j]:
                    cosines = u[i] @ v[j], u[i] @ d[i], n[k] @ v[j], n[k] @ d[i]
                    total += joint_hinge_loss(*cosines, margin=0.3)
        return total

    tables = tuple(jnp.asarray(x[0]) for x in block[4:])
    own = *found[:2], found[3], found[2]
    for x, g, ours in zip(tables, jax.grad(loss)(tables), own, strict=True):
        norm = np.maximum(np.linalg.norm(g, axis=-1, keepdims=True), 1e-300)
        along = np.sum(x * g, axis=-1, keepdims=True)
        expected = -(1 + along / norm) * (g - along * x)
        np.testing.assert_allclose(ours.step[0], expected, rtol=1e-8, atol=1e-10)


def test_pairs_are_near_in_one_document_and_skip_frequent_words():
    config = dataclasses.replace(CONFIG, window=2, sample=1e-12)
    counts = np.array([10**12, 1, 1, 1, 1, 1])
    draw = jax.jit(spherical.drawing(config, counts))
    tokens = jnp.array([[1, 0, 0, 2, 3, 4, 5, -1]])
    documents = jnp.array([[0, 0, 0, 0, 0, 1, 1, -1]])
    seen = np.zeros((8, 8))
    for key in jax.random.split(jax.random.key(0), 100):
        drawn = draw(key, tokens, documents)
        seen += np.asarray(drawn.pairs)[0]
        assert not np.asarray(drawn.kept)[0, [1, 2, 7]].any()
    assert not seen[[1, 2, 7]].any()
    assert not seen[:, [1, 2, 7]].any()
    assert not seen[:5, 5:].any()
    assert not seen.diagonal().any()
    assert 30 < seen[0, 4] < 70 < seen[0, 3]  # "0" between them is skipped; half the windows are 2
    assert seen[5, 6] > 70


def test_negatives_follow_the_power_law():
    """Counts 8, 1, 1 to the power 3/4: 0.704, 0.148, 0.148 (gensim, pull request 876)."""
    draw = spherical.drawing(CONFIG, np.array([8, 1, 1]))
    drawn = draw(jax.random.key(0), jnp.zeros((100, 100), int), jnp.zeros((100, 100), int))
    share = np.bincount(np.ravel(drawn.negatives)) / 10_000
    np.testing.assert_allclose(share, [0.704, 0.148, 0.148], atol=3 * 0.0046)


def corpus(tokens, starts, size):
    counts = np.maximum(np.bincount(tokens, minlength=size), 1)
    return SimpleNamespace(tokens=np.int32(tokens), starts=np.array(starts), counts=counts)


def test_all_vectors_stay_on_the_sphere_and_a_word_at_the_end_of_a_document_is_trained():
    rng = np.random.default_rng(0)
    tokens = np.append(rng.integers(0, 20, 15_000), 20)
    own = corpus(tokens, [0, 15_001, 15_001], 21)
    config = dataclasses.replace(CONFIG, block=64, batch_size=16, sample=1.0)
    method = spherical.spherical(config, own)
    split = spherical.Blocks(own, config.block)
    state = jax.jit(method.init)(jax.random.key(0), split[np.arange(16)])
    before, step = jax.tree.map(np.asarray, state), jax.jit(method.step)
    trained = before
    for i in range(20):
        if i == 15:
            trained = jax.tree.map(np.asarray, state)
        batch = split[np.arange(16 * i, 16 * i + 16) % len(split)]
        state, metrics = step(state, batch, jax.random.key(i))
        assert np.isfinite(metrics["loss"])
    for table in state[:3]:
        np.testing.assert_allclose(np.linalg.norm(table, axis=1), 1, atol=1e-5)
    assert np.abs(state.words[20] - before.words[20]).max() > 1e-4
    np.testing.assert_array_equal(state.documents[1], before.documents[1])  # has no word
    # The last quarter moves the documents alone.
    np.testing.assert_array_equal(state.words, trained.words)
    np.testing.assert_array_equal(state.contexts, trained.contexts)
    assert np.abs(state.documents[0] - trained.documents[0]).max() > 1e-4


def test_more_negatives_than_words_of_a_block_are_refused():
    config = dataclasses.replace(CONFIG, negatives=17)
    with pytest.raises(UserError, match=r"--negatives 17: expected at most --block 16"):
        spherical.spherical(config, corpus([0, 1], [0, 2], 2))


def test_a_new_document_gets_the_direction_of_its_words():
    rng = np.random.default_rng(0)
    words = unit(rng, 8, 6)
    known = corpus(np.arange(8), [0, 8], 8)
    new = corpus(np.array([1] * 40 + [2] * 40), [0, 40, 40, 80], 8)
    config = dataclasses.replace(CONFIG, dims=6, block=16, batch_size=2, sample=1.0)
    found = spherical.inferred(
        config, known, jnp.asarray(words, jnp.float32), new, jax.random.key(0), 30
    )
    assert np.isnan(found[1]).all()
    np.testing.assert_allclose(np.linalg.norm(found[[0, 2]], axis=1), 1, atol=1e-5)
    cosines = found[[0, 2]] @ words.T
    assert cosines[0].argmax() == 1
    assert cosines[1].argmax() == 2
