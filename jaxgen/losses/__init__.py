"""Losses to minimise and bounds to maximise, one value per example.

Adversarial losses take the raw scores of a critic; a higher score means more real.

terms = f_gan_critic_loss(squared_hellinger(), critic(x), critic(generator(z)))
loss = terms.real.mean() + terms.fake.mean()             # independent batches: two terms
loss = qp_critic_loss(v_real, v_fake, mean_absolute_distance(x, generator(z))).mean()  # pairs
loss = qp_generator_loss(v_real, critic(generator(z))).mean()

The terms of a variational autoencoder are in nats, summed over pixels and latents.

z = reparameterize(key, mean, log_std)
reconstruction = gaussian_log_likelihood(x, decode(z), optimal_log_std(x, decode(z)))
loss = (divergences.gaussian_kl_to_standard(mean, log_std) - reconstruction).mean()
loss = -elbo(encode, log_likelihood, log_prior, key, x).bound.mean()    # any prior, sampled KL

Contrastive losses compare codes of images with each other, see `infomax`.

loss = nt_xent_loss(encoder(view), encoder(other_view), temperature=0.5).mean()

A language model is asked for tokens, see `language`; the loss is optax's cross-entropy.

prediction = masked_words(key, ids, begins, maskable, ordinary, mask_id)
logits = model.apply(params, prediction.ids, at=prediction.at)
nats = optax.softmax_cross_entropy_with_integer_labels(logits, prediction.targets)
loss = (prediction.weights * nats).sum() / prediction.weights.sum()
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
from jaxgen.losses.clustering import (
    assignment_information,
    cluster_kl,
    cluster_log_posterior,
    sampled_cluster_kl,
)
from jaxgen.losses.infomax import derange, local_info_nce_loss, nt_xent_loss, pair_scores
from jaxgen.losses.language import Prediction, masked_words, next_tokens, prefix_targets
from jaxgen.losses.likelihoods import (
    bernoulli_log_likelihood,
    discretized_logistic_log_likelihood,
    gaussian_log_likelihood,
    optimal_log_std,
    soft_floor,
)
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
from jaxgen.losses.spherical import SplitHingeTerms, joint_hinge_loss, split_hinge_loss
from jaxgen.losses.variational import (
    ELBOTerms,
    elbo,
    free_bits,
    gaussian_log_prob,
    importance_weighted_bound,
    reparameterize,
)

__all__ = [
    "BiGANTerms",
    "CriticTerms",
    "ELBOTerms",
    "Prediction",
    "SplitHingeTerms",
    "assignment_information",
    "bernoulli_log_likelihood",
    "bigan_qp_loss",
    "cluster_kl",
    "cluster_log_posterior",
    "derange",
    "discretized_logistic_log_likelihood",
    "elbo",
    "f_gan_critic_loss",
    "f_gan_generator_loss",
    "f_gan_heuristic_generator_loss",
    "free_bits",
    "gaussian_log_likelihood",
    "gaussian_log_prob",
    "hinge_critic_loss",
    "importance_weighted_bound",
    "joint_hinge_loss",
    "least_squares_critic_loss",
    "least_squares_generator_loss",
    "local_info_nce_loss",
    "logistic_critic_loss",
    "masked_words",
    "mean_absolute_distance",
    "next_tokens",
    "non_saturating_generator_loss",
    "nt_xent_loss",
    "optimal_log_std",
    "pack",
    "pair_scores",
    "prefix_targets",
    "qp_critic_loss",
    "qp_generator_loss",
    "relativistic_critic_loss",
    "relativistic_generator_loss",
    "reparameterize",
    "root_mean_square_distance",
    "sampled_cluster_kl",
    "saturating_generator_loss",
    "soft_floor",
    "split_hinge_loss",
    "wasserstein_critic_loss",
    "wasserstein_generator_loss",
]
