"""Kernel distance: the unbiased squared MMD of features, with its standard error."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxgen.arguments import require
from jaxgen.divergences import polynomial_kernel, squared_mmd_unbiased
from jaxgen.metrics.shapes import points


class KernelDistance(NamedTuple):
    """Estimate and its spread.

    Attributes:
      mean: of the squared MMD over the subsets; may be slightly negative.
      standard_error: of that mean.
    """

    mean: jax.Array
    standard_error: jax.Array


def kernel_distance(key, real, fake, *, subsets: int = 10, size: int = 1000) -> KernelDistance:
    """Mean over subsets of MMD^2 under k(x, y) = (x . y / D + 1)^3, unbiased whatever N is.

    Binkowski et al. 2018 (arXiv 1801.01401, section 4.2), whose KID it is on Inception features.
    The subsets are disjoint here, of one random order of each sample, so that they are
    independent and the standard error (standard deviation / sqrt(subsets)) is honest; common code
    draws overlapping ones and reports a deviation that says nothing about the sample at hand.
    Memory is that of one subset. All pairs at once are `squared_mmd_unbiased`.

    Traps: the kernel sees three moments alone, and depends on the scale of the features.

    Args:
      key: a PRNG key, used once.
      real: [N, D] features.
      fake: [M, D].
      subsets: how many, >= 2.
      size: examples of each sample in a subset, >= 2; subsets * size must be <= N and <= M.

    Returns:
      KernelDistance of scalars.

    Raises:
      ValueError: subsets or size < 2, too few examples for them, or not points of one dimension.
    """
    require(least=2, subsets=subsets, size=size)
    real, fake = points(real=real, fake=fake)
    for name, x in (("real", real), ("fake", fake)):
        if len(x) < subsets * size:
            raise ValueError(
                f"{name} {x.shape}; expected at least {subsets * size} points, "
                f"for {subsets} subsets of {size}"
            )

    def deal(key, x):
        return jax.random.permutation(key, len(x))[: subsets * size].reshape(subsets, size)

    def distance(rows):
        return squared_mmd_unbiased(polynomial_kernel(), real[rows[0]], fake[rows[1]])

    real_key, fake_key = jax.random.split(key)
    found = jax.lax.map(distance, (deal(real_key, real), deal(fake_key, fake)))
    # Not jnp.std: the gradient of the root is finite where all subsets agree.
    variance = jnp.var(found, ddof=1)
    spread = jnp.where(variance == 0, 0, jnp.sqrt(jnp.where(variance == 0, 1, variance)))
    return KernelDistance(jnp.mean(found), spread / subsets**0.5)
