"""The PyTorch twin of benchmarks.variational takes the same steps as ours."""

import math
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

SHAPE, COUNT, STEPS = (16, 8, 3), 6, 2
SMALL = {
    "vae": {"width": 4, "latents": 3},
    "infomax": {"width": 4, "code": 3, "units": 5, "steps": 10**6},
}
# With a large epsilon Adam does not blow up the rounding errors of gradients that are 0.
ADAM = {"lr": 1e-2, "eps": 1e-2}


@pytest.mark.parametrize("name", variational.MODELS)
def test_same_losses_and_updates(name, monkeypatch):
    adam = optax.adam(ADAM["lr"], eps=ADAM["eps"])
    monkeypatch.setattr(optax, "adam", lambda rate: adam)
    model = variational.MODELS[name](**SMALL[name])
    x = jax.random.uniform(jax.random.key(0), (COUNT, *SHAPE))
    counted = jax.jit(partial(variational.initial, model, x))(jax.random.key(1))
    start = jax.device_get(counted.state.params)
    twin = variational_peer.MODELS[name](start, SHAPE)
    optimizer = torch.optim.Adam(twin.parameters(), **ADAM)
    train = variational_peer.trainer(twin, peers.to_torch(x), optimizer)

    drawn = list(twin.draw(peers.to_torch(x)))
    rolls = iter(drawn[1:])
    noise = jnp.asarray(drawn[0].numpy())
    monkeypatch.setattr(jax.random, "normal", lambda *_: noise)
    monkeypatch.setattr(losses, "derange", lambda key, x: jnp.roll(x, next(rolls), axis=0))
    ours = jax.jit(variational.trainer(model))
    for _ in range(STEPS):
        counted, metrics = ours(counted, x)
        np.testing.assert_allclose(train(*drawn), metrics["loss"], rtol=1e-5)
    assert not list(rolls)
    after = jax.device_get(counted.state.params)
    before, after = (
        dict(variational_peer.MODELS[name](params, SHAPE).named_parameters())
        for params in (start, after)
    )
    assert len(after) == len(jax.tree.leaves(start))
    for key, parameter in twin.named_parameters():
        expected = (after[key] - before[key]).detach().numpy()
        actual = (parameter - before[key]).detach().numpy()
        np.testing.assert_allclose(actual, expected, rtol=1e-3, atol=1e-4 * ADAM["lr"])
        assert np.abs(expected).max() > 1e-3 * ADAM["lr"], key


@pytest.mark.parametrize("name", variational.MODELS)
@pytest.mark.parametrize("side", variational.SHAPES)
def test_flops_are_those_of_the_kernels(side, name):
    """Two for every weight at every position that it is moved to."""
    shape, model = variational.SHAPES[side], variational.MODELS[name]()
    x = jax.ShapeDtypeStruct((2, *shape), jnp.float32)
    params = jax.eval_shape(model.init, jax.random.key(0), x).params
    halves = [side, *(math.ceil(side / 2**i) for i in range(1, 9))]
    work = []

    def count(layers, positions, times=1):
        for p, n in zip(layers, positions, strict=True):
            work.append(2 * times * p["kernel"].size * n)

    encoder = params["encoder"]["params"]
    squares = [n**2 for n in halves if n > (7 if name == "vae" else 4)]
    squares.append(halves[len(squares)] ** 2)
    count([encoder["Dense_0"]], [1])
    if name == "vae":
        decoder = params["decoder"]["params"]
        count(peers.in_order(encoder, "ConvDown"), squares[1:])
        count(peers.in_order(encoder, "Conv"), squares[1:])
        count([decoder["Dense_0"]], [1])
        count(peers.in_order(decoder, "ConvUp"), squares[:0:-1])
        count(peers.in_order(decoder, "Conv"), squares[::-1])
    else:
        count(peers.in_order(encoder, "Conv"), [*squares, squares[-1]])
        for own, positions in zip(
            peers.in_order(params["terms"]["params"], "MLP"), (1, squares[-1]), strict=True
        ):
            count(peers.in_order(own, "Dense"), 4 * [positions], times=2)
    layers = model.layers(shape)
    assert sorted(layers) == sorted(work)
    assert layers[0] < 2 * 16 * shape[2] * variational.WIDTH * side**2
