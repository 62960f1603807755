"""Quality of frozen features: the accuracy of simple classifiers that are trained on them.

Steps, rate and decay are the same for all features. Compare features only by the same probe. NaN or
infinite training features give NaN.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.lib.batches import in_blocks
from experiments.methods.classification import State, cross_entropy, descend
from jaxgen.metrics import knn_votes
from jaxgen.models import MLP

METRICS = {
    "knn": "share of the test examples that the 20 nearest training features classify; higher is"
    " better",
    "linear": "share that a linear classifier of the frozen features gets right; higher is better",
    "mlp": "share that a perceptron with 200 hidden units on them gets right; higher is better",
}
_NEIGHBOURS = 20
_HIDDEN = 200
_BLOCK = 512  # examples that are encoded at once
_STEPS = 3000  # of a probe's training
_BATCH, _RATE, _DECAY = 256, 3e-3, 1e-2


class Encoded(NamedTuple):
    """A split seen through an encoder: features f32 [N, D] and labels int [N], in numpy."""

    features: np.ndarray
    labels: np.ndarray


def encode(encoder: Callable, split) -> Encoded:
    """Features and labels of all examples of a split, in its order.

    Args:
      encoder: batch -> features [B, ...], a compiled function; axes after the first are flattened.
        It sees batches of one size, without dropout or statistics of the batch.
      split: of a data set with labels.
    """

    def both(batch):
        features = jnp.asarray(encoder(batch), jnp.float32)
        return features.reshape(len(features), -1), batch["label"]

    return Encoded(*in_blocks(both, split, _BLOCK))


def scores(
    train: Encoded, test: Encoded, classes: int, key, *, steps: int = _STEPS
) -> dict[str, float]:
    """Accuracy on the test split of three probes of the training split, see METRICS.

    The neighbours are the nearest by Euclidean distance of the features as they are. Normalise the
    features for cosines.

    Args:
      train: features and labels to learn from.
      test: features and labels to be judged by.
      classes: labels are 0 ... classes - 1.
      key: a PRNG key, used once.
      steps: as in `probe`.
    """
    linear, mlp = jax.random.split(key)
    votes = _votes(*train, test.features, min(_NEIGHBOURS, len(train.labels)), classes)
    return {
        "knn": _share(votes, test.labels),
        "linear": probe(train, test, classes, linear, steps=steps),
        "mlp": probe(train, test, classes, mlp, (_HIDDEN,), steps=steps),
    }


def probe(
    train: Encoded,
    test: Encoded,
    classes: int,
    key,
    hidden: tuple[int, ...] = (),
    *,
    steps: int = _STEPS,
) -> float:
    """Accuracy on the test split of a softmax classifier of the training split.

    Trained by AdamW on batches of 256 examples that are drawn with replacement, with a cosine
    decay of the rate. Each feature is standardised by its mean and deviation over the training
    split. The classifier of Deep InfoMax's published numbers has dropout and batch normalization as
    well; this one has neither.

    Args:
      train: features and labels to learn from.
      test: features and labels to be judged by.
      classes: labels are 0 ... classes - 1.
      key: a PRNG key, used once; equal keys give equal results.
      hidden: units of the hidden layers; (): a linear classifier.
      steps: of training. On MNIST's pixels 3,000 give what scikit-learn's logistic regression does.
    """
    return _share(_probe(*train, test.features, key, classes, hidden, steps), test.labels)


@functools.partial(jax.jit, static_argnames=("classes", "hidden", "steps"))
def _probe(features, labels, queries, key, classes: int, hidden: tuple[int, ...], steps: int):
    """Trains on features and labels -> logits [Q, classes] of the queries."""
    network = MLP(classes, hidden)
    schedule = optax.cosine_decay_schedule(_RATE, steps)
    optimizer = optax.adamw(schedule, weight_decay=_DECAY)
    center, spread = jnp.mean(features, axis=0), jnp.std(features, axis=0)
    scale = jnp.where(spread == 0, 1, spread)

    def logits(params, x):
        return network.apply(params, (x - center[None]) / scale[None])

    def loss(params, rows):
        return jnp.mean(cross_entropy(logits(params, features[rows]), labels[rows]))

    def step(state, key):
        rows = jax.random.randint(key, (_BATCH,), 0, len(features))
        return descend(loss, optimizer, state, rows)

    start, key = jax.random.split(key)
    params = network.init(start, features[:1])
    state = State(params, optimizer.init(params))
    state, _ = jax.lax.scan(step, state, jax.random.split(key, steps))
    return logits(state.params, queries)


_votes = jax.jit(knn_votes, static_argnums=(3, 4))


def _share(scores, labels) -> float:
    """How often the largest score is that of the label; NaN, not class 0, where scores are NaN."""
    scores = np.asarray(scores)
    right = np.where(np.isnan(scores).any(axis=1), np.nan, scores.argmax(axis=1) == labels)
    return float(np.mean(right))
