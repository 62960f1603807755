"""Compares generated images with real ones by features of a trained classifier.

The numbers are biased where the images are few, so each result has the number of images in it, and
an experiment reports `floor` beside it: the same numbers of real training images against real test
images. None of them is FID or KID, whose features are those of an
Inception network.
"""

import functools
import pathlib
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from experiments.lib.artefacts import digest, kept
from experiments.lib.batches import in_order
from experiments.lib.logs import notice
from experiments.lib.sources.image_set import Images
from experiments.methods import features as of_images
from experiments.methods.features import FEATURES, Extractor, signed_pixels
from jaxgen.metrics import (
    GaussianFit,
    density_coverage,
    frechet_distance,
    kernel_distance,
    precision_recall,
)

_FORM = 2  # raise it where the code below changes what a kept floor holds
_READ = 2048  # images that are read at once
_NEIGHBOURS = 5000  # examples among which neighbours are sought
_SUBSETS = 10


def by_features(data: Images) -> bool:
    """Whether `judge` can be used: the set has labels, and either split enough images."""
    if data.labelled and min(len(data.train), len(data.test)) <= FEATURES:
        notice(
            f"--data {data.name}: {len(data.train)} training and {len(data.test)} test images;"
            f" samples are judged by their pixels, a classifier's features need {FEATURES + 1}"
        )
        return False
    return data.labelled


METRICS = {
    "samples": "number of samples that were judged",
    "reals": "number of test images that they were compared with",
    "cfid": "Frechet distance of a classifier's features, samples to test images; lower is better",
    "kid": "squared kernel distance (MMD) of the same features; lower is better",
    "kid_standard_error": "standard error of kid over its subsets",
    "density": "how often samples lie near test images; 1 for equal laws; read it with coverage",
    "coverage": "share of the test images that have a sample nearby; higher is better",
    "precision": "share of the samples that lie among test images; read it with recall",
    "recall": "share of the test images that lie among samples; higher is better",
    "swd": "1,000 times the sliced Wasserstein distance of image patches; lower is better",
    "ms_ssim": "similarity of two random samples; far above ms_ssim_real: little diversity",
    "ms_ssim_real": "similarity of two random test images",
    "classifier_accuracy": "share of the test images that the judging classifier gets right",
    "classifier_digest": "names the classifier: compare runs only where it is equal",
}


FLOORS = ("cfid", "kid", "density", "coverage", "precision", "recall")


class Reference(NamedTuple):
    """What is kept of the real images.

    Attributes:
      features: [N, 64].
      fit: the Gaussian with their mean and covariance.
    """

    features: np.ndarray
    fit: GaussianFit


def features_judge(
    data: Images, folder: str | pathlib.Path, fakes: Callable, more: Callable | None = None
) -> Callable:
    """`judge` as the judge of a method: of as many samples as there are test images.

    The numbers FLOORS stand beside those of real training images, NAME_of_real.

    Args:
      data: images with labels.
      folder: where the classifier, features and floors are kept.
      fakes: (state, key, count) -> images [count, H, W, C] in [-1, 1].
      more: (extractor, reference, samples, state, key of the samples) -> further numbers, or None.

    Returns:
      (state, key) -> {name: number}.
    """

    @functools.cache
    def prepared():
        extractor = of_images.extractor(data, folder)
        real = reference(data.test, data.levels, extractor, folder)
        return extractor, real, floor(data, real, extractor, folder)

    def numbers(state, key):
        extractor, real, least = prepared()
        sample_key, key = jax.random.split(key)
        samples = fakes(state, sample_key, len(data.test))
        found = judge(real, extractor.features(samples), key)
        if more:
            found |= more(extractor, real, samples, state, sample_key)
        return found | {f"{name}_of_real": least[name] for name in FLOORS} | extractor.facts

    return numbers


def reference(split, levels: int, extractor: Extractor, folder: str | pathlib.Path) -> Reference:
    """Features of all images of a split and their Gaussian fit, kept in a file.

    The name of the file holds a hash of the images and of the weights. All processes call this.

    Args:
      split: of `Images`.
      levels: the pixels are 0 .. levels - 1.
      extractor: of the features.
      folder: where the features are kept, for example the extractor's folder.

    Raises:
      UserError: the folder cannot be written, or a process does not see it.
      ValueError: fewer than 65 images, or of another shape than the extractor's.
    """

    def make():
        parts = [
            extractor.features(signed_pixels(b["image"], levels)) for b in in_order(split, _READ)
        ]
        features = np.concatenate(parts)
        fit = _fit("the real images", features)
        return {"features": features, "mean": fit.mean, "covariance": fit.covariance}

    prints = [digest(batch["image"]) for batch in in_order(split, _READ)]
    name = f"features-{len(split)}-{digest(extractor.digest, str(levels), *prints)}.npz"
    held = kept(pathlib.Path(folder) / name, make)
    return Reference(held["features"], GaussianFit(held["mean"], held["covariance"]))


