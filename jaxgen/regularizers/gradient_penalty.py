"""Penalties on the gradient of a critic with respect to its input, one value per example.

A critic is a function x [B, ...] -> [B], already bound to its parameters. Each output must depend
only on its own example, because the gradient is taken of the sum of all outputs. Batch
normalization in training mode violates this; use layer or instance normalization, or none.

The caller chooses the points (see `jaxgen.regularizers.points`) and the weight:

    WGAN-GP    one_centered_gradient_penalty at `interpolate` points, weight 10
    DRAGAN     one_centered_gradient_penalty at `dragan_points`
    R1         zero_centered_gradient_penalty at real points, weight gamma / 2
    R2         zero_centered_gradient_penalty at fake points, weight gamma / 2
    WGAN-div   gradient_power_penalty at almost any points, weight 2

Gradients are computed in x's dtype, sums over them in at least f32.
"""

import jax
import jax.numpy as jnp

from jaxgen.arguments import at_least_f32, require, require_scalar


def one_centered_gradient_penalty(critic, x):
    """(||grad_x f(x)||_2 - 1)^2, with the norm over all elements of an example.

    Gulrajani et al. 2017, equation 3 (WGAN-GP, arXiv 1704.00028). There is no epsilon under the
    square root: the norm is exact, and where it is 0 its gradient is defined as 0.

    Args:
      critic: [B, ...] -> [B].
      x: [B, ...], floating point.

    Returns:
      [B].

    Raises:
      ValueError: x is a scalar or not floating point, or the output of the critic is not [B].
    """
    return jnp.square(_norm(_square(critic, x)) - 1)


def one_sided_gradient_penalty(critic, x):
    """max(0, ||grad_x f(x)||_2 - 1)^2: gradient norms below one are not penalised.

    Gulrajani et al. 2017, section 4 (arXiv 1704.00028); Petzka et al. 2017 (WGAN-LP, arXiv
    1709.08894). Arguments, result and errors as in `one_centered_gradient_penalty`.
    """
    return jnp.square(jax.nn.relu(_norm(_square(critic, x)) - 1))


def zero_centered_gradient_penalty(critic, x):
    """||grad_x f(x)||_2^2.

    Mescheder et al. 2018 (arXiv 1801.04406), whose R1 is gamma / 2 times its mean over real
    examples and R2 over generated ones. Arguments, result and errors as in
    `one_centered_gradient_penalty`.
    """
    return _square(critic, x)


def gradient_power_penalty(critic, x, p=6.0):
    """||grad_x f(x)||_2^p = (sum of squares over an example)^(p / 2).

    Wu et al. 2018 (WGAN-div, arXiv 1712.01026), with weight k = 2 and p = 6. Some published code
    instead raises every squared element to p / 2 and averages over pixels, which is another norm.

    Args:
      critic: [B, ...] -> [B].
      x: [B, ...], floating point.
      p: the power, >= 2; for smaller p the gradient at 0 is infinite.

    Returns:
      [B].

    Raises:
      ValueError: as `one_centered_gradient_penalty`, or p < 2.
    """
    require(least=2, p=p)
    require_scalar(p=p)
    return _square(critic, x) ** (p / 2)


def _square(critic, x):
    """Squared norm of the critic's gradient, per example: [B]."""
    x = jnp.asarray(x)
    if not x.ndim or not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"x {x.dtype} {x.shape}; expected floating point [B, ...]")

    def total(x):
        value = critic(x)
        if jnp.shape(value) != x.shape[:1]:
            raise ValueError(
                f"critic {jnp.shape(value)}; expected one value per example, {x.shape[:1]}"
            )
        return jnp.sum(value)

    gradient = at_least_f32(jax.grad(total)(x))
    return jnp.sum(jnp.square(gradient), axis=tuple(range(1, x.ndim)))


def _norm(square):
    return jnp.where(square == 0, 0, jnp.sqrt(jnp.where(square == 0, 1, square)))
