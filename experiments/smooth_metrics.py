"""Training on the metric itself: smooth F1 and smooth accuracy against cross-entropy.

Su Jianlin's post 6620 (kexue.fm); generalised cross-entropy: Zhang & Sabuncu 2018 (arXiv
1805.07836). Ten detectors, "is it a c?", share one linear layer; each loss trains its own from the
same start on the same batches, after a warm-up on cross-entropy.

    python -m experiments.smooth_metrics --seeds 8                   F1 0.874, 0.5 min
    python -m experiments.smooth_metrics --data fashion_mnist --data-dir DIR    F1 0.836, 1 min

`f1` is the mean over the classes of F1 on the test split at the threshold 1/2.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.lib.config import AtLeast
from experiments.lib.launch import launch
from experiments.lib.method import Method
from experiments.lib.pictures import figure
from experiments.lib.sources.image_set import Images
from experiments.methods.classification import (
    ClassifierConfig,
    State,
    descend,
    mlp,
    pixels,
)
from experiments.methods.comparison import side_by_side
from jaxgen import smooth


@dataclass(frozen=True)
class Config(ClassifierConfig):
    """The knobs of training on smooth metrics."""

    learning_rate: float = 0.03
    """Peak of Adam's step size; a cosine takes it to zero."""
    steps: int = 2000
    """Training steps."""
    batch_size: int = 512
    """Examples per step."""
    width: Annotated[int, AtLeast(1)] = 64
    """Units of each hidden layer."""
    layers: Annotated[int, AtLeast(0)] = 0
    """Hidden layers; 0: logistic regression."""
    warm_up: Annotated[float, AtLeast(0)] = 0.25
    """Share of the steps in which the smooth metrics' runs still follow cross-entropy."""


METRICS = {
    "f1": "macro F1 on the test split; higher is better",
    "precision": "share of the examples called a class that have it; mean over the classes",
    "recall": "share of the examples of a class that are called it; mean over the classes",
}
SMOKE = Config(steps=4, batch_size=16, eval_every=2, log_every=1)


class Progress(NamedTuple):
    """A classifier and how far it has come."""

    model: State
    count: Any  # steps done


def losses() -> dict[str, Callable]:
    """Name -> (logits [B, C], labels [B, C] in {0, 1}) -> scalar."""

    def cross_entropy(logits, labels):
        return jnp.mean(optax.losses.sigmoid_binary_cross_entropy(logits, labels))

    def balanced(logits, labels):
        classes = labels.shape[-1]
        weights = jnp.where(labels == 1, classes / 2, classes / (classes - 1) / 2)
        return jnp.mean(weights * optax.losses.sigmoid_binary_cross_entropy(logits, labels))

    def two_classes(logits):
        return jnp.stack([jnp.zeros_like(logits), logits], axis=-1)

    def accuracy(logits, labels):
        return 1 - jnp.mean(smooth.smooth_accuracy(two_classes(logits), labels))

    def generalized(logits, labels):
        return jnp.mean(smooth.generalized_cross_entropy_loss(two_classes(logits), labels))

    def f1(logits, labels):
        counts = smooth.f_beta_counts(jax.nn.sigmoid(logits), labels)
        return 1 - jnp.mean(smooth.f_beta_score(counts))

    return {
        "cross_entropy": cross_entropy,
        "balanced_cross_entropy": balanced,
        "generalized_cross_entropy": generalized,
        "smooth_accuracy": accuracy,
        "smooth_f1": f1,
    }


def build(config: Config):
    """Images, and a classifier for each loss."""
    data = config.images()
    network = mlp(data.classes, config.width, config.layers)
    warm_up = round(config.warm_up * config.steps)
    optimizer = optax.adam(optax.cosine_decay_schedule(config.learning_rate, config.steps))

    def answers(params, batch):
        """Logits and truth of "is it a c?" for every class c."""
        logits: Any = network.apply(params, pixels(batch, data))
        return logits, jax.nn.one_hot(batch["label"], data.classes, dtype=jnp.int32)

    def classifier(metric_loss):
        def loss(params, batch, count):
            pair = answers(params, batch)
            return jnp.where(count < warm_up, losses()["cross_entropy"](*pair), metric_loss(*pair))

        def init(key, batch):
            params = network.init(key, pixels(batch, data))
            return Progress(State(params, optimizer.init(params)), jnp.zeros((), jnp.int32))

        def step(state, batch, key):
            model, metrics = descend(loss, optimizer, state.model, batch, state.count)
            return Progress(model, state.count + 1), metrics

        def evaluate(state, batch, key):
            logits, labels = answers(state.model.params, batch)
            called = logits > 0
            shares = {"hits": called * labels, "called": called, "positives": labels}
            return {
                f"{name}/{c}": share[:, c].astype(jnp.float32)
                for name, share in shares.items()
                for c in range(data.classes)
            }

        return Method(init, step, evaluate, report=scores, meanings=METRICS)

    methods = {name: classifier(loss) for name, loss in losses().items()}
    return data, side_by_side(methods, pictures(answers, data))


def scores(shares: dict) -> dict:
    """Macro F1, precision and recall from the shares per class of the test split."""

    def of_classes(name):
        return np.stack([share for key, share in shares.items() if key.startswith(f"{name}/")])

    hits, called, positives = map(of_classes, ("hits", "called", "positives"))
    return {
        "f1": np.mean(2 * hits / np.maximum(called + positives, 1e-9), axis=0),
        "precision": np.mean(hits / np.maximum(called, 1e-9), axis=0),
        "recall": np.mean(hits / np.maximum(positives, 1e-9), axis=0),
    }


def pictures(answers: Callable, data: Images):
    """Macro F1 on the test split for every threshold on the probability."""
    everything = data.test[np.arange(min(len(data.test), 10_000))]
    thresholds = np.linspace(0.01, 0.99, 99)

    def draw(state, batch, key):
        def lines(sheet):
            axes = sheet.subplots()
            for name, progress in state.items():
                logits, labels = map(np.asarray, answers(progress.model.params, everything))
                probabilities = np.asarray(jax.nn.sigmoid(logits))
                called = [probabilities > threshold for threshold in thresholds]
                f1 = [(2 * (c * labels).sum(0) / (c.sum(0) + labels.sum(0))).mean() for c in called]
                axes.plot(thresholds, f1, label=name)
            axes.axvline(0.5, color="grey", linewidth=0.5)
            axes.set(
                title="F1 of each trained classifier by threshold; the grey line is at 0.5",
                xlabel="threshold on the probability",
                ylabel="macro F1 on the test split",
            )
            sheet.legend(loc="outside right upper", title="trained on")

        return {"f1_by_threshold": figure(lines, width=10)}

    return draw


if __name__ == "__main__":
    launch(build, Config)
