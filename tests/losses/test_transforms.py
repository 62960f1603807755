"""Every public function under every transformation and dtype."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen import divergences, losses

RECORD = divergences.squared_hellinger()


def scores(rng):
    return tuple(rng.standard_normal((2, 3)))


def examples(rng):
    return tuple(rng.standard_normal((2, 2, 3)))


def bigan(x, z, w):
    # In w's precision, at least f32 and in full: the test is of the loss, not of these.
    wide = w.astype(jnp.promote_types(w.dtype, jnp.float32))
    return losses.bigan_qp_loss(
        lambda x, z: jnp.sum(jnp.tanh(x), axis=1) * jnp.sum(jnp.tanh(z), axis=1),
        lambda x: jnp.matmul(jnp.tanh(x), wide, precision="highest"),
        lambda z: jnp.matmul(jnp.tanh(z), wide.T, precision="highest"),
        x,
        z,
    )


def images(rng):
    """Grey values, pixels, means, and a log-deviation per channel."""
    grey = rng.random((2, 3, 2))
    return grey, rng.integers(0, 4, grey.shape), rng.normal(size=grey.shape), rng.normal(size=2)


def latents(rng):
    """A seed, means and log-deviations of q(z | x)."""
    return rng.integers(100), rng.normal(size=(3, 2)), 0.3 * rng.normal(size=(3, 2))


def keyed(function):
    return lambda seed, *args: function(jax.random.key(seed), *args)


def elbo(key, mean, log_std):
    return losses.elbo(
        lambda x: (x, log_std),
        lambda x, z: losses.gaussian_log_likelihood(x, jnp.sin(z), 0.1),
        lambda z: losses.gaussian_log_prob(z, 0, 0),
        key,
        mean,
    )


def clusters(rng):
    """Posterior, z, means and log-deviations of q(z | x) and of the clusters, logits."""
    return (
        rng.dirichlet([1, 1, 1], 4),
        *rng.normal(size=(2, 4, 2)),
        0.3 * rng.normal(size=(4, 2)),
        rng.normal(size=(3, 2)),
        0.3 * rng.normal(size=(3, 2)),
        rng.normal(size=3),
    )


def tokens(rng):
    """A seed, ids of two rows, where words begin, and the documents of each row."""
    documents = np.repeat([[1, 2, 0], [1, 3, 2]], [4, 3, 1], axis=1)
    return rng.integers(100), rng.integers(5, 20, (2, 8)), rng.integers(0, 2, (2, 8)), documents


def masked_words(key, ids, begins, documents):
    ordinary = jnp.arange(5, 20)
    return losses.masked_words(key, ids, begins, documents, ordinary, mask_id=4, rate=0.5)


def exact(prediction):
    """Weights are f32 whatever the tokens are: here only their values are compared."""
    return prediction._replace(weights=prediction.weights > 0)


# Functions of the same arguments share a case: a case compiles some ten programs.
CASES = {
    "scores": (
        {
            "f_gan_critic_loss": lambda r, f: losses.f_gan_critic_loss(RECORD, r, f),
            "f_gan_generator_loss": lambda r, f: losses.f_gan_generator_loss(RECORD, f),
            "f_gan_heuristic_generator_loss": lambda r, f: losses.f_gan_heuristic_generator_loss(
                RECORD, f
            ),
            "hinge_critic_loss": losses.hinge_critic_loss,
            "least_squares_critic_loss": losses.least_squares_critic_loss,
            "least_squares_generator_loss": lambda r, f: losses.least_squares_generator_loss(f),
            "logistic_critic_loss": losses.logistic_critic_loss,
            "non_saturating_generator_loss": lambda r, f: losses.non_saturating_generator_loss(f),
            "qp_critic_loss": lambda r, f: losses.qp_critic_loss(r, f, jnp.ones_like(r)),
            "qp_generator_loss": losses.qp_generator_loss,
            "relativistic_critic_loss": losses.relativistic_critic_loss,
            "relativistic_generator_loss": losses.relativistic_generator_loss,
            "saturating_generator_loss": lambda r, f: losses.saturating_generator_loss(f),
            "wasserstein_critic_loss": losses.wasserstein_critic_loss,
            "wasserstein_generator_loss": lambda r, f: losses.wasserstein_generator_loss(f),
        },
        scores,
    ),
    "examples": (
        {
            "mean_absolute_distance": losses.mean_absolute_distance,
            "root_mean_square_distance": losses.root_mean_square_distance,
            "pack": lambda x, y: losses.pack(x, 2),
        },
        examples,
    ),
    "images": (
        {
            "bernoulli_log_likelihood": lambda x, n, m, s: losses.bernoulli_log_likelihood(x, m),
            "discretized_logistic_log_likelihood": (
                lambda x, n, m, s: losses.discretized_logistic_log_likelihood(n, m, s, 4)
            ),
            "gaussian_log_likelihood": lambda x, n, m, s: losses.gaussian_log_likelihood(x, m, s),
            "optimal_log_std": lambda x, n, m, s: losses.optimal_log_std(x, m),
            "soft_floor": lambda x, n, m, s: losses.soft_floor(s, -1.0),
        },
        images,
    ),
    "latents": (
        {
            "elbo": keyed(elbo),
            "free_bits": lambda seed, m, s: losses.free_bits(m, 0.1),
            "gaussian_log_prob": lambda seed, m, s: losses.gaussian_log_prob(m, 0.3, s),
            "importance_weighted_bound": lambda seed, m, s: losses.importance_weighted_bound(m),
            "reparameterize": keyed(losses.reparameterize),
        },
        latents,
    ),
    "clusters": (
        {
            "assignment_information": (
                lambda p, z, m, s, cm, cs, w: losses.assignment_information(p, p[::-1])
            ),
            "cluster_kl": lambda p, z, m, s, cm, cs, w: losses.cluster_kl(p, m, s, cm, cs),
            "cluster_log_posterior": (
                lambda p, z, m, s, cm, cs, w: losses.cluster_log_posterior(z, cm, cs, w)
            ),
            "sampled_cluster_kl": (
                lambda p, z, m, s, cm, cs, w: losses.sampled_cluster_kl(p, z, m, s, cm, cs)
            ),
        },
        clusters,
    ),
    "codes": (
        {
            "derange": lambda x, y: losses.derange(jax.random.key(0), x),
            "local_info_nce_loss": lambda x, y: losses.local_info_nce_loss(
                losses.pair_scores(x, jnp.stack([x, y], axis=1))
            ),
            "nt_xent_loss": losses.nt_xent_loss,
            "pair_scores": losses.pair_scores,
        },
        lambda rng: tuple(rng.standard_normal((2, 3, 2))),
    ),
    "cosines": (
        {
            "joint_hinge_loss": losses.joint_hinge_loss,
            "split_hinge_loss": losses.split_hinge_loss,
        },
        lambda rng: tuple(rng.uniform(-1, 1, (4, 3))),
    ),
    "tokens": (
        {
            "masked_words": keyed(lambda *args: exact(masked_words(*args))),
            "next_tokens": lambda seed, ids, b, d: exact(losses.next_tokens(ids, d)),
            "prefix_targets": keyed(
                lambda key, ids, b, d: exact(losses.prefix_targets(key, ids, d, 3)[0])
            ),
        },
        tokens,
    ),
    "bigan": (
        {"bigan_qp_loss": bigan},
        lambda rng: (
            rng.standard_normal((2, 3)),
            rng.standard_normal((2, 2)),
            rng.standard_normal((3, 2)),
        ),
    ),
}

# What has neither floats nor gradients.
DISCRETE = {"tokens"}
FLOATS = [case for case in CASES if case not in DISCRETE]

LINEAR = {
    "free_bits",
    "derange",
    "pack",
    "qp_generator_loss",
    "reparameterize",
    "wasserstein_critic_loss",
    "wasserstein_generator_loss",
}


def test_every_public_function_has_a_case():
    covered = {name for functions, _ in CASES.values() for name in functions}
    terms = {name for name in losses.__all__ if name.endswith("Terms")}
    assert covered | terms | {"Prediction"} == set(losses.__all__)


@pytest.mark.parametrize("case", CASES)
def test_works_everywhere(case, works_everywhere):
    functions, draw = CASES[case]
    works_everywhere(
        lambda *args: {name: f(*args) for name, f in functions.items()},
        draw,
        grad=case not in DISCRETE,
    )


@pytest.mark.parametrize("case", FLOATS)
def test_nan_is_shown(case, shows_nan):
    shows_nan(*CASES[case], linear=LINEAR)


@pytest.mark.parametrize("case", FLOATS)
def test_integers_count_as_floats(case, counts_integers):
    functions, draw = CASES[case]
    # These only move their examples and keep the dtype.
    moves = {"derange", "pack"}
    counts_integers({name: f for name, f in functions.items() if name not in moves}, draw)
