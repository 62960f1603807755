import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.flows import Fixed


def _is_fixed(leaf):
    return isinstance(leaf, Fixed)


@pytest.fixture
def draw():
    """(flow, x, context) -> random params, for at its start almost every layer is the identity."""

    def draw(flow, x, context=None, scale=0.3, seed=0):
        rng = np.random.default_rng(seed)

        def leaf(like):
            if not _is_fixed(like):
                return jnp.asarray(scale * rng.standard_normal(like.shape), like.dtype)
            shape, dtype = like.value.shape, like.value.dtype
            if len(shape) > 1 and shape[-1] == shape[-2]:
                order = np.argsort(rng.random(shape[:-1]), axis=-1)
                return Fixed(jnp.asarray(np.eye(shape[-1])[order], dtype))
            return Fixed(jnp.asarray(rng.choice([-1, 1], shape), dtype))

        shapes = jax.eval_shape(flow.init, jax.random.key(0), x, context)
        return jax.tree.map(leaf, shapes, is_leaf=_is_fixed)

    return draw
