"""RealNVP: real-valued non-volume-preserving flows (Dinh et al. 2017, arXiv 1605.08803)."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxgen.flows.bijector import Bijector, chain, repeat
from jaxgen.flows.conditioners import ResNet
from jaxgen.flows.coupling import (
    Split,
    Transform,
    affine,
    checkerboard,
    coupling,
    halves,
    swapped,
)
from jaxgen.flows.linear import actnorm
from jaxgen.flows.multiscale import multiscale, squeeze


class _AtFullResolution(NamedTuple):
    """A network that gets the whole image, with zeros at the moved squares.

    Its output is read at the moved squares.
    """

    network: Any
    split: Any

    def _fill(self, fixed):
        return self.split.merge(fixed, jnp.zeros_like(fixed))

    def init(self, key, fixed, context):
        return self.network.init(key, self._fill(fixed), context)

    def apply(self, params, fixed, context):
        raw = self.network.apply(params, self._fill(fixed), context)
        return self.split.divide(raw)[1]


def checkerboard_coupling(
    conditioner: Callable[[int], Any], transform: Transform, split: Split
) -> Bijector:
    """A coupling over `checkerboard()` squares whose network sees the image at full resolution.

    Dinh et al. 2017, section 3.4 and figure 3.

    Args:
      conditioner: features -> network on [B, H, W, C], as in `coupling`.
      transform: as in `coupling`.
      split: `checkerboard()`, or `swapped(checkerboard())` to move the white squares.
    """
    return coupling(lambda n: _AtFullResolution(conditioner(n), split), transform, split)


def realnvp(
    levels: int = 2,
    depth: int = 2,
    width: int = 64,
    blocks: int = 4,
    *,
    transform: Transform | None = None,
    remat: bool = False,
    reversible: bool = False,
) -> Bijector:
    """RealNVP on images [B, H, W, C] whose sides are multiples of 2^levels.

    Every level but the last has `depth` pairs of checkerboard couplings, a squeeze and `depth`
    pairs of channel couplings; then half of the channels leave. The last level has `depth` pairs of
    checkerboard couplings. The two couplings of a pair move opposite parts, and an actnorm precedes
    each. The paper has 3 couplings instead of 2 * depth. It also has batch normalization instead of
    actnorm, and its running statistics can make the likelihood of new data explode.

    Args:
      levels: number of scales.
      depth: pairs of couplings per stage.
      width: channels of the residual networks.
      blocks: residual blocks per network.
      transform: `affine()` by default.
      remat: recompute each step's inside in the backward pass, see `repeat`.
      reversible: recompute each step's input by inversion, see `repeat`.

    Raises:
      ValueError: levels < 1 or depth < 1; in `init` and `forward`, a side that does not halve.
    """
    if levels < 1:
        raise ValueError(f"levels {levels}; expected at least 1")
    transform = transform or affine()
    conditioner = partial(ResNet, width=width, blocks=blocks)

    def pairs(couple, split):
        steps = [
            chain(actnorm(), couple(conditioner, transform, s)) for s in (split, swapped(split))
        ]
        return repeat(chain(*steps), depth, remat=remat, reversible=reversible)

    boards = pairs(checkerboard_coupling, checkerboard())
    channels = pairs(coupling, halves())
    return multiscale(*[chain(boards, squeeze(), channels)] * (levels - 1), boards)
