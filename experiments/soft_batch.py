"""Large batches from small ones: accumulated gradients, also hidden in the momentum.

Su Jianlin's posts 5879, 6794 (accumulation) and 8634, 9512 (hidden in the momentum) on kexue.fm;
Adam: Kingma & Ba 2014 (arXiv 1412.6980).

    python -m experiments.soft_batch                     0.914 accuracy, 0.7 min

Each optimizer sees the same batches of 64 digits: whole, or one example at a time.
`max_difference` is the largest difference of a parameter to the whole batch's run (7e-7
accumulated); `state_bytes` and `temporary_bytes` are per parameter. See RESULTS.md.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.lib.config import AtLeast, Below
from experiments.lib.errors import UserError
from experiments.lib.launch import launch
from experiments.lib.method import Method
from experiments.lib.pictures import figure
from experiments.lib.sources.image_set import Images
from experiments.methods.classification import ClassifierConfig, classifier, mlp
from experiments.methods.comparison import side_by_side
from jaxgen.optimizers import accumulate, hidden_accumulation


@dataclass(frozen=True)
class Config(ClassifierConfig):
    """The knobs: how large the batch is, and into how many parts it is cut."""

    steps: int = 1500
    """Training steps, of the large batch."""
    batch_size: int = 64
    """Examples of the large batch."""
    micro_batches: Annotated[int, AtLeast(1)] = 64
    """Parts that it is cut into, by default of one example each; must divide it."""
    learning_rate: float = 3e-3
    """Step size of Adam."""
    momentum_rate: Annotated[float, AtLeast(0)] = 0.3
    """Step size of SGD with momentum."""
    momentum: Annotated[float, AtLeast(0), Below(1)] = 0.9
    """Decay of the momentum, an average of gradients."""
    width: Annotated[int, AtLeast(1)] = 128
    """Units of each hidden layer."""
    layers: Annotated[int, AtLeast(0)] = 2
    """Hidden layers; none of them normalizes over the batch, which would see the micro-batch."""

    def __post_init__(self):
        super().__post_init__()
        if self.batch_size % self.micro_batches:
            raise UserError(
                f"--micro-batches {self.micro_batches}: expected a divisor of"
                f" --batch-size {self.batch_size}"
            )


METRICS = {
    "max_difference": "largest difference of a parameter from training on the whole batch",
    "state_bytes": "bytes of the optimizer's state per parameter",
    "temporary_bytes": "bytes of temporary memory of a training step per parameter",
}
SMOKE = Config(
    steps=4, batch_size=16, micro_batches=2, width=8, layers=1, eval_every=2, log_every=1
)


def build(config: Config):
    """Images, and a classifier for each way to take a large batch."""
    data = config.images()
    # GELU: at the kink of a ReLU, sums that differ in their last bit have gradients that differ by
    # more, and runs that must agree would part after some hundred steps.
    network, k = mlp(data.classes, config.width, config.layers, nn.gelu), config.micro_batches
    descent = optax.scale_by_learning_rate(config.momentum_rate)
    momentum = optax.chain(optax.ema(config.momentum, debias=False), descent)
    adam = optax.adam(config.learning_rate)

    def whole(optimizer):
        return classifier(network, optimizer, data)

    def parts(optimizer):
        return in_parts(classifier(network, optimizer, data), k)

    methods = {
        "momentum_large": whole(momentum),
        "momentum_small": parts(momentum),
        "momentum_accumulated": parts(accumulate(momentum, k)),
        "momentum_hidden": parts(hidden_accumulation(descent, k, config.momentum)),
        "adam_large": whole(adam),
        "adam_small": parts(adam),
        "adam_accumulated": parts(accumulate(adam, k)),
    }
    sizes = functools.cache(lambda: memory(methods, data, config.batch_size))

    def judge(state, key):
        return differences(state) | sizes()

    method = side_by_side(methods, pictures(network, data))
    return data, method._replace(judge=judge, meanings={**method.meanings, **METRICS})


def in_parts(method: Method, k: int) -> Method:
    """The same method, k steps for each batch, on its k parts."""

    def step(state, batch, key):
        # Neighbours go to different parts, so that each part lies on all devices.
        def cut(x):
            return x.reshape(-1, k, *x.shape[1:]).swapaxes(0, 1)

        def part(state, micro):
            return method.step(state, micro, key)

        state, metrics = jax.lax.scan(part, state, jax.tree.map(cut, batch))
        return state, jax.tree.map(jnp.mean, metrics)

    return method._replace(step=step)


def large(name: str) -> str:
    """The method with which one is compared."""
    return name.partition("_")[0] + "_large"


@jax.jit
def differences(state) -> dict[str, Any]:
    """How far the parameters of each method are from those of the large batch."""
    return {
        f"{name}/max_difference": max_difference(own.params, state[large(name)].params)
        for name, own in state.items()
        if name != large(name)
    }


def max_difference(a, b):
    """Largest absolute difference of two trees."""
    return jnp.max(optax.tree.max(jax.tree.map(lambda x, y: jnp.abs(x - y), a, b)))


def memory(methods: Mapping[str, Method], data: Images, batch_size: int) -> dict[str, float]:
    """Bytes for each parameter: of the optimizer's state, and of all temporaries of a step."""
    images = jax.ShapeDtypeStruct((batch_size, *data.shape), jnp.uint8)
    labels = jax.ShapeDtypeStruct((batch_size,), jnp.int32)
    key = jax.eval_shape(lambda: jax.random.key(0))
    batch, sizes = {"image": images, "label": labels}, {}
    for name, method in methods.items():
        state = jax.eval_shape(method.init, key, batch)
        parameters = sum(p.size for p in jax.tree.leaves(state.params))
        held = sum(s.size * s.dtype.itemsize for s in jax.tree.leaves(state.opt_state))
        compiled = jax.jit(method.step, donate_argnums=0).lower(state, batch, key).compile()
        sizes[f"{name}/state_bytes"] = held / parameters
        analysis: Any = compiled.memory_analysis()
        sizes[f"{name}/temporary_bytes"] = analysis.temp_size_in_bytes / parameters
    return sizes


def pictures(network, data: Images):
    """Where the parameters are, against those of the large batch; accuracy on the test split."""
    everything = data.test[np.arange(min(len(data.test), 10_000))]
    measure = jax.jit(classifier(network, optax.identity(), data).evaluate)

    def draw(state, batch, key):
        def panels(sheet):
            left, right = sheet.subplots(1, 2)
            for name, own in state.items():
                if name != large(name):
                    pairs = [own.params, state[large(name)].params]
                    a, b = (
                        np.concatenate([np.ravel(p) for p in jax.tree.leaves(t)]) for t in pairs
                    )
                    gaps = np.sort(np.maximum(np.abs(a - b), 1e-9))
                    left.plot(gaps, np.linspace(0, 1, len(gaps)), label=name)
            left.set(
                title="distance of the parameters from those of the whole batch",
                xscale="log",
                xlabel="difference of one parameter; 1e-9 stands for none",
                ylabel="share of parameters with less",
            )
            sheet.legend(loc="outside lower left", ncols=5)
            accuracy = [
                np.mean(measure(own, everything, key)["accuracy"]) for own in state.values()
            ]
            right.barh(list(state), accuracy)
            right.bar_label(right.containers[0], fmt="%.3f", padding=2)
            right.set(
                title="accuracy",
                xlim=(0, 1.1),
                xlabel="share of the test split that is right",
            )

        return {"parameters_and_accuracy": figure(panels, width=12)}

    return draw


if __name__ == "__main__":
    launch(build, Config)
