"""The one training loop: a plain function around the pure functions of a method."""

import collections
import contextlib
import importlib.metadata
import os
import pathlib
import platform
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from experiments.lib import devices, workdir
from experiments.lib.checkpoints import Checkpoints
from experiments.lib.config import RunConfig
from experiments.lib.data import Images, batches, first_batch, test_batches
from experiments.lib.errors import DivergedError, UserError
from experiments.lib.logs import Logs
from experiments.lib.pictures import save_png
from experiments.lib.programs import Programs, compile_method, judge_keys, picture_key

_IN_FLIGHT = 2  # steps, and batches, that the devices have ahead of them
_PICTURED = 64  # test examples that `pictures` gets, whatever the batch size


def train(
    name: str,
    config: RunConfig,
    *,
    init: Callable,
    step: Callable,
    data: Images,
    evaluate: Callable | None = None,
    judge: Callable | None = None,
    pictures: Callable | None = None,
    report: Callable | None = None,
    init_batch: int = 0,
    batches_per_step: int = 1,
) -> dict:
    """Trains a method, or continues to; the result does not depend on how often it was stopped.

    A batch is {"image": uint8 [B, H, W, C], "label": int32 [B] where there are labels}, over all
    devices; the step's key and batch are functions of (seed, step).

    Args:
      name: of the experiment.
      config: its knobs.
      init: (key, batch) -> state, a pytree of arrays; an infinite number in it is a fault.
      step: (state, batch, key) -> (state, {name: scalar}); compiled, consumes the state.
      data: the images.
      evaluate: (state, batch, key) -> {name: [B]}; averaged over the test split.
      judge: (state, key) -> {name: number}; for what is no mean over the test split, such as a
        Frechet distance. Plain Python around jitted functions, on one device; called for each seed.
      pictures: (state, batch, key) -> {name: [H, W, C] in [0, 1]}; gets the first 64 test images.
      report: {name: mean over the test split} -> {name: number}, for what is no mean itself, such
        as F1 from the shares of hits and misses; None: the means.
      init_batch: examples in the batch that `init` gets; 0: as in a step.
      batches_per_step: how often --batch-size goes into the batch of one step.

    Returns:
      The summary, as in summary.json; "metrics" has the means over the test split and, with
      several seeds, their mean over the seeds as NAME and standard deviation as NAME_std;
      "step_seconds" is the median time between two steps (null for a single one).

    Raises:
      UserError: the folder, a flag or a checkpoint does not fit; nothing is overwritten.
      DivergedError: a training metric or the state is not finite.
      SystemExit: code 0, after SIGTERM or Ctrl-C: the state is saved.
    """
    folder = workdir.claim(name, config)
    finished = workdir.read_json(folder / "summary.json")
    if finished and finished["steps"] == config.steps:
        _report(folder, finished, "finished before")
        return finished
    mesh = devices.make_mesh()
    per_step = config.batch_size * batches_per_step
    devices.check_batch(mesh, "--batch-size", config.batch_size)
    devices.check_batch(mesh, "--init-batch", init_batch)
    multihost_utils.sync_global_devices("every process has seen the folder as it was")
    if jax.process_index() == 0 and not any(folder.glob("checkpoints/[0-9]*")):
        workdir.write_json(folder / "config.json", workdir.settings(name, config))
    programs = compile_method(config, mesh, init, step, evaluate)
    with contextlib.closing(Checkpoints(folder / "checkpoints")) as checkpoints:
        first = first_batch(data.train, init_batch or per_step, config.seed, _processes())
        first = devices.global_batch(mesh, first)
        start, state, before = _begin(config, mesh, programs, checkpoints, first)
        if jax.process_index() == 0 and start:  # with the steps that it now has
            workdir.write_json(folder / "config.json", workdir.settings(name, config))
        began = time.monotonic() - before

        def test(state, done):
            if pictures and jax.process_index() == 0:
                _draw(folder / "pictures", config, pictures, state, data.test, done)
            means = _test(config, mesh, programs, state, data.test) if evaluate else {}
            judged = _judge(config, judge, state) if judge else {}
            return _over_seeds({**(report(means) if report else means), **judged})

        def save(state, done):
            checkpoints.save(done, state, time.monotonic() - began)

        stream = batches(data.train, per_step, config.seed, start, _processes())
        stream = ahead(devices.global_batch(mesh, batch) for batch in stream)
        with contextlib.closing(Logs(folder, start, config.steps)) as logs:
            try:
                metrics = _steps(config, programs, stream, start, state, logs, test, save)
            except DivergedError as error:
                kept = checkpoints.latest() or "no step yet"
                raise DivergedError(f"{error}; the last good checkpoint: {kept}") from None
        checkpoints.wait()
    if metrics is None:
        _say(f"stopped; the same command continues this run in {folder}")
        sys.exit(0)
    summary = _summary(name, config, metrics, time.monotonic() - began, logs.step_seconds())
    if jax.process_index() == 0:
        workdir.write_json(folder / "summary.json", summary)
    _report(folder, summary, "finished")
    return summary


