"""Soft top-k, soft sort and soft rank: speed against PyTorch peers and against the hard functions.

    python -m benchmarks.smooth                # everything
    python -m benchmarks.smooth sort           # some cases

What is measured: value and gradient of sum(w * f(x)) for normal scores x [B, n] in f32, with
n = 128, 1000 (B = 32), 10,000 and 100,000 (B = 1). All functions of one row of the tables run in
turn in one process, PyTorch with as many threads as JAX takes. `ratio` is seconds over those of our
function, so > 1 is slower than ours.

top_k     `sigmoid_top_k` and `laplace_top_k` with k = n / 10 and temperature 0.1, against 40 steps
          of bisection in PyTorch (`benchmarks.smooth_peer`) and against the hard `jax.lax.top_k`.
sort      `soft_sort` and `soft_rank` at temperature 1, against torchsort where that is installed
          (C++, pool adjacent violators) and else the same algorithm in NumPy, and against the hard
          `jnp.sort`, which is also our first step. A test holds that the peers compute the same.
compile   Seconds to compile each, persistent cache off.

Results: RESULTS.md.
"""

import statistics
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import lib
from jaxgen import smooth

SHAPES = ((32, 128), (32, 1000), (1, 10_000), (1, 100_000))
ROUNDS = 9


def draw(shape):
    """(scores, weights of the sum), f32."""
    rng = np.random.default_rng(0)
    return tuple(rng.normal(size=shape).astype(np.float32) for _ in range(2))


def ours(function, shape):
    """A function that computes value and gradient and waits for them."""
    x, w = map(jnp.asarray, draw(shape))
    compiled = jax.jit(jax.value_and_grad(lambda x: jnp.sum(function(x) * w)))
    return lambda: jax.block_until_ready(compiled(x))


def theirs(name: str, shape, **arguments):
    """The same in PyTorch, as {name: function}; a row and nothing where it does not work."""
    try:
        import torch  # noqa: PLC0415  PyTorch is optional

        from benchmarks import smooth_peer  # noqa: PLC0415

        torch.set_num_threads(lib.cores())
        x, w = map(torch.from_numpy, draw(shape))
        x.requires_grad_()
        function = partial(getattr(smooth_peer, name), **arguments)

        def run():
            return torch.autograd.grad((function(x) * w).sum(), x)

        run()
    except Exception as error:
        lib.row("peer", name=name, failed=f"{type(error).__name__}: {error}"[:200])
        return {}
    compiled = name != "sigmoid_top_k" and smooth_peer.torchsort is not None
    return {f"{'torchsort' if compiled else 'torch'} {name}": run}


def hard_top_k(k, x):
    """Sum of the k largest, which has a gradient too."""
    return jnp.broadcast_to(jax.lax.top_k(x, k)[0].mean(-1, keepdims=True), x.shape)


def compare(case, shape, reference, functions) -> list[dict]:
    """One row per function."""
    times = lib.in_turn(functions, ROUNDS)
    return [
        lib.row(
            case,
            batch=shape[0],
            n=shape[1],
            name=name,
            milliseconds=1e3 * statistics.median(t),
            **lib.ratio(t, times[reference]),
        )
        for name, t in times.items()
    ]


def top_k_case() -> list[dict]:
    """Soft top-k of both laws."""
    rows = []
    for shape in SHAPES:
        k = shape[1] // 10
        functions = {
            "sigmoid_top_k": ours(partial(smooth.sigmoid_top_k, k=k, temperature=0.1), shape),
            "laplace_top_k": ours(partial(smooth.laplace_top_k, k=k, temperature=0.1), shape),
            "jax.lax.top_k": ours(partial(hard_top_k, k), shape),
            **theirs("sigmoid_top_k", shape, k=k, temperature=0.1),
        }
        rows += compare("top_k", shape, "sigmoid_top_k", functions)
    return rows


def sort_case() -> list[dict]:
    """Soft sort and soft rank."""
    rows = []
    for shape in SHAPES:
        for name in ("soft_sort", "soft_rank"):
            functions = {
                name: ours(partial(getattr(smooth, name), temperature=1.0), shape),
                "jnp.sort": ours(jnp.sort, shape),
                **theirs(name, shape, temperature=1.0),
            }
            rows += compare("sort", shape, name, functions)
    return rows


def compile_case() -> list[dict]:
    """Seconds to compile value and gradient."""
    rows = []
    functions = {
        "sigmoid_top_k": partial(smooth.sigmoid_top_k, k=12),
        "soft_sort": smooth.soft_sort,
        "soft_rank": smooth.soft_rank,
    }
    for shape in (SHAPES[0], SHAPES[-1]):
        for name, function in functions.items():
            seconds = lib.seconds(ours(function, shape))
            rows.append(lib.row("compile", batch=shape[0], n=shape[1], name=name, seconds=seconds))
    return rows


CASES = {"top_k": top_k_case, "sort": sort_case, "compile": compile_case}


if __name__ == "__main__":
    lib.run(CASES, sys.argv[1:])
