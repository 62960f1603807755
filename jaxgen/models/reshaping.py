"""Residual encoder and decoder that keep the number of values: an image to as many latents.

Su & Wu 2018 (f-VAEs, arXiv 1809.05861): stages {2x2 blocks become channels, residual blocks}, so
that [B, H, W, C] -> [B, H / 2^n, W / 2^n, 4^n C] and a flow can follow. A block adds conv 3x3,
relu, conv 1x1 to its input, and its last kernel starts at zero. So at first the encoder only
reshapes, and the decoder restores the image.

The paper normalizes by batch statistics, which differ between training and use. Here `norm` is None
by default, or makes a layer as in `jaxgen.models.dcgan`, such as partial(nn.GroupNorm,
num_groups=8). The paper's blocks have as many hidden channels as inputs; here all have `width`. The
number of inputs times the number of pixels is constant, so all stages cost the same.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn

from jaxgen.arguments import as_float
from jaxgen.models.convolution import Conv
from jaxgen.models.dcgan import normalize
from jaxgen.models.resampling import depth_to_space, space_to_depth


class SqueezeEncoder(nn.Module):
    """`stages` times {`space_to_depth`, residual blocks}.

    Attributes:
      stages: times that both sides halve.
      depth: residual blocks of a stage.
      width: hidden channels of a block.
      norm: makes a normalization layer of the hidden channels, or None.
    """

    stages: int = 3
    depth: int = 12
    width: int = 64
    norm: Callable | None = None

    @nn.compact
    def __call__(self, x) -> Any:
        """[B, H, W, C] -> [B, H / 2^stages, W / 2^stages, 4^stages C].

        Raises:
          ValueError: a side does not halve so often.
        """
        h = as_float(x)
        for _ in range(self.stages):
            h = _blocks(self, space_to_depth(h))
        return h


class SqueezeDecoder(nn.Module):
    """The mirror of `SqueezeEncoder`: `stages` times {residual blocks, `depth_to_space`}.

    Attributes:
      stages: times that both sides double.
      depth: residual blocks of a stage.
      width: hidden channels of a block.
      norm: makes a normalization layer of the hidden channels, or None.
    """

    stages: int = 3
    depth: int = 12
    width: int = 64
    norm: Callable | None = None

    @nn.compact
    def __call__(self, z) -> Any:
        """[B, H, W, 4^stages C] -> [B, 2^stages H, 2^stages W, C], without a last activation.

        Raises:
          ValueError: the channels are no multiple of 4^stages.
        """
        h = as_float(z)
        for _ in range(self.stages):
            h = depth_to_space(_blocks(self, h))
        return h


class _Block(nn.Module):
    """x + conv 1x1 of relu of norm of conv 3x3, zero at the start, as the body of a scan."""

    width: int
    norm: Callable | None

    @nn.compact
    def __call__(self, x, _):
        h = nn.relu(normalize(self.norm, Conv(self.width)(x)))
        return x + Conv(x.shape[-1], size=1, zero=True)(h), None


def _blocks(network, x):
    """The blocks of a stage, in one scan: the compile time does not depend on their number."""
    scanned = nn.scan(
        _Block,
        variable_axes={"params": 0, "batch_stats": 0},
        split_rngs={"params": True},
        length=network.depth,
    )
    return scanned(network.width, network.norm)(x, None)[0]
