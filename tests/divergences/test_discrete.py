"""Divergences of two arrays of probabilities: scipy, zeros, nearly equal laws, gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats
from scipy.spatial import distance

from jaxgen import divergences as d

inf = np.inf
# The function, its value for two vectors, and its cost of p = 0 < q and of q = 0 < p per mass.
NAMES = {
    "kl": (d.kl_divergence, lambda p, q: special.kl_div(p, q).sum(), 1, inf),
    "reverse_kl": (d.reverse_kl_divergence, lambda p, q: special.kl_div(q, p).sum(), inf, 1),
    "jeffreys": (
        d.jeffreys_divergence,
        lambda p, q: stats.entropy(p, q) + stats.entropy(q, p),
        inf,
        inf,
    ),
    "jensen_shannon": (
        d.jensen_shannon_divergence,
        lambda p, q: distance.jensenshannon(p, q) ** 2,
        np.log(2) / 2,
        np.log(2) / 2,
    ),
    "total_variation": (
        d.total_variation_distance,
        lambda p, q: distance.cityblock(p, q) / 2,
        0.5,
        0.5,
    ),
    "squared_hellinger": (
        d.squared_hellinger_distance,
        lambda p, q: distance.sqeuclidean(p**0.5, q**0.5),
        1,
        1,
    ),
    "hellinger": (
        d.hellinger_distance,
        lambda p, q: distance.euclidean(p**0.5, q**0.5) / 2**0.5,
        None,
        None,
    ),
    "pearson": (d.pearson_chi_square, lambda p, q: stats.chisquare(p, q).statistic, 1, inf),
    "neyman": (d.neyman_chi_square, lambda p, q: stats.chisquare(q, p).statistic, inf, 1),
}
each = pytest.mark.parametrize("name", NAMES)


def laws(shape=(5,), size=6):
    return np.random.default_rng(0).dirichlet([0.7] * size, (2, *shape))


@each
def test_against_scipy(name, x64):
    function, exact, _, _ = NAMES[name]
    p, q = laws((5, 2))
    expected = [
        [exact(*pair) for pair in zip(*rows, strict=True)] for rows in zip(p, q, strict=True)
    ]
    np.testing.assert_allclose(function(p, q), expected, rtol=1e-11)
    np.testing.assert_array_equal(function(p, p), 0)


@each
def test_zeros_and_gradients(name, x64):
    """What only one law gives mass to; and finite differences along a tangent of the simplex."""
    function, exact, at_zero, at_infinity = NAMES[name]
    p, q = np.array([[0, 0.5, 0.25, 0.25], [0.5, 0, 0.25, 0.25]])
    run = jax.jit(jax.value_and_grad(function, (0, 1)))
    for one, two, cost in [(p * [0, 0, 1, 1], q, at_zero), (p, q * [0, 0, 1, 1], at_infinity)]:
        value, gradients = run(one, two)
        np.testing.assert_allclose(value, 0.5 if cost is None else 0.5 * cost, rtol=1e-12)
        assert np.isfinite(gradients).all()
        assert gradients[0][0] == 0 or one[0] > 0
    p, q = (law[0] for law in laws((1,)))
    along, step = np.array([1, -1, 2, -2, 0.5, -0.5]), 1e-7
    value, gradients = run(p, q)
    moved = lambda h: exact(p + h * along, q), lambda h: exact(p, q + h * along)
    for gradient, value_at in zip(gradients, moved, strict=True):
        expected = (value_at(step) - value_at(-step)) / (2 * step)
        np.testing.assert_allclose(gradient @ along, expected, rtol=1e-5)


@each
@pytest.mark.parametrize("apart", [1e-2, 1e-4, 1e-6])
def test_nearly_equal_laws_keep_their_digits(name, apart):
    """In f32, against f64 of the same numbers; the gradient too."""
    p = laws((3,), 50)[0].astype(np.float32) + np.float32(1e-3)
    q = p * (1 + apart * np.random.default_rng(1).standard_normal(p.shape)).astype(np.float32)
    run = jax.jit(jax.vmap(jax.value_and_grad(NAMES[name][0], (0, 1))))
    narrow = run(p, q)
    with jax.enable_x64(True):
        p, q = np.float64(p), np.float64(q)
        exact = {
            "kl": special.kl_div(p, q),
            "reverse_kl": special.kl_div(q, p),
            "jeffreys": special.kl_div(p, q) + special.kl_div(q, p),
            "jensen_shannon": special.kl_div(p, (p + q) / 2) / 2
            + special.kl_div(q, (p + q) / 2) / 2,
            "total_variation": np.abs(p - q) / 2,
            "squared_hellinger": (np.sqrt(p) - np.sqrt(q)) ** 2,
            "hellinger": (np.sqrt(p) - np.sqrt(q)) ** 2 / 2,
            "pearson": (p - q) ** 2 / q,
            "neyman": (p - q) ** 2 / p,
        }[name].sum(axis=-1)
        if name == "hellinger":
            exact = np.sqrt(exact)
        wide = run(p, q)
    # f64 itself loses 8 of its 16 digits at 1e-6 in scipy's form.
    np.testing.assert_allclose(wide[0], exact, rtol=1e-6 if apart > 1e-5 else 3e-4)
    np.testing.assert_allclose(narrow[0], wide[0], rtol=1e-6)
    for actual, expected in zip(narrow[1], wide[1], strict=True):
        scale = np.abs(expected).max()
        np.testing.assert_allclose(actual, expected, rtol=3e-6, atol=3e-6 * scale)


@each
def test_tiny_probabilities_have_finite_gradients(name):
    """Times the probability, as a softmax does, they are those of f64."""
    tiny, half = np.float32([[1e-18, 1], [1e-25, 1], [3e-37, 1]]), np.full((3, 2), 0.5, np.float32)
    run = jax.jit(jax.vmap(jax.value_and_grad(NAMES[name][0], (0, 1))))
    for pair in [(tiny, half), (half, tiny), (tiny, 2 * tiny)]:
        value, gradients = run(*pair)
        with jax.enable_x64(True):
            wide, exact = run(*(np.float64(law) for law in pair))
        huge = np.asarray(wide) > 1e15
        np.testing.assert_allclose(value[~huge], wide[~huge], rtol=1e-6)
        for law, *slopes in zip(pair, gradients, exact, strict=True):
            actual, expected = ((law * np.asarray(x))[~huge] for x in slopes)
            np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


def test_second_derivatives(x64):
    p, q = jnp.array([0.3, 0.7]), jnp.array([0.31, 0.69])
    found = jax.jit(jax.hessian(d.kl_divergence, (0, 1)))(p, q)
    expected = [np.diag(1 / p), np.diag(-1 / q), np.diag(-1 / q), np.diag(p / q**2)]
    np.testing.assert_allclose(jax.tree.leaves(found), expected, rtol=1e-12)
    curvature = jax.jit(jax.hessian(d.jensen_shannon_divergence))(p, q)
    np.testing.assert_allclose(curvature, np.diag(1 / p - 1 / (p + q)) / 2, rtol=1e-12)


@each
def test_nan_beside_a_zero(name):
    run = jax.jit(NAMES[name][0])
    bad, zero = jnp.array([jnp.nan, 1.0]), jnp.array([0.0, 1.0])
    assert np.isnan([run(bad, zero), run(zero, bad)]).all()


def test_series_up_to_its_end(x64):
    """|p - q| / (p + q) on both sides of 1 / 8, in long doubles."""
    z = np.array([-0.1251, -0.1249, -0.06, 1e-3, 0.06, 0.1249, 0.1251])
    p, q = (1 + z)[:, None], (1 - z)[:, None]
    exact = np.longdouble(p) * np.log(np.longdouble(p) / q) - p + q
    exact = np.where(abs(z)[:, None] < 0.01, (2 * z**2 + 2 * z**3 / 3)[:, None], exact)
    tolerance = np.where(abs(z) < 0.01, 1e-6, 1e-14)
    error = d.kl_divergence(p, q) / np.float64(exact)[:, 0] - 1
    assert (np.abs(error) < tolerance).all(), error
