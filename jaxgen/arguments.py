"""Argument checks and dtype promotion.

Shapes and concrete numbers are checked when a function is called or traced. Traced values, such as
an annealed temperature passed to a jitted function, are not checked.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np


def require(
    *,
    above: float = -math.inf,
    least: float = -math.inf,
    most: float = math.inf,
    **values,
) -> None:
    """Checks that numbers are finite and in a range; traced values are skipped.

    Args:
      above: exclusive lower bound.
      least: inclusive lower bound.
      most: inclusive upper bound.
      **values: argument name -> its value, a number or an array; every entry is checked.

    Raises:
      ValueError: a value is infinite, NaN or outside the range.
    """
    for name, value in values.items():
        if isinstance(value, jax.core.Tracer):
            continue
        array = np.asarray(value)
        if not np.all(np.isfinite(array) & (array > above) & (array >= least) & (array <= most)):
            limits = [("> ", above), (">= ", least), ("<= ", most)]
            expected = " and ".join(f"{sign}{x:g}" for sign, x in limits if math.isfinite(x))
            raise ValueError(f"{name} {value}; expected a finite number {expected}")


def require_integer(*, least: int, **values) -> None:
    """Checks that numbers are integers of at least `least`; booleans are not.

    Raises:
      ValueError: a value is no Python or numpy integer, or is smaller.
    """
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
            raise ValueError(f"{name} {value}; expected an integer >= {least}")


def at_least_f32(x):
    """x as a float array of at least 32 bits: bf16, f16, integers and booleans become f32."""
    x = jnp.asarray(x)
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def as_float(x):
    """x as an array of floats: integers and booleans become f32, floats keep their dtype."""
    x = jnp.asarray(x)
    return x if jnp.issubdtype(x.dtype, jnp.inexact) else x.astype(jnp.float32)


def require_scalar(**values) -> None:
    """Checks that values, traced ones too, have no axes: an array would broadcast silently.

    Raises:
      ValueError: a value has axes.
    """
    for name, value in values.items():
        if jnp.ndim(value):
            raise ValueError(f"{name} {jnp.shape(value)}; expected a scalar")
