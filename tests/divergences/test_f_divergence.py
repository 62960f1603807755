import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize, special, stats
from scipy.spatial import distance

from jaxgen import divergences as d

V = np.linspace(-4, 4, 17)
# Ratios of densities from 1e-26 to 1e26; 1 is among them, where total variation has its kink.
U = np.exp(np.linspace(-60, 60, 600_001))


def legendre(f, t):
    """sup_u (u t - f(u)) on the grid; exact to second order in its step of 0.0002."""
    values = np.asarray(f(U))
    return np.array([np.max(U * each - values) for each in t])


def slope(f, u):
    return jax.vmap(jax.grad(f))(jnp.asarray(u))


def laws(rng, shape=(200,), size=6):
    return rng.dirichlet([0.7] * size, shape), rng.dirichlet([0.7] * size, shape)


def test_conjugate_is_the_legendre_transform(case, x64):
    t = np.asarray(case.divergence.activation(V))
    expected = legendre(case.f, t)
    np.testing.assert_allclose(case.divergence.conjugate(t), expected, rtol=1e-6, atol=1e-6)


def test_conjugate_below_the_slope_at_zero_is_minus_f_of_zero(case, x64):
    t = np.array([-1e3, -50.0])
    if np.isfinite(lowest := float(slope(case.f, [1e-300])[0])) and lowest > -10:
        np.testing.assert_allclose(case.divergence.conjugate(t), -case.divergence.at_zero)
        np.testing.assert_allclose(legendre(case.f, t), -case.divergence.at_zero, rtol=1e-6)
    else:  # f'(0) = -inf: every t has a root, and f* increases
        assert float(case.divergence.conjugate(t[0])) <= float(case.divergence.conjugate(t[1]))


def test_conjugate_is_infinite_above_the_slope_at_infinity(case):
    end = case.divergence.slope_at_infinity
    t = jnp.float32(end + 0.1 if math.isfinite(end) else 1e30)
    value, gradient = jax.value_and_grad(case.divergence.conjugate)(t)
    assert value == jnp.inf or (not math.isfinite(end) and value > 1e29)
    assert not math.isfinite(end) or gradient == 0


def test_ends_are_the_limits_of_f(case, x64):
    """f(0) and f'(infinity), from values of f far out."""
    for end, near, far in [
        (case.divergence.at_zero, case.f(1e-8), case.f(1e-16)),
        (case.divergence.slope_at_infinity, *slope(case.f, [1e9, 1e18])),
    ]:
        if math.isinf(end):
            assert far > near + 15
        else:
            np.testing.assert_allclose(far, end, atol=1e-5)


def test_threshold_is_the_slope_at_one(case, x64):
    around = slope(case.f, [1 - 1e-9, 1 + 1e-9])
    assert around[0] - 1e-6 <= case.divergence.threshold <= around[1] + 1e-6
    np.testing.assert_allclose(case.divergence.f(1.0), case.f(1.0), atol=1e-12)


def test_f(case, x64):
    u = np.exp(V)
    np.testing.assert_allclose(case.divergence.f(u), case.f(jnp.asarray(u)), rtol=1e-9, atol=1e-12)


def test_activation_increases_and_stays_in_the_domain(case, x64):
    t = np.asarray(case.divergence.activation(np.linspace(-15, 15, 101)))
    assert (np.diff(t) > 0).all()
    assert t.max() < case.divergence.slope_at_infinity


def test_composed_conjugate_is_the_composition(case, x64):
    t = case.divergence.activation(V)
    composed = case.divergence.composed_conjugate(V)
    np.testing.assert_allclose(composed, case.divergence.conjugate(t), rtol=1e-9, atol=1e-12)


