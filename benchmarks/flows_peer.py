"""The Glow steps of `benchmarks.flows` in PyTorch, written the way its users write them."""

import math
from typing import Any

import jax
import numpy as np
import torch
from torch import nn
from torch.nn import functional

from benchmarks import lib


def _tensor(array):
    return torch.from_numpy(np.array(array))


class Step(nn.Module):
    """Actnorm, PLU 1x1 convolution, affine coupling: images [B, C, H, W].

    Args:
      params: those of `chain(actnorm(), invertible_1x1(), coupling(ConvNet, affine()))`.
      limit: bound of the coupling's log-scale.
    """

    def __init__(self, params, limit: float = 2.0):
        super().__init__()
        norm, linear, network = params
        layers = network["params"]
        self.limit = limit
        self.shift = nn.Parameter(_tensor(norm["shift"]).reshape(-1))
        self.log_scale = nn.Parameter(_tensor(norm["log_scale"]).reshape(-1))
        self.lower = nn.Parameter(_tensor(linear["lower"]))
        self.upper = nn.Parameter(_tensor(linear["upper"]))
        self.log_s = nn.Parameter(_tensor(linear["log_s"]))
        first, middle, last = (self._convolution(layers[f"Conv_{i}"]) for i in range(3))
        self.network = nn.Sequential(first, nn.ReLU(), middle, nn.ReLU(), last)

    @staticmethod
    def _convolution(params):
        kernel = _tensor(params["kernel"]).permute(3, 2, 0, 1).contiguous()
        layer = nn.Conv2d(kernel.shape[1], kernel.shape[0], kernel.shape[2:], padding="same")
        layer.weight = nn.Parameter(kernel)
        layer.bias = nn.Parameter(_tensor(params["bias"]))
        return layer

    def forward(self, x):
        """x -> (z, logdet [B])."""
        positions = x.shape[2] * x.shape[3]
        z = (x + self.shift[:, None, None]) * self.log_scale.exp()[:, None, None]
        lower = self.lower.tril(-1) + torch.eye(len(self.log_s), dtype=x.dtype)
        upper = self.upper.triu(1) + torch.diag(self.log_s.exp())
        w = (lower @ upper).flip(0)
        z = functional.conv2d(z, w[:, :, None, None])
        fixed, moved = z.tensor_split([z.shape[1] // 2], dim=1)
        shift, raw_scale = self.network(fixed).chunk(2, dim=1)
        s = self.limit * torch.tanh(raw_scale / self.limit)
        moved = moved * s.exp() + shift
        logdet = positions * (self.log_scale.sum() + self.log_s.sum()) + s.sum((1, 2, 3))
        return torch.cat([fixed, moved], dim=1), logdet


class Glow(nn.Module):
    """Steps one after the other.

    Args:
      params: of `repeat(step, depth)`: a pytree of numpy arrays, stacked.
    """

    def __init__(self, params):
        super().__init__()
        depth = len(jax.tree.leaves(params)[0])
        self.steps = nn.ModuleList(
            Step(jax.tree.map(lambda leaf, i=i: leaf[i], params)) for i in range(depth)
        )

    def forward(self, x):
        """x [B, C, H, W] -> (z, logdet [B])."""
        total = x.new_zeros(len(x))
        for step in self.steps:
            x, logdet = step(x)
            total = total + logdet
        return x, total


def negative_log_likelihood(flow, x):
    """Mean over the batch, in nats, under a standard normal."""
    z, logdet = flow(x)
    log_density = -0.5 * (z**2 + math.log(2 * math.pi))
    return -(log_density.sum((1, 2, 3)) + logdet).mean()


def training_step(params, x, channels_last: bool, compiled: bool):
    """A function that trains for one step of Adam and waits for it.

    Args:
      params: of `repeat(step, depth)`: a pytree of numpy arrays, stacked.
      x: numpy array [B, H, W, C], as ours.
      channels_last: keep tensors in memory as [B, H, W, C].
      compiled: use torch.compile, on one step of flow: all are alike, so it compiles one of them.
    """
    torch.set_num_threads(lib.cores())
    device = {"cpu": "cpu", "gpu": "cuda"}[jax.default_backend()]
    layout = torch.channels_last if channels_last else torch.contiguous_format
    where: dict[str, Any] = {"device": device, "memory_format": layout}
    model = Glow(params).to(**where)
    images = _tensor(x).permute(0, 3, 1, 2).to(device).contiguous(memory_format=layout)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, fused=True)
    if compiled:
        for step in model.steps:
            step.compile()

    def run():
        optimizer.zero_grad()
        loss = negative_log_likelihood(model, images)
        loss.backward()
        optimizer.step()
        return loss.item()  # waits for the device

    return run
