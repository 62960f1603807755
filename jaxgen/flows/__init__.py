"""Normalizing flows: bijectors with their log-determinants, and NICE, RealNVP and Glow.

flow = glow(levels=2, depth=8, width=128)
y, logdet = dequantize(key, images)                # integers -> [0, 1)
params = flow.init(key, y)                         # actnorm looks at this batch
bits = bits_per_dim(log_prob(flow, params, y) + logdet, dims=32 * 32 * 3)
x = sample(flow, params, key, (64, 32, 32, 3), temperature=0.7)
"""

from jaxgen.flows.autoregressive import MADE, autoregressive
from jaxgen.flows.bases import (
    Base,
    gaussian,
    gaussian_full,
    independent,
    mixture,
    standard_logistic,
    standard_normal,
)
from jaxgen.flows.bijector import Bijector, chain, invert, repeat, stack
from jaxgen.flows.conditioners import ConvNet, ResNet
from jaxgen.flows.coupling import (
    Split,
    Transform,
    additive,
    affine,
    checkerboard,
    coupling,
    even_odd,
    halves,
    swapped,
)
from jaxgen.flows.coupling_flow import coupling_flow
from jaxgen.flows.dequantization import (
    dequantize,
    logit,
    quantize,
    variational_dequantize,
)
from jaxgen.flows.elementwise import elementwise
from jaxgen.flows.glow import glow
from jaxgen.flows.likelihood import bits_per_dim, log_prob, sample, sample_and_log_prob
from jaxgen.flows.linear import (
    actnorm,
    invertible_1x1,
    permutation,
    reversal,
    scaling,
    shuffle,
)
from jaxgen.flows.multiscale import flatten, multiscale, squeeze
from jaxgen.flows.nice import nice
from jaxgen.flows.realnvp import checkerboard_coupling, realnvp
from jaxgen.flows.spline import rational_quadratic_spline

__all__ = [
    "MADE",
    "Base",
    "Bijector",
    "ConvNet",
    "ResNet",
    "Split",
    "Transform",
    "actnorm",
    "additive",
    "affine",
    "autoregressive",
    "bits_per_dim",
    "chain",
    "checkerboard",
    "checkerboard_coupling",
    "coupling",
    "coupling_flow",
    "dequantize",
    "elementwise",
    "even_odd",
    "flatten",
    "gaussian",
    "gaussian_full",
    "glow",
    "halves",
    "independent",
    "invert",
    "invertible_1x1",
    "log_prob",
    "logit",
    "mixture",
    "multiscale",
    "nice",
    "permutation",
    "quantize",
    "rational_quadratic_spline",
    "realnvp",
    "repeat",
    "reversal",
    "sample",
    "sample_and_log_prob",
    "scaling",
    "shuffle",
    "squeeze",
    "stack",
    "standard_logistic",
    "standard_normal",
    "swapped",
    "variational_dequantize",
]
