"""Glow's training step: speed against PyTorch, compile time, memory, and the input pipeline.

    python -m benchmarks.flows                   # everything
    python -m benchmarks.flows compile memory    # some cases

What is measured, on f32 batches [32, 16, 16, 12] and K steps {actnorm, PLU 1x1 convolution, affine
coupling whose network is conv3x3(256) relu conv1x1(256) relu conv3x3} as one `repeat`:

step      One training step (loss, gradient, Adam) of `repeat`, with `remat` and with `reversible`,
          against the same network in PyTorch (`benchmarks.flows_peer`; a test holds that both
          compute the same): as written, with channels_last tensors, and that compiled step by step
          by torch.compile. All run in turn in one process, with as many threads for PyTorch as JAX
          takes. `ratio` is seconds over those of our plain step, so > 1 is slower than ours.
          `utilization` is the step's FLOP/s over those of a 2048^3 matrix product of JAX, timed in
          the same rounds. Its FLOPs are those of the matrix products that the step cannot do
          without: 2 * B * H * W * (9*6*256 + 256*256 + 9*256*12 + 12*12) per step of flow, times 3
          (forward, gradient of the inputs, gradient of the weights). What `remat` and `reversible`
          compute twice is not counted, nor anything elementwise.
compile   Seconds to trace, lower and compile value_and_grad at K = 4 and 32, persistent cache off.
memory    XLA's own plan at K = 8 and 64. `temp` of value_and_grad is what the activations take; the
          whole donated step needs temp + arguments + outputs - aliased, which holds parameters,
          gradients and Adam's moments and so must grow with K. `resident` is what the process grew
          by at the peak of such a step, measured in a process of its own (Linux).
pipeline  Steps per second of experiments/glow.py on its digits, fed by the loop's own pipeline and
          by one batch that is already on the device; also with a network so small that the
          pipeline has to hurry.

Results: RESULTS.md.
"""

import itertools
import statistics
import sys
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import lib
from experiments.glow import Config, build
from experiments.lib import devices
from experiments.lib.batches import batches
from experiments.lib.loop import ahead
from experiments.lib.programs import compile_method
from jaxgen import flows

WIDTH, SHAPE = 256, (32, 16, 16, 12)
MEMORY: dict[str, dict[str, bool]] = {
    "plain": {},
    "remat": {"remat": True},
    "reversible": {"reversible": True},
}
OPTIMIZER = optax.adam(1e-4)


def glow_steps(depth: int, **memory: bool) -> flows.Bijector:
    """Glow at one resolution."""
    network = partial(flows.ConvNet, width=WIDTH)
    step = flows.chain(
        flows.actnorm(), flows.invertible_1x1(), flows.coupling(network, flows.affine())
    )
    return flows.repeat(step, depth, **memory)


def images() -> jax.Array:
    """The batch."""
    return jax.random.normal(jax.random.key(0), SHAPE)


def initial(flow: flows.Bijector):
    """(params, state of Adam)."""
    params = flow.init(jax.random.key(1), images())
    return params, OPTIMIZER.init(params)


def loss_and_gradient(flow: flows.Bijector):
    """(params, x) -> (mean negative log-likelihood, gradient)."""
    return jax.value_and_grad(lambda params, x: -jnp.mean(flows.log_prob(flow, params, x)))


def training_step(flow: flows.Bijector):
    """(state, x) -> (state, loss), compiled; consumes the state."""

    def step(state, x):
        params, moments = state
        loss, gradient = loss_and_gradient(flow)(params, x)
        updates, moments = OPTIMIZER.update(gradient, moments, params)
        return (optax.apply_updates(params, updates), moments), loss

    return jax.jit(step, donate_argnums=0)


def flops(depth: int) -> float:
    """Of the matrix products of one training step, see above."""
    batch, height, width, channels = SHAPE
    half = channels // 2
    weights = 9 * half * WIDTH + WIDTH**2 + 9 * WIDTH * channels + channels**2
    return 3.0 * 2 * batch * height * width * weights * depth


def our_step(depth: int, memory: dict[str, bool]):
    """A function that trains for one step and waits for it."""
    flow = glow_steps(depth, **memory)
    step, x, state = training_step(flow), images(), jax.jit(partial(initial, flow))()

    def run():
        nonlocal state
        state, _ = jax.block_until_ready(step(state, x))

    return run


def torch_steps(depth: int) -> dict:
    """Every way of PyTorch that works here."""
    params, _ = jax.device_get(jax.jit(partial(initial, glow_steps(depth)))())

    def make(channels_last, compiled):
        from benchmarks import flows_peer  # noqa: PLC0415  PyTorch is optional

        return flows_peer.training_step(params, np.array(images()), channels_last, compiled)

    return lib.torch_ways("step", make, depth=depth)


