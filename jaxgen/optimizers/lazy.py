"""Lazy updates of embeddings: rows that have no gradient stay where they are.

Momentum and adaptive optimizers move every row in every step, also the rows of tokens that the
batch did not hold (kexue.fm 6869). A row r of a table [V, ...] counts as sampled if

    any(g[r, ...] != 0)

so both functions must get the raw gradient: summed over devices and micro-batches, before any
clipping to a floor, noise, or weight decay in the gradient. They do nothing for tied embeddings,
whose output layer gives every row a gradient.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

Mask = Any | Callable[[Any], Any]


def lazy_updates(
    inner: optax.GradientTransformation, mask: Mask
) -> optax.GradientTransformationExtraArgs:
    """Updates of `inner`, 0 for rows without a gradient; their moments still decay.

    The variant of kexue.fm 6869, which found it better than `lazy_rows`: a row that comes back
    after a long time moves by its new gradient, not by old momentum.

    Args:
      inner: the optimizer; its weight decay is masked too.
      mask: tree of bools like the parameters, or a function of them that returns it: which leaves
        are tables [V, ...].

    Raises:
      ValueError: from `update`, a leaf under the mask has no axis, or the trees differ.
    """
    inner = optax.with_extra_args_support(inner)

    def update(updates, state, params=None, **extra_args):
        sampled = _sampled("lazy_updates", updates, mask)
        updates, state = inner.update(updates, state, params, **extra_args)
        return jax.tree.map(_select, sampled, updates, jax.tree.map(jnp.zeros_like, updates)), state

    return optax.GradientTransformationExtraArgs(inner.init, update)


def lazy_rows(
    inner: optax.GradientTransformation, mask: Mask
) -> optax.GradientTransformationExtraArgs:
    """Updates of `inner`, 0 for rows without a gradient, whose moments are frozen too.

    Classic LazyAdam. Step counts are not per row: after n steps Adam corrects the bias of a row
    seen for the first time as if it had been seen n times, so its first update is (1 - b1) /
    sqrt(1 - b2) = 3.2 times as large as a first step of Adam.

    A moment belongs to a parameter if the parameter's path is the end of its own and both have
    the same shape, which holds for every optax optimizer with full moments; factored moments
    (Adafactor) are not frozen.

    Args:
      inner: the optimizer; its weight decay is masked too.
      mask: tree of bools like the parameters, or a function of them that returns it: which leaves
        are tables [V, ...].

    Raises:
      ValueError: from `update`, a leaf under the mask has no axis, or the trees differ.
    """
    inner = optax.with_extra_args_support(inner)

    def update(updates, state, params=None, **extra_args):
        sampled = _sampled("lazy_rows", updates, mask)
        new_updates, new_state = inner.update(updates, state, params, **extra_args)
        zeros = jax.tree.map(jnp.zeros_like, new_updates)
        owner = _owner(updates, sampled)
        new_state = jax.tree.map_with_path(
            lambda path, new, old: _select(owner(path, new), new, old), new_state, state
        )
        return jax.tree.map(_select, sampled, new_updates, zeros), new_state

    return optax.GradientTransformationExtraArgs(inner.init, update)


def _sampled(where: str, gradients, mask):
    """Per leaf: bool [V, 1, ...], or True where the leaf is no table."""

    def rows(g, is_table):
        if not is_table:
            return True
        if g.ndim == 0:
            raise ValueError(f"{where}: mask True for a leaf of shape (); expected [V, ...]")
        return jnp.any(g != 0, axis=tuple(range(1, g.ndim)), keepdims=True)

    tables = mask(gradients) if callable(mask) else mask
    found: Any = jax.tree.structure(tables)
    if found != jax.tree.structure(gradients):
        raise ValueError(f"{where}: mask {found}; expected a tree of bools like the parameters")
    return jax.tree.map(rows, gradients, tables)


def _select(rows, new, old):
    return new if rows is True else jnp.where(rows, new, old)


def _owner(params, sampled):
    """(path, array of the state) -> `sampled` of the parameter that it belongs to, or True."""
    leaves = jax.tree.leaves_with_path(params)
    places = list(zip(leaves, jax.tree.leaves(sampled), strict=True))
    places.sort(key=lambda place: -len(place[0][0]))  # the longest path that fits

    def find(path, array):
        for (end, param), rows in places:
            if path[len(path) - len(end) :] == end and jnp.shape(array) == param.shape:
                return rows
        return True

    return find
