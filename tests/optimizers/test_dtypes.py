"""The dtype of updates, mixed precision, and complex parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgen import optimizers as opt

KEY = jax.random.key(0)
RATE = np.float32(0.1)
SGD = optax.sgd(0.1)


def optimizers(rate):
    """Those that read a state or the parameters: updates have the wider dtype.

    Those of `lazy_rows` and `lazy_updates` are their inner optimizer's.
    """
    return {
        "accumulate": opt.accumulate(optax.adam(0.1), 2),
        "adax": opt.adax(rate, rate, 0.01 * rate, rate),
        "finite_ema": opt.finite_ema(rate),
        "hidden_accumulation": opt.hidden_accumulation(optax.scale(-0.1), 2, rate),
        "jose_sgd": opt.jose_sgd(rate),
        "lamb": opt.lamb(rate, rate, rate, rate, rate),
        "lookahead": opt.lookahead(opt.adax(rate), 2, rate),
        "project_by_cosine": opt.project_by_cosine(),
        "project_to_tangent": opt.project_to_tangent(),
        "retract_to_sphere": opt.retract_to_sphere(),
        "scale_by_layer_trust_ratio": opt.scale_by_layer_trust_ratio(),
        "scale_by_row_rms": opt.scale_by_row_rms(rate),
        "sgld": opt.sgld(rate, rate, KEY),
        "shrink_where_nan": opt.shrink_where_nan(rate, rate),
        "sphere_sgd": opt.sphere_sgd(rate),
        "sphere_sgd, scheduled": opt.sphere_sgd(lambda count: rate),
        "tiger": opt.tiger(rate, rate, rate, rate, rate),
        "underdamped_langevin": opt.underdamped_langevin(rate, rate, rate, KEY),
    }


def maps(rate):
    """Those that do not: updates keep their dtype."""
    return {
        "clip_by_leaf_l1_norm": opt.clip_by_leaf_l1_norm(rate),
        "clip_by_leaf_norm": opt.clip_by_leaf_norm(rate),
        "map_gradients": opt.map_gradients({"": lambda g: rate * g}),
        "scale_by_tree": opt.scale_by_tree({"kernel": rate}),
    }


PAIRS = [("float32", "bfloat16"), ("bfloat16", "bfloat16"), ("bfloat16", "float32")]
PAIRS += [("float32", "float32"), ("float16", "float16"), ("float32", "int32")]


@pytest.mark.parametrize("params, gradient", [*PAIRS, ("float64", "float32")])
@pytest.mark.parametrize("rate", [np.float32(0.1), np.float64(0.1)])  # neither weakly typed
def test_dtype_of_updates_and_state(params, gradient, rate, x64):
    p, g = ({"kernel": jnp.ones((2, 3), dtype)} for dtype in (params, gradient))
    wider = jnp.promote_types(params, gradient)
    kept = jnp.promote_types(gradient, jnp.float32) if gradient == "int32" else gradient

    def check(rules, expected):
        for name, rule in rules.items():
            state = jax.eval_shape(rule.init, p)
            updates, after = jax.eval_shape(rule.update, g, state, p)
            assert updates["kernel"].dtype == expected, name
            for old, new in zip(jax.tree.leaves(state), jax.tree.leaves(after), strict=True):
                assert old.dtype == new.dtype, name

    check(optimizers(rate), wider)
    check(maps(rate), kept)
    assert (
        jax.eval_shape(lambda: optax.adam(0.1).update(g, optax.adam(0.1).init(p), p)[0])[
            "kernel"
        ].dtype
        == wider
        or gradient == "int32"
    )


def test_bf16_gradients_of_f32_parameters_lose_nothing():
    """The updates are those of the same gradients in f32."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 3))
    start = {"kernel": jnp.asarray(x / np.linalg.norm(x, axis=-1, keepdims=True), jnp.float32)}
    gradients = [{"kernel": jnp.asarray(rng.standard_normal((2, 3)), jnp.bfloat16)}] * 2

    def run(rule, dtype):
        params, state = start, rule.init(start)
        for g in gradients:
            updates, state = rule.update(jax.tree.map(lambda x: x.astype(dtype), g), state, params)
            params = optax.apply_updates(params, updates)
        return params["kernel"], state

    rules = optimizers(RATE)

    @jax.jit
    def both():
        return {
            name: (run(rule, jnp.bfloat16), run(rule, jnp.float32)) for name, rule in rules.items()
        }

    found = both()
    for name, (narrow, wide) in found.items():
        for a, b in zip(*map(jax.tree.leaves, (narrow, wide)), strict=True):
            if not jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key):
                np.testing.assert_allclose(a, b, rtol=2e-6, atol=1e-7, err_msg=name)
    for name in ("sphere_sgd", "jose_sgd", "retract_to_sphere"):
        norms = np.linalg.norm(np.asarray(found[name][0][0], np.float64), axis=-1)
        np.testing.assert_allclose(norms, 1, atol=2e-7)
    params, state = found["lookahead"][0]
    np.testing.assert_allclose(params, state.slow["kernel"], rtol=1e-7)


