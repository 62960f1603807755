"""Fine-tuning with a learning rate per layer or an operation per gradient.

Layer-wise decay: Clark et al. 2020 (arXiv 2003.10555); larger rates below, for inputs that changed:
Lee et al. 2022 (2210.11466); rates and operations per parameter: Su Jianlin's post 6418 (kexue.fm).

    python -m experiments.layerwise_learning_rate --seeds 8          0.702 accuracy, 0.3 min

A network learns digits, then sees them shifted by a pixel and under noise, with five images of each
class to adapt to. Reported is the accuracy on the changed test split of each way of fine-tuning.
"""

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.lib.config import Above, AtLeast
from experiments.lib.dataset import Arrays
from experiments.lib.errors import UserError
from experiments.lib.launch import launch
from experiments.lib.method import Method
from experiments.lib.pictures import figure
from experiments.lib.sources.image_set import Images
from experiments.methods.classification import (
    ClassifierConfig,
    State,
    classifier,
    cross_entropy,
    descend,
    mlp,
    pixels,
)
from experiments.methods.comparison import side_by_side
from jaxgen.optimizers import by_path, clip_by_leaf_norm, layer_wise_decay, scale_by_tree

_MOST = 10_000  # images to learn from first, at most: all of them lie on every device


@dataclass(frozen=True)
class Config(ClassifierConfig):
    """The knobs; those of each way of fine-tuning were chosen with `--held-out`."""

    steps: int = 300
    """Steps of fine-tuning."""
    batch_size: int = 32
    """Examples per step, of both trainings."""
    pretraining: Annotated[int, AtLeast(0)] = 500
    """Steps of pre-training on images as they are, part of the initialisation."""
    shots: Annotated[int, AtLeast(1)] = 5
    """Training images of each class after the change; which ones follows from the seed."""
    shift: Annotated[int, AtLeast(0)] = 1
    """The change: pixels by which the images move to the right, around the edge ..."""
    noise: Annotated[float, AtLeast(0)] = 0.3
    """... and the standard deviation of noise that is added to them, white being 1."""
    held_out: bool = False
    """Test on a third of the training images, kept out of training: to choose knobs by."""
    width: Annotated[int, AtLeast(1)] = 128
    """Units of each hidden layer."""
    layers: Annotated[int, AtLeast(0)] = 2
    """Hidden layers."""
    pretraining_rate: Annotated[float, AtLeast(0)] = 1e-3
    """Step size of Adam in pre-training."""
    learning_rate: float = 1e-2
    """Step size of Adam in fine-tuning all layers alike."""
    scratch_rate: Annotated[float, AtLeast(0)] = 1e-2
    """Of the network that was not pre-trained."""
    head_rate: Annotated[float, AtLeast(0)] = 1e-2
    """Of the last layer alone, the body frozen."""
    decay_rate: Annotated[float, AtLeast(0)] = 1e-2
    """Of the last layer, where those below have smaller ones."""
    decay: Annotated[float, Above(0)] = 0.7
    """Factor between the rates of a layer and the one above it."""
    growth_rate: Annotated[float, AtLeast(0)] = 3e-3
    """Of the last layer, where those below have larger ones."""
    growth: Annotated[float, Above(0)] = 2.0
    """Factor between the rates of a layer and the one above it."""
    clipped_rate: Annotated[float, AtLeast(0)] = 3e-3
    """Where each leaf's gradient is clipped."""
    max_norm: Annotated[float, Above(0)] = 0.01
    """Largest norm of a leaf's gradient."""


SMOKE = Config(steps=4, pretraining=3, batch_size=16, width=8, layers=1, eval_every=2, log_every=1)


def build(config: Config):
    """The changed images, and one network fine-tuned to them in every way."""
    # The task holds out its own part.
    data = dataclasses.replace(config, held_out=False).images()
    source, target = tasks(config, data)
    return target, fine_tuned(config, source, target, optimizers(config))


def optimizers(config: Config) -> dict[str, optax.GradientTransformation]:
    """Ways to fine-tune a network whose layers are called Dense_0, Dense_1, ..., head last."""
    head = f"/Dense_{config.layers}/"
    number = {r"/Dense_(\d+)/": lambda found: int(found[1])}

    def layer_wise(rate, decay):
        scales = layer_wise_decay(number, decay, config.layers)
        return optax.chain(optax.adam(rate), scale_by_tree(scales))

    return {
        "as_it_is": optax.set_to_zero(),
        "scratch": optax.adam(config.scratch_rate),
        "uniform": optax.adam(config.learning_rate),
        "head": optax.chain(
            optax.adam(config.head_rate), scale_by_tree(by_path({head: 1.0}, default=0.0))
        ),
        "decay": layer_wise(config.decay_rate, config.decay),
        "growth": layer_wise(config.growth_rate, config.growth),
        "clipped": optax.chain(clip_by_leaf_norm(config.max_norm), optax.adam(config.clipped_rate)),
    }


