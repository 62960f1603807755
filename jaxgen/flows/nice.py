"""NICE: non-linear independent components estimation (Dinh et al. 2014, arXiv 1410.8516)."""

from collections.abc import Sequence

import flax.linen as nn

from jaxgen.flows.bijector import Bijector, chain, repeat
from jaxgen.flows.coupling import additive, coupling, even_odd
from jaxgen.flows.linear import reversal, scaling
from jaxgen.models.mlp import MLP


def nice(hidden: Sequence[int] = (1000,) * 5, couplings: int = 4) -> Bijector:
    """NICE on vectors [B, D], D even, as in Su Jianlin's post 5776 (kexue.fm).

    `couplings` times {reverse all dimensions; odd ones -= relu(MLP(even ones))}, then a diagonal
    scaling. The output relu is the post's: the generator then only ever adds. Latents are standard
    normal in the post, logistic in the paper: choose with `base` in `log_prob` and `sample`.

    Args:
      hidden: units of the hidden layers of every coupling's MLP.
      couplings: number of coupling layers, even for a mixing that treats both halves alike.
    """

    def conditioner(features):
        # A zero start would be a dead one under the output's relu.
        return MLP(
            features, hidden, final=lambda h: -nn.relu(h), last_init=nn.initializers.lecun_normal()
        )

    step = chain(reversal(), coupling(conditioner, additive(), even_odd()))
    return chain(repeat(step, couplings), scaling())
