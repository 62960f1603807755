"""Random changes of images that keep what they show: affine maps, crops, flips and colours.

Images are floats [B, H, W, C] in [0, 1], and so are the results. Each image gets its own draw.
"""

import math

import jax
import jax.numpy as jnp


def random_affine(
    key, images, rotation: float = 0.3, scale: float = 1.25, shear: float = 0.2, shift: float = 0.1
):
    """Rotates, scales, shears and shifts each image about its centre; black outside.

    Output position p, in pixels from the centre, shows input position R S p + t, between pixels by
    bilinear interpolation. R rotates, S = [[s_1, 0], [k, s_2]].

    Args:
      key: a PRNG key, used once.
      images: [B, H, W, C].
      rotation: angles are uniform in [-rotation, rotation], in radians.
      scale: log s_1 and log s_2 are uniform in [-log scale, log scale].
      shear: k is uniform in [-shear, shear].
      shift: t is uniform in [-shift, shift], as a share of the height and of the width.
    """
    count, height, width, _ = images.shape
    size = jnp.array([height, width])

    def uniform(key, bound, *shape):
        return jax.random.uniform(key, (count, *shape), minval=-bound, maxval=bound)

    keys = jax.random.split(key, 4)
    angle, slope = uniform(keys[0], rotation), uniform(keys[2], shear)
    sides = jnp.exp(uniform(keys[1], math.log(scale), 2))
    offset = uniform(keys[3], shift, 2) * size[None]
    cos, sin, zero = jnp.cos(angle), jnp.sin(angle), jnp.zeros(count)
    turn = jnp.stack([cos, -sin, sin, cos], -1).reshape(-1, 2, 2)
    stretch = jnp.stack([sides[:, 0], zero, slope, sides[:, 1]], -1).reshape(-1, 2, 2)
    # The positions of pixels must not be rounded as a product of a network may be.
    matrix = jnp.matmul(turn, stretch, precision="highest")
    return jax.vmap(_warped)(images, matrix, offset)


def _warped(image, matrix, offset):
    centre = (jnp.array(image.shape[:2]) - 1) / 2
    places = jnp.stack(jnp.meshgrid(*map(jnp.arange, image.shape[:2]), indexing="ij"))
    places = places - centre[:, None, None]
    places = jnp.einsum("ij,jhw->ihw", matrix, places, precision="highest")
    places = places + (offset + centre)[:, None, None]

    def channel(plane):
        return jax.scipy.ndimage.map_coordinates(plane, list(places), order=1, mode="constant")

    return jax.vmap(channel, -1, -1)(image)


def random_crop(key, images, smallest: float = 0.3):
    """Cuts a random rectangle out of each image and enlarges it to the full size.

    The area of the rectangle is uniform in [smallest, 1] of the image, the logarithm of its aspect
    ratio in [-log 4/3, log 4/3], as in SimCLR (Chen et al. 2020, arXiv 2002.05709, appendix A). A
    side that would exceed the image is cut to it.

    Args:
      key: a PRNG key, used once.
      images: [B, H, W, C].
      smallest: least share of the area.
    """
    area_key, ratio_key, place_key = jax.random.split(key, 3)
    count, size = len(images), jnp.array(images.shape[1:3])
    area = jax.random.uniform(area_key, (count,), minval=smallest, maxval=1.0)
    most = math.log(4 / 3)
    ratio = jnp.exp(jax.random.uniform(ratio_key, (count,), minval=-most, maxval=most))
    sides = jnp.minimum(jnp.stack([jnp.sqrt(area * ratio), jnp.sqrt(area / ratio)], -1), 1.0)
    place = jax.random.uniform(place_key, (count, 2), minval=-0.5, maxval=0.5)
    offset = place * (1 - sides) * size[None]
    return jax.vmap(_warped)(images, jax.vmap(jnp.diag)(sides), offset)


def random_flip(key, images):
    """Mirrors each image left to right with probability 1/2."""
    flip = jax.random.bernoulli(key, 0.5, (len(images), 1, 1, 1))
    return jnp.where(jnp.broadcast_to(flip, images.shape), images[:, :, ::-1], images)


def color_jitter(key, images, strength: float = 0.4, grey: float = 0.2):
    """Changes brightness, contrast and saturation, and makes some images grey.

    Brightness multiplies the pixels, contrast their distance to the image's mean grey, saturation
    their distance to their own grey; each factor is uniform in [1 - strength, 1 + strength]. The
    result is clipped to [0, 1].

    Args:
      key: a PRNG key, used once.
      images: [B, H, W, C]. Of images with one channel only brightness and contrast change.
      strength: in [0, 1].
      grey: probability that an image loses its colours.
    """
    factor_key, grey_key = jax.random.split(key)
    count = len(images)
    low, high = 1 - strength, 1 + strength
    factors = jax.random.uniform(factor_key, (3, count, 1, 1, 1), minval=low, maxval=high)
    keep = jax.random.bernoulli(grey_key, 1.0 - grey, (count, 1, 1, 1))

    def towards(centre, factor):
        return centre + factor * (images - centre)

    images = images * factors[0]
    images = towards(jnp.mean(images, (1, 2, 3), keepdims=True), factors[1])
    images = towards(jnp.mean(images, -1, keepdims=True), factors[2] * keep)
    return jnp.clip(images, 0, 1)
