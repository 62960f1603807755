import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgen import optimizers as opt


def params():
    rng = np.random.default_rng(0)
    tree = {
        "embed": {"embedding": rng.standard_normal((5, 3))},
        "dense": {"kernel": rng.standard_normal((3, 4)), "bias": rng.standard_normal(4)},
        "norm": {"scale": 1 + 0.1 * rng.standard_normal((2, 4))},
    }
    return jax.tree.map(jnp.asarray, tree)


def gradients(steps):
    rng = np.random.default_rng(1)
    return [
        jax.tree.map(lambda p: jnp.asarray(rng.standard_normal(p.shape)), params())
        for _ in range(steps)
    ]


def run(optimizer, theta, grads):
    state = optimizer.init(theta)
    update = jax.jit(optimizer.update)
    for g in grads:
        updates, state = update(g, state, theta)
        theta = optax.apply_updates(theta, updates)
    return theta, state


def by_hand(theta, grads, rms, alpha, beta, decay, share):
    """numpy, one leaf; `rms` of the parameters is taken before the step."""
    theta, m = np.array(theta), 0.0
    for g in grads:
        m = beta * m + (1 - beta) * np.array(g)
        theta = theta - alpha * share * rms(theta) * (np.sign(m) + decay * theta)
    return theta


def test_against_numpy(x64):
    grads = gradients(4)
    theta, _ = run(opt.tiger(0.1, decay=0.8, weight_decay=0.2), params(), grads)

    def leaf_rms(x):
        return np.sqrt(np.mean(x**2))

    def row_rms(x):
        return np.sqrt(np.mean(x**2, axis=-1, keepdims=True))

    def one(x):
        return 1.0

    for path, rms, decay, share in (
        (("embed", "embedding"), row_rms, 0.2, 1),
        (("dense", "kernel"), leaf_rms, 0.2, 1),
        (("dense", "bias"), one, 0.0, 0.5),
        (("norm", "scale"), one, 0.0, 0.5),
    ):
        a, b = path
        expected = by_hand(params()[a][b], [g[a][b] for g in grads], rms, 0.1, 0.8, decay, share)
        np.testing.assert_allclose(theta[a][b], expected, rtol=1e-10)


def test_state_is_one_buffer():
    theta = params()
    state = opt.tiger(optax.linear_schedule(1e-3, 0, 10)).init(theta)
    sizes = [x.size for x in jax.tree.leaves(state) if x.ndim]
    assert sorted(sizes) == sorted(x.size for x in jax.tree.leaves(theta))


def test_labels():
    expected = {
        "embed": {"embedding": "embedding"},
        "dense": {"kernel": "kernel", "bias": "bias"},
        "norm": {"scale": "gain"},
    }
    assert opt.tiger_labels(params()) == expected
    assert opt.tiger_labels([jnp.ones(3), jnp.ones((2, 2))]) == ["bias", "kernel"]
    assert opt.tiger_labels(jnp.ones((2, 2))) == "kernel"


