import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgen.optimizers import update_ema


def draw(seed, dtype=jnp.float32):
    rng = np.random.default_rng(seed)
    tree = {"kernel": rng.standard_normal((3, 4)), "bias": rng.standard_normal(4)}
    return jax.tree.map(lambda x: jnp.asarray(x, dtype), tree)


@pytest.mark.parametrize("decay", [0.999, 0.3])
def test_against_a_loop_in_numpy(x64, decay):
    """At 0.3 the warm-up ends within the loop, with update 4."""
    ema, expected = draw(0, jnp.float64), jax.tree.map(np.asarray, draw(0, jnp.float64))
    for t in range(8):
        params = draw(1 + t, jnp.float64)
        ema = update_ema(params, ema, t + 1, decay)
        now = min(decay, (1 + t) / (10 + t))
        expected = {k: now * expected[k] + (1 - now) * np.asarray(params[k]) for k in expected}
    for k in expected:
        np.testing.assert_allclose(ema[k], expected[k], rtol=1e-14, atol=0)


@pytest.mark.parametrize(
    ("count", "kept"), [(1, 0.1), (11, 0.55), (8990, 8990 / 8999), (8991, 0.999), (10**6, 0.999)]
)
def test_weight_of_the_old_average(count, kept):
    np.testing.assert_allclose(update_ema(0.0, 1.0, count), kept, rtol=1e-5)


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit])
@pytest.mark.parametrize("count", [1, 2, 100, 20_000])
def test_same_bits_as_incremental_update(transform, count):
    def reference(params, ema, count):
        return optax.incremental_update(params, ema, 1 - jnp.minimum(0.999, count / (9 + count)))

    args = draw(0), draw(1), jnp.asarray(count, jnp.int32)
    ours, theirs = transform(update_ema)(*args), transform(reference)(*args)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_counters_and_keys_are_copied():
    params = {"steps": jnp.asarray(7), "on": jnp.asarray(True), "key": jax.random.key(1)}
    ema = {"steps": jnp.asarray(3), "on": jnp.asarray(False), "key": jax.random.key(0)}
    new = jax.jit(update_ema)(params, ema, 5)
    assert new["steps"] == 7 and new["steps"].dtype == ema["steps"].dtype
    assert new["on"]
    assert jax.random.key_data(new["key"]).tolist() == jax.random.key_data(params["key"]).tolist()


def test_half_precision_is_averaged_in_f32():
    params, ema = draw(0, jnp.bfloat16), draw(1, jnp.bfloat16)
    wide = [jax.tree.map(lambda x: x.astype(jnp.float32), tree) for tree in (params, ema)]
    expected = jax.tree.map(lambda x: x.astype(jnp.bfloat16), update_ema(*wide, 500))
    jax.tree.map(np.testing.assert_array_equal, update_ema(params, ema, 500), expected)


def test_an_f32_average_of_bf16_parameters_stays_f32():
    new = update_ema(draw(0, jnp.bfloat16), draw(1), 3)
    assert {x.dtype for x in jax.tree.leaves(new)} == {jnp.dtype("float32")}
