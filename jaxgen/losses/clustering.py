"""The clustering VAE: latents z and a cluster y, p(x, z, y) = p(y) p(z | y) p(x | z), in nats.

Su 2018 (kexue.fm post 5887, no paper). The posterior is q(z, y | x) = q(z | x) p(y | z) with a
classifier p(y | z), and KL(q(z, y | x) || p(z, y)) is the sum of two terms:

    z = reparameterize(key, mean, log_std)
    p = softmax(classifier(z))                                          # [B, K]
    terms = sampled_cluster_kl(p, z, mean, log_std, cluster_mean, 0.0)  # or cluster_kl
    terms += kl_divergence(p, prior)                                    # prior: p(y), [B, K]
    loss = terms - gaussian_log_likelihood(x, decode(z), log_s)

Su's loss is this less constants: his MSE with weight lambda is the likelihood with log_s =
-log(lambda) / 2, less D_x / 2 log(2 pi / lambda); his term of z is `sampled_cluster_kl` with
cluster_log_std = 0, plus |eps|^2 / 2 with eps the noise in z; his term of y is the divergence from
the uniform prior, less log K. His code has lambda = 2.5.

In VaDE p(y | z) is Bayes' posterior instead of a network: p = exp(cluster_log_posterior(...)).
Learned weights of the clusters are logits here, and enter both terms as their softmax.
"""

import jax
import jax.numpy as jnp

from jaxgen.arguments import at_least_f32
from jaxgen.divergences import gaussian_kl, kl_divergence
from jaxgen.losses.likelihoods import expand
from jaxgen.losses.variational import gaussian_log_prob


def cluster_kl(posterior, mean, log_std, cluster_mean, cluster_log_std):
    """sum_y p(y | z) KL(N(mean, std^2) || N(mean_y, std_y^2)), in closed form.

    It is the expectation of `sampled_cluster_kl` over z for given probabilities. Those of a
    classifier depend on the sampled z, and then both forms differ: this one ignores the covariance
    of p(y | z) and the log-ratio. VaDE uses this form (arXiv 1611.05148), and so did Su's first
    version.

    Args:
      posterior: p(y | z), probabilities, [B, K].
      mean: of q(z | x), [B, D].
      log_std: a number, or an array that broadcasts to mean.
      cluster_mean: [K, D].
      cluster_log_std: a number, or an array that broadcasts to cluster_mean.

    Returns:
      [B].

    Raises:
      ValueError: the shapes do not match.
    """
    mean, cluster_mean, cluster_log_std = _latents(cluster_mean, cluster_log_std, mean=mean)
    posterior = _shaped((len(mean), len(cluster_mean)), posterior=posterior)
    shape = (*posterior.shape, mean.shape[1])
    log_std = expand(mean.shape, log_std=log_std)
    laws = mean[:, None], log_std[:, None], cluster_mean[None], cluster_log_std[None]
    kl = gaussian_kl(*(jnp.broadcast_to(x, shape) for x in laws))
    return jnp.sum(posterior * kl, axis=-1)


def sampled_cluster_kl(posterior, z, mean, log_std, cluster_mean, cluster_log_std):
    """log q(z | x) - sum_y p(y | z) log N(z; mean_y, std_y^2), at one sample z of q(z | x).

    For equal deviations of 1 it is 1/2 sum_y p(y | z) sum_i (z_i - mean_yi)^2 - log std_i^2, less
    |eps|^2 / 2 with eps = (z - mean) / std.

    Args:
      posterior: p(y | z), probabilities, [B, K].
      z: [B, D].
      mean: of q(z | x), a number or an array that broadcasts to z.
      log_std: likewise.
      cluster_mean: [K, D].
      cluster_log_std: a number, or an array that broadcasts to cluster_mean.

    Returns:
      [B].

    Raises:
      ValueError: the shapes do not match.
    """
    z, cluster_mean, cluster_log_std = _latents(cluster_mean, cluster_log_std, z=z)
    posterior = _shaped((len(z), len(cluster_mean)), posterior=posterior)
    log_prob = _cluster_log_prob(z, cluster_mean, cluster_log_std)
    return gaussian_log_prob(z, mean, log_std) - jnp.sum(posterior * log_prob, axis=-1)


