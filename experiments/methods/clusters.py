"""Clusters compared with classes, and the baseline: K-means of pixels or features."""

import jax
import numpy as np

from jaxgen.metrics import (
    adjusted_rand_index,
    contingency,
    hungarian_accuracy,
    normalized_mutual_information,
    purity,
    used_clusters,
)

METRICS = {
    "purity": "accuracy if each cluster is named after its largest class; grows with the number of"
    " clusters",
    "accuracy": "accuracy under the best one-to-one map of clusters to classes; higher is better",
    "nmi": "mutual information of clusters and classes over the mean entropy; 1: they are equal",
    "ari": "agreement on pairs of examples, adjusted for chance; 0: by chance, 1: equal",
    "used_clusters": "number of clusters that hold an example",
}


def judged(clusters, labels, num_clusters: int, classes: int) -> dict[str, float]:
    """Compares clusters with classes, see METRICS. Examples out of range are left out.

    Args:
      clusters: [N], integers 0 ... num_clusters - 1.
      labels: [N], integers 0 ... classes - 1.
      num_clusters: of clusters, which may differ from the number of classes.
      classes: number of classes.
    """
    numbers = jax.device_get(_judge(contingency(clusters, labels, num_clusters, classes)))
    return {name: float(value) for name, value in numbers.items()}


@jax.jit
def _judge(table):
    return {
        "purity": purity(table),
        "accuracy": hungarian_accuracy(table),
        "nmi": normalized_mutual_information(table),
        "ari": adjusted_rand_index(table),
        "used_clusters": used_clusters(table),
    }


def kmeans(train, test, num_clusters: int, seed: int, starts: int = 3) -> np.ndarray:
    """Clusters of test points: the nearest of K centers that K-means finds in training points.

    scikit-learn's. Of several starts by k-means++ the one with the least sum of squares is kept; no
    labels are used.

    Args:
      train: [N, ...], pixels or features; axes after the first are flattened.
      test: [M, ...].
      num_clusters: K, at most N.
      seed: of the starts.
      starts: how many; each takes about as long.

    Returns:
      int32 [M], 0 ... K - 1.
    """
    from sklearn.cluster import KMeans  # noqa: PLC0415  slow to import

    train, test = (np.asarray(x, np.float32).reshape(len(x), -1) for x in (train, test))
    return KMeans(num_clusters, n_init=starts, random_state=seed).fit(train).predict(test)
