"""Attention of several heads: masks of who sees whom, the cache of a decoder, rotary positions.

A mask is boolean, [B, T, S] or [1, T, S]: query t may attend to key s where it is True. Masks
combine by `&`: `causal_mask(L) & document_mask(documents)`.
"""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxgen.arguments import require_integer

_HALF = (jnp.bfloat16, jnp.float16)
_MANY = 2**16  # weights T x S of a head, from which a TPU takes one head after the other


def padding_mask(valid):
    """Every position sees the valid ones: mask[b, t, s] = valid[b, s], of BERT.

    Args:
      valid: [B, L], False or 0 at padding.

    Returns:
      Boolean [B, L, L].

    Raises:
      ValueError: the shape.
    """
    valid = _rows(valid=valid)
    return jnp.broadcast_to(valid[:, None, :] != 0, (*valid.shape, valid.shape[1]))


def causal_mask(length: int):
    """A position sees itself and those before it: mask[0, t, s] = s <= t, of GPT.

    Args:
      length: L.

    Returns:
      Boolean [1, L, L].

    Raises:
      ValueError: length < 1.
    """
    require_integer(length=length, least=1)
    return jnp.tri(length, dtype=bool)[None]


def prefix_mask(target):
    """The source sees the source; the target sees the source and its own past.

    mask[b, t, s] = c[b, s] <= c[b, t] with c = cumsum(target), of Dong et al. 2019 (UniLM, arXiv
    1905.03197) for one source followed by one target.

    Args:
      target: [B, L], 1 or True in the target and 0 in the source, as BERT's segment ids.

    Returns:
      Boolean [B, L, L].

    Raises:
      ValueError: the shape.
    """
    count = jnp.cumsum(_rows(target=target) != 0, axis=1)
    return count[:, None, :] <= count[:, :, None]


def document_mask(documents):
    """A position sees its own document, for several documents packed into one row.

    mask[b, t, s] = documents[b, t] == documents[b, s] != 0

    Args:
      documents: [B, L], the number of each position's document, from 1; 0 is padding, which sees
        nothing and is seen by nothing.

    Returns:
      Boolean [B, L, L], block-diagonal where documents lie side by side.

    Raises:
      ValueError: the shape.
    """
    documents = _rows(documents=documents)
    same = documents[:, :, None] == documents[:, None, :]
    return same & (documents != 0)[:, None, :]


def document_positions(documents):
    """Positions that start from 0 in each document of a row, for documents side by side.

    Args:
      documents: [B, L], as in `document_mask`.

    Returns:
      Integers [B, L]: the distance to the last place where the number changed.

    Raises:
      ValueError: the shape.
    """
    documents = _rows(documents=documents)
    place = jnp.broadcast_to(jnp.arange(documents.shape[1]), documents.shape)
    starts = jnp.diff(documents, axis=1, prepend=0) != 0
    return place - jax.lax.cummax(jnp.where(starts, place, 0), axis=1)


def _rows(**array):
    ((name, x),) = array.items()
    if jnp.ndim(x) != 2:
        raise ValueError(f"{name} {jnp.shape(x)}; expected [B, L]")
    return jnp.asarray(x)


def rotary(x, positions, base: float = 10000.0):
    """Rotates pairs of numbers by angles that grow with the position.

    The pair (x[2i], x[2i + 1]) turns by positions * base^(-2i / H), of Su et al. 2021 (RoFormer,
    arXiv 2104.09864, equation 34). So q . k depends on the difference of positions alone. The pairs
    are neighbours as in the paper; Llama pairs x[i] with x[i + H / 2], which permutes the numbers.

    Args:
      x: queries or keys [B, L, N, H].
      positions: [B, L] or [1, L].
      base: sets the slowest angle.

    Returns:
      [B, L, N, H] in x's dtype; angles are computed in at least f32.

    Raises:
      ValueError: H is odd.
    """
    size = x.shape[-1]
    if size % 2:
        raise ValueError(f"x {x.shape}; expected an even last axis")
    wide = jnp.promote_types(x.dtype, jnp.float32)
    rates = jnp.asarray(base, wide) ** (-jnp.arange(0, size, 2, dtype=wide) / size)
    angles = positions[:, :, None, None].astype(wide) * rates[None, None, None]
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    a, b = x[..., ::2].astype(wide), x[..., 1::2].astype(wide)
    turned = jnp.stack([a * cos - b * sin, a * sin + b * cos], axis=-1)
    return turned.reshape(x.shape).astype(x.dtype)