def cluster_log_posterior(z, cluster_mean, cluster_log_std, logits):
    """log p(y | z), p(y | z) = pi_y N(z; mean_y, std_y^2) / sum_k pi_k N(z; mean_k, std_k^2).

    Jiang et al. 2017 (VaDE, arXiv 1611.05148); pi = softmax(logits). Computed with
    log_softmax, so that points far from all clusters keep their cluster: code that adds 1e-10 to
    the densities makes them uniform.

    Args:
      z: [B, D].
      cluster_mean: [K, D].
      cluster_log_std: a number, or an array that broadcasts to cluster_mean.
      logits: of the weights of the clusters, [K].

    Returns:
      [B, K].

    Raises:
      ValueError: the shapes do not match.
    """
    z, cluster_mean, cluster_log_std = _latents(cluster_mean, cluster_log_std, z=z)
    logits = _shaped((len(cluster_mean),), logits=logits)
    log_prob = _cluster_log_prob(z, cluster_mean, cluster_log_std)
    return jax.nn.log_softmax(jnp.broadcast_to(logits, log_prob.shape) + log_prob)


def assignment_information(p, q):
    """I(y; y') of the clusters of two views of each example, in nats.

    The joint law of both clusters is J = mean_b p_b q_b^T, made symmetric, and I = KL(J || r r^T)
    with r the sum of J over either axis. Ji et al. 2019, equation 3 (IIC, arXiv 1807.06653): a
    classifier that maximizes it gives both views one cluster, with certainty, and uses all clusters
    alike. It needs no labels. The mean makes it a statistic of the whole batch.

    Args:
      p: probabilities of the clusters of one view, [..., B, K]; leading axes may hold several
        classifiers.
      q: those of another view of the same examples, the shape of p.

    Returns:
      [...], in [0, log K].

    Raises:
      ValueError: the shapes differ, or are not [..., B, K].
    """
    p, q = at_least_f32(p), at_least_f32(q)
    if p.shape != q.shape or p.ndim < 2:
        raise ValueError(f"p {p.shape}, q {q.shape}; expected equal shapes [..., B, K]")
    joint = jnp.matmul(jnp.swapaxes(p, -2, -1), q, precision="highest") / p.shape[-2]
    joint = (joint + jnp.swapaxes(joint, -2, -1)) / 2
    marginal = jnp.sum(joint, axis=-1)
    independent = marginal[..., :, None] * marginal[..., None, :]
    flat = (*joint.shape[:-2], -1)
    return kl_divergence(joint.reshape(flat), independent.reshape(flat))


def _cluster_log_prob(z, cluster_mean, cluster_log_std):
    """log N(z_i; mean_k, std_k^2), [B, K]."""
    shape = (z.shape[0], *cluster_mean.shape)
    return gaussian_log_prob(jnp.broadcast_to(z[:, None], shape), cluster_mean, cluster_log_std)


def _latents(cluster_mean, cluster_log_std, **named):
    """z, cluster_mean and cluster_log_std in at least f32: [B, D], [K, D], [K, D]."""
    ((name, z),) = named.items()
    z, mean = at_least_f32(z), at_least_f32(cluster_mean)
    if z.ndim != 2 or mean.ndim != 2 or z.shape[1] != mean.shape[1]:
        raise ValueError(f"{name} {z.shape}, cluster_mean {mean.shape}; expected [B, D], [K, D]")
    return z, mean, expand(mean.shape, cluster_log_std=cluster_log_std)


def _shaped(shape, **named):
    ((name, x),) = named.items()
    x = at_least_f32(x)
    if x.shape != shape:
        raise ValueError(f"{name} {x.shape}; expected {shape}")
    return x