# ---- complex parameters; their gradients are conjugated, as everywhere in optax ----


def draw(seed):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.standard_normal((2, 3)) + 1j * rng.standard_normal((2, 3)))


def steps(rule, params, gradients):
    params, state = {"kernel": params}, rule.init({"kernel": params})
    for g in gradients:
        updates, state = rule.update({"kernel": g}, state, params)
        params = optax.apply_updates(params, updates)
    return params["kernel"]


def test_complex_parameters_of_linear_rules():
    """The real and the imaginary part, each on its own."""
    rules = {
        "accumulate": opt.accumulate(SGD, 2),
        "finite_ema": opt.finite_ema(0.5),
        "hidden_accumulation": opt.hidden_accumulation(optax.scale(-0.1), 2),
        "lazy_rows": opt.lazy_rows(optax.sgd(0.1, 0.9), {"kernel": True}),
        "lookahead": opt.lookahead(SGD, 2),
        "scale_by_tree": opt.scale_by_tree({"kernel": 0.5}),
    }
    z, gradients = draw(0), [draw(1), draw(2)]

    @jax.jit
    def run():
        def parts(part):
            return {k: steps(r, part(z), map(part, gradients)) for k, r in rules.items()}

        return parts(lambda x: x), parts(jnp.real), parts(jnp.imag)

    for name, found in run()[0].items():
        expected = run()[1][name] + 1j * run()[2][name]
        np.testing.assert_allclose(found, expected, rtol=1e-6, err_msg=name)
        assert np.abs(found - z).max() > 1e-2


def test_complex_parameters_turn_with_their_phase():
    """Of a real gradient times a phase: the real update times that phase."""
    phase = jnp.exp(1j * jnp.array([[0.3, 2.0, -1.0], [0.7, 1.2, 3.0]]))
    g = jnp.real(draw(0))
    for rule in (opt.adax(0.1), opt.clip_by_leaf_norm(0.5), opt.clip_by_leaf_l1_norm(0.5)):
        real = steps(rule, jnp.zeros((2, 3)), [g, 2 * g])
        turned = steps(rule, jnp.zeros((2, 3), jnp.complex64), [g * phase, 2 * g * phase])
        np.testing.assert_allclose(turned, real * phase, rtol=1e-5)
    clipped, _ = opt.clip_by_leaf_norm(1.0).update(jnp.array([3 + 4j]), optax.EmptyState())
    np.testing.assert_allclose(clipped, [0.6 + 0.8j], rtol=1e-6)


def test_adax_descends_in_complex_parameters():
    rule = opt.adax(0.01)

    def step(_, carry):
        z, state = carry
        g = jnp.conj(jax.grad(lambda z: jnp.sum(jnp.real(z * jnp.conj(z))))(z))
        updates, state = rule.update(g, state, z)
        return optax.apply_updates(z, updates), state

    z, _ = jax.lax.fori_loop(0, 300, step, (draw(0), rule.init(draw(0))))
    assert np.abs(z).max() < 0.1 * np.abs(draw(0)).max()
