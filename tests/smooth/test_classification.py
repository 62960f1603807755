"""Smooth accuracy, generalised cross-entropy, and F-beta as counts."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.test_util import check_grads
from sklearn import metrics

from jaxgen import smooth


def draw(shape, seed=0, scale=1.0):
    return jnp.asarray(np.random.default_rng(seed).normal(0, scale, shape), jnp.float32)


def binary(shape, seed=1):
    return jnp.asarray(np.random.default_rng(seed).integers(0, 2, shape))


LABELS = jnp.array([2, 0, 1, 1, 2])


def test_smooth_accuracy_is_the_probability_of_the_label():
    # exp(logits / temperature) is 1, 2, 5; 2, 2, 4; 6, 3, 1.
    logits = 0.5 * jnp.log(jnp.array([[1.0, 2, 5], [2, 2, 4], [6, 3, 1]]))
    actual = smooth.smooth_accuracy(logits, jnp.array([2, 0, 1]), temperature=0.5)
    np.testing.assert_allclose(actual, [5 / 8, 1 / 4, 3 / 10], rtol=1e-5)


def test_cold_smooth_accuracy_is_accuracy():
    logits = draw((5, 3))
    actual = smooth.smooth_accuracy(logits, LABELS, temperature=1e-6)
    np.testing.assert_allclose(actual, np.argmax(logits, axis=-1) == LABELS, atol=1e-6)


def test_generalized_cross_entropy_lies_between_its_limits():
    logits = draw((5, 3))
    loss = smooth.generalized_cross_entropy_loss
    cross_entropy = optax.softmax_cross_entropy_with_integer_labels(logits, LABELS)
    np.testing.assert_allclose(loss(logits, LABELS, 0.0), cross_entropy, rtol=1e-5)
    np.testing.assert_allclose(loss(logits, LABELS, 1e-6), cross_entropy, rtol=1e-4)
    p = smooth.smooth_accuracy(logits, LABELS)
    np.testing.assert_allclose(loss(logits, LABELS, 1.0), 1 - p, rtol=1e-5)
    np.testing.assert_allclose(loss(logits, LABELS, 0.3), (1 - p**0.3) / 0.3, rtol=1e-4)


def test_generalized_cross_entropy_weighs_the_gradient_of_cross_entropy():
    logits, q = draw((5, 3)), 0.7
    loss = lambda q: lambda x: smooth.generalized_cross_entropy_loss(x, LABELS, q).sum()  # noqa: E731
    weight = smooth.smooth_accuracy(logits, LABELS)[:, None] ** q
    np.testing.assert_allclose(
        jax.grad(loss(q))(logits), weight * jax.grad(loss(0.0))(logits), rtol=1e-4, atol=1e-7
    )


@pytest.mark.parametrize("q", [0.0, 0.5, 1.0])
def test_masked_classes_have_no_probability(q):
    logits, labels = draw((5, 3)), jnp.array([0, 1, 1, 0, 1])
    where = jnp.array([True, True, False])
    loss = lambda x, **kw: smooth.generalized_cross_entropy_loss(x, labels, q, **kw)  # noqa: E731
    np.testing.assert_allclose(loss(logits, where=where), loss(logits[:, :2]), rtol=1e-5)
    slope = jax.grad(lambda x: loss(x, where=where).sum())(logits.at[:, 2].set(jnp.nan))
    np.testing.assert_array_equal(slope[:, 2], 0)
    assert np.isfinite(slope).all()


@pytest.mark.parametrize(
    "row", [[-np.inf] * 3, [-np.inf, 0.0, 0.0], [np.inf, 0.0, 0.0], [1e38, -1e38, 0]]
)
def test_infinite_logits_have_finite_gradients(row):
    logits, label = jnp.array([row]), jnp.array([0])
    right = 1.0 if row[0] > 0 else 0.0
    np.testing.assert_allclose(smooth.smooth_accuracy(logits, label), [right])
    np.testing.assert_allclose(
        smooth.generalized_cross_entropy_loss(logits, label, 0.5), [2.0 * (1 - right)]
    )
    for loss in (smooth.smooth_accuracy, smooth.generalized_cross_entropy_loss):
        slope = jax.grad(lambda x, loss=loss: loss(x, label).sum())(logits)
        np.testing.assert_array_equal(slope, 0)


def test_f_beta_of_hard_predictions_is_sklearns():
    p, t = binary((40, 3), 0), binary((40, 3), 1)
    counts = smooth.f_beta_counts(p, t, beta=2.0)
    macro = jnp.mean(smooth.f_beta_score(counts))
    micro = smooth.f_beta_score(jax.tree.map(jnp.sum, counts))
    one = smooth.f_beta_score(smooth.f_beta_counts(p[:, 0], t[:, 0], beta=2.0))
    score = metrics.fbeta_score
    np.testing.assert_allclose(macro, score(t, p, beta=2, average="macro"), rtol=1e-6)
    np.testing.assert_allclose(micro, score(t, p, beta=2, average="micro"), rtol=1e-6)
    np.testing.assert_allclose(one, score(t[:, 0], p[:, 0], beta=2), rtol=1e-6)
    whole = smooth.f_beta_counts(p, t, beta=2.0, axis=None)
    np.testing.assert_allclose(smooth.f_beta_score(whole), micro, rtol=1e-6)


def test_f1_is_one_minus_dice_loss():
    logits, t = draw((12, 3)), binary((12, 3))
    actual = smooth.f_beta_score(smooth.f_beta_counts(jax.nn.softmax(logits), t))
    dice = optax.losses.dice_loss(
        logits, t.astype(jnp.float32), axis=0, smooth=1e-6, reduction="none"
    )
    np.testing.assert_allclose(1 - actual, dice, rtol=1e-5)


def test_gradient_identity_of_f1():
    p, t = jax.nn.sigmoid(draw((20,))), binary((20,))
    f1, slope = jax.value_and_grad(lambda p: smooth.f_beta_score(smooth.f_beta_counts(p, t)))(p)
    np.testing.assert_allclose(slope, (2 * t - f1) / (p + t).sum(), rtol=1e-5)


def test_counts_of_micro_batches_add_up_and_scores_do_not():
    p, t = jax.nn.sigmoid(draw((32, 2))), binary((32, 2))
    whole = smooth.f_beta_counts(p, t)
    parts = [smooth.f_beta_counts(p[i : i + 8], t[i : i + 8]) for i in range(0, 32, 8)]
    summed = jax.tree.map(lambda *x: sum(x), *parts)
    np.testing.assert_allclose(smooth.f_beta_score(summed), smooth.f_beta_score(whole), rtol=1e-5)
    mean = np.mean([smooth.f_beta_score(x) for x in parts], axis=0)
    assert np.abs(mean - smooth.f_beta_score(whole)).max() > 1e-3


def test_counts_add_up_over_devices(eight_devices):
    p, t = jax.nn.sigmoid(draw((16, 2))), binary((16, 2))
    mapped = jax.pmap(
        lambda p, t: smooth.f_beta_score(jax.lax.psum(smooth.f_beta_counts(p, t), "i")), "i"
    )
    expected = smooth.f_beta_score(smooth.f_beta_counts(p, t))
    actual = mapped(p.reshape(8, 2, 2), t.reshape(8, 2, 2))
    np.testing.assert_allclose(actual, np.tile(expected, (8, 1)), rtol=1e-5)


def test_f_beta_without_positives():
    def score(p, **kw):
        return smooth.f_beta_score(smooth.f_beta_counts(p, jnp.zeros(3), **kw))

    p = jnp.array([0.2, 0.7, 1.0])
    for x, masked in ((p, None), (p * 0, None), (p, jnp.zeros(3, bool))):
        value, slope = jax.value_and_grad(lambda p, w=masked: score(p, where=w))(x)
        assert value == 0
        np.testing.assert_array_equal(slope, 0)
    nothing = smooth.f_beta_counts(p * 0, jnp.zeros(3))
    assert smooth.f_beta_score(nothing, zero_division=1.0) == 1

    def smoothed(p):
        numerator, denominator = smooth.f_beta_counts(p, jnp.zeros(3))
        return smooth.f_beta_score(smooth.FBetaCounts(numerator + 1, denominator + 1))

    assert (jax.grad(smoothed)(p) < 0).all()


def test_masked_examples_do_not_count():
    p, t = jax.nn.sigmoid(draw((10, 2))), binary((10, 2))
    where = (jnp.arange(10) < 6)[:, None]
    np.testing.assert_allclose(
        smooth.f_beta_counts(p, t, where=where), smooth.f_beta_counts(p[:6], t[:6]), rtol=1e-6
    )
    logits = draw((10, 2))
    np.testing.assert_allclose(
        smooth.confusion_counts(logits, t, where=where),
        smooth.confusion_counts(logits[:6], t[:6]),
        rtol=1e-5,
    )
    for counts in (smooth.f_beta_counts, smooth.confusion_counts):
        spoiled = jnp.where(where, p, jnp.nan)
        slope = jax.grad(lambda p, f=counts: sum(f(p, t, where=where)).sum())(spoiled)
        np.testing.assert_array_equal(slope[6:], 0)
        assert np.isfinite(slope).all()


def test_cold_confusion_counts_are_sklearns():
    logits, t = draw((50,)), binary((50,))
    actual = smooth.confusion_counts(logits, t, temperature=1e-7)
    (_, fp), (fn, tp) = metrics.confusion_matrix(t, logits > 0)
    np.testing.assert_allclose(actual, [tp, fp, fn], rtol=1e-4)
    infinite = smooth.confusion_counts(
        jnp.array([jnp.inf, -jnp.inf, jnp.inf]), jnp.array([1, 1, 0])
    )
    np.testing.assert_array_equal(infinite, [1, 1, 1])


def test_gradients(x64):
    logits, t = np.asarray(draw((6, 3)), np.float64), np.asarray(binary((6, 3)), np.float64)
    y = LABELS[jnp.arange(6) % 5]
    together = jax.jit(
        lambda x: (
            smooth.smooth_accuracy(x, y, temperature=0.5),
            smooth.generalized_cross_entropy_loss(x, y, 0.7),
            smooth.f_beta_score(smooth.f_beta_counts(jax.nn.sigmoid(x), t, beta=2.0)),
            smooth.confusion_counts(x, t, temperature=0.5),
        )
    )
    check_grads(together, (logits,), order=2, modes=["rev"], atol=1e-6, rtol=1e-6)
