"""Adversarial losses of pairs, a real example and a fake one: relativistic, GAN-QP, BiGAN-QP.

Pairs are made by index: two batches drawn independently give independent pairs. One value per
pair; scores v are raw, the higher the more real; every loss is minimised.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxgen.arguments import at_least_f32, require

_LEAST_DISTANCE = 1e-6


def relativistic_critic_loss(v_real, v_fake):
    """-log sigmoid(v_real - v_fake): the real one of a pair is to score higher than the fake one.

    Jolicoeur-Martineau 2018 (RpGAN, the pairing form, arXiv 1807.00734); kexue.fm post 6110 calls
    it RSGAN. Huang et al. 2025 (R3GAN, arXiv 2501.05441) add gamma / 2 times
    `zero_centered_gradient_penalty` at the real and at the fake examples (R1 + R2).

    Args:
      v_real: raw scores of real examples, any shape.
      v_fake: raw scores of fake examples, the same shape.

    Returns:
      That shape.

    Raises:
      ValueError: the shapes differ.
    """
    return jax.nn.softplus(-_difference(v_real, v_fake))


def relativistic_generator_loss(v_real, v_fake):
    """-log sigmoid(v_fake - v_real): the critic's loss with real and fake exchanged.

    Arguments, result and errors as in `relativistic_critic_loss`. The real scores matter here:
    they set how far a fake has to go.
    """
    return jax.nn.softplus(_difference(v_real, v_fake))


def qp_critic_loss(v_real, v_fake, distance, slope=10.0):
    """-Delta + Delta^2 / (2 lambda d),  Delta = v_real - v_fake,  d = d(x_real, x_fake).

    Su 2018 (GAN-QP, arXiv 1811.07296). With a = p(x_r) q(x_f) and b = p(x_f) q(x_r) the best
    critic has Delta = lambda d (a - b) / (a + b): no steeper than lambda with respect to d, and so
    without a Lipschitz constraint. Between two points, real and fake, the minimum is
    -lambda d / 2. lambda only scales the scores.

    The generator's loss is `qp_generator_loss`, without the quadratic term.

    Args:
      v_real: raw scores of real examples, [B].
      v_fake: raw scores of fake examples, [B].
      distance: [B], between the two of a pair, in any metric: `mean_absolute_distance`,
        `root_mean_square_distance`, or another. 1e-6 stands in for anything below it, 0 above all
        (where a critic of one argument has Delta = 0 anyway, and the loss is 0).
      slope: lambda > 0. 10 with the two distances named, images in [-1, 1].

    Returns:
      [B].

    Raises:
      ValueError: the shapes differ, slope <= 0, or a distance is negative.
    """
    require(above=0, slope=slope)
    require(least=0, distance=distance)
    delta = _difference(v_real, v_fake)
    distance = at_least_f32(distance)
    if distance.shape != delta.shape:
        raise ValueError(f"distance {distance.shape}; expected the scores' shape {delta.shape}")
    return delta**2 / (2 * slope * jnp.maximum(distance, _LEAST_DISTANCE)) - delta


def qp_generator_loss(v_real, v_fake):
    """Delta = v_real - v_fake (arXiv 1811.07296); at a critic's best, lambda d between two points.

    The quadratic term must not be here. In -Delta^2 / (2 lambda d), what a generator would see of
    it in a min-max game, d is the distance to the example that it happens to be paired with, and
    falls: pixels would be matched, not laws. v_real does not depend on the generator; it only makes
    the value comparable between steps.

    Arguments, result and errors as in `relativistic_critic_loss`.
    """
    return _difference(v_real, v_fake)


class BiGANTerms(NamedTuple):
    """What generator and encoder of a BiGAN-QP minimise, each [B].

    Attributes:
      difference: Delta of the pair.
      code: mean square of z - E(G(z)), which trains the encoder alone; weight 2 in Su's code.
      image: mean square of x - G(E(x)), which trains the generator alone; weight 3.
    """

    difference: Any
    code: Any
    image: Any


def bigan_qp_loss(critic: Callable, encoder: Callable, generator: Callable, x, z) -> BiGANTerms:
    """Delta = T(x, E(x)) - T(G(z), z), and how well E and G invert each other.

    Su 2018 (kexue.fm post 6214). The critic's loss is `qp_critic_loss` of the same two scores with
    the distance d(x, G(z)) + d(E(x), z), both `mean_absolute_distance` in Su's code. A user of it
    reports mode collapse.

    Args:
      critic: (x [B, ...], z [B, ...]) -> [B], the higher the more real, that is encoded.
      encoder: x -> z.
      generator: z -> x.
      x: [B, ...], real examples.
      z: [B, ...], noise.

    Returns:
      `BiGANTerms` of [B].

    Raises:
      ValueError: the batches differ in size, or the encoder's or generator's answer in shape.
    """
    encoded, generated = encoder(x), generator(z)
    difference = _difference(critic(x, encoded), critic(generated, z))
    # Each error trains the outer network: the inner one is to please the critic, not the other.
    code = encoder(jax.lax.stop_gradient(generated))
    image = generator(jax.lax.stop_gradient(encoded))
    return BiGANTerms(
        difference,
        _mean_over_example(jnp.square, code, z),
        _mean_over_example(jnp.square, image, x),
    )


def mean_absolute_distance(x, y):
    """mean |x - y| over the elements of an example: GAN-QP's L1.

    The gradient of an element where x = y is taken as 0.

    Args:
      x: [B, ...].
      y: [B, ...].

    Returns:
      [B].

    Raises:
      ValueError: the shapes differ, or there is no examples' axis.
    """
    return _mean_over_example(lambda e: e * jnp.sign(e), x, y)


def root_mean_square_distance(x, y):
    """sqrt(mean (x - y)^2) over the elements of an example: GAN-QP's L2.

    Where x = y the gradient is taken as 0. Arguments, result and errors as in
    `mean_absolute_distance`.
    """
    square = _mean_over_example(jnp.square, x, y)
    return jnp.where(square == 0, 0, jnp.sqrt(jnp.where(square == 0, 1, square)))


def _mean_over_example(measure: Callable, x, y):
    """Mean over all axes but the first of measure(x - y)."""
    x, y = at_least_f32(x), at_least_f32(y)
    if x.shape != y.shape or not x.ndim:
        raise ValueError(f"x {x.shape}, y {y.shape}; expected equal shapes [B, ...]")
    return jnp.mean(measure(x - y), axis=tuple(range(1, x.ndim)))


def _difference(v_real, v_fake):
    v_real, v_fake = at_least_f32(v_real), at_least_f32(v_fake)
    if v_real.shape != v_fake.shape:
        raise ValueError(f"v_real {v_real.shape}, v_fake {v_fake.shape}; expected equal shapes")
    return v_real - v_fake
