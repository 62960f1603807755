"""Every public function under jit, grad, vmap, pmap, shard_map and in f32, bf16 and f64."""

from functools import partial

import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen import smooth


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
    "soft_sort": (partial(smooth.soft_sort, temperature=0.7, where=MASK), spaced),
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
        smooth.straight_through_one_hot,
        lambda x: smooth.smooth_maximum(x, x),
        lambda x: smooth.smooth_minimum(x, x),
    ):
        assert f(x).dtype == kept, f
    for f in (
        smooth.boltzmann_max,
        smooth.mellowmax,
        smooth.pairwise_rank,
        smooth.smooth_max,
        smooth.smooth_min,
        smooth.smooth_norm,
        smooth.soft_argmax,
        smooth.soft_rank,
    ):
        assert f(x).dtype == jnp.float32, f


@pytest.mark.parametrize("name", [name for name in CASES if name not in WITHOUT_TEMPERATURE])
@pytest.mark.parametrize("temperature", [0.0, -1.0])
def test_temperature_must_be_positive(name, temperature):
    function, draw = CASES[name]
    function = getattr(function, "func", function)
    args = draw(np.random.default_rng(0))
    extra = {"k": 2} if name.endswith("top_k") else {}
    with pytest.raises(ValueError, match=rf"^temperature {temperature}; expected a finite"):
        function(*args, temperature=temperature, **extra)
