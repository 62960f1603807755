from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxgen import flows
from jaxgen.models import MLP

# What is fixed and what is moved, written out: x = 0, 1, 2 ... in row-major order.
SPLITS = {
    "halves": (flows.halves(), (1, 4), [[0, 1]], [[2, 3]]),
    "halves of an odd number": (flows.halves(), (1, 5), [[0, 1]], [[2, 3, 4]]),
    "even_odd": (flows.even_odd(), (1, 6), [[0, 2, 4]], [[1, 3, 5]]),
    "checkerboard": (
        flows.checkerboard(),
        (1, 3, 4, 1),
        [[[[0], [2]], [[5], [7]], [[8], [10]]]],
        [[[[1], [3]], [[4], [6]], [[9], [11]]]],
    ),
}


@pytest.mark.parametrize("name", SPLITS)
def test_splits(name):
    split, shape, fixed, moved = SPLITS[name]
    x = jnp.arange(np.prod(shape)).reshape(shape)
    for cut, parts in ((split, (fixed, moved)), (flows.swapped(split), (moved, fixed))):
        divided = cut.divide(x)
        assert len(divided) == 2
        for actual, expected in zip(divided, parts, strict=True):
            np.testing.assert_array_equal(actual, expected)
        np.testing.assert_array_equal(cut.merge(*divided), x)


def test_additive_and_affine_values():
    x, raw = np.array([[1.0, -2.0]]), np.array([[0.5, 4.0, 0.3, -7.0]])
    z, log_slope = flows.additive().forward(raw[:, :2], x)
    np.testing.assert_allclose(z, [[1.5, 2.0]])
    np.testing.assert_array_equal(log_slope, [[0.0, 0.0]])
    # The shift is the first half of raw, the scale the second.
    s = 1.5 * np.tanh(raw[:, 2:] / 1.5)
    z, log_slope = flows.affine(limit=1.5).forward(raw, x)
    np.testing.assert_allclose(z, x * np.exp(s) + raw[:, :2], rtol=1e-6)
    np.testing.assert_allclose(log_slope, s, rtol=1e-6)


@pytest.mark.parametrize(
    "transform", [flows.additive(), flows.affine(), flows.rational_quadratic_spline()]
)
def test_zero_raw_is_the_identity(transform):
    x = jnp.linspace(-4, 4, 21)[:, None]
    raw = jnp.zeros((21, transform.size))
    for direction in (transform.forward, transform.inverse):
        y, log_slope = jax.jit(direction)(raw, x)
        np.testing.assert_allclose(y, x, atol=1e-6)
        np.testing.assert_allclose(log_slope, np.zeros_like(x), atol=1e-6)


@pytest.mark.parametrize("size", [1e6, -1e6])
@pytest.mark.parametrize("limit", [0.5, 2.0])
def test_affine_stays_finite_for_any_scale(size, limit):
    x, raw = jnp.array([[0.1, -5.0]]), jnp.array([[3.0, -3.0, size, size]])
    transform = flows.affine(limit)
    for direction, sign in ((transform.forward, 1), (transform.inverse, -1)):
        y, log_slope = direction(raw, x)
        assert np.isfinite(y).all()
        np.testing.assert_allclose(log_slope, np.full((1, 2), sign * np.sign(size) * limit))
        gradient = jax.grad(lambda raw, x, f=direction: sum(map(jnp.sum, f(raw, x))), (0, 1))
        assert all(np.isfinite(g).all() for g in gradient(raw, x))


def test_coupling_only_changes_the_moved_part(draw):
    x = jnp.asarray(np.random.default_rng(0).standard_normal((3, 4)), jnp.float32)
    flow = flows.coupling(partial(MLP, hidden=(5,)), flows.affine(), flows.even_odd())
    z, _ = flow.forward(draw(flow, x), x)
    np.testing.assert_array_equal(z[:, 0::2], x[:, 0::2])
    assert np.abs(z[:, 1::2] - x[:, 1::2]).min() > 1e-3


def test_coupling_starts_at_the_identity():
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 4, 4, 3)), jnp.float32)
    flow = flows.coupling(partial(flows.ConvNet, width=4), flows.affine())
    z, logdet = jax.jit(lambda key, x: flow.forward(flow.init(key, x), x))(jax.random.key(0), x)
    np.testing.assert_array_equal(z, x)
    np.testing.assert_array_equal(logdet, np.zeros(2))


