"""Optimizers: time and memory of an update, against the nearest optax optimizer and PyTorch.

    python -m benchmarks.optimizers                   # everything
    python -m benchmarks.optimizers tiger adax        # some cases

What is measured: one donated step (params, state, gradients) -> (params, state), which updates and
applies, on the f32 parameters of a small transformer (PARAMETERS below). A case runs ours and its
peers in turn in one process.

ns          Nanoseconds per parameter and step, median over the rounds. With accumulation, of one
            micro-step, the mean over the K = 4 of a whole window.
ratio       Seconds over those of the case's optax peer in the same round, median and quartiles:
            < 1 is faster than optax.
state       Bytes of the optimizer's state per parameter (4 is one f32 buffer).
plan        Bytes per parameter that XLA plans for the step: arguments + outputs - aliased + temp.
            Parameters, gradients and state are in it, so 12 is the least of an optimizer with
            one buffer.

Lion reads its old average after it has written the new one, which takes a temporary copy; Tiger
makes its step from the new one. The 1.6 bytes over 12 of Tiger are one embedding: XLA's CPU
backend fuses the RMS of its rows with the elementwise operations before it. optax has no lazy rows;
the nearest is Adam, which moves every row. `lazy_rows` selects between old and new moments, so both
are alive for the table. `accumulate` writes its step over the sum; the zero updates of
`hidden_accumulation` and `optax.MultiSteps` are a buffer of their own, whose allocation takes
longer than the sum on a CPU. PyTorch's fused loops are faster than all of these; this was not
profiled.

Results: RESULTS.md.
"""

import statistics
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import lib
from jaxgen import optimizers

K = 4
PARAMETERS: dict[str, tuple[int, ...]] = {
    "embedding": (8192, 512),
    **{f"kernel_{i}": (512, 2048) for i in range(6)},
    **{f"bias_{i}": (2048,) for i in range(6)},
}
SAMPLED = 1024  # rows of the embedding that have a gradient


def parameters() -> dict[str, jax.Array]:
    """Normal, of a scale that networks have."""
    keys = jax.random.split(jax.random.key(0), len(PARAMETERS))
    shapes = zip(keys, PARAMETERS.items(), strict=True)
    return {name: 0.02 * jax.random.normal(key, shape) for key, (name, shape) in shapes}


def gradients() -> dict[str, jax.Array]:
    """Normal; the embedding's are 0 but for the sampled rows."""
    keys = jax.random.split(jax.random.key(1), len(PARAMETERS))
    shapes = zip(keys, PARAMETERS.items(), strict=True)
    tree = {name: 1e-3 * jax.random.normal(key, shape) for key, (name, shape) in shapes}
    return tree | {"embedding": tree["embedding"].at[SAMPLED:].set(0)}


def size() -> int:
    """Number of parameters."""
    return sum(int(np.prod(shape)) for shape in PARAMETERS.values())


def training_step(optimizer: Any) -> Any:
    """(params, state, gradients) -> (params, state), compiled; consumes params and state."""

    def step(params, state, gradients):
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    return jax.jit(step, donate_argnums=(0, 1))


def begin(optimizer: Any):
    """(params, state), no buffer of them twice."""
    params = parameters()
    if isinstance(optimizer, SlowAndFast):
        params = optax.LookaheadParams(params, jax.tree.map(jnp.copy, params))
    return params, optimizer.init(params)


class SlowAndFast(optax.GradientTransformation):
    """optax's lookahead, whose parameters are a pair."""


def runner(optimizer: Any, steps: int) -> Callable[[], Any]:
    """A function that does some steps and waits for them."""
    step, given = training_step(optimizer), gradients()
    params, state = begin(optimizer)

    def run():
        nonlocal params, state
        for _ in range(steps):
            params, state = step(params, state, given)
        jax.block_until_ready((params, state))

    return run


def torch_runner(make: Callable) -> Callable[[], Any]:
    """The same for an optimizer of PyTorch: `make` takes the tensors."""
    import torch  # noqa: PLC0415  PyTorch is optional

    torch.set_num_threads(lib.cores())
    tensors = [torch.nn.Parameter(torch.from_numpy(np.array(p))) for p in parameters().values()]
    for tensor, gradient in zip(tensors, gradients().values(), strict=True):
        tensor.grad = torch.from_numpy(np.array(gradient))
    return make(torch.optim, tensors).step