def test_gradient_of_the_conjugate_is_the_density_ratio(case, x64):
    """By finite differences, and through f': f'(df*/dt) = t."""
    v = V + 0.013  # off the kink of total variation and the clamps
    conjugate = case.divergence.conjugate
    t = np.asarray(case.divergence.activation(v))
    gradient = jax.vmap(jax.grad(conjugate))(t)
    step = 1e-7 * np.minimum(1, np.abs(case.divergence.slope_at_infinity - t))
    differences = (conjugate(t + step) - conjugate(t - step)) / (2 * step)
    np.testing.assert_allclose(gradient, differences, rtol=1e-5, atol=1e-6)
    if case.name != "total_variation":
        inside = gradient > 0
        np.testing.assert_allclose(slope(case.f, gradient[inside]), t[inside], rtol=1e-8, atol=1e-9)
    composed = jax.vmap(jax.grad(case.divergence.composed_conjugate))(v)
    activation = jax.vmap(jax.grad(case.divergence.activation))(v)
    np.testing.assert_allclose(composed, gradient * activation, rtol=1e-8, atol=1e-12)


def far_out(name, v):
    """f*(g_f(v)) for |v| of tens, each by its own asymptotics in Python floats."""
    positive = v > 0
    small = math.exp(-abs(v))
    s = small if positive else -v  # softplus(-v)
    if name.startswith("alpha"):
        alpha = float(name[6:])
        base = (1 - alpha) * s if alpha < 1 else max(1 + (alpha - 1) * v, 0)
        return (base ** (alpha / (alpha - 1)) - 1) / alpha
    if name.startswith("weighted"):
        pi = float(name[9:])
        lost = v + math.log(pi) if positive else math.exp(v / pi)
        return (1 - pi) * (math.log(1 - pi) + lost)
    if name == "jeffreys":
        s = optimize.brentq(lambda s: s + 1 - math.exp(-s) - v, -700, 700, xtol=1e-13)
        return math.expm1(s) + s
    return {
        "kl": math.exp(v - 1),
        "reverse_kl": v - 1,
        "chi_square_over_q": v**2 / 4 + v if positive else -1,
        "chi_square_over_p": 2 - 2 * math.exp(-v / 2),
        "squared_hellinger": math.exp(v) - 1,
        "jensen_shannon": (v if positive else small) - math.log(2),
        "gan": v if positive else small,
        "total_variation": 0.5 if positive else -0.5,
    }[name]


@pytest.mark.parametrize("v", [-80.0, -40.0, 40.0, 80.0])
def test_composed_conjugate_is_exact_for_huge_scores_in_f32(case, v):
    value, gradient = jax.value_and_grad(case.divergence.composed_conjugate)(jnp.float32(v))
    np.testing.assert_allclose(value, far_out(case.name, v), rtol=1e-5, atol=1e-6)
    with jax.enable_x64(True):
        wide = jax.grad(case.divergence.composed_conjugate)(jnp.float64(v))
    assert np.isfinite(gradient)
    np.testing.assert_allclose(gradient, wide, rtol=1e-4, atol=1e-6)
    assert np.isfinite(jax.grad(case.divergence.activation)(jnp.float32(v)))


def test_bound_is_reached_at_the_slope_and_nowhere_passed(case, x64):
    rng = np.random.default_rng(0)
    p, q = laws(rng)
    exact = d.f_divergence(case.divergence, p, q)
    t = slope(case.f, (p / q).ravel()).reshape(p.shape)
    reached = jnp.sum(p * t - q * case.divergence.conjugate(t), axis=-1)
    np.testing.assert_allclose(reached, exact, rtol=1e-8, atol=1e-9)

    v_real = v_fake = 2 * rng.standard_normal(p.shape)
    terms = d.variational_bound(case.divergence, v_real, v_fake)
    bound = jnp.sum(p * terms.real + q * terms.fake, axis=-1)
    assert (bound <= exact + 1e-9).all()
    assert (bound < exact - 1e-3).mean() > 0.9


def test_divergence_is_least_for_equal_laws(case, x64):
    p, q = laws(np.random.default_rng(1))
    least = float(case.f(1.0))
    np.testing.assert_allclose(d.f_divergence(case.divergence, p, p), least, atol=1e-12)
    assert (d.f_divergence(case.divergence, p, q) > least + 1e-4).all()


def entropy_gap(p, q, pi):
    mixed = stats.entropy(pi * p + (1 - pi) * q)
    return mixed - pi * stats.entropy(p) - (1 - pi) * stats.entropy(q)


