"""Orthogonality regularizers: what they do to filters and to accuracy.

Soft orthogonality, off-diagonal (Brock et al. 2018, arXiv 1809.11096), mutual coherence and SRIP
(Bansal et al. 2018, 1810.09102), the self-orthogonality module (Zhang et al. 2020, 2001.01275;
kexue.fm 7169) on data and in closed form, and none; same start, same batches.

    python -m experiments.orthogonality                  accuracy 0.922 without a penalty, 1 min

Also reported: mean and largest |cosine| between two filters of a hidden layer.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.lib.config import AtLeast
from experiments.lib.launch import launch
from experiments.lib.method import Method
from experiments.lib.pictures import figure, sheet
from experiments.lib.sources.image_set import Images
from experiments.methods.classification import (
    ClassifierConfig,
    classifier,
    cross_entropy,
    mlp,
    pixels,
)
from experiments.methods.comparison import side_by_side
from jaxgen import regularizers


@dataclass(frozen=True)
class Config(ClassifierConfig):
    """The knobs: the network, and the weight of each penalty."""

    steps: int = 2000
    """Training steps."""
    seeds: int = 5
    """How many networks of each kind to train at once, with the seeds seed, seed + 1, ..."""
    width: Annotated[int, AtLeast(2)] = 64
    """Units of each hidden layer; their kernels are what is regularized."""
    layers: Annotated[int, AtLeast(1)] = 2
    """Hidden layers."""
    soft: Annotated[float, AtLeast(0)] = 0.01
    """Weight of soft orthogonality."""
    off_diagonal: Annotated[float, AtLeast(0)] = 0.01
    """Weight of BigGAN's off-diagonal penalty."""
    coherence: Annotated[float, AtLeast(0)] = 10.0
    """Weight of the smooth mutual coherence."""
    srip: Annotated[float, AtLeast(0)] = 0.01
    """Weight of SRIP."""
    som_data: Annotated[float, AtLeast(0)] = 0.1
    """Weight of the self-orthogonality module on the layers' answers."""
    som_closed: Annotated[float, AtLeast(0)] = 100.0
    """Weight of its closed form on the filters."""


METRICS = {
    "mean_cosine": "mean |cosine| between two filters of a hidden layer; 0: orthogonal",
    "max_cosine": "largest |cosine| between two filters of a hidden layer",
}
SMOKE = Config(steps=4, batch_size=16, seeds=2, width=8, eval_every=2, log_every=1)


def build(config: Config):
    """Images, and a classifier for each penalty."""
    data = config.images()
    methods = {name: regularized(config, data, p) for name, p in penalties(config).items()}
    return data, side_by_side(methods, pictures(config, data))


def penalties(config: Config) -> dict[str, Callable]:
    """Name -> (vectors, kernels, answers) -> (penalty, vectors); lists with an entry per layer."""

    def on_kernels(weight, penalty):
        return lambda vectors, kernels, answers: (weight * sum(map(penalty, kernels)), vectors)

    def on_answers(weight, penalty):
        return lambda vectors, kernels, answers: (weight * sum(map(penalty, answers)), vectors)

    def srip(vectors, kernels, answers):
        pairs = [regularizers.srip(w, v) for w, v in zip(kernels, vectors, strict=True)]
        return config.srip * sum(sigma for sigma, _ in pairs), [v for _, v in pairs]

    def som(correlations):
        return lambda x: regularizers.self_orthogonality(correlations(x), l1=1.0, l2=1.0)

    return {
        "none": lambda vectors, kernels, answers: (0.0, vectors),
        "soft": on_kernels(config.soft, regularizers.soft_orthogonality),
        "off_diagonal": on_kernels(config.off_diagonal, regularizers.off_diagonal),
        "coherence": on_kernels(config.coherence, regularizers.mutual_coherence),
        "srip": srip,
        "som_data": on_answers(config.som_data, som(regularizers.sign_correlations)),
        "som_closed": on_kernels(config.som_closed, som(regularizers.arcsine_correlations)),
    }