def _begin(config, mesh, programs, checkpoints, batch):
    """(steps done, state, seconds trained) of the newest checkpoint, or of a new state."""
    whole = devices.replicated(mesh)
    like = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole),
        jax.eval_shape(programs.init, batch),
    )
    restored = checkpoints.restore(like)
    if restored is None:
        return 0, programs.init(batch), 0.0
    if restored[0] > config.steps:
        raise UserError(
            f"--steps {config.steps}: the run has done {restored[0]}; expected at least as many"
        )
    _say(f"continuing after step {restored[0]}")
    return restored


def _steps(config, programs, stream, start, state, logs, test, save):
    """Trains; returns the last test metrics, or None where it was asked to stop."""
    under_way: collections.deque = collections.deque()
    tested = None
    with _stop_requests() as stop_requested:
        for done in range(start + 1, config.steps + 1):
            state, metrics = programs.update(state, next(stream), np.uint32(done - 1))
            under_way.append((done, metrics))
            stopping = stop_requested(done) and done < config.steps
            testing = _due(done, config.eval_every, config)
            saving = _due(done, config.checkpoint_every, config)
            # Only the metrics of older steps are fetched: the devices never wait for this loop.
            _settle(under_way, config, logs, 0 if testing or saving or stopping else _IN_FLIGHT)
            if stopping:  # first of all: there may be little time
                save(state, done)
            if testing:
                tested = test(state, done)
                logs.write("test", done, tested)
            if stopping:
                return None
            if saving:  # after the test, so that a later restart need not do it again
                save(state, done)
    return test(state, config.steps) if tested is None else tested


def _due(done: int, every: int, config: RunConfig) -> bool:
    return done == config.steps or (every > 0 and done % every == 0)


def _settle(under_way, config: RunConfig, logs: Logs, remaining: int) -> None:
    """Fetches the metrics of all but the newest steps, looks at them, and logs what is due."""
    while len(under_way) > remaining:
        done, metrics = under_way.popleft()
        metrics = jax.device_get(metrics)
        bad = [name for name, value in metrics.items() if not np.isfinite(value).all()]
        if bad:
            raise DivergedError(f"step {done}: not finite: {', '.join(bad)}")
        logs.advance()
        if _due(done, config.log_every, config):
            logs.write("train", done, _over_seeds(metrics))


def _test(config, mesh, programs: Programs, state, split) -> dict[str, np.ndarray]:
    """Means over the test split."""
    stream = test_batches(split, config.batch_size, _processes())
    stream = ahead(devices.global_batch(mesh, batch) for batch in stream)
    sums = ahead(programs.measure(state, batch, np.uint32(i)) for i, batch in enumerate(stream))
    total: dict = collections.defaultdict(float)
    for part in sums:
        for name, value in jax.device_get(part).items():
            total[name] = total[name] + np.float64(value)
    return {name: value / len(split) for name, value in total.items()}