def step_case() -> list[dict]:
    """One training step, ours and PyTorch's."""
    rows = []
    for depth, rounds in ((8, 15), (32, 7)):
        ours = {name: our_step(depth, memory) for name, memory in MEMORY.items()}
        rows += lib.steps("step", {**ours, **torch_steps(depth)}, rounds, flops(depth), depth=depth)
    return rows


def compile_case() -> list[dict]:
    """Seconds to compile, at two depths."""
    shape = jax.ShapeDtypeStruct(SHAPE, jnp.float32)

    def compiler(memory, depth):
        flow = glow_steps(depth, **memory)
        params, _ = jax.eval_shape(partial(initial, flow))

        def run():
            jax.clear_caches()
            jax.jit(loss_and_gradient(flow)).lower(params, shape).compile()

        return run

    rows = []
    for name in ("plain", "reversible"):
        times = lib.in_turn({str(k): compiler(MEMORY[name], k) for k in (4, 32)}, rounds=5)
        rows += [
            lib.row(
                "compile",
                name=name,
                depth=int(k),
                seconds=statistics.median(t),
                **lib.ratio(t, times["4"]),
            )
            for k, t in times.items()
        ]
    return rows


def memory_case() -> list[dict]:
    """Bytes of a training step, at two depths."""
    rows = []
    x = jax.ShapeDtypeStruct(SHAPE, jnp.float32)
    for name, memory in MEMORY.items():
        shallow = None
        for depth in (8, 64):
            flow = glow_steps(depth, **memory)
            state = jax.eval_shape(partial(initial, flow))
            temp = plan(jax.jit(loss_and_gradient(flow)), state[0], x).temp_size_in_bytes
            step = plan(training_step(flow), state, x)
            own = step.output_size_in_bytes - step.alias_size_in_bytes
            shallow = shallow or temp
            rows.append(
                lib.row(
                    "memory",
                    name=name,
                    depth=depth,
                    temp_mib=temp / 2**20,
                    temp_over_depth_8=temp / shallow,
                    arguments_mib=step.argument_size_in_bytes / 2**20,
                    step_mib=(step.temp_size_in_bytes + step.argument_size_in_bytes + own) / 2**20,
                    resident_mib=lib.in_own_process(resident, name, depth),
                )
            )
    return rows


def plan(function, *arguments) -> Any:
    """XLA's memory analysis of a jitted function."""
    return function.lower(*arguments).compile().memory_analysis()


def resident(name: str, depth: int) -> float | None:
    """MiB by which this process grows while it does one training step."""
    flow, x = glow_steps(depth, **MEMORY[name]), images()
    state = jax.block_until_ready(jax.jit(partial(initial, flow))())
    step = training_step(flow).lower(state, x).compile()
    return lib.growth(lambda: jax.block_until_ready(step(state, x)))


def trainer(config: Config, piped: bool, steps: int):
    """A function that trains as the loop does, fed by its pipeline or by one batch."""
    (data, method), mesh = build(config), devices.make_mesh()
    stream = (devices.global_batch(mesh, b) for b in batches(data.train, config.batch_size, 0))
    batch = next(stream)
    programs = compile_method(config, mesh, method, batch)
    feed = ahead(stream) if piped else itertools.repeat(batch)
    state = programs.init(batch)

    def update(batch):
        nonlocal state
        state, metrics = programs.update(state, batch, np.uint32(0))
        return metrics

    def run():
        for metrics in ahead(update(batch) for batch in itertools.islice(feed, steps)):
            jax.device_get(metrics)  # of an older step, as the loop does
        jax.block_until_ready(state)

    return run


def pipeline_case() -> list[dict]:
    """Steps per second with and without the input pipeline."""
    rows = []
    sizes = {"experiment": (Config(), 20), "small": (Config(levels=1, depth=1, width=8), 200)}
    for name, (config, steps) in sizes.items():
        feeds = {"one batch": False, "pipeline": True}
        runs = {feed: trainer(config, piped, steps) for feed, piped in feeds.items()}
        times = lib.in_turn(runs, rounds=9)
        for feed, t in times.items():
            speed = steps / statistics.median(t)
            against = lib.ratio(t, times["one batch"])
            rows.append(
                lib.row("pipeline", name=name, feed=feed, steps_per_second=speed, **against)
            )
    return rows


CASES = {
    "step": step_case,
    "compile": compile_case,
    "memory": memory_case,
    "pipeline": pipeline_case,
}


if __name__ == "__main__":
    lib.run(CASES, sys.argv[1:])
