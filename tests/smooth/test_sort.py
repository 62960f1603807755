"""Soft sort and rank against scikit-learn's isotonic regression, and their properties."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy import special, stats
from sklearn.isotonic import isotonic_regression as sklearn_isotonic

from jaxgen import smooth
from jaxgen.smooth.isotonic import isotonic_regression

# Compiled as a whole, which takes less time than one operation after the other.
SORT, RANK = PROJECTIONS = tuple(
    jax.jit(f, static_argnames="axis") for f in (smooth.soft_sort, smooth.soft_rank)
)
PERMUTATION, PAIRWISE = map(jax.jit, (smooth.soft_permutation, smooth.pairwise_rank))
KL = tuple(jax.jit(f, static_argnames="axis") for f in (smooth.soft_sort_kl, smooth.soft_rank_kl))
ALL = (*PROJECTIONS, *KL, PERMUTATION, PAIRWISE)


def draw(shape, scale=1.0, seed=0):
    return (scale * np.random.default_rng(seed).normal(size=shape)).astype(np.float32)


def project(z, w):
    """Both sorted upwards, f64."""
    return z - sklearn_isotonic(z - w)


def expected_sort(x, tau):
    n = len(x)
    return project(np.arange(n) * x.std() / (n * tau), np.sort(x))


def expected_rank(x, tau, scale=None, project=project):
    n = len(x)
    order = np.argsort(x)
    ranks = np.empty(n)
    scale = x.std() if scale is None else scale
    ranks[order] = project(n * x[order] / (scale * tau), np.arange(1.0, n + 1))
    return ranks


def project_kl(z, w):
    """e^(z - v) with v by pool adjacent violators: log sum e^z - log sum w on a pool; f64."""
    pools = []
    for pool in zip(z, w, strict=True):
        pools.append([np.array([part]) for part in pool])
        level = lambda pool: special.logsumexp(pool[0]) - np.log(pool[1].sum())  # noqa: E731
        while len(pools) > 1 and level(pools[-2]) >= level(pools[-1]):
            last = pools.pop()
            pools[-1] = [np.concatenate(parts) for parts in zip(pools[-1], last, strict=True)]
    return np.concatenate([special.softmax(z) * w.sum() for z, w in pools])


def expected_sort_kl(x, tau):
    n, scale = len(x), x.std()
    return scale * np.log(project_kl(np.arange(n) / (n * tau), np.exp(np.sort(x) / scale)))


def sequences(n):
    rng = np.random.default_rng(n)
    return {
        "noise": rng.normal(size=n),
        "walk": np.cumsum(rng.normal(size=n)),
        "up": np.sort(rng.normal(size=n)),
        "down": -np.sort(rng.normal(size=n)),
        "few values": rng.integers(0, 3, n),
        "one outlier": np.concatenate([np.arange(n - 1), [-50.0 * n]]),
        "heavy tail": n * np.sort(rng.exponential(size=n)) / 3 - np.arange(n),
        "offset": 1e4 + rng.normal(size=n),
    }


@pytest.mark.parametrize("n", [1, 2, 3, 8, 100])
def test_isotonic_regression_equals_scikit_learn(n):
    rows = np.stack([np.asarray(y, np.float32) for y in sequences(n).values()])
    actual = jax.jit(isotonic_regression)(rows)
    for y, v in zip(rows, actual, strict=True):
        expected = sklearn_isotonic(y.astype(np.float64))
        np.testing.assert_allclose(v, expected, atol=1e-6 * np.abs(y).max(), rtol=0)
        assert (np.diff(v) >= 0).all()
        # Elements of a pool are the same number, and elements of two pools are not.
        gaps = np.diff(expected) > 1e-5 * max(1.0, np.abs(y).max())
        assert (np.diff(v)[gaps] > 0).all()
        pools = np.diff(expected) == 0
        np.testing.assert_array_equal(np.diff(v)[pools], 0)


@pytest.mark.parametrize("tau", [1e-6, 0.3, 1.0, 30.0])
def test_values(tau):
    x = draw((3, 40), 5.0) + 2
    sort, rank = (jax.jit(partial(f, temperature=tau))(x) for f in PROJECTIONS)
    for i, row in enumerate(x.astype(np.float64)):
        np.testing.assert_allclose(sort[i], expected_sort(row, tau), atol=1e-4)
        np.testing.assert_allclose(rank[i], expected_rank(row, tau), atol=1e-3)


@pytest.mark.parametrize("tau", [1e-6, 0.1, 1.0, 30.0])
def test_kullback_leibler_values(tau):
    x = draw((3, 40), 5.0) + 2
    sort, rank = (f(x, temperature=tau) for f in KL)
    for i, row in enumerate(x.astype(np.float64)):
        np.testing.assert_allclose(sort[i], expected_sort_kl(row, tau), atol=1e-4)
        expected = expected_rank(row, tau, project=project_kl)
        np.testing.assert_allclose(rank[i], expected, rtol=1e-5)


def test_kullback_leibler_limits():
    x = draw((4, 9))
    sort, rank = (f(x, temperature=1e-6) for f in KL)
    np.testing.assert_allclose(sort, np.sort(x), rtol=1e-6)
    np.testing.assert_allclose(rank, stats.rankdata(x, axis=-1), rtol=1e-6)
    sort, rank = (f(x, temperature=1e6) for f in KL)
    std = x.std(-1, keepdims=True)
    mean = std * np.log(np.exp(x / std).mean(-1, keepdims=True))
    np.testing.assert_allclose(sort, np.repeat(mean, 9, 1), atol=1e-5)
    np.testing.assert_allclose(rank, 5.0, rtol=1e-4)


def test_an_absolute_temperature_is_not_changed_by_an_outlier():
    x = draw(20)
    spoiled = np.append(x, np.float32(1e4))
    for f, expected in ((RANK, project), (KL[1], project_kl)):
        alone = f(x, temperature=1.0, scale=1.0)
        wanted = expected_rank(x.astype(np.float64), 1.0, scale=1.0, project=expected)
        np.testing.assert_allclose(alone, wanted, rtol=1e-4)
        # n is one more, and the outlier is the last.
        beside = f(spoiled, temperature=21 / 20, scale=1.0)
        np.testing.assert_allclose(beside[:-1], alone, rtol=1e-4)
        assert beside[-1] == 21
        assert np.ptp(f(spoiled, temperature=1.0)[:-1]) < 1  # the standard deviation squeezes them
    for f in (SORT, KL[0]):
        rows = f(np.stack([x, 2 * x]), temperature=0.3, scale=np.array([[1.0], [2.0]], np.float32))
        np.testing.assert_allclose(rows[1], 2 * rows[0], rtol=1e-5)


def test_infinite_scores_are_outliers():
    for f, expected in zip(PROJECTIONS + KL, ([1, 2], [1.5, 1.5], [1, 2], [1.5, 1.5]), strict=True):
        value, slope = jax.jit(jax.value_and_grad(lambda x, f=f: f(x)[0], has_aux=False))(
            np.array([1, np.inf, 2], np.float32)
        )
        assert value == expected[0]
        assert np.isfinite(slope).all()
        assert slope[1] == 0


def test_pairwise_values():
    # x / tau is log 6, 0, log 2: exp(-|x_i - x_j| / tau) is 1/6, 1/3 or 1/2.
    x, tau = np.array([0.7167038, 0.0, 0.2772589], np.float32), 0.4
    p = [[0.1, 0.6, 0.3], [2 / 11, 3 / 11, 6 / 11], [2 / 3, 1 / 9, 2 / 9]]
    np.testing.assert_allclose(PERMUTATION(x, temperature=tau), p, rtol=1e-5)
    ranks = [1 + 6 / 7 + 3 / 4, 1 + 1 / 7 + 1 / 3, 1 + 1 / 4 + 2 / 3]
    np.testing.assert_allclose(PAIRWISE(x, temperature=tau), ranks, rtol=1e-5)


def test_cold_functions_are_hard():
    x = np.round(draw((4, 9)), 1)
    x[:, 3] = x[:, 5]
    ranks = stats.rankdata(x, axis=-1)
    for tau in (1e-4, 1e-12):
        np.testing.assert_array_equal(SORT(x, temperature=tau), np.sort(x))
        np.testing.assert_allclose(RANK(x, temperature=tau), ranks, rtol=1e-5)
    np.testing.assert_allclose(PAIRWISE(x, temperature=1e-4), ranks, rtol=1e-5)
    p = PERMUTATION(x, temperature=1e-4)
    np.testing.assert_allclose(np.einsum("bij,bj->bi", p, x), np.sort(x), atol=1e-5)


def test_warm_functions_are_constant():
    x = draw((4, 9))
    mean = np.repeat(x.mean(-1, keepdims=True), 9, axis=1)
    np.testing.assert_allclose(SORT(x, temperature=1e6), mean, atol=1e-5)
    np.testing.assert_allclose(RANK(x, temperature=1e6), 5.0, atol=1e-4)
    np.testing.assert_allclose(PAIRWISE(x, temperature=1e6), 5.0, atol=1e-4)
    np.testing.assert_allclose(PERMUTATION(x, temperature=1e6), 1 / 9, atol=1e-4)


def test_one_temperature_serves_every_scale_and_number():
    """The user's trouble with a plain epsilon: it has to follow n and the scale of the scores."""
    rank = partial(RANK, temperature=10.0)
    x = draw((3, 16))
    np.testing.assert_allclose(rank(1e3 * x + 5), rank(x), atol=2e-3)
    np.testing.assert_allclose(SORT(100 * x), 100 * SORT(x), rtol=1e-4, atol=1e-2)
    errors = []
    for n in (64, 256):
        quantiles = stats.norm.ppf((np.arange(n) + 0.5) / n).astype(np.float32)
        errors.append(np.abs(jax.jit(rank)(quantiles) - np.arange(1, n + 1)).mean() / n)
    assert min(errors) > 0.01
    np.testing.assert_allclose(*errors, rtol=0.1)


