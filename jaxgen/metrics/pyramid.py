"""Sliced Wasserstein distance between the patches of two sets of images at each scale."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.arguments import at_least_f32, require_integer
from jaxgen.metrics.shapes import images

_PATCH = 7


def laplacian_pyramid(x, levels: int) -> list:
    """Band-pass images from fine to coarse, then the low-pass residual.

    Burt and Adelson 1983, IEEE Transactions on Communications 31: G_0 = x, G_i = reduce(G_(i-1)),
    L_i = G_i - expand(G_(i+1)), with the taps (1, 4, 6, 4, 1) / 16 and mirrored borders.

    Args:
      x: [N, H, W, C]; H and W must be multiples of 2^(levels - 1) and at least twice that.
      levels: >= 1.

    Returns:
      list of [N, H / 2^i, W / 2^i, C], i = 0 ... levels - 1, in at least f32.

    Raises:
      ValueError: levels < 1, or H or W does not fit the number of levels.
    """
    require_integer(least=1, levels=levels)
    x = at_least_f32(x)
    factor = 2 ** (levels - 1)
    if x.ndim != 4 or any(n % factor or n < 2 * factor for n in x.shape[1:3]):
        raise ValueError(
            f"x {x.shape}; expected [N, H, W, C], H and W multiples of {factor} "
            f"and >= {2 * factor} for {levels} levels"
        )
    found = []
    for _ in range(levels - 1):
        coarse = _reduce(x)
        found.append(x - _expand(coarse))
        x = coarse
    return [*found, x]


def pyramid_sliced_wasserstein(
    key,
    real,
    fake,
    *,
    levels: int = 3,
    patches: int = 128,
    projections: int = 128,
    repeats: int = 4,
):
    """Sliced W_1 between 7 x 7 patches at each level of the Laplacian pyramids.

    Karras et al. 2018 (arXiv 1710.10196, section 5). Patches are taken at uniformly random
    positions. Each level and channel is normalised to mean 0 and standard deviation 1 over the
    patches of its own set; one that varies only by rounding is not scaled. W_1 is averaged over
    random directions on the unit sphere. The paper's tables show the values times 1,000, for 16,384
    images and levels down to 16 pixels.

    Caveats: each set is normalised separately, so changes in brightness or contrast go undetected.
    It is biased upwards at finite N: compare at equal N and report real against real. Patches of
    one image are dependent, so the bias falls with the number of images rather than of patches.
    Memory per level: 2 * N * patches * 49 * C numbers, plus projections * 2 * N * patches.

    Args:
      key: a PRNG key, used once.
      real: [N, H, W, C], in any range.
      fake: [N, H, W, C], the same N (the bias depends on N).
      levels: levels of the pyramid, >= 1; the coarsest must be at least 7 x 7.
      patches: patches per image and level, >= 1.
      projections: directions computed at once, >= 1.
      repeats: number of times, >= 1; `projections * repeats` directions in total.

    Returns:
      [levels], from fine to coarse, >= 0, in at least f32.

    Raises:
      ValueError: a number is out of range, the shapes differ, or the images are too small.
    """
    require_integer(least=1, levels=levels, patches=patches, projections=projections)
    require_integer(least=1, repeats=repeats)
    real, fake = images(real, fake)
    if min(real.shape[1:3]) < _PATCH * 2 ** (levels - 1):
        raise ValueError(
            f"real {real.shape}; expected H and W >= {_PATCH * 2 ** (levels - 1)}, "
            f"{levels} levels of {_PATCH} x {_PATCH} patches"
        )

    def rounding(x):
        # NaN if any pixel is: the patches may miss it, and on CPUs so may jnp.max.
        size = jnp.where(jnp.any(jnp.isnan(x)), jnp.nan, jnp.max(jnp.abs(x)))
        return 16 * jnp.finfo(x.dtype).eps * size

    least = rounding(real), rounding(fake)

    def distance(key, real, fake):
        corner_key, key = jax.random.split(key)
        room = jnp.asarray([n - _PATCH + 1 for n in real.shape[1:3]], jnp.int32)
        # Always int32 and f32, so that a key gives the same patches for every dtype.
        shape = (2, len(real), patches, 2)
        corners = jax.random.randint(corner_key, shape, 0, room[None, None, None, :], jnp.int32)
        x = _descriptors(real, corners[0], least[0])
        y = _descriptors(fake, corners[1], least[1])
        directions = jax.random.normal(key, (repeats, projections, x.shape[1]), jnp.float32)
        directions /= jnp.linalg.norm(directions, axis=-1, keepdims=True)
        return jnp.mean(jax.lax.map(lambda d: _sliced(d, x, y), directions.astype(x.dtype)))

    pyramids = zip(laplacian_pyramid(real, levels), laplacian_pyramid(fake, levels), strict=True)
    keys = jax.random.split(key, levels)
    return jnp.stack([distance(key, *pair) for key, pair in zip(keys, pyramids, strict=True)])


def _descriptors(x, corners, least):
    """Normalised patches of [N, H, W, C] at corners [N, patches, 2]: [N patches, 49 C].

    A channel whose standard deviation is at most `least` is constant up to rounding and is not
    divided by it, because that would amplify the rounding errors.
    """

    def cut(image, at):
        rows = jax.lax.dynamic_slice_in_dim(image, at[0], _PATCH, axis=0)
        return jax.lax.dynamic_slice_in_dim(rows, at[1], _PATCH, axis=1)

    found = jax.vmap(jax.vmap(cut, (None, 0)))(x, corners)
    found -= jnp.mean(found, axis=(0, 1, 2, 3), keepdims=True)
    variance = jnp.mean(found**2, axis=(0, 1, 2, 3), keepdims=True)
    found /= jnp.sqrt(jnp.where(variance <= least**2, 1, variance + 0 * least))
    return found.reshape(corners.shape[0] * corners.shape[1], -1)


def _sliced(directions, x, y):
    def sorted_along(x):
        along = jnp.matmul(directions, x.T, precision=jax.lax.Precision.HIGHEST)
        return jnp.sort(along, axis=1)

    gap = sorted_along(x) - sorted_along(y)
    return jnp.mean(gap * jnp.sign(gap))  # |gap| with gradient 0, not 1, at 0


def _reduce(x):
    height, width = (_blur(n)[::2] for n in x.shape[1:3])
    return _separable(x, height, width)


def _expand(x):
    """Upsamples by 2: inserts zeros between the pixels and blurs with doubled taps."""
    height, width = (2 * _blur(2 * n)[:, ::2] for n in x.shape[1:3])
    return _separable(x, height, width)


def _blur(n):
    """The five-tap blur as a matrix [n, n], with borders mirrored about the edge pixel."""
    places = np.pad(np.arange(n), 2, mode="reflect")
    matrix = np.zeros((n, n))
    for i, tap in enumerate((1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)):
        np.add.at(matrix, (np.arange(n), places[i : i + n]), tap)
    return matrix


def _separable(x, height, width):
    height, width = jnp.asarray(height, x.dtype), jnp.asarray(width, x.dtype)
    x = jnp.einsum("ih,nhwc->niwc", height, x, precision=jax.lax.Precision.HIGHEST)
    return jnp.einsum("jw,niwc->nijc", width, x, precision=jax.lax.Precision.HIGHEST)
