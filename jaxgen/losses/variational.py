"""Terms of the evidence lower bound of a VAE, in nats.

A plain VAE with the analytic KL term:

    z = reparameterize(key, mean, log_std)
    bound = gaussian_log_likelihood(x, decode(z), log_s) - gaussian_kl_to_standard(mean, log_std)

`elbo` is the sampled form, for any prior.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxgen.arguments import as_float, at_least_f32, require, require_scalar
from jaxgen.losses.likelihoods import expand, log_normal


def reparameterize(key, mean, log_std):
    """z = mean + std eps, eps ~ N(0, I) (Kingma and Welling 2014, arXiv 1312.6114, section 2.4).

    Args:
      key: a PRNG key, used once.
      mean: any shape.
      log_std: a number, or an array that broadcasts to mean.

    Returns:
      z of the shape and dtype of mean.

    Raises:
      ValueError: log_std does not broadcast to mean.
    """
    return _reparameterize(key, mean, log_std)[0]


def gaussian_log_prob(z, mean, log_std):
    """log N(z; mean, diag(std^2)), summed over the last axis.

    The KL term of one sample z of q is gaussian_log_prob(z, mean, log_std) -
    gaussian_log_prob(z, 0, 0). Its expectation is `gaussian_kl_to_standard(mean, log_std)`.

    Args:
      z: [..., D].
      mean: a number, or an array that broadcasts to z.
      log_std: likewise.

    Returns:
      [...].

    Raises:
      ValueError: z is a scalar, or mean or log_std does not broadcast to z.
    """
    z = at_least_f32(z)
    if not z.ndim:
        raise ValueError(f"z {z.shape}; expected [..., D]")
    mean, log_std = expand(z.shape, mean=mean), expand(z.shape, log_std=log_std)
    return jnp.sum(log_normal(z - mean, log_std), axis=-1)


class ELBOTerms(NamedTuple):
    """Terms of the evidence lower bound for one sample z of q(z | x), each [B].

    Attributes:
      log_likelihood: log p(x | z).
      log_prior: log p(z).
      log_posterior: log q(z | x).
    """

    log_likelihood: Any
    log_prior: Any
    log_posterior: Any

    @property
    def bound(self):
        """log p(x | z) + log p(z) - log q(z | x); its expectation is at most log p(x)."""
        return self.log_likelihood + self.log_prior - self.log_posterior


def elbo(encoder: Callable, log_likelihood: Callable, log_prior: Callable, key, x) -> ELBOTerms:
    """log p(x | z), log p(z), log q(z | x) at z = E(x) + s eps: a VAE with any prior.

    Kingma and Welling 2014, equation 2 (arXiv 1312.6114). With a flow F as the prior and scalar s1
    and s2 it is the f-VAE of Su and Wu 2018 (arXiv 1809.05861), F_x(u) = F(s1 u + E(x)):

        terms = elbo(
            lambda x: (encode(x), log_s1),
            lambda x, h: gaussian_log_likelihood(x, decode(h), soft_floor(log_s2, -6)),
            lambda h: flows.log_prob(flow, flow_params, h),
            key, x,
        )
        loss = -terms.bound.mean()

    log_s2 needs a floor: with as many latents as pixels the decoder can be exact, and the loss is
    then unbounded below as s2 -> 0. `log_prior` of a plain VAE is gaussian_log_prob(z, 0, 0).

    For x = `flows.dequantize(key, pixels)` add the log-determinant that it returns to the bound:
    the sum bounds the log-probability of the pixels, and `flows.bits_per_dim` converts it. For
    `importance_weighted_bound`, `jax.vmap` this function over K keys and pass `bound`, [K, B].

    Args:
      encoder: x -> (mean [B, ...], log_std that broadcasts to mean) of q(z | x).
      log_likelihood: (x, z) -> log p(x | z), [B].
      log_prior: z -> log p(z), [B].
      key: a PRNG key, used once.
      x: [B, ...].

    Returns:
      `ELBOTerms` of [B].

    Raises:
      ValueError: mean has no batch axis, log_std does not broadcast to it, or a term is not [B].
    """
    z, log_posterior = _reparameterize(key, *encoder(x))
    if not z.ndim:
        raise ValueError(f"mean {z.shape}; expected [B, ...]")
    log_posterior = jnp.sum(log_posterior, axis=tuple(range(1, z.ndim)))
    terms = {"log_likelihood": log_likelihood(x, z), "log_prior": log_prior(z)}
    for name, term in terms.items():
        if jnp.shape(term) != z.shape[:1]:
            raise ValueError(f"{name} {jnp.shape(term)}; expected [B] for mean {z.shape}")
    return ELBOTerms(**jax.tree.map(at_least_f32, terms), log_posterior=log_posterior)


def free_bits(kl, floor):
    """max(lambda, mean of the KL terms over the batch), for each group of latents.

    Kingma et al. 2016, equation 15 (arXiv 1606.04934): a group costs at least lambda, so that it is
    not pushed below. The mean makes it a statistic of the whole batch. The gradient of a group
    below lambda is 0.

    Args:
      kl: [B, G], KL terms of the groups, in nats.
      floor: lambda >= 0, a number, in nats. The paper tries 0.125 to 2 per group.

    Returns:
      [G]; their sum stands for the KL term.

    Raises:
      ValueError: kl is not [B, G], or floor is negative or no number.
    """
    require(least=0, floor=floor)
    require_scalar(floor=floor)
    kl = at_least_f32(kl)
    if kl.ndim != 2:
        raise ValueError(f"kl {kl.shape}; expected [B, G]")
    mean = jnp.mean(kl, axis=0)
    return jnp.where(mean < floor, floor, mean)


def importance_weighted_bound(log_weights):
    """log 1/K sum_k w_k,  w_k = p(x, z_k) / q(z_k | x): a bound on log p(x).

    Burda et al. 2016, equation 8 (IWAE, arXiv 1509.00519). For K = 1 it is the ELBO; its
    expectation grows with K up to log p(x).

    Args:
      log_weights: [K, B], log w_k, in nats: `ELBOTerms.bound` of K samples.

    Returns:
      [B].

    Raises:
      ValueError: log_weights is not [K, B] with K >= 1.
    """
    log_weights = at_least_f32(log_weights)
    if log_weights.ndim != 2 or not log_weights.shape[0]:
        raise ValueError(f"log_weights {log_weights.shape}; expected [K, B] with K >= 1")
    return jax.nn.logsumexp(log_weights, axis=0) - math.log(log_weights.shape[0])


def _reparameterize(key, mean, log_std):
    """z, and log q(z) elementwise. The latter is of eps, which (z - mean) / std would round."""
    mean = as_float(mean)
    log_std = expand(mean.shape, log_std=log_std)
    wide = at_least_f32(mean)
    eps = jax.random.normal(key, mean.shape, jnp.float32).astype(wide.dtype)
    z = wide + jnp.exp(log_std) * eps
    return z.astype(mean.dtype), log_normal(eps, jnp.zeros_like(eps)) - log_std
