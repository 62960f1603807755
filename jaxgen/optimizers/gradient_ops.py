"""Operations on each parameter's own gradient (Su Jianlin, kexue.fm post 6418)."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import optax

from jaxgen.arguments import at_least_f32, require
from jaxgen.optimizers.paths import by_path


def clip_by_leaf_norm(max_norm) -> optax.GradientTransformation:
    """g -> g min(1, max_norm / ||g||_2), for each leaf by its own norm.

    `optax.clip_by_global_norm` lets one exploding leaf shrink all others; here each answers for
    itself, at the price of the direction of the whole. A leaf within the norm, zero included, is
    left exactly as it is. For some leaves only: `optax.masked(clip_by_leaf_norm(1.0), mask)`.

    Args:
      max_norm: largest L2 norm of a leaf, > 0.

    Returns:
      A stateless transformation; norms in at least f32, updates in the gradient's dtype. A finite
      gradient whose squared norm overflows (norm 1.8e19 in f32) becomes zero.

    Raises:
      ValueError: max_norm is not positive.
    """
    require(max_norm=max_norm, above=0)

    def clip(g):
        wide = at_least_f32(g)
        limit = jnp.asarray(max_norm, wide.dtype)
        square = jnp.sum(wide * wide)
        outside = square > limit * limit
        # A root of zero would have an infinite slope, even where it is not selected.
        norm = jnp.sqrt(jnp.where(outside, square, 1))
        return (wide * jnp.where(outside, limit / norm, 1)).astype(g.dtype)

    return optax.stateless_with_tree_map(lambda g, _: clip(g))


def clip_by_leaf_l1_norm(max_norm) -> optax.GradientTransformation:
    """g -> g min(1, max_norm / ||g||_1), for each leaf by its own norm.

    The L1 norm of n entries of like size is sqrt(n) times their L2 norm: max_norm is to grow with
    the leaf's size, where leaves differ much `clip_by_leaf_norm` is the simpler choice.

    Args:
      max_norm: largest sum of absolute values of a leaf, > 0.

    Returns:
      A stateless transformation; norms in at least f32, updates in the gradient's dtype.

    Raises:
      ValueError: max_norm is not positive.
    """
    require(max_norm=max_norm, above=0)

    def clip(g):
        wide = at_least_f32(g)
        limit = jnp.asarray(max_norm, wide.dtype)
        norm = jnp.sum(jnp.abs(wide))
        outside = norm > limit
        return (wide * jnp.where(outside, limit / jnp.where(outside, norm, 1), 1)).astype(g.dtype)

    return optax.stateless_with_tree_map(lambda g, _: clip(g))


def map_gradients(
    functions: Mapping[str, Callable], default: Callable | None = None
) -> optax.GradientTransformation:
    """g_leaf -> f(g_leaf), with the function that rules on paths give each leaf.

        map_gradients({"embed": lambda g: g / (1 + jnp.abs(g))}, default=lambda g: g)

    Stands before the optimizer to change gradients, after it to change updates.

    Args:
      functions: ordered {regex on the path: f}, as in `by_path`; f maps an array to one of the
        same shape.
      default: f of the leaves without a rule; None: each must have one.

    Returns:
      A stateless transformation; what f returns is cast to the gradient's dtype.

    Raises:
      ValueError: at update, a rule matches no leaf, a leaf has no rule, or f changes a shape.
    """
    choose = by_path(functions, default)

    def apply(path, g, function):
        new = jnp.asarray(function(g))
        if new.shape != g.shape:
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            raise ValueError(
                f"map_gradients: function of {name} returns {new.shape}; expected {g.shape}"
            )
        return new.astype(g.dtype)

    def update(updates, params):
        del params
        return jax.tree.map_with_path(apply, updates, choose(updates))

    return optax.stateless(update)
