import jax
import jax.numpy as jnp
import numpy as np
import pytest


@pytest.fixture
def draw():
    """(flow, x, context) -> random params, for at its start almost every layer is the identity."""

    def draw(flow, x, context=None, scale=0.3, seed=0):
        rng = np.random.default_rng(seed)

        def leaf(like):
            return jnp.asarray(scale * rng.standard_normal(like.shape), like.dtype)

        shapes = jax.eval_shape(flow.init, jax.random.key(0), x, context)
        return jax.tree.map(leaf, shapes)

    return draw
