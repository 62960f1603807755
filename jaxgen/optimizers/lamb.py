"""LAMB: Adam's direction, with the length of each layer's weights, for large batches."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxgen.arguments import at_least_f32, require
from jaxgen.optimizers.leaves import (
    cast_updates,
    floats,
    require_params,
    scale_by_learning_rate,
)
from jaxgen.optimizers.paths import values_like

Flags = bool | Any | Callable[[Any], Any]


def scale_by_layer_trust_ratio(stacked: Flags = False) -> optax.GradientTransformation:
    """u -> u |w| / |u| for each layer, and u -> u where either norm is 0.

    The trust ratio of LARS and LAMB (You et al. 2020, arXiv 1904.00962, with phi(z) = z). Norms are
    computed in at least f32, over a whole leaf or over each w[i] of a leaf [layers, ...] that
    `nn.scan` stacks; `optax.scale_by_trust_ratio` gives all layers of such a leaf one ratio.

    Args:
      stacked: whether the first axis of a leaf stacks layers: True or False for all leaves; a tree
        of booleans with the parameters' paths; or a function of the parameters that returns it,
        such as `by_path({"layers/": True}, default=False)`.

    Raises:
      ValueError: from `update`, no params, a leaf without a value in `stacked`, or a scalar that is
        stacked.
    """

    def scale(u, p, by_layer):
        if by_layer and jnp.ndim(p) == 0:
            raise ValueError("stacked True for a leaf of shape (); expected [layers, ...]")
        axes = tuple(range(1, jnp.ndim(p))) if by_layer else None
        wide = at_least_f32(u)
        weights, length = (_square(x, axes) for x in (at_least_f32(p), wide))
        undefined = (weights == 0) | (length == 0)
        weights, length = (jnp.sqrt(jnp.where(undefined, 1, x)) for x in (weights, length))
        return wide * (weights / length)

    def update(updates, params):
        require_params(params)
        updates = floats(updates)
        flags = _flags(stacked, updates, "stacked")
        return cast_updates(jax.tree.map(scale, updates, params, flags), updates, params)

    return optax.stateless(update)


def lamb(
    learning_rate: optax.ScalarOrSchedule,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-6,
    weight_decay: float = 0.01,
    *,
    adapted: Flags = True,
    stacked: Flags = False,
) -> optax.GradientTransformation:
    """LAMB (You et al. 2020, arXiv 1904.00962, algorithm 2): the step of a layer is eta |w| long.

        m = b1 m + (1 - b1) g,   v = b2 v + (1 - b2) g^2
        u = m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps) + lambda w
        w = w - eta u |w| / |u|      for each layer; the ratio is 1 where either norm is 0

    Where `adapted` is False, lambda is 0 and the ratio 1, which is Adam. For a
    `jaxgen.models.Transformer`, norms and biases are left out, also the bias of the masked-LM head,
    and the layers are stacked:

        lamb(1e-3, adapted=by_path({"norm|bias": False, "": True}),
             stacked=by_path({"layers/": True}, default=False))

    eta is relative to the norm of the weights, and so larger than that of Adam.

    `optax.lamb` has one ratio for a leaf, stacked or not, and its mask leaves out weight decay
    alone. bert4keras omits the bias correction and, by mistake, decays and adapts the bias of the
    masked-LM head. In `accumulate(lamb(...), k)`, t counts steps and not micro-steps.

    `optax.inject_hyperparams` takes booleans and functions for numbers and schedules, so declare
    them static: `optax.inject_hyperparams(lamb, static_args=("adapted", "stacked"))(1e-3)`.

    Args:
      learning_rate: eta, a number or a schedule.
      b1: decay of the first moment, in [0, 1).
      b2: decay of the second moment, in [0, 1).
      eps: added outside the square root, >= 0; at 0 a gradient of 0 gives NaN.
      weight_decay: lambda, >= 0.
      adapted: True or False for all leaves; a tree of booleans with the parameters' paths; or a
        function of the parameters that returns it, such as `by_path`.
      stacked: whether the first axis of a leaf stacks layers, in the same forms.

    Returns:
      A transformation with two moments in at least f32.

    Raises:
      ValueError: a number out of range; from `update`, as `scale_by_layer_trust_ratio`, or a leaf
        without a value in `adapted`.
    """
    require(least=0, b1=b1, b2=b2, eps=eps, weight_decay=weight_decay)
    require(above=0, **{"1 - b1": 1 - b1, "1 - b2": 1 - b2})
    layerwise = optax.chain(
        optax.add_decayed_weights(weight_decay), scale_by_layer_trust_ratio(stacked)
    )
    rule = optax.chain(
        optax.scale_by_adam(b1, b2, eps),
        optax.masked(layerwise, lambda tree: _flags(adapted, tree, "adapted")),
        scale_by_learning_rate(learning_rate),
    )

    def init(params):
        return rule.init(jax.tree.map(at_least_f32, params))

    def update(updates, state, params=None):
        require_params(params)
        updates = floats(updates)
        wide = jax.tree.map(at_least_f32, params)
        new, after = rule.update(optax.tree.cast_like(updates, wide), state, wide)
        return cast_updates(new, updates, params), optax.tree.cast_like(after, state)

    return optax.GradientTransformation(init, update)


def _square(x, axes):
    """The squared norm over the axes, which stay as axes of length 1."""
    return jnp.sum(jnp.real(x * jnp.conj(x)), axis=axes, keepdims=True)


def _flags(flags, tree, name):
    """A boolean for each leaf of the tree."""
    if isinstance(flags, bool):
        return jax.tree.map(lambda _: flags, tree)
    return values_like(flags, tree, f"value in `{name}`")
