"""Contexts that are not images of floats: integer labels, pytrees, and pixels in bf16."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxgen import flows


class LabelNet(nn.Module):
    """A conditioner that embeds an integer label."""

    features: int

    @nn.compact
    def __call__(self, x, context=None):
        h = nn.tanh(nn.Dense(8)(x) + nn.Embed(5, 8)(context["label"]))
        return nn.Dense(self.features)(h + context["shift"])


def test_integer_labels_under_every_way_to_save_memory(x64):
    x = jax.random.normal(jax.random.key(0), (6, 4), jnp.float64)
    context = {"label": jnp.array([0, 1, 2, 3, 4, 0]), "shift": jnp.ones((6, 8))}
    step = flows.chain(flows.coupling(LabelNet, flows.affine()), flows.reversal())

    def gradients(**memory):
        flow = flows.repeat(step, 3, **memory)
        params = jax.jit(flow.init)(jax.random.key(1), x, context)

        def loss(params, x, shift):
            return flows.log_prob(flow, params, x, context | {"shift": shift}).sum()

        return jax.jit(jax.grad(loss, (0, 1, 2)))(params, x, context["shift"])

    plain = gradients()
    assert all(float(jnp.abs(leaf).max()) > 0 for leaf in jax.tree.leaves(plain))
    for memory in ({"remat": True}, {"reversible": True}):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7),
            plain,
            gradients(**memory),
        )


def test_logit_of_a_white_pixel_in_bf16_is_finite():
    flow = flows.logit(1e-5)
    x = jnp.full((2, 3), 0.999, jnp.bfloat16)
    z, logdet = flow.forward((), x)
    assert z.dtype == jnp.bfloat16
    assert logdet.dtype == jnp.float32
    assert bool(jnp.isfinite(z).all() & jnp.isfinite(logdet).all())
    np.testing.assert_allclose(np.asarray(flow.inverse((), z)[0], np.float32), 0.999, atol=0.01)
