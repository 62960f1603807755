"""log_prob, sample, bits_per_dim: every constant, against numpy, scipy and quadrature."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jaxgen import flows
from jaxgen.models import MLP

mlp = partial(MLP, hidden=(8,), last_init=jax.nn.initializers.zeros)
halves, affine = flows.halves(), flows.affine()
spline = flows.rational_quadratic_spline(4)


def stack_of(transform):
    """Couplings of both halves in turn."""
    pair = [flows.coupling(mlp, transform, s) for s in (halves, flows.swapped(halves))]
    return flows.chain(flows.repeat(flows.chain(*pair), 2), flows.scaling())


@pytest.mark.parametrize(
    ("base", "law"),
    [(None, scipy.stats.norm), (flows.standard_logistic(), scipy.stats.logistic)],
)
def test_log_prob_of_the_identity_is_the_base(base, law):
    x = np.random.default_rng(0).normal(0, 5, (4, 2, 3)).astype(np.float32)
    actual = flows.log_prob(flows.reversal(), (), x, base=base)
    np.testing.assert_allclose(actual, law.logpdf(x.astype(np.float64)).sum((1, 2)), rtol=1e-5)


def test_log_prob_counts_every_latent():
    x = np.random.default_rng(0).standard_normal((4, 8)).astype(np.float32)
    flow = flows.multiscale(flows.reversal(), flows.reversal(), flows.reversal())
    actual = flows.log_prob(flow, ((), (), ()), x)
    np.testing.assert_allclose(actual, scipy.stats.norm.logpdf(x).sum(1), rtol=1e-5)


def test_bases_draw_from_the_law_whose_density_they_give():
    for base, law in (
        (flows.standard_normal(), scipy.stats.norm),
        (flows.standard_logistic(), scipy.stats.logistic),
    ):
        z = base.sample(jax.random.key(0), jax.ShapeDtypeStruct((2, 2000), jnp.float32))
        assert scipy.stats.kstest(np.asarray(z).ravel(), law.cdf).pvalue > 1e-3


@pytest.mark.parametrize(
    ("transform", "base", "side"),
    [(affine, None, 12), (affine, flows.standard_logistic(), 60), (spline, None, 12)],
)
def test_the_density_of_a_flow_integrates_to_one(transform, base, side, x64, draw):
    flow, points = stack_of(transform), np.linspace(-side, side, 500)
    grid = np.stack(np.meshgrid(points, points), -1).reshape(-1, 2)
    params = draw(flow, grid[:2])
    log_p = jax.jit(lambda params, x: flows.log_prob(flow, params, x, base=base))(params, grid)
    area = (points[1] - points[0]) ** 2
    assert abs(np.exp(log_p).sum() * area - 1) < 1e-3
    assert np.std(log_p - flows.log_prob(flows.reversal(), (), grid, base=base)) > 0.1


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_bits_per_dim_of_the_uniform_density_is_log2_levels(levels):
    uniform = flows.independent(jnp.zeros_like, jax.random.uniform)
    x = jnp.zeros((2, 3, 5, 2), jnp.uint8)
    y, logdet = flows.dequantize(jax.random.key(0), x, levels)
    nats = flows.log_prob(flows.reversal(), (), y, base=uniform) + logdet
    np.testing.assert_allclose(
        flows.bits_per_dim(nats, 3 * 5 * 2), np.full(2, np.log2(levels)), rtol=1e-6
    )


@pytest.mark.parametrize("levels", [17, 256])
def test_bits_per_dim_of_an_untrained_flow_is_analytic(levels):
    """Couplings start at the identity: the logit of the noisy pixels is standard normal."""
    flow = flows.chain(flows.logit(0.05), flows.repeat(flows.coupling(mlp, affine), 3))
    x = np.random.default_rng(0).integers(0, levels, (4, 6))
    y, logdet = flows.dequantize(jax.random.key(0), jnp.asarray(x), levels)
    params = jax.jit(flow.init)(jax.random.key(1), y)
    log_p = jax.jit(lambda params, y: flows.log_prob(flow, params, y))(params, y)
    bits = flows.bits_per_dim(log_p + logdet, 6)
    p = 0.05 + 0.9 * np.asarray(y, np.float64)
    log_density = scipy.stats.norm.logpdf(np.log(p / (1 - p))) + np.log(0.9 / (p * (1 - p)))
    expected = -log_density.mean(1) / np.log(2) + np.log2(levels)
    np.testing.assert_allclose(bits, expected, rtol=1e-5)


# A toy whose exact probabilities are known: two pixels of three levels, nine images.
TOY_LEVELS, DRAWS = 3, 100_000
TOY = flows.chain(flows.logit(0.1), stack_of(affine))
IMAGES = np.stack(np.meshgrid(range(TOY_LEVELS), range(TOY_LEVELS)), -1).reshape(-1, 2)


def toy(draw):
    params = draw(TOY, jnp.zeros((2, 2)))
    return params, jax.jit(lambda y: flows.log_prob(TOY, params, y))


def bin_integrals(log_density):
    """Per image, log P(x) = log of the density's integral over the bin, and E_u log p(y)."""
    nodes, weights = np.polynomial.legendre.leggauss(24)
    u = (np.stack(np.meshgrid(nodes, nodes), -1).reshape(-1, 2) + 1) / 2
    w = np.outer(weights, weights).reshape(-1) / 4
    y = (IMAGES[:, None] + u) / TOY_LEVELS
    log_p = np.asarray(log_density(y.reshape(-1, 2))).reshape(len(IMAGES), -1)
    volume = TOY_LEVELS**-2
    return np.log((np.exp(log_p) * w).sum(1) * volume), (log_p * w).sum(1) + np.log(volume)


