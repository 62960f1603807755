"""Points at which to evaluate a gradient penalty: the six choices of WGAN-div, and DRAGAN's.

Wu et al. 2018 (WGAN-div, arXiv 1712.01026) compare six distributions of the points x. They find
that the choice matters little for `gradient_power_penalty`, but does matter for WGAN-GP:

    between real and fake                      interpolate(key, real, fake)
    between two real, and between two fake     interpolate_within(key, real, fake)
    between two of either kind                 interpolate_pooled(key, real, fake)
    real and fake                              jnp.concatenate([real, fake])
    fake                                       fake
    real                                       real

`interpolate_within`, `interpolate_pooled` and the concatenation give 2 B points; the mean over them
is half the sum of the means over the two halves.
"""

import jax
import jax.numpy as jnp

from jaxgen.arguments import at_least_f32, require, require_scalar


def interpolate(key, real, fake):
    """Points between real and fake: fake + alpha (real - fake), alpha ~ U[0, 1) per example.

    Args:
      key: a PRNG key, used once.
      real: [B, ...].
      fake: [B, ...].

    Returns:
      [B, ...] in the common dtype of both, f32 for integers.

    Raises:
      ValueError: the shapes differ, or real and fake are scalars.
    """
    _require_pair(real, fake)
    dtype = jnp.result_type(real, fake)
    real, fake = at_least_f32(real), at_least_f32(fake)
    alpha = jax.random.uniform(key, (real.shape[0], *[1] * (real.ndim - 1)), jnp.float32)
    points = fake + alpha.astype(real.dtype) * (real - fake)
    return points.astype(dtype) if jnp.issubdtype(dtype, jnp.floating) else points


def interpolate_within(key, real, fake):
    """Points between two real examples, followed by points between two fake ones.

    Each example is paired with the previous one in its batch.

    Args:
      key: a PRNG key, used once.
      real: [B, ...], in random order.
      fake: [B, ...], likewise.

    Returns:
      [2 B, ...] in the common dtype of both, f32 for integers.

    Raises:
      ValueError: the shapes differ, or real and fake are scalars.
    """
    _require_pair(real, fake)
    pool = jnp.concatenate([real, fake])
    partners = jnp.concatenate([jnp.roll(real, 1, axis=0), jnp.roll(fake, 1, axis=0)])
    return interpolate(key, pool, partners)


def interpolate_pooled(key, real, fake):
    """Points between random pairs of examples from the union of both batches.

    Every example is once the first and once the second of a pair. About half of the pairs are
    real-real or fake-fake.

    Arguments, result and errors as in `interpolate_within`.
    """
    _require_pair(real, fake)
    order_key, alpha_key = jax.random.split(key)
    pool = jnp.concatenate([real, fake])
    return interpolate(alpha_key, pool, jax.random.permutation(order_key, pool))


def dragan_points(key, real, width=1.0):
    """Points around real examples: x + width std u, u ~ U[-1/2, 1/2) per element.

    Kodali et al. 2017 (DRAGAN, arXiv 1705.07215). std is a single number, computed over the whole
    batch. Implementations differ in the noise. It is centred here and in compare_gan, which also
    clips the points to the range of its images; others use U[0, 1) with half the width.

    Args:
      key: a PRNG key, used once.
      real: [B, ...].
      width: width of the interval in standard deviations, >= 0.

    Returns:
      [B, ...] in real's dtype, f32 for integers.

    Raises:
      ValueError: width < 0, or real is a scalar.
    """
    require(least=0, width=width)
    require_scalar(width=width)
    if not jnp.ndim(real):
        raise ValueError(f"real {jnp.shape(real)}; expected [B, ...]")
    dtype = jnp.result_type(real)
    real = at_least_f32(real)
    noise = jax.random.uniform(key, real.shape, jnp.float32, -0.5, 0.5).astype(real.dtype)
    mean = jnp.mean(real)
    std = _root(jnp.mean((real - mean) ** 2))
    points = real + width * std * noise
    return points.astype(dtype) if jnp.issubdtype(dtype, jnp.floating) else points


def _root(square):
    """Square root, with gradient 0 at 0."""
    return jnp.where(square == 0, 0, jnp.sqrt(jnp.where(square == 0, 1, square)))


def _require_pair(real, fake):
    if jnp.shape(real) != jnp.shape(fake) or not jnp.ndim(real):
        raise ValueError(
            f"real {jnp.shape(real)}, fake {jnp.shape(fake)}; expected both [B, ...] of one shape"
        )
