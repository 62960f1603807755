"""Features of images, to judge generators by: a small classifier, trained once and kept."""

import functools
import pathlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.lib.artefacts import digest, kept
from experiments.lib.batches import batches, first_batch, in_blocks, in_order
from experiments.lib.dataset import Arrays
from experiments.lib.errors import UserError
from experiments.lib.logs import notice
from experiments.lib.sources.image_set import Images
from experiments.methods.classification import classifier
from jaxgen.models import Conv

FEATURES = 64
_BLOCK = 512  # images that the program sees at once
_READ = 4 * _BLOCK  # images that are read at once
_BATCH, _RATE, _SEED = 128, 3e-3, 0
_FORM = 1  # raise it where the code below changes the weights or features
_SCALED_ON = 10_000  # training images
_TIMED = 10  # steps from which the time of the whole training is estimated
_SLACK = 1e-3  # images may leave [-1, 1] by this much, through rounding


class Extractor(NamedTuple):
    """A trained classifier of images in [-1, 1]; its functions return numpy arrays.

    Images [N, H, W, C], N >= 1, go through one compiled program in blocks of one size. Images of
    another shape, not finite, or outside [-1, 1] raise a ValueError. That finds images in [0, 255],
    but not those in [0, 1], which lie inside [-1, 1].
    """

    features: Callable  # images -> f32 [N, 64], see `extractor`
    classify: Callable  # images -> int32 [N], labels 0 ... K - 1
    accuracy: float  # share of the test split that is classified correctly
    digest: str  # of the weights: features are comparable only where the digests are equal

    @property
    def facts(self) -> dict[str, float]:
        """What a summary says of the classifier, as numbers.

        classifier_accuracy is that on the test split. classifier_digest is the first six
        hexadecimal digits of `digest`, as an integer that f32 holds exactly: two runs were judged
        by the same weights where it is equal.
        """
        return {
            "classifier_accuracy": self.accuracy,
            "classifier_digest": float(int(self.digest[:6], 16)),
        }


def signed_pixels(image, levels: int):
    """2 x / (levels - 1) - 1: grey levels 0 ... levels - 1 as f32 in [-1, 1], numpy or JAX."""
    return image.astype(np.float32) / ((levels - 1) / 2) - 1


def integer_pixels(image, levels: int):
    """Inverse of `signed_pixels`, clipped and rounded: [-1, 1] -> uint8 in 0 ... levels - 1."""
    scaled = (np.asarray(image) + 1) * ((levels - 1) / 2)
    return np.round(np.clip(scaled, 0, levels - 1)).astype(np.uint8)


def folder(chosen: str, workdir: str) -> pathlib.Path:
    """The folder that was chosen, or "extractors" beside the folder of a run."""
    return pathlib.Path(chosen or pathlib.Path(workdir or "runs/any").parent / "extractors")


def extractor(data: Images, folder: str | pathlib.Path) -> Extractor:
    """The classifier of a data set, trained if the folder does not hold it yet.

    The name of the file holds a hash of every image and label and of all that training depends on,
    so other data never finds these weights. Process 0 trains, on one device; all processes call
    this, share the folder, and read the same weights.

    Features are the 64 outputs of the last hidden layer before its relu. They are centred and
    divided by one number, so that over training images each has mean 0 and |x|^2 / 64 has mean 1.
    At this scale the three moments that the kernel (x . y / 64 + 1)^3 of `kernel_distance` compares
    weigh about the same. One number for all features keeps the relative size of each, which the
    classifier chose.

    Args:
      data: images with labels 0 ... K - 1, of 4 x 4 pixels or more.
      folder: where the weights are kept; not the folder of a run. Several runs may share it.

    Raises:
      UserError: there are no labels, the folder cannot be written, or a process does not see it.
    """
    folder = pathlib.Path(folder)
    classes, prints = _survey(data)
    network, steps = _Classifier(classes), _steps(len(data.train))
    form = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, *data.shape)))
    training = (_FORM, str(form), data.levels, _BATCH, _RATE, _SEED, steps, _SCALED_ON)
    path = folder / f"classifier-{data.name}-{digest(str(training), *prints)}.npz"
    held = kept(path, lambda: _trained(network, data, steps, path))
    leaves = [held[name] for name in _names(form)]
    params = jax.tree.unflatten(jax.tree.structure(form), leaves)
    weights = jax.device_put((params, held["mean"], held["scale"]))

    def features(images):
        return _in_blocks(network, weights, data.shape, images)[0]

    def classify(images):
        return _in_blocks(network, weights, data.shape, images)[1]

    return Extractor(features, classify, float(held["accuracy"]), digest(*held.values()))


def _survey(data: Images) -> tuple[int, list[str]]:
    """Number of classes, and the digests of all batches of both splits."""
    if not data.labelled:
        raise UserError(f"--data {data.name}: has no labels; expected a set to train a classifier")
    lowest, highest, prints = 0, 0, []
    for split in (data.train, data.test):
        for batch in in_order(split, _READ):
            lowest = min(lowest, int(batch["label"].min()))
            highest = max(highest, int(batch["label"].max()))
            prints.append(digest(batch["image"], batch["label"]))
    if lowest < 0:
        raise UserError(f"--data {data.name}: has the label {lowest}; expected labels >= 0")
    return highest + 1, prints


