"""Soft top-k against the closed form of its threshold, and its gradients."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy import optimize, special

from jaxgen import smooth

# Compiled as a whole: op by op their loops would be compiled again and again.
BOTH = tuple(
    jax.jit(f, static_argnames=("k", "axis")) for f in (smooth.sigmoid_top_k, smooth.laplace_top_k)
)
CDF = {
    BOTH[0]: special.expit,
    BOTH[1]: lambda u: np.where(u > 0, 1 - 0.5 * np.exp(-np.abs(u)), 0.5 * np.exp(-np.abs(u))),
}


def draw(shape, scale=1.0, seed=0):
    return (scale * np.random.default_rng(seed).normal(size=shape)).astype(np.float32)


def weigh(p):
    """A sum whose gradient is not constant, as that of the plain sum would be."""
    return (p * jnp.broadcast_to(jnp.cos(jnp.arange(p.shape[-1], dtype=p.dtype)), p.shape)).sum()


@pytest.mark.parametrize("f", BOTH)
@pytest.mark.parametrize("k", [1, 3, 7, 11])
def test_equals_a_scalar_root(f, k):
    x, tau = draw(12, 2.0), 0.7
    z = x.astype(np.float64) / tau
    root = optimize.brentq(lambda s: CDF[f](z - s).sum() - k, z.min() - 9, z.max() + 9, xtol=1e-13)
    np.testing.assert_allclose(f(x, k, temperature=tau), CDF[f](z - root), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("k", [1, 4, 9])
def test_laplace_equals_the_analytic_threshold(k):
    """With m scores above it: lambda = (L1 - L2) / 2 - asinh((k - m) e^(-(L1 + L2) / 2))."""
    x = draw(10).astype(np.float64)
    down = np.sort(x)[::-1]
    found = []
    for m in range(1, 10):
        l1, l2 = special.logsumexp(down[m:]), special.logsumexp(-down[:m])
        threshold = (l1 - l2) / 2 - np.arcsinh((k - m) * np.exp(-(l1 + l2) / 2))
        if down[m] <= threshold <= down[m - 1]:
            found.append(threshold)
    found += [t for t in [special.logsumexp(down) - np.log(2 * k)] if t >= down[0]]
    found += [t for t in [np.log(2 * (10 - k)) - special.logsumexp(-down)] if t <= down[-1]]
    (threshold,) = found
    expected = CDF[BOTH[1]](x - threshold)
    np.testing.assert_allclose(
        smooth.laplace_top_k(jnp.float32(x), k), expected, rtol=1e-5, atol=1e-6
    )


def test_laplace_top_1_is_softmax_where_no_score_dominates():
    x = draw((20, 12), 0.5)
    np.testing.assert_allclose(
        smooth.laplace_top_k(x, 1), special.softmax(x, axis=-1), rtol=1e-5, atol=1e-6
    )
    clear = smooth.laplace_top_k(jnp.array([10.0, 0.0]), 1)
    np.testing.assert_allclose(clear[1], 0.5 * np.exp(-5), rtol=1e-4)


@pytest.mark.parametrize("f", BOTH)
@pytest.mark.parametrize("k", [1, 64, 127])
def test_every_scale_of_scores(f, k):
    """Sum, range, order and gradient, for standard deviations from 0.01 to 3000."""
    stds = np.geomspace(0.01, 3000, 12)[:, None, None]
    x = jnp.asarray(draw((12, 50, 128)) * stds, jnp.float32)
    p = np.asarray(jax.jit(partial(f, k=k))(x), np.float64)
    assert np.abs(p.sum(-1) - k).max() < 1e-4
    assert p.min() >= 0
    assert p.max() <= 1
    up = np.take_along_axis(p, np.argsort(x, axis=-1), axis=-1)
    assert np.diff(up, axis=-1).min() >= 0
    slope = jax.jit(jax.grad(lambda x: weigh(f(x, k))))(x)
    assert np.isfinite(slope).all()
    assert np.abs(slope[:6]).max() > 1e-3


def test_implicit_gradient_equals_finite_differences(x64):
    x = draw((2, 9)).astype(np.float64)
    where = np.arange(9) != 4
    for order, mode, ks in ((1, "fwd", (1, 7)), (2, "rev", (4,))):
        together = jax.jit(
            lambda x, t, ks=ks: [f(x, k, temperature=t, where=where) for f in BOTH for k in ks]
        )
        check_grads(together, (x, 0.6), order, modes=[mode], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("f", BOTH)
def test_limits_of_the_temperature(f):
    x = draw((5, 8))
    hard = np.argsort(np.argsort(-x, axis=-1), axis=-1) < 3
    np.testing.assert_allclose(f(x, 3, temperature=1e-5), hard, atol=1e-6)
    np.testing.assert_allclose(f(x, 3, temperature=1e5), 3 / 8, atol=1e-4)


@pytest.mark.parametrize("f", BOTH)
def test_ties_share(f):
    for x in (jnp.zeros(6), jnp.full(6, 1e6)):
        np.testing.assert_allclose(f(x, 2), 1 / 3, rtol=1e-5)
        slope = jax.jacobian(lambda x: f(x, 2))(x)
        np.testing.assert_allclose(slope, slope.T, atol=1e-6)
        assert np.isfinite(slope).all()
        np.testing.assert_allclose(slope.sum(-1), 0, atol=1e-6)
    last = f(jnp.array([5.0, 1.0, 1.0, -5.0]), 2, temperature=0.01)
    np.testing.assert_allclose(last, [1, 0.5, 0.5, 0], atol=1e-5)


@pytest.mark.parametrize("f", BOTH)
def test_masked_scores(f):
    x = draw((4, 8))
    where = np.arange(8) % 3 != 1
    spoiled = np.where(where, x, np.nan)
    p = f(spoiled, 2, where=where)
    np.testing.assert_array_equal(p[:, ~where], 0)
    np.testing.assert_allclose(p[:, where], f(x[:, where], 2), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(f(np.where(where, x, -np.inf), 2), p, rtol=1e-6)
    slope = jax.grad(lambda x: weigh(f(x, 2, where=where)))(spoiled)
    np.testing.assert_array_equal(slope[:, ~where], 0)
    assert np.isfinite(slope).all()
    assert np.abs(slope[:, where]).min() > 0


@pytest.mark.parametrize("f", BOTH)
@pytest.mark.parametrize("kept", [0, 2, 3])
def test_no_more_scores_than_k(f, kept):
    where = np.arange(5) < kept
    value, pullback = jax.vjp(lambda x: f(x, 3, where=where), draw(5))
    np.testing.assert_array_equal(value, where)
    np.testing.assert_array_equal(pullback(value + 1)[0], 0)
    np.testing.assert_array_equal(f(draw(5), 5), 1)


@pytest.mark.parametrize("f", BOTH)
@pytest.mark.parametrize(
    "row", [[np.inf, 0, 1, 2], [np.inf] * 4, [3e38, -3e38, 0, 1], [1e-38, 0, 0, 0], [1e20, 0, 0, 0]]
)
def test_huge_scores(f, row):
    x = jnp.array(row, jnp.float32)
    for temperature in (1e-3, 1.0):
        g = partial(f, k=2, temperature=temperature)
        assert abs(g(x).sum() - 2) < 1e-4
        assert np.isfinite(jax.jacobian(g)(x)).all()


@pytest.mark.parametrize("f", BOTH)
def test_axis_shift_and_temperature_per_row(f):
    x = draw((4, 8))
    np.testing.assert_allclose(f(x.T, 3, axis=0).T, f(x, 3), rtol=1e-6)
    np.testing.assert_allclose(f(x + 7, 3), f(x, 3), rtol=1e-4, atol=1e-6)
    std = x.std(-1, keepdims=True)
    np.testing.assert_allclose(
        f(x, 3, temperature=std), f(x / std, 3, temperature=1.0), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("f", BOTH)
def test_half_precision(f):
    x = jnp.asarray(draw((4, 500), 3.0), jnp.float16)
    np.testing.assert_allclose(f(x, 50), f(x.astype(jnp.float32), 50), atol=1e-3)
