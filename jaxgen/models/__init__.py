"""Flax networks. Every one takes `(x, context=None)`; `context` is joined to x's last axis."""

from jaxgen.models.convolution import Conv, ConvNet, ResNet, conv3x3, pointwise
from jaxgen.models.mlp import MLP

__all__ = ["MLP", "Conv", "ConvNet", "ResNet", "conv3x3", "pointwise"]