def power(p, q, alpha):
    """scipy's Cressie-Read statistic is twice the alpha-divergence with lambda = alpha - 1."""
    return stats.power_divergence(p, q, lambda_=alpha - 1).statistic / 2


EXACT = {
    "kl": lambda p, q: special.rel_entr(p, q).sum(),
    "reverse_kl": lambda p, q: special.rel_entr(q, p).sum(),
    "chi_square_over_q": lambda p, q: stats.chisquare(p, q).statistic,
    "chi_square_over_p": lambda p, q: stats.chisquare(q, p).statistic,
    "squared_hellinger": lambda p, q: distance.sqeuclidean(np.sqrt(p), np.sqrt(q)),
    "jeffreys": lambda p, q: stats.entropy(p, q) + stats.entropy(q, p),
    "jensen_shannon": lambda p, q: 2 * distance.jensenshannon(p, q) ** 2,
    "weighted_0.3": lambda p, q: entropy_gap(p, q, 0.3),
    "weighted_0.9": lambda p, q: entropy_gap(p, q, 0.9),
    "gan": lambda p, q: 2 * distance.jensenshannon(p, q) ** 2 - 2 * np.log(2),
    "alpha_-1.5": lambda p, q: power(p, q, -1.5),
    "alpha_0.4": lambda p, q: power(p, q, 0.4),
    "alpha_2.5": lambda p, q: power(p, q, 2.5),
    "total_variation": lambda p, q: distance.cityblock(p, q) / 2,
}


def test_exact_divergence_against_scipy(case, x64):
    p, q = laws(np.random.default_rng(2), (5,))
    expected = [EXACT[case.name](a, b) for a, b in zip(p, q, strict=True)]
    np.testing.assert_allclose(d.f_divergence(case.divergence, p, q), expected, rtol=1e-9)


@pytest.mark.parametrize(
    ("record", "twin", "scale"),
    [
        (d.weighted_jensen_shannon(0.5), d.jensen_shannon(), 0.5),
        (d.alpha_divergence(0.5), d.squared_hellinger(), 2),
        (d.alpha_divergence(2), d.chi_square_over_q(), 0.5),
        (d.alpha_divergence(-1), d.chi_square_over_p(), 0.5),
        (d.alpha_divergence(1 + 1e-6), d.kl(), 1),
        (d.alpha_divergence(1e-6), d.reverse_kl(), 1),
    ],
)
def test_relations_between_divergences(record, twin, scale, x64):
    p, q = laws(np.random.default_rng(3))
    expected = scale * d.f_divergence(twin, p, q)
    np.testing.assert_allclose(d.f_divergence(record, p, q), expected, rtol=1e-4)


def test_zeros_cost_the_limits_of_f_and_have_finite_gradients(case):
    p = jnp.array([[0.0, 0.0, 0.5, 0.5], [0.0, 0.25, 0.5, 0.25]])
    q = jnp.array([[0.0, 0.5, 0.0, 0.5], [0.0, 0.5, 0.25, 0.25]])
    r, one = case.divergence, float(case.f(1.0))
    disjoint = 0.5 * (r.at_zero + r.slope_at_infinity + one)
    shared = 0.5 * case.f(0.5) + 0.25 * case.f(2.0) + 0.25 * one
    np.testing.assert_allclose(d.f_divergence(r, p, q), [disjoint, shared], rtol=1e-5, atol=1e-6)

    gradients = jax.jit(jax.jacobian(lambda p, q: d.f_divergence(r, p, q), (0, 1)))(p, q)
    assert np.isfinite(gradients).all()
    for gradient in gradients:
        assert (gradient[0, :, 0] == 0).all()  # p = q = 0
    lonely = r.slope_at_infinity if math.isfinite(r.slope_at_infinity) else 0
    np.testing.assert_allclose(gradients[0][0, 0, 2], lonely, rtol=1e-6)
    lonely = r.at_zero if math.isfinite(r.at_zero) else 0
    np.testing.assert_allclose(gradients[1][0, 0, 1], lonely, rtol=1e-6)


