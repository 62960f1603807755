"""Every public function under every transformation and dtype; NaN and integers."""

import jax
import jax.numpy as jnp
import pytest

from jaxgen import regularizers as r


def normal(*shapes):
    return lambda rng: tuple(rng.standard_normal(shape) for shape in shapes)


def bound(penalty):
    def run(kernel, x):
        # In full precision: the test is of the penalty's sums, not of this critic.
        def critic(x):
            hidden = jnp.matmul(x.astype(jnp.float32), kernel, precision="highest")
            return jnp.sum(jnp.tanh(hidden), axis=-1)

        return penalty(critic, x)

    return run


def keyed(function):
    return lambda seed, *arrays: function(jax.random.key(seed), *arrays)


def seed_and(*shapes):
    return lambda rng: (rng.integers(9), *normal(*shapes)(rng))


# Functions of the same arguments share a case: a case compiles some ten programs.
CASES = {
    "matrix": (
        {
            "arcsine_correlations": r.arcsine_correlations,
            "clip_weights": lambda w: r.clip_weights({"w": w}, 0.5),
            "mutual_coherence": lambda w: r.mutual_coherence(w, 0.2),
            "off_diagonal": r.off_diagonal,
            "pairwise_angles": r.pairwise_angles,
            "pairwise_cosines": r.pairwise_cosines,
            "self_orthogonality": lambda w: r.self_orthogonality(w.ravel(), l1=2.0, l2=1.0),
            "sign_correlations": lambda w: r.sign_correlations(0.1 * w),
            "soft_orthogonality": r.soft_orthogonality,
            "unit_columns": r.unit_columns,
        },
        normal((4, 3)),
    ),
    "temperature": (
        {"mutual_coherence": r.mutual_coherence},
        lambda rng: (*normal((4, 3))(rng), 0.2),
    ),
    "vector": (
        {
            "spectral_normalize": lambda w, u: r.spectral_normalize({"w": w}, {"w": u}),
            "srip": r.srip,
        },
        normal((4, 3), 3),
    ),
    "start": (
        {"spectral_vectors": keyed(r.spectral_vectors), "srip_vector": keyed(r.srip_vector)},
        seed_and((4, 3)),
    ),
    "kernel": (
        {
            "convolution_orthogonality": lambda k: r.convolution_orthogonality(k, 2),
            "filter_matrix": r.filter_matrix,
        },
        normal((3, 2, 2, 3)),
    ),
    "critic": (
        {
            "gradient_power_penalty": bound(r.gradient_power_penalty),
            "one_centered_gradient_penalty": bound(r.one_centered_gradient_penalty),
            "one_sided_gradient_penalty": bound(r.one_sided_gradient_penalty),
            "zero_centered_gradient_penalty": bound(r.zero_centered_gradient_penalty),
        },
        normal((3, 2), (2, 3)),
    ),
    "points": (
        {
            "dragan_points": keyed(lambda key, real, fake: r.dragan_points(key, real, 0.8)),
            "interpolate": keyed(r.interpolate),
            "interpolate_pooled": keyed(r.interpolate_pooled),
            "interpolate_within": keyed(r.interpolate_within),
        },
        seed_and((2, 3), (2, 3)),
    ),
}
# Clipping is done after a step, and not differentiated.
LINEAR = {"clip_weights", "filter_matrix"} | {n for n in CASES["points"][0] if n != "dragan_points"}


def test_every_public_function_has_a_case():
    covered = {name for functions, _ in CASES.values() for name in functions}
    assert covered == set(r.__all__)


@pytest.mark.parametrize("case", CASES)
def test_works_everywhere(case, works_everywhere):
    functions, draw = CASES[case]
    works_everywhere(lambda *args: {name: f(*args) for name, f in functions.items()}, draw)


# A vector's start depends on the shape of its matrix alone.
@pytest.mark.parametrize("case", [case for case in CASES if case not in ("start", "temperature")])
def test_nan_is_shown(case, shows_nan):
    shows_nan(*CASES[case], linear=LINEAR)


# A penalty refuses them.
@pytest.mark.parametrize("case", [case for case in CASES if case not in ("critic", "temperature")])
def test_integers_count_as_floats(case, counts_integers):
    functions, draw = CASES[case]
    # `filter_matrix` only moves the weights and keeps their dtype.
    counts_integers({name: f for name, f in functions.items() if name != "filter_matrix"}, draw)
