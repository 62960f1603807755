"""Every public function under all transformations, in every dtype, and of NaN, of nothing, of far
from 0."""

import functools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen import smooth


def rng():
    return np.random.default_rng(0)


@functools.cache
def jitted(name):
    return jax.jit(CASES[name][0])


def scores(rng):
    return (rng.normal(size=(2, 5)),)


def spaced(rng):
    """Rounding to bf16 must not bring two scores together: pools would change."""
    return (rng.permuted(np.arange(10.0).reshape(2, 5), axis=1) + 0.1 * rng.normal(size=(2, 5)),)


def two_scores(rng):
    return rng.normal(size=5), rng.normal(size=5)


def classes(rng):
    return rng.normal(size=(3, 4)), rng.integers(0, 4, 3)


def binary(rng):
    return rng.uniform(size=(6, 2)), rng.integers(0, 2, (6, 2))


MASK = np.array([True, True, False, True, True])
CASES = {
    "boltzmann_max": (partial(smooth.boltzmann_max, where=MASK), scores),
    "charbonnier": (smooth.charbonnier, scores),
    "confusion_counts": (smooth.confusion_counts, binary),
    "f_beta_counts": (partial(smooth.f_beta_counts, beta=2.0), binary),
    "f_beta_score": (lambda p, t: smooth.f_beta_score(smooth.f_beta_counts(p, t)), binary),
    "generalized_cross_entropy_loss": (smooth.generalized_cross_entropy_loss, classes),
    "laplace_top_k": (partial(smooth.laplace_top_k, k=2, where=MASK), scores),
    "mellowmax": (partial(smooth.mellowmax, where=MASK), scores),
    "pairwise_rank": (partial(smooth.pairwise_rank, where=MASK), scores),
    "sigmoid_top_k": (partial(smooth.sigmoid_top_k, k=2, where=MASK), scores),
    "smooth_abs": (smooth.smooth_abs, scores),
    "smooth_accuracy": (smooth.smooth_accuracy, classes),
    "smooth_floor": (partial(smooth.smooth_floor, temperature=0.3), scores),
    "smooth_heaviside": (smooth.smooth_heaviside, scores),
    "smooth_max": (partial(smooth.smooth_max, where=MASK), scores),
    "smooth_maximum": (smooth.smooth_maximum, two_scores),
    "smooth_min": (partial(smooth.smooth_min, where=MASK), scores),
    "smooth_minimum": (smooth.smooth_minimum, two_scores),
    "smooth_norm": (partial(smooth.smooth_norm, where=MASK), scores),
    "smooth_relu": (smooth.smooth_relu, scores),
    "smooth_round": (partial(smooth.smooth_round, temperature=0.3), scores),
    "smooth_sign": (smooth.smooth_sign, scores),
    "soft_argmax": (partial(smooth.soft_argmax, where=MASK), scores),
    "soft_one_hot": (partial(smooth.soft_one_hot, where=MASK), scores),
    "soft_permutation": (partial(smooth.soft_permutation, where=MASK), spaced),
    "soft_rank": (partial(smooth.soft_rank, temperature=1.5, where=MASK), spaced),
    "soft_rank_kl": (partial(smooth.soft_rank_kl, temperature=1.5, where=MASK), spaced),
    "soft_sort": (partial(smooth.soft_sort, temperature=0.7, where=MASK), spaced),
    "soft_sort_kl": (partial(smooth.soft_sort_kl, temperature=0.7, where=MASK), spaced),
    "straight_through_one_hot": (partial(smooth.straight_through_one_hot, where=MASK), spaced),
}

WITHOUT_TEMPERATURE = ("f_beta_counts", "f_beta_score", "generalized_cross_entropy_loss")


@pytest.mark.parametrize("name", CASES)
def test_works_everywhere(name, works_everywhere):
    works_everywhere(*CASES[name])


def test_every_public_function_is_tested():
    functions = {name for name in smooth.__all__ if name.islower()}
    assert functions == set(CASES)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32, jnp.int32])
