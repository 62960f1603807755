"""Steps of a few rows of a large table of unit vectors; the other rows are not touched."""

import jax.numpy as jnp

from jaxgen.arguments import require


def add_to_unit_rows(table, rows, steps, counts, limit: float):
    """Adds steps to some rows of a table of unit vectors, and retracts them to the sphere.

    x_r <- (x_r + s_r) / |x_r + s_r|,   s_r = min(1, limit / n_r) sum_{i: rows_i = r} steps_i,
    n_r = sum_{i: rows_i = r} counts_i

    A sequential program takes each step from where the last one led. A batch takes all of them from
    one place, and a frequent word would be pushed by hundreds of steps that all point the same way.
    So a row moves as by `limit` average steps, if it has more.

    Time and temporary memory are O(N d), besides one integer for each row of the table. A caller
    that is compiled with a donated table updates it in place.

    Args:
      table: x, [V, d], unit vectors.
      rows: integers [N], in any order and repeated; a row out of 0 ... V - 1 is ignored.
      steps: [N, d], usually tangent to the sphere at x and scaled by the learning rate.
      counts: n, [N], at least 0: how many single steps each of `steps` is the sum of.
      limit: the largest number of steps by which a row moves, > 0.

    Returns:
      [V, d], in the table's dtype. A row with x + s = 0 becomes 0.

    Raises:
      ValueError: the shapes do not fit, rows are no integers, or limit is not above 0.
    """
    table, rows, steps, counts = map(jnp.asarray, (table, rows, steps, counts))
    require(above=0, limit=limit)
    if table.ndim != 2 or steps.shape != (*rows.shape, table.shape[1]) or rows.ndim != 1:
        raise ValueError(
            f"table {table.shape}, rows {rows.shape}, steps {steps.shape}; expected [V, d], [N] and"
            " [N, d]"
        )
    if counts.shape != rows.shape:
        raise ValueError(f"counts {counts.shape}; expected {rows.shape}, the shape of rows")
    if not jnp.issubdtype(rows.dtype, jnp.integer):
        raise ValueError(f"rows {rows.dtype}; expected integers")
    wide = jnp.promote_types(table.dtype, jnp.float32)
    size, places = len(table), jnp.arange(len(rows), dtype=jnp.int32)
    rows = jnp.where((rows >= 0) & (rows < size), rows, size)
    # Of all places with the same row, the last one collects what the others bring.
    last = jnp.zeros(size, jnp.int32).at[rows].max(places, mode="drop")
    last = last.at[rows].get(mode="fill", fill_value=0)
    known = rows < size
    steps = jnp.where(known[:, None], steps.astype(wide), 0)
    total = jnp.zeros_like(steps).at[last].add(steps)
    counts = jnp.where(known, counts.astype(wide), 0)
    count = jnp.zeros_like(counts).at[last].add(counts)
    shrink = jnp.minimum(1, limit / jnp.maximum(count, jnp.finfo(wide).tiny))
    moved = table.at[rows].get(mode="clip").astype(wide) + shrink[:, None] * total
    square = jnp.sum(moved**2, axis=1, keepdims=True)
    unit = moved / jnp.sqrt(jnp.where(square == 0, 1, square))
    return table.at[jnp.where(last == places, rows, size)].set(
        unit.astype(table.dtype), mode="drop"
    )
