"""Kernel distance: the unbiased squared MMD of features, with its standard error."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxgen.arguments import require_integer
from jaxgen.divergences import polynomial_kernel, squared_mmd_unbiased
from jaxgen.metrics.shapes import points


class KernelDistance(NamedTuple):
    """Estimate of the kernel distance and its standard error.

    Attributes:
      mean: mean squared MMD over the subsets; may be slightly negative.
      standard_error: standard error of that mean.
    """

    mean: jax.Array
    standard_error: jax.Array


def kernel_distance(key, real, fake, *, subsets: int = 10, size: int = 1000) -> KernelDistance:
    """Mean over subsets of MMD^2 under k(x, y) = (x . y / D + 1)^3, unbiased at any N.

    Binkowski et al. 2018 (arXiv 1801.01401, section 4.2); on Inception features it is KID. The
    subsets are disjoint and drawn from one random permutation of each sample, so they are
    independent and the standard error (standard deviation / sqrt(subsets)) is valid. Common code
    draws overlapping subsets and reports their standard deviation, which does not measure the error
    of the estimate. Memory is that of one subset. `squared_mmd_unbiased` uses all pairs at once.
    The kernel is centered at the mean of both samples, which leaves the distance as it is and keeps
    its digits where the features are far from 0.

    Caveats: the kernel depends only on the first three moments, and on the scale of the features.

    Args:
      key: a PRNG key, used once.
      real: [N, D] features.
      fake: [M, D].
      subsets: number of subsets, >= 2.
      size: examples per subset of each sample, >= 2; subsets * size must be <= N and <= M.

    Returns:
      KernelDistance of scalars.

    Raises:
      ValueError: subsets or size < 2, too few examples, or inputs are not [N, D] and [M, D].
    """
    require_integer(least=2, subsets=subsets, size=size)
    real, fake = points(real=real, fake=fake)
    for name, x in (("real", real), ("fake", fake)):
        if len(x) < subsets * size:
            raise ValueError(
                f"{name} {x.shape}; expected at least {subsets * size} points, "
                f"for {subsets} subsets of {size}"
            )

    def deal(key, x):
        return jax.random.permutation(key, len(x))[: subsets * size].reshape(subsets, size)

    kernel = polynomial_kernel(center=(jnp.mean(real, axis=0) + jnp.mean(fake, axis=0)) / 2)

    def distance(rows):
        return squared_mmd_unbiased(kernel, real[rows[0]], fake[rows[1]])

    real_key, fake_key = jax.random.split(key)
    found = jax.lax.map(distance, (deal(real_key, real), deal(fake_key, fake)))
    # Unlike jnp.std, this has a finite gradient where all subsets agree.
    variance = jnp.var(found, ddof=1)
    spread = jnp.where(variance == 0, 0, jnp.sqrt(jnp.where(variance == 0, 1, variance)))
    return KernelDistance(jnp.mean(found), spread / subsets**0.5)
