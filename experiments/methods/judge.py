"""Compares generated images with real ones, by features of a trained classifier or by pixels.

The numbers are biased where the images are few, so each result has the number of images in it, and
an experiment reports `floor` or `floor_of_pixels` beside it: the same numbers of real training
images against real test images. None of them is FID or KID, whose features are those of an
Inception network.
"""

import functools
import pathlib
from typing import NamedTuple

import jax
import numpy as np

from experiments.lib.artefacts import digest, kept
from experiments.lib.batches import in_order
from experiments.lib.errors import UserError
from experiments.lib.logs import notice
from experiments.lib.sources.image_set import Images
from experiments.methods.features import FEATURES, Extractor, checked, signed_pixels
from jaxgen.metrics import (
    GaussianFit,
    density_coverage,
    frechet_distance,
    kernel_distance,
    ms_ssim,
    precision_recall,
    pyramid_sliced_wasserstein,
)

_FORM = 2  # raise it where the code below changes what a kept floor holds
_READ = 2048  # images that are read at once
_NEIGHBOURS = 5000  # examples among which neighbours are sought
_SUBSETS = 10
_PIXELS = 1000  # images whose pixels are compared ...
_PATCHES = 16  # ... at so many places; to sort the 128 of the paper takes a CPU two minutes
_SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # weights of MS-SSIM, from fine to coarse


def by_features(data: Images) -> bool:
    """Whether `judge` can be used: the set has labels, and either split enough images."""
    if data.labelled and min(len(data.train), len(data.test)) <= FEATURES:
        notice(
            f"--data {data.name}: {len(data.train)} training and {len(data.test)} test images;"
            f" samples are judged by their pixels, a classifier's features need {FEATURES + 1}"
        )
        return False
    return data.labelled


def check_pixels(data: Images) -> None:
    """Raises a UserError where `judge_pixels` cannot be used."""
    if len(data.test) < 2 or min(data.shape[:2]) < 8:
        raise UserError(
            f"--data {data.name}: {len(data.test)} test images of {data.shape[1]}x{data.shape[0]}"
            " pixels; to judge samples by pixels expected two or more, of at least 8x8"
        )


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


class Reference(NamedTuple):
    """What is kept of the real images.

    Attributes:
      features: [N, 64].
      fit: the Gaussian with their mean and covariance.
    """

    features: np.ndarray
    fit: GaussianFit


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
    near, inside = _neighbours(_spaced(real.features, _NEIGHBOURS), _spaced(fakes, _NEIGHBOURS))
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
    images = data.train[_places(data.train, count or len(real.features))]["image"]

    def make():
        found = extractor.features(signed_pixels(images, data.levels))
        return judge(real, found, jax.random.key(0))

    prints = str(_FORM), extractor.digest, str(data.levels), digest(real.features), digest(images)
    return _kept_numbers(pathlib.Path(folder) / f"floor-{data.name}-{digest(*prints)}.npz", make)


def spaced_pixels(split, levels: int) -> np.ndarray:
    """The images of a split that `judge_pixels` compares: at most 1,000, f32 in [-1, 1].

    Args:
      split: of `Images`.
      levels: the pixels are 0 .. levels - 1.
    """
    return signed_pixels(split[_places(split, _PIXELS)]["image"], levels)


def floor_of_pixels(data: Images, folder: str | pathlib.Path) -> dict[str, float]:
    """`judge_pixels` of real training images against the test images, kept in a file.

    A perfect generator would get about these numbers.

    Args:
      data: the images.
      folder: where the numbers are kept.

    Returns:
      As `judge_pixels`.

    Raises:
      As `judge_pixels`; UserError: the folder cannot be written, or a process does not see it.
    """
    train, real = (spaced_pixels(split, data.levels) for split in (data.train, data.test))

    def make():
        return judge_pixels(real, train, jax.random.key(0))

    prints = str(_FORM), digest(train), digest(real)
    return _kept_numbers(pathlib.Path(folder) / f"pixels-{data.name}-{digest(*prints)}.npz", make)


def judge_pixels(real, fakes, key) -> dict[str, float]:
    """Distance and diversity without a classifier, for sets without labels.

    Both are computed on min(N, M, 1000) images of each kind, evenly spaced.

    Args:
      real: [N, H, W, C] in [-1, 1], H and W >= 8.
      fakes: [M, H, W, C] in [-1, 1].
      key: a PRNG key, used once.

    Returns:
      samples: the number of images compared, of each kind; swd falls as it grows.
      swd: 1,000 times the sliced Wasserstein distance of 7 x 7 patches, 16 per image and level,
        mean over the levels of a Laplacian pyramid, >= 0. The pyramid halves an image while its
        sides are even and keep 14 pixels or more. Published tables use 16,384 images and 128
        patches.
      ms_ssim: mean over random pairs of fakes; ms_ssim_real: of reals. Both are in [0, 1]; higher
        is less diverse. An image is halved while its sides are even and keep 4 pixels or more, to
        five scales at most, whose weights are divided by their sum.

    Raises:
      ValueError: two shapes, too small, outside [-1, 1], or fewer than 2.
    """
    shape = np.shape(real)[1:]
    real, fakes = checked(real, shape), checked(fakes, shape)
    count = min(len(real), len(fakes), _PIXELS) // 2 * 2
    if count < 2:
        raise ValueError(f"judge_pixels: {len(real)} real, {len(fakes)} fake; expected 2 or more")
    real, fakes = _spaced(real, count), _spaced(fakes, count)
    distance_key, pair_key = jax.random.split(key)
    levels = _halvings(real.shape[1:3], 14)
    distances = _sliced_wasserstein(distance_key, real, fakes, levels=levels, patches=_PATCHES)
    return {
        "samples": float(count),
        "swd": 1e3 * float(np.mean(distances)),
        "ms_ssim": _pair_similarity(fakes, pair_key),
        "ms_ssim_real": _pair_similarity(real, pair_key),
    }


_kernel_distance = jax.jit(kernel_distance, static_argnames=("subsets", "size"))
_sliced_wasserstein = jax.jit(pyramid_sliced_wasserstein, static_argnames=("levels", "patches"))


@jax.jit
def _neighbours(real, fakes):
    return density_coverage(real, fakes), precision_recall(real, fakes)


@functools.partial(jax.jit, static_argnames="weights")
def _similarity(x, y, weights):
    return ms_ssim(x, y, low=-1, high=1, weights=weights)


def _pair_similarity(images, key) -> float:
    order = np.asarray(jax.random.permutation(key, len(images))).reshape(2, -1)
    weights = _SCALES[: _halvings(images.shape[1:3], 4)]
    weights = tuple(weight / sum(weights) for weight in weights)
    return float(np.mean(_similarity(images[order[0]], images[order[1]], weights)))


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


def _places(rows, count: int) -> np.ndarray:
    """Indices of at most `count` rows, evenly spaced: a set may be sorted, or easy at its start."""
    return np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int)


def _spaced(array, count: int):
    return array[_places(array, count)]


def _kept_numbers(path: pathlib.Path, make) -> dict[str, float]:
    return {name: float(value) for name, value in kept(path, make).items()}


def _halvings(size: tuple[int, ...], least: int) -> int:
    """Number of scales of an image that is halved while its sides are even and stay >= least."""
    scales = 1
    while all(n % 2 == 0 and n // 2 >= least for n in size):
        size, scales = tuple(n // 2 for n in size), scales + 1
    return scales
