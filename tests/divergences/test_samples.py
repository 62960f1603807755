import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize, stats
from scipy.spatial import distance

from jaxgen import divergences as d

rng = np.random.default_rng(0)
X = rng.normal(size=(7, 3))
Y = rng.normal(size=(5, 3)) + 0.5
KERNELS = {
    "rbf": (d.rbf_kernel(0.7), lambda a, b: np.exp(-np.sum((a - b) ** 2) / (2 * 0.49))),
    "rbf_sum": (
        d.rbf_kernel([0.5, 2.0]),
        lambda a, b: sum(np.exp(-np.sum((a - b) ** 2) / (2 * s * s)) for s in (0.5, 2.0)),
    ),
    "polynomial": (d.polynomial_kernel(), lambda a, b: (a @ b / 3 + 1) ** 3),
    "polynomial_2": (d.polynomial_kernel(2), lambda a, b: (a @ b / 3 + 1) ** 2),
    "energy": (d.energy_kernel(), lambda a, b: -np.linalg.norm(a - b)),
}


def test_squared_distances(x64):
    expected = distance.cdist(X, Y, "sqeuclidean")
    np.testing.assert_allclose(d.squared_distances(X, Y), expected, rtol=1e-12)


def test_squared_distances_keep_their_precision_far_from_the_origin():
    far = jnp.asarray(X + 1000, jnp.float32)
    squared = np.asarray(d.squared_distances(far, far))
    expected = distance.cdist(np.float64(far), np.float64(far), "sqeuclidean")
    np.testing.assert_allclose(squared, expected, rtol=1e-5)
    assert (np.diag(squared) == 0).all()


def test_squared_distances_store_no_differences():
    x = jax.ShapeDtypeStruct((200, 300), jnp.float32)

    def total(x, y):
        return d.energy_distance(x, y)

    for function in (total, jax.grad(total)):
        memory = jax.jit(function).lower(x, x).compile().memory_analysis()
        assert memory.temp_size_in_bytes < 200 * 200 * 300 * 4 / 4


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_and_both_mmds_by_loops(name, x64):
    kernel, scalar = KERNELS[name]
    table = {
        key: np.array([[scalar(a, b) for b in right] for a in left])
        for key, (left, right) in {"xx": (X, X), "yy": (Y, Y), "xy": (X, Y)}.items()
    }
    np.testing.assert_allclose(kernel(X, Y), table["xy"], rtol=1e-10)
    biased = table["xx"].mean() + table["yy"].mean() - 2 * table["xy"].mean()
    np.testing.assert_allclose(d.squared_mmd(kernel, X, Y), biased, rtol=1e-9)
    means = [
        np.mean([table[key][i, j] for i, j in itertools.permutations(range(n), 2)])
        for key, n in (("xx", 7), ("yy", 5))
    ]
    unbiased = sum(means) - 2 * table["xy"].mean()
    np.testing.assert_allclose(d.squared_mmd_unbiased(kernel, X, Y), unbiased, rtol=1e-9)
    assert d.squared_mmd(kernel, X, Y) > d.squared_mmd_unbiased(kernel, X, Y)
    np.testing.assert_allclose(d.squared_mmd(kernel, X, X[::-1]), 0, atol=1e-12)


@pytest.mark.parametrize("degree", [1, 2, 3, 4])
def test_centered_polynomial_kernel(degree, x64):
    """k(x, y) - k(x, c) - k(c, y) + k(c, c), whatever the center, which does not change the MMD."""
    c = np.array([[0.3, -2.0, 5.0]])
    plain, centered = d.polynomial_kernel(degree), d.polynomial_kernel(degree, c[0])
    expected = plain(X, Y) - plain(X, c) - plain(c, Y) + plain(c, c)
    np.testing.assert_allclose(centered(X, Y), expected, rtol=1e-10, atol=1e-9)
    for mmd in (d.squared_mmd, d.squared_mmd_unbiased):
        np.testing.assert_allclose(mmd(centered, X, Y), mmd(plain, X, Y), rtol=1e-8)
    run = jax.jit(lambda x: d.squared_mmd_unbiased(centered, x, Y))
    same = jax.jit(lambda x: d.squared_mmd_unbiased(plain, x, Y))
    np.testing.assert_allclose(jax.grad(run)(X), jax.grad(same)(X), rtol=1e-7, atol=1e-9)


