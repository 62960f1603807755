"""Every documented ValueError names its argument and value, and is raised while tracing."""

from functools import partial

import jax
import jax.numpy as jnp
import pytest

from jaxgen import flows
from jaxgen.models import MLP, Conv, conv3x3

spline = flows.rational_quadratic_spline
BUILD = {
    "depth 0": lambda: flows.repeat(flows.reversal(), 0),
    "remat and reversible": lambda: flows.repeat(flows.reversal(), 2, remat=True, reversible=True),
    "no bijectors": flows.chain,
    "no levels": flows.multiscale,
    "limit 0": lambda: flows.affine(0),
    "limit -1.5": lambda: flows.affine(-1.5),
    "bins 0": lambda: spline(0),
    "bound -3": lambda: spline(bound=-3),
    "min_bin 0.2": lambda: spline(5, min_bin=0.2),
    "min_bin 0,": lambda: spline(min_bin=0),
    "min_slope 1;": lambda: spline(min_slope=1),
    "min_slope 0;": lambda: spline(min_slope=0),
    "alpha 0;": lambda: flows.logit(0),
    "alpha 0.5": lambda: flows.logit(0.5),
    r"order \[0, 2\]": lambda: flows.permutation([0, 2]),
    r"order \[0, 0, 1\]": lambda: flows.permutation([0, 0, 1]),
    r"order \[\[0\]\]": lambda: flows.permutation([[0]]),
    "levels 0; expected": lambda: flows.glow(0),
    "levels 0; expected at least 1": lambda: flows.realnvp(0),
    "depth -1": lambda: flows.glow(depth=-1),
}


@pytest.mark.parametrize("message", BUILD)
def test_arguments_out_of_range(message):
    with pytest.raises(ValueError, match=message):
        BUILD[message]()


def forward(flow, shape, context=None):
    """Trace init and forward on an input of a shape, as jit would."""
    x = jax.ShapeDtypeStruct(shape, jnp.float32)
    context = None if context is None else jax.ShapeDtypeStruct(context, jnp.float32)
    key = jax.random.key(0)
    jax.eval_shape(lambda x, c: flow.forward(flow.init(key, x, c), x, c), x, context)


mlp = flows.coupling(partial(MLP, hidden=(3,)), flows.additive())
conv = flows.coupling(Conv, flows.additive())
CALL = {
    r"last axis of \(2, 3\)": (
        flows.coupling(MLP, flows.additive(), flows.even_odd()),
        (2, 3),
    ),
    r"x \(2, 4, 3, 1\); .* even W": (
        flows.coupling(Conv, flows.additive(), flows.checkerboard()),
        (2, 4, 3, 1),
    ),
    r"x \(2, 4\); .* even W": (
        flows.coupling(MLP, flows.additive(), flows.checkerboard()),
        (2, 4),
    ),
    r"x \(2, 3, 4, 1\); .* even H": (flows.squeeze(), (2, 3, 4, 1)),
    r"x \(2, 4, 5, 1\); .* even H": (flows.squeeze(), (2, 4, 5, 1)),
    r"x \(2, 4\); .* even H": (flows.squeeze(), (2, 4)),
    r"x \(1, 3, 2.* even H": (flows.glow(2, 1, 4), (1, 6, 4, 1)),
    r"x \(1, 2, 3.* even W": (flows.realnvp(2, 1, 4, 1), (1, 4, 6, 1)),
    r"x \(2, 3\); expected 2": (flows.permutation([1, 0]), (2, 3)),
    r"context \(3, 5\) does not fit x \(2, 1\)": (mlp, (2, 2), (3, 5)),
    r"context \(2, 4, 4, 5\) does not fit x \(2, 1\)": (mlp, (2, 2), (2, 4, 4, 5)),
    r"context \(1, 5\) does not fit x \(2, 4, 4, 1\)": (conv, (2, 4, 4, 2), (1, 5)),
    r"context \(2, 2, 2, 5\) does not fit": (conv, (2, 4, 4, 2), (2, 2, 2, 5)),
    r"context \(2, 8, 12, 5\) does not fit": (conv, (2, 4, 4, 2), (2, 8, 12, 5)),
}


@pytest.mark.parametrize("message", CALL)
def test_shapes_that_do_not_fit(message):
    with pytest.raises(ValueError, match=message):
        forward(*CALL[message])


@pytest.mark.parametrize("shapes", [((2, 2),), ((2, 2), (2, 1), (2, 1)), (2, 4)])
def test_multiscale_inverse_wants_one_latent_per_level(shapes):
    flow = flows.multiscale(flows.reversal(), flows.reversal())
    z = jnp.zeros(shapes) if shapes == (2, 4) else tuple(map(jnp.zeros, shapes))
    with pytest.raises(ValueError, match=r"^z .*expected a tuple of 2 latents"):
        jax.jit(flow.inverse)(((), ()), z)


def test_repeat_refuses_params_of_another_depth(draw):
    flow, x = flows.repeat(flows.actnorm(), 3), jnp.zeros((2, 4))
    params = draw(flows.repeat(flows.actnorm(), 4), x)
    for function in (flow.forward, flow.inverse):
        with pytest.raises(ValueError, match="length"):
            function(params, x)


@pytest.mark.parametrize(
    ("x", "kernel"),
    [((2, 4, 4, 3), (3, 3, 2, 5)), ((2, 4, 4, 3), (5, 5, 3, 5)), ((4, 4, 3), (3, 3, 3, 5))],
)
def test_conv3x3_names_both_shapes(x, kernel):
    with pytest.raises(ValueError, match=r"x .*, kernel .*expected") as error:
        jax.eval_shape(conv3x3, jnp.zeros(x), jnp.zeros(kernel))
    assert str(x) in str(error.value)
    assert str(kernel) in str(error.value)


def test_conv_size():
    with pytest.raises(ValueError, match="size 5"):
        jax.eval_shape(Conv(3, size=5).init, jax.random.key(0), jnp.zeros((1, 4, 4, 1)))
