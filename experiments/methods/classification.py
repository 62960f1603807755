"""Classification of images: the method, its network, and its flags."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from experiments.lib.config import AtLeast
from experiments.lib.errors import UserError
from experiments.lib.method import Method
from experiments.lib.sources.image_set import Images
from experiments.lib.sources.images import ImageConfig
from jaxgen.models import MLP

METRICS = {
    "accuracy": "share of the test examples whose class is found",
    "cross_entropy": "mean over the test examples, in nats; lower is better",
}


@dataclass(frozen=True)
class ClassifierConfig(ImageConfig):
    """The flags of every classifier."""

    learning_rate: Annotated[float, AtLeast(0)] = 1e-3
    """Step size of the optimizer."""

    def images(self) -> Images:
        """Opens the data set.

        Raises:
          UserError: the data is not there or not whole, or has no labels.
        """
        data = super().images()
        if not data.labelled:
            raise UserError(f"--data {self.data}: has no labels; expected a set with classes")
        return data


class State(NamedTuple):
    """The state of training."""

    params: Any
    opt_state: Any


def mlp(classes: int, width: int, layers: int, activation: Callable = nn.relu) -> nn.Module:
    """A perceptron on images [B, H, W, C] -> logits [B, classes]; with 0 layers it is linear."""
    network = MLP(classes, hidden=(width,) * layers, activation=activation)
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
    """Minimises the mean cross-entropy; reports it and the accuracy on the test split.

    Args:
      network: images [B, H, W, C] in [0, 1] -> logits [B, K].
      optimizer: of its parameters.
      data: the images, with labels.
      penalty: (params, images) -> scalar that is added to the training loss, or None.
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

    return Method(init, step, evaluate, meanings=METRICS)


def descend(loss: Callable, optimizer: optax.GradientTransformation, state: State, *arguments):
    """One step of the optimizer on loss(params, *arguments) -> (state, {"loss": scalar})."""
    value, gradient = jax.value_and_grad(loss)(state.params, *arguments)
    updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
    return State(optax.apply_updates(state.params, updates), opt_state), {"loss": value}
