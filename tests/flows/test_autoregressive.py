"""Masked autoregressive layers: the order of dependence by gradients, context, and the inverse."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen import flows

SPLINE = flows.rational_quadratic_spline(3)
made = partial(flows.MADE, hidden=(7, 9), activation=jnp.tanh)


def normal(shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape))


@pytest.mark.parametrize("context", [None, (2, 3)])
def test_each_output_of_made_depends_on_all_elements_before_it_and_on_no_other(context, x64, draw):
    net, x = made(2 * 5), normal((2, 5))
    context = None if context is None else normal(context, 1)
    params = draw(net, x, context, scale=1.0)
    jacobian = jax.jit(jax.jacobian(net.apply, (1,) if context is None else (1, 2)))
    by_x, *by_context = jacobian(params, x, context)
    for row in range(2):
        dependence = np.abs(by_x[row, :, row]).reshape(2, 5, 5)  # parameter, element, input
        expected = np.tril(np.ones((5, 5), bool), -1)
        np.testing.assert_array_equal(dependence > 0, np.stack([expected] * 2))
        if by_context:  # the first element, too, which sees nothing else
            assert (np.abs(by_context[0][row, :, row]) > 0).all()


def test_the_jacobian_is_triangular_and_each_step_is_the_transform(x64, draw):
    transform = flows.affine()
    flow, x, context = flows.autoregressive(made, transform), normal((3, 4)), normal((3, 2), 1)
    params = draw(flow, x, context, scale=0.7)

    def forward(x):
        z, logdet = flow.forward(params, x, context)
        return z, (z, logdet)

    jacobian, (z, logdet) = jax.jit(jax.jacobian(forward, has_aux=True))(x)
    for row in range(3):
        own = np.asarray(jacobian[row, :, row])
        np.testing.assert_array_equal(np.triu(own, 1), 0)
        np.testing.assert_allclose(np.log(np.diag(own)).sum(), logdet[row], rtol=1e-10)

    # Papamakarios et al. 2017, equation 3, one element at a time.
    @jax.jit
    def step(i):
        seen = jnp.where(jnp.arange(4)[None] < i, x, 0)
        raw = made(2 * 4).apply(params, seen, context).reshape(3, 2, 4)
        return transform.forward(raw[:, :, i], x[:, i][:, None])[0][:, 0]

    for i in range(4):
        np.testing.assert_allclose(z[:, i], step(i), rtol=1e-10)


def test_the_inverse_has_the_gradient_of_the_implicit_function(x64, draw):
    flow, z = flows.autoregressive(made, flows.affine()), normal((2, 4))
    params = draw(flow, z)
    x, _ = jax.jit(flow.inverse)(params, z)
    forward = jax.jit(jax.jacobian(lambda x: flow.forward(params, x)[0]))(x)
    inverse = jax.jit(jax.jacobian(lambda z: flow.inverse(params, z)[0]))(z)
    for row in range(2):
        product = np.asarray(forward[row, :, row]) @ np.asarray(inverse[row, :, row])
        np.testing.assert_allclose(product, np.eye(4), atol=1e-10)
    # d x / d params = -(d z / d x)^-1 d z / d params
    by_params = jax.jit(jax.jacobian(lambda p: flow.inverse(p, z)[0]))(params)
    at_x = jax.jit(jax.jacobian(lambda p: flow.forward(p, x)[0]))(params)
    for actual, direct in zip(jax.tree.leaves(by_params), jax.tree.leaves(at_x), strict=True):
        own = np.stack([inverse[i, :, i] for i in range(2)])
        expected = -np.einsum("bij,bj...->bi...", own, direct)
        np.testing.assert_allclose(actual, expected, atol=1e-9)


def test_it_starts_as_the_identity():
    flow, x = flows.autoregressive(partial(flows.MADE, hidden=(4,)), SPLINE), normal((2, 5))
    z, logdet = jax.jit(lambda x: flow.forward(flow.init(jax.random.key(0), x), x))(x)
    np.testing.assert_allclose(z, x, rtol=1e-6)
    np.testing.assert_allclose(logdet, np.zeros(2), atol=1e-6)


def test_a_call_that_is_not_jitted_compiles_its_inverse_once(draw):
    traces = []

    class Counted:
        def init(self, key, x, context):
            return made(8).init(key, x, context)

        def apply(self, params, x, context):
            traces.append(x.shape)
            return made(8).apply(params, x, context)

    flow = flows.autoregressive(lambda features: Counted(), flows.affine())
    z = normal((2, 4))
    params = jax.jit(flow.init)(jax.random.key(0), z)
    traces.clear()
    first = flow.inverse(params, z)
    count = len(traces)
    second = flow.inverse(params, z + 0)
    assert len(traces) == count
    np.testing.assert_array_equal(first[0], second[0])
