"""Orthogonality of a convolution as a linear operator on images, rather than of its filters."""

import jax
import jax.numpy as jnp

from jaxgen.arguments import at_least_f32, require_integer


def convolution_orthogonality(kernel, stride: int = 1):
    """||Conv(K, K) - I||_F^2: zero iff the convolution has orthonormal rows or columns.

    Wang, Chen, Chakraborty and Yu 2020 (OCNN, arXiv 1911.12207, equations 8 and 10). As a linear
    map from images to images the convolution has O rows and stride^2 I columns per output pixel.
    If O <= stride^2 I it can preserve the norms of its outputs (rows),

        sum_{c, i} K[c + s a, i, o] K[c, i, p] = [o = p][a = 0]  for all offsets a,

    else those of its inputs (columns), which is the same of the transposed kernel. All singular
    values of the convolution are 1 iff this is 0, for circular padding; with zero padding the
    pixels within a kernel's width of the border differ. A stride is turned into channels first
    (space to depth), so both forms need only stride 1.

    The penalties on `filter_matrix` hold the filters orthonormal at offset 0 alone, which leaves
    the singular values of the convolution anywhere in [0, sqrt(H W)].

    Args:
      kernel: [H, W, I, O].
      stride: the layer's stride in both directions, an integer >= 1.

    Returns:
      Scalar, a sum over pairs of channels and offsets.

    Raises:
      ValueError: kernel is not [H, W, I, O], or stride is not an integer >= 1.
    """
    kernel = jnp.asarray(kernel)
    if kernel.ndim != 4 or 0 in kernel.shape:
        raise ValueError(f"kernel {kernel.shape}; expected [H, W, I, O]")
    require_integer(least=1, stride=stride)
    kernel = _strides_to_channels(at_least_f32(kernel), stride)
    height, width, inputs, outputs = kernel.shape
    if outputs > inputs:
        kernel = jnp.swapaxes(kernel, 2, 3)
    products = jax.lax.conv_general_dilated(
        jnp.transpose(kernel, (3, 0, 1, 2)),  # one image per filter
        kernel,
        window_strides=(1, 1),
        padding=[(height - 1, height - 1), (width - 1, width - 1)],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision="highest",
    )
    identity = jnp.eye(len(products), dtype=kernel.dtype)
    return jnp.sum(jnp.square(products.at[:, height - 1, width - 1].add(-identity)))


def _strides_to_channels(kernel, stride):
    """[H, W, I, O] -> [ceil(H / s), ceil(W / s), s^2 I, O]: the same map at stride 1."""
    kernel = jnp.pad(kernel, [(0, -n % stride) for n in kernel.shape[:2]] + [(0, 0), (0, 0)])
    height, width, inputs, outputs = kernel.shape
    blocks = kernel.reshape(height // stride, stride, width // stride, stride, inputs, outputs)
    return jnp.transpose(blocks, (0, 2, 1, 3, 4, 5)).reshape(
        height // stride, width // stride, stride * stride * inputs, outputs
    )