class State(NamedTuple):
    """What training carries from step to step."""

    params: Any
    opt_state: Any
    vectors: list  # of SRIP's power iterations, one per layer


def regularized(config: Config, data: Images, penalty: Callable) -> Method:
    """A classifier with a penalty on its hidden layers."""
    network = mlp(data.classes, config.width, config.layers)
    optimizer = optax.adam(config.learning_rate)
    plain = classifier(network, optimizer, data)

    def init(key, batch):
        key, *keys = jax.random.split(key, 1 + config.layers)
        state = plain.init(key, batch)
        kernels = hidden(config, state.params, "kernel")
        vectors = [regularizers.srip_vector(k, w) for k, w in zip(keys, kernels, strict=True)]
        return State(state.params, state.opt_state, vectors)

    def loss(params, vectors, batch):
        logits, seen = network.apply(params, pixels(batch, data), capture_intermediates=_dense)
        answers = [y[0] for y in hidden(config, seen, "__call__")]
        cost, vectors = penalty(vectors, hidden(config, params, "kernel"), answers)
        fit = jnp.mean(cross_entropy(logits, batch["label"]))
        return fit + cost, (vectors, {"cross_entropy": fit, "penalty": jnp.asarray(cost)})

    def step(state, batch, key):
        gradient, (vectors, metrics) = jax.grad(loss, has_aux=True)(
            state.params, state.vectors, batch
        )
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        return State(optax.apply_updates(state.params, updates), opt_state, vectors), metrics

    @jax.jit
    def judge(state, key):
        kernels = hidden(config, state.params, "kernel")
        cosines = jnp.abs(jnp.concatenate([regularizers.pairwise_cosines(w) for w in kernels]))
        return {"mean_cosine": jnp.mean(cosines), "max_cosine": jnp.max(cosines)}

    meanings = {**plain.meanings, **METRICS}
    return Method(init, step, plain.evaluate, judge=judge, meanings=meanings)


def hidden(config: Config, tree, leaf: str) -> list:
    """What `tree`, the parameters or what was captured, has of each hidden layer."""
    (network,) = (tree[part] for part in ("intermediates", "params") if part in tree)
    return [network["layers_1"][f"Dense_{i}"][leaf] for i in range(config.layers)]


def _dense(module, method) -> bool:
    return isinstance(module, nn.Dense)


def pictures(config: Config, data: Images) -> Callable:
    """Histograms of the angles between filters, and the filters of the first layer."""

    def draw(state, batch, key):
        kernels = {name: hidden(config, state[name].params, "kernel") for name in penalties(config)}
        sheets = {f"filters_{name}": of_first(name, own[0]) for name, own in kernels.items()}
        return sheets | {"angles": figure(lambda drawing: histograms(drawing, kernels), 6, 11)}

    def of_first(name, kernel):
        filters = np.asarray(kernel).T.reshape(-1, *data.shape)
        largest = np.abs(filters).max(axis=(1, 2, 3), keepdims=True)
        shown = 0.5 + 0.5 * filters / np.where(largest > 0, largest, 1)
        title = f"penalty {name}: filters of the first layer; grey is 0, each has its own scale"
        return sheet(shown, 16, title)

    return draw


def histograms(drawing, kernels: dict[str, list]) -> None:
    """Angles between filters of the same layer, a row for each name."""
    rows = drawing.subplots(len(kernels), sharex=True, sharey=True)
    for axes, (name, own) in zip(rows, kernels.items(), strict=True):
        angles = [np.degrees(regularizers.pairwise_angles(w)) for w in own]
        values = np.concatenate(angles)
        axes.hist(values, bins=181, range=(-0.5, 180.5), log=True)  # 90 in the middle of a bin
        axes.set_title(f"{name}: {values.mean():.1f} ± {values.std():.1f}", fontsize=9)
    drawing.suptitle("Angles between filters of one layer: mean ± deviation")
    drawing.supxlabel("angle, degrees")
    drawing.supylabel("number of pairs")


if __name__ == "__main__":
    launch(build, Config)
