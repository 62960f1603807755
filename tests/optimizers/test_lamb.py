"""LAMB against numpy, optax, and the layers of a stacked leaf one by one."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgen import models
from jaxgen import optimizers as opt

B1, B2, EPS, DECAY, RATE = 0.8, 0.95, 1e-3, 0.1, 0.05
SETTINGS = {"b1": B1, "b2": B2, "eps": EPS, "weight_decay": DECAY}
ADAPTED = opt.by_path({"norm|bias": False, "": True})


def draw(steps):
    """Parameters and gradients of a kernel and a bias, in double precision."""
    rng = np.random.default_rng(0)
    shapes = {"kernel": (4, 3), "bias": (3,)}
    trees = [{k: rng.standard_normal(s) for k, s in shapes.items()} for _ in range(steps + 1)]
    return trees[0], trees[1:]


def run(optimizer, params, gradients):
    params = jax.tree.map(jnp.asarray, params)
    state, update = optimizer.init(params), jax.jit(optimizer.update)
    for g in gradients:
        updates, state = update(jax.tree.map(jnp.asarray, g), state, params)
        params = optax.apply_updates(params, updates)
    return params


def by_hand(w, gradients, adapted):
    """Algorithm 2 of the paper, in numpy."""
    m = v = 0.0
    for t, g in enumerate(gradients, 1):
        m = B1 * m + (1 - B1) * g
        v = B2 * v + (1 - B2) * g**2
        u = m / (1 - B1**t) / (np.sqrt(v / (1 - B2**t)) + EPS)
        if adapted:
            u = u + DECAY * w
            u = u * np.linalg.norm(w) / np.linalg.norm(u)
        w = w - RATE * u
    return w


def check_against_numpy(tolerance):
    params, gradients = draw(3)
    for adapted in (True, False, {"kernel": True, "bias": False}, ADAPTED):
        given = ADAPTED(params) if callable(adapted) else adapted
        for steps in (1, 3):
            found = run(opt.lamb(RATE, **SETTINGS, adapted=adapted), params, gradients[:steps])
            for name, w in params.items():
                flag = given if isinstance(given, bool) else given[name]
                expected = by_hand(w, [g[name] for g in gradients[:steps]], flag)
                np.testing.assert_allclose(found[name], expected, rtol=tolerance, atol=tolerance)


def test_against_numpy():
    check_against_numpy(1e-6)


def test_against_numpy_in_double_precision(x64):
    check_against_numpy(1e-12)


def test_is_that_of_optax_where_all_is_adapted_and_nothing_stacked():
    params, gradients = draw(3)
    schedule = optax.linear_schedule(0.1, 0.01, 3)
    ours = run(opt.lamb(schedule, **SETTINGS), params, gradients)
    theirs = run(optax.lamb(schedule, **SETTINGS), params, gradients)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7), ours, theirs)


def test_a_stacked_leaf_is_its_layers():
    rng = np.random.default_rng(1)
    scale = np.array([0.1, 1.0, 10.0])
    stacked = {"layers": {"w": scale[:, None, None] * rng.standard_normal((3, 2, 4))}}
    stacked |= {"gain": {"w": rng.standard_normal((3, 2, 4))}}
    gradients = [jax.tree.map(lambda p: rng.standard_normal(p.shape), stacked) for _ in range(2)]

    def apart(tree):
        layers = {f"layer_{i}": tree["layers"]["w"][i] for i in range(3)}
        return layers | {"gain": tree["gain"]["w"]}

    flags = opt.by_path({"layers/": True}, default=False)
    together = run(opt.lamb(RATE, stacked=flags), stacked, gradients)
    one_by_one = run(opt.lamb(RATE), apart(stacked), map(apart, gradients))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), apart(together), one_by_one
    )
    whole = run(opt.lamb(RATE), stacked, gradients)
    assert np.abs(whole["layers"]["w"] - together["layers"]["w"]).max() > 0.01
    np.testing.assert_array_equal(whole["gain"]["w"], together["gain"]["w"])


def test_the_ratio_is_one_where_a_norm_is_zero():
    ratio = opt.scale_by_layer_trust_ratio(stacked=True)
    ones, zeros = jnp.ones((1, 2)), jnp.zeros((1, 2))
    w = jnp.concatenate([zeros, 2 * ones, zeros, 2 * ones])
    u = jnp.concatenate([3 * ones, zeros, zeros, 3 * ones])
    found, _ = ratio.update(u, ratio.init(w), w)
    np.testing.assert_allclose(found, np.concatenate([3 * ones, zeros, zeros, 2 * ones]), rtol=1e-6)
    slope = jax.grad(lambda u, w: jnp.sum(ratio.update(u, optax.EmptyState(), w)[0]), (0, 1))(u, w)
    assert all(np.isfinite(s).all() for s in slope)
    # From zero, the first step is that of Adam; without gradient and decay there is none.
    start = run(opt.lamb(0.1, eps=0.0), zeros, [ones])
    np.testing.assert_allclose(start, -0.1 * ones, rtol=1e-5)
    np.testing.assert_array_equal(run(opt.lamb(0.1, weight_decay=0.0), ones, [zeros]), ones)


def test_norms_of_half_precision_do_not_overflow():
    """The square of 300 exceeds f16."""
    w, u = jnp.full((4, 4), 300, jnp.float16), jnp.full((4, 4), 0.5, jnp.float16)
    ratio = opt.scale_by_layer_trust_ratio()
    np.testing.assert_array_equal(ratio.update(u, ratio.init(w), w)[0], w)


def test_accumulated_micro_batches_are_one_large_batch():
    params, gradients = draw(4)
    weights = [1.0, 2.0, 3.0, 2.0]
    large = [
        jax.tree.map(lambda a, b, v=v, w=w: (v * a + w * b) / (v + w), *pair)
        for pair, v, w in ((gradients[:2], 1, 2), (gradients[2:], 3, 2))
    ]
    rule = opt.lamb(RATE, **SETTINGS, adapted=ADAPTED)
    expected = run(rule, params, large)
    params, rule = jax.tree.map(jnp.asarray, params), opt.accumulate(rule, 2)
    state, update = rule.init(params), jax.jit(rule.update)
    for g, weight in zip(gradients, weights, strict=True):
        updates, state = update(g, state, params, weight=weight)
        params = optax.apply_updates(params, updates)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), params, expected)


def test_the_rules_of_the_docstring_fit_a_transformer():
    network = models.MaskedLM(models.Transformer(7, 3, 4, 2, 8, 6))
    ids = jnp.zeros((1, 3), int)
    shapes = jax.eval_shape(network.init, jax.random.key(0), ids)
    params = jax.tree.map(lambda x: jnp.ones(x.shape), shapes)
    flags = opt.by_path({"layers/": True}, default=False)
    rule = opt.lamb(0.5, weight_decay=0.1, adapted=ADAPTED, stacked=flags)
    moved = run(rule, params, [jax.tree.map(jnp.zeros_like, params)])
    decays = {
        jax.tree_util.keystr(path, simple=True, separator="/"): float(jnp.max(leaf)) < 1
        for path, leaf in jax.tree.leaves_with_path(moved)
    }
    kept = {name for name, decay in decays.items() if not decay}
    assert kept == {n for n in decays if n.endswith(("bias", "scale"))}
    assert "params/bias" in kept  # of the head
    for path, leaf in jax.tree.leaves_with_path(params):
        stacked = "layers" in jax.tree_util.keystr(path)
        assert (leaf.shape[0] == 3) == stacked


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_keeps_wide_moments(dtype):
    params, gradients = draw(1)
    params, gradient = (
        jax.tree.map(lambda x: jnp.asarray(x, dtype), x) for x in (params, gradients[0])
    )
    rule = opt.lamb(RATE)
    updates, state = jax.eval_shape(lambda: rule.update(gradient, rule.init(params), params))
    assert {u.dtype for u in jax.tree.leaves(updates)} == {jnp.dtype(dtype)}
    assert {s.dtype for s in jax.tree.leaves(state) if s.ndim} == {jnp.dtype(jnp.float32)}


def test_injected_hyperparameters():
    params, gradients = draw(2)
    injected = optax.inject_hyperparams(opt.lamb, static_args=("adapted", "stacked"))
    found = run(injected(RATE, adapted=ADAPTED), params, gradients)
    expected = run(opt.lamb(RATE, adapted=ADAPTED), params, gradients)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found, expected)
