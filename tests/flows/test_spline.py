import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import brentq

from jaxgen.flows import rational_quadratic_spline

BINS, BOUND, MIN_BIN, MIN_SLOPE = 4, 2.5, 1e-2, 1e-3
SPLINE = rational_quadratic_spline(BINS, BOUND, MIN_BIN, MIN_SLOPE)
forward, inverse = jax.jit(SPLINE.forward), jax.jit(SPLINE.inverse)


def softplus(x):
    return np.logaddexp(0, x)


def knots_of(raw):
    """Knots and slopes from the 3 * BINS - 1 numbers of one element."""

    def places(sizes):
        share = np.exp(sizes - sizes.max())
        share = MIN_BIN + (1 - BINS * MIN_BIN) * share / share.sum()
        return BOUND * (2 * np.concatenate([[0], np.cumsum(share)]) - 1)

    raw_slopes = raw[2 * BINS :] + np.log(np.expm1(1 - MIN_SLOPE))
    slopes = np.concatenate([[1], MIN_SLOPE + softplus(raw_slopes), [1]])
    return places(raw[:BINS]), places(raw[BINS : 2 * BINS]), slopes


def reference(raw, x):
    """Durkan et al. 2019, equations 4 and 5, for one number x: z and log dz/dx."""
    xs, zs, slopes = knots_of(raw)
    if abs(x) >= BOUND:
        return x, 0.0
    k = np.searchsorted(xs, x, side="right") - 1
    width, height = xs[k + 1] - xs[k], zs[k + 1] - zs[k]
    s, xi = height / width, (x - xs[k]) / width
    both = slopes[k + 1] + slopes[k] - 2 * s
    bottom = s + both * xi * (1 - xi)
    z = zs[k] + height * (s * xi**2 + slopes[k] * xi * (1 - xi)) / bottom
    top = slopes[k + 1] * xi**2 + 2 * s * xi * (1 - xi) + slopes[k] * (1 - xi) ** 2
    return z, np.log(s**2 * top / bottom**2)


def draw_raw(rows, channels=1, scale=1.0, seed=0):
    rng = np.random.default_rng(seed)
    return scale * rng.standard_normal((rows, SPLINE.size * channels))


def test_values_are_those_of_the_paper(x64):
    x = np.linspace(-3, 3, 24).reshape(12, 2)
    raw = draw_raw(12, channels=2)
    z, log_slope = forward(raw, x)
    for row in range(12):
        for channel in range(2):
            own = raw[row].reshape(SPLINE.size, 2)[:, channel]
            expected = reference(own, x[row, channel])
            np.testing.assert_allclose((z[row, channel], log_slope[row, channel]), expected, 1e-10)


def test_inverse_is_the_root_of_the_paper(x64):
    z, raw = np.linspace(-2.4, 2.4, 15)[:, None], draw_raw(15)
    x, _ = inverse(raw, z)
    for row in range(15):
        root = brentq(lambda x, i=row: reference(raw[i], x)[0] - z[i, 0], -BOUND, BOUND, xtol=1e-13)
        np.testing.assert_allclose(x[row, 0], root, atol=1e-10)


def test_monotone_continuous_and_smooth_at_the_knots(x64):
    raw = draw_raw(1)
    xs, zs, slopes = knots_of(raw[0])
    step = 1e-9
    for x, z, slope in zip(xs, zs, slopes, strict=True):
        near = np.array([[x - step], [x], [x + step]])
        values, log_slopes = forward(np.repeat(raw, 3, axis=0), near)
        np.testing.assert_allclose(values[:, 0], np.full(3, z), atol=1e-7)
        np.testing.assert_allclose(np.exp(log_slopes[:, 0]), np.full(3, slope), rtol=1e-5)
    grid = np.linspace(-3, 3, 2001)[:, None]
    assert (np.diff(forward(np.repeat(raw, 2001, axis=0), grid)[0][:, 0]) > 0).all()


def slope(direction, raw, x):
    return jax.jit(jax.grad(lambda x: direction(raw, x)[0].sum()))(x)


def test_slopes_agree_with_the_gradient_at_and_between_the_knots(x64):
    raw = draw_raw(1)
    xs, zs, _ = knots_of(raw[0])
    for direction, places in ((forward, xs), (inverse, zs)):
        x = np.concatenate([places, [0.0, 0.3, -1.2, 5.0, -BOUND - 1e-3]])[:, None]
        rows = np.repeat(raw, len(x), axis=0)
        gradient = slope(direction, rows, x)
        np.testing.assert_allclose(np.log(gradient), direction(rows, x)[1], atol=1e-8)
    # A start at zero, on a knot of the identity, must train as any other place does.
    for direction in (forward, inverse):
        x, raw = jnp.zeros((1, 1)), jnp.zeros((1, SPLINE.size))
        np.testing.assert_allclose(slope(direction, raw, x), [[1.0]], rtol=1e-12)


