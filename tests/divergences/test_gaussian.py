import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import linalg, stats

from jaxgen import divergences as d

rng = np.random.default_rng(0)
MEANS = rng.normal(size=(2, 4, 3))
LOG_STDS = 0.4 * rng.normal(size=(2, 4, 3))
FOUR = (MEANS[0], LOG_STDS[0], MEANS[1], LOG_STDS[1])
FACTORS = rng.normal(size=(2, 4, 3, 3))
COVARIANCES = FACTORS @ np.swapaxes(FACTORS, -1, -2) + 0.3 * np.eye(3)
X = np.linspace(-25, 25, 40_001)
KL_FULL = jax.jit(d.gaussian_kl_full)

BY_QUADRATURE = {
    d.gaussian_kl: lambda p, q: p * np.log(p / q),
    d.gaussian_jeffreys: lambda p, q: (p - q) * np.log(p / q),
    d.gaussian_squared_hellinger: lambda p, q: (np.sqrt(p) - np.sqrt(q)) ** 2,
    d.gaussian_bhattacharyya: lambda p, q: np.sqrt(p * q),
    # In one dimension W_2^2 = int (F_p^-1 - F_q^-1)^2; both are affine in a normal quantile.
    d.gaussian_squared_wasserstein: None,
}


@pytest.mark.parametrize("function", BY_QUADRATURE, ids=lambda f: f.__name__)
def test_against_quadrature_in_one_dimension(function, x64):
    means, log_stds = MEANS[..., :1], LOG_STDS[..., :1]
    actual = function(means[0], log_stds[0], means[1], log_stds[1])
    assert actual.shape == (4,)
    for i in range(4):
        laws = [stats.norm(means[k, i, 0], np.exp(log_stds[k, i, 0])) for k in (0, 1)]
        if function is d.gaussian_squared_wasserstein:
            levels = (np.arange(200_000) + 0.5) / 200_000
            expected = np.mean((laws[0].ppf(levels) - laws[1].ppf(levels)) ** 2)
            np.testing.assert_allclose(actual[i], expected, rtol=1e-4)
            continue
        density = [np.maximum(law.pdf(X), 1e-300) for law in laws]
        expected = np.trapezoid(BY_QUADRATURE[function](*density), X)
        if function is d.gaussian_bhattacharyya:
            expected = -np.log(expected)
        np.testing.assert_allclose(actual[i], expected, rtol=1e-9)


@pytest.mark.parametrize(
    "function",
    [
        d.gaussian_kl,
        d.gaussian_jeffreys,
        d.gaussian_bhattacharyya,
        d.gaussian_squared_wasserstein,
    ],
    ids=lambda f: f.__name__,
)
def test_sums_over_independent_dimensions(function, x64):
    alone = sum(function(*(x[:, k : k + 1] for x in FOUR)) for k in range(3))
    np.testing.assert_allclose(function(*FOUR), alone, rtol=1e-12)


def test_hellinger_of_several_dimensions(x64):
    """2 - 2 int sqrt(p q), and the integral is a product of those of each dimension."""
    affinity = np.ones(4)
    for i, k in np.ndindex(4, 3):
        p, q = (stats.norm(MEANS[j, i, k], np.exp(LOG_STDS[j, i, k])).pdf(X) for j in (0, 1))
        affinity[i] *= np.trapezoid(np.sqrt(p * q), X)
    np.testing.assert_allclose(d.gaussian_squared_hellinger(*FOUR), 2 - 2 * affinity, rtol=1e-9)
    np.testing.assert_allclose(np.exp(-d.gaussian_bhattacharyya(*FOUR)), affinity, rtol=1e-9)


def test_standard_normal_is_one_of_them(x64):
    zero = np.zeros_like(MEANS[0])
    expected = d.gaussian_kl(MEANS[0], LOG_STDS[0], zero, zero)
    actual = d.gaussian_kl_to_standard(MEANS[0], LOG_STDS[0])
    np.testing.assert_allclose(actual, expected, rtol=1e-12)


def test_kl_full_by_the_textbook(x64):
    actual = KL_FULL(MEANS[0], COVARIANCES[0], MEANS[1], COVARIANCES[1])
    for i in range(4):
        p, q = COVARIANCES[:, i]
        apart = MEANS[1, i] - MEANS[0, i]
        inverse = np.linalg.inv(q)
        logdets = np.linalg.slogdet(q)[1] - np.linalg.slogdet(p)[1]
        expected = 0.5 * (np.trace(inverse @ p) + apart @ inverse @ apart - 3 + logdets)
        np.testing.assert_allclose(actual[i], expected, rtol=1e-10)


def test_kl_full_by_monte_carlo(x64):
    p, q = (stats.multivariate_normal(MEANS[k, 1], COVARIANCES[k, 1]) for k in (0, 1))
    draws = p.rvs(100_000, random_state=np.random.default_rng(1))
    terms = p.logpdf(draws) - q.logpdf(draws)
    actual = KL_FULL(MEANS[0], COVARIANCES[0], MEANS[1], COVARIANCES[1])[1]
    assert abs(actual - terms.mean()) < 4 * terms.std() / np.sqrt(len(terms))


def test_wasserstein_full_against_the_matrix_square_root(x64):
    actual = d.gaussian_squared_wasserstein_full(MEANS[0], COVARIANCES[0], MEANS[1], COVARIANCES[1])
    for i in range(4):
        p, q = COVARIANCES[:, i]
        root = linalg.sqrtm(p)
        cross = linalg.sqrtm(root @ q @ root).real
        expected = np.sum((MEANS[0, i] - MEANS[1, i]) ** 2) + np.trace(p + q - 2 * cross)
        np.testing.assert_allclose(actual[i], expected, rtol=1e-8)