class _Classifier(nn.Module):
    """[B, H, W, C] in [0, 1] -> logits [B, classes]."""

    classes: int

    def setup(self):
        """The layers."""
        self.first, self.second = Conv(32), Conv(64)
        self.dense, self.logits = nn.Dense(FEATURES), nn.Dense(self.classes)

    def features(self, x):
        """[B, H, W, C] -> [B, 64]."""
        if min(x.shape[1:3]) >= 16:
            # 2 x 2 pixels become channels: a layer at full size takes as long as all the others.
            quads = _quads(x).swapaxes(2, 3)
            x = quads.reshape(*quads.shape[:3], -1)
        x = self.first(x)
        x = self.second(nn.relu(jnp.max(_quads(x), axis=(2, 4))))
        return self.dense(nn.relu(x).reshape(len(x), -1))

    def head(self, features):
        """[B, 64] -> [B, classes]."""
        return self.logits(nn.relu(features))

    def __call__(self, x):
        """[B, H, W, C] -> [B, classes]."""
        return self.head(self.features(x))


def _quads(x):
    """[B, H, W, C] -> [B, H / 2, 2, W / 2, 2, C]; an odd last row or column is dropped."""
    b, h, w, c = x.shape
    return x[:, : h // 2 * 2, : w // 2 * 2].reshape(b, h // 2, 2, w // 2, 2, c)


def _steps(length: int) -> int:
    """Four epochs, but at least 500 steps."""
    return max(500, -(-4 * length // _BATCH))


def _trained(network: nn.Module, data: Images, steps: int, path: pathlib.Path) -> dict:
    """The content of the file: weights by name, mean and scale of the features, accuracy."""
    params = _train(network, data, steps, path)
    plain = params, np.zeros(FEATURES, np.float32), np.float32(1)
    places = np.linspace(0, len(data.train) - 1, min(len(data.train), _SCALED_ON)).astype(int)
    seen = signed_pixels(data.train[places]["image"], data.levels)
    raw, _ = _in_blocks(network, plain, data.shape, seen)
    mean = raw.mean(axis=0)
    right = [
        _in_blocks(network, plain, data.shape, signed_pixels(batch["image"], data.levels))[1]
        == batch["label"]
        for batch in in_order(data.test, _READ)
    ]
    return {
        **dict(zip(_names(params), jax.tree.leaves(params), strict=True)),
        "mean": mean,
        "scale": np.sqrt(np.mean((raw - mean) ** 2)),
        "accuracy": np.concatenate(right).mean(),
    }


def _train(network: nn.Module, data: Images, steps: int, path: pathlib.Path):
    optimizer = optax.adam(optax.cosine_decay_schedule(_RATE, steps))
    method, key = classifier(network, optimizer, data), jax.random.key(_SEED)
    state = jax.jit(method.init)(key, first_batch(data.train, _BATCH, _SEED))
    step = jax.jit(method.step, donate_argnums=0)
    stream = batches(data.train, _BATCH, _SEED)
    began = 0.0
    for done in range(steps):
        state, _ = step(state, next(stream), key)
        if done in (0, _TIMED):  # the first step compiles
            jax.block_until_ready(state)
            seconds = (time.monotonic() - began) / _TIMED * (steps - done)
            began = time.monotonic()
        if done == _TIMED:
            notice(
                f"training the classifier that judges {data.name}: {steps} steps, about"
                f" {seconds:.0f} s, once for all runs; kept in {path}"
            )
    return state.params


def _names(tree) -> list[str]:
    return [jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(tree)]


@functools.partial(jax.jit, static_argnums=0)
def _look(network: Any, weights, images):
    """Features and labels of one block, in full f32 so that devices agree."""
    params, mean, scale = weights
    with jax.default_matmul_precision("highest"):
        raw = network.apply(params, (images + 1) / 2, method="features")
        logits = network.apply(params, raw, method="head")
    return (raw - mean[None]) / scale, jnp.argmax(logits, axis=-1).astype(jnp.int32)


def _in_blocks(network: nn.Module, weights, shape, images) -> tuple[np.ndarray, np.ndarray]:
    split = Arrays({"image": checked(images, shape)})
    return in_blocks(lambda batch: _look(network, weights, batch["image"]), split, _BLOCK)


def checked(images, shape: tuple[int, int, int]) -> np.ndarray:
    """Images as numpy f32 [N, H, W, C], N >= 1.

    Raises:
      ValueError: not floats, not of the shape [H, W, C], not finite, or outside [-1, 1].
    """
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[1:] != shape or not len(images):
        expected = ", ".join(map(str, shape))
        raise ValueError(f"images {images.shape}; expected [N, {expected}] with N >= 1")
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise ValueError(f"images of {images.dtype}; expected floats in [-1, 1], `signed_pixels`")
    images = images.astype(np.float32)
    bad = images[~np.isfinite(images)]
    if bad.size:
        raise ValueError(f"images hold {bad[0]}; expected finite numbers in [-1, 1]")
    farthest = images.flat[np.argmax(np.abs(images))]
    if abs(farthest) > 1 + _SLACK:
        raise ValueError(f"images hold {farthest:g}; expected numbers in [-1, 1]")
    return images
