"""What every classification experiment does: labelled images, a network, a loss, accuracy."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from experiments.lib.config import RunConfig
from experiments.lib.data import Images, held_out, load_images
from experiments.lib.method import Method
from jaxgen.models import MLP

CLASSES = 10  # of every set below


@dataclass(frozen=True)
class ClassifierConfig(RunConfig):
    """The knobs that every classifier has."""

    data: Literal["digits", "mnist", "fashion_mnist", "cifar10_jpeg"] = "digits"
    """Data set, of ten classes."""
    learning_rate: float = 1e-3
    """Step size of the optimizer."""
    held_out: bool = False
    """Judge on the last fifth of the training images, kept out of training: to choose knobs by."""

    LEAST: ClassVar = RunConfig.LEAST | {"learning_rate": 0}

    def load(self) -> Images:
        """Open the data set.

        Raises:
          UserError: the data is not there or not whole.
        """
        data = load_images(self.data, self.data_dir)
        return held_out(data) if self.held_out else data


class State(NamedTuple):
    """What training carries from step to step."""

    params: Any
    optimizer: Any


def mlp(width: int, layers: int, activation: Callable = nn.relu) -> nn.Module:
    """Images [B, H, W, C] -> logits [B, 10], by a multilayer perceptron; no layers: linear."""
    start = nn.initializers.lecun_normal()
    network = MLP(CLASSES, hidden=(width,) * layers, activation=activation, last_init=start)
    return nn.Sequential([lambda x: x.reshape(len(x), -1), network])


def pixels(batch, data: Images):
    """The images of a batch as f32 in [0, 1]."""
    return batch["image"].astype(jnp.float32) / (data.levels - 1)


def cross_entropy(logits, labels):
    """-log softmax(logits)[label] of each example, in nats: [B, K], [B] -> [B]."""
    return optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels)


def classifier(
    network: nn.Module,
    optimizer: optax.GradientTransformation,
    data: Images,
    penalty: Callable | None = None,
) -> Method:
    """Minimise the mean cross-entropy; report it and the accuracy on the test split.

    Args:
      network: images [B, H, W, C] in [0, 1] -> logits [B, K].
      optimizer: of its parameters.
      data: the images, with labels.
      penalty: (params, images) -> scalar to add in training, or None.
    """

    def loss(params, batch):
        images = pixels(batch, data)
        fit = jnp.mean(cross_entropy(network.apply(params, images), batch["label"]))
        return fit + (penalty(params, images) if penalty else 0.0)

    def init(key, batch):
        params = network.init(key, pixels(batch, data))
        return State(params, optimizer.init(params))

    def step(state, batch, key):
        return descend(loss, optimizer, state, batch)

    def evaluate(state, batch, key):
        logits: Any = network.apply(state.params, pixels(batch, data))
        return {
            "accuracy": (jnp.argmax(logits, axis=-1) == batch["label"]).astype(jnp.float32),
            "cross_entropy": cross_entropy(logits, batch["label"]),
        }

    return Method(init, step, evaluate)


def descend(loss: Callable, optimizer: optax.GradientTransformation, state: State, *arguments):
    """One step of the optimizer on loss(params, *arguments) -> (state, {"loss": scalar})."""
    value, gradient = jax.value_and_grad(loss)(state.params, *arguments)
    updates, optimizer_state = optimizer.update(gradient, state.optimizer, state.params)
    return State(optax.apply_updates(state.params, updates), optimizer_state), {"loss": value}
