"""Learning rates per leaf: multipliers of the updates, placed at the end of a chain."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxgen.arguments import at_least_f32
from jaxgen.optimizers.leaves import floats
from jaxgen.optimizers.paths import named_leaves, values_like


def scale_by_tree(multipliers: Any | Callable[[Any], Any]) -> optax.GradientTransformation:
    """Multiplies the update of each leaf, which gives each leaf its own learning rate.

        optax.chain(optax.adamw(rate), scale_by_tree(by_path({"head": 1.0, "": 0.1})))

    Multiplying updates has the same effect with every optimizer. The reparameterisation
    theta = lambda phi (Su Jianlin, kexue.fm post 6418, where Keras offers no such multiplier) does
    not, and its checkpoints hold phi instead of theta:

        optimizer                       effect of theta = lambda phi
        SGD, momentum                   learning rate times lambda^2
        Adam (eps -> 0), Lion           learning rate times lambda
        AdamW                           Adam's part times lambda, weight decay unchanged
        Adafactor with scale by RMS     none: the RMS of phi cancels lambda
        LAMB                            none: the trust ratio cancels lambda

    (Lion, Adafactor and LAMB without weight decay.) Scaling the gradients *before* Adam or a sign
    optimizer has no effect at all.

    Weight decay earlier in the chain is scaled too, as a smaller learning rate would do. All leaves
    share one inner state and one step count, and a global-norm clip earlier in the chain stays
    global; neither holds for `optax.partition` with a group per rate. A multiplier of 0 freezes a
    leaf but keeps its moments; `optax.selective_transform` saves their memory.

    Args:
      multipliers: a tree with the paths of the updates, of numbers or of arrays with the leaf's
        rank that broadcast to its shape ([L, 1, 1] for L stacked layers); or a function from a
        tree to that, such as `by_path` or `layer_wise_decay` return. At 0 the update is 0 even
        where it is not finite.

    Returns:
      A stateless transformation. Products are computed in at least f32 and cast to the update's
      dtype. Leaves masked by `optax.masked` stay masked.

    Raises:
      ValueError: at init and update, if a leaf has no multiplier, or one of the wrong shape.
    """

    def tree_for(updates):
        tree = values_like(multipliers, updates, "multiplier")
        for (name, leaf), multiplier in zip(
            named_leaves(updates), jax.tree.leaves(tree), strict=True
        ):
            _check(name, np.shape(leaf), np.shape(multiplier))
        return tree

    def init(params):
        tree_for(params)
        return optax.EmptyState()

    def scale(u, multiplier):
        wide = at_least_f32(u)
        factor = jnp.asarray(multiplier, wide.dtype)
        frozen = (factor == 0) & ~jnp.isfinite(wide)  # 0 * NaN is NaN
        return (factor * jnp.where(frozen, 0, wide)).astype(u.dtype)

    def update(updates, state, params=None):
        del params
        updates = floats(updates)
        return jax.tree.map(scale, updates, tree_for(updates)), state

    return optax.GradientTransformation(init, update)


def _check(name: str, target: tuple, shape: tuple) -> None:
    """A multiplier broadcasts to its leaf."""
    if shape and (
        len(shape) != len(target)
        or any(m not in (1, n) for m, n in zip(shape, target, strict=True))
    ):
        raise ValueError(
            f"multiplier of {name} has shape {shape};"
            f" expected () or one of the same rank that broadcasts to {target}"
        )
