"""Smooth stand-ins for functions without a useful gradient.

counts = f_beta_counts(jax.nn.sigmoid(logits), labels)     # adds up over batches and devices
loss = 1 - jnp.mean(f_beta_score(counts))                  # macro F1
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

__all__ = [
    "ConfusionCounts",
    "FBetaCounts",
    "confusion_counts",
    "f_beta_counts",
    "f_beta_score",
    "generalized_cross_entropy_loss",
    "smooth_accuracy",
]
