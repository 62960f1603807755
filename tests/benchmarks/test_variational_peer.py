"""The PyTorch twin of benchmarks.variational takes the same steps as ours."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from benchmarks import variational
from jaxgen import losses

torch = pytest.importorskip("torch", reason="the comparison with PyTorch needs torch")

from benchmarks import peers, variational_peer  # noqa: E402  they import torch

SHAPE, COUNT, STEPS, WIDTH, LATENTS = (16, 8, 3), 6, 2, 4, 3
# With a large epsilon Adam does not blow up the rounding errors of gradients that are 0.
ADAM = {"lr": 1e-2, "eps": 1e-2}


def test_same_losses_and_updates(monkeypatch):
    monkeypatch.setattr(variational, "OPTIMIZER", optax.adam(ADAM["lr"], eps=ADAM["eps"]))
    model = variational.vae(WIDTH, LATENTS)
    x = 0.5 * jax.random.normal(jax.random.key(0), (COUNT, *SHAPE))
    state = jax.jit(partial(variational.initial, model, x))(jax.random.key(1))
    start = jax.device_get(state.params)
    twin = variational_peer.VAE(start, SHAPE)
    optimizer = torch.optim.Adam(twin.parameters(), **ADAM)
    train = variational_peer.trainer(twin, peers.to_torch(x), optimizer)
    ours = jax.jit(variational.trainer(model))
    for i in range(STEPS):
        state, loss = ours(state, x)
        key = jax.random.fold_in(jax.random.key(2), i)
        eps = losses.reparameterize(key, jnp.zeros((COUNT, LATENTS)), 0.0)
        np.testing.assert_allclose(train(torch.from_numpy(np.array(eps))), loss, rtol=1e-5)
    assert twin.noise(peers.to_torch(x)).shape == (COUNT, LATENTS)
    before, after = (
        dict(variational_peer.VAE(params, SHAPE).named_parameters())
        for params in (start, jax.device_get(state.params))
    )
    assert len(after) == len(jax.tree.leaves(start))
    for name, parameter in twin.named_parameters():
        expected = (after[name] - before[name]).detach().numpy()
        actual = (parameter - before[name]).detach().numpy()
        np.testing.assert_allclose(actual, expected, rtol=1e-3, atol=1e-4 * ADAM["lr"])
        assert np.abs(expected).max() > 0.1 * ADAM["lr"], name


@pytest.mark.parametrize("side", variational.SHAPES)
def test_flops_are_those_of_the_kernels(side):
    """Two for every weight at every position that it is moved to."""
    shape, model = variational.SHAPES[side], variational.vae()
    x = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    params = jax.eval_shape(model.init, jax.random.key(0), x)
    encoder, decoder = (params[name]["params"] for name in ("encoder", "decoder"))
    sides = [side // 2 ** (i + 1) for i in range(len(peers.in_order(encoder, "ConvDown")))]
    work = [2 * net["Dense_0"]["kernel"].size for net in (encoder, decoder)]
    for name, net, positions in (
        ("ConvDown", encoder, sides),
        ("Conv", encoder, sides),
        ("ConvUp", decoder, sides[::-1]),
        ("Conv", decoder, [*sides[::-1], side]),
    ):
        layers = peers.in_order(net, name)
        work += [2 * p["kernel"].size * s**2 for p, s in zip(layers, positions, strict=True)]
    assert sorted(model.layers(shape)) == sorted(work)
    assert model.layers(shape)[0] == 2 * 16 * shape[2] * variational.WIDTH * (side // 2) ** 2
