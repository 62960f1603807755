"""4x4 convolutions that halve or double an image, in the form that suits the backend."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.models.convolution import pointwise

_CORNERS = [(i, j) for i in (0, 1) for j in (0, 1)]
_DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def conv4x4_down(x, kernel):
    """4x4 convolution, stride 2, one zero all around: [B, H, W, I] -> [B, H / 2, W / 2, O].

    y[b, h, w, o] = sum_{i, j, c} x[b, 2h + i - 1, 2w + j - 1, c] kernel[i, j, c, o]

    On the CPU backend, where XLA's own gradients of strided convolutions are slow, 2x2 blocks
    become channels, which leaves a 2x2 convolution of stride 1: a matrix product for each of its
    four taps, or one of the four shifted blocks side by side where these are narrow.

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
            f"conv4x4_down: x {x.shape}, kernel {kernel.shape}; expected [B, H, W, I] with even H"
            " and W, and [4, 4, I, O]"
        )
    if jax.default_backend() != "cpu":
        return jax.lax.conv_general_dilated(
            x, kernel, (2, 2), ((1, 1), (1, 1)), dimension_numbers=_DIMENSIONS
        )
    b, h, w, i = x.shape
    h, w, o = h // 2, w // 2, kernel.shape[-1]
    blocks = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))).reshape(b, h + 1, 2, w + 1, 2, i)
    blocks = blocks.transpose(0, 1, 3, 2, 4, 5).reshape(b, h + 1, w + 1, 4 * i)
    taps = kernel.reshape(2, 2, 2, 2, i, o).transpose(0, 2, 1, 3, 4, 5).reshape(4, 4 * i, o)
    patches = [blocks[:, m : m + h, n : n + w] for m, n in _CORNERS]
    if 4 * i <= o:
        return pointwise(jnp.concatenate(patches, axis=-1), taps.reshape(16 * i, o))
    return sum(pointwise(patch, tap) for patch, tap in zip(patches, taps, strict=True))


def conv4x4_up(x, kernel):
    """The transpose of `conv4x4_down`: [B, H, W, I] -> [B, 2H, 2W, O].

    y[b, u, v, o] = sum over u = 2h + i - 1, v = 2w + j - 1 of x[b, h, w, c] kernel[i, j, c, o]

    As `torch.nn.ConvTranspose2d(I, O, 4, 2, 1)`. 4 is a multiple of the stride, so that every
    pixel is reached by equally many taps. On the CPU backend a matrix product for each tap of
    blocks, or one for all four where what they give is narrow, as `conv4x4_down`.

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
            f"conv4x4_up: x {x.shape}, kernel {kernel.shape}; expected [B, H, W, I] and"
            " [4, 4, I, O]"
        )
    if jax.default_backend() != "cpu":
        return jax.lax.conv_general_dilated(
            x,
            kernel[::-1, ::-1],
            (1, 1),
            ((2, 2), (2, 2)),
            lhs_dilation=(2, 2),
            dimension_numbers=_DIMENSIONS,
        )
    b, h, w, i = x.shape
    o = kernel.shape[-1]
    taps = kernel.reshape(2, 2, 2, 2, i, o).transpose(0, 2, 4, 1, 3, 5).reshape(4, i, 4 * o)

    def put(part, m, n):
        return jnp.pad(part, ((0, 0), (m, 1 - m), (n, 1 - n), (0, 0)))

    if 4 * o <= i:
        parts = jnp.split(pointwise(x, taps.swapaxes(0, 1).reshape(i, 16 * o)), 4, axis=-1)
    else:
        parts = [pointwise(x, tap) for tap in taps]
    blocks = sum(put(part, m, n) for part, (m, n) in zip(parts, _CORNERS, strict=True))
    pixels = blocks.reshape(b, h + 1, w + 1, 2, 2, o).transpose(0, 1, 3, 2, 4, 5)
    return pixels.reshape(b, 2 * h + 2, 2 * w + 2, o)[:, 1:-1, 1:-1]


class ConvDown(nn.Module):
    """`conv4x4_down` with a bias: half the size.

    Attributes:
      features: channels out.
    """

    features: int

    @nn.compact
    def __call__(self, x):
        """[B, H, W, I] -> [B, H / 2, W / 2, features], computed in x's dtype."""
        return _with_bias(self, conv4x4_down, x, nn.initializers.he_normal())


class ConvUp(nn.Module):
    """`conv4x4_up` with a bias: twice the size.

    Attributes:
      features: channels out.
    """

    features: int

    @nn.compact
    def __call__(self, x):
        """[B, H, W, I] -> [B, 2H, 2W, features], computed in x's dtype."""
        # He's rule for the four taps, of sixteen, that reach a pixel.
        start = nn.initializers.variance_scaling(8.0, "fan_in", "truncated_normal")
        return _with_bias(self, conv4x4_up, x, start)


def _with_bias(layer: nn.Module, convolution, x, start):
    shape = (4, 4, x.shape[-1], layer.features)
    kernel = layer.param("kernel", start, shape).astype(x.dtype)
    bias = layer.param("bias", nn.initializers.zeros, (layer.features,)).astype(x.dtype)
    y = convolution(x, kernel)
    return y + jnp.broadcast_to(bias, y.shape)


def doublings(shape, smallest: int = 7) -> int:
    """How often both sides of an image halve before the longer is at most `smallest`.

    28 -> 14 -> 7 twice, 32 -> 4 three times, 64 -> 4 four times, 8 -> 4 once.

    Args:
      shape: (H, W, C) of an image.
      smallest: the side to reach.

    Raises:
      ValueError: a side is odd before that.
    """
    height, width, _ = shape
    count = 0
    while max(height, width) > smallest:
        if height % 2 or width % 2:
            raise ValueError(
                f"doublings: shape {shape}; expected sides of at most {smallest} times a power of 2"
            )
        height, width, count = height // 2, width // 2, count + 1
    return count
