"""Residual generator and critic of WGAN-GP and SNGAN for images of any size.

Gulrajani et al. 2017 (arXiv 1704.00028, appendix C), Miyato et al. 2018 (SNGAN, arXiv 1802.05957,
appendix B.4), with `width` channels at every resolution. `norm` as in `jaxgen.models.dcgan`.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from jaxgen.models.convolution import Conv
from jaxgen.models.dcgan import normalize, project
from jaxgen.models.mlp import join
from jaxgen.models.resampling import doublings


def double(x):
    """Repeat every pixel in a 2x2 block: [B, H, W, C] -> [B, 2H, 2W, C]."""
    return x.repeat(2, axis=1).repeat(2, axis=2)


def halve(x):
    """Average blocks of 2x2 pixels: [B, H, W, C] -> [B, H / 2, W / 2, C]."""
    b, h, w, c = x.shape
    return jnp.mean(x.reshape(b, h // 2, 2, w // 2, 2, c), axis=(2, 4))


class ResidualBlock(nn.Module):
    """norm, relu, conv 3x3, norm, relu, conv 3x3, plus a shortcut; both may change the size.

    Attributes:
      features: channels out.
      before: changes the size before the first convolution, such as `double`; or None.
      after: changes the size after the second convolution, such as `halve`; or None.
      norm: makes a normalization layer, or None.
      raw: leave out the first norm and relu, for a block whose input is an image.
    """

    features: int
    before: Callable | None = None
    after: Callable | None = None
    norm: Callable | None = None
    raw: bool = False

    @nn.compact
    def __call__(self, x):
        """[B, H, W, I] -> [B, H', W', features]."""
        before, after = self.before or _same, self.after or _same
        h = x if self.raw else nn.relu(normalize(self.norm, x))
        h = Conv(self.features)(before(h))
        h = after(Conv(self.features)(nn.relu(normalize(self.norm, h))))
        if x.shape[-1] == self.features and h.shape == x.shape:
            return x + h
        # A 1x1 convolution commutes with a change of size, so it runs on the smaller image.
        return before(Conv(self.features, size=1)(after(x))) + h


def _same(x):
    return x


class ResidualGenerator(nn.Module):
    """Dense layer, blocks that double the size, norm, relu, conv 3x3, tanh.

    Attributes:
      shape: (H, W, C) of the images.
      width: channels.
      norm: makes a normalization layer, or None.
    """

    shape: tuple[int, int, int]
    width: int = 256
    norm: Callable | None = None

    @nn.compact
    def __call__(self, z, context=None):
        """z [B, D], context [B, K] or None (joined to z) -> images [B, H, W, C] in [-1, 1]."""
        height, width, channels = self.shape
        count = doublings(self.shape)
        h = join(z, context)
        size = (height // 2**count, width // 2**count, self.width)
        h = nn.Dense(size[0] * size[1] * self.width, dtype=h.dtype)(h).reshape(-1, *size)
        for _ in range(count):
            h = ResidualBlock(self.width, before=double, norm=self.norm)(h)
        return jnp.tanh(Conv(channels)(nn.relu(normalize(self.norm, h))))


class ResidualCritic(nn.Module):
    """Blocks that halve the size to 8 or less, two more blocks, relu, pooling, linear layer.

    Attributes:
      width: channels.
      pool: reduces the pixels, called with `axis`: `jnp.mean` (WGAN-GP) or `jnp.sum` (SNGAN).
      norm: makes a normalization layer, or None.
    """

    width: int = 128
    pool: Callable = jnp.mean
    norm: Callable | None = None

    @nn.compact
    def __call__(self, x, context=None) -> Any:
        """Images [B, H, W, C], context [B, K] or None -> raw scores [B], higher is more real."""
        h = x
        changes = [*[halve] * doublings(x.shape[1:], smallest=8), None, None]
        for level, change in enumerate(changes):
            h = ResidualBlock(self.width, after=change, norm=self.norm, raw=not level)(h)
        return project(self.pool(nn.relu(h), axis=(1, 2)), context)
