import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen import divergences as d

V = np.linspace(-4, 4, 17)


def outside(case, dtype):
    """Scores' t, and t below f'(0) and above f'(infinity) where there is such."""
    t = case.divergence.activation(jnp.asarray(V + 0.013, dtype))
    t = jnp.append(t, jnp.asarray([-50, -3], dtype))
    if math.isfinite(case.divergence.slope_at_infinity):
        t = jnp.append(t, jnp.asarray(case.divergence.slope_at_infinity + 0.01, dtype))
    return t


def test_conjugate_agrees_with_the_closed_form_in_f32(case):
    made, t = d.from_generator(case.f), outside(case, jnp.float32)
    actual = jax.jit(made.conjugate)(t)
    with jax.enable_x64(True):
        expected = case.divergence.conjugate(jnp.asarray(t, jnp.float64))
    assert actual.dtype == jnp.float32
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


def test_conjugate_and_its_derivatives_agree_with_the_closed_form(case, x64):
    def derivatives(function):
        slope = jax.grad(function)
        return jax.jit(jax.vmap(lambda t: (function(t), slope(t), jax.grad(slope)(t))))(t)

    t = outside(case, jnp.float64)
    actual = derivatives(d.from_generator(case.f).conjugate)
    expected = derivatives(case.divergence.conjugate)
    np.testing.assert_allclose(actual[0], expected[0], rtol=1e-9, atol=1e-9)
    if case.name != "total_variation":  # a kink: the maximiser jumps
        np.testing.assert_allclose(actual[1], expected[1], rtol=2e-8, atol=1e-9)
        np.testing.assert_allclose(actual[2], expected[2], rtol=1e-7, atol=1e-9)


def test_the_rest_of_the_record_agrees(case, x64):
    made = d.from_generator(case.f)
    t = made.activation(V + 0.013)
    assert (np.diff(t) >= 0).all()
    expected = case.divergence.conjugate(t)
    np.testing.assert_allclose(made.composed_conjugate(V + 0.013), expected, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(made.at_zero, case.divergence.at_zero, atol=1e-9)
    np.testing.assert_allclose(made.slope_at_infinity, case.divergence.slope_at_infinity, atol=1e-9)
    if case.name != "total_variation":
        np.testing.assert_allclose(made.threshold, case.divergence.threshold, atol=1e-12)
        assert (np.diff(t) > 0).all()


def test_scores_stand_for_the_density_ratio(x64):
    """T = f'(exp(arcsinh v)): 2 log u for f with f' = 2 log u."""
    made = d.from_generator(lambda u: 2 * (u * jnp.log(u) - u + 1))
    np.testing.assert_allclose(made.activation(V), 2 * np.arcsinh(V), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(
        made.composed_conjugate(V), 2 * np.exp(np.arcsinh(V)) - 2, atol=1e-12
    )


@pytest.mark.parametrize("v", [-80.0, 80.0])
def test_huge_scores_in_f32(case, v):
    """No overflow, and rounding of eps |f(u)| only: u is 160 at v = 80."""
    made = d.from_generator(case.f)
    with jax.enable_x64(True):
        exact = case.divergence.conjugate(d.from_generator(case.f).activation(jnp.float64(v)))
    value, gradient = jax.value_and_grad(made.composed_conjugate)(jnp.float32(v))
    np.testing.assert_allclose(value, exact, rtol=1e-4, atol=1e-4)
    assert np.isfinite(gradient) and np.isfinite(jax.grad(made.activation)(jnp.float32(v)))


def test_divergence_of_discrete_laws(case, x64):
    rng = np.random.default_rng(0)
    p, q = rng.dirichlet([1.0] * 5, (2, 20))
    p[0, 0] = q[1, 1] = 0
    expected = d.f_divergence(case.divergence, p, q)
    actual = d.f_divergence(d.from_generator(case.f), p, q)
    np.testing.assert_allclose(actual, expected, rtol=1e-9)


def test_built_inside_jit_and_vmap_from_a_traced_number(x64):
    def conjugate(scale, t):
        return d.from_generator(lambda u: scale * (u - 1) ** 2).conjugate(t)

    scales, t = jnp.array([0.5, 2.0]), jnp.array([0.7, 1.5])
    expected = t**2 / (4 * scales) + t
    np.testing.assert_allclose(jax.jit(jax.vmap(conjugate))(scales, t), expected, rtol=1e-12)


def test_derivatives_in_what_the_generator_closes_over(x64):
    """f = c (u - 1)^2 has f*(t) = t + t^2 / (4 c), and -1 ... of c alone below f'(0) = -2 c."""

    def conjugate(c, t):
        return d.from_generator(lambda u: c * (u - 1) ** 2).conjugate(t)

    def all_orders(function):
        return jax.value_and_grad(function, (0, 1)), jax.hessian(function, (0, 1))

    c, t = 2.0, 3.0
    outside, inside = all_orders(jax.jit(conjugate)), all_orders(conjugate)
    for first, second in (outside, map(jax.jit, inside)):
        value, slopes = first(c, t)
        np.testing.assert_allclose(value, t + t**2 / (4 * c), rtol=1e-12)
        np.testing.assert_allclose(slopes, [-(t**2) / (4 * c**2), 1 + t / (2 * c)], rtol=1e-12)
        expected = [[t**2 / (2 * c**3), -t / (2 * c**2)], [-t / (2 * c**2), 1 / (2 * c)]]
        np.testing.assert_allclose(second(c, t), expected, rtol=1e-11)
    np.testing.assert_allclose(outside[0](c, -5.0)[1], [-1.0, 0.0])  # -f(0) = -c
    third = jax.jit(jax.grad(jax.grad(jax.grad(conjugate))))(c, t)
    np.testing.assert_allclose(third, -3 * t**2 / (2 * c**4), rtol=1e-10)


@pytest.mark.parametrize("f", [lambda u: jnp.abs(u - 1), lambda u: 1e-12 * u, lambda u: 1e3 + u**2])
def test_convex_at_the_edge(f):
    """A kink, a line, and a constant that is much larger than the rest."""
    assert np.isfinite(d.from_generator(f).threshold)


def test_search_survives_an_overflow_on_the_way():
    """u^4 / u^3 is NaN in f32 at u = exp(40), where the first bisection looks."""
    made = d.from_generator(lambda u: (u - 1) ** 4 / (u + 1) ** 3)
    t = np.array([-3.0, -0.2, 0.1, 0.5], np.float32)
    u = np.exp(np.linspace(-20, 20, 400_001))
    expected = [np.max(u * x - (u - 1) ** 4 / (u + 1) ** 3) for x in t]
    np.testing.assert_allclose(made.conjugate(t), expected, rtol=1e-5, atol=1e-5)
