"""Operations on each parameter's own gradient (Su Jianlin, kexue.fm post 6418)."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import optax

from jaxgen.arguments import at_least_f32, require
from jaxgen.optimizers.leaves import floats
from jaxgen.optimizers.paths import check_rules, matches


def clip_by_leaf_norm(max_norm) -> optax.GradientTransformation:
    """Clips the L2 norm of each leaf separately: g -> g min(1, max_norm / ||g||_2).

    With `optax.clip_by_global_norm` one exploding leaf shrinks all the others. Clipping each leaf
    avoids that, but changes the direction of the gradient as a whole. Leaves within the norm,
    including zero, are returned unchanged. To clip only some leaves, use
    `optax.masked(clip_by_leaf_norm(1.0), mask)`.

    Args:
      max_norm: largest L2 norm of a leaf, > 0.

    Returns:
      A stateless transformation. Norms, of complex numbers too, are computed in at least f32;
      updates keep the gradient's dtype. A finite gradient whose squared norm overflows (norm
      1.8e19 in f32) becomes zero.

    Raises:
      ValueError: max_norm is not positive.
    """
    require(max_norm=max_norm, above=0)

    def clip(g):
        wide = at_least_f32(g)
        square = jnp.sum(jnp.real(wide * jnp.conj(wide)))
        limit = jnp.asarray(max_norm, square.dtype)
        outside = square > limit * limit
        # The derivative of sqrt(0) is infinite and would give NaN even if `where` discards it.
        norm = jnp.sqrt(jnp.where(outside, square, 1))
        return (wide * jnp.where(outside, limit / norm, 1)).astype(g.dtype)

    return optax.stateless(lambda updates, _: jax.tree.map(clip, floats(updates)))


def clip_by_leaf_l1_norm(max_norm) -> optax.GradientTransformation:
    """Clips the L1 norm of each leaf separately: g -> g min(1, max_norm / ||g||_1).

    The L1 norm of n entries of similar size is sqrt(n) times their L2 norm, so max_norm should
    grow with the size of the leaf. If leaves differ a lot in size, `clip_by_leaf_norm` is simpler.

    Args:
      max_norm: largest sum of absolute values of a leaf, > 0.

    Returns:
      A stateless transformation. Norms are computed in at least f32; updates keep the gradient's
      dtype.

    Raises:
      ValueError: max_norm is not positive.
    """
    require(max_norm=max_norm, above=0)

    def clip(g):
        wide = at_least_f32(g)
        norm = jnp.sum(jnp.abs(wide))
        limit = jnp.asarray(max_norm, norm.dtype)
        outside = norm > limit
        return (wide * jnp.where(outside, limit / jnp.where(outside, norm, 1), 1)).astype(g.dtype)

    return optax.stateless(lambda updates, _: jax.tree.map(clip, floats(updates)))


def map_gradients(
    functions: Mapping[str, Callable], default: Callable | None = None
) -> optax.GradientTransformation:
    """Applies a function f to the gradient of each leaf, chosen by rules on the leaf's path.

        map_gradients({"embed": lambda g: g / (1 + jnp.abs(g))}, default=lambda g: g)

    Place it before the optimizer to change gradients, after it to change updates.

    Args:
      functions: ordered {regex on the path: f}, as in `by_path`; f maps an array to one of the
        same shape.
      default: f for leaves that match no rule; if None, every leaf must match one.

    Returns:
      A stateless transformation; the result of f is cast to the gradient's dtype.

    Raises:
      ValueError: at update, a rule matches no leaf, a leaf has no rule, or f changes a shape.
    """
    check_rules(functions)

    def apply(name, g, function):
        new = jnp.asarray(function(g))
        if new.shape != g.shape:
            raise ValueError(f"function of {name} returns {new.shape}; expected {g.shape}")
        return new.astype(g.dtype)

    def update(updates, params):
        del params
        updates = floats(updates)
        found = matches(functions, default, updates)
        new = [apply(name, g, function) for name, g, function, _ in found]
        return jax.tree.unflatten(jax.tree.structure(updates), new)

    return optax.stateless(update)