def judge(real: Reference, fakes, key) -> dict[str, float]:
    """How far the features of generated images are from those of real images.

    Args:
      real: the reference, of N images.
      fakes: [M, 64] features of the same extractor, M >= 65.
      key: a PRNG key, used once.

    Returns:
      samples and reals: M and N, on which the numbers below depend.
      cfid: squared Wasserstein-2 distance of the Gaussian fits, >= 0; the mean of the real |x|^2
        is about 64. All N and M count.
      kid: unbiased squared MMD of the polynomial kernel, over 10 disjoint subsets of
        min(1000, min(N, M) // 10) of each, and kid_standard_error.
      density and coverage (k = 5), precision and recall (k = 3): among 5,000 of each at most,
        evenly spaced. For equal laws density is 1 and coverage 0.969 where N = M.

    Density and precision do not show that a sample looks real. They count samples inside balls
    around real images, and the balls around outliers are large enough to hold samples of any kind.
    Uniform noise on MNIST (10,000 of each) has a density of 0.60 and a precision of 0.88, where
    real training images have 0.94 and 0.87. The other numbers tell the noise apart: coverage 0.004
    (real: 0.956), recall 0.000 (0.891), cfid 83.8 (0.1), kid 2.59 (0.00). Training images whose
    pixels are shuffled even have a density of 1.09 and a precision of 1.00, with a coverage of
    0.007 and a cfid of 87.6. So read density and precision with coverage and cfid, never alone.

    Raises:
      ValueError: another shape, not finite, or fewer than 65.
    """
    fakes = np.asarray(fakes)
    distance_of_fits = cfid(real, fakes)
    size = min(1000, min(len(real.features), len(fakes)) // _SUBSETS)
    distance = _kernel_distance(key, real.features, fakes, subsets=_SUBSETS, size=size)
    near, inside = _neighbours(spaced(real.features, _NEIGHBOURS), spaced(fakes, _NEIGHBOURS))
    numbers = {
        "samples": len(fakes),
        "reals": len(real.features),
        "cfid": distance_of_fits,
        "kid": distance.mean,
        "kid_standard_error": distance.standard_error,
        **near._asdict(),
        **inside._asdict(),
    }
    return {name: float(value) for name, value in numbers.items()}


def cfid(real: Reference, fakes) -> float:
    """The cfid of `judge` alone; arguments and errors as there."""
    fakes = np.asarray(fakes)
    if fakes.ndim != 2 or fakes.shape[1:] != real.features.shape[1:]:
        raise ValueError(f"cfid: fakes {fakes.shape}; expected features [N, {FEATURES}]")
    return frechet_distance(real.fit, _fit("the fakes", fakes))


def floor(
    data: Images, real: Reference, extractor: Extractor, folder: str | pathlib.Path, count: int = 0
) -> dict[str, float]:
    """`judge` of real training images against the test images, kept in a file.

    A perfect generator would get about these numbers. They may be a little worse than its own, as
    the classifier was trained on the training images.

    Args:
      data: the images.
      real: the reference of data.test.
      extractor: of the features.
      folder: where the numbers are kept, for example the extractor's folder.
      count: how many training images, evenly spaced; 0: as many as `real` has, or all if fewer.

    Returns:
      As `judge`; "samples" is the number of training images.

    Raises:
      As `judge` and `reference`.
    """
    images = data.train[places(data.train, count or len(real.features))]["image"]

    def make():
        found = extractor.features(signed_pixels(images, data.levels))
        return judge(real, found, jax.random.key(0))

    prints = str(_FORM), extractor.digest, str(data.levels), digest(real.features), digest(images)
    return kept_numbers(pathlib.Path(folder) / f"floor-{data.name}-{digest(*prints)}.npz", make)


_kernel_distance = jax.jit(kernel_distance, static_argnames=("subsets", "size"))


@jax.jit
def _neighbours(real, fakes):
    return density_coverage(real, fakes), precision_recall(real, fakes)


def _fit(what: str, features) -> GaussianFit:
    """The Gaussian of features that are all in memory, in float64."""
    if len(features) < FEATURES + 1:
        raise ValueError(
            f"{what}: {len(features)} images; expected at least {FEATURES + 1}, one more than"
            " there are features"
        )
    if not np.isfinite(features).all():
        raise ValueError(f"{what}: features with NaN or infinity; expected finite features")
    wide = np.asarray(features, np.float64)
    return GaussianFit(wide.mean(axis=0), np.cov(wide, rowvar=False))


def places(rows, count: int) -> np.ndarray:
    """Indices of at most `count` rows, evenly spaced: a set may be sorted, or easy at its start."""
    return np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int)


def spaced(array, count: int):
    """At most `count` rows of an array, evenly spaced."""
    return array[places(array, count)]


def kept_numbers(path: pathlib.Path, make: Callable) -> dict[str, float]:
    """The numbers {name: float} of a file; make() makes them, see `kept`."""
    return {name: float(value) for name, value in kept(path, make).items()}
