"""Smooth max, min, argmax and one-hot."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy import special

from jaxgen import smooth

REDUCTIONS = (
    smooth.smooth_max,
    smooth.smooth_min,
    smooth.mellowmax,
    smooth.boltzmann_max,
    smooth.soft_argmax,
)
ONE_HOTS = (smooth.soft_one_hot, smooth.straight_through_one_hot)
MASK = np.array([True, False, True, True, False])


def draw(shape=(3, 5), scale=2.0):
    return np.random.default_rng(0).normal(0, scale, shape).astype(np.float32)


def test_values():
    x, tau = draw(), 0.5
    p = special.softmax(x / tau, axis=-1)
    top = tau * special.logsumexp(x / tau, axis=-1)
    expected = {
        smooth.smooth_max: top,
        smooth.smooth_min: -tau * special.logsumexp(-x / tau, axis=-1),
        smooth.mellowmax: top - tau * np.log(5),
        smooth.boltzmann_max: (p * x).sum(-1),
        smooth.soft_argmax: p @ np.arange(5),
        smooth.soft_one_hot: p,
        smooth.straight_through_one_hot: np.eye(5)[x.argmax(-1)],
    }
    for f, value in expected.items():
        np.testing.assert_allclose(f(x, temperature=tau), value, rtol=1e-5, atol=1e-6)


def test_bounds():
    x = draw((50, 5))
    slack = np.log(5) * 0.7 + 1e-5
    high = smooth.smooth_max(x, temperature=0.7) - x.max(-1)
    low = x.max(-1) - smooth.mellowmax(x, temperature=0.7)
    under = x.min(-1) - smooth.smooth_min(x, temperature=0.7)
    for gap in (high, low, under):
        assert (gap >= -1e-6).all()
        assert (gap <= slack).all()


@pytest.mark.parametrize("f", REDUCTIONS + ONE_HOTS)
def test_limits_of_the_temperature(f):
    x = draw()
    hard = {
        smooth.smooth_min: x.min(-1),
        smooth.soft_argmax: x.argmax(-1),
        smooth.soft_one_hot: np.eye(5)[x.argmax(-1)],
        smooth.straight_through_one_hot: np.eye(5)[x.argmax(-1)],
    }.get(f, x.max(-1))
    warm = {
        smooth.mellowmax: x.mean(-1),
        smooth.boltzmann_max: x.mean(-1),
        smooth.soft_argmax: np.full(3, 2.0),
        smooth.soft_one_hot: np.full((3, 5), 0.2),
    }
    np.testing.assert_allclose(f(x, temperature=1e-5), hard, rtol=1e-5, atol=1e-4)
    if f in warm:
        np.testing.assert_allclose(f(x, temperature=1e5), warm[f], rtol=1e-3, atol=2e-2)


@pytest.mark.parametrize("f", REDUCTIONS + ONE_HOTS)
def test_axis_and_mask(f):
    x = draw()
    np.testing.assert_allclose(
        f(x.T, axis=0), np.moveaxis(f(x), -1, 0) if f in ONE_HOTS else f(x), rtol=1e-6, atol=1e-6
    )
    kept = f(x[:, MASK])
    masked = f(np.where(MASK, x, np.nan), where=MASK)
    if f in ONE_HOTS:
        np.testing.assert_array_equal(masked[:, ~MASK], 0)
        masked = masked[:, MASK]
    elif f is smooth.soft_argmax:
        kept = jax.nn.softmax(x[:, MASK]) @ np.flatnonzero(MASK)
    np.testing.assert_allclose(masked, kept, rtol=1e-5)
    infinite = np.where(MASK, x, np.inf if f is smooth.smooth_min else -np.inf)
    np.testing.assert_allclose(f(infinite), f(x, where=MASK), rtol=1e-6)
    slope = jax.grad(lambda x: (f(x, where=MASK) ** 2).sum())(np.where(MASK, x, np.nan))
    np.testing.assert_array_equal(slope[:, ~MASK], 0)
    assert np.isfinite(slope).all()


@pytest.mark.parametrize("f", REDUCTIONS + ONE_HOTS)
@pytest.mark.parametrize(
    "row",
    [[0, 0, 0], [-np.inf] * 3, [np.inf] * 3, [np.inf, 0, -np.inf], [3e38, -3e38, 0], [1e-38, 0, 0]],
)
def test_gradients_are_finite_at_nasty_points(f, row):
    row = jnp.array(row, jnp.float32)
    for temperature in (1e-3, 1.0):
        jacobian = jax.jacobian(partial(f, temperature=temperature))(row)
        assert np.isfinite(jacobian).all()
        assert not np.isnan(f(row, temperature=temperature)).any()


def test_rows_where_everything_is_masked():
    x, nothing = draw(), np.zeros(5, bool)
    expected = {smooth.smooth_min: np.inf, smooth.soft_argmax: 0.0}
    for f in REDUCTIONS:
        np.testing.assert_array_equal(f(x, where=nothing), expected.get(f, -np.inf))
    for f in ONE_HOTS:
        np.testing.assert_array_equal(f(x, where=nothing), 0)
    for f in REDUCTIONS + ONE_HOTS:
        slope = jax.vjp(partial(f, where=nothing), x)[1](f(x) + 1)[0]
        np.testing.assert_array_equal(slope, 0)


def test_gradients(x64):
    x = draw().astype(np.float64)
    functions = (*REDUCTIONS, smooth.soft_one_hot)
    together = jax.jit(lambda x, t: [f(x, temperature=t, where=MASK) for f in functions])
    check_grads(together, (x, 0.7), order=2, modes=["rev"], atol=1e-6, rtol=1e-6)


def test_gradient_of_smooth_max_is_softmax():
    x = draw()
    slope = jax.grad(lambda x: smooth.smooth_max(x, temperature=0.5).sum())(x)
    np.testing.assert_allclose(slope, special.softmax(x / 0.5, axis=-1), rtol=1e-5)


def test_straight_through_gradient_is_that_of_the_soft_one_hot():
    x, w = draw(), draw()
    slopes = [jax.grad(lambda x, f=f: (f(x, temperature=3.0) * w).sum())(x) for f in ONE_HOTS]
    np.testing.assert_allclose(slopes[0], slopes[1], rtol=1e-6)
    tied = smooth.straight_through_one_hot(jnp.array([0.0, 1.0, 1.0]))
    np.testing.assert_array_equal(tied, [0, 1, 0])
    warm = smooth.straight_through_one_hot(jnp.array([0.0, 1e-3, 0.0]), temperature=1e9)
    np.testing.assert_array_equal(warm, [0, 1, 0])


def test_soft_argmax_lies_between_two_peaks():
    np.testing.assert_allclose(smooth.soft_argmax(jnp.array([50.0, 0, 0, 50.0])), 1.5, rtol=1e-6)


def test_soft_argmax_of_bf16_counts_beyond_256():
    x = jnp.zeros(2000, jnp.bfloat16).at[1001].set(100)
    assert smooth.soft_argmax(x) == 1001


def test_smooth_maximum_and_minimum():
    x, y = draw((2, 1000))
    expected = 0.5 * (x + y + np.sqrt((x - y) ** 2 + 0.3**2))
    np.testing.assert_allclose(smooth.smooth_maximum(x, y, temperature=0.3), expected, rtol=1e-5)
    low = x + y - expected
    np.testing.assert_allclose(
        smooth.smooth_minimum(x, y, temperature=0.3), low, rtol=1e-5, atol=1e-5
    )
    assert smooth.smooth_maximum(1.0, 1.0, temperature=0.3) == pytest.approx(1.15)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e10, 3e37])
def test_smooth_maximum_is_never_below_the_maximum(scale):
    x, y = draw((2, 1000), scale)
    for temperature in (1e-6, 1.0):
        value = smooth.smooth_maximum(x, y, temperature=temperature)
        assert (value >= np.maximum(x, y)).all()
        assert (smooth.smooth_minimum(x, y, temperature=temperature) <= np.minimum(x, y)).all()
        slope = jax.grad(lambda x, t=temperature: smooth.smooth_maximum(x, y, temperature=t).sum())
        assert ((slope(x) >= 0) & (slope(x) <= 1)).all()


def test_gradient_of_smooth_maximum(x64):
    x, y = draw((2, 20)).astype(np.float64)
    f = jax.jit(partial(smooth.smooth_maximum, temperature=0.5))
    check_grads(f, (x, y), order=2, atol=1e-6, rtol=1e-6)
    np.testing.assert_allclose(jax.grad(f)(1.0, 1.0), 0.5)
    np.testing.assert_allclose(jax.grad(jax.grad(f))(1.0, 1.0), 1.0)  # 1 / (2 tau)


def test_only_minus_infinity_is_masked_however_low_a_score_is():
    low = jnp.array([-3e38, -jnp.inf])
    np.testing.assert_allclose(smooth.soft_one_hot(low), [1, 0])
    np.testing.assert_allclose(smooth.smooth_max(low), -3e38, rtol=1e-6)
    assert smooth.smooth_max(low[1:]) == -jnp.inf
