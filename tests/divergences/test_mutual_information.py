import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize, special

from jaxgen import divergences as d

RHO = 0.8
INFORMATION = -0.5 * np.log(1 - RHO**2)
S = np.random.default_rng(0).normal(size=(2, 5, 5))
BOUNDS = {
    "nwj": lambda s: d.f_information_bound(d.kl(), s),
    "jsd": lambda s: d.f_information_bound(d.jensen_shannon(), s),
    "dv": d.donsker_varadhan_bound,
    "info_nce": d.info_nce_bound,
}


def by_loops(name, s):
    size = len(s)
    others = [[s[i, j] for j in range(size) if j != i] for i in range(size)]
    if name == "nwj":
        return [s[i, i] - np.mean(np.exp(np.array(others[i]) - 1)) for i in range(size)]
    if name == "jsd":  # log-odds of a classifier: E log 2 D + E log 2 (1 - D)
        right = [np.log(2 * special.expit(s[i, i])) for i in range(size)]
        return [
            right[i] + np.mean(np.log(2 * special.expit(-np.array(others[i])))) for i in range(size)
        ]
    if name == "dv":
        return np.diag(s) - np.log(np.mean(np.exp(others)))
    return [np.log(size * special.softmax(s[i])[i]) for i in range(size)]


@pytest.mark.parametrize("name", BOUNDS)
def test_by_loops_with_a_leading_axis(name, x64):
    expected = [by_loops(name, s) for s in S]
    np.testing.assert_allclose(BOUNDS[name](S), expected, rtol=1e-10)


def gaussian_scores(size, rho=RHO, seed=0):
    """log p(x, y) / (p(x) p(y)) of all pairs of a batch of correlated Gaussians."""
    x, noise = np.random.default_rng(seed).normal(size=(2, size))
    y = (rho * x + np.sqrt(1 - rho**2) * noise)[None, :]
    x = x[:, None]
    form = rho**2 * (x**2 + y**2) - 2 * rho * x * y
    return -0.5 * np.log(1 - rho**2) - form / (2 * (1 - rho**2))


def test_optimal_critics_reach_the_information_of_gaussians(x64):
    scores = gaussian_scores(800)
    error = np.diag(scores).std() / np.sqrt(800)
    for bound in (
        d.donsker_varadhan_bound(scores),
        d.donsker_varadhan_bound(scores + 7),
        d.f_information_bound(d.kl(), 1 + scores),
    ):
        np.testing.assert_allclose(np.mean(bound), INFORMATION, atol=4 * error)
    # A batch of 800 loses little, one of 8 is held down by its size.
    np.testing.assert_allclose(np.mean(d.info_nce_bound(scores)), INFORMATION, atol=4 * error)
    assert np.mean(d.f_information_bound(d.kl(), scores)) < INFORMATION - 0.1
    assert np.mean(d.donsker_varadhan_bound(0.5 * scores)) < INFORMATION - 0.05


def test_jensen_shannon_is_that_of_joint_and_product(x64):
    """Against quadrature of the f-divergence, 2 JSD."""
    x = np.linspace(-6, 6, 301)
    marginal = np.exp(-0.5 * x**2) / np.sqrt(2 * np.pi) * (x[1] - x[0])
    form = RHO**2 * (x[:, None] ** 2 + x[None, :] ** 2) - 2 * RHO * x[:, None] * x[None, :]
    ratio = np.exp(-form / (2 * (1 - RHO**2))) / np.sqrt(1 - RHO**2)
    product = marginal[:, None] * marginal[None, :]
    exact = d.f_divergence(d.jensen_shannon(), (product * ratio).ravel(), product.ravel())
    scores = gaussian_scores(800)
    bound = d.f_information_bound(d.jensen_shannon(), scores)
    np.testing.assert_allclose(np.mean(bound), exact, atol=4 * np.std(bound) / np.sqrt(800))


def test_info_nce_is_at_most_the_logarithm_of_the_batch(x64):
    for scale in (1, 30, 1000):
        values = d.info_nce_bound(scale * gaussian_scores(8, 0.999))
        assert (values <= np.log(8) + 1e-12).all()
    np.testing.assert_allclose(d.info_nce_bound(1e3 * np.eye(8)), np.log(8), rtol=1e-12)


@pytest.mark.parametrize("name", BOUNDS)
def test_constant_critics_find_nothing(name):
    constant = 1.0 if name == "nwj" else 0.0
    np.testing.assert_allclose(BOUNDS[name](jnp.full((4, 4), constant)), 0, atol=1e-6)


@pytest.mark.parametrize("name", BOUNDS)
def test_gradients(name, x64):
    @jax.jit
    def total(s):
        return jnp.sum(BOUNDS[name](s.reshape(S.shape)) * jnp.cos(jnp.arange(5.0))[None, :])

    expected = optimize.approx_fprime(S.ravel(), lambda s: float(total(s)), 1e-7)
    np.testing.assert_allclose(jax.grad(total)(S.ravel()), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["jsd", "dv", "info_nce"])
def test_huge_scores(name):
    """NWJ alone has no value here: exp(1e4) is its true term."""
    scores = jnp.asarray(1e4 * S[0], jnp.float32)
    value, gradient = jax.jit(jax.value_and_grad(lambda s: BOUNDS[name](s).sum()))(scores)
    assert np.isfinite(value) and np.isfinite(gradient).all()
