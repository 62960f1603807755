"""Losses to minimise, one value per example.

Adversarial losses take the raw scores of a critic; a higher score means more real.

terms = f_gan_critic_loss(squared_hellinger(), critic(x), critic(generator(z)))
loss = terms.real.mean() + terms.fake.mean()             # independent batches: two terms
loss = qp_critic_loss(v_real, v_fake, mean_absolute_distance(x, generator(z))).mean()  # pairs
loss = qp_generator_loss(v_real, critic(generator(z))).mean()

Contrastive losses compare codes of images with each other, see `infomax`.

loss = nt_xent_loss(encoder(view), encoder(other_view), temperature=0.5).mean()
"""

from jaxgen.losses.adversarial import (
    CriticTerms,
    f_gan_critic_loss,
    f_gan_generator_loss,
    f_gan_heuristic_generator_loss,
    hinge_critic_loss,
    least_squares_critic_loss,
    least_squares_generator_loss,
    logistic_critic_loss,
    non_saturating_generator_loss,
    saturating_generator_loss,
    wasserstein_critic_loss,
    wasserstein_generator_loss,
)
from jaxgen.losses.infomax import derange, local_info_nce_loss, nt_xent_loss, pair_scores
from jaxgen.losses.packing import pack
from jaxgen.losses.paired import (
    BiGANTerms,
    bigan_qp_loss,
    mean_absolute_distance,
    qp_critic_loss,
    qp_generator_loss,
    relativistic_critic_loss,
    relativistic_generator_loss,
    root_mean_square_distance,
)

__all__ = [
    "BiGANTerms",
    "CriticTerms",
    "bigan_qp_loss",
    "derange",
    "f_gan_critic_loss",
    "f_gan_generator_loss",
    "f_gan_heuristic_generator_loss",
    "hinge_critic_loss",
    "least_squares_critic_loss",
    "least_squares_generator_loss",
    "local_info_nce_loss",
    "logistic_critic_loss",
    "mean_absolute_distance",
    "non_saturating_generator_loss",
    "nt_xent_loss",
    "pack",
    "pair_scores",
    "qp_critic_loss",
    "qp_generator_loss",
    "relativistic_critic_loss",
    "relativistic_generator_loss",
    "root_mean_square_distance",
    "saturating_generator_loss",
    "wasserstein_critic_loss",
    "wasserstein_generator_loss",
]
