"""Deep InfoMax and contrastive losses: by loops, properties, the prior's two gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize, special

from jaxgen import divergences as d
from jaxgen import losses

SCORES = np.array([[2.0, 0.0, -1.0], [0.0, 1.0, 0.0], [1.0, -1.0, 3.0]])


def draw(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


@pytest.mark.parametrize(
    ("bound", "expected"),
    [
        (lambda s: d.f_information_bound(d.jensen_shannon(), s), 0.5535),
        (d.donsker_varadhan_bound, 1.9271),
        (d.info_nce_bound, 0.8105),
        (lambda s: np.log(3) - losses.local_info_nce_loss(s), 0.8105),
    ],
)
def test_known_values_of_the_global_term(bound, expected):
    np.testing.assert_allclose(np.mean(bound(SCORES)), expected, atol=5e-5)


def test_scores_by_loops(x64):
    codes, others, maps = draw((3, 2)), draw((3, 2), 1), draw((3, 2, 4, 2), 2)
    expected = [[codes[i] @ others[j] / 0.7 for j in range(3)] for i in range(3)]
    np.testing.assert_allclose(losses.pair_scores(codes, others, 0.7), expected)
    local = losses.pair_scores(codes, maps)
    assert local.shape == (2, 4, 3, 3)
    for h, w, i, j in np.ndindex(local.shape):
        np.testing.assert_allclose(local[h, w, i, j], codes[i] @ maps[j, h, w])


def local_by_loops(scores):
    """Softmax over one positive and all locations of all other images, of scores [L, B, B]."""
    places, size, _ = scores.shape
    loss = np.zeros(size)
    for i in range(size):
        negatives = [scores[k, i, j] for k in range(places) for j in range(size) if j != i]
        for k in range(places):
            softmax = special.softmax([scores[k, i, i], *negatives])
            loss[i] -= np.log(softmax[0]) / places
    return loss


def test_local_info_nce_by_loops(x64):
    scores = draw((2, 3, 4, 4))
    expected = local_by_loops(scores.reshape(6, 4, 4))
    np.testing.assert_allclose(losses.local_info_nce_loss(scores), expected, rtol=1e-10)
    one = d.info_nce_bound(scores[0, 0])
    np.testing.assert_allclose(losses.local_info_nce_loss(scores[0, 0]), np.log(4) - one)
    constant = losses.local_info_nce_loss(jnp.zeros((5, 4, 4)))
    np.testing.assert_allclose(constant, np.log(1 + 3 * 5))


def test_own_locations_are_no_negatives(x64):
    """Raising an image's score at one of its own locations leaves the other locations' terms."""
    scores = draw((2, 3, 3))
    raised = scores + np.array([1000.0, 0.0])[:, None, None] * np.eye(3)[None]
    others = [special.logsumexp(scores[:, i, np.arange(3) != i]) for i in range(3)]
    expected = np.log1p(np.exp(others - np.diag(scores[1]))) / 2  # the raised location adds 0
    np.testing.assert_allclose(losses.local_info_nce_loss(raised), expected, rtol=1e-10)


def nt_xent_by_loops(x, y, temperature):
    z = np.concatenate([x, y])
    z = z / np.linalg.norm(z, axis=1, keepdims=True)
    size, loss = len(x), np.zeros(len(x))
    for i in range(2 * size):
        candidates = [k for k in range(2 * size) if k != i]
        softmax = special.softmax([z[i] @ z[k] / temperature for k in candidates])
        loss[i % size] -= np.log(softmax[candidates.index((i + size) % (2 * size))]) / 2
    return loss


def test_nt_xent_by_loops(x64):
    x, y = draw((4, 3)), draw((4, 3), 1)
    expected = nt_xent_by_loops(x, y, 0.3)
    np.testing.assert_allclose(losses.nt_xent_loss(x, y, 0.3), expected, rtol=1e-10)
    scales = np.array([1e-3, 1.0, 5.0, 1e4])[:, None]
    np.testing.assert_allclose(losses.nt_xent_loss(scales * x, y, 0.3), expected, rtol=1e-10)


def test_nt_xent_of_equal_codes_and_of_zeros():
    equal = jnp.ones((4, 3))
    np.testing.assert_allclose(losses.nt_xent_loss(equal, equal), np.log(7), rtol=1e-6)
    value, gradient = jax.value_and_grad(lambda x: losses.nt_xent_loss(x, x).sum())(0 * equal)
    np.testing.assert_allclose(value, 4 * np.log(7), rtol=1e-6)
    assert np.isfinite(gradient).all()
    apart = jnp.eye(3)
    assert (losses.nt_xent_loss(apart, apart, 0.01) < 1e-6).all()


GRADIENTS = {
    "local_info_nce": lambda x: losses.local_info_nce_loss(x.reshape(2, 3, 3)),
    "nt_xent": lambda x: losses.nt_xent_loss(*x.reshape(2, 3, 3), 0.3),
    "pair_scores": lambda x: losses.pair_scores(x[:6].reshape(2, 3), x[6:].reshape(2, 2, 3)) ** 2,
}


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients_are_finite_differences(name, x64):
    def total(x):
        value = GRADIENTS[name](x)
        return jnp.sum(value.ravel() * jnp.cos(jnp.arange(value.size)))

    x = draw(18)
    numeric = optimize.approx_fprime(x, lambda x: float(total(x)), 1e-7)
    np.testing.assert_allclose(jax.grad(total)(x), numeric, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("scale", [-1e4, 1e4])
def test_huge_scores_are_finite(scale):
    scores = jnp.float32(scale) * (jnp.eye(3) + jnp.asarray(SCORES, jnp.float32))[None]
    pair = scores[0], scores[0, ::-1]
    functions = {
        "local": lambda: jax.value_and_grad(lambda s: losses.local_info_nce_loss(s).sum())(scores),
        "nt_xent": lambda: jax.value_and_grad(lambda x: losses.nt_xent_loss(x, pair[1]).sum())(
            pair[0]
        ),
        "critic": lambda: jax.value_and_grad(
            lambda v: sum(x.sum() for x in losses.logistic_critic_loss(v, -v))
        )(scores),
        "encoder": lambda: jax.value_and_grad(
            lambda v: losses.non_saturating_generator_loss(v).sum()
        )(scores),
    }
    for name, function in functions.items():
        assert all(np.isfinite(x).all() for x in function()), name


def test_adversarial_prior_pulls_critic_and_encoder_apart(x64):
    """At the codes, the critic's loss falls where the encoder's rises."""
    codes, prior, direction = 2 * draw((5, 3)) + 1, draw((5, 3), 1), draw(3, 2)

    def critic(z):
        return jnp.tanh(z) @ direction

    def of_critic(z):
        return losses.logistic_critic_loss(critic(prior), critic(z)).fake.sum()

    def of_encoder(z):
        return losses.non_saturating_generator_loss(critic(z)).sum()

    toward, away = jax.grad(of_critic)(codes), jax.grad(of_encoder)(codes)
    score = np.tanh(codes) @ direction
    slope = (1 - np.tanh(codes) ** 2) * direction
    np.testing.assert_allclose(toward, special.expit(score)[:, None] * slope)
    np.testing.assert_allclose(away, -special.expit(-score)[:, None] * slope)
    cosines = (
        np.sum(toward * away, axis=1)
        / np.linalg.norm(toward, axis=1)
        / np.linalg.norm(away, axis=1)
    )
    np.testing.assert_allclose(cosines, -1)


@pytest.mark.parametrize("size", [2, 5])
def test_derangements_have_no_fixed_point_and_reach_all_others(size):
    x = jnp.arange(size)
    keys = jax.random.split(jax.random.key(0), 200)
    partners = np.asarray(jax.vmap(lambda key: losses.derange(key, x))(keys))
    assert not (partners == np.arange(size)).any()
    np.testing.assert_array_equal(np.sort(partners, axis=1), np.tile(np.arange(size), (200, 1)))
    assert set(partners[:, 0]) == set(range(1, size))
    pairs = losses.derange(keys[0], jnp.stack([x, x], axis=1))
    np.testing.assert_array_equal(pairs[:, 0], partners[0])