def test_unbiased_mmd_is_unbiased(x64):
    """Over many draws, the mean is the MMD of two Gaussians for an RBF kernel in closed form."""
    s2, shift = 1.5**2, 0.8
    same, cross = (
        np.sqrt(s2 / (s2 + 2)),
        np.sqrt(s2 / (s2 + 2)) * np.exp(-(shift**2) / (2 * (s2 + 2))),
    )
    draw = np.random.default_rng(1).normal(size=(2, 4000, 4, 1))
    x, y = draw[0], draw[1][:, :3] + shift
    values = jax.vmap(lambda x, y: d.squared_mmd_unbiased(d.rbf_kernel(1.5), x, y))(x, y)
    error = np.std(values) / np.sqrt(len(values))
    assert abs(np.mean(values) - (2 * same - 2 * cross)) < 4 * error


def test_energy_distance_against_scipy(x64):
    x, y = X[:, 0], Y[:, 0]
    expected = stats.energy_distance(x, y) ** 2
    np.testing.assert_allclose(d.energy_distance(x[:, None], y[:, None]), expected, rtol=1e-10)


def test_one_dimensional_wasserstein_against_scipy(x64):
    for n, m in [(7, 5), (6, 4), (1, 5)]:
        x, y = rng.normal(size=n), rng.normal(size=m)
        expected = stats.wasserstein_distance(x, y)
        np.testing.assert_allclose(d.wasserstein_1d(x, y), expected, rtol=1e-10)


@pytest.mark.parametrize("p", [1, 1.5, 2, 3])
def test_wasserstein_powers_by_quantiles_and_by_assignment(p, x64):
    x, y = rng.normal(size=(2, 6)), rng.normal(size=(2, 4))
    levels = (np.arange(1200) + 0.5) / 1200  # a multiple of both sizes: exact
    quantiles = [np.quantile(z, levels, axis=-1, method="inverted_cdf") for z in (x, y)]
    expected = np.mean(np.abs(quantiles[0] - quantiles[1]) ** p, axis=0)
    np.testing.assert_allclose(d.wasserstein_1d(x, y, p), expected, rtol=1e-10)

    z = rng.normal(size=6)
    cost = np.abs(x[0][:, None] - z[None, :]) ** p
    best = cost[optimize.linear_sum_assignment(cost)].mean()
    np.testing.assert_allclose(d.wasserstein_1d(x[0], z, p), best, rtol=1e-10)


def test_sliced_wasserstein_in_one_dimension_is_the_plain_one(x64):
    sliced = d.sliced_wasserstein(jax.random.key(0), X[:, :1], Y[:, :1], projections=3, p=1)
    np.testing.assert_allclose(sliced, stats.wasserstein_distance(X[:, 0], Y[:, 0]), rtol=1e-9)


def test_sliced_wasserstein_of_a_shift(x64):
    """|a|^2 / D in the mean over directions; 20,000 of them bring it within 2 %."""
    shift = np.array([1.0, -2.0, 0.5])
    sliced = d.sliced_wasserstein(jax.random.key(1), X, X + shift, projections=20_000)
    np.testing.assert_allclose(sliced, np.sum(shift**2) / 3, rtol=0.02)
    assert d.sliced_wasserstein(jax.random.key(2), X, X[::-1]) < 1e-24
    one, two = (d.sliced_wasserstein(jax.random.key(k), X, Y, projections=2) for k in (3, 4))
    assert one != two


SCALARS = {
    "squared_distances": lambda x, y: d.squared_distances(x, y).sum(),
    "mmd_rbf": lambda x, y: d.squared_mmd(d.rbf_kernel([0.5, 2.0]), x, y),
    "mmd_unbiased": lambda x, y: d.squared_mmd_unbiased(d.polynomial_kernel(), x, y),
    "energy": d.energy_distance,
    "sliced": lambda x, y: d.sliced_wasserstein(jax.random.key(0), x, y, projections=4),
    "sliced_1": lambda x, y: d.sliced_wasserstein(jax.random.key(0), x, y, projections=4, p=1),
    "sliced_1.5": lambda x, y: d.sliced_wasserstein(jax.random.key(0), x, y, p=1.5),
}


@pytest.mark.parametrize("name", SCALARS)
def test_gradients(name, x64):
    function = jax.jit(lambda x: SCALARS[name](x.reshape(X.shape), jnp.asarray(Y)))
    expected = optimize.approx_fprime(X.ravel(), lambda x: float(function(x)), 1e-7)
    np.testing.assert_allclose(jax.grad(function)(X.ravel()), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", SCALARS)
def test_gradients_at_coincident_points(name):
    """All points in one place: the distance is least there, and the gradient 0."""
    x = jnp.ones((4, 3))
    value, gradient = jax.jit(jax.value_and_grad(SCALARS[name]))(x, x)
    np.testing.assert_allclose([value, jnp.abs(gradient).max()], 0, atol=1e-6)


@pytest.mark.parametrize("name", SCALARS)
def test_nan_stays_nan(name):
    x = jnp.asarray(X).at[0, 0].set(jnp.nan)
    assert np.isnan(SCALARS[name](x, jnp.asarray(Y)))
