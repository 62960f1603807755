"""One table of bijectors: round trips, and log-determinants against the true Jacobian."""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen import flows
from jaxgen.flows import Bijector
from jaxgen.models import MLP, Conv

mlp = partial(MLP, hidden=(6,), last_init=jax.nn.initializers.zeros)
made = partial(flows.MADE, hidden=(6,))
conv = Conv  # one convolution looks at every neighbour

VECTOR, ODD = (3, 6), (3, 5)
IMAGE = (2, 2, 4, 3)  # not square, more than two channels
SQUARE = (2, 4, 4, 3)
VECTOR_CONTEXT, SAME_CONTEXT, FINER_CONTEXT = (2, 2), (2, 2, 4, 2), (2, 4, 8, 2)


class Case(NamedTuple):
    flow: Bijector
    shape: tuple[int, ...]
    context: tuple[int, ...] | None = None
    volume: bool = True  # whether it changes volume


additive, affine = flows.additive(), flows.affine()
spline = flows.rational_quadratic_spline(4)
halves, even_odd, board = flows.halves(), flows.even_odd(), flows.checkerboard()
swapped = flows.swapped
coupling, checkerboard_coupling = flows.coupling, flows.checkerboard_coupling
step = flows.chain(flows.actnorm(), flows.invertible_1x1(), coupling(mlp, affine))
pair = flows.chain(coupling(mlp, spline), coupling(mlp, affine, swapped(halves)))
image_coupling = coupling(conv, affine)

CASES = {
    "actnorm-vector": Case(flows.actnorm(), VECTOR),
    "actnorm-image": Case(flows.actnorm(), IMAGE),
    "scaling-image": Case(flows.scaling(), IMAGE),
    "invertible_1x1-vector": Case(flows.invertible_1x1(), VECTOR),
    "invertible_1x1-image": Case(flows.invertible_1x1(), IMAGE),
    "shuffle": Case(flows.shuffle(), VECTOR, None, False),
    "permutation": Case(flows.permutation([2, 0, 3, 1, 5, 4]), VECTOR, None, False),
    "reversal": Case(flows.reversal(), IMAGE, None, False),
    "squeeze": Case(flows.squeeze(), IMAGE, None, False),
    "flatten": Case(flows.flatten(IMAGE[1:]), IMAGE, None, False),
    "logit": Case(flows.logit(), IMAGE),
    "additive-halves": Case(coupling(mlp, additive), ODD, None, False),
    "additive-even_odd-swapped-given": Case(
        coupling(mlp, additive, swapped(even_odd)), VECTOR, (3, 2), False
    ),
    "additive-checkerboard": Case(coupling(conv, additive, board), IMAGE, None, False),
    "affine-halves": Case(coupling(mlp, affine), ODD),
    "affine-halves-swapped-given": Case(coupling(mlp, affine, swapped(halves)), ODD, (3, 2)),
    "affine-even_odd": Case(coupling(mlp, affine, even_odd), VECTOR),
    "affine-even_odd-swapped": Case(coupling(mlp, affine, swapped(even_odd)), VECTOR),
    "affine-checkerboard": Case(coupling(conv, affine, board), IMAGE),
    "affine-checkerboard-swapped-given": Case(
        coupling(conv, affine, swapped(board)), IMAGE, VECTOR_CONTEXT
    ),
    "spline-halves": Case(coupling(mlp, spline), ODD),
    "spline-even_odd-given": Case(coupling(mlp, spline, even_odd), VECTOR, (3, 2)),
    "spline-checkerboard-swapped": Case(coupling(conv, spline, swapped(board)), IMAGE),
    "affine-image-given-vector": Case(image_coupling, IMAGE, VECTOR_CONTEXT),
    "affine-image-given-image": Case(image_coupling, IMAGE, SAME_CONTEXT),
    "affine-image-given-finer": Case(image_coupling, IMAGE, FINER_CONTEXT),
    "checkerboard_coupling": Case(checkerboard_coupling(conv, affine, board), IMAGE),
    "checkerboard_coupling-swapped-given": Case(
        checkerboard_coupling(conv, affine, swapped(board)), IMAGE, SAME_CONTEXT
    ),
    "chain": Case(flows.chain(flows.actnorm(), pair, flows.reversal()), VECTOR, (3, 2)),
    "repeat": Case(flows.repeat(step, 3), VECTOR, (3, 2)),
    "repeat-remat": Case(flows.repeat(pair, 3, remat=True), VECTOR),
    "repeat-reversible": Case(flows.repeat(step, 3, reversible=True), VECTOR, (3, 2)),
    "elementwise-spline": Case(flows.elementwise(spline), IMAGE),
    "autoregressive-additive": Case(flows.autoregressive(made, additive), ODD, None, False),
    "autoregressive-affine-given": Case(flows.autoregressive(made, affine), ODD, (3, 2)),
    "autoregressive-spline": Case(flows.autoregressive(made, spline), ODD),
    "autoregressive-one-given": Case(flows.autoregressive(made, affine), (3, 1), (3, 2)),
    "invert": Case(flows.invert(step), VECTOR, (3, 2)),
    "invert-autoregressive": Case(flows.invert(flows.autoregressive(made, affine)), ODD),
    "coupling_flow-given": Case(flows.coupling_flow(5, depth=2, width=6), ODD, (3, 2)),
    "coupling_flow-one": Case(flows.coupling_flow(1, depth=2, width=6, transform=spline), (3, 1)),
    "multiscale": Case(
        flows.multiscale(flows.chain(flows.squeeze(), image_coupling), flows.actnorm()),
        IMAGE,
        FINER_CONTEXT,
    ),
    "nice": Case(flows.nice((6, 5), 2), VECTOR, (3, 2)),
    "realnvp": Case(flows.realnvp(2, 1, 4, 0), SQUARE),
    "realnvp-given": Case(flows.realnvp(1, 2, 4, 0, reversible=True), IMAGE, SAME_CONTEXT),
    "glow": Case(flows.glow(2, 1, 4), SQUARE, (2, 4, 4, 1)),
    "glow-additive": Case(
        flows.glow(2, 2, 4, transform=additive, mixing=flows.shuffle(), reversible=True), SQUARE
    ),
}


