"""Deep InfoMax and contrastive learning: scores of pairs, negative pairs, and their losses.

Deep InfoMax (Hjelm et al. 2019, arXiv 1808.06670) has three terms. With a code z [B, D] of each
image and a feature map c [B, H, W, D]:

local    = -mean(f_information_bound(jensen_shannon(), pair_scores(z, c)))   # any bound, [H, W, B]
global_  = -mean(info_nce_bound(pair_scores(z, summary)))                    # summary [B, D]
prior    = mean(gaussian_kl_to_standard(mean, log_std))

These take all pairs of a batch, B - 1 negatives for each image. A discriminator of concatenations,
as in kexue.fm post 6024, gets one negative for each image:

terms    = logistic_critic_loss(critic(z, c), critic(z, derange(key, c)))    # sum of both means

The adversarial prior is a game between a critic of codes and the encoder:

critic   = logistic_critic_loss(critic(draws of the prior), critic(stop_gradient(z)))
encoder  = non_saturating_generator_loss(critic(z))                          # critic held fixed

Negatives come from the batch that a function is given: under `jit` from the global batch, inside
`pmap` or `shard_map` from the examples of one device.
"""

import jax
import jax.numpy as jnp

from jaxgen.arguments import at_least_f32, require, require_scalar
from jaxgen.divergences.mutual_information import square_scores


def pair_scores(codes, others, temperature=1.0):
    """scores[..., i, j] = <codes_i, others_j> / temperature, at each location of `others`.

    The encode-and-dot-product discriminator of Deep InfoMax (Hjelm et al. 2019, arXiv 1808.06670,
    section 4), after its two networks. The product is in full precision, because losses take
    exponentials of the scores.

    Args:
      codes: [B, D].
      others: [B, D], or a feature map [B, H, W, D]; any number of axes between the first and last.
      temperature: > 0, a scalar.

    Returns:
      [B, B], or [H, W, B, B]: the locations lead, as the bounds of `jaxgen.divergences` take them.

    Raises:
      ValueError: the shapes do not fit, or temperature <= 0 or not a scalar.
    """
    codes, others = at_least_f32(codes), at_least_f32(others)
    require(above=0, temperature=temperature)
    require_scalar(temperature=temperature)
    if codes.ndim != 2 or others.ndim < 2 or (len(others), others.shape[-1]) != codes.shape:
        raise ValueError(
            f"codes {codes.shape}, others {others.shape}; expected [B, D] and [B, ..., D]"
        )
    size, *places, dims = others.shape
    scores = jnp.matmul(others.reshape(-1, dims), codes.T, precision="highest") / temperature
    by_place = scores.reshape(size, -1, size).transpose(1, 2, 0)  # [j, k, i] -> [k, i, j]
    return by_place.reshape(*places, size, size)


def local_info_nce_loss(scores):
    """-log softmax of the positive against all locations of all other images, in nats.

    l_i = mean over locations k of log(exp s_kii + sum_{k', j != i} exp s_k'ij) - s_kii

    The InfoNCE of Deep InfoMax (Hjelm et al. 2019, arXiv 1808.06670, equation 5, and its code):
    (B - 1) H W negatives for every positive. The authors' code masks an image's own locations by a
    score of -10 and not of -infinity, so that they still count. At a single location this is
    log B - `info_nce_bound`; `info_nce_bound` of several compares each location with itself in
    other images only.

    Args:
      scores: [..., B, B] with locations in the leading axes, B >= 2; see `pair_scores`.

    Returns:
      [B], at least 0; log(1 + (B - 1) H W) where all scores are equal.

    Raises:
      ValueError: scores are not square, or B < 2.
    """
    scores = square_scores(scores)
    size = scores.shape[-1]
    scores = scores.reshape(-1, size, size)
    own = jnp.broadcast_to(jnp.eye(size, dtype=bool), scores.shape)
    others = jax.nn.logsumexp(jnp.where(own, -jnp.inf, scores), axis=(0, 2))
    positives = jnp.diagonal(scores, axis1=1, axis2=2)
    return jnp.mean(jax.nn.softplus(others[None, :] - positives), axis=0)


def nt_xent_loss(x, y, temperature=0.5):
    """Cross-entropy of finding an example's other view among all 2 B - 1 other codes, in nats.

    With z = (x, y) divided by their norms, and j the other view of i:

    l_i = log(sum_{k != i} exp(z_i . z_k / temperature)) - z_i . z_j / temperature

    Chen et al. 2020 (SimCLR, arXiv 2002.05709, equation 1). The negatives of a view are the other
    views of both kinds; `info_nce_bound(pair_scores(x, y))` has those of the other kind alone.

    Args:
      x: [B, D], codes of one view, of any norm, B >= 2. A code of zeros has the cosine 0.
      y: [B, D], codes of another view of the same examples.
      temperature: > 0, a scalar. The paper has 0.5 on CIFAR-10 and 0.1 on ImageNet.

    Returns:
      [B], the mean over both views of an example.

    Raises:
      ValueError: the shapes differ or are not [B, D], B < 2, temperature <= 0 or not a scalar.
    """
    x, y = at_least_f32(x), at_least_f32(y)
    if x.ndim != 2 or x.shape != y.shape or len(x) < 2:
        raise ValueError(f"x {x.shape}, y {y.shape}; expected equal shapes [B, D] with B >= 2")
    codes = _unit(jnp.concatenate([x, y]))
    scores = pair_scores(codes, codes, temperature)
    others = jnp.where(jnp.eye(len(codes), dtype=bool), -jnp.inf, scores)
    positives = jnp.diagonal(jnp.roll(scores, len(x), axis=1))
    return jnp.mean((jax.nn.logsumexp(others, axis=1) - positives).reshape(2, -1), axis=0)


def derange(key, x):
    """Gives every example another one's partner: x rolled by 1 ... B - 1 places, chosen at random.

    A random permutation, as in the code of kexue.fm post 6024, leaves one example of a batch in its
    place on average, whatever B is, and so has positives among the negatives.

    Args:
      key: a PRNG key, used once.
      x: [B, ...], B >= 2.

    Returns:
      [B, ...] in x's dtype: a permutation of the rows without fixed points. Each of the other
      examples is the partner with equal probability.

    Raises:
      ValueError: x has no axis, or B < 2.
    """
    x = jnp.asarray(x)
    if x.ndim < 1 or len(x) < 2:
        raise ValueError(f"x {x.shape}; expected [B, ...] with B >= 2")
    return jnp.roll(x, jax.random.randint(key, (), 1, len(x)), axis=0)


def _unit(x):
    """x divided by its norm over the last axis; zeros stay zeros."""
    square = jnp.sum(x**2, axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.where(square == 0, 1, square))
