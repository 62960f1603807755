"""DCGAN's generator and critic (Radford et al. 2015, arXiv 1511.06434) for images of any size.

The shape of the image determines both: the sides halve until they are at most 7 (28 -> 7, 32 and
64 -> 4). There are `width` channels at half the size of the image and twice as many at each smaller
size. Convolutions are 4x4 as in PyTorch's version, not 5x5: see `conv4x4_up`. Weights start by He's
rule instead of N(0, 0.02^2), because scores of a critic without normalization would otherwise start
close to zero.

`norm` makes a normalization layer and decides how that layer uses its statistics:

    norm = partial(nn.BatchNorm, use_running_average=False)     # in training
    norm = partial(nn.BatchNorm, use_running_average=True)      # the same parameters, sampling
    norm = partial(nn.GroupNorm, num_groups=1)                  # layer norm over (H, W, C)
    norm = None                                                 # none

With batch normalization, the score of an example depends on the rest of the batch. Do not combine
it with a gradient penalty, which is defined for single examples.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from jaxgen.models.mlp import join
from jaxgen.models.resampling import ConvDown, ConvUp, doublings


def normalize(norm: Callable | None, x):
    """Apply the layer that `norm` makes, in x's dtype. Without `norm`, return x."""
    return x if norm is None else norm(dtype=x.dtype)(x)


def project(h, context):
    """Score of features: w h + b, plus <V context, h> if there is a context.

    Miyato & Koyama 2018 (the projection discriminator, arXiv 1802.05637). The context is a one-hot
    class or any vector. Call it inside a flax module.

    Args:
      h: [B, D].
      context: [B, K] or None.

    Returns:
      [B].
    """
    start = nn.initializers.lecun_normal()
    score = nn.Dense(1, dtype=h.dtype, kernel_init=start, name="score")(h)[:, 0]
    if context is None:
        return score
    start = nn.initializers.variance_scaling(1.0, "fan_out", "normal")
    embed = nn.Dense(h.shape[-1], use_bias=False, dtype=h.dtype, kernel_init=start, name="embed")
    return score + jnp.sum(embed(context.astype(h.dtype)) * h, axis=-1)


class DCGANGenerator(nn.Module):
    """Dense, then transposed convolutions; ReLU between them, tanh at the end.

    Attributes:
      shape: (H, W, C) of the images.
      width: channels before the last layer.
      norm: makes a normalization layer, or None; see above.
    """

    shape: tuple[int, int, int]
    width: int = 64
    norm: Callable | None = None

    @nn.compact
    def __call__(self, z, context=None):
        """z [B, D], context [B, K] or None (joined to z) -> images [B, H, W, C] in [-1, 1]."""
        height, width, channels = self.shape
        count = doublings(self.shape)
        if not count:
            raise ValueError(f"shape {self.shape}; expected sides above 7")
        wide = self.width * 2 ** (count - 1)
        h = join(z, context)
        size = (height // 2**count, width // 2**count, wide)
        start = nn.initializers.he_normal()
        h = nn.Dense(size[0] * size[1] * wide, dtype=h.dtype, kernel_init=start)(h)
        h = nn.relu(normalize(self.norm, h.reshape(-1, *size)))
        for level in range(1, count):
            h = nn.relu(normalize(self.norm, ConvUp(wide // 2**level)(h)))
        return jnp.tanh(ConvUp(channels)(h))


class DCGANCritic(nn.Module):
    """Strided convolutions with leaky ReLU of slope 0.2, then a linear layer; no sigmoid.

    Attributes:
      width: channels after the first layer.
      norm: makes a normalization layer from the second convolution on, or None; see above.
    """

    width: int = 64
    norm: Callable | None = None

    @nn.compact
    def __call__(self, x, context=None) -> Any:
        """Images [B, H, W, C], context [B, K] or None -> raw scores [B], higher is more real."""
        h = x
        for level in range(doublings(x.shape[1:])):
            h = ConvDown(self.width * 2**level)(h)
            h = nn.leaky_relu(normalize(self.norm, h) if level else h, 0.2)
        return project(h.reshape(len(h), -1), context)
