"""What the PyTorch twins of our networks share: layouts, parameters, the device."""

from typing import Any

import jax
import numpy as np
import torch

from benchmarks import lib


def place(channels_last: bool) -> dict[str, Any]:
    """Device and memory format of networks and images, with as many threads as JAX takes."""
    torch.set_num_threads(lib.cores())
    device = {"cpu": "cpu", "gpu": "cuda"}[jax.default_backend()]
    if device == "cuda":  # as JAX does: TF32, and the fastest convolution of those tried
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.benchmark = True
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return {"device": torch.device(device), "memory_format": layout}


def to_torch(x):
    """Numpy [B, H, W, C] -> tensor [B, C, H, W]."""
    return torch.from_numpy(np.array(x)).permute(0, 3, 1, 2)


def in_order(params, name: str) -> list:
    """Parameters of the layers name_0, name_1, ..."""
    count = sum(key.startswith(f"{name}_") for key in params)
    return [params[f"{name}_{i}"] for i in range(count)]


def fill(layer, weight, bias) -> None:
    """Sets the parameters of a layer."""
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(np.array(weight)))
        layer.bias.copy_(torch.from_numpy(np.array(bias)))


def conv(params, *, stride: int = 1) -> torch.nn.Conv2d:
    """Our convolution, of a kernel [3, 3, I, O] or, with stride 2, [4, 4, I, O]; padding 1."""
    size, _, inputs, outputs = params["kernel"].shape
    layer = torch.nn.Conv2d(inputs, outputs, size, stride, 1)
    fill(layer, params["kernel"].transpose(3, 2, 0, 1), params["bias"])
    return layer


def conv_up(params) -> torch.nn.ConvTranspose2d:
    """Our transposed convolution, of a kernel [4, 4, I, O]."""
    inputs, outputs = params["kernel"].shape[2:]
    layer = torch.nn.ConvTranspose2d(inputs, outputs, 4, 2, 1)
    fill(layer, params["kernel"].transpose(2, 3, 0, 1), params["bias"])
    return layer


def channels_first(w, size):
    """[..., H * W * C] -> [..., C * H * W] for size (C, H, W)."""
    channels, height, width = size
    w = w.reshape(*w.shape[:-1], height, width, channels)
    return np.moveaxis(w, -1, -3).reshape(*w.shape[:-3], -1)


def dense_to_image(params, size) -> torch.nn.Linear:
    """Our dense layer whose outputs are an image of size (C, H, W)."""
    layer = torch.nn.Linear(*params["kernel"].shape)
    fill(layer, channels_first(params["kernel"], size).T, channels_first(params["bias"], size))
    return layer


def dense_of_image(params, size) -> torch.nn.Linear:
    """Our dense layer whose inputs are an image of size (C, H, W)."""
    layer = torch.nn.Linear(*params["kernel"].shape)
    fill(layer, channels_first(params["kernel"].T, size), params["bias"])
    return layer
