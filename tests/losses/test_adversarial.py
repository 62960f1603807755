"""Losses of independent batches: independent values, best critics, gradients."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize, special, stats

from jaxgen import divergences as d
from jaxgen import losses

P = np.array([0.5, 0.3, 0.15, 0.05])
Q = np.array([0.1, 0.2, 0.3, 0.4])

DIVERGENCES = {
    "alpha_0.5": d.alpha_divergence(0.5),
    "alpha_3": d.alpha_divergence(3.0),
    "chi_square_over_p": d.chi_square_over_p(),
    "chi_square_over_q": d.chi_square_over_q(),
    "from_generator": d.from_generator(lambda u: 2 * u**2 - u - jnp.sqrt(u)),
    "gan": d.gan(),
    "jeffreys": d.jeffreys(),
    "jensen_shannon": d.jensen_shannon(),
    "kl": d.kl(),
    "reverse_kl": d.reverse_kl(),
    "squared_hellinger": d.squared_hellinger(),
    "total_variation": d.total_variation(),
    "weighted_jensen_shannon": d.weighted_jensen_shannon(0.3),
}
each_divergence = pytest.mark.parametrize("name", DIVERGENCES)

CRITIC = {
    "f_gan": lambda r, f: losses.f_gan_critic_loss(d.squared_hellinger(), r, f),
    "logistic": losses.logistic_critic_loss,
    "least_squares": lambda r, f: losses.least_squares_critic_loss(r, f, 1.0, -1.0),
    "hinge": losses.hinge_critic_loss,
    "wasserstein": losses.wasserstein_critic_loss,
}
GENERATOR = {
    "f_gan": lambda v: losses.f_gan_generator_loss(d.squared_hellinger(), v),
    "f_gan_heuristic": lambda v: losses.f_gan_heuristic_generator_loss(d.squared_hellinger(), v),
    "saturating": losses.saturating_generator_loss,
    "non_saturating": losses.non_saturating_generator_loss,
    "least_squares": losses.least_squares_generator_loss,
    "wasserstein": losses.wasserstein_generator_loss,
}


def over_laws(terms, q=Q):
    """Expected loss of a critic of four points, scores in the order of P and Q."""
    return jnp.sum(P * terms.real) + jnp.sum(q * terms.fake)


def best_scores(critic_loss):
    """Scores of the four points at which the expected loss is least, and that loss."""
    value_and_grad = jax.jit(jax.value_and_grad(lambda v: over_laws(critic_loss(v, v))))
    found = optimize.minimize(
        lambda v: [np.asarray(x) for x in value_and_grad(v)],
        np.full(4, 0.1),
        jac=True,
        options={"gtol": 1e-10},
    )
    return found.x, found.fun


@each_divergence
def test_best_f_gan_critic_reaches_minus_the_divergence(name, x64):
    record = DIVERGENCES[name]
    v, loss = best_scores(lambda r, f: losses.f_gan_critic_loss(record, r, f))
    # Total variation is reached at infinite scores only.
    np.testing.assert_allclose(loss, -d.f_divergence(record, P, Q), rtol=1e-5)
    if name != "total_variation":
        slope = jax.vmap(jax.grad(record.f))(P / Q)
        np.testing.assert_allclose(record.activation(v), slope, rtol=1e-3)


@each_divergence
def test_true_generator_loss_has_the_gradient_of_the_divergence(name, x64):
    """At the best critic, with respect to the law of the fakes (the envelope theorem)."""
    record = DIVERGENCES[name]
    v, _ = best_scores(lambda r, f: losses.f_gan_critic_loss(record, r, f))
    along = np.array([1.0, -2.0, 0.5, 0.5])  # sums to 0
    slope = np.sum(along * losses.f_gan_generator_loss(record, v))

    def exact(h):
        return d.f_divergence(record, P, Q + h * along)

    np.testing.assert_allclose(slope, (exact(1e-6) - exact(-1e-6)) / 2e-6, rtol=1e-3)


@each_divergence
def test_generators_want_higher_scores(name, x64):
    record = DIVERGENCES[name]
    v = np.linspace(-4, 4, 9) + 0.01
    for loss in (losses.f_gan_generator_loss, losses.f_gan_heuristic_generator_loss):
        slopes = np.asarray(jax.vmap(jax.grad(lambda v, loss=loss: loss(record, v)))(v))
        clamped = loss is losses.f_gan_generator_loss and name in ("alpha_3", "chi_square_over_q")
        assert np.all(slopes <= 0)
        assert np.all(slopes[v > (-0.4 if clamped else -9)] < 0)


def test_heuristic_loss_and_terms_by_hand():
    # Squared Hellinger at p / q = 4, 1, 1/9: T = f' = 1 - (q / p)^0.5 is 1/2, 0, -2, and
    # f*(T) = T / (1 - T) is 1, 0, -2/3. These are the scores log 2, 0, -log 3.
    v = np.array([0.6931472, 0.0, -1.0986123], np.float32)
    close = partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-7)
    record = d.squared_hellinger()
    terms = losses.f_gan_critic_loss(record, v, v[:2])
    close(terms.real, [-0.5, 0, 2])
    close(terms.fake, [1, 0])
    close(losses.f_gan_generator_loss(record, v), [-1, 0, 2 / 3])
    close(losses.f_gan_heuristic_generator_loss(record, v), [-0.5, 0, 2])


def test_logistic_is_the_f_gan_of_the_gan_divergence_and_reaches_jsd(x64):
    r, f = np.linspace(-3, 3, 5), np.linspace(-2, 4, 3)
    ours = losses.logistic_critic_loss(r, f)
    theirs = losses.f_gan_critic_loss(d.gan(), r, f)
    np.testing.assert_allclose(ours.real, theirs.real)
    np.testing.assert_allclose(ours.fake, theirs.fake)
    np.testing.assert_allclose(ours.real, -np.log(special.expit(r)))
    np.testing.assert_allclose(ours.fake, -np.log(1 - special.expit(f)))
    v, loss = best_scores(losses.logistic_critic_loss)
    np.testing.assert_allclose(v, np.log(P / Q), atol=1e-6)
    middle = (P + Q) / 2
    jsd = (stats.entropy(P, middle) + stats.entropy(Q, middle)) / 2
    np.testing.assert_allclose(loss, 2 * np.log(2) - 2 * jsd)


def test_saturating_and_non_saturating(x64):
    v = np.linspace(-5, 5, 11)
    saturating = losses.saturating_generator_loss(v)
    np.testing.assert_allclose(saturating, np.log(1 - special.expit(v)))
    np.testing.assert_allclose(losses.non_saturating_generator_loss(v), -np.log(special.expit(v)))
    np.testing.assert_allclose(saturating, losses.f_gan_generator_loss(d.gan(), v))
    slope = jax.grad(losses.saturating_generator_loss)(-30.0)
    assert -1e-12 < slope < 0
    assert jax.grad(losses.non_saturating_generator_loss)(-30.0) == pytest.approx(-1)


def test_best_least_squares_critic_hands_on_pearsons_chi_square(x64):
    def critic(r, f):
        return losses.least_squares_critic_loss(r, f, real_label=1.0, fake_label=-1.0)

    v, loss = best_scores(critic)
    np.testing.assert_allclose(v, (P - Q) / (P + Q), atol=1e-8)
    np.testing.assert_allclose(loss, np.sum(2 * P * Q / (P + Q)))
    # b - c = 1 and b - a = 2: half of chi^2(p + q || 2 q), over both laws.
    both = np.sum((P + Q) * losses.least_squares_generator_loss(v, 0.0))
    np.testing.assert_allclose(both, np.sum((P - Q) ** 2 / (P + Q)) / 2)
    # With the critic held, the fakes that score above c are pushed down: no descent of the chi^2.
    held = jax.vmap(jax.grad(lambda v: losses.least_squares_generator_loss(v, 0.0)))(v)
    np.testing.assert_allclose(held, v)
    plain = losses.least_squares_critic_loss(np.array([0.0, 3.0]), np.array([3.0]))
    np.testing.assert_allclose(plain.real, [0.5, 2.0])
    np.testing.assert_allclose(plain.fake, [4.5])
    np.testing.assert_allclose(losses.least_squares_generator_loss(3.0), 2.0)


def test_best_hinge_critic_is_the_sign_and_reaches_total_variation(x64):
    signs = np.sign(P - Q)
    best = over_laws(losses.hinge_critic_loss(signs, signs))
    np.testing.assert_allclose(best, 2 - np.abs(P - Q).sum())
    rng = np.random.default_rng(0)
    for v in signs + 0.3 * rng.standard_normal((50, 4)):
        assert over_laws(losses.hinge_critic_loss(v, v)) > best
    terms = losses.hinge_critic_loss(np.array([-2.0, 0.5, 3.0]), np.array([-3.0, 0.5]))
    np.testing.assert_allclose(terms.real, [3.0, 0.5, 0.0])
    np.testing.assert_allclose(terms.fake, [0.0, 1.5])


def test_best_wasserstein_critic_of_slope_one_reaches_minus_w1(x64):
    """A linear programme over critics of four points on a line."""
    x = np.array([0.0, 1.0, 2.5, 3.0])
    steps = np.diff(np.eye(4), axis=0) / np.diff(x)[:, None]
    found = optimize.linprog(
        Q - P, np.concatenate([steps, -steps]), np.ones(6), bounds=[(0, 0)] + 3 * [(None, None)]
    )
    terms = losses.wasserstein_critic_loss(found.x, found.x)
    np.testing.assert_allclose(over_laws(terms), -stats.wasserstein_distance(x, x, P, Q))
    generator = losses.wasserstein_generator_loss(found.x)
    # Q lies right of P: the best critic falls all along, and fakes are worse the further right.
    np.testing.assert_allclose(generator, [0.0, 1.0, 2.5, 3.0])
    np.testing.assert_allclose(generator, losses.f_gan_heuristic_generator_loss(d.kl(), found.x))


@pytest.mark.parametrize("name", CRITIC)
def test_critic_prefers_reals_higher_and_fakes_lower(name, x64):
    real, fake = jnp.array([0.3, -0.7]), jnp.array([0.2, 0.9, -0.4])

    def total(real, fake):
        return sum(jnp.sum(term) for term in CRITIC[name](real, fake))

    of_real, of_fake = jax.grad(total, (0, 1))(real, fake)
    assert np.all(of_real < 0)
    assert np.all(of_fake > 0)
    expected = optimize.approx_fprime(real, lambda v: float(total(v, fake)), 1e-7)
    np.testing.assert_allclose(of_real, expected, rtol=1e-5)
    expected = optimize.approx_fprime(fake, lambda v: float(total(real, v)), 1e-7)
    np.testing.assert_allclose(of_fake, expected, rtol=1e-5)
    terms = CRITIC[name](real, fake)
    assert (terms.real.shape, terms.fake.shape) == ((2,), (3,))


@pytest.mark.parametrize("name", GENERATOR)
def test_generator_prefers_higher_scores(name, x64):
    v = jnp.array([0.2, 0.9, -0.4])
    gradient = jax.grad(lambda v: jnp.sum(GENERATOR[name](v)))(v)
    assert np.all(gradient < 0)
    expected = optimize.approx_fprime(v, lambda v: float(jnp.sum(GENERATOR[name](v))), 1e-7)
    np.testing.assert_allclose(gradient, expected, rtol=1e-5)


@pytest.mark.parametrize("huge", [-1e4, 1e4])
def test_logistic_losses_are_finite_at_huge_scores(huge):
    def total(v):
        terms = losses.logistic_critic_loss(v, v)
        generators = losses.saturating_generator_loss(v) + losses.non_saturating_generator_loss(v)
        return terms.real + 2 * terms.fake + generators

    value, gradient = jax.value_and_grad(total)(jnp.float32(huge))
    assert np.isfinite(value)
    assert np.isfinite(gradient)


def test_labels_may_be_traced():
    real, fake = jax.jit(losses.least_squares_critic_loss)(np.ones(2), np.ones(2), 2.0, -1.0)
    np.testing.assert_allclose([real, fake], [[0.5, 0.5], [2.0, 2.0]])


def test_slope_at_the_kinks_of_hinge():
    slopes = jax.grad(lambda r, f: sum(losses.hinge_critic_loss(r, f)), (0, 1))(1.0, -1.0)
    np.testing.assert_array_equal(slopes, [-0.5, 0.5])