def _judge(config: RunConfig, judge, state) -> dict[str, np.ndarray]:
    """Every process judges its own copy: what they find is the same."""
    found = [judge(_of_seed(config, state, i), key) for i, key in enumerate(judge_keys(config))]
    if config.seeds == 1:
        return found[0]
    return {name: np.array([numbers[name] for numbers in found]) for name in found[0]}


def _of_seed(config: RunConfig, state, index: int):
    """The state of one seed, on the first device of this process."""
    state = jax.tree.map(lambda x: x.addressable_data(0), state)
    return jax.tree.map(lambda x: x[index], state) if config.seeds > 1 else state


def _over_seeds(metrics: dict) -> dict[str, float]:
    """Scalars as they are; values per seed as mean and standard deviation."""
    numbers = {}
    for name, value in metrics.items():
        numbers[name] = float(np.mean(value))
        if np.ndim(value):
            numbers[f"{name}_std"] = float(np.std(value))
    return numbers


def _draw(folder: pathlib.Path, config: RunConfig, pictures, state, split, done: int) -> None:
    """Pictures of the first seed, drawn by this process alone on its first device."""
    state = _of_seed(config, state, 0)
    batch = jax.tree.map(jnp.asarray, split[np.arange(_PICTURED) % len(split)])
    for stem, image in pictures(state, batch, picture_key(config)).items():
        save_png(folder / f"{stem}-{done:07d}.png", image)


def _processes() -> tuple[int, int]:
    return jax.process_index(), jax.process_count()


def ahead(items: Iterable) -> Iterator:
    """The same items, some of them computed before they are asked for."""
    queue: collections.deque = collections.deque()
    for item in items:
        queue.append(item)
        if len(queue) > _IN_FLIGHT:
            yield queue.popleft()
    yield from queue


@contextlib.contextmanager
def _stop_requests() -> Iterator[Callable[[int], bool]]:
    """Turns SIGTERM and Ctrl-C into a question: is the run to stop after this step."""
    asked = threading.Event()
    several = jax.process_count() > 1

    def ask(signum, frame):
        asked.set()
        signal.signal(signal.SIGINT, previous[signal.SIGINT])  # a second Ctrl-C stops at once
        if several:
            os.kill(os.getpid(), signal.SIGTERM)

    # Among several processes JAX catches SIGTERM, and lets all stop after the same step.
    caught = [signal.SIGINT] if several else [signal.SIGINT, signal.SIGTERM]
    if threading.current_thread() is not threading.main_thread():
        caught = []  # only the main thread may set handlers
    previous = {number: signal.signal(number, ask) for number in caught}
    try:
        yield multihost_utils.reached_preemption_sync_point if several else lambda _: asked.is_set()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _summary(name: str, config: RunConfig, metrics: dict, seconds: float, pace) -> dict:
    packages = ("jaxgen", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")
    versions = {package: importlib.metadata.version(package) for package in packages}
    return {
        **workdir.settings(name, config),
        "metrics": {n: value if np.isfinite(value) else None for n, value in metrics.items()},
        "steps": config.steps,
        "seconds": round(seconds, 1),
        "step_seconds": pace,
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "versions": {"python": platform.python_version(), **versions},
    }


def _report(folder: pathlib.Path, summary: dict, how: str) -> None:
    """Prints the final numbers."""
    metrics = summary["metrics"]
    width = max(map(len, metrics), default=0)
    rows = [f"  {n:<{width}}  {'nan' if v is None else f'{v:.5g}'}" for n, v in metrics.items()]
    _say(
        f"{summary['experiment']}: {how}, {summary['steps']} steps in {summary['seconds']} s"
        f" on {summary['device']}",
        *rows,
        f"  in {folder}" + (", pictures in pictures/" if (folder / "pictures").exists() else ""),
    )


def _say(*lines: str) -> None:
    if jax.process_index() == 0:
        print(*lines, sep="\n", flush=True)