def batch(case, dtype):
    """A batch in (0, 1), where every bijector of the table is defined, and its context."""
    rng = np.random.default_rng(1)
    x = jnp.asarray(rng.uniform(0.02, 0.98, case.shape), dtype)
    if case.context is None:
        return x, None
    return x, jnp.asarray(rng.standard_normal(case.context), dtype)


def rows(latents):
    """A pytree of [B, ...] as one [B, D]."""
    return jnp.concatenate([z.reshape(z.shape[0], -1) for z in jax.tree.leaves(latents)], axis=1)


def unrows(flat, like):
    leaves, treedef = jax.tree.flatten(like)
    places = np.cumsum([math.prod(leaf.shape[1:]) for leaf in leaves])[:-1]
    parts = jnp.split(flat, places, axis=1)
    return treedef.unflatten([p.reshape(z.shape) for p, z in zip(parts, leaves, strict=True)])


def checked(function, like):
    """`function` from rows to rows, its log-determinant held against its Jacobian."""

    def flat(x, params, context):
        y, logdet = function(params, unrows(x, like), context)
        return rows(y), (rows(y), logdet)

    run = jax.jit(jax.jacrev(flat, has_aux=True))

    def check(params, x, context):
        jacobian, (y, logdet) = run(x, params, context)
        assert logdet.shape == x.shape[:1]
        for i in range(len(x)):
            for j in range(len(x)):
                if i == j:
                    expected = np.linalg.slogdet(jacobian[i, :, i])[1]
                    np.testing.assert_allclose(logdet[i], expected, rtol=1e-8, atol=1e-8)
                else:  # no example looks at another
                    np.testing.assert_array_equal(jacobian[i, :, j], 0)
        return y, logdet

    return check


def assert_close(actual, expected, tolerance):
    actual, expected = (np.asarray(a, np.float64) for a in (actual, expected))
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", CASES)
def test_round_trip_and_log_determinant(name, x64, draw):
    flow, *_ = case = CASES[name]
    image, context = batch(case, jnp.float64)
    params = draw(flow, image, context)
    latents = jax.eval_shape(flow.forward, params, image, context)[0]
    forward, inverse = checked(flow.forward, image), checked(flow.inverse, latents)
    x = rows(image)

    z, logdet = forward(params, x, context)
    back, back_logdet = inverse(params, z, context)
    assert_close(back, x, 1e-8)
    assert_close(back_logdet, -logdet, 1e-8)

    noise = jnp.asarray(np.random.default_rng(2).standard_normal(z.shape))
    drawn, drawn_logdet = inverse(params, noise, context)
    again, again_logdet = forward(params, drawn, context)
    assert_close(again, noise, 1e-8)
    assert_close(again_logdet, -drawn_logdet, 1e-8)

    # Nothing above would notice a layer that does nothing, or does not look at its context.
    assert name in ("squeeze", "flatten") or np.abs(z - x).max() > 0.01
    assert (np.abs(logdet).max() > 0.01) == case.volume
    if context is not None:
        assert np.abs(forward(params, x, context + 1)[0] - z).max() > 1e-3


