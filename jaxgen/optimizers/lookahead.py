"""Lookahead with the slow weights in the optimizer's state."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxgen.arguments import at_least_f32, require, require_integer
from jaxgen.optimizers.leaves import cast_updates, floats


class LookaheadState(NamedTuple):
    """Fast optimizer's state, slow weights phi, number of steps [] since the synchronisation."""

    fast: Any
    slow: Any
    steps: jax.Array


def lookahead(
    inner: optax.GradientTransformation, period: int = 5, slow_step: float = 0.5
) -> optax.GradientTransformationExtraArgs:
    """Lookahead: every k steps, phi <- phi + a (theta - phi), theta <- phi.

    Zhang, Lucas, Hinton & Ba 2019 (arXiv 1907.08610), algorithm 1. Unlike `optax.lookahead` it
    needs no changes to the training loop: parameters stay a plain tree, and extra arguments reach
    the inner optimizer. The slow weights `state.slow`, which are the ones to evaluate, are a copy,
    so parameters and state may both be donated. It must be the outermost transformation: the
    update of a synchronisation is phi - theta, and if it is scaled, theta does not land on phi.

    Args:
      inner: the fast optimizer; its state is kept when the weights are synchronised.
      period: k >= 1.
      slow_step: a in [0, 1]; 1 is the inner optimizer alone, 0 returns to the start every k steps.

    Raises:
      ValueError: a number out of range, period not an integer; `update` without params.
    """
    require_integer(least=1, period=period)
    require(least=0, most=1, slow_step=slow_step)
    inner = optax.with_extra_args_support(inner)

    def init(params):
        slow = jax.tree.map(lambda p: jnp.array(p, copy=True), params)
        return LookaheadState(inner.init(params), slow, jnp.zeros([], jnp.int32))

    def update(updates, state, params=None, **extra_args):
        if params is None:
            raise ValueError("params None; expected the parameters in `update`")
        given = floats(updates)
        updates, fast = inner.update(given, state.fast, params, **extra_args)
        synchronise = state.steps == period - 1

        def interpolate(phi, p, u):
            wide = at_least_f32(phi)
            fast = at_least_f32(p) + u
            return jnp.where(synchronise, (wide + slow_step * (fast - wide)).astype(p.dtype), phi)

        slow = jax.tree.map(interpolate, state.slow, params, updates)
        new = jax.tree.map(
            lambda phi, p, u: jnp.where(synchronise, phi - p, u), slow, params, updates
        )
        return cast_updates(new, given, params), LookaheadState(
            fast, slow, (state.steps + 1) % period
        )

    return optax.GradientTransformationExtraArgs(init, update)
