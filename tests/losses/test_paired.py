"""Losses of pairs: best critics between points and between laws, gradients, bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize, special

from jaxgen import losses

PAIRED = {
    "relativistic_critic": losses.relativistic_critic_loss,
    "relativistic_generator": losses.relativistic_generator_loss,
    "qp_critic": lambda r, f: losses.qp_critic_loss(r, f, jnp.array([0.5, 2.0]), 3.0),
    "qp_generator": losses.qp_generator_loss,
}


def draw(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


@pytest.mark.parametrize("name", PAIRED)
def test_gradients_are_finite_differences_and_pull_the_right_way(name, x64):
    real, fake = jnp.array([0.3, -0.7]), jnp.array([0.2, 0.9])

    def total(real, fake):
        return jnp.sum(PAIRED[name](real, fake))

    gradients = jax.grad(total, (0, 1))(real, fake)
    expected = optimize.approx_fprime(real, lambda v: float(total(v, fake)), 1e-7)
    np.testing.assert_allclose(gradients[0], expected, rtol=1e-5)
    np.testing.assert_allclose(gradients[1], -gradients[0], rtol=1e-6)
    assert np.all(gradients[1] * (1 if "critic" in name else -1) > 0)


def test_relativistic_losses_by_hand(x64):
    real, fake = draw(6), draw(6, 1)
    better = special.expit(real - fake)
    np.testing.assert_allclose(losses.relativistic_critic_loss(real, fake), -np.log(better))
    generator = losses.relativistic_generator_loss(real, fake)
    np.testing.assert_allclose(generator, -np.log(1 - better))
    huge = jax.grad(losses.relativistic_critic_loss)(jnp.float32(-1e4), jnp.float32(1e4))
    assert huge == -1


@pytest.mark.parametrize(("distance", "slope"), [(0.3, 10.0), (4.0, 2.0)])
def test_qp_between_two_points(x64, distance, slope):
    """Of single points: Delta = lambda d; the losses are -lambda d / 2 and lambda d."""

    def loss(delta):
        return losses.qp_critic_loss(delta, jnp.zeros(1), jnp.full(1, distance), slope)[0]

    delta = jnp.full(1, slope * distance)
    np.testing.assert_allclose(jax.grad(loss)(delta), [0.0], atol=1e-12)
    np.testing.assert_allclose(loss(delta), -slope * distance / 2)
    assert loss(delta * 1.01) > loss(delta)
    assert loss(delta * 0.99) > loss(delta)
    generator = losses.qp_generator_loss(delta, jnp.zeros(1))
    np.testing.assert_allclose(generator, [slope * distance])


def test_qp_of_pairs_between_two_laws(x64):
    """Delta = lambda d (a - b) / (a + b), of a critic of two arguments."""
    x = np.array([0.0, 1.0, 2.5, 3.0])
    p, q = np.array([0.5, 0.3, 0.15, 0.05]), np.array([0.1, 0.2, 0.3, 0.4])
    i, j = np.triu_indices(4, 1)
    distance = np.abs(x[i] - x[j])

    def expected_loss(delta):  # Delta(x_i, x_j) = delta, and -delta the other way round
        there = losses.qp_critic_loss(delta, jnp.zeros(6), distance)
        back = losses.qp_critic_loss(-delta, jnp.zeros(6), distance)
        return jnp.sum(p[i] * q[j] * there + p[j] * q[i] * back)

    a, b = p[i] * q[j], p[j] * q[i]
    best = 10 * distance * (a - b) / (a + b)
    np.testing.assert_allclose(jax.grad(expected_loss)(best), np.zeros(6), atol=1e-12)
    np.testing.assert_allclose(expected_loss(best), -5 * np.sum(distance * (a - b) ** 2 / (a + b)))


def qp_optimum(x, p, q):
    """Scores that minimise the expected loss of one-argument critics, by numpy; lambda = 10."""
    distance = np.abs(x[:, None] - x[None, :])
    pairs = p[:, None] * q[None, :]
    weights = (pairs + pairs.T) / (10 * np.where(distance == 0, np.inf, distance))
    laplacian = np.diag(weights.sum(axis=1)) - weights
    return np.linalg.lstsq(laplacian, p - q, rcond=None)[0], distance


def test_qp_between_two_laws(x64):
    """The optimum of T(x): a Newton step from 0 reaches it, and slopes may exceed lambda."""
    i, j = (k.ravel() for k in np.indices((3, 3)))

    @jax.jit
    def run(scores, p, q, distance):
        def expected_loss(t):
            return jnp.sum(p[i] * q[j] * losses.qp_critic_loss(t[i], t[j], distance[i, j]))

        gradient = jax.grad(expected_loss)
        step = -jnp.linalg.pinv(jax.hessian(expected_loss)(0 * scores)) @ gradient(0 * scores)
        return expected_loss(scores), gradient(scores), step

    issue = np.array([0.0, 1.0, 1.1]), np.array([0.1, 0.1, 0.8]), np.array([0.5, 0.45, 0.05])
    rng = np.random.default_rng(0)
    drawn = [(np.sort(rng.random(3)), *rng.dirichlet([0.3] * 3, 2)) for _ in range(20)]
    slopes = []
    for x, p, q in [issue, *drawn]:
        scores, distance = qp_optimum(x, p, q)
        value, gradient, step = run(scores, p, q, distance)
        np.testing.assert_allclose(gradient, 0, atol=1e-10)
        np.testing.assert_allclose(step - step[0], scores - scores[0], rtol=1e-6, atol=1e-8)
        delta, pairs = scores[:, None] - scores[None, :], p[:, None] * q[None, :]
        np.testing.assert_allclose(value, -np.sum(pairs * delta) / 2, rtol=1e-8, atol=1e-12)
        assert -2 * value <= 10 * np.sum(pairs * distance)
        slopes.append(np.max(np.abs(delta)[distance > 0] / distance[distance > 0]))
    np.testing.assert_allclose(slopes[0], 11.5968, atol=1e-4)
    assert max(slopes) > 15


def test_qp_at_distance_zero():
    def loss(w, distance):
        x = jnp.array([0.7, 1.2])
        return jnp.sum(losses.qp_critic_loss(w * x, w * (x - distance), jnp.abs(distance)))

    for distance in (0.0, 1e-12):
        value, gradient = jax.value_and_grad(loss)(2.0, jnp.full(2, distance))
        np.testing.assert_allclose([value, gradient], 0.0, atol=1e-6)
    value, gradient = jax.value_and_grad(lambda v: losses.qp_critic_loss(v, 0.0, 0.0))(1e-3)
    np.testing.assert_allclose(value, 0.05 - 1e-3, rtol=1e-4)
    np.testing.assert_allclose(gradient, 99.0, rtol=1e-4)


def test_distances_against_numpy(x64):
    x, y = draw((3, 4, 2)), draw((3, 4, 2), 1)
    error = (x - y).reshape(3, 8)
    np.testing.assert_allclose(losses.mean_absolute_distance(x, y), np.abs(error).mean(1))
    expected = np.linalg.norm(error, axis=1) / np.sqrt(8)
    np.testing.assert_allclose(losses.root_mean_square_distance(x, y), expected)
    for distance in (losses.mean_absolute_distance, losses.root_mean_square_distance):
        gradient = jax.grad(lambda x, f=distance: jnp.sum(f(x, y)))(x)
        numeric = optimize.approx_fprime(
            x.ravel(), lambda v, f=distance: float(jnp.sum(f(v.reshape(x.shape), y))), 1e-7
        )
        np.testing.assert_allclose(gradient.ravel(), numeric, rtol=1e-5, atol=1e-7)
        same = jax.grad(lambda x, f=distance: jnp.sum(f(x, x * 0 + y)))(y)
        np.testing.assert_array_equal(same, 0)


@pytest.mark.parametrize("name", ["mean_absolute_distance", "root_mean_square_distance"])
def test_nan_stays_nan(name):
    distance = getattr(losses, name)
    x = jnp.array([[1.0, jnp.nan], [0.0, 2.0]])
    np.testing.assert_array_equal(np.isnan(distance(x, jnp.zeros((2, 2)))), [True, False])
    assert np.isnan(jax.jit(losses.qp_critic_loss)(1.0, 0.0, jnp.nan))


def networks(params):
    def encoder(x):
        return jnp.tanh(x) @ params["encoder"]

    def generator(z):
        return jnp.sin(z) @ params["generator"]

    def critic(x, z):
        return jnp.tanh(x) @ params["x"] * (jnp.tanh(z) @ params["z"])

    return critic, encoder, generator


def bigan_params():
    return {
        "encoder": draw((4, 2)),
        "generator": draw((2, 4), 1),
        "x": draw(4, 2),
        "z": draw(2, 3),
    }


def test_bigan_terms_and_whom_they_train(x64):
    params, x, z = bigan_params(), draw((3, 4), 4), draw((3, 2), 5)
    terms = losses.bigan_qp_loss(*networks(params), x, z)
    code, made = np.tanh(x) @ params["encoder"], np.sin(z) @ params["generator"]

    def critic(x, z):
        return np.tanh(x) @ params["x"] * (np.tanh(z) @ params["z"])

    np.testing.assert_allclose(terms.difference, critic(x, code) - critic(made, z))
    recoded = np.tanh(made) @ params["encoder"]
    np.testing.assert_allclose(terms.code, ((recoded - z) ** 2).mean(1))
    remade = np.sin(code) @ params["generator"]
    np.testing.assert_allclose(terms.image, ((remade - x) ** 2).mean(1))

    def total(params, name):
        return jnp.sum(getattr(losses.bigan_qp_loss(*networks(params), x, z), name))

    trained = {
        name: {k for k, g in jax.grad(total)(params, name).items() if np.any(g != 0)}
        for name in ("difference", "code", "image")
    }
    assert trained["code"] == {"encoder"}
    assert trained["image"] == {"generator"}
    assert trained["difference"] == set(params)
