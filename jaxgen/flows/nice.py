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
    scaling. The relu on the output is the post's: sampling then only adds. Latents are standard
    normal in the post and logistic in the paper; choose with `base` in `log_prob` and `sample`.

    Args:
      hidden: units of the hidden layers of every coupling's MLP.
      couplings: number of coupling layers; an even number moves both halves equally often.
    """

    def conditioner(features):
        # Not from zero, as usual in a coupling: the gradient of relu is zero there.
        return MLP(features, hidden, final=lambda h: -nn.relu(h))

    step = chain(reversal(), coupling(conditioner, additive(), even_odd()))
    return chain(repeat(step, couplings), scaling())
