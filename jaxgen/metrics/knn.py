"""Classification by the nearest neighbours: a measure of how features separate classes."""

import jax
import jax.numpy as jnp

from jaxgen.arguments import require, require_integer
from jaxgen.metrics.shapes import nan_unless_finite, points


def knn_votes(features, labels, queries, k: int, num_classes: int, *, block: int = 64):
    """#{i among the k nearest features: labels_i = c}: votes for each class; argmax classifies.

    Distances are Euclidean; of features divided by their norms they order as cosines do. They are
    compared as x . q - |x|^2 / 2 of centred features, in full f32 on every device. So distances
    that differ by less than about 1e-6 of the largest |x|^2 may change places. Of equal ones the
    first in `features` is nearer, and `argmax` gives ties of votes to the first class.

    Time is O(N Q (D + log k)), memory O(N (D + block)).

    Args:
      features: [N, D].
      labels: [N], integers 0 ... C - 1; an example of another label votes for no class.
      queries: [Q, D].
      k: 1 <= k <= N.
      num_classes: C >= 1.
      block: queries whose distances to all features are held in memory at once.

    Returns:
      [Q, C], whole numbers that sum to k, in at least f32; no gradient. All NaN if an entry of
      features or queries is NaN or infinite.

    Raises:
      ValueError: k, num_classes or block is out of range, features and queries are not [N, D] and
        [Q, D], or labels are not integers [N].
    """
    features, queries = points(features=features, queries=queries)
    labels = jnp.asarray(labels)
    require_integer(least=1, k=k, num_classes=num_classes, block=block)
    require(most=len(features), k=k)
    if labels.shape != (len(features),) or not jnp.issubdtype(labels.dtype, jnp.integer):
        raise ValueError(
            f"labels {labels.dtype}{list(labels.shape)}; expected integers [{len(features)}]"
        )
    center = jnp.mean(features, axis=0)
    centred = features - center[None]
    half_squares = jnp.sum(centred**2, axis=1) / 2

    def votes(query):
        scores = jnp.matmul(centred, query - center, precision="highest") - half_squares
        _, nearest = jax.lax.top_k(scores, k)
        return jnp.sum(jax.nn.one_hot(labels[nearest], num_classes, dtype=features.dtype), axis=0)

    counts = jax.lax.map(votes, queries, batch_size=block)
    return nan_unless_finite(counts, features, queries)
