"""Convolutional networks that parametrize the couplings of flows on images."""

import flax.linen as nn

from jaxgen.models.convolution import Conv
from jaxgen.models.mlp import join


class ConvNet(nn.Module):
    """Glow's conditioner: conv 3x3, relu, conv 1x1, relu, conv 3x3 whose weights start at zero.

    Kingma & Dhariwal 2018, section 4 (arXiv 1807.03039). As in Su's version, there is no actnorm
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

    Dinh et al. 2017 (arXiv 1605.08803), but without batch normalization. The actnorm of the flow
    keeps the scale, so the network computes the same function in training and in evaluation.

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
