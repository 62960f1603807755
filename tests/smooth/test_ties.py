"""Gradients at equal scores: those of the limits from both sides, and a step is no step up."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen import smooth

FIRST = np.array(0)
ONE = {"scale": 1.0}  # the standard deviation has no gradient where all scores are equal
# Differentiable everywhere, but for the hard value of the straight-through form.
SMOOTH = {
    "boltzmann_max": smooth.boltzmann_max,
    "charbonnier": smooth.charbonnier,
    "confusion_counts": lambda x: sum(smooth.confusion_counts(x, jnp.arange(x.size) % 2)),
    "generalized_cross_entropy_loss": lambda x: smooth.generalized_cross_entropy_loss(
        x, jnp.array(0)
    )[None],
    "laplace_top_k, k = 1": partial(smooth.laplace_top_k, k=1),
    "laplace_top_k, k = n / 2": lambda x: smooth.laplace_top_k(x, x.size // 2),
    "mellowmax": smooth.mellowmax,
    "pairwise_rank": smooth.pairwise_rank,
    "sigmoid_top_k, k = 1": partial(smooth.sigmoid_top_k, k=1),
    "sigmoid_top_k, k = n / 2": lambda x: smooth.sigmoid_top_k(x, x.size // 2),
    "smooth_abs": smooth.smooth_abs,
    "smooth_accuracy": lambda x: smooth.smooth_accuracy(x, FIRST),
    "smooth_floor": smooth.smooth_floor,
    "smooth_heaviside": smooth.smooth_heaviside,
    "smooth_max": smooth.smooth_max,
    "smooth_maximum": lambda x: smooth.smooth_maximum(x, x[::-1]),
    "smooth_min": smooth.smooth_min,
    "smooth_minimum": lambda x: smooth.smooth_minimum(x, x[::-1]),
    "smooth_norm": partial(smooth.smooth_norm, temperature=0.1),
    "smooth_relu": smooth.smooth_relu,
    "smooth_round": smooth.smooth_round,
    "smooth_sign": smooth.smooth_sign,
    "soft_argmax": smooth.soft_argmax,
    "soft_one_hot": smooth.soft_one_hot,
    "soft_rank": partial(smooth.soft_rank, **ONE),
    "soft_rank_kl": partial(smooth.soft_rank_kl, **ONE),
}
# With kinks where scores are equal.
KINKED = {
    "soft_permutation": lambda x: smooth.soft_permutation(x).reshape(-1),
    "soft_sort": partial(smooth.soft_sort, **ONE),
    "soft_sort_kl": partial(smooth.soft_sort_kl, **ONE),
}
# With the default scale the functions are discontinuous or have a kink where all are equal.
RELATIVE = {
    "soft_rank, relative": smooth.soft_rank,
    "soft_rank_kl, relative": smooth.soft_rank_kl,
    "soft_sort, relative": smooth.soft_sort,
    "soft_sort_kl, relative": smooth.soft_sort_kl,
}
POINTS = {
    "4 equal": [0.3] * 4,
    "2 pairs": [0.7, 0.0, 0.7, 0.0],
    "far pairs": [-40.0, 40.0, 40.0, -40.0],
    "3 and 1": [0.0, 1.0, 1.0, 1.0],
    "halves": [0.5, 0.5, -0.5, 1.5],
}
H = 1e-6


@pytest.fixture(scope="module")
def measured():
    """{function: {point: (Jacobian, derivatives from the right, from the left, changes by a step)}}

    Two programs for everything: the Jacobians, and the values at 32 places around each point.
    """
    functions = {
        name: lambda x, f=f: jnp.atleast_1d(f(x))
        for name, f in (SMOOTH | KINKED | RELATIVE).items()
    }
    points = np.array(list(POINTS.values()))

    @jax.jit
    def jacobians(points):
        return {name: jax.vmap(jax.jacobian(f))(points) for name, f in functions.items()}

    @jax.jit
    def values(places):
        return {name: jax.vmap(jax.vmap(f))(places[name]) for name, f in functions.items()}

    def changes(steps):
        places = {n: np.zeros((len(points), 33, 4)) + points[:, None] for n in functions}
        for name, step in steps.items():
            places[name][:, 1 : 1 + step.shape[1]] += step
        return {n: np.asarray(v[:, 1:] - v[:, :1]) for n, v in values(places).items()}

    with jax.enable_x64(True):
        slopes = {name: np.asarray(j) for name, j in jacobians(points).items()}
        sides = changes(
            {n: np.tile(H * np.r_[np.eye(4), -np.eye(4)], (5, 1, 1)) for n in functions}
        )
        steps = changes({n: 1e-5 * np.concatenate([j, -j], 1) for n, j in slopes.items()})
    table = {}
    for name, jacobian in slopes.items():
        m = jacobian.shape[1]
        both = np.moveaxis(sides[name], 1, 2) / H
        up, down = (np.diagonal(steps[name][:, i : i + m], axis1=1, axis2=2) for i in (0, m))
        columns = (jacobian, both[:, :, :4], -both[:, :, 4:8], up, down)
        table[name] = dict(zip(POINTS, zip(*columns, strict=True), strict=True))
    return table


@pytest.mark.parametrize("name", SMOOTH)
def test_derivatives_at_ties_are_those_of_both_sides(name, measured):
    for point, (jacobian, right, left, _, _) in measured[name].items():
        np.testing.assert_allclose(right, left, atol=2e-5, err_msg=point)
        np.testing.assert_allclose(jacobian, right, atol=1e-5, err_msg=point)


@pytest.mark.parametrize("name", KINKED)
def test_derivatives_at_kinks_are_between_those_of_both_sides(name, measured):
    """Of pairs; both sides of the middle one of three equal scores are 0, but all three move it."""
    for point in ("2 pairs", "far pairs", "halves"):
        jacobian, right, left, _, _ = measured[name][point]
        assert (jacobian <= np.maximum(left, right) + 1e-5).all(), point
        assert (jacobian >= np.minimum(left, right) - 1e-5).all(), point


@pytest.mark.parametrize("name", SMOOTH | KINKED | RELATIVE)
def test_a_gradient_step_from_ties_does_not_raise_the_loss(name, measured):
    """The loss is plus or minus any entry of the result."""
    for point, (_, _, _, up, down) in measured[name].items():
        assert (up >= -1e-12).all(), point
        assert (down <= 1e-12).all(), point


@pytest.mark.parametrize("f", [smooth.laplace_top_k, smooth.sigmoid_top_k])
def test_top_1_of_two_equal_scores(f):
    """F'(0) / 2 is 1/4 for the Laplace law and 1/8 for the logistic."""
    slope = 0.25 if f is smooth.laplace_top_k else 0.125
    jacobian = jax.jit(jax.jacobian(partial(f, k=1)))(jnp.zeros(2))
    np.testing.assert_allclose(jacobian, [[slope, -slope], [-slope, slope]], rtol=1e-6)


def test_permutation_of_two_equal_scores():
    """Both rows are differentiable there: softmax(-x) and softmax(x)."""
    jacobian = jax.jit(jax.jacobian(smooth.soft_permutation))(jnp.zeros(2))
    first = np.array([[-0.25, 0.25], [0.25, -0.25]])
    np.testing.assert_allclose(jacobian, [first, -first], rtol=1e-6)
