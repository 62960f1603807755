"""Fingerprints of a state: they show whether what is read is what was written, bit for bit."""

import jax
import jax.numpy as jnp
from jax import lax


def leaves(state) -> tuple[list, list[str]]:
    """The leaves to write and their names; orbax writes no array of size zero."""
    named = [(jax.tree_util.keystr(path), x) for path, x in jax.tree.leaves_with_path(state)]
    kept = [(f"{name} {x.dtype}{list(x.shape)}", x) for name, x in named if x.size]
    return [x for _, x in kept], [name for name, _ in kept]


def refill(like, written: list):
    """The pytree of the leaves that `leaves` took out."""
    filled = iter(written)
    return jax.tree.map(
        lambda x: next(filled) if x.size else jnp.zeros(x.shape, x.dtype, device=x.sharding), like
    )


@jax.jit
def examine(written):
    """Per leaf: a fingerprint of its bits, and whether all its numbers are finite."""
    prints = jnp.stack([_fingerprint(x) for x in written])
    return prints, jnp.stack([jnp.isfinite(x).all() for x in written])


def _fingerprint(x):
    """Sum of the bits of each number times 2 * its position + 1, modulo 2^32.

    Integers: the order of the sum, hence the sharding, does not matter. Odd weights are invertible
    modulo 2^32: no change of a single number goes unnoticed.
    """
    if x.dtype == jnp.bool_:
        x = x.astype(jnp.uint8)
    width = {1: jnp.uint8, 2: jnp.uint16}.get(x.dtype.itemsize, jnp.uint32)
    bits = lax.bitcast_convert_type(x, width).astype(jnp.uint32)
    place, stride = jnp.uint32(0), 1
    for axis in reversed(range(bits.ndim)):
        place += jnp.uint32(stride % 2**32) * lax.broadcasted_iota(jnp.uint32, bits.shape, axis)
        stride *= bits.shape[axis]
    return jnp.sum(bits * (2 * place + 1), dtype=jnp.uint32)
