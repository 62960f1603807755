"""The encoder of Deep InfoMax, for images of any size."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from jaxgen.models.convolution import Conv
from jaxgen.models.dcgan import normalize

_SMALLEST = 4  # the longer side of the feature map, at most


class Encoding(NamedTuple):
    """What an encoder says of images.

    Attributes:
      features: the feature map [B, h, w, C], whose locations see patches of the image.
      code: [B, D], of the whole image.
    """

    features: Any
    code: Any


class InfoMaxEncoder(nn.Module):
    """Convolutions to a feature map of at most 4x4; two more and a maximum over it to a code.

    A stage is a 3x3 convolution, the maximum of 2x2 pixels, the normalization, and leaky ReLU of
    slope 0.2; stages have width, 2 width, 4 width, ... channels, and there is at least one. The
    code comes from two more such convolutions without pooling, the maximum over all locations, and
    a dense layer. With width 64 on 32x32 pixels, it is the encoder of kexue.fm post 6024 (after
    Hjelm et al. 2019, Deep InfoMax, arXiv 1808.06670), except that the post normalizes over batches
    and before the maximum, which costs four times as much.

    The default normalizes the channels of each location. Statistics of the batch would tell a code
    of its batch, which a contrastive loss exploits; statistics of the image would tell each
    location of the whole image, which the local term exploits; and there are none to keep.

    Attributes:
      features: D, the code's size.
      width: channels of the first stage.
      norm: makes a normalization layer, or None; see `jaxgen.models.dcgan`.
    """

    features: int
    width: int = 64
    norm: Callable | None = nn.LayerNorm

    @nn.compact
    def __call__(self, x) -> Encoding:
        """Images [B, H, W, C] -> `Encoding`, computed in x's dtype."""
        if x.ndim != 4:
            raise ValueError(f"x {x.shape}; expected images [B, H, W, C]")
        h, width = x, self.width
        while h is x or max(h.shape[1:3]) > _SMALLEST:
            h = self._activate(max_pool(Conv(width)(h)))
            width *= 2
        features = h
        for _ in range(2):
            h = self._activate(Conv(features.shape[-1])(h))
        start = nn.initializers.lecun_normal()
        code = nn.Dense(self.features, dtype=h.dtype, kernel_init=start)(jnp.max(h, axis=(1, 2)))
        return Encoding(features, code)

    def _activate(self, h):
        return nn.leaky_relu(normalize(self.norm, h), 0.2)


def max_pool(x):
    """Maximum of 2x2 pixels: [B, H, W, C] -> [B, ceil(H / 2), ceil(W / 2), C].

    On a CPU the gradient of `nn.max_pool` takes longer. Equal maxima share the gradient.
    """
    _, h, w, _ = x.shape
    even = ((0, 0), (0, h % 2), (0, w % 2), (0, 0))
    x = jnp.pad(x, even, constant_values=-jnp.inf)
    rows = jnp.maximum(x[:, ::2], x[:, 1::2])
    return jnp.maximum(rows[:, :, ::2], rows[:, :, 1::2])