def memory(optimizer: Any) -> dict[str, float]:
    """Bytes per parameter of the state, and of the whole step as XLA plans it."""
    params, state = jax.eval_shape(lambda: begin(optimizer))
    given = jax.eval_shape(gradients)
    plan: Any = training_step(optimizer).lower(params, state, given).compile().memory_analysis()
    total = plan.argument_size_in_bytes + plan.output_size_in_bytes - plan.alias_size_in_bytes
    held = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))
    if isinstance(optimizer, SlowAndFast):  # the slow weights are among its parameters
        held += 4 * size()
    return {"state": held / size(), "plan": (total + plan.temp_size_in_bytes) / size()}


def is_embedding(params):
    """True for the table."""
    return {name: name == "embedding" for name in params}


ADAM = optax.adam(1e-3)
SGD = optax.scale_by_learning_rate(1e-3)
# Of each case the first is the optax optimizer that the others are held to.
CASES: dict[str, dict[str, Any]] = {
    "tiger": {
        "optax.lion": optax.lion(1e-3, weight_decay=0.01),
        "tiger": optimizers.tiger(1e-3),
        "optax.lamb": optax.lamb(1e-3),
    },
    "adax": {"optax.adam": ADAM, "adax": optimizers.adax(1e-3)},
    "lamb": {"optax.lamb": optax.lamb(1e-3), "lamb": optimizers.lamb(1e-3)},
    "lazy": {
        "optax.adam": ADAM,
        "lazy_updates(adam)": optimizers.lazy_updates(ADAM, is_embedding),
        "lazy_rows(adam)": optimizers.lazy_rows(ADAM, is_embedding),
    },
    "lookahead": {
        "optax.lookahead(adam)": SlowAndFast(*optax.lookahead(ADAM, 5, 0.5)),
        "lookahead(adam)": optimizers.lookahead(ADAM, 5, 0.5),
    },
    "sgld": {
        "optax.noisy_sgd": optax.noisy_sgd(1e-3, key=jax.random.key(2)),
        "sgld": optimizers.sgld(1e-3, 1e-3, jax.random.key(2)),
    },
    "accumulate": {
        "optax.MultiSteps(adam)": optax.MultiSteps(ADAM, K),
        "accumulate(adam)": optimizers.accumulate(ADAM, K),
    },
    "hidden": {
        "optax.MultiSteps(sgd, momentum)": optax.MultiSteps(optax.sgd(1e-3, 0.9), K),
        "hidden_accumulation(sgd)": optimizers.hidden_accumulation(SGD, K, 0.9),
    },
}
PEERS: dict[str, dict[str, Callable]] = {
    "adax": {"torch Adam(fused)": lambda optim, p: optim.Adam(p, 1e-3, fused=True)},
    "hidden": {"torch SGD(momentum, fused)": lambda optim, p: optim.SGD(p, 1e-3, 0.9, fused=True)},
}


def measure(case: str, rounds: int = 15) -> list[dict]:
    """The rows of one case."""
    steps = dict.fromkeys(CASES[case], K if case in ("accumulate", "hidden") else 1)
    runs = {name: runner(CASES[case][name], n) for name, n in steps.items()}
    for name, make in PEERS.get(case, {}).items():
        try:
            runs[name] = torch_runner(make)
        except (ImportError, RuntimeError) as error:
            lib.row(case, name=name, failed=f"{type(error).__name__}: {error}"[:200])
    times = lib.in_turn(runs, rounds)
    per_step = {name: [t / steps.get(name, 1) for t in ts] for name, ts in times.items()}
    reference = per_step[next(iter(CASES[case]))]
    return [
        lib.row(
            case,
            name=name,
            ns=statistics.median(ts) / size() * 1e9,
            **lib.ratio(ts, reference),
            **(memory(CASES[case][name]) if name in CASES[case] else {}),
        )
        for name, ts in per_step.items()
    ]


if __name__ == "__main__":
    lib.run({name: partial(measure, name) for name in CASES}, sys.argv[1:])
