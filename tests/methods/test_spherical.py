"""JoSE's steps against transcriptions, and what is drawn for a batch."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import spherical_embedding
from experiments.methods import spherical
from experiments.methods.spherical_steps import RULES, Block

CONFIG = dataclasses.replace(spherical_embedding.SMOKE, margin=0.15, learning_rate=0.04, steps=10)


def unit(rng, *shape):
    x = rng.standard_normal(shape)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def pair_block(rng, length=2, negatives=1):
    """A block whose word at 0 has the context at 1, and no other pair; words near each other."""
    vectors = [unit(rng, 1, length, 6) for _ in range(2)]
    documents = np.repeat(unit(rng, 1, 1, 6), length, axis=1)
    pairs = np.zeros((1, length, length), bool)
    pairs[0, 0, 1] = True
    kept = np.zeros((1, length, negatives), bool)
    return Block(
        *vectors, documents, unit(rng, 1, length, negatives, 6), (pairs,) * negatives, kept
    )


def tangent(x, y):
    return y - (x @ y) * x


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
    words, contexts, negatives, documents, _ = RULES["split"](CONFIG.margin, block)
    u, v, n = block.words[0, 0], block.contexts[0, 1], block.negatives[0, 1, 0]
    expected = by_program(u, v, n, 0.04, 0.15)
    moved = (
        u + 0.04 * words.step[0, 0],
        v + 0.04 * contexts.step[0, 1],
        n + 0.04 * negatives.step[0, 1, 0],
    )
    for ours, theirs in zip(moved, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-10)
    assert not np.any(documents.step)
    assert words.count[0, 0] == float(not np.array_equal(expected[0], u))


@pytest.mark.parametrize("seed", range(8))
def test_a_single_word_and_its_document_move_as_in_the_program(seed, x64):
    block = pair_block(np.random.default_rng(seed))
    kept = np.zeros((1, 2, 1), bool)
    kept[0, 0] = True
    block = block._replace(pairs=(np.zeros((1, 2, 2), bool),), kept=kept)
    words, contexts, negatives, documents, _ = RULES["split"](CONFIG.margin, block)
    u, d, n = block.words[0, 0], block.documents[0, 0], block.negatives[0, 0, 0]
    expected = by_program(u, d, n, 0.04, 0.15)
    np.testing.assert_allclose(u + 0.04 * words.step[0, 0], expected[0], rtol=1e-10)
    np.testing.assert_allclose(d + 0.04 * documents.step[0, 0], expected[1], rtol=1e-10)
    np.testing.assert_allclose(n + 0.04 * negatives.step[0, 0, 0], expected[2], rtol=1e-10)
    assert not np.any(contexts.step)


@pytest.mark.parametrize("seed", range(8))
def test_a_single_pair_moves_as_in_the_paper(seed, x64):
    block = pair_block(np.random.default_rng(seed))
    words, contexts, negatives, documents, _ = RULES["joint"](CONFIG.margin, block)
    u, v, d, n = (
        block.words[0, 0],
        block.contexts[0, 1],
        block.documents[0, 0],
        block.negatives[0, 1, 0],
    )
    expected = by_paper(u, v, d, n, 0.04, 0.15)
    np.testing.assert_allclose(u + 0.04 * words.step[0, 0], expected[0], rtol=1e-10)
    np.testing.assert_allclose(v + 0.04 * contexts.step[0, 1], expected[1], rtol=1e-10)
    of_document = documents.step[0].sum(0)  # the word's place and its context's: one document
    np.testing.assert_allclose(n + 0.04 * negatives.step[0, 1, 0], expected[3], rtol=1e-10)
    assert (np.abs(of_document).max() > 0) == (not np.array_equal(expected[2], d))


@pytest.mark.parametrize("negatives", [1, 3])
def test_a_block_adds_the_steps_of_its_pairs(negatives, x64):
    """The sum over all pairs, negatives and documents, by loops."""
    rng = np.random.default_rng(negatives)
    block = pair_block(rng, 5, negatives)
    pairs = tuple(rng.random((1, 5, 5)) < 0.5 for _ in range(negatives))
    kept = rng.random((1, 5, negatives)) < 0.7
    block = block._replace(pairs=pairs, kept=kept)
    words, contexts, of_negatives, documents, _ = RULES["split"](CONFIG.margin, block)
    u, v, d, n = (np.asarray(x[0]) for x in block[:4])
    steps = [np.zeros_like(x) for x in (u, v, d, n)]

    def add(x, y, z, at, other, of_other, k):
        moved = by_program(x, y, z, 1.0, CONFIG.margin)
        steps[0][at] += moved[0] - x
        other[of_other] += moved[1] - y
        steps[3][of_other, k] += moved[2] - z

    for k in range(negatives):
        for i, j in np.argwhere(pairs[k][0]):
            add(u[i], v[j], n[j, k], i, steps[1], j, k)
        for i in np.flatnonzero(kept[0, :, k]):
            add(u[i], d[i], n[i, k], i, steps[2], i, k)
    for ours, theirs in zip((words, contexts, documents, of_negatives), steps, strict=True):
        np.testing.assert_allclose(ours.step[0], theirs, rtol=1e-9, atol=1e-12)


def test_pairs_are_near_in_one_document_and_skip_frequent_words():
    config = dataclasses.replace(CONFIG, window=2, negatives=1, sample=1e-12)
    counts = np.array([10**12, 1, 1, 1, 1, 1])
    draw = jax.jit(spherical.drawing(config, counts))
    tokens = jnp.array([[1, 0, 0, 2, 3, 4, 5, -1]])
    documents = jnp.array([[0, 0, 0, 0, 0, 1, 1, -1]])
    seen = np.zeros((8, 8))
    for key in jax.random.split(jax.random.key(0), 100):
        drawn = draw(key, tokens, documents)
        hit = np.asarray(drawn.negatives)[0, :, 0] == np.asarray(tokens)[0][:, None]
        seen += np.asarray(drawn.pairs[0])[0]
        assert not np.any(np.asarray(drawn.pairs[0])[0] & hit)
        assert not np.asarray(drawn.kept)[0, 7].any()
    assert not seen[[1, 2, 7]].any()
    assert not seen[:, [1, 2, 7]].any()
    assert not seen[:5, 5:].any()
    assert not seen.diagonal().any()
    assert 30 < seen[0, 4] < 70 < seen[0, 3]  # "0" between them is skipped; half the windows are 2
    assert seen[5, 6] > 70


def test_negatives_follow_the_power_law():
    """Counts 8, 1, 1 to the power 3/4: 0.704, 0.148, 0.148 (gensim, pull request 876)."""
    config = dataclasses.replace(CONFIG, negatives=10)
    draw = spherical.drawing(config, np.array([8, 1, 1]))
    drawn = draw(jax.random.key(0), jnp.zeros((10, 100), int), jnp.zeros((10, 100), int))
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
    for i in range(15):
        batch = split[np.arange(16 * i, 16 * i + 16) % len(split)]
        state, metrics = step(state, batch, jax.random.key(i))
        assert np.isfinite(metrics["loss"])
    for table in state[:3]:
        np.testing.assert_allclose(np.linalg.norm(table, axis=1), 1, atol=1e-5)
    assert np.abs(state.words[20] - before.words[20]).max() > 1e-4
    np.testing.assert_array_equal(state.documents[1], before.documents[1])  # has no word


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
