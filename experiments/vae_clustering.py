"""Clustering VAE: images in K clusters, without labels; and a variant that is robust to the seed.

Su 2018 (kexue.fm post 5887); VaDE (arXiv 1611.05148), IIC (1807.06653), SimCLR (2002.05709).

    python -m experiments.vae_clustering                         accuracy 0.958, 0.5 min

`invariant` also asks that changed copies of an image share cluster and code. Twenty classifiers
start apart, and the one with the lowest objective counts. MNIST and Fashion-MNIST: RESULTS.md.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.lib.batches import in_blocks
from experiments.lib.config import AtLeast
from experiments.lib.errors import UserError
from experiments.lib.launch import launch
from experiments.lib.method import Method
from experiments.lib.pictures import sheet
from experiments.lib.sources.image_set import Images
from experiments.methods import clusters
from experiments.methods.classification import pixels
from experiments.methods.clustering_vae import METHODS, ClusteringConfig, Model
from experiments.methods.features import integer_pixels
from experiments.methods.latent_map import latent_map
from experiments.methods.samples import in_blocks as drawn_in_blocks
from jaxgen.optimizers import by_path, scale_by_tree


@dataclass(frozen=True)
class Config(ClusteringConfig):
    """The knobs of training."""

    steps: int = 1500
    """Training steps."""
    batch_size: Annotated[int, AtLeast(2)] = 256
    """Images per step; each is compared with the others."""
    eval_every: int = 0
    """Steps between two evaluations on the test split, with pictures; 0: only at the end."""
    learning_rate: Annotated[float, AtLeast(0)] = 1e-3
    """Step size of Adam, which decays to 0 by a cosine."""


SMOKE = Config(
    steps=4, batch_size=16, latents=3, width=8, code=4, classifiers=2, eval_every=2, log_every=1
)
METRICS = clusters.METRICS | {
    "objective": "what the chosen classifier minimised at the end of training, without labels",
    "squared_error": "squared error of a reconstruction, summed over pixels in [0, 1]",
}
_FASTER = 10.0  # Adam moves a center by the rate at most, too slow for distances of several units
_RECENT = 50  # steps over which the objective is averaged
_ROW = 12  # images in a row of a sheet
_BLOCK = 1000  # images that are classified at once
_SHOWN = 2000  # test images among which the pictures choose


class State(NamedTuple):
    """The state of training.

    Attributes:
      params: of the model.
      opt_state: of the optimizer.
      objectives: of the classifiers, averaged over the last steps, [H].
      count: steps done.
    """

    params: Any
    opt_state: Any
    objectives: Any
    count: Any


def build(config: Config):
    """Images, and the model that clusters them."""
    data = config.images()
    if config.clusters > len(data.train):
        raise UserError(
            f"--clusters {config.clusters}: {data.name} has {len(data.train)} training images;"
            " expected no more clusters than images"
        )
    model = METHODS[config.method](config, data.shape)
    optimizer = optax.chain(
        optax.adam(optax.cosine_decay_schedule(config.learning_rate, config.steps)),
        scale_by_tree(by_path({"means": _FASTER, "": 1.0})),
    )

    def init(key, batch):
        params = model.init(key, pixels(batch, data))
        heads = len(model.logits(params, pixels(batch, data)[:1]))
        return State(params, optimizer.init(params), jnp.zeros(heads), jnp.zeros((), jnp.int32))

    def step(state, batch, key):
        progress, chosen = state.count / config.steps, jnp.argmin(state.objectives)

        def loss(params):
            return model.loss(params, key, pixels(batch, data), progress, chosen)

        (total, (own, metrics)), slope = jax.value_and_grad(loss, has_aux=True)(state.params)
        updates, opt_state = optimizer.update(slope, state.opt_state, state.params)
        count = state.count + 1
        objectives = state.objectives + (own - state.objectives) / jnp.minimum(count, _RECENT)
        params = optax.apply_updates(state.params, updates)
        return State(params, opt_state, objectives, count), {"loss": total, **metrics}

    def evaluate(state, batch, key):
        x = pixels(batch, data)
        error = x - model.decode(state.params, model.encode(state.params, x))
        return {"squared_error": jnp.sum(error**2, axis=(1, 2, 3))}

    @jax.jit
    def logits(state, batch):
        return model.logits(state.params, pixels(batch, data))[jnp.argmin(state.objectives)]

    def judge(state, key):
        found = in_blocks(functools.partial(logits, state), data.test, _BLOCK).argmax(-1)
        numbers = {"objective": float(state.objectives.min())}
        if not data.labelled:
            return numbers | {"used_clusters": len(np.unique(found))}
        labels = data.test[np.arange(len(data.test))]["label"]
        return numbers | clusters.judged(found, labels, config.clusters, data.classes)

    @jax.jit
    def draw(state, key, names):
        _, means, log_std = model.prior(state.params)
        noise = jnp.exp(log_std)[names] * jax.random.normal(key, means[names].shape)
        return model.decode(state.params, means[names] + noise)

    def sample(state, key, count):
        def block(key, numbers):
            name_key, key = jax.random.split(key)
            weights, _, _ = model.prior(state.params)
            names = jax.random.categorical(name_key, weights, shape=(len(numbers),))
            return draw(state, key, names)

        return integer_pixels(2 * drawn_in_blocks(block, key, count) - 1, data.levels)

    return data, Method(
        init,
        step,
        evaluate,
        judge=judge,
        pictures=pictures(model, data, logits, draw),
        sample=sample,
        meanings=METRICS,
        pick="objective",
    )


def pictures(model: Model, data: Images, logits_of: Callable, draw: Callable):
    """Members and samples of each cluster, reconstructions, a map of the latents."""
    encode, decode = jax.jit(model.encode), jax.jit(model.decode)

    def drawn(state, batch, key):
        shown = data.test[np.arange(min(_SHOWN, len(data.test)))]
        x, logits = pixels(shown, data), np.asarray(logits_of(state, shown))
        count = logits.shape[-1]
        found, rows = logits.argmax(-1), [f"{k}" for k in range(count)]
        margin = np.sort(logits, axis=-1)[:, -1] - logits.mean(-1)
        members = np.ones((count, _ROW, *data.shape), np.float32)
        for k in range(count):
            own = np.flatnonzero(found == k)
            own = own[np.argsort(-margin[own])][:_ROW]
            members[k, : len(own)] = x[own]
        samples = draw(state, key, np.repeat(np.arange(count), _ROW))
        z = encode(state.params, x)
        again = np.asarray(decode(state.params, z[: 4 * _ROW]))
        pairs = np.stack(
            [np.reshape(i, (-1, _ROW, *data.shape)) for i in (x[: len(again)], again)], axis=1
        )
        return {
            "members": sheet(
                members.reshape(-1, *data.shape),
                _ROW,
                "test images that are surest of their cluster, a cluster in each row",
                rows,
            ),
            "samples": sheet(
                np.asarray(samples), _ROW, "samples of each cluster, a cluster in each row", rows
            ),
            "reconstruction": sheet(
                pairs.reshape(-1, *data.shape),
                _ROW,
                "test images and what the decoder makes of their latents",
                ["test image", "decoded"] * (len(pairs)),
            ),
            "map": latent_map(
                z, shown.get("label", found), "class" if data.labelled else "cluster"
            ),
        }

    return drawn


if __name__ == "__main__":
    launch(build, Config)
