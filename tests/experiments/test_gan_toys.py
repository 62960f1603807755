"""Dirac-GAN, the Gaussian fit and the toy sets: what is known of them exactly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import dirac_gan, gan_gaussian, gan_toy
from jaxgen import metrics
from jaxgen.optimizers import integrate


def play(name, time=150.0, step=0.1):
    """Players at all times from the first starting point, [steps, 2] each."""
    derivatives = dirac_gan.field(dirac_gan.games(dirac_gan.Config())[name])
    start = dirac_gan.starting_points(jax.random.key(0), 1)

    def body(players, _):
        players = integrate(derivatives, players, step, 4)
        return players, players

    steps = round(time / step)
    phi, theta = jax.jit(lambda x: jax.lax.scan(body, x, length=steps)[1])(start)
    return np.asarray(phi)[:, 0], np.asarray(theta)[:, 0]


@pytest.mark.parametrize(
    ("name", "radius", "tolerance"),
    [
        ("wgan_gp", 1.0, 0.005),
        ("gan_qp", 0.03**0.5, 1e-4),
        ("gan_qp_decay", 0.0, 1e-3),
        ("wgan_r1", 0.0, 1e-3),
        ("relativistic_r1", 0.0, 1e-3),
    ],
)
def test_where_a_dirac_gan_comes_to_rest(name, radius, tolerance):
    _, theta = play(name)
    late = np.linalg.norm(theta[-300:], axis=1)
    np.testing.assert_allclose(late, radius, atol=tolerance)


def test_wgan_of_a_point_is_the_harmonic_oscillator():
    """theta'' = -theta: theta(t) = theta(0) cos t + phi(0) sin t."""
    phi, theta = play("wgan", time=20.0)
    time = 0.1 * np.arange(1, 201)[:, None]
    expected = np.array([[0.2, 0.1]]) * np.cos(time) + np.array([[0.1, 0.2]]) * np.sin(time)
    np.testing.assert_allclose(theta, expected, atol=1e-4)
    np.testing.assert_allclose(np.sum(phi**2 + theta**2, axis=1), 0.1, atol=1e-5)


@pytest.mark.parametrize("name", ["gan_qp", "non_saturating", "relativistic", "saturating"])
def test_angular_momentum_is_kept(name):
    phi, theta = play(name, time=30.0)
    momentum = dirac_gan.momentum((phi, theta))
    np.testing.assert_allclose(momentum, 0.03, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "expected"),
    [  # quadrature in f64
        ("kl", [0.2881, 1.0100, 1.8304]),
        ("chi_square_over_p", [0.4072, 1.8286, 1.5171]),
        ("jeffreys", [0.5791, 1.3249, 1.7023]),
    ],
)
def test_best_gaussian_in_f32(name, expected):
    found = jax.jit(lambda: gan_gaussian.best_gaussian(gan_gaussian.RECORDS[name]))()
    np.testing.assert_allclose(found, expected, atol=5e-4)


def test_stratified_draws_have_the_moments_of_the_mixture():
    x = np.asarray(gan_gaussian.reals(jax.random.key(0), 20_000), np.float64)
    mean = 0.33 * -1 + 0.67 * 2
    variance = 0.33 * (0.0625 + 1) + 0.67 * (2 + 4) - mean**2
    np.testing.assert_allclose([x.mean(), x.var()], [mean, variance], rtol=2e-3)
    z = np.asarray(gan_gaussian.noise(jax.random.key(1), 20_000), np.float64)
    np.testing.assert_allclose([z.mean(), z.var()], [0, 1], atol=2e-3)


@pytest.mark.parametrize(("name", "modes", "distance"), [("ring", 8, 0.7654), ("grid", 25, 1.0)])
def test_a_perfect_sampler_of_the_toy_sets(name, modes, distance):
    law = gan_toy.mixture(name)
    scale = 0.05 / law.deviation
    between = np.linalg.norm(law.centers[:, None] - law.centers[None], axis=-1)
    closest = between[between > 0].min()
    np.testing.assert_allclose(closest * scale, 2 * distance, rtol=1e-4)
    np.testing.assert_allclose(np.mean(law.centers**2), 1, rtol=1e-6)
    x = gan_toy.reals(law, jax.random.key(0), 20_000)
    found = metrics.mode_counts(law.centers, x, law.deviation)
    assert found.high_quality == pytest.approx(1 - np.exp(-4.5), abs=3e-3)
    assert metrics.captured_modes(found.counts) == modes
    assert metrics.kl_to_uniform(found.counts) < 3 * modes / (2 * 20_000)


def test_critic_of_a_dirac_gan_is_the_product():
    phi, x = jnp.array([[1.0, 2.0]]), jnp.array([[3.0, -1.0]])
    np.testing.assert_allclose(dirac_gan.critic(phi)(x), [1.0])
    np.testing.assert_allclose(dirac_gan.radius(x), [10**0.5], rtol=1e-6)
