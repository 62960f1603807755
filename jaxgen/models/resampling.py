"""Layers that halve or double the sides of an image: 4x4 convolutions, 2x2 blocks as channels."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.models import cpu

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")


@cpu.by_platform(cpu=cpu.conv4x4_down)
def conv4x4_down(x, kernel):
    """4x4 convolution, stride 2, padded by one zero: [B, H, W, I] -> [B, H / 2, W / 2, O].

    y[b, h, w, o] = sum_{i, j, c} x[b, 2h + i - 1, 2w + j - 1, c] kernel[i, j, c, o]

    On a CPU it is computed by matrix products: see `jaxgen.models.cpu`.

    Args:
      x: [B, H, W, I], H and W even.
      kernel: [4, 4, I, O].

    Returns:
      [B, H / 2, W / 2, O].

    Raises:
      ValueError: x is not [B, H, W, I] with even sides, or the kernel is not [4, 4, I, O].
    """
    if x.ndim != 4 or x.shape[1] % 2 or x.shape[2] % 2 or kernel.shape[:3] != (4, 4, x.shape[-1]):
        raise ValueError(
            f"x {x.shape}, kernel {kernel.shape}; expected [B, H, W, I] with even H and W, and"
            " [4, 4, I, O]"
        )
    return jax.lax.conv_general_dilated(
        x, kernel, (2, 2), ((1, 1), (1, 1)), dimension_numbers=_DIMENSIONS
    )


@cpu.by_platform(cpu=cpu.conv4x4_up)
def conv4x4_up(x, kernel):
    """The transpose of `conv4x4_down`: [B, H, W, I] -> [B, 2H, 2W, O].

    y[b, u, v, o] = sum over u = 2h + i - 1, v = 2w + j - 1 of x[b, h, w, c] kernel[i, j, c, o]

    As `torch.nn.ConvTranspose2d(I, O, 4, 2, 1)`. The size 4 is a multiple of the stride 2, so the
    same number of taps reaches every pixel. On a CPU it is computed by matrix products: see
    `jaxgen.models.cpu`.

    Args:
      x: [B, H, W, I].
      kernel: [4, 4, I, O].

    Returns:
      [B, 2H, 2W, O].

    Raises:
      ValueError: x is not [B, H, W, I], or the kernel is not [4, 4, I, O] with the same I.
    """
    if x.ndim != 4 or kernel.shape[:3] != (4, 4, x.shape[-1]):
        raise ValueError(
            f"x {x.shape}, kernel {kernel.shape}; expected [B, H, W, I] and [4, 4, I, O]"
        )
    return jax.lax.conv_general_dilated(
        x,
        kernel[::-1, ::-1],
        (1, 1),
        ((2, 2), (2, 2)),
        lhs_dilation=(2, 2),
        dimension_numbers=_DIMENSIONS,
    )


class ConvDown(nn.Module):
    """`conv4x4_down` with a bias; halves both sides.

    Attributes:
      features: channels out.
    """

    features: int

    @nn.compact
    def __call__(self, x):
        """[B, H, W, I] -> [B, H / 2, W / 2, features], computed in x's dtype."""
        return _with_bias(self, conv4x4_down, x, nn.initializers.he_normal())


class ConvUp(nn.Module):
    """`conv4x4_up` with a bias; doubles both sides.

    Attributes:
      features: channels out.
    """

    features: int

    @nn.compact
    def __call__(self, x):
        """[B, H, W, I] -> [B, 2H, 2W, features], computed in x's dtype."""
        # He's rule: four of the sixteen taps reach each pixel.
        start = nn.initializers.variance_scaling(8.0, "fan_in", "truncated_normal")
        return _with_bias(self, conv4x4_up, x, start)


def _with_bias(layer: nn.Module, convolution, x, start):
    shape = (4, 4, x.shape[-1], layer.features)
    kernel = layer.param("kernel", start, shape).astype(x.dtype)
    bias = layer.param("bias", nn.initializers.zeros, (layer.features,)).astype(x.dtype)
    y = convolution(x, kernel)
    return y + jnp.broadcast_to(bias, y.shape)


def space_to_depth(x):
    """2x2 blocks of pixels become channels: [B, H, W, C] -> [B, H / 2, W / 2, 4C].

    The four pixels of a block come in the order (0,0), (0,1), (1,0), (1,1); the C channels of a
    pixel stay together.

    Args:
      x: [B, H, W, C], H and W even.

    Raises:
      ValueError: x has another rank, or H or W is odd.
    """
    if x.ndim != 4 or x.shape[1] % 2 or x.shape[2] % 2:
        raise ValueError(f"x {x.shape}; expected [B, H, W, C] with even H and W")
    b, h, w, c = x.shape
    blocks = x.reshape(b, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 2, 4, 5)
    return blocks.reshape(b, h // 2, w // 2, 4 * c)


def depth_to_space(z):
    """The inverse of `space_to_depth`: [B, H, W, 4C] -> [B, 2H, 2W, C].

    Args:
      z: [B, H, W, 4C].

    Raises:
      ValueError: z has another rank, or the channels are no multiple of 4.
    """
    if z.ndim != 4 or z.shape[3] % 4:
        raise ValueError(f"z {z.shape}; expected [B, H, W, 4C]")
    b, h, w, c = z.shape
    blocks = z.reshape(b, h, w, 2, 2, c // 4).transpose(0, 1, 3, 2, 4, 5)
    return blocks.reshape(b, 2 * h, 2 * w, c // 4)


def doublings(shape, smallest: int = 7) -> int:
    """The number of times both sides of an image halve until the longer is at most `smallest`.

    Examples: 28 -> 14 -> 7 is 2, 32 -> 4 is 3, 64 -> 4 is 4, 8 -> 4 is 1.

    Args:
      shape: (H, W, C) of an image.
      smallest: the largest side at which the halving stops.

    Raises:
      ValueError: a side becomes odd before that.
    """
    height, width, _ = shape
    count = 0
    while max(height, width) > smallest:
        if height % 2 or width % 2:
            raise ValueError(
                f"shape {shape}; expected sides of at most {smallest} times a power of 2"
            )
        height, width, count = height // 2, width // 2, count + 1
    return count
