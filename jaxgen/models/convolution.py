"""3x3 and 1x1 convolutions, in the form that suits the backend, and two networks made of them."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.models.mlp import join

_OFFSETS = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)]


def pointwise(x, kernel):
    """Multiply the last axis by a matrix: y[..., o] = sum_i x[..., i] kernel[i, o].

    Leading axes are flattened first: XLA's CPU backend transposes and copies when the gradient
    contracts several axes at once.

    Args:
      x: [..., I].
      kernel: [I, O].

    Returns:
      [..., O].
    """
    product = _product if jax.default_backend() == "cpu" else jnp.matmul
    y = product(x.reshape(-1, x.shape[-1]), kernel)
    return y.reshape(*x.shape[:-1], kernel.shape[-1])


@jax.custom_jvp
def _product(x, kernel):
    """x @ kernel, [N, I] by [I, O], with a fast gradient of the kernel on the CPU backend.

    That gradient, x^T g, contracts the rows of both. XLA's CPU backend has no fast routine for it,
    but for (g^T x)^T with a g^T in memory: 0.5 to 0.8 of the time from 128 channels on (JAX 0.10.2,
    timed by hand). The barriers keep XLA from turning one into the other; they move, as the product
    does, from the kernel's tangent to the gradient.
    """
    return x @ kernel


@_product.defjvp
def _product_jvp(primals, tangents):
    (x, kernel), (dx, dkernel) = primals, tangents
    barrier = jax.lax.optimization_barrier
    of_kernel = barrier(barrier(dkernel.T) @ x.T).T
    return _product(x, kernel), dx @ kernel + of_kernel


def conv3x3(x, kernel):
    """3x3 convolution (cross-correlation), stride 1, zero padding: [B, H, W, I] -> [B, H, W, O].

    y[b, h, w, o] = sum_{i, j, c} x[b, h + i - 1, w + j - 1, c] kernel[i, j, c, o]

    Where XLA's own convolution is slow (the CPU backend, most of all inside `lax.scan`) it is one
    matrix product: of the nine shifted inputs side by side where the input is the narrower end,
    else of the input with all nine taps, whose products are then shifted and added. Each form is
    the transpose of the other, so that gradients are as fast.

    Args:
      x: [B, H, W, I].
      kernel: [3, 3, I, O].

    Returns:
      [B, H, W, O].

    Raises:
      ValueError: x is not [B, H, W, I] or the kernel is not [3, 3, I, O] with the same I.
    """
    if x.ndim != 4 or kernel.shape[:3] != (3, 3, x.shape[-1]):
        raise ValueError(
            f"conv3x3: x {x.shape}, kernel {kernel.shape}; expected [B, H, W, I] and [3, 3, I, O]"
        )
    if jax.default_backend() != "cpu":
        return jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
    inputs, outputs = kernel.shape[2:]
    if inputs <= outputs:
        patches = jnp.concatenate([_shift(x, i, j) for i, j in _OFFSETS], axis=-1)
        return pointwise(patches, kernel.reshape(9 * inputs, outputs))
    taps = kernel.reshape(9, inputs, outputs).swapaxes(0, 1).reshape(inputs, 9 * outputs)
    products = jnp.split(pointwise(x, taps), 9, axis=-1)
    return sum(_shift(p, i, j) for p, (i, j) in zip(products, _OFFSETS, strict=True))


def _shift(x, i, j):
    """x[:, h + i, w + j] at [:, h, w], zero outside. One pad, so that its transpose is one too."""
    return jax.lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), (-i, i, 0), (-j, j, 0), (0, 0, 0)))


class Conv(nn.Module):
    """A convolution with bias, 3x3 or 1x1, zero padding.

    Attributes:
      features: channels out.
      size: 3 or 1.
      zero: start with weights of zero, so that the output is zero.
    """

    features: int
    size: int = 3
    zero: bool = False

    @nn.compact
    def __call__(self, x, context=None):
        """[B, H, W, I], context or None -> [B, H, W, features], computed in x's dtype."""
        if self.size not in (1, 3):
            raise ValueError(f"Conv: size {self.size}; expected 1 or 3")
        x = join(x, context)
        start = nn.initializers.zeros if self.zero else nn.initializers.he_normal()
        shape = (self.size, self.size, x.shape[-1], self.features)
        kernel = self.param("kernel", start, shape).astype(x.dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.features,)).astype(x.dtype)
        y = conv3x3(x, kernel) if self.size == 3 else pointwise(x, kernel[0, 0])
        return y + jnp.broadcast_to(bias, y.shape)


class ConvNet(nn.Module):
    """Glow's conditioner: conv 3x3, relu, conv 1x1, relu, conv 3x3 that starts at zero.

    Kingma & Dhariwal 2018, section 4 (arXiv 1807.03039); as in Su's version, without the actnorm
    between the layers.

    Attributes:
      features: channels out.
      width: hidden channels.
    """

    features: int
    width: int = 512

    @nn.compact
    def __call__(self, x, context=None):
        """[B, H, W, C], context [B, H, W, K] or None -> [B, H, W, features]."""
        h = nn.relu(Conv(self.width)(join(x, context)))
        h = nn.relu(Conv(self.width, size=1)(h))
        return Conv(self.features, zero=True)(h)


class ResNet(nn.Module):
    """RealNVP's conditioner: pre-activation residual blocks at one resolution, last layer zero.

    Dinh et al. 2017 (arXiv 1605.08803), without its batch normalisation: the flow's
    own actnorm keeps the scale, and training and evaluation then compute the same function.

    Attributes:
      features: channels out.
      width: channels of the residual stream.
      blocks: residual blocks, two 3x3 convolutions each.
    """

    features: int
    width: int = 64
    blocks: int = 4

    @nn.compact
    def __call__(self, x, context=None):
        """[B, H, W, C], context [B, H, W, K] or None -> [B, H, W, features]."""
        h = Conv(self.width)(join(x, context))
        for _ in range(self.blocks):
            branch = nn.relu(Conv(self.width)(nn.relu(h)))
            h = h + Conv(self.width, zero=True)(branch)
        return Conv(self.features, zero=True)(nn.relu(h))
