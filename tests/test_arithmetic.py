"""What `ARITHMETIC=bf16` and `tf32` round, and what they leave alone."""

import jax
import jax.numpy as jnp
import pytest

# The smallest step above 1 that each format holds; half of it is rounded away.
STEP = {"f32": 2**-23, "bf16": 2**-7, "tf32": 2**-10}


def dot(x, **precision):
    return jnp.dot(x, jnp.ones(1), **precision)


def convolution(x, **precision):
    ones = jnp.ones((1, 1, 1))
    return jax.lax.conv_general_dilated(x[None, None], ones, (1,), "SAME", **precision)[0, 0, 0]


def one_by_one(f):
    return lambda rows: jnp.stack([f(row) for row in rows])


@pytest.mark.parametrize("product", [dot, convolution])
@pytest.mark.parametrize("over_rows", [one_by_one, jax.vmap])
def test_operands_are_rounded_unless_the_product_asks_for_full_precision(
    product, over_rows, arithmetic
):
    x = jnp.array([[1 + step] for step in STEP.values()])
    rounded = over_rows(product)(x)
    assert (rounded > 1).tolist() == [step >= STEP[arithmetic] for step in STEP.values()]
    exact = over_rows(lambda row: product(row, precision="highest"))(x)
    assert (exact == x[:, 0]).all()


def test_double_precision_is_left_alone(x64):
    assert dot(jnp.array([1 + 2**-40])) == 1 + 2**-40
