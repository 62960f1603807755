import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgen import optimizers as opt


def theta():
    return {"a": jnp.array([1.0, -2.0, 0.5]), "b": jnp.array([[0.3]])}


def gradient(params):
    return jax.grad(lambda p: jnp.sum(jnp.cosh(p["a"])) + jnp.sum(p["a"]) * jnp.sum(p["b"] ** 2))(
        params
    )


def steps(optimizer, params, count):
    state = optimizer.init(params)
    update = jax.jit(optimizer.update)
    for _ in range(count):
        updates, state = update(gradient(params), state, params)
        params = optax.apply_updates(params, updates)
    return params, state


def close(a, b, rtol=1e-10):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol), a, b)


@pytest.mark.parametrize("inner", [optax.sgd(0.1, 0.9), optax.adam(0.05)])
def test_against_two_loops(x64, inner):
    """Algorithm 1 of the paper as it is printed; the inner state is kept."""
    slow, state = theta(), inner.init(theta())
    for _ in range(3):
        fast = slow
        for _ in range(4):
            updates, state = inner.update(gradient(fast), state, fast)
            fast = optax.apply_updates(fast, updates)
        slow = jax.tree.map(lambda s, f: s + 0.3 * (f - s), slow, fast)
    ours, ours_state = steps(opt.lookahead(inner, 4, 0.3), theta(), 12)
    close(ours, slow)
    close(ours_state.slow, slow)


@pytest.mark.parametrize("count", [3, 4, 6])
def test_against_optax(x64, count):
    inner = optax.adam(0.1)
    theirs = optax.lookahead(inner, 4, 0.5)
    copy = jax.tree.map(jnp.copy, theta())
    pair = optax.LookaheadParams(theta(), copy)
    state = theirs.init(pair)
    for _ in range(count):
        updates, state = theirs.update(gradient(pair.fast), state, pair)
        pair = optax.apply_updates(pair, updates)
    ours, ours_state = steps(opt.lookahead(inner, 4, 0.5), theta(), count)
    close(ours, pair.fast)
    close(ours_state.slow, pair.slow)


def test_limits_of_the_slow_step(x64):
    plain, _ = steps(optax.adam(0.1), theta(), 7)
    close(steps(opt.lookahead(optax.adam(0.1), 3, 1.0), theta(), 7)[0], plain)
    close(steps(opt.lookahead(optax.adam(0.1), 3, 0.0), theta(), 6)[0], theta())


def test_parameters_and_state_may_both_be_donated():
    optimizer = opt.lookahead(optax.adam(0.1), 2)
    params = theta()
    expected, _ = steps(optimizer, theta(), 3)

    @jax.jit
    def plain(params, state):
        updates, state = optimizer.update(gradient(params), state, params)
        return optax.apply_updates(params, updates), state

    donated = jax.jit(plain, donate_argnums=(0, 1))
    state = optimizer.init(params)
    for _ in range(3):
        params, state = donated(params, state)
    close(params, expected, 1e-6)


def test_extra_arguments_reach_the_inner_optimizer():
    optimizer = opt.lookahead(optax.polyak_sgd())
    updates, _ = optimizer.update(gradient(theta()), optimizer.init(theta()), theta(), value=1.0)
    plain = optax.polyak_sgd()
    expected, _ = plain.update(gradient(theta()), plain.init(theta()), theta(), value=1.0)
    close(updates, expected, 1e-6)


def test_half_precision():
    params = jax.tree.map(lambda p: p.astype(jnp.bfloat16), theta())
    new, state = steps(opt.lookahead(optax.sgd(0.1), 2), params, 4)
    assert {x.dtype for x in jax.tree.leaves((new, state.slow))} == {jnp.dtype(jnp.bfloat16)}
    jax.tree.map(np.testing.assert_array_equal, new, state.slow)
