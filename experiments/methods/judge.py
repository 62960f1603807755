"""Images of a generator against real ones: by features of a trained classifier, or by pixels.

The numbers are biased at finite N, so state N and put `floor` beside them: those of real training
images against real test images. None is FID or KID, whose features are an Inception network's.
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


class Reference(NamedTuple):
    """The real side.

    Attributes:
      features: [N, 64].
      fit: their Gaussian.
    """

    features: np.ndarray
    fit: GaussianFit


def reference(split, levels: int, extractor: Extractor, folder: str | pathlib.Path) -> Reference:
    """Features of all images of a split and their Gaussian fit, kept in a file.

    The file's name has a hash of the images and of the weights. All processes call this.

    Args:
      split: of `Images`.
      levels: the pixels are 0 .. levels - 1.
      extractor: of the features.
      folder: where the features are kept; that of the extractor will do.

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
    """How far the features of generated images are from the real ones'.

    Args:
      real: the reference, of N images.
      fakes: [M, 64] features of the same extractor, M >= 65.
      key: a PRNG key, used once.

    Returns:
      cfid: squared Wasserstein-2 distance of the Gaussian fits, >= 0; the mean of the real |x|^2
        is about 64. All N and M count.
      kid: unbiased squared MMD of the polynomial kernel, over 10 disjoint subsets of
        min(1000, min(N, M) // 10) of each, and kid_standard_error.
      density and coverage (k = 5), precision and recall (k = 3): among 5,000 of each at most,
        evenly spaced. For equal laws density is 1 and coverage 0.969 where N = M.

    Raises:
      ValueError: another shape, not finite, or fewer than 65.
    """
    fakes = np.asarray(fakes)
    distance_of_fits = cfid(real, fakes)
    size = min(1000, min(len(real.features), len(fakes)) // _SUBSETS)
    distance = _kernel_distance(key, real.features, fakes, subsets=_SUBSETS, size=size)
    near, inside = _neighbours(_spaced(real.features, _NEIGHBOURS), _spaced(fakes, _NEIGHBOURS))
    numbers = {
        "cfid": distance_of_fits,
        "kid": distance.mean,
        "kid_standard_error": distance.standard_error,
        **near._asdict(),
        **inside._asdict(),
    }
    return {name: float(value) for name, value in numbers.items()}


def cfid(real: Reference, fakes) -> float:
    """The first number of `judge` alone; arguments and errors as there."""
    fakes = np.asarray(fakes)
    if fakes.ndim != 2 or fakes.shape[1:] != real.features.shape[1:]:
        raise ValueError(f"cfid: fakes {fakes.shape}; expected features [N, {FEATURES}]")
    return frechet_distance(real.fit, _fit("the fakes", fakes))


def floor(
    data: Images, real: Reference, extractor: Extractor, folder: str | pathlib.Path, count: int = 0
) -> dict[str, float]:
    """`judge` of real training images against the test images, kept in a file.

    What a generator can hope for, or a little less: the classifier knows the training images.

    Args:
      data: the images.
      real: the reference of data.test.
      extractor: of the features.
      folder: where the numbers are kept; that of the extractor will do.
      count: how many training images, evenly spaced; 0: as many as `real` has, or all.

    Returns:
      As `judge`, and "examples": the number of training images.

    Raises:
      As `judge` and `reference`.
    """
    count = min(count or len(real.features), len(data.train))
    places = _spaced(np.arange(len(data.train)), count)
    images = data.train[places]["image"]

    def make():
        found = extractor.features(signed_pixels(images, data.levels))
        return judge(real, found, jax.random.key(0))

    prints = extractor.digest, str(data.levels), digest(real.features), digest(images)
    held = kept(pathlib.Path(folder) / f"floor-{data.name}-{digest(*prints)}.npz", make)
    return {**{name: float(value) for name, value in held.items()}, "examples": float(count)}


def judge_pixels(real, fakes, key) -> dict[str, float]:
    """Distance and diversity without a classifier, for sets without labels.

    Both among min(N, M, 1000) of each, evenly spaced.

    Args:
      real: [N, H, W, C] in [-1, 1], H and W >= 8.
      fakes: [M, H, W, C] in [-1, 1].
      key: a PRNG key, used once.

    Returns:
      swd: 1,000 times the sliced Wasserstein distance of 7 x 7 patches, 16 per image and level,
        mean over the levels of a Laplacian pyramid (halved while even and 14 pixels or more
        remain), >= 0. Published tables have 16,384 images and 128 patches.
      ms_ssim: mean over random pairs of fakes, ms_ssim_real: of reals; in [0, 1], higher is less
        diverse. Scales are halved while even and 4 pixels or more remain, five at most, their
        weights brought to a sum of 1.

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
    """Of features that are all in memory: no sums over batches, but float64 from the start."""
    if len(features) < FEATURES + 1:
        raise ValueError(
            f"{what}: {len(features)} images; expected at least {FEATURES + 1}, one more than"
            " there are features"
        )
    if not np.isfinite(features).all():
        raise ValueError(f"{what}: features with NaN or infinity; expected finite features")
    wide = np.asarray(features, np.float64)
    return GaussianFit(wide.mean(axis=0), np.cov(wide, rowvar=False))


def _spaced(array, count: int):
    """At most `count` of the rows, evenly spaced: a set may be sorted, or easy at its start."""
    if len(array) <= count:
        return array
    return array[np.linspace(0, len(array) - 1, count).astype(int)]


def _halvings(size: tuple[int, ...], least: int) -> int:
    """Scales of an image that is halved while its sides are even and stay >= least."""
    scales = 1
    while all(n % 2 == 0 and n // 2 >= least for n in size):
        size, scales = tuple(n // 2 for n in size), scales + 1
    return scales
