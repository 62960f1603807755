"""Every public function under every transformation and dtype."""

import jax
import jax.numpy as jnp
import pytest

from jaxgen import regularizers as r


def matrix(rng):
    return (rng.standard_normal((4, 3)),)


def critic_and_points(rng):
    return rng.standard_normal((3, 2)), rng.standard_normal((2, 3))


def bound(penalty):
    def run(kernel, x):
        # In x's precision: the test of half precision is of the sums, not of this critic.
        return penalty(lambda x: jnp.sum(jnp.tanh(x.astype(jnp.float32) @ kernel), axis=-1), x)

    return run


def key_and_points(function):
    return (
        lambda seed, real, fake: function(jax.random.key(seed), real, fake),
        lambda rng: (rng.integers(9), *rng.standard_normal((2, 3, 2))),
    )


CASES = {
    "arcsine_correlations": (r.arcsine_correlations, matrix),
    "clip_weights": (lambda w: r.clip_weights({"w": w}, 0.5), matrix),
    "convolution_orthogonality": (
        lambda k: r.convolution_orthogonality(k, 2),
        lambda rng: (rng.standard_normal((3, 2, 2, 3)),),
    ),
    "dragan_points": key_and_points(lambda key, real, fake: r.dragan_points(key, real, 0.8)),
    "filter_matrix": (r.filter_matrix, lambda rng: (rng.standard_normal((2, 2, 1, 3)),)),
    "gradient_power_penalty": (bound(r.gradient_power_penalty), critic_and_points),
    "interpolate": key_and_points(r.interpolate),
    "interpolate_pooled": key_and_points(r.interpolate_pooled),
    "interpolate_within": key_and_points(r.interpolate_within),
    "mutual_coherence": (r.mutual_coherence, lambda rng: (*matrix(rng), 0.2)),
    "off_diagonal": (r.off_diagonal, matrix),
    "one_centered_gradient_penalty": (bound(r.one_centered_gradient_penalty), critic_and_points),
    "one_sided_gradient_penalty": (bound(r.one_sided_gradient_penalty), critic_and_points),
    "pairwise_angles": (r.pairwise_angles, matrix),
    "pairwise_cosines": (r.pairwise_cosines, matrix),
    "self_orthogonality": (
        lambda t: r.self_orthogonality(t, l1=2.0, l2=1.0),
        lambda rng: (rng.uniform(-1, 1, 6),),
    ),
    "sign_correlations": (r.sign_correlations, lambda rng: (0.1 * rng.standard_normal((5, 3)),)),
    "soft_orthogonality": (r.soft_orthogonality, matrix),
    "spectral_normalize": (
        lambda w, u: r.spectral_normalize({"w": w}, {"w": u}),
        lambda rng: (*matrix(rng), rng.standard_normal(3)),
    ),
    "spectral_vectors": (
        lambda seed, w: r.spectral_vectors(jax.random.key(seed), w),
        lambda rng: (rng.integers(9), *matrix(rng)),
    ),
    "srip": (r.srip, lambda rng: (*matrix(rng), rng.standard_normal(3))),
    "srip_vector": (
        lambda seed, w: r.srip_vector(jax.random.key(seed), w),
        lambda rng: (rng.integers(9), *matrix(rng)),
    ),
    "unit_columns": (r.unit_columns, matrix),
    "zero_centered_gradient_penalty": (bound(r.zero_centered_gradient_penalty), critic_and_points),
}


def test_every_public_function_is_in_the_table():
    assert set(CASES) == set(r.__all__)


@pytest.mark.parametrize("name", CASES)
def test_works_everywhere(name, works_everywhere):
    works_everywhere(*CASES[name])