def monte_carlo(log_weight):
    """E exp(log_weight) and E log_weight per image, with their standard errors."""
    weight = np.exp(log_weight)
    error = np.sqrt(DRAWS)
    return (weight.mean(1), weight.std(1) / error), (
        log_weight.mean(1),
        log_weight.std(1) / error,
    )


def repeated(image):
    return jnp.tile(jnp.asarray(image), (DRAWS, 1))


def assert_unbiased_and_a_bound(log_weight, log_probability):
    (mean, error), (bound, bound_error) = monte_carlo(log_weight)
    assert (np.abs(mean - np.exp(log_probability)) < 5 * error + 1e-12).all()
    assert (error < 0.02 * mean).all()  # sharp enough to tell any wrong constant
    assert (bound < log_probability - 5 * bound_error).all()
    return bound, bound_error


def test_uniform_dequantization_bounds_the_exact_probability(x64, draw):
    _, log_density = toy(draw)
    log_probability, expected_bound = bin_integrals(log_density)
    assert np.exp(log_probability).sum() < 1
    keys = jax.random.split(jax.random.key(0), len(IMAGES))
    log_weight = []
    for key, image in zip(keys, IMAGES, strict=True):
        y, logdet = flows.dequantize(key, repeated(image), TOY_LEVELS)
        log_weight.append(log_density(y) + logdet)
    bound, error = assert_unbiased_and_a_bound(np.stack(log_weight), log_probability)
    assert (np.abs(bound - expected_bound) < 5 * error).all()
    # In bits/dim the bound lies above the codelength.
    assert (np.asarray(flows.bits_per_dim(bound, 2)) > -log_probability / (2 * np.log(2))).all()


def test_variational_dequantization_bounds_the_exact_probability(x64, draw):
    _, log_density = toy(draw)
    log_probability, _ = bin_integrals(log_density)
    noise = stack_of(affine)
    noise_params = draw(noise, jnp.zeros((2, 2)), jnp.zeros((2, 2)), 0.2, seed=1)
    # About as wide as the uniform law's logit, so that the weights have a small variance.
    noise_params[1]["log_scale"] = jnp.full(2, 0.75)
    keys = jax.random.split(jax.random.key(0), len(IMAGES))
    dequantize = jax.jit(partial(flows.variational_dequantize, noise, levels=TOY_LEVELS))
    log_weight = []
    for key, image in zip(keys, IMAGES, strict=True):
        y, logdet = dequantize(noise_params, key, repeated(image))
        log_weight.append(log_density(y) + logdet)
    assert_unbiased_and_a_bound(np.stack(log_weight), log_probability)


