"""Flax networks. Each takes `(x, context=None)` and joins `context` to the last axis of x.

The critics of GANs project it instead: see `project`. A transformer takes token ids and masks.
"""

from jaxgen.models.attention import (
    KVCache,
    causal_mask,
    document_mask,
    document_positions,
    dot_product_attention,
    kv_cache,
    padding_mask,
    prefix_mask,
    rotary,
)
from jaxgen.models.convolution import Conv, conv3x3, pointwise
from jaxgen.models.convolutional import ConvDecoder, ConvEncoder
from jaxgen.models.dcgan import DCGANCritic, DCGANGenerator, project
from jaxgen.models.infomax import Encoding, InfoMaxEncoder
from jaxgen.models.mlp import MLP
from jaxgen.models.resampling import (
    ConvDown,
    ConvUp,
    conv4x4_down,
    conv4x4_up,
    depth_to_space,
    space_to_depth,
)
from jaxgen.models.reshaping import SqueezeDecoder, SqueezeEncoder
from jaxgen.models.residual import ResidualBlock, ResidualCritic, ResidualGenerator
from jaxgen.models.transformer import MaskedLM, Transformer

__all__ = [
    "MLP",
    "Conv",
    "ConvDecoder",
    "ConvDown",
    "ConvEncoder",
    "ConvUp",
    "DCGANCritic",
    "DCGANGenerator",
    "Encoding",
    "InfoMaxEncoder",
    "KVCache",
    "MaskedLM",
    "ResidualBlock",
    "ResidualCritic",
    "ResidualGenerator",
    "SqueezeDecoder",
    "SqueezeEncoder",
    "Transformer",
    "causal_mask",
    "conv3x3",
    "conv4x4_down",
    "conv4x4_up",
    "depth_to_space",
    "document_mask",
    "document_positions",
    "dot_product_attention",
    "kv_cache",
    "padding_mask",
    "pointwise",
    "prefix_mask",
    "project",
    "rotary",
    "space_to_depth",
]
