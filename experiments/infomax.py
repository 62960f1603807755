"""Deep InfoMax and SimCLR: codes of images learned without labels, judged by probes.

Deep InfoMax (Hjelm et al. 2019, arXiv 1808.06670), its variant of kexue.fm post 6024, and SimCLR
(Chen et al. 2020, arXiv 2002.05709): see --objective; --local-weight 0 is the ablation.

    python -m experiments.infomax                             code_knn 0.925, 0.8 min
    python -m experiments.infomax --objective two_views       code_knn 0.964, 0.8 min

Neighbours, a linear classifier and one with a hidden layer are fitted to frozen codes of training
images and tested on the test split; beside them: the feature map, an untrained encoder, and pixels.
"""

from dataclasses import dataclass
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np

from experiments.lib.artefacts import digest
from experiments.lib.batches import in_blocks, in_order
from experiments.lib.config import AtLeast
from experiments.lib.dataset import Arrays
from experiments.lib.errors import UserError
from experiments.lib.launch import launch
from experiments.lib.pictures import sheet
from experiments.lib.sources.image_set import Images
from experiments.methods import features, probes
from experiments.methods.classification import pixels
from experiments.methods.infomax import (
    OBJECTIVES,
    InfoMaxConfig,
    encode,
    infomax,
    network,
    views,
)
from experiments.methods.judge import kept_numbers, places
from experiments.methods.latent_map import latent_map


@dataclass(frozen=True)
class Config(InfoMaxConfig):
    """The knobs of training and of the judgement."""

    steps: int = 1000
    """Training steps."""
    eval_every: int = 0
    """Steps between two judgements, with pictures; 0: only at the end."""
    probed: Annotated[int, AtLeast(10)] = 20_000
    """Training images, evenly spaced, that the probes are fitted to, at most."""
    probe_steps: Annotated[int, AtLeast(1)] = 3000
    """Steps of the training of a probe."""


METRICS = {
    f"{kind}_{probe}": f"{meaning}; of {what}"
    for kind, what in {
        "code": "the code",
        "map": "the flattened feature map",
        "untrained_code": "the code before training",
        "untrained_map": "the feature map before training",
        "pixels": "raw pixels",
    }.items()
    for probe, meaning in probes.METRICS.items()
}
SMOKE = Config(
    steps=4,
    batch_size=16,
    width=4,
    code=4,
    units=8,
    probed=100,
    probe_steps=20,
    eval_every=2,
    log_every=1,
)
_FORM = 1  # raise it where the code below changes what kept baselines hold
_BLOCK = 512  # images that are encoded at once
_NEIGHBOURS = 5000  # training images among which neighbours are shown
_POINTS = 2000  # test images whose codes are drawn
_SIDE = 10  # images in a row of a picture


def build(config: Config):
    """Images, and the encoder that learns from them."""
    data = config.images()
    if not data.labelled:
        raise UserError(f"--data {data.name}: has no labels; expected a set with classes to probe")
    own = {"judge": judgement(config, data), "pictures": pictures(config, data)}
    return data, infomax(config, data, meanings=METRICS, **own)


def encoder(config: Config, data: Images):
    """(parameters, split) -> {"code": [N, D], "map": [N, h w C], "label": [N]}, numpy arrays."""

    @jax.jit
    def block(params, batch):
        encoding = encode(config, params, pixels(batch, data))
        features = encoding.features.reshape(len(encoding.code), -1)
        return {"code": encoding.code, "map": features, "label": batch["label"]}

    return lambda params, split: in_blocks(lambda batch: block(params, batch), split, _BLOCK)


def judgement(config: Config, data: Images):
    """Probes of code and feature map, beside those of an untrained encoder and of raw pixels."""
    encoded, train = encoder(config, data), spaced_rows(data.train, config.probed)

    def probed(features, key):
        """Scores {name_probe: share} of split -> {name: [N, ...], "label": [N]}."""
        known, asked = features(train), features(data.test)
        found: dict[str, float] = {}
        for name in [n for n in known if n != "label"]:
            fit, test = (probes.Encoded(side[name], side["label"]) for side in (known, asked))
            scores = probes.scores(fit, test, data.classes, key, steps=config.probe_steps)
            found |= {f"{name}_{probe}": share for probe, share in scores.items()}
        return found

    def untrained():
        key = jax.random.key(0)
        params = jax.jit(network(config).init)(key, jnp.zeros((1, *data.shape)))
        found = probed(lambda split: encoded(params, split), key)
        return {f"untrained_{name}": share for name, share in found.items()}

    def raw():
        def flat(batch):
            images = np.asarray(pixels(batch, data))
            return {"pixels": images.reshape(len(images), -1), "label": batch["label"]}

        return probed(lambda split: in_blocks(flat, split, _BLOCK), jax.random.key(0))

    def baselines():
        """Computed once and kept in files beside the classifiers of other experiments."""
        folder = features.folder("", config.workdir)
        prints = [
            digest(*batch.values()) for s in (train, data.test) for batch in in_order(s, 2048)
        ]
        whole = digest(str(_FORM), str(config.probe_steps), *prints)
        own = digest(str(network(config)))
        return {
            **kept_numbers(folder / f"probes-{data.name}-{whole}.npz", raw),
            **kept_numbers(folder / f"probes-{data.name}-{whole}-{own}.npz", untrained),
        }

    def judge(state, key):
        own = probed(lambda split: encoded(state.params["encoder"], split), key)
        return own | baselines()

    return judge


def spaced_rows(split, count: int) -> Arrays:
    """At most `count` examples of a split, evenly spaced, in memory."""
    return Arrays(split[places(split, count)])


def pictures(config: Config, data: Images):
    """Nearest neighbours by the code, a map of codes, and the views that are compared."""
    encoded = encoder(config, data)
    known, shown = spaced_rows(data.train, _NEIGHBOURS), spaced_rows(data.test, _POINTS)

    def draw(state, batch, key):
        asked = Arrays({name: np.asarray(column[:_SIDE]) for name, column in batch.items()})
        codes = [encoded(state.params["encoder"], s)["code"] for s in (asked, known, shown)]
        near = nearest(codes[0], codes[1], _SIDE - 1)
        rows = np.concatenate([asked.columns["image"][:, None], known[near]["image"]], axis=1)
        drawn = {
            "neighbours": sheet(
                rows.reshape(-1, *data.shape) / (data.levels - 1),
                _SIDE,
                f"first column: test images; beside each the nearest of {len(known)} training"
                " images, by the cosine of their codes",
            ),
            "codes": latent_map(codes[2], shown.columns["label"], "class"),
        }
        if OBJECTIVES[config.objective].views:
            images = pixels(asked.columns, data)
            seen = [images, *(jax.jit(views)(k, images) for k in jax.random.split(key))]
            names = ["test image", "one view", "another"]
            drawn["views"] = sheet(np.concatenate(seen), _SIDE, "random views", names)
        return drawn

    return draw


def nearest(asked: np.ndarray, known: np.ndarray, count: int) -> np.ndarray:
    """Indices of the codes of largest cosine, falling: [N, D], [M, D] -> [N, count]."""
    norms = np.maximum(np.linalg.norm(known, axis=1), np.finfo(np.float32).tiny)
    return np.argsort(-asked @ known.T / norms, axis=1)[:, :count]


if __name__ == "__main__":
    launch(build, Config)