def dot_product_attention(q, k, v, mask=None, *, fused: bool = True):
    """Attention of several heads; a query that may attend to nothing gets 0.

    out[b, t, n] = sum_s softmax_s(q[b, t, n] . k[b, s, n] / sqrt(H)) v[b, s, n] over the keys s
    that the mask allows, of Vaswani et al. 2017 (arXiv 1706.03762, equation 1).

    Products are in the dtype of q, logits and softmax in at least f32. On CUDA, cuDNN's fused
    kernel does not store the T x S weights; it takes bf16 and f16, H a multiple of 8 up to 128,
    even T and S. On a TPU, from T S = 2^16, one head follows the other, and its weights are
    computed again for the gradient. The choice is made when a program is lowered, and all else gets
    the plain form.

    Args:
      q: [B, T, N, H].
      k: [B, S, N, H].
      v: [B, S, N, H].
      mask: boolean [B, T, S] or [1, T, S], or None: every query sees every key.
      fused: False keeps the plain form everywhere.

    Returns:
      [B, T, N, H] in q's dtype. Gradients are finite and 0 at queries that see nothing.

    Raises:
      ValueError: shapes that do not fit, or a mask that is not boolean.
    """
    if q.ndim != 4 or k.shape != v.shape or k.shape != (q.shape[0], k.shape[1], *q.shape[2:]):
        raise ValueError(
            f"q {q.shape}, k {k.shape}, v {v.shape}; expected [B, T, N, H] and twice [B, S, N, H]"
        )
    b, t, s = q.shape[0], q.shape[1], k.shape[1]
    if mask is not None:
        if mask.dtype != bool or mask.shape not in ((b, t, s), (1, t, s)):
            raise ValueError(
                f"mask {mask.dtype}{list(mask.shape)}; expected bool{[b, t, s]} or bool{[1, t, s]}"
            )
        # cuDNN refuses masks whose axes are 1 for broadcasting.
        mask = jnp.broadcast_to(mask, (b, t, s))[:, None]
    # XLA drops the other forms and what their derivatives would store, inside of a scan as well.
    forms = {"tpu": _by_head} if fused and t * s >= _MANY else {}
    if fused and _cudnn_takes(q, k):
        forms["cuda"] = _cudnn
    if forms:
        out = jax.lax.platform_dependent(q, k, v, mask, **forms, default=_plain)
    else:
        out = _plain(q, k, v, mask)
    if mask is None:
        return out
    return jnp.where(jnp.any(mask[:, 0], axis=-1)[:, :, None, None], out, jnp.zeros_like(out))


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def wide_einsum(spec: str, a, b):
    """`jnp.einsum` of two arrays of one dtype, summed and returned in at least f32.

    The derivative rounds tangents and cotangents to the dtype of a. That of `jnp.einsum` with
    `preferred_element_type` multiplies an f32 cotangent by a bf16 array, on a GPU in f32: slowly.
    """
    wide = jnp.promote_types(a.dtype, jnp.float32)
    return jnp.einsum(spec, a, b, preferred_element_type=wide)


@wide_einsum.defjvp
def _wide_einsum_jvp(spec, primals, tangents):
    (a, b), (da, db) = primals, tangents
    wide = jnp.promote_types(a.dtype, jnp.float32)
    out = jnp.einsum(spec, a, b, preferred_element_type=wide)  # so that a remat policy sees it
    return out, (jnp.einsum(spec, da, b) + jnp.einsum(spec, a, db)).astype(wide)


def _plain(q, k, v, mask):
    """As `jax.nn.dot_product_attention`, whose f16 is for GPUs alone and whose softmax for f32."""
    wide = jnp.promote_types(q.dtype, jnp.float32)
    logits = wide_einsum("btnh,bsnh->bnts", q, k) / math.sqrt(q.shape[-1])
    if mask is not None:
        logits = jnp.where(mask, logits, jnp.finfo(wide).min / 2)  # finite: a row may be empty
    weights = jax.nn.softmax(logits).astype(v.dtype)
    return jnp.einsum("bnts,bsnh->btnh", weights, v)


def _by_head(q, k, v, mask):
    """One head after the other; its T x S weights are computed again for the gradient.

    They are few enough to stay on the chip. The loop is over heads and not over the batch, because
    the batch is split over devices, and slices of it would have to be gathered.
    """

    @jax.checkpoint
    def one(head):
        q, k, v = (x[:, :, None] for x in head)
        return _plain(q, k, v, mask)[:, :, 0]

    heads = tuple(jnp.moveaxis(x, 2, 0) for x in (q, k, v))
    return jnp.moveaxis(jax.lax.map(one, heads), 0, 2)


def _cudnn(q, k, v, mask):
    return jax.nn.dot_product_attention(q, k, v, mask=mask, implementation="cudnn")


def _cudnn_takes(q, k) -> bool:
    """Whether cuDNN is installed and documents q and k as supported, for training too."""
    size = q.shape[-1]
    if q.dtype not in _HALF or size % 8 or size > 128 or q.shape[1] % 2 or k.shape[1] % 2:
        return False
    try:
        jax.eval_shape(_cudnn, q, k, k, None)
    except (RuntimeError, ValueError, NotImplementedError):  # it says so in one of these ways
        return False
    return True


class KVCache(NamedTuple):
    """Keys and values of the tokens so far, of all layers. An argument and a result of decoding.

    Attributes:
      keys: [depth, B, S, N, H]; a beam search reorders axis 1.
      values: [depth, B, S, N, H].
      count: integer scalar, the tokens held, the same for all rows.
    """

    keys: Any
    values: Any
    count: Any


def kv_cache(depth: int, batch: int, length: int, heads: int, size: int, dtype=jnp.float32):
    """An empty `KVCache`.

    Args:
      depth: layers.
      batch: B.
      length: S, the tokens that it can hold.
      heads: N.
      size: H, of one head.
      dtype: that of the network's computation.

    Raises:
      ValueError: a size below 1.
    """
    require_integer(depth=depth, batch=batch, length=length, heads=heads, size=size, least=1)
    empty = jnp.zeros((depth, batch, length, heads, size), dtype)
    return KVCache(empty, jnp.zeros_like(empty), jnp.zeros((), jnp.int32))
