"""Smooth approximations of functions without a useful gradient.

weights = sigmoid_top_k(scores, k=5, temperature=0.1)      # in [0, 1], sum 5
ranks = soft_rank(scores, where=mask)                      # 1 to n, invariant to the scale
counts = f_beta_counts(jax.nn.sigmoid(logits), labels)     # additive over batches and devices
loss = 1 - jnp.mean(f_beta_score(counts))                  # macro F1

Every function takes a temperature. Its docstring gives the limits as the temperature goes to 0 (the
hard function) and to infinity.
"""

from jaxgen.smooth.classification import (
    ConfusionCounts,
    FBetaCounts,
    confusion_counts,
    f_beta_counts,
    f_beta_score,
    generalized_cross_entropy_loss,
    smooth_accuracy,
)
from jaxgen.smooth.elementwise import (
    charbonnier,
    smooth_abs,
    smooth_floor,
    smooth_heaviside,
    smooth_norm,
    smooth_relu,
    smooth_round,
    smooth_sign,
)
from jaxgen.smooth.extrema import (
    boltzmann_max,
    mellowmax,
    smooth_max,
    smooth_maximum,
    smooth_min,
    smooth_minimum,
    soft_argmax,
    soft_one_hot,
    straight_through_one_hot,
)
from jaxgen.smooth.sort import (
    pairwise_rank,
    soft_permutation,
    soft_rank,
    soft_rank_kl,
    soft_sort,
    soft_sort_kl,
)
from jaxgen.smooth.top_k import laplace_top_k, sigmoid_top_k

__all__ = [
    "ConfusionCounts",
    "FBetaCounts",
    "boltzmann_max",
    "charbonnier",
    "confusion_counts",
    "f_beta_counts",
    "f_beta_score",
    "generalized_cross_entropy_loss",
    "laplace_top_k",
    "mellowmax",
    "pairwise_rank",
    "sigmoid_top_k",
    "smooth_abs",
    "smooth_accuracy",
    "smooth_floor",
    "smooth_heaviside",
    "smooth_max",
    "smooth_maximum",
    "smooth_min",
    "smooth_minimum",
    "smooth_norm",
    "smooth_relu",
    "smooth_round",
    "smooth_sign",
    "soft_argmax",
    "soft_one_hot",
    "soft_permutation",
    "soft_rank",
    "soft_rank_kl",
    "soft_sort",
    "soft_sort_kl",
    "straight_through_one_hot",
]
