"""Adversarial losses on pairs of a real and a fake example: relativistic, GAN-QP, BiGAN-QP.

Examples are paired by index, so independent batches give independent pairs. Scores v are raw; a
higher score means more real. All losses are minimised and return one value per pair.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxgen.arguments import at_least_f32, require, require_scalar

_MIN_DISTANCE = 1e-6


def relativistic_critic_loss(v_real, v_fake):
    """-log sigmoid(v_real - v_fake): the real example of a pair should score higher than the fake.

    Jolicoeur-Martineau 2018 (the paired form, RpGAN, arXiv 1807.00734); kexue.fm post 6110 calls it
    RSGAN. Huang et al. 2025 (R3GAN, arXiv 2501.05441) add gamma / 2 times
    `zero_centered_gradient_penalty` at the real and at the fake examples (R1 + R2).

    Args:
      v_real: raw scores of real examples, any shape.
      v_fake: raw scores of fake examples, the same shape.

    Returns:
      The same shape.

    Raises:
      ValueError: the shapes differ.
    """
    return jax.nn.softplus(-_difference(v_real, v_fake))


def relativistic_generator_loss(v_real, v_fake):
    """-log sigmoid(v_fake - v_real): `relativistic_critic_loss` with real and fake swapped.

    The real scores affect the generator's gradient: they set the score that a fake must exceed.
    Arguments, result and errors as in `relativistic_critic_loss`.
    """
    return jax.nn.softplus(_difference(v_real, v_fake))


def qp_critic_loss(v_real, v_fake, distance, slope=10.0):
    """-Delta + Delta^2 / (2 lambda d),  Delta = v_real - v_fake,  d = d(x_real, x_fake).

    Su 2018 (GAN-QP, arXiv 1811.07296). For a critic T(x) of one argument, the expected loss is
    sum_i (q_i - p_i) T_i + 1/2 sum_{i < j} w_ij (T_i - T_j)^2, w_ij = (p_i q_j + p_j q_i) /
    (lambda d_ij), so the optimal T are the potentials of a network of conductances w that p - q is
    fed into, L T = p - q with L the Laplacian of w. There E[Delta] = E[Delta^2 / (lambda d)] <=
    lambda E[d], and the minimum is -E[Delta] / 2: the slope Delta / d is bounded on average, not
    for every pair. If P and Q are single points, Delta = lambda d and the minimum is -lambda d / 2.
    (The paper's Delta = lambda d (a - b) / (a + b), a = p(x_r) q(x_f), b = p(x_f) q(x_r), is the
    optimum over critics of pairs, T(x_r, x_f) - T(x_f, x_r).) lambda only scales the scores.

    Use it with `qp_generator_loss`, which has no quadratic term.

    Args:
      v_real: raw scores of real examples, [B].
      v_fake: raw scores of fake examples, [B].
      distance: [B], distance between the two examples of a pair in any metric, such as
        `mean_absolute_distance` or `root_mean_square_distance`. It is clamped to at least 1e-6; a
        critic of one argument has Delta = 0 and loss 0 at d = 0.
      slope: lambda > 0. Su uses 10 with these two distances and images in [-1, 1].

    Returns:
      [B].

    Raises:
      ValueError: the shapes differ, slope <= 0 or not a scalar, or a distance is negative.
    """
    require(above=0, slope=slope)
    require_scalar(slope=slope)
    require(least=0, distance=distance)
    delta = _difference(v_real, v_fake)
    distance = at_least_f32(distance)
    if distance.shape != delta.shape:
        raise ValueError(f"distance {distance.shape}; expected the scores' shape {delta.shape}")
    return delta**2 / (2 * slope * jnp.maximum(distance, _MIN_DISTANCE)) - delta


def qp_generator_loss(v_real, v_fake):
    """Delta = v_real - v_fake (arXiv 1811.07296).

    If P and Q are single points, it is lambda d for the optimal critic. The quadratic term is left
    out on purpose: as a generator loss, -Delta^2 / (2 lambda d) would reduce the distance d to the
    real example that happens to be paired, matching pixels instead of distributions. v_real does
    not depend on the generator; it only makes the value comparable between steps.

    Arguments, result and errors as in `relativistic_critic_loss`.
    """
    return _difference(v_real, v_fake)


class BiGANTerms(NamedTuple):
    """Terms of the loss of generator and encoder of a BiGAN-QP, each [B].

    Attributes:
      difference: Delta of the pair.
      code: mean square of z - E(G(z)), trains only the encoder; weight 2 in Su's code.
      image: mean square of x - G(E(x)), trains only the generator; weight 3 in Su's code.
    """

    difference: Any
    code: Any
    image: Any


def bigan_qp_loss(critic: Callable, encoder: Callable, generator: Callable, x, z) -> BiGANTerms:
    """Delta = T(x, E(x)) - T(G(z), z), and the reconstruction errors of E and G.

    Su 2018 (kexue.fm post 6214). The critic's loss is `qp_critic_loss` of the same two scores with
    the distance d(x, G(z)) + d(E(x), z), both `mean_absolute_distance` in Su's code. A user
    reports mode collapse.

    Args:
      critic: (x [B, ...], z [B, ...]) -> [B]; a higher score means more real (x, E(x)).
      encoder: x -> z.
      generator: z -> x.
      x: [B, ...], real examples.
      z: [B, ...], noise.

    Returns:
      `BiGANTerms` of [B].

    Raises:
      ValueError: x and z differ in batch size, or an output of a network has a wrong shape.
    """
    encoded, generated = encoder(x), generator(z)
    difference = _difference(critic(x, encoded), critic(generated, z))
    if not jnp.ndim(x) or difference.shape != jnp.shape(x)[:1]:
        raise ValueError(f"critic {difference.shape}; expected [B] for x {jnp.shape(x)}, [B, ...]")
    # Each error trains only the outer network; the inner one is trained by the critic.
    code = encoder(jax.lax.stop_gradient(generated))
    image = generator(jax.lax.stop_gradient(encoded))
    return BiGANTerms(
        difference,
        _mean_over_example(jnp.square, code, z),
        _mean_over_example(jnp.square, image, x),
    )


def mean_absolute_distance(x, y):
    """mean |x - y| over the elements of an example: the L1 distance of GAN-QP.

    The gradient of an element is 0 where x = y.

    Args:
      x: [B, ...].
      y: [B, ...].

    Returns:
      [B].

    Raises:
      ValueError: the shapes differ, or x and y are scalars.
    """
    return _mean_over_example(lambda e: e * jnp.sign(e), x, y)


def root_mean_square_distance(x, y):
    """sqrt(mean (x - y)^2) over the elements of an example: the L2 distance of GAN-QP.

    The gradient is 0 where x = y. Arguments, result and errors as in `mean_absolute_distance`.
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
