"""Checks of arguments, and the precision to compute in.

Shapes and Python numbers are checked when a function is traced. What a transformation hides (an
annealed temperature that is an argument of a jitted function) cannot be checked and passes.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np


def require(
    where: str,
    *,
    above: float = -math.inf,
    least: float = -math.inf,
    most: float = math.inf,
    **values,
) -> None:
    """Holds numbers to a range; every entry of an array counts, traced ones do not.

    Args:
      where: name of the function that was called.
      above: the values must be greater than this ...
      least: ... at least this ...
      most: ... and at most this.
      **values: name of the argument -> its value; infinity and NaN are in no range.

    Raises:
      ValueError: "WHERE: NAME VALUE; expected a finite number ...".
    """
    for name, value in values.items():
        if isinstance(value, jax.core.Tracer):
            continue
        array = np.asarray(value)
        if not np.all(np.isfinite(array) & (array > above) & (array >= least) & (array <= most)):
            limits = [("> ", above), (">= ", least), ("<= ", most)]
            expected = " and ".join(f"{sign}{x:g}" for sign, x in limits if math.isfinite(x))
            raise ValueError(f"{where}: {name} {value}; expected a finite number {expected}")


def at_least_f32(x):
    """x as a floating-point array of 32 bits or more: bf16, f16 and integers become f32."""
    x = jnp.asarray(x)
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
