"""Adversarial losses whose real and fake examples are independent: f-GAN, logistic, WGAN, ...

One convention throughout: a critic gives one raw score v per example, the higher the more real;
every loss is minimised, the critic's as well as the generator's; nothing is averaged. The two
batches may differ in size, so the critic's loss comes as a pair of terms:

    terms = hinge_critic_loss(critic(x), critic(generator(z)))
    loss = terms.real.mean() + terms.fake.mean()

Scores may have any shape, such as [B, H, W] for a critic of patches.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxgen.arguments import at_least_f32, require
from jaxgen.divergences import FDivergence, variational_bound


class CriticTerms(NamedTuple):
    """What a critic minimises: mean(real) + mean(fake).

    Attributes:
      real: one per real example.
      fake: one per fake example.
    """

    real: Any
    fake: Any


def f_gan_critic_loss(divergence: FDivergence, v_real, v_fake) -> CriticTerms:
    """-g_f(v) at real and f*(g_f(v)) at fake examples; the minimum of their sum is -D_f(P || Q).

    Nowozin et al. 2016, equation 6 (f-GAN, arXiv 1606.00709): the negative of
    `variational_bound`. The best critic has g_f(v) = f'(p / q).

    Args:
      divergence: any of `jaxgen.divergences`, also a `from_generator`.
      v_real: raw scores of real examples, any shape.
      v_fake: raw scores of fake examples, any shape.

    Returns:
      `CriticTerms` of the shapes of the scores.
    """
    terms = variational_bound(divergence, v_real, v_fake)
    return CriticTerms(-terms.real, -terms.fake)


def f_gan_generator_loss(divergence: FDivergence, v_fake):
    """-f*(g_f(v)): the fake part of the bound itself, so at the best critic D_f is descended.

    It saturates for most divergences: a fake that the critic is sure of (v -> -infinity) gives a
    gradient that vanishes, like exp(v - 1) for KL. See `f_gan_heuristic_generator_loss`.

    Args:
      divergence: the one that the critic is trained with.
      v_fake: raw scores of fake examples, any shape.

    Returns:
      The shape of v_fake.
    """
    return -divergence.composed_conjugate(v_fake)


def f_gan_heuristic_generator_loss(divergence: FDivergence, v_fake):
    """-g_f(v): fakes are to be scored as real (arXiv 1606.00709).

    The fixed point is that of the true loss, the way there another. Since every g_f here
    increases, so does what the generator wants with v; with activations that decrease, as in
    kexue.fm post 6016, the sign is the other one.

    Args:
      divergence: the one that the critic is trained with.
      v_fake: raw scores of fake examples, any shape.

    Returns:
      The shape of v_fake.
    """
    return -divergence.activation(v_fake)


def logistic_critic_loss(v_real, v_fake) -> CriticTerms:
    """-log sigmoid(v) at real and -log(1 - sigmoid(v)) at fake examples.

    Goodfellow et al. 2014, equation 1 (arXiv 1406.2661), v the logit of "real"; the best critic is
    v = log(p / q), the minimum 2 log 2 - 2 JSD. The same as f-GAN's with
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
    """log(1 - sigmoid(v)), of gradient -sigmoid(v): none where the critic is sure (1406.2661).

    Args:
      v_fake: raw scores of fake examples, any shape.

    Returns:
      The shape of v_fake.
    """
    return -jax.nn.softplus(at_least_f32(v_fake))


def non_saturating_generator_loss(v_fake):
    """-log sigmoid(v), of gradient -sigmoid(-v): all of it where the critic is sure (1406.2661).

    Args:
      v_fake: raw scores of fake examples, any shape.

    Returns:
      The shape of v_fake.
    """
    return jax.nn.softplus(-at_least_f32(v_fake))


def least_squares_critic_loss(v_real, v_fake, real_label=1.0, fake_label=0.0) -> CriticTerms:
    """(v - b)^2 / 2 at real and (v - a)^2 / 2 at fake examples.

    Mao et al. 2016, equation 2 (LSGAN, arXiv 1611.04076). The best critic is
    v = (b p + a q) / (p + q). The generator's loss is `least_squares_generator_loss`. With
    b - c = 1 and b - a = 2, E_P + E_Q of it at the best critic is half of the chi^2
    sum (p - q)^2 / (p + q); but with the critic held, its gradient is not that of this chi^2: a
    fake that scores above c is pulled back to c.

    Args:
      v_real: raw scores of real examples, any shape.
      v_fake: raw scores of fake examples, any shape.
      real_label: b.
      fake_label: a, below b: a higher score means more real. Both are scalars.

    Returns:
      `CriticTerms` of the shapes of the scores.

    Raises:
      ValueError: b is not above a.
    """
    margin = {"real_label - fake_label": real_label - fake_label}
    require(above=0, **margin)
    v_real, v_fake = at_least_f32(v_real), at_least_f32(v_fake)
    return CriticTerms((v_real - real_label) ** 2 / 2, (v_fake - fake_label) ** 2 / 2)


def least_squares_generator_loss(v_fake, target=1.0):
    """(v - c)^2 / 2 (arXiv 1611.04076, equation 2).

    Args:
      v_fake: raw scores of fake examples, any shape.
      target: c, the score that the generator wants.

    Returns:
      The shape of v_fake.
    """
    return (at_least_f32(v_fake) - target) ** 2 / 2


def hinge_critic_loss(v_real, v_fake) -> CriticTerms:
    """max(0, 1 - v) at real and max(0, 1 + v) at fake examples.

    Lim & Ye 2017 (arXiv 1705.02894), Miyato et al. 2018, equation 16 (arXiv 1802.05957). The best
    critic is v = sign(p - q), the minimum 2 - 2 TV. The generator's loss is
    `wasserstein_generator_loss`. The gradient at the kinks is half of that beyond them.

    Args:
      v_real: raw scores of real examples, any shape.
      v_fake: raw scores of fake examples, any shape.

    Returns:
      `CriticTerms` of the shapes of the scores.
    """
    v_real, v_fake = at_least_f32(v_real), at_least_f32(v_fake)
    return CriticTerms(jnp.maximum(1 - v_real, 0), jnp.maximum(1 + v_fake, 0))


def wasserstein_critic_loss(v_real, v_fake) -> CriticTerms:
    """-v at real and v at fake examples: E_Q[v] - E_P[v], at its minimum -W_1(P, Q).

    Arjovsky et al. 2017, equation 2 (WGAN, arXiv 1701.07875), over critics of slope at most 1, so
    never alone:

        WGAN      after every step of the critic  params = clip_weights(params, c), c = 0.01
        WGAN-GP   + 10 mean(one_centered_gradient_penalty(critic, interpolate(key, real, fake)))
        WGAN-div  + k mean(gradient_power_penalty(critic, x, p)), k = 2, p = 6, x nearly anywhere

    all of `jaxgen.regularizers`.

    Args:
      v_real: raw scores of real examples, any shape.
      v_fake: raw scores of fake examples, any shape.

    Returns:
      `CriticTerms` of the shapes of the scores.
    """
    return CriticTerms(-at_least_f32(v_real), at_least_f32(v_fake))


def wasserstein_generator_loss(v_fake):
    """-v; no penalty of the critic's belongs here. It is the generator's loss of hinge, too.

    Args:
      v_fake: raw scores of fake examples, any shape.

    Returns:
      The shape of v_fake.
    """
    return -at_least_f32(v_fake)
