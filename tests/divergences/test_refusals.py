"""What the room refuses, in one line that names the argument, its value and what was expected."""

import inspect
import math

import jax
import jax.numpy as jnp
import pytest

from jaxgen import divergences as d


def dent(u):
    """Of width 0.03, at 1.14."""
    return (u - 1) ** 2 - 0.004 * jnp.exp(-(((u - 1.14) / 0.03) ** 2))


NOT_CONVEX = [
    lambda u: -(u**2),
    jnp.log,
    jnp.sin,
    lambda u: jnp.log(u - 1),
    lambda u: u**0.5,
    lambda u: (u - 1) ** 3,
    lambda u: 1e-7 * jnp.sin(u),
    lambda u: u - jnp.maximum(2 * u, 4) / 4,
    dent,
]
ONES, NO, PAIR, MATRICES = (jnp.ones(shape) for shape in (3, 0, (3, 2), (2, 3, 3)))
KEY = jax.random.key(0)
GAUSSIANS = [f for name, f in vars(d).items() if name.startswith("gaussian_")]
LAWS = [
    lambda p, q: d.f_divergence(d.kl(), p, q),
    d.hellinger_distance,
    d.jeffreys_divergence,
    d.jensen_shannon_divergence,
    d.kl_divergence,
    d.neyman_chi_square,
    d.pearson_chi_square,
    d.reverse_kl_divergence,
    d.squared_hellinger_distance,
    d.total_variation_distance,
]
POINTS = [
    d.squared_distances,
    d.polynomial_kernel(),
    d.energy_kernel(),
    d.energy_distance,
    lambda x, y: d.squared_mmd(d.rbf_kernel(1.0), x, y),
    lambda x, y: d.squared_mmd_unbiased(d.rbf_kernel(1.0), x, y),
    lambda x, y: d.sliced_wasserstein(KEY, x, y),
]
BOUNDS = [
    lambda s: d.f_information_bound(d.kl(), s),
    lambda s: d.f_information_bound(d.jensen_shannon(), s),
    d.donsker_varadhan_bound,
    d.info_nce_bound,
]


def bad_gaussians():
    """Every argument after the first of another shape, and scalars."""
    for function in GAUSSIANS:
        names = list(inspect.signature(function).parameters)
        full = [jnp.ones((2, 3)), MATRICES] * 2
        good = full if function.__name__.endswith("_full") else [jnp.ones((2, 3))] * len(names)
        for i in range(1, len(names)):
            bad = [*good[:i], jnp.ones((2, 4)), *good[i + 1 :]]
            yield rf"^{names[i]} \(2, 4\); expected", lambda f=function, bad=bad: f(*bad)
        scalars = [jnp.ones(())] * len(names)
        yield r"\(\); expected", lambda f=function, scalars=scalars: f(*scalars)


REFUSES = [
    *((r"^non-convex f near u = ", lambda f=f: d.from_generator(f)) for f in NOT_CONVEX),
    *(
        (r"^non-convex f", lambda f=f: jax.jit(lambda v: d.from_generator(f).activation(v))(ONES))
        for f in NOT_CONVEX[:4]
    ),
    (r"^infinite f'' at u = 1; expected", lambda: d.from_generator(lambda u: abs(u - 1) ** 1.5)),
    (r"^f\(u\) \(\) for u \(4001,\); expected an elementwise", lambda: d.from_generator(jnp.sum)),
    *((r"^q \(4,\)|^q \(3,\)", lambda f=f: f(ONES, jnp.ones(4))) for f in LAWS),
    *((r"^q \(\); expected", lambda f=f: f(1.0, 1.0)) for f in LAWS),
    ("pi 0; expected a number in", lambda: d.weighted_jensen_shannon(0)),
    (r"pi 1\.0; expected", lambda: d.weighted_jensen_shannon(1.0)),
    ("pi nan; expected", lambda: d.weighted_jensen_shannon(math.nan)),
    ("alpha 0; expected a number other than 0 and 1", lambda: d.alpha_divergence(0)),
    (r"alpha 1\.0; expected", lambda: d.alpha_divergence(1.0)),
    ("alpha inf; expected", lambda: d.alpha_divergence(math.inf)),
    *bad_gaussians(),
    *(
        (r"^scores \(.*expected \[\.\.\., B, B\] with B >= 2", lambda f=f, s=s: f(jnp.ones(s)))
        for f in BOUNDS
        for s in [(4, 3), (4,), (1, 1), (2, 3, 4)]
    ),
    *(
        (
            r"y \(.*expected \[M, D\] for x \[N, D\] \(3, 2\)",
            lambda f=f, s=s: f(PAIR, jnp.ones(s)),
        )
        for f in POINTS
        for s in [(3, 4), (3,), (3, 1, 2), (0, 2)]
    ),
    (r"^bandwidth 0\.0; expected a finite number > 0", lambda: d.rbf_kernel(0.0)),
    (r"^bandwidth .*; expected", lambda: d.rbf_kernel([1.0, -1.0])),
    (r"^bandwidth \[\]; expected", lambda: d.rbf_kernel([])),
    (r"^degree 0; expected", lambda: d.polynomial_kernel(0)),
    (r"^degree 2\.5; expected an integer", lambda: d.polynomial_kernel(2.5)),
    (r"^center \(3,\); expected \[D\]", lambda: d.polynomial_kernel(3, ONES)(PAIR, PAIR)),
    (r"^p 0\.5; expected", lambda: d.wasserstein_1d(ONES, ONES, 0.5)),
    (r"^p \(3,\); expected a scalar", lambda: d.wasserstein_1d(ONES, ONES, 1 + ONES)),
    (r"^y \(5, 3\); expected", lambda: d.wasserstein_1d(jnp.ones((7, 3)), jnp.ones((5, 3)))),
    (r"^y \(0,\); expected", lambda: d.wasserstein_1d(ONES, NO)),
    (r"^projections 0; expected", lambda: d.sliced_wasserstein(KEY, PAIR, PAIR, projections=0)),
    (r"^projections 2\.5;", lambda: d.sliced_wasserstein(KEY, PAIR, PAIR, projections=2.5)),
    (r"^p 0; expected", lambda: d.sliced_wasserstein(KEY, PAIR, PAIR, p=0)),
    *(
        (r"^kernel \(\); expected \[N, M\] = \(3, 3\)", lambda f=f: f(lambda x, y: 1.0, PAIR, PAIR))
        for f in (d.squared_mmd, d.squared_mmd_unbiased)
    ),
    (
        r"^x \(1, 2\); expected at least 2 samples",
        lambda: d.squared_mmd_unbiased(d.energy_kernel(), PAIR[:1], PAIR),
    ),
    (
        r"^y \(1, 2\); expected at least 2 samples",
        lambda: d.squared_mmd_unbiased(d.energy_kernel(), PAIR, PAIR[:1]),
    ),
]


@pytest.mark.parametrize(("message", "call"), REFUSES)
def test_refuses(message, call):
    with pytest.raises(ValueError, match=message):
        call()