def multiscale_flow():
    step = flows.chain(flows.actnorm(), flows.coupling(mlp, affine))
    return flows.multiscale(step, step, step)


def test_sample_without_temperature_is_deterministic(draw):
    flow = multiscale_flow()
    params = draw(flow, jnp.zeros((2, 8)))
    zeros = (jnp.zeros((3, 4)), jnp.zeros((3, 2)), jnp.zeros((3, 2)))
    expected, _ = jax.jit(flow.inverse)(params, zeros)

    @jax.jit
    def sample(key, temperature):
        return flows.sample(flow, params, key, (3, 8), temperature=temperature)

    first, second = jax.random.key(0), jax.random.key(1)
    for key in (first, second):
        np.testing.assert_allclose(sample(key, 0.0), expected, atol=1e-6)
    assert np.abs(sample(first, 1.0) - sample(second, 1.0)).min() > 1e-4


@pytest.mark.parametrize(("base", "std"), [(None, 1.0), (flows.standard_logistic(), 1.8138)])
def test_temperature_scales_every_latent_of_every_example(base, std, draw):
    flow, examples = multiscale_flow(), 4096
    params = draw(flow, jnp.zeros((2, 8)))
    temperature = jnp.tile(jnp.array([0.25, 1.0, 2.0]), examples)

    @jax.jit
    def sample(temperature):
        return flows.sample(
            flow, params, jax.random.key(0), (3 * examples, 8), temperature=temperature, base=base
        )

    latents, _ = jax.jit(flow.forward)(params, sample(temperature))
    assert len(latents) == 3
    for z in latents:
        measured = np.asarray(z).reshape(examples, 3, -1).std((0, 2))
        np.testing.assert_allclose(measured, std * np.array([0.25, 1.0, 2.0]), rtol=0.05)
    each = sample(jnp.full(3 * examples, 0.25))
    np.testing.assert_allclose(sample(0.25), each, rtol=1e-6)
    assert np.abs(latents[1][:, :2] - latents[2][:, :2]).max() > 0.1  # each from its own key


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_sample_has_the_shape_dtype_and_context_asked_for(dtype, draw):
    flow = flows.glow(2, 1, 4)
    context = jnp.array([[0.0, 1.0], [1.0, 0.0]])
    params = draw(flow, jnp.zeros((2, 4, 8, 1)), context)
    sample = jax.jit(
        lambda context: flows.sample(
            flow, params, jax.random.key(0), (2, 4, 8, 1), context, dtype=dtype
        )
    )
    x = sample(context)
    assert x.shape == (2, 4, 8, 1)
    assert x.dtype == dtype
    assert np.isfinite(x.astype(jnp.float32)).all()
    other = sample(context.at[1].set(5.0))
    np.testing.assert_array_equal(other[0], x[0])
    assert np.abs((other[1] - x[1]).astype(jnp.float32)).max() > 0.01


def test_samples_follow_the_density(draw):
    """E over samples of q(x) / p(x) is 1 for any density q: here, a normal law."""
    flow = stack_of(spline)
    params = draw(flow, jnp.zeros((2, 2)))
    x = jax.jit(lambda key: flows.sample(flow, params, key, (20_000, 2)))(jax.random.key(0))
    log_p = jax.jit(lambda x: flows.log_prob(flow, params, x))(x)
    log_q = scipy.stats.norm(0, 0.7).logpdf(np.asarray(x)).sum(1)
    ratio = np.exp(log_q - np.asarray(log_p))
    assert abs(ratio.mean() - 1) < 5 * ratio.std() / np.sqrt(len(ratio)) < 0.1


