"""Lazy updates of embeddings: rows without a gradient do not move.

Momentum and adaptive optimizers move every row in every step, including rows of tokens that are not
in the batch (kexue.fm 6869). A row r of a table [V, ...] counts as sampled if

    any(g[r, ...] != 0)

Both functions must therefore receive the raw gradient: summed over devices and micro-batches, and
before anything that makes zeros nonzero, such as noise, clipping to a lower bound, or weight decay
added to the gradient. They have no effect on tied embeddings, because the output layer gives every
row a gradient.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxgen.optimizers.leaves import floats
from jaxgen.optimizers.paths import values_like

Mask = Any | Callable[[Any], Any]


def lazy_updates(
    inner: optax.GradientTransformation, mask: Mask
) -> optax.GradientTransformationExtraArgs:
    """Zeroes the updates of rows without a gradient; the moments of these rows still decay.

    The variant of kexue.fm 6869, which found it better than `lazy_rows`: a row that reappears after
    a long time moves by its new gradient rather than by old momentum.

    Args:
      inner: the optimizer; its weight decay is masked too.
      mask: tree of bools with the parameters' paths, True for leaves that are tables [V, ...]; or
        a function from the parameters to such a tree, such as `by_path` returns.

    Raises:
      ValueError: from `update`, if the mask is True for a scalar, or its paths differ from those
        of the parameters.
    """
    inner = optax.with_extra_args_support(inner)

    def update(updates, state, params=None, **extra_args):
        updates = floats(updates)
        sampled = _sampled(updates, mask)
        updates, state = inner.update(updates, state, params, **extra_args)
        return jax.tree.map(_select, sampled, updates, jax.tree.map(jnp.zeros_like, updates)), state

    return optax.GradientTransformationExtraArgs(inner.init, update)


def lazy_rows(
    inner: optax.GradientTransformation, mask: Mask
) -> optax.GradientTransformationExtraArgs:
    """Zeroes the updates of rows without a gradient and freezes the moments of these rows.

    The classic LazyAdam. Step counts are not kept per row: if a row is first seen at step n, Adam
    corrects the bias as if it had been seen n times, so for large n its first update is
    (1 - b1) / sqrt(1 - b2) = 3.2 times as large as the first step of Adam.

    An array of the state is a moment of a parameter if its path ends with the parameter's path and
    both have the same shape. This holds for every optax optimizer with full moments; factored
    moments (Adafactor) are not frozen.

    Args:
      inner: the optimizer; its weight decay is masked too.
      mask: tree of bools with the parameters' paths, True for leaves that are tables [V, ...]; or
        a function from the parameters to such a tree, such as `by_path` returns.

    Raises:
      ValueError: from `update`, if the mask is True for a scalar, or its paths differ from those
        of the parameters.
    """
    inner = optax.with_extra_args_support(inner)

    def update(updates, state, params=None, **extra_args):
        updates = floats(updates)
        sampled = _sampled(updates, mask)
        new_updates, new_state = inner.update(updates, state, params, **extra_args)
        zeros = jax.tree.map(jnp.zeros_like, new_updates)
        owner = _owner(updates, sampled)
        new_state = jax.tree.map_with_path(
            lambda path, new, old: _select(owner(path, new), new, old), new_state, state
        )
        return jax.tree.map(_select, sampled, new_updates, zeros), new_state

    return optax.GradientTransformationExtraArgs(inner.init, update)


def _sampled(gradients, mask):
    """For each leaf, whether its rows are sampled: bool [V, 1, ...], or True if it is no table."""

    def rows(g, is_table):
        if not is_table:
            return True
        if g.ndim == 0:
            raise ValueError("mask True for a leaf of shape (); expected [V, ...]")
        return jnp.any(g != 0, axis=tuple(range(1, g.ndim)), keepdims=True)

    return jax.tree.map(rows, gradients, values_like(mask, gradients, "mask"))


def _select(rows, new, old):
    return new if rows is True else jnp.where(rows, new, old)


def _owner(params, sampled):
    """Returns (path, array of the state) -> `sampled` of its parameter, True if it has none."""
    leaves = jax.tree.leaves_with_path(params)
    places = list(zip(leaves, jax.tree.leaves(sampled), strict=True))
    places.sort(key=lambda place: -len(place[0][0]))  # try the longest path first

    def find(path, array):
        for (end, param), rows in places:
            if path[len(path) - len(end) :] == end and jnp.shape(array) == param.shape:
                return rows
        return True

    return find
