"""The steps of `benchmarks.variational` in PyTorch, written the way its users write them."""

import math

import torch
from torch import nn
from torch.nn import functional

from benchmarks import peers


class VAE(nn.Module):
    """Convolutional encoder and decoder, with the optimal variance of the pixels (sigma-VAE).

    Args:
      params: of the encoder and decoder of `benchmarks.variational.vae`: numpy arrays.
      shape: (H, W, C) of the images.
    """

    def __init__(self, params, shape):
        super().__init__()
        ours = params["encoder"]["params"]
        downs, convs = peers.in_order(ours, "ConvDown"), peers.in_order(ours, "Conv")
        wide = len(downs[-1]["bias"])
        self.size = (wide, shape[0] >> len(downs), shape[1] >> len(downs))
        layers: list[nn.Module] = []
        for down, conv in zip(downs, convs, strict=True):
            layers += [peers.conv(down, stride=2), nn.LeakyReLU(0.2, inplace=True)]
            layers += [peers.conv(conv), nn.LeakyReLU(0.2, inplace=True)]
        code = peers.dense_of_image(ours["Dense_0"], self.size)
        self.encoder = nn.Sequential(*layers, nn.Flatten(), code)

        ours = params["decoder"]["params"]
        ups, (*convs, last) = peers.in_order(ours, "ConvUp"), peers.in_order(ours, "Conv")
        start = peers.dense_to_image(ours["Dense_0"], self.size)
        layers = [start, nn.Unflatten(1, self.size), nn.LeakyReLU(0.2, inplace=True)]
        for conv, up in zip(convs, ups, strict=True):
            layers += [peers.conv(conv), nn.LeakyReLU(0.2, inplace=True)]
            layers += [peers.conv_up(up), nn.LeakyReLU(0.2, inplace=True)]
        self.decoder = nn.Sequential(*layers, peers.conv(last))

    def noise(self, x):
        """What the loss of the images x draws: [B, D]."""
        return torch.randn(len(x), self.encoder[-1].out_features // 2, device=x.device)

    def forward(self, x, eps):
        """Negative ELBO: mean over the batch, in nats."""
        mean, log_std = self.encoder(x).chunk(2, dim=1)
        made = self.decoder(mean + log_std.exp() * eps)
        log_sigma = (x - made).square().mean().sqrt().log()
        log_sigma = -6 + functional.softplus(log_sigma + 6)
        error = (x - made) / log_sigma.exp()
        nll = (error.square() / 2 + log_sigma + math.log(2 * math.pi) / 2).sum((1, 2, 3))
        kl = (mean.square() + (2 * log_std).exp() - 1 - 2 * log_std).sum(1) / 2
        return (nll + kl).mean()


MODELS = {"vae": VAE}


def trainer(model, x, optimizer):
    """eps -> loss; one step."""

    def train(eps):
        optimizer.zero_grad()
        loss = model(x, eps)
        loss.backward()
        optimizer.step()
        return loss.item()  # waits for the device

    return train


def step(name: str, params, x, channels_last: bool, compiled: bool):
    """A function that trains for one step of Adam, on the same images and new noise.

    Args:
      name: of the model.
      params: ours, numpy arrays.
      x: numpy array [B, H, W, C].
      channels_last: keep images and kernels in memory as [B, H, W, C].
      compiled: use torch.compile on the loss with its networks.
    """
    where = peers.place(channels_last)
    model = MODELS[name](params, x.shape[1:]).to(**where)
    if compiled:
        model.compile()
    images = peers.to_torch(x).contiguous(memory_format=where["memory_format"])
    images = images.to(where["device"])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    train = trainer(model, images, optimizer)
    return lambda: train(model.noise(images))
