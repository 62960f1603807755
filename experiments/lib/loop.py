"""The training loop: a plain function around the pure functions of a method."""

import collections
import contextlib
import pathlib
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from experiments.lib import devices, interrupts, report, resume, workdir
from experiments.lib.batches import batches, first_batch, test_batches
from experiments.lib.checkpoints import Checkpoints, steps
from experiments.lib.config import RunConfig
from experiments.lib.errors import DivergedError
from experiments.lib.logs import Logs, announced, notice
from experiments.lib.method import Method
from experiments.lib.pictures import save_png
from experiments.lib.programs import (
    Programs,
    compile_method,
    judge_keys,
    of_seed,
    picture_key,
)

_IN_FLIGHT = 2  # steps, and batches, that the devices have ahead of them
_PICTURED = 64  # test examples that `pictures` gets, whatever the batch size


def train(name: str, config: RunConfig, data, method: Method) -> dict:
    """Trains a method, or continues to; the result does not depend on how often it was stopped.

    A batch is split over all devices; the step's key and batch are functions of (seed, step).

    Args:
      name: of the experiment.
      config: its knobs.
      data: `Dataset`.
      method: the pure functions; see `Method`.

    Returns:
      The summary, as in summary.json; "metrics" has the means over the test split and, with
      several seeds, their mean over the seeds as NAME and standard deviation as NAME_std;
      "step_seconds" is the median time between two steps (null for a single one).

    Raises:
      UserError: the folder, a flag or a checkpoint does not fit; nothing is overwritten.
      DivergedError: a training metric or the state is not finite.
      SystemExit: code 128 + signal, after SIGTERM or Ctrl-C: the state is saved.
    """
    with resume.entered(name, config) as folder:
        summary = workdir.read_summary(folder)
        if summary and summary["steps"] == config.steps:
            _say(*report.lines(folder, summary, "finished before", method.meanings))
            return summary
        return _train(folder, name, config, data, method)


def _train(folder: pathlib.Path, name: str, config: RunConfig, data, method: Method) -> dict:
    mesh = devices.make_mesh(config.fsdp)
    per_step = config.batch_size * method.batches_per_step
    devices.check_batch(mesh, "--batch-size", config.batch_size)
    devices.check_batch(mesh, "--init-batch", method.init_batch)
    if jax.process_index() == 0 and not steps(folder / "checkpoints"):
        workdir.write_json(folder / "config.json", workdir.settings(name, config))
    first = first_batch(data.train, method.init_batch or per_step, config.seed, _processes())
    first = devices.global_batch(mesh, first)
    programs = compile_method(config, mesh, method, first)
    with (
        contextlib.closing(Checkpoints(folder / "checkpoints")) as checkpoints,
        contextlib.closing(_stop_request()) as request,
    ):
        begun = resume.begin(folder, name, config, programs, checkpoints, first)
        start, state, before, about = begun
        began = time.monotonic() - before
        tests = resume.Tests(folder, config, start)
        checkpoints.keep(tests.best)

        def save(state, done):
            checkpoints.save(done, state, time.monotonic() - began)

        def test(state, done):
            found = _evaluate(folder, logs, config, mesh, programs, method, state, data.test, done)
            tested, by_seed = _over_seeds(found, method.pick)
            if tests.lacks(done):
                logs.write("test", done, tested)
            if tests.add(done, tested):
                checkpoints.keep(done)
                if checkpoints.latest() != done:
                    save(state, done)
            return tested, by_seed

        local = batches(data.train, per_step, config.seed, start, _processes())
        stream = ahead(devices.global_batch(mesh, batch) for batch in local)
        with contextlib.closing(Logs(folder, start, config.steps)) as logs:
            due = 0 < start < config.steps and _due(start, config.eval_every, config)
            if due and tests.lacks(start):  # it was stopped between the checkpoint and the test
                test(state, start)
            try:
                tested = _steps(config, programs, stream, start, state, logs, request, test, save)
            except DivergedError as error:
                kept = checkpoints.latest() or "no step yet"
                raise DivergedError(f"{error}; the last good checkpoint: {kept}") from None
        with announced("waiting until the checkpoint is on disk"):
            checkpoints.wait()
    if tested is None:
        _say(f"stopped; the same command continues this run in {folder}")
        sys.exit(request.exit_code())
    about |= {"best": {"step": tests.best, "by": config.keep_best}} if config.keep_best else {}
    (metrics, by_seed), seconds = tested, time.monotonic() - began
    summary = report.summary(about, config.steps, metrics, by_seed, seconds, logs.step_seconds())
    if jax.process_index() == 0:
        workdir.write_json(folder / "summary.json", summary)
    _say(*report.lines(folder, summary, "finished", method.meanings))
    if (
        request.number
    ):  # asked during the last test: the run is complete, but `run && next` must stop
        sys.exit(request.exit_code())
    return summary


