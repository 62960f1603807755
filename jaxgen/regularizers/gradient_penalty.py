"""Penalties on the gradient of a critic with respect to its input, one value per example.

A critic is bound to its parameters: x [B, ...] -> [B]. Each answer must depend on its own example
alone: the gradients are taken of the sum of all answers at once, and with batch normalization in
training mode they would be those of the batch. Use layer or instance normalization, or none.

Where (see `jaxgen.regularizers.points`) and how much is the caller's: WGAN-GP takes
`one_centered_gradient_penalty` at `interpolate`d points with weight 10, DRAGAN at `dragan_points`;
R1 is gamma / 2 times `zero_centered_gradient_penalty` at real points, R2 at fake ones; WGAN-div
takes `gradient_power_penalty` nearly anywhere. The gradients are in x's dtype, the sums over them
in f32 or more.
"""

import jax
import jax.numpy as jnp

from jaxgen.arguments import at_least_f32, require


def one_centered_gradient_penalty(critic, x):
    """(||grad_x f(x)||_2 - 1)^2, the norm over all elements of an example.

    Gulrajani et al. 2017, equation 3 (WGAN-GP, arXiv 1704.00028). There is no epsilon under the
    root: the norm is exact, and where it is 0 its own gradient is taken as 0.

    Args:
      critic: [B, ...] -> [B].
      x: [B, ...], floating point.

    Returns:
      [B].

    Raises:
      ValueError: x has no examples' axis or is not floating point, or the critic's answer is not
        [B].
    """
    return jnp.square(_norm(_square("one_centered_gradient_penalty", critic, x)) - 1)


def one_sided_gradient_penalty(critic, x):
    """max(0, ||grad_x f(x)||_2 - 1)^2: slopes below one are free.

    Gulrajani et al. 2017, section 4 (arXiv 1704.00028); Petzka et al. 2017 (WGAN-LP, arXiv
    1709.08894). Arguments, result and errors as in `one_centered_gradient_penalty`.
    """
    return jnp.square(jax.nn.relu(_norm(_square("one_sided_gradient_penalty", critic, x)) - 1))


def zero_centered_gradient_penalty(critic, x):
    """||grad_x f(x)||_2^2.

    Mescheder et al. 2018 (arXiv 1801.04406), whose R1 is gamma / 2 times its mean over real
    examples and R2 over generated ones. Arguments, result and errors as in
    `one_centered_gradient_penalty`.
    """
    return _square("zero_centered_gradient_penalty", critic, x)


def gradient_power_penalty(critic, x, p=6.0):
    """||grad_x f(x)||_2^p = (sum of squares over an example)^(p / 2), no root taken.

    Wu et al. 2018 (WGAN-div, arXiv 1712.01026), with weight k = 2 and p = 6. A port in
    circulation raises every element to p / 2 and averages over pixels: that is another norm.

    Args:
      critic: [B, ...] -> [B].
      x: [B, ...], floating point.
      p: the power, >= 2: below it the gradient at 0 is infinite.

    Returns:
      [B].

    Raises:
      ValueError: as `one_centered_gradient_penalty`, or p < 2.
    """
    require(least=2, p=p)
    return _square("gradient_power_penalty", critic, x) ** (p / 2)


def _square(function: str, critic, x):
    """Per example, the sum of squares of the gradient: [B]."""
    x = jnp.asarray(x)
    if not x.ndim or not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"{function}: x {x.dtype} {x.shape}; expected floating point [B, ...]")

    def total(x):
        value = critic(x)
        if jnp.shape(value) != x.shape[:1]:
            raise ValueError(
                f"{function}: critic {jnp.shape(value)}; expected one value per example,"
                f" {x.shape[:1]}"
            )
        return jnp.sum(value)

    gradient = at_least_f32(jax.grad(total)(x))
    return jnp.sum(jnp.square(gradient), axis=tuple(range(1, x.ndim)))


def _norm(square):
    return jnp.where(square == 0, 0, jnp.sqrt(jnp.where(square == 0, 1, square)))
