import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgen import optimizers as opt

MASK = {"table": True, "kernel": False}
WRAPPERS = pytest.mark.parametrize("wrap", [opt.lazy_updates, opt.lazy_rows])


def theta():
    rng = np.random.default_rng(0)
    return {
        "table": jnp.asarray(rng.standard_normal((4, 3))),
        "kernel": jnp.asarray(rng.standard_normal((4, 3))),
    }


def gradients():
    """Rows 0 and 1 are sampled in turn, row 2 never, row 3 always."""
    rng = np.random.default_rng(1)
    out = []
    for t in range(6):
        rows = np.array([t % 2 == 0, t % 2 == 1, False, True])[:, None]
        out.append(
            {
                "table": jnp.asarray(rng.standard_normal((4, 3)) * rows),
                "kernel": jnp.asarray(rng.standard_normal((4, 3))),
            }
        )
    return out


def run(optimizer, grads, **extra):
    params, state = theta(), optimizer.init(theta())
    update = jax.jit(optimizer.update)
    for g in grads:
        updates, state = update(g, state, params, **extra)
        params = optax.apply_updates(params, updates)
    return params, state


def adam_by_hand(params, grads, decay_unsampled):
    """numpy; lr 0.1, the moments of unsampled rows decay or not."""
    p, m, v = np.array(params), np.zeros((4, 3)), np.zeros((4, 3))
    for t, g in enumerate(map(np.array, grads), 1):
        rows = (g != 0).any(1, keepdims=True)
        moving = rows | decay_unsampled
        m = np.where(moving, 0.9 * m + 0.1 * g, m)
        v = np.where(moving, 0.999 * v + 0.001 * g**2, v)
        step = 0.1 * m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        p = p - np.where(rows, step, 0)
    return p


@pytest.mark.parametrize("wrap, decays", [(opt.lazy_updates, True), (opt.lazy_rows, False)])
def test_against_numpy(x64, wrap, decays):
    grads = gradients()
    params, _ = run(wrap(optax.adam(0.1), MASK), grads)
    expected = adam_by_hand(theta()["table"], [g["table"] for g in grads], decays)
    np.testing.assert_allclose(params["table"], expected, rtol=1e-9)
    plain, _ = run(optax.adam(0.1), grads)
    np.testing.assert_allclose(params["kernel"], plain["kernel"], rtol=1e-9)
    assert np.abs(params["table"] - plain["table"]).max() > 1e-2


def test_moments_of_unsampled_rows_decay_or_freeze():
    grads = gradients()
    inner = optax.scale_by_adam()
    for wrap, frozen in ((opt.lazy_updates, False), (opt.lazy_rows, True)):
        _, before = run(wrap(inner, MASK), grads[:5])
        _, after = run(wrap(inner, MASK), grads)
        # Row 0 is not in the last gradient.
        factor = np.array(after.mu["table"][0] / before.mu["table"][0])
        np.testing.assert_allclose(factor, 1.0 if frozen else 0.9, rtol=1e-5)
        factor = np.array(after.nu["table"][0] / before.nu["table"][0])
        np.testing.assert_allclose(factor, 1.0 if frozen else 0.999, rtol=1e-5)
        assert after.count == 6


@WRAPPERS
def test_all_rows_sampled_changes_nothing(wrap):
    rng = np.random.default_rng(2)
    grads = [jax.tree.map(lambda p: jnp.asarray(rng.standard_normal(p.shape)), theta())] * 3
    lazy, plain = run(wrap(optax.adam(0.1), MASK), grads), run(optax.adam(0.1), grads)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), lazy, plain)


@WRAPPERS
def test_weight_decay_is_masked_too(wrap):
    params, _ = run(wrap(optax.adamw(0.1, weight_decay=0.5), MASK), gradients())
    np.testing.assert_array_equal(params["table"][2], theta()["table"][2])
    # The breakage: weight decay in the gradient gives every row a gradient.
    outside = optax.chain(optax.add_decayed_weights(0.5), wrap(optax.sgd(0.1), MASK))
    params, _ = run(outside, gradients())
    assert np.abs(params["table"][2] - theta()["table"][2]).min() > 0


def test_frozen_moments_inside_chain_and_partition():
    def labels(tree):
        return {"table": "slow", "kernel": "fast"}

    inner = optax.chain(
        optax.clip_by_global_norm(100.0),
        optax.partition({"slow": optax.adam(0.1), "fast": optax.sgd(0.1, 0.9)}, labels),
    )
    composed, _ = run(opt.lazy_rows(inner, MASK), gradients())
    alone, _ = run(opt.lazy_rows(optax.adam(0.1), MASK), gradients())
    np.testing.assert_allclose(composed["table"], alone["table"], rtol=1e-6)


@WRAPPERS
def test_works_after_accumulation_on_the_sum(wrap):
    """The mask must be that of the accumulated gradient."""
    grads = gradients()
    whole = [jax.tree.map(lambda a, b: (a + b) / 2, *grads[i : i + 2]) for i in (0, 2, 4)]
    steps = optax.MultiSteps(wrap(optax.adam(0.1), MASK), 2)
    accumulated, _ = run(steps, grads)
    expected, _ = run(wrap(optax.adam(0.1), MASK), whole)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), accumulated, expected)


@WRAPPERS
def test_extra_arguments_reach_the_inner_optimizer(wrap):
    params, _ = run(wrap(optax.polyak_sgd(), MASK), gradients()[:1], value=2.0)
    plain, _ = run(optax.polyak_sgd(), gradients()[:1], value=2.0)
    np.testing.assert_allclose(params["kernel"], plain["kernel"], rtol=1e-6)


@WRAPPERS
def test_mask_may_be_a_function(wrap):
    by_name, _ = run(wrap(optax.adam(0.1), lambda p: {k: k == "table" for k in p}), gradients())
    by_tree, _ = run(wrap(optax.adam(0.1), MASK), gradients())
    jax.tree.map(np.testing.assert_array_equal, by_name, by_tree)


@WRAPPERS
def test_parameters_may_be_one_array(wrap):
    alone, named = wrap(optax.adam(0.1), True), wrap(optax.adam(0.1), {"a": True})
    x, g = theta()["table"], gradients()[0]["table"]
    update, state = alone.update(g, alone.init(x), x)
    expected, _ = named.update({"a": g}, named.init({"a": x}), {"a": x})
    np.testing.assert_array_equal(update, expected["a"])
    assert state[0].count == 1
