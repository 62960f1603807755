"""Multilayer perceptron, and `join`, by which the networks here take their context."""

from collections.abc import Callable, Sequence
from functools import partial

import flax.linen as nn
import jax.numpy as jnp

from jaxgen.arguments import as_float


def join(x, context):
    """Concatenate `context` to x on the last axis.

    Args:
      x: [B, D], or an image [B, H, W, C].
      context: None, which returns x, or an array that agrees with x on all axes but the last. For
        an image it may also be a vector [B, K], which is broadcast to all positions, or an image
        [B, sH, sW, K] of a finer scale, whose s x s blocks become channels; so one context serves
        every level of a flow.

    Returns:
      x with the context's channels appended; integers and booleans become f32.

    Raises:
      ValueError: the shapes do not fit.
    """
    x = as_float(x)
    if context is None:
        return x
    if context.ndim == 2 and x.ndim == 4 and context.shape[0] == x.shape[0]:
        context = jnp.broadcast_to(context[:, None, None, :], (*x.shape[:3], context.shape[-1]))
    elif context.ndim == 4 and x.ndim == 4 and context.shape[:3] != x.shape[:3]:
        b, h, w, _ = x.shape
        scale = context.shape[1] // h
        if scale and context.shape[:3] == (b, scale * h, scale * w):
            blocks = context.reshape(b, h, scale, w, scale, -1).transpose(0, 1, 3, 2, 4, 5)
            context = blocks.reshape(b, h, w, -1)
    if context.shape[:-1] != x.shape[:-1]:
        raise ValueError(
            f"context {context.shape} does not fit x {x.shape}: expected the same leading axes, "
            "[B, K], or an image whose sides are a multiple of x's"
        )
    return jnp.concatenate([x, context.astype(x.dtype)], axis=-1)


class MLP(nn.Module):
    """Dense layers with an activation between them.

    Attributes:
      features: units out.
      hidden: units of each hidden layer.
      activation: applied between the layers.
      final: applied to the output; None for a linear output.
      last_init: initializer of the last kernel; the other kernels start by He's rule. The
        conditioner of a coupling should start at zero, so that the coupling is the identity:
        `nn.initializers.zeros`.
      bias_init: initializer of the hidden biases.
    """

    features: int
    hidden: Sequence[int] = (256, 256)
    activation: Callable = nn.relu
    final: Callable | None = None
    last_init: Callable = nn.initializers.lecun_normal()
    bias_init: Callable = nn.initializers.zeros

    @nn.compact
    def __call__(self, x, context=None):
        """[B, D], context [B, K] or None -> [B, features].

        Computed in x's dtype. Parameters have the dtype of the x that `init` gets, at least f32.
        """
        h = join(x, context)
        wide = jnp.promote_types(h.dtype, jnp.float32)
        layer = partial(nn.Dense, dtype=h.dtype, param_dtype=wide)
        for width in self.hidden:
            he = nn.initializers.he_normal()
            h = self.activation(layer(width, kernel_init=he, bias_init=self.bias_init)(h))
        h = layer(self.features, kernel_init=self.last_init)(h)
        return h if self.final is None else self.final(h)
