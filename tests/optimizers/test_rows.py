"""Steps of a few rows of a table of unit vectors, against a loop over the rows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen import optimizers as opt


def unit(rng, *shape):
    x = rng.standard_normal(shape)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def by_loop(table, rows, steps, counts, most):
    moved = table.copy()
    for row in range(len(table)):
        own = rows == row
        if own.any():
            shrink = min(1, most / counts[own].sum()) if counts[own].sum() else 1
            x = table[row] + shrink * steps[own].sum(0)
            moved[row] = x / np.linalg.norm(x)
    return moved


@pytest.mark.parametrize("most", [0.5, 3.0, 100.0])
@pytest.mark.parametrize("seed", range(5))
def test_by_a_loop(most, seed, x64):
    rng = np.random.default_rng(seed)
    table, rows = unit(rng, 7, 4), rng.integers(-2, 10, 20)
    steps, counts = rng.standard_normal((20, 4)), rng.integers(0, 4, 20)
    moved = opt.add_to_unit_rows(table, rows, steps, counts, most)
    np.testing.assert_allclose(moved, by_loop(table, rows, steps, counts, most), rtol=1e-12)


def test_rows_without_a_step_keep_every_bit():
    table = np.float32(np.random.default_rng(0).standard_normal((5, 3)))  # not even of length 1
    step = jax.jit(opt.add_to_unit_rows)
    moved = step(table, np.array([3, -1, 5]), jnp.ones((3, 3)), jnp.ones(3), 1.0)
    np.testing.assert_array_equal(np.delete(moved, 3, 0), np.delete(table, 3, 0))
    np.testing.assert_allclose(np.linalg.norm(moved[3]), 1, rtol=1e-6)


def test_a_single_step_is_that_of_jose(x64):
    x, gradient = unit(np.random.default_rng(0), 1, 6), np.arange(6.0)[None]
    rule = opt.jose_sgd(0.1)
    expected = x + rule.update(gradient, rule.init(x), x)[0]
    scaled, _ = opt.project_by_cosine().update(gradient, (), x)
    moved = opt.add_to_unit_rows(x, np.array([0]), -0.1 * scaled, np.ones(1), 1.0)
    np.testing.assert_allclose(moved, expected)


def test_length_stays_one_and_a_frequent_row_does_not_overshoot():
    rng = np.random.default_rng(0)
    table, goal = np.float32(unit(rng, 4, 8)), np.float32(unit(rng, 8))
    rows = np.repeat(np.arange(4), [1, 10, 100, 1000])
    step = jax.jit(opt.add_to_unit_rows)
    for _ in range(100):
        along = table @ goal
        steps = 0.04 * (goal - along[rows, None] * table[rows])
        table = np.asarray(step(table, rows, steps, np.ones(len(rows)), 25.0))
        np.testing.assert_allclose(np.linalg.norm(table, axis=1), 1, rtol=1e-6)
    assert (table @ goal)[0] > 0.95  # 4 units of time
    np.testing.assert_allclose((table @ goal)[1:], 1, rtol=1e-6)


def test_nan_stays_in_its_row():
    table = jnp.eye(3)
    steps = jnp.array([[jnp.nan, 0, 0], [0, 1.0, 0]])
    moved = opt.add_to_unit_rows(table, jnp.array([0, 2]), steps, jnp.ones(2), 1.0)
    assert np.isnan(moved[0]).all()
    assert np.isfinite(moved[1:]).all()