def test_dtype_that_comes_back(dtype):
    """The input's where the shape is the input's; at least f32 for reductions and ranks."""
    x = jnp.arange(4).astype(dtype)
    kept = dtype if jnp.issubdtype(dtype, jnp.floating) else jnp.float32
    for f in (
        smooth.charbonnier,
        partial(smooth.laplace_top_k, k=2),
        partial(smooth.sigmoid_top_k, k=2),
        smooth.smooth_abs,
        smooth.smooth_floor,
        smooth.smooth_heaviside,
        smooth.smooth_relu,
        smooth.smooth_round,
        smooth.smooth_sign,
        smooth.soft_one_hot,
        smooth.soft_permutation,
        smooth.soft_sort,
        smooth.soft_sort_kl,
        smooth.straight_through_one_hot,
        lambda x: smooth.smooth_maximum(x, x),
        lambda x: smooth.smooth_minimum(x, x),
    ):
        assert jax.eval_shape(f, x).dtype == kept, f
    for f in (
        smooth.boltzmann_max,
        smooth.mellowmax,
        smooth.pairwise_rank,
        smooth.smooth_max,
        smooth.smooth_min,
        smooth.smooth_norm,
        smooth.soft_argmax,
        smooth.soft_rank,
        smooth.soft_rank_kl,
    ):
        assert jax.eval_shape(f, x).dtype == jnp.float32, f


ROW = np.zeros((2, 5), bool)
ROW[0] = MASK
ENTRY = np.zeros((2, 5), bool)
ENTRY[0, 0] = True
# What becomes NaN if the first entry of the first argument is: (values, gradients).
SPREADS = {
    **dict.fromkeys(CASES, (ENTRY, ENTRY)),
    **dict.fromkeys(("smooth_maximum", "smooth_minimum"), (ENTRY[0], ENTRY[0])),
    **dict.fromkeys(
        ("laplace_top_k", "sigmoid_top_k", "soft_one_hot", "straight_through_one_hot"),
        (ROW, ROW),
    ),
    **dict.fromkeys(("pairwise_rank", "soft_rank", "soft_rank_kl"), (ROW, ROW)),
    **dict.fromkeys(("soft_sort", "soft_sort_kl"), (ROW[:, [0, 1, 3, 4, 2]], ROW)),
    "soft_permutation": (ROW[:, [0, 1, 3, 4, 2], None] & ROW[:, None], ROW),
    **dict.fromkeys(
        ("boltzmann_max", "mellowmax", "smooth_max", "smooth_min", "smooth_norm", "soft_argmax"),
        (ROW[:, 0], ROW),
    ),
    **dict.fromkeys(
        ("generalized_cross_entropy_loss", "smooth_accuracy"),
        (np.arange(3) == 0, (np.arange(3) == 0)[:, None] & np.ones(4, bool)),
    ),
    "confusion_counts": (np.arange(2) == 0, np.arange(12).reshape(6, 2) == 0),
    "f_beta_counts": (np.arange(2) == 0, np.zeros((6, 2), bool)),  # linear: its slope is constant
    "f_beta_score": (np.arange(2) == 0, np.arange(12).reshape(6, 2) % 2 == 0),
}


def weighted_sum(tree):
    """With unequal weights: the plain sum of a softmax has no gradient."""
    weigh = lambda x: jnp.sum(x * jnp.cos(jnp.arange(1.0, x.size + 1)).reshape(x.shape))  # noqa: E731
    return sum(map(weigh, jax.tree.leaves(tree)))


@pytest.mark.parametrize("name", CASES)
def test_nan_is_not_hidden(name):
    """NaN is in all that depends on it, and in nothing else; masked, it is in nothing."""
    function, draw = CASES[name]
    x, *rest = (np.asarray(a, np.float32 if a.dtype.kind == "f" else int) for a in draw(rng()))
    x[(0,) * x.ndim] = np.nan
    if "where" in getattr(function, "keywords", {}):
        x[1, 2] = np.nan

    def total(x):
        value = function(x, *rest)
        return weighted_sum(value), value

    slope, value = jax.jit(jax.grad(total, has_aux=True))(x)
    values, slopes = SPREADS[name]
    for leaf in jax.tree.leaves(value):
        np.testing.assert_array_equal(np.isnan(leaf), values)
    np.testing.assert_array_equal(np.isnan(slope), slopes)


