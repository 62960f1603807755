"""jit, grad, vmap, pmap, shard_map and dtypes of every public function."""

import jax
import jax.numpy as jnp
import pytest

from jaxgen import divergences as d


def normal(*shapes):
    return lambda rng: tuple(rng.normal(size=shape) for shape in shapes)


def record(divergence):
    """Every function of one record, where its arguments are allowed."""

    def run(v, u):
        t = divergence.threshold - 0.2 + 0.4 * jax.nn.sigmoid(1.0 * v)
        return (
            divergence.f(jnp.exp(u)),
            divergence.conjugate(t),
            divergence.activation(v),
            divergence.composed_conjugate(v),
        )

    return run


def laws(rng):
    p, q = rng.dirichlet([1.0] * 4, size=2)
    p[0] = 0
    return p, q


def matrices(rng):
    a, b = rng.normal(size=(2, 3, 3))
    return rng.normal(size=3), a @ a.T + jnp.eye(3), rng.normal(size=3), b @ b.T + jnp.eye(3)


# Functions of the same arguments share a case: a case compiles some ten programs.
CASES = {
    "records": (
        {
            "alpha_divergence": record(d.alpha_divergence(0.5)),
            "chi_square_over_p": record(d.chi_square_over_p()),
            "chi_square_over_q": record(d.chi_square_over_q()),
            "gan": record(d.gan()),
            "jeffreys": record(d.jeffreys()),
            "jensen_shannon": record(d.jensen_shannon()),
            "kl": record(d.kl()),
            "reverse_kl": record(d.reverse_kl()),
            "squared_hellinger": record(d.squared_hellinger()),
            "total_variation": record(d.total_variation()),
            "weighted_jensen_shannon": record(d.weighted_jensen_shannon(0.3)),
            "variational_bound": lambda u, v: d.variational_bound(d.jensen_shannon(), u, v),
        },
        normal((3,), (3,)),
    ),
    "generator": (
        {"from_generator": record(d.from_generator(lambda u: 2 * u**2 - u - jnp.sqrt(u)))},
        normal((3,), (3,)),
    ),
    "laws": (
        {
            "f_divergence": lambda p, q: d.f_divergence(d.squared_hellinger(), p, q),
            "hellinger_distance": d.hellinger_distance,
            "jensen_shannon_divergence": d.jensen_shannon_divergence,
            "kl_divergence": d.kl_divergence,
            "pearson_chi_square": d.pearson_chi_square,
            "squared_hellinger_distance": d.squared_hellinger_distance,
            "total_variation_distance": d.total_variation_distance,
            # Infinite where only p is 0, as it is here.
            "jeffreys_divergence": lambda p, q: d.jeffreys_divergence(p + 1.0 * q, q),
            "neyman_chi_square": lambda p, q: d.neyman_chi_square(p + 1.0 * q, q),
            "reverse_kl_divergence": lambda p, q: d.reverse_kl_divergence(p + 1.0 * q, q),
        },
        laws,
    ),
    "to_standard": (
        {"gaussian_kl_to_standard": d.gaussian_kl_to_standard},
        normal((2, 3), (2, 3)),
    ),
    "diagonal": (
        {
            "gaussian_kl": d.gaussian_kl,
            "gaussian_jeffreys": d.gaussian_jeffreys,
            "gaussian_bhattacharyya": d.gaussian_bhattacharyya,
            "gaussian_squared_hellinger": d.gaussian_squared_hellinger,
            "gaussian_squared_wasserstein": d.gaussian_squared_wasserstein,
        },
        normal((2, 3), (2, 3), (2, 3), (2, 3)),
    ),
    "full": (
        {
            "gaussian_kl_full": d.gaussian_kl_full,
            "gaussian_squared_wasserstein_full": d.gaussian_squared_wasserstein_full,
        },
        matrices,
    ),
    "points": (
        {
            "squared_distances": d.squared_distances,
            "rbf_kernel": d.rbf_kernel([0.5, 2.0]),
            "polynomial_kernel": d.polynomial_kernel(),
            "energy_kernel": d.energy_kernel(),
            # A kernel that compiles fast: the others are above, and in the energy distance.
            "squared_mmd": lambda x, y: d.squared_mmd(d.polynomial_kernel(), x, y),
            "squared_mmd_unbiased": lambda x, y: d.squared_mmd_unbiased(
                d.polynomial_kernel(), x, y
            ),
            "energy_distance": d.energy_distance,
        },
        normal((4, 2), (3, 2)),
    ),
    "sorted": (
        {
            "wasserstein_1d": lambda x, y: d.wasserstein_1d(x.T, y.T),
            "sliced_wasserstein": lambda x, y: d.sliced_wasserstein(
                jax.random.key(0), x, y, projections=4
            ),
        },
        normal((4, 2), (3, 2)),
    ),
    "scores": (
        {
            "f_information_bound": lambda s: d.f_information_bound(d.kl(), s),
            "donsker_varadhan_bound": d.donsker_varadhan_bound,
            "info_nce_bound": d.info_nce_bound,
        },
        normal((2, 4, 4)),
    ),
}


def test_every_public_function_has_a_case():
    covered = {name for functions, _ in CASES.values() for name in functions}
    assert covered | {"BoundTerms", "FDivergence"} == set(d.__all__)


@pytest.mark.parametrize("case", CASES)
def test_works_everywhere(case, works_everywhere):
    functions, draw = CASES[case]
    works_everywhere(lambda *args: {name: f(*args) for name, f in functions.items()}, draw)


@pytest.mark.parametrize("case", CASES)
def test_nan_is_shown(case, shows_nan):
    shows_nan(*CASES[case])


@pytest.mark.parametrize("case", CASES)
def test_integers_count_as_floats(case, counts_integers):
    counts_integers(*CASES[case])
