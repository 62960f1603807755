import jax.numpy as jnp
import numpy as np

from jaxgen import losses


def test_packs_hold_neighbours_in_the_channels():
    x = np.random.default_rng(0).standard_normal((6, 2, 3, 4)).astype(np.float32)
    packed = np.asarray(losses.pack(x, 3))
    assert packed.shape == (2, 2, 3, 12)
    expected = [np.concatenate([x[3 * i + j] for j in range(3)], axis=-1) for i in range(2)]
    np.testing.assert_array_equal(packed, expected)
    np.testing.assert_array_equal(losses.pack(x, 1), x)
    assert losses.pack(jnp.ones((4, 2), jnp.uint8), 2).dtype == jnp.uint8