def tasks(config: Config, data: Images) -> tuple[Arrays, Images]:
    """(images as they are, a few that are changed and the changed ones to be judged on)."""
    train_split, test_split = (part[np.arange(len(part))] for part in (data.train, data.test))
    rng = np.random.default_rng(config.seed)
    order = rng.permutation(len(train_split["label"]))
    label = train_split["label"][order]
    of_class = [np.flatnonzero(label == c)[: config.shots] for c in range(data.classes)]
    chosen = np.concatenate(of_class)
    if len(chosen) < data.classes * config.shots:
        raise UserError(f"--shots {config.shots}: {data.name} has fewer of some class")
    few, rest = order[chosen], np.delete(order, chosen)
    held_out, source = np.split(rest, [len(rest) // 3])

    def take(columns, index):
        return {name: columns[name][index] for name in ("image", "label")}

    def changed(columns):
        image = np.roll(columns["image"], config.shift, axis=2) / (data.levels - 1)
        image = np.clip(image + config.noise * rng.standard_normal(image.shape), 0, 1)
        return Arrays(columns | {"image": np.round(image * (data.levels - 1)).astype(np.uint8)})

    train_few = changed(take(train_split, few))
    judged = take(train_split, held_out) if config.held_out else take(test_split, slice(None))
    target = data._replace(train=train_few, test=changed(judged))
    return Arrays(take(train_split, source[:_MOST])), target


class Runs(NamedTuple):
    """What training carries from step to step."""

    start: Any  # the parameters with which fine-tuning begins
    ways: dict[str, State]


def fine_tuned(config: Config, source: Arrays, target: Images, ways: dict) -> Method:
    """All ways side by side, from one pre-trained network; "scratch" from a new one."""
    network = mlp(target.classes, config.width, config.layers)
    method = side_by_side({n: classifier(network, way, target) for n, way in ways.items()})

    def init(key, batch):
        key, new_key = jax.random.split(key)
        new = network.init(new_key, pixels(batch, target))
        learned = pretrained(config, network, source, target, key)

        def begin(name, way):
            # A copy: the step consumes the state, and can do so with a buffer only once.
            params = jax.tree.map(jnp.copy, new if name == "scratch" else learned)
            return State(params, way.init(params))

        return Runs(learned, {name: begin(name, way) for name, way in ways.items()})

    def step(state, batch, key):
        new, metrics = method.step(state.ways, batch, key)
        return state._replace(ways=new), metrics

    def evaluate(state, batch, key):
        return method.evaluate(state.ways, batch, key)

    drawn = pictures(network, target)
    return Method(init, step, evaluate, pictures=drawn, meanings=method.meanings)


def pretrained(config: Config, network: nn.Module, source: Arrays, data: Images, key):
    """Parameters after training on the source, on batches drawn with replacement."""
    columns = jax.tree.map(jnp.asarray, source.columns)
    optimizer = optax.adam(config.pretraining_rate)
    key, init_key = jax.random.split(key)

    def loss(params, batch):
        logits = network.apply(params, pixels(batch, data))
        return jnp.mean(cross_entropy(logits, batch["label"]))

    def step(state, key):
        rows = jax.random.randint(key, (config.batch_size,), 0, len(source))
        return descend(loss, optimizer, state, {k: x[rows] for k, x in columns.items()})

    params = network.init(init_key, pixels({"image": columns["image"][:1]}, data))
    start = State(params, optimizer.init(params))
    return jax.lax.scan(step, start, jax.random.split(key, config.pretraining))[0].params


def pictures(network: nn.Module, data: Images):
    """How far each way moved each layer; and its accuracy on the whole test split."""
    measure = jax.jit(classifier(network, optax.identity(), data).evaluate)

    def kernels(params):
        leaves = {jax.tree_util.keystr(p): x for p, x in jax.tree.leaves_with_path(params)}
        return [x for name, x in sorted(leaves.items()) if "kernel" in name]

    def draw(state, batch, key):
        def panels(sheet):
            left, right = sheet.subplots(1, 2)
            start = kernels(state.start)
            for name, way in state.ways.items():
                if name not in ("scratch", "as_it_is"):
                    moved = [
                        np.linalg.norm(new - old) / np.linalg.norm(old)
                        for new, old in zip(kernels(way.params), start, strict=True)
                    ]
                    left.plot(range(len(start)), moved, marker="o", label=name)
            left.set(
                title="how far fine-tuning moved each layer",
                xlabel="layer; the last is the head",
                ylabel="|new kernel - old| / |old|",
            )
            left.set_xticks(range(len(start)))
            sheet.legend(loc="outside lower left", ncols=5)
            test = data.test[np.arange(len(data.test))]
            accuracy = [np.mean(measure(w, test, key)["accuracy"]) for w in state.ways.values()]
            right.barh(list(state.ways), accuracy)
            right.bar_label(right.containers[0], fmt="%.3f", padding=2)
            right.set(
                title="accuracy on the changed images",
                xlim=(0, 1.1),
                xlabel="share of the test split that is right",
            )

        return {"movement_and_accuracy": figure(panels, width=12)}

    return draw


if __name__ == "__main__":
    launch(build, Config)
