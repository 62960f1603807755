"""Smooth accuracy, generalised cross-entropy, and F-beta from additive counts.

Accuracy is a mean over examples, so its smooth form is one value per example. F-beta is not a mean:
averaging the scores of micro-batches does not give the score of the batch. Its numerator and
denominator are sums, so add them over micro-batches, `jax.lax.psum` them over devices, and divide
last:

    counts = f_beta_counts(jax.nn.sigmoid(logits), labels)         # [N, C] -> two of [C]
    counts = jax.lax.psum(counts, "data")
    loss = 1 - jnp.mean(f_beta_score(counts))                      # macro
    loss = 1 - f_beta_score(jax.tree.map(jnp.sum, counts))         # micro
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxgen.arguments import at_least_f32, require
from jaxgen.smooth.masking import log_softmax, masked_scores


class FBetaCounts(NamedTuple):
    """Numerator and denominator of F-beta, summed over examples, in at least f32.

    Attributes:
      numerator: (1 + beta^2) TP.
      denominator: (1 + beta^2) TP + beta^2 FN + FP.
    """

    numerator: jax.Array
    denominator: jax.Array


class ConfusionCounts(NamedTuple):
    """Smooth counts, summed over examples, in at least f32.

    Attributes:
      true_positives: sum p t.
      false_positives: sum p (1 - t).
      false_negatives: sum (1 - p) t.
    """

    true_positives: jax.Array
    false_positives: jax.Array
    false_negatives: jax.Array


def smooth_accuracy(logits, labels, *, temperature=1.0, where=None):
    """Probability of the correct class, p_y with p = softmax(logits / temperature).

    kexue.fm/archives/6620. 1 - p_y is half the L1 distance between p and the one-hot label. Its
    gradient p_y (p - e_y) / temperature vanishes where the model is confidently wrong, so start
    training with cross-entropy or `generalized_cross_entropy_loss`. As temperature -> 0 it becomes
    1 if y is the argmax (split equally among ties) and 0 otherwise; as temperature -> infinity,
    1 / C.

    Args:
      logits: [..., C].
      labels: integers in [0, C), [...].
      temperature: > 0.
      where: mask of the classes to include, broadcasts to [..., C]; the others have p = 0.

    Returns:
      [...], in [0, 1]; the mean over examples is the accuracy. 0, without gradient, where the label
      is masked.

    Raises:
      ValueError: temperature <= 0, or labels are not integers of shape [...].
    """
    require(above=0, temperature=temperature)
    return jnp.exp(_log_likelihood(logits, labels, temperature, where))


def generalized_cross_entropy_loss(logits, labels, q=0.7, *, where=None):
    """(1 - p_y^q) / q with p = softmax(logits) (Zhang and Sabuncu 2018, arXiv 1805.07836).

    q = 0 gives its limit, the cross-entropy -log p_y; q = 1 gives 1 - p_y, half the absolute error
    sum |p - e_y|. The gradient is p_y^q times that of cross-entropy, so examples that the model
    finds unlikely, such as those with noisy labels, have less weight.

    Args:
      logits: [..., C].
      labels: integers in [0, C), [...].
      q: in [0, 1].
      where: mask of the classes to include, broadcasts to [..., C]; the others have p = 0.

    Returns:
      [...], in nats for q = 0. 1 / q, without gradient, where the label is masked (infinity for
      q = 0).

    Raises:
      ValueError: q is outside [0, 1], or labels are not integers of shape [...].
    """
    require(least=0, most=1, q=q)
    log_p = _log_likelihood(logits, labels, 1.0, where)
    positive = jnp.where(q == 0, 1, q)
    return jnp.where(q == 0, -log_p, -jnp.expm1(positive * log_p) / positive)


def f_beta_counts(probabilities, labels, *, beta=1.0, axis=0, where=None) -> FBetaCounts:
    """Numerator and denominator of F-beta, with counts replaced by sums of probabilities.

    F_beta = (1 + beta^2) sum(p t) / (sum p + beta^2 sum t), for beta = 1 in kexue.fm/archives/6620;
    dF_1/dp_i = (2 t_i - F_1) / sum(p + t). For labels and probabilities in {0, 1} it is the usual
    score; `optax.losses.dice_loss` with `axis=0`, `smooth` -> 0 and `reduction="none"` is 1 - F_1.

    Binary: p and t are [N]. Macro: p and t are [N, C]; average the scores of the classes. Micro:
    sum the counts over classes before dividing, or use `axis=None`.

    Args:
      probabilities: in [0, 1], any shape: sigmoid(logits / temperature), or a softmax over classes.
      labels: same shape, in [0, 1]; may be booleans or integers.
      beta: weight of recall relative to precision, > 0.
      axis: axes to sum over (the examples); None for all.
      where: mask of the entries to include, broadcasts to the shape of `probabilities`.

    Raises:
      ValueError: beta <= 0, or the shapes differ.
    """
    require(above=0, beta=beta)
    p, t = _pairs(probabilities, labels, where)
    numerator = (1 + beta**2) * jnp.sum(p * t, axis=axis)
    return FBetaCounts(numerator, jnp.sum(p + beta**2 * t, axis=axis))


def f_beta_score(counts: FBetaCounts, *, zero_division=0.0):
    """numerator / denominator, elementwise.

    Without positive labels (sum t = 0) the score and its gradient are 0 whatever the probabilities,
    so false positives are not penalized; to penalize them, add a constant to both counts first. If
    the denominator is 0 (no positives and all probabilities 0, or everything masked), the score is
    `zero_division`, without gradient.

    Args:
      counts: from `f_beta_counts`, summed over all micro-batches and devices.
      zero_division: the score where the denominator is 0; name and default as in scikit-learn.

    Returns:
      In [0, 1], of the shape of the counts, in at least f32.
    """
    numerator, denominator = map(at_least_f32, counts)
    empty = (denominator == 0) & (numerator == 0)  # not where the numerator is NaN
    return jnp.where(empty, zero_division, numerator / jnp.where(empty, 1, denominator))


def confusion_counts(logits, labels, *, temperature=1.0, axis=0, where=None) -> ConfusionCounts:
    """Smooth true and false positives and false negatives, with p = sigmoid(logits / temperature).

    The counts are additive, as in `f_beta_counts`. They give precision TP / (TP + FP), recall
    TP / (TP + FN) or Jaccard TP / (TP + FP + FN). As temperature -> 0, p is 1 for logits > 0 and
    1/2 for a logit of 0; as temperature -> infinity, every p is 1/2.

    Args:
      logits: any shape.
      labels: same shape, in [0, 1]; may be booleans or integers.
      temperature: > 0.
      axis: axes to sum over (the examples); None for all.
      where: mask of the entries to include, broadcasts to the shape of `logits`.

    Raises:
      ValueError: temperature <= 0, or the shapes differ.
    """
    require(above=0, temperature=temperature)
    logits, t = _pairs(logits, labels, where)
    p, q = jax.nn.sigmoid(logits / temperature), jax.nn.sigmoid(-logits / temperature)
    counts = (p * t, _keep(where, p * (1 - t)), q * t)
    return ConfusionCounts(*(jnp.sum(x, axis=axis) for x in counts))


def _log_likelihood(logits, labels, temperature, where):
    logits, labels = jnp.asarray(logits), jnp.asarray(labels)
    if labels.shape != logits.shape[:-1] or not jnp.issubdtype(labels.dtype, jnp.integer):
        found = f"{labels.dtype}{list(labels.shape)}"
        raise ValueError(f"labels {found}; expected integers {list(logits.shape[:-1])}")
    if not logits.shape[-1]:
        raise ValueError(f"logits {logits.shape}; expected at least one class")
    scores, valid = masked_scores(logits, where)
    log_p = log_softmax(scores, valid, temperature, -1)[0]
    return jnp.take_along_axis(log_p, labels[..., None], axis=-1)[..., 0]


def _pairs(p, t, where=None):
    p, t = at_least_f32(p), jnp.asarray(t)
    if p.shape != t.shape:
        raise ValueError(f"labels {t.shape}; expected the shape {p.shape}")
    return _keep(where, p), _keep(where, t.astype(p.dtype))


def _keep(where, x):
    return x if where is None else jnp.where(jnp.broadcast_to(where, x.shape), x, 0)
