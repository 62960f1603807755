import itertools

import jax
import numpy as np
import pytest

from jaxgen import metrics as m


def kernel(x, y):
    return (x @ y.T / x.shape[1] + 1) ** 3


def unbiased(x, y):
    n, k = len(x), len(y)
    a = sum(kernel(x, x)[i, j] for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    b = sum(kernel(y, y)[i, j] for i in range(k) for j in range(k) if i != j) / (k * (k - 1))
    return a + b - 2 * kernel(x, y).mean()


def test_subsets_are_disjoint_and_each_is_the_u_statistic(x64):
    """Points told apart by huge first coordinates; every way to deal 4 into 2 x 2."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 4, 3))
    found = m.kernel_distance(jax.random.key(0), x, y, subsets=2, size=2)

    def halves(z):
        return [(z[[0, i]], z[[j for j in (1, 2, 3) if j != i]]) for i in (1, 2, 3)]

    possible = [
        sorted([unbiased(a, c), unbiased(b, d)])
        for a, b in halves(x)
        for c, d in (*halves(y), *(pair[::-1] for pair in halves(y)))
    ]
    deals = [(np.mean(p), np.std(p, ddof=1) / np.sqrt(2)) for p in possible]
    assert any(np.allclose(deal, found, rtol=1e-10) for deal in deals)


def test_unbiased_with_an_honest_standard_error():
    """Over 300 draws of equal laws: mean 0, and the reported error is the deviation seen."""
    x, y = np.random.default_rng(0).normal(size=(2, 300, 200, 4)).astype(np.float32)
    keys = jax.random.split(jax.random.key(0), 300)

    def run(key, x, y):
        return m.kernel_distance(key, x, y, subsets=10, size=20)

    mean, error = jax.jit(jax.vmap(run))(keys, x, y)
    mean, error = np.asarray(mean, np.float64), np.asarray(error, np.float64)
    assert abs(mean.mean()) < 3 * mean.std() / np.sqrt(300)
    assert np.sqrt(np.mean(error**2)) == pytest.approx(mean.std(), rel=0.15)
    assert (mean < 0).any()


def test_expectation_for_a_shift():
    """On the line, X = 0 and Y = 1 for sure: 1 + 8 - 2 = 7 with no error at all."""
    x, y = np.zeros((40, 1)), np.ones((40, 1))
    mean, error = m.kernel_distance(jax.random.key(0), x, y, subsets=4, size=10)
    assert mean == pytest.approx(7, rel=1e-6)
    assert error == 0


def test_gradient_is_finite_where_all_subsets_agree():
    x, y = np.zeros((8, 1), np.float32), np.ones((8, 1), np.float32)

    def error(y):
        return sum(m.kernel_distance(jax.random.key(0), x, y, subsets=2, size=4))

    assert np.isfinite(jax.grad(error)(y)).all()


def test_not_a_number():
    x = np.random.default_rng(0).normal(size=(8, 2))
    found = m.kernel_distance(
        jax.random.key(0), x, np.where(x == x[3], np.nan, x), subsets=2, size=4
    )
    assert np.isnan(found).all()


def test_symmetric_in_law_and_the_key_counts(x64):
    x, y = np.random.default_rng(1).normal(size=(2, 40, 3))
    same = [m.kernel_distance(jax.random.key(s), x, y, subsets=4, size=10).mean for s in (0, 0, 1)]
    assert same[0] == same[1] != same[2]


def test_the_two_samples_are_dealt_apart():
    """Fakes that are the reals, row by row: dealt alike, every subset would be at MMD^2 < 0."""
    x = np.random.default_rng(0).normal(size=(20, 2)).astype(np.float32)
    keys = jax.random.split(jax.random.key(0), 30)
    run = jax.vmap(lambda key: m.kernel_distance(key, x, x, subsets=2, size=10).mean)
    assert (run(keys) > 0).any()


@pytest.mark.parametrize("offset", [0, 1e2, 1e4])
def test_keeps_its_digits_far_from_the_origin(offset):
    """In f32, against the plain kernel in long doubles of the same numbers: 2 x 2 points."""
    x, y = (offset + np.random.default_rng(0).normal(size=(2, 4, 3))).astype(np.float32)
    pairs = [
        (slice(0, 2), slice(2, 4)),
        (slice(0, 4, 2), slice(1, 4, 2)),
        (slice(0, 4, 3), slice(1, 3)),
    ]
    found = m.kernel_distance(jax.random.key(0), x, y, subsets=2, size=2)
    wide_x, wide_y = np.longdouble(x), np.longdouble(y)
    deals = []
    for (a, b), (c, d) in itertools.product(pairs, [*pairs, *(pair[::-1] for pair in pairs)]):
        values = unbiased(wide_x[a], wide_y[c]), unbiased(wide_x[b], wide_y[d])
        deals.append((np.mean(values), np.std(values, ddof=1) / np.sqrt(2)))
    errors = [np.max(np.abs(np.float64(found) / np.float64(deal) - 1)) for deal in deals]
    assert min(errors) < 1e-5