def test_a_scalar_is_moved_by_its_context_alone(draw):
    x, context = jnp.array([[1.0], [1.0]]), jnp.array([[0.0, 1.0], [2.0, 3.0]])
    flow = flows.coupling(partial(MLP, hidden=(5,)), flows.affine())
    params = draw(flow, x, context)
    z, logdet = flow.forward(params, x, context)
    raw = MLP(2, (5,)).apply(params, context)
    np.testing.assert_allclose(z, x * np.exp(logdet)[:, None] + raw[:, :1], rtol=1e-5)
    assert np.abs(z[0] - z[1]) > 1e-3


class LeftNeighbour(NamedTuple):
    """A "network" of flax's two functions: adds up each position and what lies left of it."""

    features: int

    def init(self, key, x, context):
        return ()

    def apply(self, params, x, context):
        left = jnp.pad(x, ((0, 0), (0, 0), (1, 0), (0, 0)))[:, :, :-1]
        return jnp.tile(left + x, self.features // x.shape[-1])


def test_checkerboard_coupling_shows_the_network_neighbours_where_they_lie():
    x = jnp.arange(1.0, 13.0).reshape(1, 3, 4, 1)
    flow = flows.checkerboard_coupling(LeftNeighbour, flows.additive(), flows.checkerboard())
    z, _ = flow.forward((), x)
    # Black squares gain their left neighbour, nothing where there is none, and are not seen.
    np.testing.assert_array_equal(z[0, :, :, 0], [[1, 3, 3, 7], [5, 6, 13, 8], [9, 19, 11, 23]])
    white = flows.checkerboard_coupling(
        LeftNeighbour, flows.additive(), flows.swapped(flows.checkerboard())
    )
    np.testing.assert_array_equal(
        white.forward((), x)[0][0, :, :, 0], [[1, 2, 5, 4], [5, 11, 7, 15], [9, 10, 21, 12]]
    )


class Pair(NamedTuple):
    """A network: any two functions of these names."""

    init: Callable
    apply: Callable


def linear_functions(features):
    """w x + context, of plain functions and one array of parameters."""
    return Pair(
        lambda key, x, context: jax.random.normal(key, (x.shape[-1], features)),
        lambda w, x, context: x @ w + context,
    )


class NnxLinear(nnx.Module):
    def __init__(self, inputs, features, rngs):
        self.linear = nnx.Linear(inputs, features, rngs=rngs)

    def __call__(self, x, context):
        return self.linear(x) + context


def nnx_network(features):
    """An nnx.Module, split in `init` and merged in `apply`."""

    def split(key, inputs):
        return nnx.split(NnxLinear(inputs, features, nnx.Rngs(key)))

    def apply(state, x, context):
        graph, _ = nnx.split(nnx.eval_shape(lambda: NnxLinear(x.shape[-1], features, nnx.Rngs(0))))
        return nnx.merge(graph, state)(x, context)

    return Pair(lambda key, x, context: split(key, x.shape[-1])[1], apply)


def haiku_pair(features):
    """What haiku's without_apply_rng(transform(f)) is: init(rng, *args), apply(params, *args)."""

    def init(rng, *args):
        x, _ = args
        return {"linear": {"w": jax.random.normal(rng, (x.shape[-1], features))}}

    def apply(params, *args):
        x, context = args
        return x @ params["linear"]["w"] + context

    return Pair(init, apply)


@pytest.mark.parametrize("network", [linear_functions, nnx_network, haiku_pair])
def test_a_conditioner_is_any_pair_of_functions(network):
    flow = flows.coupling(network, flows.affine())
    deep = flows.repeat(flows.chain(flow, flows.reversal()), 2, reversible=True)
    rng = np.random.default_rng(0)
    x, context = (jnp.asarray(rng.standard_normal((3, 4)), jnp.float32) for _ in range(2))
    params = flow.init(jax.random.key(0), x, context)
    (w,) = [leaf for leaf in jax.tree.leaves(params) if leaf.ndim == 2]
    raw = np.asarray(x[:, :2] @ w + context)
    s = 2 * np.tanh(raw[:, 2:] / 2)
    z, logdet = flow.forward(params, x, context)
    np.testing.assert_allclose(z[:, 2:], x[:, 2:] * np.exp(s) + raw[:, :2], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(logdet, s.sum(1), rtol=1e-4, atol=1e-5)

    @jax.jit
    def trained(key, x, context):
        params = deep.init(key, x, context)
        loss, gradient = jax.value_and_grad(lambda p: -flows.log_prob(deep, p, x, context).mean())(
            params
        )
        step = jax.tree.map(lambda p, g: p - 0.01 * g, params, gradient)
        back = deep.inverse(step, deep.forward(step, x, context)[0], context)[0]
        return loss, -flows.log_prob(deep, step, x, context).mean(), back

    before, after, back = trained(jax.random.key(1), x, context)
    assert after < before
    np.testing.assert_allclose(back, x, rtol=1e-4, atol=1e-4)
