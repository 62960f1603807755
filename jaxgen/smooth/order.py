"""Sorted values, the places of the values among them, and sums over pools of neighbours.

Sorting integers alone takes a CPU a fraction of the time of sorting floats, or of carrying an index
along, so the bits of the floats are sorted as integers and a binary search finds the places.
"""

import jax
import jax.numpy as jnp
from jax import lax


def sort_with_places(x, valid):
    """Returns (x sorted along the last axis, place of each x among them).

    Invalid entries and NaN come last. Equal values share the place of the first of them, and the
    derivative is the mean over their permutations: an entry of the result that is one of m equal
    values depends on each of the m by 1 / m.

    Args:
      x: [..., n], at least f32.
      valid: mask, [..., n].

    Returns:
      [..., n], and integers in [0, n), [..., n].
    """
    # -0 is 0 for the search, too.
    keys = jnp.where(valid & ~jnp.isnan(x), jnp.where(x == 0, 0, x), jnp.inf)
    keys = _integers(lax.stop_gradient(keys))
    keys_sorted = lax.sort(keys, is_stable=False)
    places = _count_smaller(keys_sorted, keys)
    x_sorted = lax.bitcast_convert_type(_flip(keys_sorted), x.dtype)
    return _rearranged(x, x_sorted, places), places


@jax.custom_jvp
def _rearranged(x, x_sorted, places):
    """x_sorted, as a function of x."""
    return x_sorted


@_rearranged.defjvp
def _rearranged_jvp(primals, tangents):
    x, x_sorted, places = primals
    start, start_of_x = run_starts(x_sorted), _flat(places)
    total, count = (sum_runs(values, start_of_x) for values in (tangents[0], jnp.ones_like(x)))
    # Called again, so that the next derivative sees a function of x.
    value = _rearranged(x, x_sorted, places)
    return value, total[start] / jnp.maximum(count[start], 1)


def take(values, places):
    """values [..., n] at places [..., n] along the last axis."""
    return values.reshape(-1)[_flat(places)]


def run_starts(ordered):
    """Where the run of equal numbers that each of `ordered` [..., n] is in starts.

    Returns:
      Indices into the flattened array, [..., n].
    """
    return _flat(_count_smaller(ordered, ordered))


def sum_runs(x, start):
    """Sums of the x with the same `start`, at that index: [x.size]."""
    return jnp.zeros(x.size, x.dtype).at[start.reshape(-1)].add(x.reshape(-1))


def _flat(places):
    n = places.shape[-1]
    row = lax.broadcasted_iota(places.dtype, (places.size // max(n, 1), n), 0)
    return row.reshape(places.shape) * n + places


def _integers(x):
    """Integers in the order of the floats x."""
    return _flip(lax.bitcast_convert_type(x, jnp.int64 if x.dtype.itemsize == 8 else jnp.int32))


def _flip(bits):
    """Negative floats are in descending order of their bits without the sign; its own inverse."""
    return jnp.where(bits < 0, bits ^ jnp.iinfo(bits.dtype).max, bits)


@jax.jit  # outside of jit the loop would recompile every time
def _count_smaller(ordered, keys):
    """Number of the `ordered` [..., n] below each of the keys [..., n]; at most n - 1.

    A loop, because XLA would repeat unrolled steps in all that uses the result.
    """
    n = keys.shape[-1]
    steps = n.bit_length()

    def halve(i, count):
        more = count + jnp.left_shift(1, steps - 1 - i).astype(count.dtype)
        found = take(ordered, jnp.minimum(more, n) - 1)
        return jnp.where((more <= n) & (found < keys), more, count)

    # Not a constant: under shard_map it varies over the devices as the keys do.
    zero = 0 * jnp.isnan(keys)
    return jnp.minimum(lax.fori_loop(0, steps, halve, zero.astype(jnp.int32)), n - 1)
