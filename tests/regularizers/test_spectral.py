import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.regularizers import spectral_normalize, spectral_vectors


def parameters(seed=0):
    rng = np.random.default_rng(seed)
    draw = lambda *shape: jnp.asarray(rng.standard_normal(shape), jnp.float32)  # noqa: E731
    return {
        "conv": {"kernel": draw(3, 3, 4, 6), "bias": draw(6)},
        "dense": {"kernel": draw(5, 1), "bias": draw(1)},
    }


def largest(kernel):
    return np.linalg.svd(np.asarray(kernel).reshape(-1, kernel.shape[-1]), compute_uv=False)[0]


def converged(params):
    vectors = spectral_vectors(jax.random.key(0), params)
    return spectral_normalize(params, vectors, iterations=200)


def test_sigma_is_that_of_the_svd():
    params = parameters()
    normalized, vectors = converged(params)
    for layer, own in params.items():
        expected = own["kernel"] / largest(own["kernel"])
        np.testing.assert_allclose(normalized[layer]["kernel"], expected, rtol=1e-4, atol=1e-6)
        np.testing.assert_array_equal(normalized[layer]["bias"], own["bias"])
        np.testing.assert_allclose(np.linalg.norm(vectors[layer]["kernel"]), 1, rtol=1e-5)
        assert vectors[layer]["bias"].shape == (0,)


def test_one_iteration_at_each_step_gets_there():
    params = parameters()
    vectors = spectral_vectors(jax.random.key(1), params)
    step = jax.jit(spectral_normalize)
    norms = []
    for _ in range(60):
        normalized, vectors = step(params, vectors)
        norms.append(largest(normalized["conv"]["kernel"]))
    assert norms[0] > 1.01  # from below: sigma is underestimated until then
    assert norms[-1] == pytest.approx(1, abs=1e-4)


def test_gradient_passes_through_sigma_but_not_through_the_vectors(x64):
    """d(W / sigma) with sigma = v^T W u: at the fixed point it is that of the true norm."""
    w = jnp.asarray(np.random.default_rng(2).standard_normal((4, 3)))
    c = jnp.asarray(np.random.default_rng(3).standard_normal((4, 3)))
    _, vectors = converged(w)

    def loss(w):
        return jnp.sum(c * spectral_normalize(w, vectors)[0])

    def exact(w):
        return jnp.sum(c * w / jnp.linalg.norm(w, ord=2))

    np.testing.assert_allclose(jax.grad(loss)(w), jax.grad(exact)(w), rtol=1e-6, atol=1e-9)
    blind = jax.grad(lambda u: jnp.sum(spectral_normalize(w, u)[0] * c))(vectors)
    np.testing.assert_array_equal(blind, 0)


def test_away_from_the_fixed_point_the_vectors_count_as_constants(x64):
    w, c = jnp.asarray(np.random.default_rng(5).standard_normal((2, 4, 3)))
    u = jnp.asarray([1.0, 0.0, 0.0])
    v = w @ u / jnp.linalg.norm(w @ u)
    moved = v @ w / jnp.linalg.norm(v @ w)
    expected = jax.grad(lambda w: jnp.sum(c * w / (v @ w @ moved)))(w)
    found = jax.grad(lambda w: jnp.sum(c * spectral_normalize(w, u)[0]))(w)
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_against_flax(arithmetic):
    """The same power iteration as nn.SpectralNorm, from the same vector."""
    x = jnp.asarray(np.random.default_rng(4).standard_normal((2, 5)), jnp.float32)
    layer = nn.SpectralNorm(nn.Dense(3))
    variables = layer.init(jax.random.key(0), x, update_stats=False)
    stats = dict(variables["batch_stats"])
    start = next(value for name, value in jax.tree.leaves_with_path(stats) if "/u" in str(name))
    expected, _ = layer.apply(variables, x, update_stats=True, mutable=["batch_stats"])
    (params,) = variables["params"].values()
    vectors = {"kernel": start[0], "bias": jnp.zeros(0)}
    normalized, _ = spectral_normalize(params, vectors)
    # Flax asks for no precision, and the layers' products round as well.
    rtol = {"f32": 1e-5, "tf32": 3e-3, "bf16": 2e-2}[arithmetic]
    np.testing.assert_allclose(nn.Dense(3).apply({"params": normalized}, x), expected, rtol=rtol)


def test_zeros_and_half_precision():
    zero = {"kernel": jnp.zeros((3, 2))}
    vectors = spectral_vectors(jax.random.key(0), zero)
    normalized, moved = spectral_normalize(zero, vectors)
    np.testing.assert_array_equal(normalized["kernel"], 0)
    assert np.isfinite(moved["kernel"]).all()
    gradient = jax.grad(lambda p: spectral_normalize(p, vectors)[0]["kernel"].sum())(zero)
    assert np.isfinite(gradient["kernel"]).all()
    half = {"kernel": 1e3 * jnp.ones((3, 2), jnp.bfloat16)}
    normalized, moved = spectral_normalize(half, vectors)
    assert (normalized["kernel"].dtype, moved["kernel"].dtype) == (jnp.bfloat16, jnp.float32)
    np.testing.assert_allclose(normalized["kernel"].astype(jnp.float32), 6**-0.5, rtol=1e-2)
