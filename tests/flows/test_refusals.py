"""What the room refuses: one line that names the argument, its value and what was expected.

Shapes are refused while tracing. An example without its batch axis: see test_every_bijector.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen import flows
from jaxgen.models import MLP, Conv, conv3x3

KEY = jax.random.key(0)
INF, NAN = float("inf"), float("nan")


def zeros(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def traced(function, *shapes):
    """Traces `function` of arrays of these shapes."""
    return partial(jax.eval_shape, function, *[s and zeros(*s) for s in shapes])


def forward(flow, shape, context=None):
    """Traces init and forward."""
    return traced(lambda x, c: flow.forward(flow.init(KEY, x, c), x, c), shape, context)


def initialised(flow, shape, other, direction="forward"):
    """Traces init on one shape and another function on another shape."""
    return traced(lambda x, y: getattr(flow, direction)(flow.init(KEY, x), y), shape, other)


def dequantized(x, levels=256, flow=None):
    def call():
        if flow is None:
            return flows.dequantize(KEY, x, levels)
        return flows.variational_dequantize(flow, flow.init(KEY, 1.0 * x), KEY, x, levels)

    return call


def sampled(temperature, context=None):
    return lambda: flows.sample(flows.reversal(), (), KEY, (2, 2), context, temperature=temperature)


def autoregressive(**network):
    return flows.autoregressive(partial(flows.MADE, **network), affine)


coupling_flow = flows.coupling_flow
spline, additive, affine = flows.rational_quadratic_spline, flows.additive(), flows.affine()
actnorm, scaling, mixing = flows.actnorm(), flows.scaling(), flows.invertible_1x1()
mlp = flows.coupling(partial(MLP, hidden=(3,)), additive)
conv = flows.coupling(Conv, additive)
two_levels = flows.multiscale(flows.reversal(), flows.reversal())
images = jnp.zeros((1, 2, 2, 3), jnp.uint8)
few = jnp.array([[0, 255], [255, 0]], jnp.uint8)
four_actnorms = jax.eval_shape(flows.repeat(actnorm, 4).init, KEY, zeros(2, 4))

REFUSES = [
    # Settings out of range.
    ("depth 0", lambda: flows.repeat(flows.reversal(), 0)),
    ("depth -1", lambda: flows.glow(depth=-1)),
    ("remat and reversible", lambda: flows.repeat(mlp, 2, remat=True, reversible=True)),
    ("no bijectors", flows.chain),
    ("no levels", flows.multiscale),
    ("levels 0; expected at least 1", lambda: flows.glow(0)),
    ("levels 0; expected at least 1", lambda: flows.realnvp(0)),
    *((f"limit {v}", partial(flows.affine, v)) for v in (0, -1.5, NAN, INF)),
    *(
        (f"eps {v}", partial(layer, v))
        for layer in (flows.actnorm, flows.scaling)
        for v in (-1, NAN, INF)
    ),
    *((f"alpha {v}", partial(flows.logit, v)) for v in (0, 0.5, NAN)),
    ("bins 0", lambda: spline(0)),
    ("bound -3", lambda: spline(bound=-3)),
    ("min_bin 0.2", lambda: spline(5, min_bin=0.2)),
    ("min_bin 0,", lambda: spline(min_bin=0)),
    ("min_slope 1;", lambda: spline(min_slope=1)),
    ("min_slope 0;", lambda: spline(min_slope=0)),
    *((f"bound {v}", partial(spline, bound=v)) for v in (NAN, INF)),
    *((f"bins {v}", partial(spline, v)) for v in (2.5, NAN)),
    ("min_bin nan", lambda: spline(min_bin=NAN)),
    ("min_slope nan", lambda: spline(min_slope=NAN)),
    *((f"{name} 0", partial(coupling_flow, 2, **{name: 0})) for name in ("depth", "layers")),
    ("dims 0", lambda: coupling_flow(0)),
    *((f"temperature {v}; expected", sampled(v)) for v in (-1, NAN)),
    (r"temperature \[ *1\. +-2\.\]; expected", sampled(np.array([1.0, -2.0]))),
    ("seed -1", lambda: flows.shuffle(-1)),
    (r"order \[0, 2\]", lambda: flows.permutation([0, 2])),
    (r"order \[0, 0, 1\]", lambda: flows.permutation([0, 0, 1])),
    (r"order \[\[0\]\]", lambda: flows.permutation([[0]])),
    ("size 5", traced(partial(Conv(3, size=5).init, KEY), (1, 4, 4, 1))),
    *((f"levels {v}", dequantized(few, v)) for v in (1, NAN)),
    ("levels 0", lambda: flows.quantize(few, 0)),
    # Shapes that a layer has no meaning for.
    (r"last axis of \(2, 3\)", forward(flows.coupling(MLP, additive, flows.even_odd()), (2, 3))),
    (
        r"x \(2, 4, 3, 1\); .* even W",
        forward(flows.coupling(Conv, additive, flows.checkerboard()), (2, 4, 3, 1)),
    ),
    (
        r"x \(2, 4\); .* even W",
        forward(flows.coupling(MLP, additive, flows.checkerboard()), (2, 4)),
    ),
    (r"x \(2, 3, 4, 1\); .* even H", forward(flows.squeeze(), (2, 3, 4, 1))),
    (r"x \(2, 4, 5, 1\); .* even H", forward(flows.squeeze(), (2, 4, 5, 1))),
    (r"x \(2, 4\); .* even H", forward(flows.squeeze(), (2, 4))),
    (r"z \(2, 4, 4, 3\); .* 4C", traced(partial(flows.squeeze().inverse, ()), (2, 4, 4, 3))),
    (r"z \(2, 4\); .* 4C", traced(partial(flows.squeeze().inverse, ()), (2, 4))),
    (r"x \(1, 3, 2.* even H", forward(flows.glow(2, 1, 4), (1, 6, 4, 1))),
    (r"x \(1, 2, 3.* even W", forward(flows.realnvp(2, 1, 4, 1), (1, 4, 6, 1))),
    (
        r"x \(2, 32\); .* shape \(16,\)",
        traced(partial(flows.flatten((4, 4, 1)).inverse, ()), (2, 32)),
    ),
    (r"x \(2, 4, 2, 2\); .* shape \(4, 4, 1\)", forward(flows.flatten((4, 4, 1)), (2, 4, 2, 2))),
    (r"x \(4, 4, 1\); .* shape \(4, 4, 1\)", forward(flows.flatten((4, 4, 1)), (4, 4, 1))),
    (r"x \(2, 3\); expected 2", forward(flows.permutation([1, 0]), (2, 3))),
    (r"x \(2, 4, 4\); expected \[B, H, W, C\]", traced(partial(Conv(1).init, KEY), (2, 4, 4))),
    (r"x \(2, 1\); expected two channels", forward(two_levels, (2, 1))),
    *(
        (
            r"x \(2, 1\); expected two channels.*`elementwise`",
            forward(flows.coupling(MLP, t, s), (2, 1)),
        )
        for t in (additive, spline())
        for s in (None, flows.swapped(flows.halves()))
    ),
    (
        r"x \(2, 1\); expected two channels",
        forward(flows.coupling(MLP, affine, flows.swapped(flows.halves())), (2, 1), (2, 3)),
    ),
    # Statistics of less than two values.
    *(
        (rf"x {re}; expected at least two values", traced(partial(layer.init, KEY), shape))
        for layer in (actnorm, scaling)
        for re, shape in (
            (r"\(1, 3\)", (1, 3)),
            (r"\(0, 3\)", (0, 3)),
            (r"\(1, 1, 1, 3\)", (1, 1, 1, 3)),
        )
    ),
    # Parameters of another number of channels, rank or depth.
    *(
        (r"x \(2, 3\); expected 2 axes and 1 ch", initialised(layer, (2, 1), (2, 3), direction))
        for layer in (actnorm, scaling)
        for direction in ("forward", "inverse")
    ),
    *(
        (r"x \(2, 3\); expected 1 channels", initialised(mixing, (2, 1), (2, 3), direction))
        for direction in ("forward", "inverse")
    ),
    (r"x \(2, 3\); expected 4 axes", initialised(actnorm, (2, 2, 2, 3), (2, 3))),
    ("length", traced(partial(flows.repeat(actnorm, 3).forward, four_actnorms), (2, 4))),
    ("length", traced(partial(flows.repeat(actnorm, 3).inverse, four_actnorms), (2, 4))),
    # One latent per level.
    *(
        (
            r"^z .*expected a tuple of 2 latents",
            traced(lambda *z: two_levels.inverse(((), ()), z), *z),
        )
        for z in (((2, 2),), ((2, 2), (2, 1), (2, 1)))
    ),
    (r"^z .*expected a tuple", traced(partial(two_levels.inverse, ((), ())), (2, 4))),
    # Contexts that do not fit.
    (r"context \(3, 5\) does not fit x \(2, 1\)", forward(mlp, (2, 2), (3, 5))),
    (r"context \(2, 4, 4, 5\) does not fit x \(2, 1\)", forward(mlp, (2, 2), (2, 4, 4, 5))),
    (r"context \(1, 5\) does not fit x \(2, 4, 4, 1\)", forward(conv, (2, 4, 4, 2), (1, 5))),
    (r"context \(2, 2, 2, 5\) does not fit", forward(conv, (2, 4, 4, 2), (2, 2, 2, 5))),
    (r"context \(2, 8, 12, 5\) does not fit", forward(conv, (2, 4, 4, 2), (2, 8, 12, 5))),
    # Images that are no integers 0..levels-1; and noise of another shape.
    (r"x of 0 to 255; expected 0, 1, \.\. 31", dequantized(few, 32)),
    (r"x of -1 to 3; ", dequantized(jnp.array([[-1, 3]]))),
    (r"x of 0\.5 to 1; ", dequantized(np.array([[0.5, 1.0]]))),
    (r"x of 0 to 255; expected 0, 1, \.\. 31", dequantized(few, 32, scaling)),
    (r"flow gives \(\(1, 2, 2, 2\), \(1, 2, 2, 1\)\) for x", dequantized(images, 256, two_levels)),
    (r"flow gives \(1, 1, 1, 12\) for x", dequantized(images, 256, flows.squeeze())),
    (
        r"context \(3, 5\); expected 2 examples as in x, or 1",
        traced(lambda x, c: flows.log_prob(flows.reversal(), (), x, c), (2, 4), (3, 5)),
    ),
    (r"context \(3,\); expected 2 examples", sampled(1, {"label": np.zeros(3)})),
    (
        r"context \(4, 5\); expected 2 examples",
        lambda: flows.sample_and_log_prob(flows.reversal(), (), KEY, (2, 2), np.zeros((4, 5))),
    ),
    # Vectors alone.
    *(
        (rf"x {re}; expected \[B, D\]", traced(partial(autoregressive().init, KEY), shape))
        for re, shape in ((r"\(2, 3, 4\)", (2, 3, 4)), (r"\(4,\)", (4,)))
    ),
    (
        r"hidden \(3,\); expected at least 4 .* x \(2, 5\)",
        traced(partial(autoregressive(hidden=(3,)).init, KEY), (2, 5)),
    ),
    *(
        (rf"x {re}; expected \[B, 2\]", traced(partial(coupling_flow(2).init, KEY), shape))
        for re, shape in ((r"\(4, 3\)", (4, 3)), (r"\(2,\)", (2,)))
    ),
    *(
        (
            rf"x {re}, params \(2,\); expected \[B, \.\.\., C\]",
            traced(flows.elementwise(affine).forward, (2,), shape),
        )
        for re, shape in ((r"\(3,\)", (3,)), (r"\(4, 3\)", (4, 3)))
    ),
    # Bases of another shape than the latents.
    (
        r"mean \(2,\); expected \(3,\) or \(5, 3\)",
        traced(lambda mean, std, z: flows.gaussian(mean, std).log_prob(z), (2,), (3,), (5, 3)),
    ),
    (
        r"log_std \(4, 3\); expected",
        traced(lambda mean, std, z: flows.gaussian(mean, std).sample(KEY, z), (3,), (4, 3), (5, 3)),
    ),
    (
        r"cholesky \(3, 2\); expected \(3, 3\)",
        traced(
            lambda mean, tril, z: flows.gaussian_full(mean, tril).log_prob(z), (3,), (3, 2), (5, 3)
        ),
    ),
    (
        r"z \(5, 1, 3\); expected \[B, D\]",
        traced(
            lambda mean, tril, z: flows.gaussian_full(mean, tril).log_prob(z),
            (3,),
            (3, 3),
            (5, 1, 3),
        ),
    ),
    (
        r"z \(\(5, 3\), \(5, 3\)\); expected one array",
        traced(lambda mean, *z: flows.gaussian(mean, mean).log_prob(z), (3,), (5, 3), (5, 3)),
    ),
    (
        r"parameter \(3, 3\); expected \(2,\) first",
        lambda: flows.mixture(np.zeros(2), np.zeros((2, 3)), np.zeros((3, 3))),
    ),
    # Kernels of another shape.
    *(
        (
            rf"x {a}, kernel {b}; expected".replace("(", r"\(").replace(")", r"\)"),
            traced(conv3x3, a, b),
        )
        for a, b in (
            ((2, 4, 4, 3), (3, 3, 2, 5)),
            ((2, 4, 4, 3), (5, 5, 3, 5)),
            ((4, 4, 3), (3, 3, 3, 5)),
        )
    ),
]


@pytest.mark.parametrize(("message", "call"), REFUSES)
def test_refuses(message, call):
    with pytest.raises(ValueError, match=message):
        call()
