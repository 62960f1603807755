"""Glow (Kingma & Dhariwal 2018, arXiv 1807.03039)."""

from functools import partial

from jaxgen.flows.bijector import Bijector, chain, repeat
from jaxgen.flows.conditioners import ConvNet
from jaxgen.flows.coupling import Transform, affine, coupling
from jaxgen.flows.linear import actnorm, invertible_1x1
from jaxgen.flows.multiscale import multiscale, squeeze
from jaxgen.models.convolution import Conv


def glow(
    levels: int = 3,
    depth: int = 32,
    width: int = 512,
    *,
    transform: Transform | None = None,
    mixing: Bijector | None = None,
    remat: bool = False,
    reversible: bool = False,
) -> Bijector:
    """Glow on images [B, H, W, C] whose sides are multiples of 2^levels.

    Every level is a squeeze and then `depth` steps {actnorm, mixing, coupling} in one `repeat`.
    After every level but the last, half of the channels leave, with a Gaussian prior conditional on
    the other half. The last level ends in an actnorm, which acts as a learned Gaussian prior.

    Args:
      levels: number of scales, L in the paper.
      depth: steps per level, K in the paper.
      width: hidden channels of the conditioners.
      transform: `affine()` by default, which reaches better likelihoods; `additive()` trains more
        stably and gives cleaner samples.
      mixing: `invertible_1x1()` by default; `shuffle()` for a fixed random permutation.
      remat: recompute each step's inside in the backward pass, see `repeat`.
      reversible: recompute each step's input by inversion, see `repeat`.

    Raises:
      ValueError: levels < 1 or depth < 1; in `init` and `forward`, a side that does not halve.
    """
    if levels < 1:
        raise ValueError(f"levels {levels}; expected at least 1")
    conditioner = partial(ConvNet, width=width)
    step = chain(
        actnorm(), mixing or invertible_1x1(), coupling(conditioner, transform or affine())
    )
    steps = chain(squeeze(), repeat(step, depth, remat=remat, reversible=reversible))
    prior = coupling(partial(Conv, zero=True), affine())
    return multiscale(*[chain(steps, prior)] * (levels - 1), chain(steps, actnorm()))
