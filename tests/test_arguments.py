"""The checks that every room uses."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.arguments import as_float, at_least_f32, require


@pytest.mark.parametrize(
    ("limits", "good", "bad", "expected"),
    [
        ({"above": 0}, [1e-30, 5], [0, -1], "> 0"),
        ({"least": 1}, [1, 2.5], [0.999], ">= 1"),
        ({"least": 0, "most": 1}, [0, 1, 0.5], [-1e-9, 1.5], ">= 0 and <= 1"),
        ({"above": -1, "most": 1}, [-0.5, 1], [-1, 2], "> -1 and <= 1"),
    ],
)
def test_a_number_out_of_its_range_is_named(limits, good, bad, expected):
    for value in good:
        require(**limits, tau=value)
        require(**limits, tau=np.array([value, value]))
    for value in [*bad, float("nan"), float("inf"), -float("inf")]:
        message = re.escape(f"tau {value}; expected a finite number {expected}")
        with pytest.raises(ValueError, match=f"^{message}$"):
            require(**limits, tau=value)
        with pytest.raises(ValueError, match=r"^tau"):
            require(**limits, sigma=good[0], tau=jnp.array([good[0], value]))


def test_what_is_traced_passes_and_what_is_not_is_checked_at_trace_time():
    def f(tau, static):
        require(above=0, tau=tau, static=static)
        return tau

    assert jax.jit(f, static_argnums=1)(-1.0, 1) == -1
    with pytest.raises(ValueError, match=r"^static -1"):
        jax.jit(f, static_argnums=1)(1.0, -1)


@pytest.mark.parametrize(
    ("given", "wide"),
    [
        (jnp.bfloat16, jnp.float32),
        (jnp.float16, jnp.float32),
        (jnp.float32, jnp.float32),
        (jnp.int32, jnp.float32),
        (jnp.bool, jnp.float32),
        (jnp.float64, jnp.float64),
    ],
)
def test_at_least_f32(given, wide, x64):
    assert at_least_f32(jnp.ones(3, given)).dtype == wide


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (jnp.bfloat16, jnp.bfloat16),
        (jnp.float32, jnp.float32),
        (jnp.float64, jnp.float64),
        (jnp.complex64, jnp.complex64),
        (jnp.int8, jnp.float32),
        (jnp.int64, jnp.float32),
        (jnp.bool, jnp.float32),
    ],
)
def test_as_float(given, expected, x64):
    assert as_float(jnp.ones(3, given)).dtype == expected
