"""BERT and its kin: an encoder or decoder of stacked attention layers, and its masked-LM head.

Devlin et al. 2018 (BERT, arXiv 1810.04805); Liu et al. 2019 (RoBERTa, arXiv 1907.11692) differs by
`offset`, Radford et al. 2018 (GPT) by the mask. Parameters of all layers are stacked on a first
axis of length `depth`, and one `lax.scan` runs them, so a deep network compiles as fast as one
layer. An optimizer that looks at each matrix, such as LAMB, has to look along that axis.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.models.attention import KVCache, dot_product_attention, rotary, wide_einsum

_START = nn.initializers.truncated_normal(0.02)


def _dense(features: int, dtype, name: str) -> Callable:
    """A dense layer over the last axis, as one product of two matrices forwards and backwards."""
    layer = nn.Dense(features, dtype=dtype, kernel_init=_START, name=name)
    return lambda x: layer(x.reshape(-1, x.shape[-1])).reshape(*x.shape[:-1], features)


def _norm(epsilon: float, dtype, name: str) -> nn.LayerNorm:
    """Statistics in at least f32, and the variance as a mean of squared differences."""
    return nn.LayerNorm(epsilon, dtype, use_fast_variance=False, name=name)


def _gelu(x):
    return nn.gelu(x, approximate=False)


class Layer(nn.Module):
    """Attention and a feed-forward network, each with dropout, a residual and LayerNorm.

    Post-LN: x <- LN(x + f(x)). Pre-LN: x <- x + f(LN(x)). Attributes as in `Transformer`.
    """

    heads: int
    hidden: int
    pre_norm: bool
    rotary: bool
    dropout: float
    epsilon: float
    dtype: Any
    fused: bool
    train: bool

    @nn.compact
    def __call__(self, x, stored, mask, positions, count):
        """x [B, T, D], one layer's (keys, values) or None -> x, the longer (keys, values) or None.

        The form of `lax.scan`: a carry, then what differs between layers, then what does not.
        """
        first, second = (
            _norm(self.epsilon, self.dtype, f"{part}_norm") for part in ("attention", "output")
        )
        drop = nn.Dropout(self.dropout, deterministic=not self.train)
        h, stored = self._attend(first(x) if self.pre_norm else x, stored, mask, positions, count)
        x = x + drop(h)
        x = x if self.pre_norm else first(x)
        h = second(x) if self.pre_norm else x
        h = _dense(x.shape[-1], self.dtype, "down")(_gelu(_dense(self.hidden, self.dtype, "up")(h)))
        x = x + drop(h)
        return x if self.pre_norm else second(x), stored

    def _attend(self, x, stored, mask, positions, count):
        width = x.shape[-1]
        q, k, v = (
            _dense(width, self.dtype, name)(x).reshape(*x.shape[:2], self.heads, -1)
            for name in ("query", "key", "value")
        )
        if self.rotary:
            q, k = rotary(q, positions), rotary(k, positions)
        if stored is not None:
            k, v = stored = tuple(
                jax.lax.dynamic_update_slice_in_dim(old, new.astype(old.dtype), count, axis=1)
                for old, new in zip(stored, (k, v), strict=True)
            )
        out = dot_product_attention(q, k.astype(q.dtype), v.astype(q.dtype), mask, fused=self.fused)
        return _dense(width, self.dtype, "out")(out.reshape(x.shape)), stored


class Transformer(nn.Module):
    """Token ids to hidden states: BERT-base by default.

    Embeddings of token, position and segment -> LN -> dropout -> `depth` layers of attention and
    GELU network (the exact GELU, x Phi(x)). With `pre_norm` the LN follows the layers instead of
    the embeddings. Dropout is on embeddings and before each residual. BERT also drops attention
    weights; here they are never stored (see `dot_product_attention`).

    Attributes:
      vocab: token ids are below it; others give NaN.
      depth: layers.
      width: D.
      heads: they divide D.
      hidden: units of the feed-forward network.
      length: rows of the table of positions; unused with `rotary`.
      segments: rows of the table of segments; 0 for none.
      offset: added to positions. RoBERTa's first is padding id + 1, and `length` counts these.
      pre_norm: LayerNorm inside the residual, which trains deep networks without warm-up.
      rotary: positions turn queries and keys, see `jaxgen.models.attention.rotary`; no table.
      dropout: probability in [0, 1), at training.
      epsilon: of LayerNorm; 1e-12 is BERT's, 1e-5 RoBERTa's.
      dtype: of products and activations. Parameters, statistics of LN and softmax are in f32.
      remat: what a layer stores for its gradient: None for everything, or a policy such as
        `jax.checkpoint_policies.nothing_saveable`, and the rest is computed again.
      unroll: layers per step of the scan.
      fused: False for plain attention on every device, see `dot_product_attention`.
    """

    vocab: int
    depth: int = 12
    width: int = 768
    heads: int = 12
    hidden: int = 3072
    length: int = 512
    segments: int = 2
    offset: int = 0
    pre_norm: bool = False
    rotary: bool = False
    dropout: float = 0.1
    epsilon: float = 1e-12
    dtype: Any = jnp.float32
    remat: Callable | None = None
    unroll: int = 1
    fused: bool = True

    def setup(self):
        """Tables that the head shares."""
        self.token = nn.Embed(self.vocab, self.width, embedding_init=_START)

    @nn.compact
    def __call__(self, ids, *, segments=None, positions=None, mask=None, cache=None, train=False):
        """Token ids [B, T] -> hidden states [B, T, D] in `dtype`; with a cache, (hidden, cache).

        Args:
          ids: integers [B, T].
          segments: integers [B, T], or None for zeros.
          positions: integers [B, T], or None for 0, 1, ..., after the tokens in the cache.
          mask: boolean [B, T, S] or [1, T, S], see `jaxgen.models.attention`. None lets every
            position see every other, or, with a cache, the past.
          cache: a `KVCache` of S tokens, to which these T are added, or None. One that cannot hold
            them gives NaN. A mask may allow any of its tokens, these T included.
          train: apply dropout, with the key `rngs={"dropout": key}`.

        Raises:
          ValueError: shapes that do not fit, or more tokens than positions.
        """
        self._check(ids, segments, positions, mask, cache)
        length = ids.shape[1]
        count = jnp.zeros((), jnp.int32) if cache is None else cache.count
        if positions is None:
            positions = count + jnp.arange(length)[None]
        if cache is not None:
            size = cache.keys.shape[2]
            slots = jnp.arange(size)
            if mask is None:
                mask = slots[None, None] <= (count + jnp.arange(length))[None, :, None]
            mask = mask & (slots < count + length)[None, None]
        x = self._embed(ids, segments, positions)
        x = x.astype(self.dtype) if self.pre_norm else _norm(self.epsilon, self.dtype, "norm")(x)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        stored = None if cache is None else (cache.keys, cache.values)
        x, stored = self._layers(train)(x, stored, mask, positions, count)
        if self.pre_norm:
            x = _norm(self.epsilon, self.dtype, "norm")(x)
        if cache is None:
            return x
        x = jnp.where(count + length <= size, x, jnp.full_like(x, jnp.nan))
        return x, KVCache(stored[0], stored[1], count + length)

    def _layers(self, train):
        body = Layer
        if self.remat is not None:
            body = nn.remat(Layer, policy=self.remat, prevent_cse=self.unroll > 1)
        stack = nn.scan(
            body,
            variable_axes={"params": 0},
            split_rngs={"params": True, "dropout": True},
            in_axes=(0, nn.broadcast, nn.broadcast, nn.broadcast),
            length=self.depth,
            unroll=self.unroll,
        )
        settings = ("heads", "hidden", "pre_norm", "rotary", "dropout", "epsilon", "dtype", "fused")
        return stack(**{name: getattr(self, name) for name in settings}, train=train, name="layers")

    def _embed(self, ids, segments, positions):
        """In f32, for the gradient of a row is a sum over all its tokens."""
        table = partial(nn.Embed, features=self.width, embedding_init=_START)
        x = self.token(ids)
        if not self.rotary:
            rows = table(self.length, name="position")(positions + self.offset)
            x = x + jnp.broadcast_to(rows, x.shape)
        if self.segments:
            segments = jnp.zeros_like(ids) if segments is None else segments
            x = x + table(self.segments, name="segment")(segments)
        return x

    def _check(self, ids, segments, positions, mask, cache):
        if ids.ndim != 2 or not jnp.issubdtype(ids.dtype, jnp.integer):
            raise ValueError(f"ids {ids.dtype}{list(ids.shape)}; expected integers [B, T]")
        if self.width % self.heads:
            raise ValueError(f"width {self.width}; expected a multiple of heads {self.heads}")
        if segments is not None and (segments.shape != ids.shape or not self.segments):
            expected = f"{ids.shape} as ids" if self.segments else "None, for there is no table"
            raise ValueError(f"segments {segments.shape}; expected {expected}")
        if positions is not None and positions.shape != ids.shape:
            raise ValueError(f"positions {positions.shape}; expected {ids.shape} as ids")
        if mask is not None and mask.ndim != 3:
            raise ValueError(f"mask {mask.shape}; expected [B, T, S] or [1, T, S]")
        most = self.length - self.offset
        if positions is None and not self.rotary and ids.shape[1] > most:
            raise ValueError(f"ids {ids.shape}; expected at most {most} tokens")
        if cache is not None:
            b, s = ids.shape[0], cache.keys.shape[2]
            shape = (self.depth, b, s, self.heads, self.width // self.heads)
            if cache.keys.shape != shape:
                raise ValueError(f"cache {cache.keys.shape}; expected {shape}")
            if mask is not None and mask.shape[2] != s:
                raise ValueError(f"mask {mask.shape}; expected [B, T, {s}], as in the cache")
            if ids.shape[1] > s:
                raise ValueError(f"ids {ids.shape}; expected at most {s} tokens, as in the cache")


class MaskedLM(nn.Module):
    """A transformer with the head that predicts tokens: hidden states to logits.

    logits = E LN(gelu(W h + c)) + bias, where E is the transformer's own table of tokens. The same
    head serves for GPT's objective.

    Attributes:
      transformer: a `Transformer`; its parameters are in "transformer".
    """

    transformer: Transformer

    @nn.compact
    def __call__(self, ids, at=None, **inputs):
        """Token ids [B, T] -> logits in f32; with a cache, (logits, cache).

        Args:
          ids: integers [B, T].
          at: integers [B, K], the positions whose logits are wanted, for the head costs more than
            several layers; None for all T. One that is not in the row gives NaN.
          **inputs: of `Transformer`: segments, positions, mask, cache, train.

        Returns:
          [B, K, vocab], or [B, T, vocab].

        Raises:
          ValueError: as `Transformer`, or the shape of `at`.
        """
        if at is not None and (at.ndim != 2 or at.shape[0] != ids.shape[0]):
            raise ValueError(f"at {at.shape}; expected [{ids.shape[0]}, K]")
        base = self.transformer
        h = base(ids, **inputs)
        h, cache = h if inputs.get("cache") is not None else (h, None)
        if at is not None:
            h = jnp.take_along_axis(h, at[:, :, None], axis=1, mode="fill")
        h = _norm(base.epsilon, base.dtype, "norm")(
            _gelu(_dense(base.width, base.dtype, "dense")(h))
        )
        table = base.token.embedding.astype(base.dtype)
        logits = wide_einsum("nd,vd->nv", h.reshape(-1, base.width), table)
        bias = self.param("bias", nn.initializers.zeros, (base.vocab,)).astype(logits.dtype)
        logits = logits.reshape(*h.shape[:2], -1) + bias[None, None]
        return logits if cache is None else (logits, cache)
