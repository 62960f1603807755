"""The PyTorch twins of benchmarks.smooth compute the same functions as ours."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen import smooth

torch = pytest.importorskip("torch", reason="the comparison with PyTorch needs torch")

from benchmarks import smooth_peer  # noqa: E402  it imports torch


@pytest.mark.parametrize(
    ("ours", "theirs", "arguments"),
    [
        (smooth.soft_sort, smooth_peer.soft_sort, {}),
        (smooth.soft_rank, smooth_peer.soft_rank, {}),
        (smooth.sigmoid_top_k, smooth_peer.sigmoid_top_k, {"k": 4}),
    ],
)
@pytest.mark.parametrize("temperature", [0.1, 2.0])
def test_same_values_and_gradients(ours, theirs, arguments, temperature):
    arguments = {**arguments, "temperature": temperature}
    x = np.random.default_rng(0).normal(size=(3, 20)).astype(np.float32)
    w = np.cos(np.arange(20, dtype=np.float32))
    twin_x = torch.tensor(x, requires_grad=True)
    twin = theirs(twin_x, **arguments)
    (slope,) = torch.autograd.grad((twin * torch.from_numpy(w)).sum(), twin_x)
    np.testing.assert_allclose(ours(x, **arguments), twin.detach(), rtol=1e-4, atol=1e-3)
    expected = jax.grad(lambda x: (ours(x, **arguments) * jnp.asarray(w)[None]).sum())(x)
    np.testing.assert_allclose(slope, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())
