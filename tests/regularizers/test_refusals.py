"""What the room refuses, in one line that names the argument, its value and what was expected."""

import jax
import jax.numpy as jnp
import pytest

from jaxgen import regularizers as r

KEY = jax.random.key(0)
PAIR, VECTOR = jnp.ones((3, 2)), jnp.ones(3)


def first(x):
    return x[:, 0]


REFUSES = [
    (
        r"critic \(3, 1\); expected .*\(3,\)",
        lambda: r.one_centered_gradient_penalty(lambda x: x[:, :1], PAIR),
    ),
    (r"critic \(\);", lambda: r.zero_centered_gradient_penalty(jnp.sum, PAIR)),
    (r"x int32", lambda: r.one_sided_gradient_penalty(first, jnp.ones((2, 3), int))),
    ("p 1.5;", lambda: r.gradient_power_penalty(first, PAIR, 1.5)),
    (r"p \(3,\); expected a scalar", lambda: r.gradient_power_penalty(first, PAIR, 2 + VECTOR)),
    (r"x float32 \(\);", lambda: r.gradient_power_penalty(lambda x: x, jnp.float32(1))),
    (r"kernel \(3,\); expected", lambda: r.filter_matrix(VECTOR)),
    (r"w \(3,\); expected", lambda: r.soft_orthogonality(VECTOR)),
    (r"w \(2, 3, 4\); expected", lambda: r.off_diagonal(jnp.ones((2, 3, 4)))),
    (r"w \(3, 1\); .*k >= 2", lambda: r.mutual_coherence(jnp.ones((3, 1)))),
    ("temperature 0;", lambda: r.mutual_coherence(PAIR, 0)),
    ("temperature -1;", lambda: r.mutual_coherence(PAIR, -1)),
    (r"temperature \(3,\); expected a scalar", lambda: r.mutual_coherence(PAIR, VECTOR)),
    (r"w \(4,\);", lambda: r.srip(jnp.ones(4), jnp.ones(4))),
    (r"v \(3,\); expected \(2,\)", lambda: r.srip(jnp.ones((2, 3)), VECTOR)),
    (r"w \(5,\);", lambda: r.srip_vector(KEY, jnp.ones(5))),
    (r"w \(\);", lambda: r.unit_columns(1.0)),
    (r"w \(4, 1\); .*k >= 2", lambda: r.pairwise_cosines(jnp.ones((4, 1)))),
    (r"w \(0, 2\);", lambda: r.pairwise_angles(jnp.ones((0, 2)))),
    (r"kernel \(3, 2\); expected \[H, W, I, O\]", lambda: r.convolution_orthogonality(PAIR)),
    (r"stride 0; expected an integer", lambda: r.convolution_orthogonality(jnp.ones((2,) * 4), 0)),
    (r"stride 1\.5; expected", lambda: r.convolution_orthogonality(jnp.ones((2,) * 4), 1.5)),
    (r"real \(3, 2\), fake \(2, 3\)", lambda: r.interpolate(KEY, PAIR, PAIR.T)),
    (r"real \(2,\), fake \(3,\)", lambda: r.interpolate_within(KEY, jnp.ones(2), VECTOR)),
    (r"real \(\), fake \(\)", lambda: r.interpolate_pooled(KEY, 1.0, 1.0)),
    ("width -1; expected a finite number >= 0", lambda: r.dragan_points(KEY, PAIR, -1)),
    (r"width \(3,\); expected a scalar", lambda: r.dragan_points(KEY, PAIR, VECTOR)),
    (r"real \(\); expected \[B, \.\.\.\]", lambda: r.dragan_points(KEY, 1.0)),
    ("limit 0; expected a finite number > 0", lambda: r.clip_weights(VECTOR, 0)),
    (r"limit \(3,\); expected a scalar", lambda: r.clip_weights(PAIR, VECTOR)),
    (r"y \(3,\); expected", lambda: r.sign_correlations(VECTOR)),
    (r"y \(3, 1\); expected", lambda: r.sign_correlations(jnp.ones((3, 1)))),
    ("temperature 0;", lambda: r.sign_correlations(PAIR, 0)),
    (r"temperature \(3,\);", lambda: r.sign_correlations(PAIR, VECTOR)),
    (r"w \(3, 1\); expected", lambda: r.arcsine_correlations(jnp.ones((3, 1)))),
    (r"t \(2, 2\);", lambda: r.self_orthogonality(jnp.ones((2, 2)), 1, 1)),
    (r"t \(0,\);", lambda: r.self_orthogonality(jnp.ones(0), 1, 1)),
    ("l1 -1;", lambda: r.self_orthogonality(VECTOR, -1, 1)),
    ("l2 -1;", lambda: r.self_orthogonality(VECTOR, 1, -1)),
    (r"l2 \(3,\); expected a scalar", lambda: r.self_orthogonality(VECTOR, 1, VECTOR)),
    ("iterations 0; expected", lambda: r.spectral_normalize(PAIR, VECTOR[:2], iterations=0)),
    ("iterations 1.5; expected", lambda: r.spectral_normalize(PAIR, VECTOR[:2], 1.5)),
    (r"vectors \(3,\); expected \(2,\)", lambda: r.spectral_normalize(PAIR, VECTOR)),
]


@pytest.mark.parametrize(("message", "call"), REFUSES)
def test_refuses(message, call):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(call)
