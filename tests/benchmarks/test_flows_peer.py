"""The PyTorch twin of benchmarks.flows computes the same function as ours."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen import flows

torch = pytest.importorskip("torch", reason="the comparison with PyTorch needs torch")

from benchmarks.flows_peer import Glow, negative_log_likelihood  # noqa: E402  it imports torch

DEPTH = 3


@pytest.fixture
def flow():
    """Steps as in the benchmark, but narrow."""
    step = flows.chain(
        flows.actnorm(),
        flows.invertible_1x1(),
        flows.coupling(partial(flows.ConvNet, width=16), flows.affine()),
    )
    return flows.repeat(step, DEPTH)


@pytest.fixture
def case(flow):
    """Parameters where nothing is zero, and a batch whose height and width differ."""
    x = jax.random.normal(jax.random.key(0), (5, 4, 6, 8))
    params = flow.init(jax.random.key(1), x)
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(2), len(leaves))
    noisy = [p + 0.1 * jax.random.normal(k, p.shape) for p, k in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(tree, noisy), x


def to_torch(x):
    return torch.from_numpy(np.array(x)).permute(0, 3, 1, 2)


def close(actual, expected):
    actual, expected = actual.detach().numpy(), np.asarray(expected)
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_same_output_and_logdet(flow, case):
    params, x = case
    z, logdet = flow.forward(params, x)
    twin_z, twin_logdet = Glow(jax.tree.map(np.asarray, params))(to_torch(x))
    close(twin_z.permute(0, 2, 3, 1), z)
    close(twin_logdet, logdet)


def test_same_loss_and_gradients(flow, case):
    params, x = case
    loss, gradient = jax.value_and_grad(lambda params: -jnp.mean(flows.log_prob(flow, params, x)))(
        params
    )
    twin = Glow(jax.tree.map(np.asarray, params))
    twin_loss = negative_log_likelihood(twin, to_torch(x))
    twin_loss.backward()
    close(twin_loss, loss)
    # Our gradient, laid out as the twin's parameters.
    expected = dict(Glow(jax.tree.map(np.asarray, gradient)).named_parameters())
    names = [name for name, _ in twin.named_parameters()]
    assert len(names) == 11 * DEPTH
    for name, parameter in twin.named_parameters():
        assert expected[name].abs().max() > 0, name
        close(parameter.grad, expected[name].detach())
