from typing import NamedTuple

import jax.numpy as jnp
import pytest

from jaxgen import divergences as d


class Case(NamedTuple):
    name: str
    divergence: d.FDivergence
    f: object  # the generator, written a second time


CASES = [
    Case("kl", d.kl(), lambda u: u * jnp.log(u)),
    Case("reverse_kl", d.reverse_kl(), lambda u: -jnp.log(u)),
    Case("chi_square_over_q", d.chi_square_over_q(), lambda u: (u - 1) ** 2),
    Case("chi_square_over_p", d.chi_square_over_p(), lambda u: (1 - u) ** 2 / u),
    Case("squared_hellinger", d.squared_hellinger(), lambda u: (u**0.5 - 1) ** 2),
    Case("jeffreys", d.jeffreys(), lambda u: (u - 1) * jnp.log(u)),
    Case(
        "jensen_shannon",
        d.jensen_shannon(),
        lambda u: u * jnp.log(u) - (u + 1) * jnp.log((1 + u) / 2),
    ),
    Case(
        "weighted_0.3",
        d.weighted_jensen_shannon(0.3),
        lambda u: 0.3 * u * jnp.log(u) - (0.7 + 0.3 * u) * jnp.log(0.7 + 0.3 * u),
    ),
    Case(
        "weighted_0.9",
        d.weighted_jensen_shannon(0.9),
        lambda u: 0.9 * u * jnp.log(u) - (0.1 + 0.9 * u) * jnp.log(0.1 + 0.9 * u),
    ),
    Case("gan", d.gan(), lambda u: u * jnp.log(u) - (u + 1) * jnp.log(u + 1)),
    Case("alpha_-1.5", d.alpha_divergence(-1.5), lambda u: (u**-1.5 - 2.5 + 1.5 * u) / 3.75),
    Case("alpha_0.4", d.alpha_divergence(0.4), lambda u: (u**0.4 - 0.6 - 0.4 * u) / -0.24),
    Case("alpha_2.5", d.alpha_divergence(2.5), lambda u: (u**2.5 + 1.5 - 2.5 * u) / 3.75),
    Case("total_variation", d.total_variation(), lambda u: abs(u - 1) / 2),
]


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def case(request):
    """Every f-divergence with its generator."""
    return request.param
