"""Flax networks. Every one takes `(x, context=None)`; `context` is joined to x's last axis.

The critics of GANs take theirs by projection instead: see `project`.
"""

from jaxgen.models.convolution import Conv, ConvNet, ResNet, conv3x3, pointwise
from jaxgen.models.dcgan import DCGANCritic, DCGANGenerator, project
from jaxgen.models.mlp import MLP
from jaxgen.models.resampling import ConvDown, ConvUp, conv4x4_down, conv4x4_up
from jaxgen.models.residual import ResidualBlock, ResidualCritic, ResidualGenerator

__all__ = [
    "MLP",
    "Conv",
    "ConvDown",
    "ConvNet",
    "ConvUp",
    "DCGANCritic",
    "DCGANGenerator",
    "ResNet",
    "ResidualBlock",
    "ResidualCritic",
    "ResidualGenerator",
    "conv3x3",
    "conv4x4_down",
    "conv4x4_up",
    "pointwise",
    "project",
]