@pytest.mark.parametrize("name", CASES)
def test_integers_and_booleans_are_the_floats_that_they_equal(name):
    draw = CASES[name][1]
    args = draw(rng())
    labels = [args[1]] if draw is classes else []
    for dtype in (np.int32, np.uint8, np.bool):
        whole = [np.abs(a).round().astype(dtype) for a in args[: len(args) - len(labels)]]
        floats = [a.astype(np.float32) for a in whole]
        for a, b in zip(
            *(jax.tree.leaves(jitted(name)(*x, *labels)) for x in (whole, floats)), strict=True
        ):
            assert a.dtype == jnp.float32
            np.testing.assert_array_equal(a, b)


FAR = {  # what a shift of the scores changes: 0, nothing; 1, the result by as much
    "boltzmann_max": 1,
    "generalized_cross_entropy_loss": 0,
    "laplace_top_k": 0,
    "mellowmax": 1,
    "pairwise_rank": 0,
    "sigmoid_top_k": 0,
    "smooth_accuracy": 0,
    "smooth_max": 1,
    "smooth_maximum": 1,
    "smooth_min": 1,
    "smooth_minimum": 1,
    "soft_argmax": 0,
    "soft_one_hot": 0,
    "soft_permutation": 0,
    "soft_rank": 0,
    "soft_rank_kl": 0,
    "soft_sort": 1,
    "soft_sort_kl": 1,
    "straight_through_one_hot": 0,
}


def test_scores_far_from_0_lose_no_digits():
    """f32 of scores near 1e4 against f64 of the same numbers near 0, cold."""
    kept = (*WITHOUT_TEMPERATURE, "soft_rank", "soft_rank_kl", "soft_sort", "soft_sort_kl")
    cold = lambda name: {} if name in kept else {"temperature": 0.03}  # noqa: E731

    def everything(scores, y, labels):
        def run(name):
            function, draw = CASES[name]
            rest = {classes: (labels,), two_scores: (y,)}.get(draw, ())
            return lambda x: function(x, *rest, **cold(name))

        values = {name: run(name)(scores) for name in FAR}
        slopes = {n: jax.grad(lambda x, n=n: weighted_sum(run(n)(x)))(scores) for n in FAR}
        return values, slopes

    x = np.float32(1e4 + rng().normal(0, 0.05, (2, 2, 5)))
    labels = np.array([1, 4])
    actual = jax.jit(everything)(x[0], x[1], labels)
    with jax.enable_x64(True):
        expected = jax.jit(everything)(*(np.float64(x) - 1e4), labels)
    expected = jax.tree.map(np.asarray, expected)
    for name, moves in FAR.items():
        value = expected[0][name]
        value = value + 1e4 * moves * (value != 0)  # masked places of a sort are 0
        np.testing.assert_allclose(actual[0][name], value, rtol=1e-5, atol=1e-6, err_msg=name)
        slope = expected[1][name]
        atol = 1e-5 * np.abs(slope).max()
        np.testing.assert_allclose(actual[1][name], slope, rtol=1e-5, atol=atol, err_msg=name)


@pytest.mark.parametrize(
    "name", [n for n, (_, d) in CASES.items() if d is not classes and not n.endswith("top_k")]
)
def test_no_scores(name):
    """Nothing comes out of nothing, or what comes out where everything is masked."""
    function, draw = CASES[name]
    function = getattr(function, "func", function)
    args = [a[..., :0] if a.ndim == draw(rng())[0].ndim else a for a in draw(rng())]
    value = function(*args)
    nothing = {"smooth_min": np.inf, "smooth_norm": 1e-6, "soft_argmax": 0.0}
    for leaf in jax.tree.leaves(value):
        np.testing.assert_allclose(leaf, nothing.get(name, -np.inf))
