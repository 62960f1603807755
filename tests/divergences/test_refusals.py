"""What the room refuses, in one line that names the argument, its value and what was expected."""

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
ONES = jnp.ones(3)
PAIR = jnp.ones((3, 2))
REFUSES = [
    *((r"^non-convex f near u = ", lambda f=f: d.from_generator(f)) for f in NOT_CONVEX),
    *(
        (r"^non-convex f", lambda f=f: jax.jit(lambda v: d.from_generator(f).activation(v))(ONES))
        for f in NOT_CONVEX[:4]
    ),
    (r"^infinite f'' at u = 1; expected", lambda: d.from_generator(lambda u: abs(u - 1) ** 1.5)),
    (r"^f\(u\) \(\) for u \(4001,\); expected an elementwise", lambda: d.from_generator(jnp.sum)),
]


@pytest.mark.parametrize(("message", "call"), REFUSES)
def test_refuses(message, call):
    with pytest.raises(ValueError, match=message):
        call()
