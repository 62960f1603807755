"""Convolutional encoder and decoder of variational autoencoders, for images of any size.

The pair of Su Jianlin's post 5887 (kexue.fm): stages that halve the image, each followed by another
convolution, leaky ReLU of slope 0.2, 32 channels and then 64. Here the sides halve until they are
at most 7 (8 and 32 and 64 -> 4, 28 -> 7), and the channels double at every stage. The convolutions
that halve or double are 4x4 (see `conv4x4_up`), those of the post 3x3 with stride 2.
"""

from typing import Any

import flax.linen as nn

from jaxgen.models.convolution import Conv
from jaxgen.models.mlp import join
from jaxgen.models.resampling import ConvDown, ConvUp, doublings

_SLOPE = 0.2


class ConvEncoder(nn.Module):
    """Stages {conv 4x4 that halves, conv 3x3}, then a linear layer.

    Attributes:
      features: numbers out; twice the latents if the caller splits mean and log_std.
      width: channels of the first stage; they double at every stage.
    """

    features: int
    width: int = 32

    @nn.compact
    def __call__(self, x, context=None) -> Any:
        """Images [B, H, W, C], context [B, K] or None -> [B, features].

        Raises:
          ValueError: sides of at most 7, or not divisible, see `doublings`.
        """
        h = join(x, context)
        for level in range(_stages(x.shape[1:])):
            h = nn.leaky_relu(ConvDown(self.width * 2**level)(h), _SLOPE)
            h = nn.leaky_relu(Conv(self.width * 2**level)(h), _SLOPE)
        return nn.Dense(self.features, dtype=h.dtype)(h.reshape(len(h), -1))


class ConvDecoder(nn.Module):
    """The mirror of `ConvEncoder`: a dense layer, stages {conv 3x3, conv 4x4 that doubles}, conv.

    Attributes:
      shape: (H, W, C) of the images.
      width: channels of the last stage, as of the encoder's first.
    """

    shape: tuple[int, int, int]
    width: int = 32

    @nn.compact
    def __call__(self, z, context=None) -> Any:
        """z [B, D], context [B, K] or None (joined to z) -> [B, H, W, C], no last activation.

        Raises:
          ValueError: sides of at most 7, or not divisible, see `doublings`.
        """
        height, width, channels = self.shape
        count = _stages(self.shape)
        wide = self.width * 2 ** (count - 1)
        h = join(z, context)
        size = (height // 2**count, width // 2**count, wide)
        start = nn.initializers.he_normal()
        h = nn.Dense(size[0] * size[1] * wide, dtype=h.dtype, kernel_init=start)(h)
        h = nn.leaky_relu(h.reshape(-1, *size), _SLOPE)
        for level in range(count):
            h = nn.leaky_relu(Conv(wide // 2**level)(h), _SLOPE)
            h = nn.leaky_relu(ConvUp(wide // 2**level)(h), _SLOPE)
        return Conv(channels)(h)


def _stages(shape) -> int:
    count = doublings(shape)
    if not count:
        raise ValueError(f"shape {tuple(shape)}; expected sides above 7")
    return count
