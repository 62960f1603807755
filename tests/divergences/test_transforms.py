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
        ends = max(-50.0, float(divergence.threshold) - 0.2), min(50.0, divergence.threshold + 0.2)
        t = ends[0] + (ends[1] - ends[0]) * jax.nn.sigmoid(v)
        return (
            divergence.f(jnp.exp(u)),
            divergence.conjugate(t),
            divergence.activation(v),
            divergence.composed_conjugate(v),
        )

    return run, normal((3,), (3,))


def laws(rng):
    p, q = rng.dirichlet([1.0] * 4, size=2)
    p[0] = 0
    return p, q


def matrices(rng):
    a, b = rng.normal(size=(2, 3, 3))
    return rng.normal(size=3), a @ a.T + jnp.eye(3), rng.normal(size=3), b @ b.T + jnp.eye(3)


def variational(v_real, v_fake):
    return d.variational_bound(d.jensen_shannon(), v_real, v_fake)


def generic(u):
    return 2 * u**2 - u - jnp.sqrt(u)


def sliced(x, y):
    return d.sliced_wasserstein(jax.random.key(0), x, y, projections=4)


four = normal((2, 3), (2, 3), (2, 3), (2, 3))
points = normal((4, 2), (3, 2))
CASES = {
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
    "from_generator": record(d.from_generator(generic)),
    "f_divergence": (lambda p, q: d.f_divergence(d.squared_hellinger(), p, q), laws),
    "variational_bound": (variational, normal((3,), (2,))),
    "gaussian_kl": (d.gaussian_kl, four),
    "gaussian_kl_to_standard": (d.gaussian_kl_to_standard, normal((2, 3), (2, 3))),
    "gaussian_jeffreys": (d.gaussian_jeffreys, four),
    "gaussian_bhattacharyya": (d.gaussian_bhattacharyya, four),
    "gaussian_squared_hellinger": (d.gaussian_squared_hellinger, four),
    "gaussian_squared_wasserstein": (d.gaussian_squared_wasserstein, four),
    "gaussian_kl_full": (d.gaussian_kl_full, matrices),
    "gaussian_squared_wasserstein_full": (d.gaussian_squared_wasserstein_full, matrices),
    "squared_distances": (d.squared_distances, points),
    "rbf_kernel": (d.rbf_kernel([0.5, 2.0]), points),
    "polynomial_kernel": (d.polynomial_kernel(), points),
    "energy_kernel": (d.energy_kernel(), points),
    "squared_mmd": (lambda x, y: d.squared_mmd(d.rbf_kernel(1.0), x, y), points),
    "squared_mmd_unbiased": (
        lambda x, y: d.squared_mmd_unbiased(d.polynomial_kernel(), x, y),
        points,
    ),
    "energy_distance": (d.energy_distance, points),
    "wasserstein_1d": (d.wasserstein_1d, normal((2, 4), (2, 3))),
    "sliced_wasserstein": (sliced, points),
    "f_information_bound": (lambda s: d.f_information_bound(d.kl(), s), normal((2, 4, 4))),
    "donsker_varadhan_bound": (d.donsker_varadhan_bound, normal((4, 4))),
    "info_nce_bound": (d.info_nce_bound, normal((4, 4))),
}


def test_every_public_function_has_a_case():
    assert set(CASES) | {"BoundTerms", "FDivergence"} == set(d.__all__)


@pytest.mark.parametrize("name", CASES)
def test_works_everywhere(name, works_everywhere):
    works_everywhere(*CASES[name])
