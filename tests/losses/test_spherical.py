"""Hinges of JoSE."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen import losses


def test_values_by_hand():
    cosines = [jnp.array(x) for x in ([0.5, 0.9], [0.2, 0.9], [0.4, -0.5], [0.3, 0.1])]
    np.testing.assert_allclose(losses.joint_hinge_loss(*cosines), [0.15, 0], atol=1e-7)
    word, document = losses.split_hinge_loss(*cosines)
    np.testing.assert_allclose(word, [0.05, 0], atol=1e-7)
    np.testing.assert_allclose(document, [0.25, 0], atol=1e-7)
    np.testing.assert_allclose(losses.joint_hinge_loss(*cosines, margin=2), [2.0, 0], atol=1e-6)


def test_one_hinge_is_at_most_the_two_of_half_its_margin():
    """max(0, a + b) <= max(0, a) + max(0, b)."""
    cosines = np.random.default_rng(0).uniform(-1, 1, (4, 1000))
    joint = losses.joint_hinge_loss(*cosines, margin=0.3)
    split = losses.split_hinge_loss(*cosines, margin=0.15)
    assert np.all(joint <= split.word + split.document + 1e-6)
    assert 0 < np.mean(joint > 0) < 1


def test_slopes_are_of_one_size_where_active():
    slopes = jax.grad(losses.joint_hinge_loss, argnums=(0, 1, 2, 3))(0.1, 0.2, 0.3, 0.1)
    np.testing.assert_array_equal(slopes, [-1, -1, 1, 1])
    slopes = jax.grad(losses.joint_hinge_loss, argnums=(0, 1, 2, 3))(0.9, 0.2, 0.1, 0.1)
    np.testing.assert_array_equal(slopes, [0, 0, 0, 0])
