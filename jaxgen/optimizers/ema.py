"""Exponential moving average of parameters."""

import jax
import jax.numpy as jnp


def update_ema(params, ema, count, decay=0.999):
    """One step of an exponential moving average whose decay warms up.

    With t updates done before this one (t = count - 1):

        decay_t = min(decay, (1 + t) / (10 + t))
        ema <- decay_t ema + (1 - decay_t) params

    The rule of TensorFlow's `tf.train.ExponentialMovingAverage` with `num_updates=t`. The first
    update keeps 1/10 of the initial average; at decay = 0.999 the warm-up ends with update 8991.
    Start from `ema = params`; no bias correction is needed.

    Args:
      params: current parameters, a pytree of arrays.
      ema: the average so far, a tree like `params`.
      count: number of updates including this one, >= 1; a scalar, may be traced.
      decay: final decay, in [0, 1].

    Returns:
      The new average. Floating-point leaves are averaged in at least f32 and keep the dtype of
      their leaf in `ema`; all other leaves (such as counters) are copied from `params`.

    Raises:
      ValueError: decay is not in [0, 1], or the trees have different structures.
    """
    if not isinstance(decay, jax.core.Tracer) and not 0 <= decay <= 1:
        raise ValueError(f"decay {decay}; expected a number in [0, 1]")
    count = jnp.asarray(count)
    step = 1 - jnp.minimum(decay, count / (9 + count))

    def average(new, old):
        dtype = jnp.result_type(old)
        if not jnp.issubdtype(dtype, jnp.inexact):
            return new
        wide = jnp.promote_types(dtype, jnp.float32)
        new, old = jnp.asarray(new, wide), jnp.asarray(old, wide)
        rate = step.astype(wide)
        return (rate * new + (1 - rate) * old).astype(dtype)

    return jax.tree.map(average, params, ema)
