"""Deep InfoMax and SimCLR: codes of images learned without labels, judged by probes.

Deep InfoMax (Hjelm et al. 2019, arXiv 1808.06670), its variant of kexue.fm post 6024, and SimCLR
(Chen et al. 2020, arXiv 2002.05709): see --objective; --local-weight 0 is the ablation.

    python -m experiments.infomax                        code_linear 0.9, 1 min

Neighbours, a linear classifier and one with a hidden layer are fitted to the frozen codes of
training images with their labels, and tested on the test split; beside them stand the same numbers
of the feature map, of an untrained encoder and of raw pixels. All objectives: RESULTS.md.
"""

from dataclasses import dataclass
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np

from experiments.lib.artefacts import digest
from experiments.lib.config import AtLeast
from experiments.lib.dataset import held_out
from experiments.lib.errors import UserError
from experiments.lib.launch import launch
from experiments.lib.pictures import figure, sheet
from experiments.lib.sources.image_set import Images
from experiments.methods import features, probes
from experiments.methods.infomax import InfoMaxConfig, encode, infomax, network, views
from experiments.methods.judge import kept_numbers, places


@dataclass(frozen=True)
class Config(InfoMaxConfig):
    """The knobs of training and of the judgement."""

    steps: int = 1500
    """Training steps."""
    eval_every: int = 0
    """Steps between two judgements, with pictures; 0: only at the end."""
    probed: Annotated[int, AtLeast(10)] = 20_000
    """Training images, evenly spaced, that the probes are fitted to, at most."""
    held_out: bool = False
    """Judge by the last fifth of the training images, kept out of training: to choose knobs by."""


def _meanings() -> dict[str, str]:
    kinds = {
        "code": "the code",
        "map": "the flattened feature map",
        "untrained_code": "the code of the encoder before training",
        "untrained_map": "the feature map of the encoder before training",
        "pixels": "raw pixels",
    }
    return {
        f"{kind}_{probe}": f"share of the test images that {how} gets right from {what}"
        for kind, what in kinds.items()
        for probe, how in probes.PROBES.items()
    }


METRICS = _meanings()
SMOKE = Config(
    steps=4, batch_size=16, width=4, code=4, units=8, probed=100, eval_every=2, log_every=1
)
_FORM = 1  # raise it where the code below changes what kept baselines hold
_PICTURED = 5000  # training images among which neighbours are shown
_SIDE = 10  # images in a row of a picture


def build(config: Config):
    """Images, and the encoder that learns from them."""
    data = config.images()
    if not data.labelled:
        raise UserError(
            f"--data {data.name}: has no labels; expected a set with classes, which the probes find"
        )
    data = held_out(data) if config.held_out else data
    return data, infomax(
        config,
        data,
        judge=judgement(config, data),
        pictures=pictures(config, data),
        meanings=METRICS,
    )


def encoder(config: Config, data: Images):
    """(parameters, integer images [N, H, W, C]) -> {"code": [N, D], "map": [N, h w C]}, numpy."""

    @jax.jit
    def block(params, images):
        encoding = encode(config, params, images.astype(jnp.float32) / (data.levels - 1))
        return {"code": encoding.code, "map": encoding.features.reshape(len(images), -1)}

    return lambda params, images: probes.in_blocks(lambda images: block(params, images), images)


def judgement(config: Config, data: Images):
    """Probes of the code and of the feature map, beside those of an untrained encoder and pixels."""
    encoded = encoder(config, data)
    train = data.train[places(data.train, config.probed)]
    test = data.test[np.arange(len(data.test))]

    def probed(inputs, key):
        """{name: numpy array [N, ...] of a batch} -> {name_probe: share}."""
        found = {}
        sides = [inputs(batch["image"]) for batch in (train, test)]
        for name in sides[0]:
            pair = [
                (side[name], batch["label"])
                for side, batch in zip(sides, (train, test), strict=True)
            ]
            scores = probes.scores(*pair, data.classes, key)
            found |= {f"{name}_{probe}": float(share) for probe, share in scores.items()}
        return found

    def baselines():
        key = jax.random.key(0)
        params = jax.jit(network(config).init)(key, jnp.zeros((1, *data.shape)))

        def untrained():
            found = probed(lambda images: encoded(params, images), key)
            return {f"untrained_{name}": share for name, share in found.items()}

        def pixels():
            scale = np.float32(data.levels - 1)
            return probed(lambda images: {"pixels": images.reshape(len(images), -1) / scale}, key)

        prints = [digest(*batch.values()) for batch in (train, test)]
        forms = {untrained: str(network(config)), pixels: ""}
        found = {}
        for make, form in forms.items():
            name = f"{make.__name__}-{data.name}-{digest(str(_FORM), form, *prints)}.npz"
            found |= kept_numbers(features.folder("", config.workdir) / name, make)
        return found

    def judge(state, key):
        return probed(lambda images: encoded(state.params["encoder"], images), key) | baselines()

    return judge


def pictures(config: Config, data: Images):
    """Nearest neighbours by the code, a map of codes, and the views that are compared."""
    encoded = encoder(config, data)
    known = data.train[places(data.train, _PICTURED)]["image"]
    shown = data.test[places(data.test, 2000)]

    def draw(state, batch, key):
        params, scale = state.params["encoder"], data.levels - 1
        codes = {
            name: encoded(params, np.asarray(images))["code"]
            for name, images in (
                ("known", known),
                ("asked", batch["image"][:_SIDE]),
                ("shown", shown["image"]),
            )
        }
        near = nearest(codes["asked"], codes["known"], _SIDE - 1)
        rows = np.concatenate([np.asarray(batch["image"][:_SIDE, None]), known[near]], axis=1)
        title = f"a test image, and its {_SIDE - 1} nearest of {len(known)} training images by the cosine of codes"
        drawn = {
            "neighbours": sheet(rows.reshape(-1, *data.shape) / scale, _SIDE, title),
            "codes": figure(
                lambda drawing: _scatter(drawing, codes["shown"], shown["label"]), 8, 7
            ),
        }
        if config.objective == "two_views":
            images = batch["image"][:_SIDE].astype(jnp.float32) / scale
            seen = [images, *(jax.jit(views)(k, images) for k in jax.random.split(key))]
            labels = ["test image", "one view", "other view"]
            drawn["views"] = sheet(np.concatenate(seen), _SIDE, "random views", labels)
        return drawn

    return draw


def nearest(asked: np.ndarray, known: np.ndarray, count: int) -> np.ndarray:
    """Indices of the `count` known codes of largest cosine: [N, D], [M, D] -> [N, count]."""
    asked, known = (
        x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in (asked, known)
    )
    return np.argsort(-asked @ known.T, axis=1)[:, :count]


def _scatter(drawing, codes: np.ndarray, labels: np.ndarray) -> None:
    """Codes in the plane of their two largest principal components, coloured by class."""
    centred = codes - codes.mean(axis=0)
    spread, axes = np.linalg.svd(centred, full_matrices=False)[1:]
    places, share = centred @ axes[:2].T, np.sum(spread[:2] ** 2) / np.sum(spread**2)
    axis = drawing.subplots()
    for label in np.unique(labels):
        axis.scatter(
            *places[labels == label].T, s=6, color=f"C{label % 10}", label=f"class {label}"
        )
    axis.set(
        title=f"codes of {len(codes)} test images; the plane holds {share:.0%} of their variance",
        xlabel="first principal component",
        ylabel="second principal component",
    )
    drawing.legend(loc="outside right center", markerscale=2)


if __name__ == "__main__":
    launch(build, Config)
