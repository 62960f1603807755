"""Adversarial losses with independent real and fake examples: f-GAN, logistic, WGAN, ...

A critic gives one raw score v per example; a higher score means more real. All losses, the critic's
and the generator's, are minimised and unreduced. The real and fake batches may differ in size, so
critic losses return a pair of terms:

    terms = hinge_critic_loss(critic(x), critic(generator(z)))
    loss = terms.real.mean() + terms.fake.mean()

Scores may have any shape, such as [B, H, W] for a patch critic.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxgen.arguments import at_least_f32, require, require_scalar
from jaxgen.divergences import FDivergence, variational_bound


class CriticTerms(NamedTuple):
    """Terms of a critic's loss mean(real) + mean(fake).

    Attributes:
      real: one value per real example.
      fake: one value per fake example.
    """

    real: Any
    fake: Any


def f_gan_critic_loss(divergence: FDivergence, v_real, v_fake) -> CriticTerms:
    """-g_f(v) at real and f*(g_f(v)) at fake examples; the minimum of their sum is -D_f(P || Q).

    The negative of `variational_bound` (Nowozin et al. 2016, f-GAN, arXiv 1606.00709, equation 6).
    The optimal critic has g_f(v) = f'(p / q).

    Args:
      divergence: any of `jaxgen.divergences`, including `from_generator`.
      v_real: raw scores of real examples, any shape.
      v_fake: raw scores of fake examples, any shape.

    Returns:
      `CriticTerms` of the shapes of the scores.
    """
    terms = variational_bound(divergence, v_real, v_fake)
    return CriticTerms(-terms.real, -terms.fake)


def f_gan_generator_loss(divergence: FDivergence, v_fake):
    """-f*(g_f(v)), the fake term of the bound; with an optimal critic it minimises D_f.

    It saturates for most divergences: the gradient vanishes for fakes that the critic confidently
    rejects (v -> -infinity), like exp(v - 1) for KL. See `f_gan_heuristic_generator_loss`.

    Args:
      divergence: the divergence that the critic is trained with.
      v_fake: raw scores of fake examples, any shape.

    Returns:
      The shape of v_fake.
    """
    return -divergence.composed_conjugate(v_fake)


def f_gan_heuristic_generator_loss(divergence: FDivergence, v_fake):
    """-g_f(v): raises the critic's score of the fakes (arXiv 1606.00709).

    It has the same fixed point as `f_gan_generator_loss`, but different training dynamics. All g_f
    here are increasing; for decreasing activations, as in kexue.fm post 6016, flip the sign.

    Args:
      divergence: the divergence that the critic is trained with.
      v_fake: raw scores of fake examples, any shape.

    Returns:
      The shape of v_fake.
    """
    return -divergence.activation(v_fake)


def logistic_critic_loss(v_real, v_fake) -> CriticTerms:
    """-log sigmoid(v) at real and -log(1 - sigmoid(v)) at fake examples.

    Goodfellow et al. 2014, equation 1 (arXiv 1406.2661), with v the logit of "real". The optimal
    critic is v = log(p / q), with the minimum 2 log 2 - 2 JSD. Equals `f_gan_critic_loss` with
    `jaxgen.divergences.gan`.

    Args:
      v_real: raw scores of real examples, any shape.
      v_fake: raw scores of fake examples, any shape.

    Returns:
      `CriticTerms` of the shapes of the scores.
    """
    v_real, v_fake = at_least_f32(v_real), at_least_f32(v_fake)
    return CriticTerms(jax.nn.softplus(-v_real), jax.nn.softplus(v_fake))


def saturating_generator_loss(v_fake):
    """log(1 - sigmoid(v)) (arXiv 1406.2661).

    The gradient -sigmoid(v) vanishes for fakes that the critic confidently rejects.

    Args:
      v_fake: raw scores of fake examples, any shape.

    Returns:
      The shape of v_fake.
    """
    return -jax.nn.softplus(at_least_f32(v_fake))


def non_saturating_generator_loss(v_fake):
    """-log sigmoid(v) (arXiv 1406.2661).

    The gradient -sigmoid(-v) is largest for fakes that the critic confidently rejects.

    Args:
      v_fake: raw scores of fake examples, any shape.

    Returns:
      The shape of v_fake.
    """
    return jax.nn.softplus(-at_least_f32(v_fake))


def least_squares_critic_loss(v_real, v_fake, real_label=1.0, fake_label=0.0) -> CriticTerms:
    """(v - b)^2 / 2 at real and (v - a)^2 / 2 at fake examples.

    Mao et al. 2016, equation 2 (LSGAN, arXiv 1611.04076). The optimal critic is
    v = (b p + a q) / (p + q). Use it with `least_squares_generator_loss`. For b - c = 1 and
    b - a = 2, the sum of that loss's expectations over P and Q at the optimal critic is half of the
    chi^2 sum (p - q)^2 / (p + q). Its gradient for a fixed critic is not that of this chi^2: a fake
    with a score above c is pulled back to c.

    Args:
      v_real: raw scores of real examples, any shape.
      v_fake: raw scores of fake examples, any shape.
      real_label: b.
      fake_label: a < b. Both labels are scalars.

    Returns:
      `CriticTerms` of the shapes of the scores.

    Raises:
      ValueError: a >= b, or a label is not a scalar.
    """
    margin = {"real_label - fake_label": real_label - fake_label}
    require(above=0, **margin)
    require_scalar(real_label=real_label, fake_label=fake_label)
    v_real, v_fake = at_least_f32(v_real), at_least_f32(v_fake)
    return CriticTerms((v_real - real_label) ** 2 / 2, (v_fake - fake_label) ** 2 / 2)


def least_squares_generator_loss(v_fake, target=1.0):
    """(v - c)^2 / 2 (arXiv 1611.04076, equation 2).

    Args:
      v_fake: raw scores of fake examples, any shape.
      target: c, the target score, a scalar.

    Returns:
      The shape of v_fake.

    Raises:
      ValueError: target is not a scalar.
    """
    require_scalar(target=target)
    return (at_least_f32(v_fake) - target) ** 2 / 2


def hinge_critic_loss(v_real, v_fake) -> CriticTerms:
    """max(0, 1 - v) at real and max(0, 1 + v) at fake examples.

    Lim & Ye 2017 (arXiv 1705.02894), Miyato et al. 2018, equation 16 (arXiv 1802.05957). The
    optimal critic is v = sign(p - q), with the minimum 2 - 2 TV. Use it with
    `wasserstein_generator_loss`. At a kink the gradient is the mean of both sides.

    Args:
      v_real: raw scores of real examples, any shape.
      v_fake: raw scores of fake examples, any shape.

    Returns:
      `CriticTerms` of the shapes of the scores.
    """
    v_real, v_fake = at_least_f32(v_real), at_least_f32(v_fake)
    return CriticTerms(positive_part(1 - v_real), positive_part(1 + v_fake))


@jax.custom_jvp
def positive_part(x):
    """max(0, x); its gradient is 1/2 at 0 and NaN at NaN, where that of jnp.maximum is 0."""
    return jnp.maximum(x, 0)


@positive_part.defjvp
def _(primals, tangents):
    return positive_part(*primals), (jnp.sign(primals[0]) + 1) / 2 * tangents[0]


def wasserstein_critic_loss(v_real, v_fake) -> CriticTerms:
    """-v at real and v at fake examples: E_Q[v] - E_P[v], with the minimum -W_1(P, Q).

    Arjovsky et al. 2017, equation 2 (WGAN, arXiv 1701.07875). The minimum is over 1-Lipschitz
    critics, so combine it with a constraint or penalty from `jaxgen.regularizers`:

        WGAN      params = clip_weights(params, c) after every critic step, c = 0.01
        WGAN-GP   + 10 mean(one_centered_gradient_penalty(critic, interpolate(key, real, fake)))
        WGAN-div  + k mean(gradient_power_penalty(critic, x, p)), k = 2, p = 6, almost any x

    Args:
      v_real: raw scores of real examples, any shape.
      v_fake: raw scores of fake examples, any shape.

    Returns:
      `CriticTerms` of the shapes of the scores.
    """
    return CriticTerms(-at_least_f32(v_real), at_least_f32(v_fake))


def wasserstein_generator_loss(v_fake):
    """-v, the generator's loss for both the Wasserstein and the hinge critic.

    The critic's penalty is not part of it.

    Args:
      v_fake: raw scores of fake examples, any shape.

    Returns:
      The shape of v_fake.
    """
    return -at_least_f32(v_fake)