def test_the_tails_are_the_identity():
    x = jnp.array([[-1e30], [-2.6], [-BOUND], [BOUND], [2.6], [1e30]])
    raw = jnp.asarray(draw_raw(6, scale=5.0), jnp.float32)
    for direction in (forward, inverse):
        y, log_slope = direction(raw, x)
        np.testing.assert_array_equal(y, x)
        np.testing.assert_array_equal(log_slope, np.zeros_like(x))


@pytest.mark.parametrize("size", [10.0, 1e3, 1e6, 1e30])
def test_finite_with_finite_gradients_for_any_raw(size):
    edges = [BOUND, np.nextafter(np.float32(BOUND), 0), 0.0, 1e30, 3e38]
    x = np.concatenate([np.linspace(-3, 3, 200), edges, np.negative(edges)])
    x = jnp.asarray(x, jnp.float32)[:, None]
    raw = np.clip(draw_raw(len(x), scale=size), -3e38, 3e38)
    raw[::2] = size * np.sign(raw[::2])

    def both(raw, x):
        return sum(jnp.sum(out) for f in (SPLINE.forward, SPLINE.inverse) for out in f(raw, x))

    value, gradients = jax.jit(jax.value_and_grad(both, (0, 1)))(jnp.asarray(raw, jnp.float32), x)
    for out in (value, *gradients):
        assert np.isfinite(out).all()


numbers = st.floats(-20, 20, width=32)


@settings(max_examples=60, deadline=None)
@given(arrays(np.float64, (1, SPLINE.size), elements=numbers), st.floats(-3, 3))
def test_round_trip_everywhere(raw, x):
    with jax.enable_x64(True):
        z, log_slope = forward(raw, np.array([[x]]))
        back, back_log_slope = inverse(raw, z)
    z, log_slope, back, back_log_slope = map(np.asarray, (z, log_slope, back, back_log_slope))
    assert abs(z[0, 0]) <= max(BOUND, abs(x)) * (1 + 1e-12)
    # Rounding of z, magnified by the slope of the inverse.
    tolerance = 1e-14 * (1 + np.exp(-log_slope[0, 0])) * 10
    assert abs(back[0, 0] - x) <= tolerance
    np.testing.assert_allclose(reference(raw[0], x), (z[0, 0], log_slope[0, 0]), 1e-6, 1e-9)
    assert np.isfinite(back_log_slope).all()


def test_single_precision_round_trip():
    x = jnp.linspace(-2.6, 2.6, 500, dtype=jnp.float32)[:, None]
    raw = jnp.asarray(draw_raw(500), jnp.float32)
    z, log_slope = forward(raw, x)
    back, back_log_slope = inverse(raw, z)
    np.testing.assert_allclose(back, x, atol=2e-5)
    np.testing.assert_allclose(back_log_slope, -log_slope, atol=1e-3)


def test_inverse_does_not_cancel_next_to_a_steep_knot():
    """With b ~ -1000 and sqrt(b^2 - 4ac) ~ 1000 the textbook root loses the digits of f32."""
    raw = np.zeros((40, SPLINE.size))
    raw[:, 2 * BINS :] = 1000.0  # the steepest knots there are, at -1.25, 0 and 1.25
    x = -np.geomspace(1e-3, 1e-2, 40)[:, None]
    with jax.enable_x64(True):
        z = np.float32(forward(raw, x)[0])
        expected = np.asarray(inverse(raw, z.astype(np.float64))[0])
    actual, _ = inverse(raw.astype(np.float32), z)
    np.testing.assert_allclose(actual, expected, atol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
@pytest.mark.parametrize("name", ["forward", "inverse"])
def test_half_precision_is_rounded_at_the_ends_alone(name, dtype):
    """Also next to a bound that half precision does not hold: 3.3 is 3.297 in bf16."""
    function = getattr(rational_quadratic_spline(BINS, 3.3), name)
    x = jnp.concatenate([jnp.linspace(-4, 4, 200), jnp.array([-3.3, 3.3])])[:, None].astype(dtype)
    raw = jnp.asarray(draw_raw(202), dtype)
    y, log_slope = jax.jit(function)(raw, x)
    assert y.dtype == dtype
    assert log_slope.dtype == jnp.float32
    with jax.enable_x64(True):
        wide, wide_slope = jax.jit(function)(np.asarray(raw, np.float64), np.asarray(x, np.float64))
    step = float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(np.asarray(y, np.float64), wide, rtol=step, atol=1e-5)
    np.testing.assert_allclose(log_slope, wide_slope, atol=1e-4)


def test_integers_are_floats():
    x, raw = np.arange(-3, 4)[:, None], jnp.asarray(draw_raw(7), jnp.float32)
    for function in (forward, inverse):
        for actual, expected in zip(function(raw, x), function(raw, 1.0 * x), strict=True):
            assert actual.dtype == jnp.float32
            np.testing.assert_array_equal(actual, expected)


def test_nan_stays_nan_in_the_value_and_in_the_slope():
    for function in (forward, inverse):
        y, log_slope = function(jnp.zeros((1, SPLINE.size)), jnp.full((1, 1), jnp.nan))
        assert np.isnan(y).all()
        assert np.isnan(log_slope).all()
