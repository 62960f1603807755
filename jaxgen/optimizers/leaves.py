"""Which gradients an optimizer takes, and in which dtype it returns updates.

Updates have the wider of the gradient's and the parameter's dtype, as in `optax.adam`: f32
parameters get f32 updates from bf16 gradients. A transformation that reads neither a state nor the
parameters keeps the dtype of its input. No hyperparameter changes a dtype. Integers are taken as
f32.
"""

import jax
import jax.numpy as jnp
import optax

from jaxgen.arguments import as_float, at_least_f32
from jaxgen.optimizers.paths import named_leaves


def floats(updates):
    """The updates as floating-point arrays.

    Raises:
      ValueError: an update is float0, as `jax.grad(..., allow_int=True)` gives for integers.
    """
    for name, leaf in named_leaves(updates):
        if jax.dtypes.result_type(leaf) == jax.dtypes.float0:
            raise ValueError(
                f"update of {name!r} is float0; expected floats: leave integer parameters out,"
                " for example by `optax.masked`"
            )
    return jax.tree.map(as_float, updates)


def real_floats(updates):
    """`floats` of real numbers.

    Raises:
      ValueError: an update is float0 or complex.
    """
    updates = floats(updates)
    for name, leaf in named_leaves(updates):
        if jnp.iscomplexobj(leaf):
            raise ValueError(
                f"update of {name!r} is {leaf.dtype}; expected real numbers: wrap the optimizer in"
                " `optax.contrib.split_real_and_imaginary`"
            )
    return updates


def require_params(params) -> None:
    """Checks that `update` was given the parameters.

    Raises:
      ValueError: it was not.
    """
    if params is None:
        raise ValueError("params None; expected the parameters in `update`")


def zeros(params):
    """Zeros like the parameters, in at least f32."""
    return jax.tree.map(lambda p: jnp.zeros_like(at_least_f32(p)), params)


def cast_updates(new, updates, params=None):
    """New updates in the dtype that belongs to the given ones; without params that of `updates`."""
    others = () if params is None else (params,)

    def cast(u, *given):
        return u.astype(jnp.result_type(*(as_float(x).dtype for x in given)))

    return jax.tree.map(cast, new, updates, *others)


def scale_by_learning_rate(learning_rate) -> optax.GradientTransformation:
    """`optax.scale_by_learning_rate`, which keeps the dtype of updates at any dtype of the rate."""
    rate = optax.scale_by_learning_rate(learning_rate)

    def update(updates, state, params=None):
        new, state = rate.update(updates, state, params)
        return cast_updates(new, updates), state

    return optax.GradientTransformation(rate.init, update)