NARROW = [
    "logit",
    "affine-halves",
    "spline-checkerboard-swapped",
    "repeat-reversible",
    "multiscale",
    "nice",
    "realnvp-given",
    "glow",
    "elementwise-spline",
    "autoregressive-affine-given",
    "coupling_flow-given",
]


@pytest.mark.parametrize("name", NARROW)
@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 1e-4), (jnp.bfloat16, 0.1)])
def test_narrow_floats(name, dtype, tolerance, draw):
    flow, *_ = case = CASES[name]
    x, context = batch(case, jnp.float32)
    params = draw(flow, x.astype(dtype), context, scale=0.1)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} <= {jnp.dtype(jnp.float32)}
    x, context = jax.tree.map(lambda leaf: leaf.astype(dtype), (x, context))

    @jax.jit
    def there_and_back(params, x, context):
        z, logdet = flow.forward(params, x, context)
        return z, logdet, *flow.inverse(params, z, context)

    z, logdet, back, back_logdet = there_and_back(params, x, context)
    assert {leaf.dtype for leaf in jax.tree.leaves((z, back))} == {jnp.dtype(dtype)}
    assert logdet.dtype == back_logdet.dtype == jnp.float32
    assert np.isfinite(np.asarray(rows(z), np.float32)).all()
    assert_close(back, x, tolerance)
    assert_close(logdet, -back_logdet, tolerance)


# These act on the last axis or on single numbers of an array of any rank.
ANY_RANK = ("elementwise-spline", "invertible_1x1-image", "reversal", "logit")


@pytest.mark.parametrize("name", CASES)
def test_an_example_without_its_batch_axis_is_refused(name, draw):
    """Its two numbers were once taken for a batch of two, whose log-determinants vmap added."""
    flow, *_ = case = CASES[name]
    x, context = batch(case, jnp.float32)
    params = draw(flow, x, context)
    if name in ANY_RANK:
        x = x[:, 0, 0]
    latents = jax.eval_shape(flow.forward, params, *batch(case, jnp.float32))[0]
    latents = jax.tree.map(
        lambda z: jnp.zeros(z.shape[-1:] if name in ANY_RANK else z.shape[1:]), latents
    )

    def refused(function, x, context, names="[xz]"):
        with pytest.raises(ValueError, match=rf"^{names} .*expected"):
            jax.eval_shape(function, params, x, context)

    one = None if context is None else context[0]
    # The rows of an image pass for its examples until the context has another number of them.
    first = "[xz]" if context is None else "(x|z|context)"
    refused(partial(flows.log_prob, flow), x[0], one, first)
    refused(jax.vmap(partial(flows.log_prob, flow), (None, 0, 0)), x, context, first)
    refused(flow.forward, x[0], one)
    refused(flow.inverse, latents, one)


INTEGERS = {
    "elementwise-spline": jnp.int32,
    "autoregressive-affine-given": jnp.int32,
    "coupling_flow-given": jnp.int32,
    "actnorm-image": jnp.bool,
    "scaling-image": jnp.int32,
    "invertible_1x1-vector": jnp.int32,
    "shuffle": jnp.bool,
    "permutation": jnp.int32,
    "reversal": jnp.uint8,
    "squeeze": jnp.bool,
    "flatten": jnp.int32,
    "logit": jnp.int32,
    "additive-even_odd-swapped-given": jnp.bool,
    "affine-checkerboard": jnp.int32,
    "spline-halves": jnp.int32,
    "checkerboard_coupling": jnp.bool,
    "repeat-reversible": jnp.int32,
    "multiscale": jnp.uint8,
}


@pytest.mark.parametrize("name", INTEGERS)
def test_integers_and_booleans_are_the_same_floats(name, draw):
    flow, *_ = case = CASES[name]
    x, context = batch(case, jnp.float32)
    params = draw(flow, x, context)

    @jax.jit
    def numbers(x, z):
        initial = flow.init(jax.random.key(0), x, context)
        gradient = jax.grad(lambda p: flows.log_prob(flow, p, x, context).sum())(params)
        return initial, gradient, flow.forward(params, x, context), flow.inverse(params, z, context)

    def numbered(v):
        return (v > 0.5).astype(INTEGERS[name])

    z = jax.tree.map(
        lambda z: jnp.resize(x, z.shape), jax.eval_shape(flow.forward, params, x, context)[0]
    )
    integers = jax.tree.map(numbered, (x, z))
    floats = jax.tree.map(lambda v: v.astype(jnp.float32), integers)
    jax.tree.map(np.testing.assert_array_equal, numbers(*integers), numbers(*floats))
