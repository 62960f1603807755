"""The steps of `benchmarks.variational` in PyTorch, written the way its users write them."""

import math
from typing import Any

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

    def draw(self, x):
        """What the loss of the images x draws: noise [B, D]."""
        return (torch.randn(len(x), self.encoder[-1].out_features // 2, device=x.device),)

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


class ChannelNorm(nn.LayerNorm):
    """`LayerNorm` over the channels of each location of [B, C, H, W]."""

    def forward(self, x):
        """[B, C, H, W] -> [B, C, H, W]."""
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class InfoMax(nn.Module):
    """Deep InfoMax as in kexue.fm post 6024, with the encoder of ours.

    Args:
      params: of `benchmarks.variational.infomax`: numpy arrays.
      shape: (H, W, C) of the images.
    """

    def __init__(self, params, shape):
        super().__init__()
        ours = params["encoder"]["params"]
        convs, norms = peers.in_order(ours, "Conv"), peers.in_order(ours, "LayerNorm")
        stages: list[nn.Module] = []
        for conv, norm in zip(convs, norms, strict=True):
            layer_norm = ChannelNorm(len(norm["scale"]), eps=1e-6)
            peers.fill(layer_norm, norm["scale"], norm["bias"])
            pool = [nn.MaxPool2d(2, ceil_mode=True)] if len(stages) < len(convs) - 2 else []
            activation = nn.LeakyReLU(0.2, inplace=True)
            stages.append(nn.Sequential(peers.conv(conv), *pool, layer_norm, activation))
        self.features = nn.Sequential(*stages[:-2])
        self.more = nn.Sequential(*stages[-2:], nn.AdaptiveMaxPool2d(1), nn.Flatten())
        self.code = peers.dense(ours["Dense_0"])
        whole, local = peers.in_order(params["terms"]["params"], "MLP")
        self.whole, self.local = _critic(whole, nn.Linear), _critic(local, _pointwise)

    def draw(self, x):
        """What the loss of the images x draws: noise [B, D], and the places of the negatives."""
        eps = torch.randn(len(x), self.code.out_features // 2, device=x.device)
        return (eps, *torch.randint(1, len(x), (2,)).tolist())

    def forward(self, x, eps, roll_whole: int, roll_local: int):
        """0.5 global + 1.5 local + 0.01 prior: mean over the batch."""
        features = self.features(2 * x - 1)
        mean, raw = self.code(self.more(features)).chunk(2, dim=1)
        log_std = raw / 10 - 1
        z = mean + log_std.exp() * eps
        prior = (mean.square() + (2 * log_std).exp() - 1 - 2 * log_std).mean() / 2
        whole = _discriminate(self.whole, z, z, roll_whole)
        spread = z[:, :, None, None].expand(-1, -1, *features.shape[2:])
        local = _discriminate(self.local, spread, features, roll_local)
        return 0.5 * whole + 1.5 * local + 0.01 * prior


def _critic(params, layer) -> nn.Sequential:
    """A perceptron with ReLU, of `layer`s."""
    layers: list[nn.Module] = []
    for own in peers.in_order(params, "Dense"):
        made = layer(*own["kernel"].shape)
        peers.fill(made, own["kernel"].T.reshape(made.weight.shape), own["bias"])
        layers += [made, nn.ReLU(inplace=True)]
    return nn.Sequential(*layers[:-1])


def _pointwise(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 1)


def _discriminate(critic, x, y, places: int):
    """Of pairs [x, y], and of [x, y of another image]."""
    real, fake = (critic(torch.cat([x, y], dim=1)) for y in (y, y.roll(places, 0)))
    return (functional.softplus(-real) + functional.softplus(fake)).mean()


MODELS: dict[str, Any] = {"vae": VAE, "infomax": InfoMax}


def trainer(model, x, optimizer):
    """(what the loss draws) -> loss; one step."""

    def train(*drawn):
        optimizer.zero_grad()
        loss = model(x, *drawn)
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
    return lambda: train(*model.draw(images))