@pytest.mark.parametrize(
    ("full", "diagonal"),
    [
        (KL_FULL, d.gaussian_kl),
        (d.gaussian_squared_wasserstein_full, d.gaussian_squared_wasserstein),
    ],
    ids=lambda f: f.__name__,
)
def test_full_covariances_that_are_diagonal(full, diagonal, x64):
    covariances = np.exp(2 * LOG_STDS)[..., None] * np.eye(3)
    actual = full(MEANS[0], covariances[0], MEANS[1], covariances[1])
    np.testing.assert_allclose(actual, diagonal(*FOUR), rtol=1e-10)


def test_wasserstein_gradient_where_eigenvalues_and_laws_coincide(x64):
    """d W^2 / d C_p = I - (map of optimal transport), which is s_q / s_p for scales."""
    mean, eye = jnp.zeros(3), jnp.eye(3)
    gradient = jax.jit(jax.grad(d.gaussian_squared_wasserstein_full, 1))
    np.testing.assert_allclose(gradient(mean, eye, mean, eye), 0 * eye, atol=1e-12)
    expected = (1 - 3.0) * eye
    np.testing.assert_allclose(gradient(mean, eye, mean, 9 * eye), expected, atol=1e-12)


@pytest.mark.parametrize("function", BY_QUADRATURE, ids=lambda f: f.__name__)
def test_equal_and_nearly_equal_laws(function):
    """Zero, with zero gradient; and no cancellation in f32 nearby."""
    mean, log_std = (np.float32(x[0]) for x in (MEANS, LOG_STDS))
    run = jax.jit(jax.value_and_grad(lambda *a: function(*a).sum(), (0, 1, 2, 3)))
    value, gradient = run(mean, log_std, mean, log_std)
    np.testing.assert_array_equal([value, *map(jnp.max, map(jnp.abs, gradient))], 0)
    for apart in (1e-2, 1e-4, 1e-6):
        close = mean + 0.1 * apart * FACTORS[0, :, 0], log_std + apart * FACTORS[0, :, 1]
        laws = [mean, log_std, *(np.float32(x) for x in close)]
        near, gradient = run(*laws)
        with jax.enable_x64(True):
            wide, expected = run(*map(np.float64, laws))
        np.testing.assert_allclose(near, np.asarray(wide), rtol=1e-6)
        for actual, exact in zip(gradient, expected, strict=True):
            scale = np.abs(np.asarray(exact)).max()
            np.testing.assert_allclose(actual, np.asarray(exact), rtol=2e-6, atol=2e-6 * scale)


@pytest.mark.parametrize("function", [d.gaussian_kl, d.gaussian_kl_to_standard])
def test_nearly_equal_diagonal_laws_by_series(function, x64):
    """r^2 + 2 r^3 / 3 + r^4 / 3 + 2 r^5 / 15 of a log ratio of scales; and at 1."""
    r = np.array([[1e-4], [-3e-4], [1e-7]])
    series = r**2 + 2 * r**3 / 3 + r**4 / 3 + 2 * r**5 / 15
    rest = () if function is d.gaussian_kl_to_standard else (0 * r, 0 * r)
    np.testing.assert_allclose(function(0 * r, r, *rest), series[:, 0], rtol=1e-14)
    at_one = np.array([[0.999999], [1.000001], [-0.999999], [-1.000001]])
    rest = rest and (0 * at_one, 0 * at_one)
    expected = 0.5 * np.exp(2 * at_one) - 0.5 - at_one
    np.testing.assert_allclose(function(0 * at_one, at_one, *rest), expected[:, 0], rtol=1e-14)


@pytest.mark.parametrize("apart", [0.1, 1e-2, 1e-4, 1e-6])
def test_nearly_equal_full_laws(apart):
    """From the eigenvalues l of C_q^-1 (C_p - C_q): sum (l - log(1 + l)) / 2, in long doubles."""
    p = np.float32(COVARIANCES[0])
    q = np.float32(p + apart * (FACTORS[1] + np.swapaxes(FACTORS[1], -1, -2)) * 0.1)
    mean = np.float32(MEANS[0])
    run = jax.jit(jax.value_and_grad(lambda *x: d.gaussian_kl_full(*x).sum(), (1, 3)))
    value, gradients = run(mean, p, mean, q)
    with jax.enable_x64(True):
        exact, wide = run(*map(np.float64, (mean, p, mean, q)))
    eigenvalues = np.linalg.eigvals(np.linalg.solve(np.float64(q), np.float64(p) - q)).real
    eigenvalues = np.longdouble(eigenvalues)
    expected = np.sum(eigenvalues - np.log1p(eigenvalues)) / 2
    np.testing.assert_allclose(np.asarray(exact), float(expected), rtol=1e-6)
    np.testing.assert_allclose(value, np.asarray(exact), rtol=3e-6)
    for actual, gradient in zip(gradients, wide, strict=True):
        scale = np.abs(np.asarray(gradient)).max()
        np.testing.assert_allclose(actual, np.asarray(gradient), atol=5e-6 * scale)


def test_symmetry(x64):
    p, q = FOUR[:2], FOUR[2:]
    for function in BY_QUADRATURE:
        same = np.allclose(function(*p, *q), function(*q, *p), rtol=1e-10)
        assert same == (function is not d.gaussian_kl)


@pytest.mark.parametrize("function", BY_QUADRATURE, ids=lambda f: f.__name__)
def test_finite_for_far_and_narrow_laws(function):
    arguments = [jnp.array([x], jnp.float32) for x in (0.0, -15.0, 1e3, -3.0)]
    run = jax.jit(jax.value_and_grad(lambda *a: function(*a)[()], (0, 1, 2, 3)))
    value, gradient = run(*arguments)
    assert np.isfinite(value) and np.isfinite(gradient).all() and value > 0
