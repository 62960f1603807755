"""Compares generated images with real ones by their pixels, for sets without labels.

An experiment reports `floor_of_pixels` beside the numbers: those of real training images against
real test images.
"""

import functools
import pathlib
from collections.abc import Callable

import jax
import numpy as np

from experiments.lib.artefacts import digest
from experiments.lib.errors import UserError
from experiments.lib.sources.image_set import Images
from experiments.methods.features import checked, signed_pixels
from experiments.methods.judge import kept_numbers, places, spaced
from jaxgen.metrics import ms_ssim, pyramid_sliced_wasserstein

_FORM = 2  # raise it where the code below changes what a kept floor holds
_PIXELS = 1000  # images whose pixels are compared ...
_PATCHES = 16  # ... at so many places; to sort the 128 of the paper takes a CPU two minutes
_SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # weights of MS-SSIM, from fine to coarse


def suitable(data: Images) -> bool:
    """Whether `judge_pixels` can be used: two or more images in either split, of at least 8x8."""
    return min(len(data.train), len(data.test)) >= 2 and min(data.shape[:2]) >= 8


def check_pixels(data: Images) -> None:
    """Raises a UserError where `judge_pixels` cannot be used."""
    if not suitable(data):
        raise UserError(
            f"--data {data.name}: {len(data.train)} training and {len(data.test)} test images of"
            f" {data.shape[1]}x{data.shape[0]} pixels; to judge samples by pixels expected two or"
            " more of each, of at least 8x8"
        )


def by_pixels(data: Images, folder: str | pathlib.Path, fakes: Callable) -> Callable:
    """`judge_pixels` as the `judge` of a method, with swd_of_real of `floor_of_pixels` beside.

    Args:
      data: the images.
      folder: where the floor is kept.
      fakes: (state, key, count) -> images [count, H, W, C] in [-1, 1].

    Returns:
      (state, key) -> {name: number}.

    Raises:
      UserError: as `check_pixels`.
    """
    check_pixels(data)

    @functools.cache
    def prepared():
        return spaced_pixels(data.test, data.levels), floor_of_pixels(data, folder)

    def judge(state, key):
        real, floor = prepared()
        sample_key, key = jax.random.split(key)
        samples = fakes(state, sample_key, len(real))
        return judge_pixels(real, samples, key) | {"swd_of_real": floor["swd"]}

    return judge


def spaced_pixels(split, levels: int) -> np.ndarray:
    """The images of a split that `judge_pixels` compares: at most 1,000, f32 in [-1, 1].

    Args:
      split: of `Images`.
      levels: the pixels are 0 .. levels - 1.
    """
    return signed_pixels(split[places(split, _PIXELS)]["image"], levels)


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
    return kept_numbers(pathlib.Path(folder) / f"pixels-{data.name}-{digest(*prints)}.npz", make)


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
    real, fakes = spaced(real, count), spaced(fakes, count)
    distance_key, pair_key = jax.random.split(key)
    levels = _halvings(real.shape[1:3], 14)
    distances = _sliced_wasserstein(distance_key, real, fakes, levels=levels, patches=_PATCHES)
    return {
        "samples": float(count),
        "swd": 1e3 * float(np.mean(distances)),
        "ms_ssim": _pair_similarity(fakes, pair_key),
        "ms_ssim_real": _pair_similarity(real, pair_key),
    }


_sliced_wasserstein = jax.jit(pyramid_sliced_wasserstein, static_argnames=("levels", "patches"))


@functools.partial(jax.jit, static_argnames="weights")
def _similarity(x, y, weights):
    return ms_ssim(x, y, low=-1, high=1, weights=weights)


def _pair_similarity(images, key) -> float:
    order = np.asarray(jax.random.permutation(key, len(images))).reshape(2, -1)
    weights = _SCALES[: _halvings(images.shape[1:3], 4)]
    weights = tuple(weight / sum(weights) for weight in weights)
    return float(np.mean(_similarity(images[order[0]], images[order[1]], weights)))


def _halvings(size: tuple[int, ...], least: int) -> int:
    """Number of scales of an image that is halved while its sides are even and stay >= least."""
    scales = 1
    while all(n % 2 == 0 and n // 2 >= least for n in size):
        size, scales = tuple(n // 2 for n in size), scales + 1
    return scales
