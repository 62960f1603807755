"""The turns of training of `benchmarks.gans` in PyTorch, written the way its users write them."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import nn

from benchmarks import peers
from benchmarks.peers import to_torch

ADAM = partial(torch.optim.Adam, lr=2e-4, betas=(0.5, 0.99), fused=True)


class Generator(nn.Module):
    """DCGAN's, with batch normalization: z [B, D] -> images [B, C, H, W].

    Args:
      params: of `jaxgen.models.DCGANGenerator`: a pytree of numpy arrays.
      shape: (H, W, C) of the images.
    """

    def __init__(self, params, shape):
        super().__init__()
        ups = peers.in_order(params, "ConvUp")
        norms = peers.in_order(params, "BatchNorm")
        wide = ups[0]["kernel"].shape[2]
        self.size = (wide, shape[0] >> len(ups), shape[1] >> len(ups))
        self.dense = peers.dense_to_image(params["Dense_0"], self.size)
        layers: list[nn.Module] = []
        for norm, up in zip(norms, ups, strict=True):
            batch_norm = nn.BatchNorm2d(len(norm["scale"]), momentum=0.01)
            peers.fill(batch_norm, norm["scale"], norm["bias"])
            layers += [batch_norm, nn.ReLU(inplace=True), peers.conv_up(up)]
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
        downs = peers.in_order(params, "ConvDown")
        layers: list[nn.Module] = []
        for down in downs:
            layers += [peers.conv(down, stride=2), nn.LeakyReLU(0.2, inplace=True)]
        size = (len(downs[-1]["bias"]), shape[0] >> len(downs), shape[1] >> len(downs))
        score = peers.dense_of_image(params["score"], size)
        self.layers = nn.Sequential(*layers, nn.Flatten(), score)

    def forward(self, x):
        """Raw scores."""
        return self.layers(x).squeeze(1)


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
    where = peers.place(channels_last)
    players = Players(GAMES[name], critic, generator, real.shape[2:], **where)
    if compiled:
        players.critic.compile()
        players.generator.compile()
    images = [to_torch(x).contiguous(memory_format=where["memory_format"]) for x in real]
    images = [x.to(where["device"]) for x in images]
    count, noise = real.shape[1], players.generator.dense.in_features

    def run():
        z = torch.randn(2, count, noise, device=where["device"])
        alpha = torch.rand(count, 1, 1, 1, device=where["device"])
        metrics = players.play(images, z, alpha)
        return metrics["generator_loss"].item()  # waits for the device

    return run