def test_tiny_probabilities_have_finite_gradients(case):
    """They come from a softmax, whose scores get q dD/dq: right to eps p, as in f64."""
    half, tiny = np.full((3, 2), 0.5, np.float32), np.float32([[1e-18, 1], [1e-25, 1], [3e-37, 1]])

    @jax.jit
    def vjp(*laws):
        values, back = jax.vjp(lambda p, q: d.f_divergence(case.divergence, p, q), *laws)
        return values, *back(jnp.ones_like(values))

    def run(*laws):
        return [np.asarray(x) for x in vjp(*laws)]

    for laws in [(half, tiny), (tiny, half)]:
        value, *gradients = run(*laws)
        with jax.enable_x64(True):
            exact, *wide = run(*(np.float64(law) for law in laws))
        huge = exact > 1e15  # f, or its slope, overflows
        assert (value[huge] > 1e15).all()
        np.testing.assert_allclose(value[~huge], exact[~huge], rtol=1e-5, atol=1e-5)
        for law, *both in zip(laws, gradients, wide, strict=True):
            actual, expected = ((law * gradient)[~huge] for gradient in both)
            np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(gradients[0][~huge], wide[0][~huge], rtol=1e-4, atol=1e-4)


def test_second_derivatives_of_the_exact_divergence(x64):
    p, q = jnp.array([0.3, 0.7]), jnp.array([0.6, 0.4])
    hessian = jax.jit(jax.hessian(lambda p, q: d.f_divergence(d.kl(), p, q), (0, 1)))(p, q)
    expected = [np.diag(1 / p), np.diag(-1 / q), np.diag(-1 / q), np.diag(p / q**2)]
    np.testing.assert_allclose(jax.tree.leaves(hessian), expected, rtol=1e-12)


def test_gradient_of_what_the_generator_closes_over(x64):
    def total(scale):
        made = d.from_generator(lambda u: scale * (u - 1) ** 2)
        return d.f_divergence(made, p, q)

    p, q = jnp.array([0.3, 0.7]), jnp.array([0.6, 0.4])
    expected = d.f_divergence(d.chi_square_over_q(), p, q)
    np.testing.assert_allclose(jax.jit(jax.grad(total))(2.0), expected, rtol=1e-12)


def test_nan_stays_nan(case):
    r = case.divergence
    laws = jnp.array([[math.nan, 0.5], [0.5, 0.5], [math.nan, 1.0], [0.0, 1.0]])
    swapped = laws[np.array([1, 0, 3, 2])]
    run = jax.jit(jax.value_and_grad(lambda p, q: d.f_divergence(r, p, q).sum(), (0, 1)))
    values = [run(p, q) for p, q in zip(laws, swapped, strict=True)]
    values = [np.ravel(x) for x in jax.tree.leaves([values, [g(math.nan) for g in r[1:4]]])]
    assert all(np.isnan(x).any() for x in values)


@pytest.mark.parametrize("alpha", [-1e-4, 1e-4, 0.02, 0.98, 1 - 1e-4, 1 + 1e-4])
def test_alpha_near_zero_and_one_in_f32(alpha):
    u = np.exp(np.linspace(-20, 20, 41)).astype(np.float32)
    run = jax.vmap(jax.value_and_grad(d.alpha_divergence(alpha).f))
    narrow = run(u)
    with jax.enable_x64(True):
        wide = run(np.float64(u))
    for actual, expected in zip(narrow, wide, strict=True):
        np.testing.assert_allclose(actual, expected, rtol=3e-5, atol=1e-6)


def test_gradient_of_the_exact_divergence(case, x64):
    p, q = (np.ravel(law) for law in laws(np.random.default_rng(4), ()))
    value = jax.jit(lambda p, q: d.f_divergence(case.divergence, p, q))
    of_p, of_q = jax.grad(value, (0, 1))(p, q)
    expected = optimize.approx_fprime(p, lambda x: float(value(x, q)), 1e-8)
    np.testing.assert_allclose(of_p, expected, rtol=1e-4, atol=1e-5)
    expected = optimize.approx_fprime(q, lambda x: float(value(p, x)), 1e-8)
    np.testing.assert_allclose(of_q, expected, rtol=1e-4, atol=1e-5)
