"""3x3 and 1x1 convolutions, and the layer made of them."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.models import cpu
from jaxgen.models.mlp import join


@cpu.by_platform(cpu=cpu.pointwise)
def pointwise(x, kernel):
    """Multiply the last axis by a matrix: y[..., o] = sum_i x[..., i] kernel[i, o].

    Args:
      x: [..., I].
      kernel: [I, O].

    Returns:
      [..., O].
    """
    return jnp.matmul(x, kernel)


@cpu.by_platform(cpu=cpu.conv3x3)
def conv3x3(x, kernel):
    """3x3 convolution (cross-correlation), stride 1, zero padding: [B, H, W, I] -> [B, H, W, O].

    y[b, h, w, o] = sum_{i, j, c} x[b, h + i - 1, w + j - 1, c] kernel[i, j, c, o]

    On a CPU it is computed by matrix products: see `jaxgen.models.cpu`.

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
            f"x {x.shape}, kernel {kernel.shape}; expected [B, H, W, I] and [3, 3, I, O]"
        )
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


class Conv(nn.Module):
    """A convolution with bias, 3x3 or 1x1, zero padding.

    Attributes:
      features: channels out.
      size: 3 or 1.
      zero: initialize the weights with zeros, so that the output starts at zero.
    """

    features: int
    size: int = 3
    zero: bool = False

    @nn.compact
    def __call__(self, x, context=None):
        """[B, H, W, I], context or None -> [B, H, W, features].

        Computed in x's dtype. Parameters have the dtype of the x that `init` gets, at least f32.
        """
        if self.size not in (1, 3):
            raise ValueError(f"size {self.size}; expected 1 or 3")
        if x.ndim != 4:
            raise ValueError(f"x {x.shape}; expected [B, H, W, C]")
        x = join(x, context)
        wide = jnp.promote_types(x.dtype, jnp.float32)
        start = nn.initializers.zeros if self.zero else nn.initializers.he_normal()
        shape = (self.size, self.size, x.shape[-1], self.features)
        kernel = self.param("kernel", start, shape, wide).astype(x.dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), wide).astype(x.dtype)
        y = conv3x3(x, kernel) if self.size == 3 else pointwise(x, kernel[0, 0])
        return y + jnp.broadcast_to(bias, y.shape)