def test_sums_and_order():
    x = draw((20, 30))
    for tau in (0.1, 1.0, 5.0):
        sort, rank = (f(x, temperature=tau) for f in PROJECTIONS)
        np.testing.assert_allclose(sort.sum(-1), x.sum(-1), atol=1e-3)
        np.testing.assert_allclose(rank.sum(-1), 30 * 31 / 2, rtol=1e-5)
        assert (np.diff(sort) >= -1e-5).all()
        assert np.diff(sort).max() <= x.std(-1).max() / (30 * tau) * 1.001
        order = np.argsort(x)
        assert (np.diff(np.take_along_axis(np.asarray(rank), order, -1)) >= -1e-4).all()


def test_gradients(x64):
    x = draw((2, 7)).astype(np.float64)
    where = np.arange(7) != 2
    together = jax.jit(lambda x, t: [f(x, temperature=t, where=where) for f in ALL])
    check_grads(together, (x, 0.8), order=1, modes=["fwd"], atol=1e-5, rtol=1e-5)
    check_grads(together, (x, 0.8), order=2, modes=["rev"], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("f", ALL)
@pytest.mark.parametrize("row", [[0, 0, 0, 0], [-np.inf] * 4, [1, 1, 2, -np.inf], [1e17, 0, 0, 1]])
def test_gradients_are_finite_at_nasty_points(f, row):
    x = jnp.array(row, jnp.float32)
    for temperature in (1e-3, 1.0):
        g = partial(f, temperature=temperature)
        assert np.isfinite(g(x)).all()
        assert np.isfinite(jax.jacobian(g)(x)).all()


def test_ties_have_equal_ranks_and_gradients():
    x = jnp.array([2.0, 1.0, 2.0, 2.0, 5.0])
    for f in (RANK, PAIRWISE):
        rank = f(x, temperature=0.02)
        np.testing.assert_allclose(rank, [3, 1, 3, 3, 5], rtol=1e-5)
        slope = jax.grad(lambda x, f=f: f(x, temperature=0.02)[0])(x)
        np.testing.assert_allclose(slope[2], slope[3], rtol=1e-4)
    np.testing.assert_allclose(RANK(jnp.zeros(3)), 2.0)
    np.testing.assert_array_equal(SORT(jnp.full(3, 0.1)), jnp.full(3, 0.1))


def test_gradient_of_equal_scores_is_not_that_of_their_rounding():
    """The mean of three times 0.1 is not 0.1 in f32."""
    slope = jax.jacobian(RANK)(jnp.full(3, 0.1))
    assert np.abs(slope).max() <= 3


def test_tiny_scores_and_no_rows():
    x = draw((2, 8))
    np.testing.assert_allclose(RANK(x * np.float32(1e-25)), RANK(x), rtol=1e-4)
    np.testing.assert_allclose(SORT(x * np.float32(1e-25)) * 1e25, SORT(x), rtol=1e-4, atol=1e-5)
    for f in PROJECTIONS:
        assert f(x[:0]).shape == (0, 8)
        assert jax.grad(lambda x, f=f: f(x).sum())(x[:0]).shape == (0, 8)


@pytest.mark.parametrize("f", ALL)
def test_masked_scores(f):
    x = draw((3, 8))
    where = np.arange(8) % 3 != 1
    spoiled = np.where(where, x, np.nan)
    kept, masked = f(x[:, where]), f(spoiled, where=where)
    np.testing.assert_allclose(f(np.where(where, x, -np.inf)), masked, rtol=1e-6)
    if f in (SORT, KL[0]):
        rest, masked = masked[:, 5:], masked[:, :5]
    elif f is PERMUTATION:
        rest = np.concatenate([masked[:, 5:].ravel(), masked[:, :, ~where].ravel()])
        masked = masked[:, :5][:, :, where]
    else:
        rest, masked = masked[:, ~where], masked[:, where]
    np.testing.assert_array_equal(rest, 0)
    np.testing.assert_allclose(masked, kept, rtol=1e-4, atol=1e-5)
    slope = jax.grad(lambda x: (f(x, where=where) ** 2).sum())(spoiled)
    np.testing.assert_array_equal(slope[:, ~where], 0)
    assert np.isfinite(slope).all()
    np.testing.assert_array_equal(f(x, where=np.zeros(8, bool)), 0)


@pytest.mark.parametrize("f", PROJECTIONS)
def test_axis(f):
    x = draw((4, 8))
    np.testing.assert_allclose(f(x.T, axis=0).T, f(x), rtol=1e-6)
    std = x.std(-1, keepdims=True)
    np.testing.assert_allclose(f(x, temperature=0.5 + 0 * std), f(x, temperature=0.5), rtol=1e-6)


@pytest.mark.parametrize("f", PROJECTIONS)
def test_half_precision(f):
    x = jnp.asarray(draw((2, 100), 3.0), jnp.float16)
    wide = f(x.astype(jnp.float32))
    np.testing.assert_allclose(f(x), wide, rtol=2e-3, atol=1e-3)
