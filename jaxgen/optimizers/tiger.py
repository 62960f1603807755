"""Tiger: a sign optimizer with one buffer, and its building blocks.

Su Jianlin, kexue.fm 9512. With learning rate eta and weight decay lambda:

    m     <- beta m + (1 - beta) g
    theta <- theta - eta (sign(m) + lambda theta)

The sign carries no information about the size of a step, so eta is relative to the RMS of the
parameter: of a whole kernel, or of each row of an embedding.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxgen.arguments import at_least_f32, require
from jaxgen.optimizers.leaves import (
    cast_updates,
    floats,
    real_floats,
    require_params,
    scale_by_learning_rate,
    zeros,
)
from jaxgen.optimizers.paths import named_leaves, values_like


class FiniteEmaState(NamedTuple):
    """The average m, a tree like the parameters, in at least f32."""

    ema: Any


def finite_ema(decay: float) -> optax.GradientTransformation:
    """Moving average of the finite gradients: m = beta m + (1 - beta) g.

    Where g is not finite, m is unchanged and the output is NaN. Use it instead of
    `optax.ema(decay, debias=False)` for gradients that may overflow: a NaN reaches the output but
    never the state. A later `shrink_where_nan` turns the NaN into a step.

    Args:
      decay: beta in [0, 1]; at 1 nothing moves.

    Raises:
      ValueError: decay out of range.
    """
    require(least=0, most=1, decay=decay)

    def init(params):
        return FiniteEmaState(zeros(params))

    def update(updates, state, params=None):
        updates = floats(updates)

        def average(m, g):
            new = decay * m + (1 - decay) * g.astype(m.dtype)
            return jnp.where(jnp.isfinite(g), new, m).astype(m.dtype)

        # The output is computed from the new average, so XLA can write that over the old average.
        ema = jax.tree.map(average, state.ema, updates)
        out = jax.tree.map(lambda m, g: jnp.where(jnp.isfinite(g), m, jnp.nan), ema, updates)
        return cast_updates(out, updates, params), FiniteEmaState(ema)

    return optax.GradientTransformation(init, update)


def scale_by_row_rms(min_scale: float = 1e-3) -> optax.GradientTransformation:
    """u -> u max(RMS(theta_row), min_scale), where a row is the last axis of embeddings [V, d].

    Args:
      min_scale: floor of the RMS, >= 0; at 0 a row of zeros never moves.

    Raises:
      ValueError: min_scale < 0; from `update`, no params, a scalar, or a complex update.
    """
    return _scale_by_rms(-1, min_scale)


def _scale_by_rms(axis: int | None, min_scale: float) -> optax.GradientTransformation:
    # For axis None, `optax.scale_by_param_block_rms` gives the same values. It is differentiable at
    # 0 too, but for that it computes the RMS twice, once on a copy of the parameters.
    require(least=0, min_scale=min_scale)

    def scale(u, p):
        if axis is not None and jnp.ndim(p) == 0:
            raise ValueError("embedding of shape (); expected rows [..., d]")
        square = jnp.mean(jnp.square(at_least_f32(p)), axis=axis, keepdims=True)
        return u * jnp.sqrt(jnp.maximum(square, min_scale**2))

    def update(updates, params):
        require_params(params)
        updates = real_floats(updates)
        return cast_updates(jax.tree.map(scale, updates, params), updates, params)

    return optax.stateless(update)


def shrink_where_nan(shrink: float = 0.99, center: float = 0.0) -> optax.GradientTransformation:
    """theta <- center + shrink (theta - center) where the update is NaN.

    Other updates pass unchanged. Place it last in a chain. If a gradient overflows, the parameter
    is more likely too large than too small (kexue.fm 9512). The post decides per leaf; here it is
    per element, which needs no extra pass over the gradients.

    Args:
      shrink: factor in [0, 1].
      center: value to shrink towards: 1 for the gain of a normalisation, 0 for anything else.

    Raises:
      ValueError: shrink out of range, or `update` is called without params.
    """
    require(least=0, most=1, shrink=shrink)

    def update(updates, params):
        require_params(params)
        updates = floats(updates)

        def replace(u, p):
            return jnp.where(jnp.isnan(u), (shrink - 1) * (at_least_f32(p) - center), u)

        return cast_updates(jax.tree.map(replace, updates, params), updates, params)

    return optax.stateless(update)


def tiger_labels(params):
    """Labels each leaf for `tiger`: "kernel", "embedding", "bias" or "gain".

    The label follows from the leaf's own name, as Linen and NNX choose it: `embedding` is an
    embedding, `scale` and `gamma` are gains, `bias` and `beta` are biases, including stacked ones
    [L, d] of a scanned model. Any other leaf is a kernel if it has two axes or more, and a bias
    otherwise. Where embeddings and gains have other names, use `by_path` instead:

        tiger(1e-3, labels=by_path({"embed": "embedding", "norm/weight": "gain",
                                    "weight": "kernel", "bias": "bias"}))

    Args:
      params: a tree of arrays, named by dict keys or attributes.

    Returns:
      A tree of labels like the parameters.
    """

    def label(path, leaf):
        name = path.rpartition("/")[2]
        if name == "embedding":
            return "embedding"
        if name in ("scale", "gamma"):
            return "gain"
        return "bias" if name in ("bias", "beta") or jnp.ndim(leaf) < 2 else "kernel"

    labels = [label(path, leaf) for path, leaf in named_leaves(params)]
    return jax.tree.unflatten(jax.tree.structure(params), labels)


def tiger(
    learning_rate: optax.ScalarOrSchedule,
    decay: float = 0.965,
    weight_decay: float = 0.01,
    min_scale: float = 1e-3,
    shrink: float = 0.99,
    labels: Callable[[Any], Any] | Any = tiger_labels,
) -> optax.GradientTransformationExtraArgs:
    """Tiger (kexue.fm 9512); one buffer of the parameters' size, in at least f32.

    kernel:     theta -= alpha max(RMS(theta), min_scale) (sign(m) + lambda theta)
    embedding:  the same with the RMS of each row (last axis)
    bias, gain: theta -= alpha/2 sign(m)

    Where a gradient is not finite, m is unchanged and theta shrinks towards 0, or towards 1 for a
    gain (`shrink_where_nan`). The floor min_scale is not in the post's code, where a kernel
    initialised at zero never moves.

    An embedding row whose token does not occur has gradient 0, but m keeps its sign until it
    underflows, so the row keeps drifting towards +-1/lambda (kexue.fm 9736: +-100 at lambda 0.01).
    To keep such rows fixed, mask them:

        lazy_updates(tiger(1e-3), lambda p: jax.tree.map("embedding".__eq__, tiger_labels(p)))

    `optax.inject_hyperparams` treats every function as a schedule, so declare `labels` static:
    `optax.inject_hyperparams(tiger, static_args="labels")(1e-3)`.

    Args:
      learning_rate: alpha, relative to the parameters' RMS; 1e-3 to 2e-3 is usual. A number or a
        schedule.
      decay: beta; 0.965 for language, 0.945 for vision in the post.
      weight_decay: lambda, >= 0.
      min_scale: floor of the RMS, >= 0.
      shrink: factor for elements whose gradient is not finite, in [0, 1].
      labels: tree of "kernel", "embedding", "bias" and "gain" with the parameters' paths, or a
        function of the parameters that returns it.

    Raises:
      ValueError: a number out of range; an unknown or missing label; `update` without params, or
        with complex gradients.
    """
    require(least=0, weight_decay=weight_decay, min_scale=min_scale)
    sign = optax.chain(finite_ema(decay), optax.scale_by_sign())

    def relative(scale):
        return optax.chain(
            sign,
            optax.add_decayed_weights(weight_decay),
            scale,
            scale_by_learning_rate(learning_rate),
            shrink_where_nan(shrink),
        )

    def absolute(center):
        rate = scale_by_learning_rate(learning_rate)
        return optax.chain(sign, optax.scale(0.5), rate, shrink_where_nan(shrink, center))

    rule = optax.partition(
        {
            "kernel": relative(_scale_by_rms(None, min_scale)),
            "embedding": relative(scale_by_row_rms(min_scale)),
            "bias": absolute(0.0),
            "gain": absolute(1.0),
        },
        lambda params: values_like(labels, params, "label"),
    )

    def update(updates, state, params=None, **extra_args):
        updates = real_floats(updates)
        new, state = rule.update(updates, state, params, **extra_args)
        return cast_updates(new, updates, params), state

    return optax.GradientTransformationExtraArgs(rule.init, update)
