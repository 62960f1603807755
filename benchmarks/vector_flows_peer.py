"""`flows.coupling_flow` of benchmarks/vector_flows.py in flowjax."""

import equinox as eqx
import jax.numpy as jnp
import paramax
from flowjax.bijections import RationalQuadraticSpline
from flowjax.distributions import Normal
from flowjax.flows import coupling_flow


def start(transform: str, key, train):
    """(params, (params, x) -> log p(x)) of flowjax's flow, with its defaults.

    Its parameters are 8 couplings of 50 hidden units, permutations between them, and a standard
    normal base that is not trained.
    """
    spline = RationalQuadraticSpline(knots=8, interval=4)
    law = coupling_flow(
        key,
        base_dist=paramax.non_trainable(Normal(jnp.zeros(train.shape[1]))),
        transformer=spline if transform == "spline" else None,
    )

    def frozen(leaf):
        return isinstance(leaf, paramax.NonTrainable)

    params, static = eqx.partition(law, eqx.is_inexact_array, is_leaf=frozen)
    return params, lambda p, x: paramax.unwrap(eqx.combine(p, static)).log_prob(x)