def test_zero_kernel_moves_by_the_floor():
    theta = {"kernel": jnp.zeros((2, 2))}
    moved, _ = run(opt.tiger(0.1, min_scale=1e-3), theta, [{"kernel": jnp.ones((2, 2))}])
    np.testing.assert_allclose(moved["kernel"], np.full((2, 2), -1e-4), rtol=1e-6)
    stuck, _ = run(opt.tiger(0.1, min_scale=0.0), theta, [{"kernel": jnp.ones((2, 2))}])
    np.testing.assert_array_equal(stuck["kernel"], 0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_bad_gradient_shrinks_and_leaves_the_state_alone(bad):
    optimizer = opt.tiger(0.1, decay=0.8)
    theta, state = run(optimizer, params(), gradients(2))
    broken = jax.tree.map(lambda g: jnp.full_like(g, bad), gradients(1)[0])
    updates, after = optimizer.update(broken, state, theta)
    shrunk = optax.apply_updates(theta, updates)
    for old, new in zip(jax.tree.leaves(state), jax.tree.leaves(after), strict=True):
        if old.ndim:
            np.testing.assert_array_equal(new, old)
    np.testing.assert_allclose(
        shrunk["dense"]["kernel"], 0.99 * theta["dense"]["kernel"], rtol=1e-5
    )
    np.testing.assert_allclose(shrunk["dense"]["bias"], 0.99 * theta["dense"]["bias"], rtol=1e-5)
    np.testing.assert_allclose(
        shrunk["norm"]["scale"], 1 + 0.99 * (theta["norm"]["scale"] - 1), rtol=1e-6
    )
    # It goes on as if the bad step had not been.
    good, _ = optimizer.update(gradients(1)[0], after, theta)
    expected, _ = optimizer.update(gradients(1)[0], state, theta)
    jax.tree.map(np.testing.assert_array_equal, good, expected)


def test_one_bad_element_leaves_the_others_alone():
    optimizer = opt.tiger(0.1)
    g = gradients(1)[0]
    broken = jax.tree.map(lambda x: x, g)
    broken["dense"]["kernel"] = g["dense"]["kernel"].at[1, 2].set(jnp.nan)
    (good, _), (mixed, _) = (
        optimizer.update(x, optimizer.init(params()), params()) for x in (g, broken)
    )
    same = np.ones((3, 4), bool)
    same[1, 2] = False
    np.testing.assert_array_equal(mixed["dense"]["kernel"][same], good["dense"]["kernel"][same])
    shrink = -0.01 * params()["dense"]["kernel"][1, 2]
    assert mixed["dense"]["kernel"][1, 2] == pytest.approx(float(shrink), rel=1e-5)


def test_rows_without_gradient_drift_to_the_fixed_point_unless_lazy():
    theta = {"embedding": jnp.ones((3, 2))}
    seen = {"embedding": jnp.array([[1.0, -1.0], [1.0, -1.0], [0.0, 0.0]])}
    later = {"embedding": jnp.array([[1.0, -1.0], [0.0, 0.0], [0.0, 0.0]])}
    grads = [seen] + [later] * 300

    def embeddings(p):
        return jax.tree.map("embedding".__eq__, opt.tiger_labels(p))

    tiger = opt.tiger(0.05, weight_decay=0.5)
    drifted = run(tiger, theta, grads)[0]["embedding"]
    # Row 1 has had one gradient in 301 steps, and is where +-1/lambda is.
    np.testing.assert_allclose(drifted[1], [-2.0, 2.0], rtol=0.2)
    lazy = run(opt.lazy_updates(tiger, embeddings), theta, grads)[0]["embedding"]
    assert np.abs(lazy[1] - theta["embedding"][1]).max() < 0.1
    np.testing.assert_array_equal(lazy[2], theta["embedding"][2])
    np.testing.assert_allclose(lazy[0], drifted[0], rtol=1e-6)


def test_finite_ema_is_optax_ema():
    ours, theirs = opt.finite_ema(0.9), optax.ema(0.9, debias=False)
    a, b = ours.init(params()), theirs.init(params())
    for g in gradients(3):
        u, a = ours.update(g, a)
        v, b = theirs.update(g, b)
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), u, v)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), a.ema, b.ema)


def test_half_precision_keeps_a_wide_average():
    theta = jax.tree.map(lambda p: p.astype(jnp.bfloat16), params())
    g = jax.tree.map(jnp.ones_like, theta)
    optimizer = opt.tiger(0.1)
    updates, state = jax.eval_shape(lambda: optimizer.update(g, optimizer.init(theta), theta))
    assert {u.dtype for u in jax.tree.leaves(updates)} == {jnp.dtype(jnp.bfloat16)}
    assert {s.dtype for s in jax.tree.leaves(state) if s.ndim} == {jnp.dtype(jnp.float32)}


def test_injected_hyperparameters():
    params = {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}
    injected, plain = optax.inject_hyperparams(opt.tiger, static_args="labels")(0.1), opt.tiger(0.1)
    u, _ = jax.jit(injected.update)(params, injected.init(params), params)
    expected, _ = plain.update(params, plain.init(params), params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), u, expected)