def _steps(config, programs, stream, start, state, logs, request, test, save):
    """Trains; returns what the last test found, or None where it was asked to stop."""
    under_way: collections.deque = collections.deque()
    tested = None
    for done in range(start + 1, config.steps + 1):
        first = done == start + 1
        with announced("compiling the training step") if first else contextlib.nullcontext():
            state, metrics = programs.update(state, next(stream), np.uint32(done - 1))
        request.listen()  # before the first step there is nothing to save
        under_way.append((done, metrics))
        stopping = _is_asked(request, done) and done < config.steps
        testing = _due(done, config.eval_every, config)
        saving = _due(done, config.checkpoint_every, config)
        # Only the metrics of older steps are fetched: the devices never wait for this loop.
        _settle(under_way, config, logs, 0 if testing or saving or stopping else _IN_FLIGHT)
        if saving or stopping:  # before the test, which takes time and may fail
            save(state, done)
        if stopping:
            return None
        if testing:
            tested = test(state, done)
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
            logs.write("train", done, _over_seeds(metrics)[0])


def _evaluate(folder, logs, config, mesh, programs, method, state, split, done) -> dict[str, Any]:
    """All that is found out about a state: means over the test split, judgements, pictures.

    With several seeds each number is an array [seeds].
    """
    means = _test(config, mesh, programs, state, split) if method.evaluate else {}
    own = devices.local_copy(mesh, state) if method.pictures or method.judge else None
    if method.pictures and jax.process_index() == 0:
        for path in _draw(folder / "pictures", config, method.pictures, own, split, done):
            logs.picture(path, done)
    judged = _judge(config, method.judge, own) if method.judge else {}
    return {**(method.report(means) if method.report else means), **judged}


def _test(config, mesh, programs: Programs, state, split) -> dict[str, np.ndarray]:
    """Means over the test split."""
    stream = test_batches(split, config.batch_size, _processes())
    stream = ahead(devices.global_batch(mesh, batch) for batch in stream)
    sums = ahead(programs.measure(state, batch, np.uint32(i)) for i, batch in enumerate(stream))
    totals: dict = collections.defaultdict(float)
    with announced(f"testing on {len(split)} examples"):
        for part in sums:
            for name, pair in jax.device_get(part).items():
                totals[name] = totals[name] + np.stack([np.float64(x) for x in pair])
    return {name: total / count for name, (total, count) in totals.items()}


@announced("judging the model")
def _judge(config: RunConfig, judge, state) -> dict[str, np.ndarray]:
    """Every process judges its own copy: what they find is the same."""
    found = [judge(of_seed(config, state, i), key) for i, key in enumerate(judge_keys(config))]
    if config.seeds == 1:
        return found[0]
    return {name: np.array([numbers[name] for numbers in found]) for name in found[0]}


def _over_seeds(metrics: dict, pick: str = "") -> tuple[dict[str, float], dict[str, list[float]]]:
    """Scalars as they are, values per seed as mean, deviation and that of one seed; and by seed."""
    numbers, by_seed = {}, {}
    for name, value in metrics.items():
        numbers[name] = float(np.mean(value))
        if np.ndim(value):
            by_seed[name] = np.asarray(value, float).tolist()
            numbers[f"{name}_std"] = float(np.std(value))
            if pick:
                numbers[f"{name}_picked"] = by_seed[name][np.argmin(metrics[pick])]
    return numbers, by_seed


@announced("drawing pictures")
def _draw(folder: pathlib.Path, config: RunConfig, pictures, state, split, done: int) -> list:
    """Draws pictures of the first seed; returns the paths of their files."""
    batch = jax.tree.map(jnp.asarray, split[np.arange(_PICTURED) % len(split)])
    state = of_seed(config, state, 0)
    paths = []
    for stem, image in pictures(state, batch, picture_key(config)).items():
        paths.append(folder / f"{stem}-{done:07d}.png")
        save_png(paths[-1], image)
    return paths


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


def _stop_request() -> interrupts.StopRequest:
    # Among several processes JAX catches SIGTERM, and lets all stop after the same step.
    if jax.process_count() > 1:
        return interrupts.StopRequest(notice, (signal.SIGINT,), pass_on=signal.SIGTERM)
    return interrupts.StopRequest(notice)


def _is_asked(request: interrupts.StopRequest, done: int) -> bool:
    """Whether the run is to stop after this step."""
    if jax.process_count() > 1:
        return multihost_utils.reached_preemption_sync_point(done)
    return request.number > 0


def _say(*lines: str) -> None:
    if jax.process_index() == 0:
        print(*lines, sep="\n", flush=True)
