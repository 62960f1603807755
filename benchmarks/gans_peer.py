"""The turns of training of `benchmarks.gans` in PyTorch, written the way its users write them."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
import torch
from torch import nn

from benchmarks import lib

ADAM = partial(torch.optim.Adam, lr=2e-4, betas=(0.5, 0.99), fused=True)


class Generator(nn.Module):
    """DCGAN's, with batch normalization: z [B, D] -> images [B, C, H, W].

    Args:
      params: of `jaxgen.models.DCGANGenerator`: a pytree of numpy arrays.
      shape: (H, W, C) of the images.
    """

    def __init__(self, params, shape):
        super().__init__()
        ups = _in_order(params, "ConvUp")
        norms = _in_order(params, "BatchNorm")
        wide = ups[0]["kernel"].shape[2]
        self.size = (wide, shape[0] >> len(ups), shape[1] >> len(ups))

        def channels_first(w):  # [..., H * W * C] -> [..., C * H * W]
            channels, height, width = self.size
            w = w.reshape(*w.shape[:-1], height, width, channels)
            return np.moveaxis(w, -1, -3).reshape(*w.shape[:-3], -1)

        dense = params["Dense_0"]
        noise, pixels = dense["kernel"].shape
        self.dense = nn.Linear(noise, pixels)
        _fill(self.dense, channels_first(dense["kernel"]).T, channels_first(dense["bias"]))
        layers: list[nn.Module] = []
        for norm, up in zip(norms, ups, strict=True):
            inputs, outputs = up["kernel"].shape[2:]
            batch_norm = nn.BatchNorm2d(inputs, momentum=0.01)
            _fill(batch_norm, norm["scale"], norm["bias"])
            convolution = nn.ConvTranspose2d(inputs, outputs, 4, 2, 1)
            _fill(convolution, up["kernel"].transpose(2, 3, 0, 1), up["bias"])
            layers += [batch_norm, nn.ReLU(inplace=True), convolution]
        self.layers = nn.Sequential(*layers, nn.Tanh())

    def forward(self, z):
        """Images in [-1, 1]."""
        return self.layers(self.dense(z).view(-1, *self.size))


class Critic(nn.Module):
    """DCGAN's, without normalization: images [B, C, H, W] -> scores [B].

    Args:
      params: of `jaxgen.models.DCGANCritic`: a pytree of numpy arrays.
      shape: (H, W, C) of the images.
    """

    def __init__(self, params, shape):
        super().__init__()
        downs = _in_order(params, "ConvDown")
        layers: list[nn.Module] = []
        for down in downs:
            inputs, outputs = down["kernel"].shape[2:]
            convolution = nn.Conv2d(inputs, outputs, 4, 2, 1)
            _fill(convolution, down["kernel"].transpose(3, 2, 0, 1), down["bias"])
            layers += [convolution, nn.LeakyReLU(0.2, inplace=True)]
        kernel = params["score"]["kernel"]
        score = nn.Linear(len(kernel), 1)
        height, width = shape[0] >> len(downs), shape[1] >> len(downs)
        kernel = kernel.reshape(height, width, -1).transpose(2, 0, 1)
        _fill(score, kernel.reshape(1, -1), params["score"]["bias"])
        self.layers = nn.Sequential(*layers, nn.Flatten(), score)

    def forward(self, x):
        """Raw scores."""
        return self.layers(x).squeeze(1)


def _in_order(params, name: str) -> list:
    count = sum(key.startswith(name) for key in params)
    return [params[f"{name}_{i}"] for i in range(count)]


def _fill(layer, weight, bias) -> None:
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(np.array(weight)))
        layer.bias.copy_(torch.from_numpy(np.array(bias)))


class Game(NamedTuple):
    """What the players minimise.

    Attributes:
      critic: (v_real, v_fake, real, fake) -> scalar.
      generator: (v_fake, function of no arguments that scores the real images) -> scalar.
      penalty: of the norms [B] of the critic's gradient at points in between, or None -> scalar.
      weight: of the penalty.
    """

    critic: Callable
    generator: Callable
    penalty: Callable | None = None
    weight: float = 0.0


def _wasserstein(v_real, v_fake, real, fake):
    return v_fake.mean() - v_real.mean()


def _qp(v_real, v_fake, real, fake, slope: float = 10.0):
    delta = v_real - v_fake
    distance = (real - fake).square().mean((1, 2, 3)).sqrt()
    return (delta.square() / (2 * slope * distance) - delta).mean()


def _fake_alone(v_fake, score_real):
    return -v_fake.mean()


GAMES = {
    "gp": Game(_wasserstein, _fake_alone, lambda norm: (norm - 1).square().mean(), 10.0),
    "div": Game(_wasserstein, _fake_alone, lambda norm: norm.pow(6).mean(), 2.0),
    "qp": Game(_qp, lambda v_fake, score_real: (score_real() - v_fake).mean()),
}


class Players:
    """Critic, generator, their optimizers, and the running average of the generator.

    Args:
      game: one of `GAMES`.
      critic: parameters of ours.
      generator: likewise.
      shape: (H, W, C) of the images.
      optimizer: parameters -> optimizer.
      where: device and memory format.
    """

    def __init__(self, game: Game, critic, generator, shape, optimizer=ADAM, **where: Any):
        self.game = game
        self.critic = Critic(critic, shape).to(**where)
        self.generator = Generator(generator, shape).to(**where)
        self.average = Generator(generator, shape).to(**where).requires_grad_(False)
        self.of_critic = optimizer(self.critic.parameters())
        self.of_generator = optimizer(self.generator.parameters())
        self.turns = 0

    def play(self, real, z, alpha) -> dict[str, torch.Tensor]:
        """One turn.

        Args:
          real: images [2, B, C, H, W], for the critic and for the generator.
          z: noise [2, B, D], likewise.
          alpha: [B, 1, 1, 1], where between fake and real the penalty looks.

        Returns:
          critic_loss, penalty, generator_loss.
        """
        metrics = self._update_critic(real[0], z[0], alpha)
        return {**metrics, "generator_loss": self._update_generator(real[1], z[1])}

    def _update_critic(self, real, z, alpha):
        with torch.no_grad():
            fake = self.generator(z)
        value = self.game.critic(self.critic(real), self.critic(fake), real, fake)
        penalty = torch.zeros_like(value)
        if self.game.penalty:
            points = torch.lerp(fake, real, alpha).requires_grad_()
            score = self.critic(points).sum()
            (slope,) = torch.autograd.grad(score, points, create_graph=True)
            penalty = self.game.penalty(slope.flatten(1).norm(dim=1))
        self.of_critic.zero_grad()
        (value + self.game.weight * penalty).backward()
        self.of_critic.step()
        return {"critic_loss": value.detach(), "penalty": penalty.detach()}

    def _update_generator(self, real, z):
        def score_real():
            with torch.no_grad():
                return self.critic(real)

        self.critic.requires_grad_(False)
        loss = self.game.generator(self.critic(self.generator(z)), score_real)
        self.of_generator.zero_grad()
        loss.backward()
        self.of_generator.step()
        self.critic.requires_grad_(True)
        self._average()
        return loss.detach()

    @torch.no_grad()
    def _average(self):
        self.turns += 1
        decay = min(0.999, self.turns / (9 + self.turns))

        def tensors(module):  # batch statistics too, but not the count of batches
            return [t for t in module.state_dict().values() if t.is_floating_point()]

        torch._foreach_lerp_(tensors(self.average), tensors(self.generator), 1 - decay)


def turn(name: str, critic, generator, real, channels_last: bool, compiled: bool):
    """A function that trains for one turn, on the same images and new noise, and waits for it.

    Args:
      name: of the game.
      critic: parameters of ours, numpy arrays.
      generator: likewise.
      real: numpy array [2, B, H, W, C].
      channels_last: keep images and kernels in memory as [B, H, W, C].
      compiled: use torch.compile on both networks; it has no double backward.
    """
    torch.set_num_threads(lib.cores())
    device = {"cpu": "cpu", "gpu": "cuda"}[jax.default_backend()]
    if device == "cuda":  # as JAX does: TF32, and the fastest convolution of those tried
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.benchmark = True
    layout = torch.channels_last if channels_last else torch.contiguous_format
    shape = real.shape[2:]
    players = Players(
        GAMES[name], critic, generator, shape, device=torch.device(device), memory_format=layout
    )
    if compiled:
        players.critic.compile()
        players.generator.compile()
    images = [to_torch(x).to(device).contiguous(memory_format=layout) for x in real]
    count, noise = real.shape[1], players.generator.dense.in_features

    def run():
        z = torch.randn(2, count, noise, device=device)
        alpha = torch.rand(count, 1, 1, 1, device=device)
        metrics = players.play(images, z, alpha)
        return metrics["generator_loss"].item()  # waits for the device

    return run


def to_torch(x):
    """Numpy [B, H, W, C] -> tensor [B, C, H, W]."""
    return torch.from_numpy(np.array(x)).permute(0, 3, 1, 2)