def test_sample_and_log_prob_are_sample_and_log_prob(draw):
    flow = flows.chain(stack_of(affine), flows.reversal())
    params, key = draw(flow, jnp.zeros((2, 3)), jnp.zeros((2, 2))), jax.random.key(0)
    base = flows.gaussian(jnp.arange(3.0), jnp.zeros(3))
    context = jnp.array([[1.0, -1.0]])

    @jax.jit
    def both(params, context):
        x, log_p = flows.sample_and_log_prob(flow, params, key, (64, 3), context, base=base)
        drawn = flows.sample(flow, params, key, (64, 3), context, base=base)
        return x, log_p, drawn, flows.log_prob(flow, params, x, context, base=base)

    x, log_p, drawn, expected = both(params, context)
    np.testing.assert_allclose(x, drawn, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(log_p, expected, rtol=1e-5, atol=1e-5)
    # One context for 64 examples is 64 times this context.
    np.testing.assert_allclose(log_p, both(params, jnp.tile(context, (64, 1)))[1], rtol=1e-6)
    assert np.abs(log_p - both(params, context + 1)[3]).min() > 1e-3


def test_sample_and_log_prob_of_every_latent_take_one_pass(draw):
    calls = []
    inner = multiscale_flow()

    def inverse(params, z, context=None):
        calls.append("inverse")
        return inner.inverse(params, z, context)

    flow = flows.Bijector(inner.init, inner.forward, inverse)
    params = draw(inner, jnp.zeros((2, 8)))
    x, log_p = jax.jit(lambda key: flows.sample_and_log_prob(flow, params, key, (5, 8)))(
        jax.random.key(0)
    )
    assert calls == ["inverse"]
    np.testing.assert_allclose(log_p, jax.jit(partial(flows.log_prob, flow))(params, x), rtol=1e-4)


def test_fits_the_reverse_divergence_to_a_gaussian():
    """Variational inference: E_q (log q - log p) of one affine layer falls to 0, KL's minimum."""
    flow, target = (
        flows.elementwise(affine),
        flows.gaussian(jnp.array([1.0, -2.0]), jnp.array([0.5, -1])),
    )

    def loss(params, key):
        x, log_q = flows.sample_and_log_prob(flow, params, key, (64, 2))
        return (log_q - target.log_prob(x)).mean()

    @jax.jit
    def fit(params, keys):
        step = jax.value_and_grad(loss)
        return jax.lax.scan(lambda p, k: (p - 0.05 * step(p, k)[1], step(p, k)[0]), params, keys)

    params, losses = fit(jnp.zeros(4), jax.random.split(jax.random.key(0), 2000))
    assert losses[0] > 1
    assert abs(losses[-50:].mean()) < 0.01
    x = flows.sample(flow, params, jax.random.key(1), (2000, 2))
    np.testing.assert_allclose(x.mean(0), [1, -2], atol=0.1)


def test_a_narrow_or_integer_x_is_measured_in_f32():
    """-x^2 / 2 of an f16 300 overflows f16, though log p = -45,001 does not."""
    expected = scipy.stats.norm.logpdf(300.0)
    for x in (jnp.full((1, 1), 300.0, jnp.float16), np.full((1, 1), 300), jnp.full((1, 1), 300.0)):
        actual = flows.log_prob(flows.reversal(), (), x)
        assert actual.dtype == jnp.float32
        np.testing.assert_allclose(actual, [expected], rtol=1e-6)


@pytest.mark.parametrize("original", [flows.scaling(), stack_of(affine)])
def test_the_density_of_an_inverted_flow_is_that_of_the_inverse(original, draw):
    x = np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32)
    flow, params = flows.invert(original), draw(original, x)
    log_p = jax.jit(lambda x: flows.log_prob(flow, params, x))(x)
    z, logdet = jax.jit(original.inverse)(params, x)
    np.testing.assert_allclose(log_p, scipy.stats.norm.logpdf(z).sum(1) + logdet, rtol=1e-5)
    np.testing.assert_allclose(jax.jit(original.forward)(params, z)[0], x, rtol=1e-4, atol=1e-5)


def test_calls_that_are_not_jitted_trace_the_layers_no_more_than_once(draw):
    traced = []
    layer = flows.coupling(mlp, affine)

    def count(function):
        def run(params, x, context=None):
            if isinstance(x, jax.core.Tracer):
                traced.append(x.shape)
            return function(params, x, context)

        return run

    flow = flows.Bijector(layer.init, count(layer.forward), count(layer.inverse))
    params, key = draw(layer, jnp.zeros((1, 4))), jax.random.key(0)
    for _ in range(3):
        x = flows.sample(flow, params, key, (2, 4))
        flows.log_prob(flow, params, x)
        flows.sample_and_log_prob(flow, params, key, (2, 4))
    assert len(traced) == 1  # the shapes of the latents, which later calls remember
