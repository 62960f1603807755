"""What the room refuses, in one line that names the argument, its value and what was expected."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen import losses

TWO, THREE, PAIR, ONE = jnp.ones(2), jnp.ones(3), jnp.ones((2, 1)), jnp.ones((1, 2))
KEY = jax.random.key(0)


def bigan(critic, x=None, decoded=4):
    return losses.bigan_qp_loss(
        critic,
        lambda x: x[..., :2],
        lambda z: jnp.ones((*z.shape[:-1], decoded)),
        jnp.ones((2, 4)) if x is None else x,
        jnp.ones((2, 2)) if x is None else x[..., :2],
    )


REFUSES = [
    (
        r"^real_label - fake_label 0.0; expected .* > 0",
        lambda: losses.least_squares_critic_loss(TWO, TWO, 0.0, 0.0),
    ),
    (
        r"^real_label \(2, 1\); expected a scalar",
        lambda: losses.least_squares_critic_loss(TWO, TWO, PAIR, 0.0),
    ),
    (r"^target \(2, 1\);", lambda: losses.least_squares_generator_loss(TWO, PAIR)),
    (
        r"^v_real \(2,\), v_fake \(3,\); expected equal shapes",
        lambda: losses.relativistic_critic_loss(TWO, THREE),
    ),
    (
        r"^v_real \(2,\), v_fake \(2, 1\); expected",
        lambda: losses.relativistic_generator_loss(TWO, PAIR),
    ),
    (r"^v_real \(2,\), v_fake \(\); expected", lambda: losses.qp_generator_loss(TWO, 1.0)),
    (r"^v_real .*; expected", lambda: losses.qp_critic_loss(TWO, THREE, TWO)),
    (
        r"^distance \(2, 1\); expected the scores' shape",
        lambda: losses.qp_critic_loss(TWO, TWO, PAIR),
    ),
    (r"^slope 0; expected a finite number > 0", lambda: losses.qp_critic_loss(TWO, TWO, TWO, 0)),
    (r"^slope \(2, 1\); expected a scalar", lambda: losses.qp_critic_loss(TWO, TWO, TWO, PAIR)),
    (
        r"^distance .*-1.*; expected a finite number >= 0",
        lambda: losses.qp_critic_loss(TWO, TWO, np.array([1.0, -1.0])),
    ),
    (r"^x \(2,\), y \(2, 1\); expected", lambda: losses.mean_absolute_distance(TWO, PAIR)),
    (r"^x \(\), y \(\); expected", lambda: losses.root_mean_square_distance(1.0, 1.0)),
    (r"^x \(2, 5\), y \(2, 4\); expected", lambda: bigan(lambda x, z: jnp.ones(2), decoded=5)),
    (
        r"^critic \(2, 1\); expected \[B\] for x \(2, 4\)",
        lambda: bigan(lambda x, z: z[:, :1]),
    ),
    (r"^critic \(\); expected \[B\] for x \(4,\)", lambda: bigan(lambda x, z: z[0], jnp.ones(4))),
    (r"^size 2; expected a divisor of B for x \(5, 2\)", lambda: losses.pack(jnp.ones((5, 2)), 2)),
    (r"^size 0; expected", lambda: losses.pack(jnp.ones((4, 2)), 0)),
    (r"^size 1\.5; expected an integer", lambda: losses.pack(jnp.ones((3, 2)), 1.5)),
    (r"^size 2; .*x \(4,\)", lambda: losses.pack(jnp.ones(4), 2)),
    (
        r"^codes \(2, 3\), others \(2, 4, 2\); expected \[B, D\] and",
        lambda: losses.pair_scores(jnp.ones((2, 3)), jnp.ones((2, 4, 2))),
    ),
    (r"^codes \(2,\), others \(2,\); expected", lambda: losses.pair_scores(TWO, TWO)),
    (r"^temperature 0; expected .* > 0", lambda: losses.pair_scores(PAIR, PAIR, 0)),
    (r"^temperature \(2,\); expected a sc", lambda: losses.nt_xent_loss(PAIR, PAIR, TWO)),
    (r"^x \(1, 2\), y \(1, 2\); .* B >= 2", lambda: losses.nt_xent_loss(ONE, ONE)),
    (r"^x \(2, 1\), y \(1, 2\); expected equal", lambda: losses.nt_xent_loss(PAIR, ONE)),
    (r"^scores \(3, 1, 1\); expected", lambda: losses.local_info_nce_loss(jnp.ones((3, 1, 1)))),
    (r"^scores \(2, 1\); expected", lambda: losses.local_info_nce_loss(PAIR)),
    (r"^x \(1, 2\); expected \[B, ...\] with B >= 2", lambda: losses.derange(KEY, ONE)),
    (r"^x \(\); expected", lambda: losses.derange(KEY, 1.0)),
]


@pytest.mark.parametrize(("message", "call"), REFUSES)
def test_refuses(message, call):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(call)
