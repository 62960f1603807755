"""The pure functions of a method, compiled for all devices and for one or many seeds."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh

from experiments.lib import devices
from experiments.lib.config import RunConfig

_INIT, _STEP, _TEST, _PICTURES, _JUDGE = range(5)


class Programs(NamedTuple):
    """With several seeds, every state and every metric has a leading axis over the seeds."""

    init: Callable  # batch -> state
    update: Callable  # (state, batch, number of the step) -> (state, metrics); consumes the state
    measure: Callable  # (state, batch with "valid", its number) -> sums over the valid examples


def compile_method(config: RunConfig, mesh: Mesh, init, step, evaluate) -> Programs:
    """Compiles a method, each part at its first call and never again.

    Args:
      config: the seeds.
      mesh: the devices; a batch is split over them and the state replicated, so a mean over the
        batch inside the method is the mean over the global batch.
      init: (key, batch) -> state.
      step: (state, batch, key) -> (state, {name: scalar}).
      evaluate: (state, batch, key) -> {name: [B]}, or None for an empty dict.

    Raises:
      TypeError: at the first call, if `step` does not return a state like the one it was given.
      ValueError: at the first call, if a metric of `step` is no scalar, or `evaluate` does not
        return one number per example.
    """

    def begin(seed, batch):
        return _strong(init(_key(seed, _INIT), batch))

    def update(seed, state, batch, number):
        new, metrics = step(state, batch, _key(seed, _STEP, number))
        new = _strong(new)
        _check_same_form(state, new)
        for name, value in metrics.items():
            if jnp.shape(value):
                raise ValueError(f"step: {name} is {jnp.shape(value)}; expected a scalar")
        return new, metrics

    def measure(seed, state, batch, number):
        batch = dict(batch)
        valid = batch.pop("valid")
        values = evaluate(state, batch, _key(seed, _TEST, number)) if evaluate else {}
        return {name: _masked_sum(name, value, valid) for name, value in values.items()}

    whole, split = devices.replicated(mesh), devices.split(mesh)
    return Programs(
        jax.jit(_over_seeds(config, begin, (None,)), in_shardings=split, out_shardings=whole),
        jax.jit(
            _over_seeds(config, update, (0, None, None)),
            in_shardings=(whole, split, whole),
            out_shardings=whole,
            donate_argnums=0,
        ),
        jax.jit(
            _over_seeds(config, measure, (0, None, None)),
            in_shardings=(whole, split, whole),
            out_shardings=whole,
        ),
    )


def picture_key(config: RunConfig) -> jax.Array:
    """The key of the pictures: the same at every step, so that pictures can be compared."""
    return _key(config.seed, _PICTURES)


def judge_keys(config: RunConfig) -> list[jax.Array]:
    """The key of each seed's judgement: the same at every step, as that of the pictures."""
    return [_key(config.seed + i, _JUDGE) for i in range(config.seeds)]


def _over_seeds(config: RunConfig, function, axes: tuple[int | None, ...]):
    """Binds the first argument of `function`: the seed, or all seeds.

    All at once by vmap on an accelerator. A CPU is as fast one after the other, in a fifth of the
    memory for eight seeds (`python -m benchmarks.gans seeds`).
    """
    if config.seeds == 1:
        return functools.partial(function, np.uint32(config.seed))
    seeds = np.uint32(config.seed) + np.arange(config.seeds, dtype=np.uint32)
    if jax.default_backend() != "cpu":
        return functools.partial(jax.vmap(function, in_axes=(0, *axes)), seeds)

    def in_turn(*arguments):
        own = [x for x, axis in zip(arguments, axes, strict=True) if axis == 0]

        def of_seed(inputs):
            seed, own = inputs[0], iter(inputs[1:])
            given = zip(arguments, axes, strict=True)
            return function(seed, *[next(own) if axis == 0 else x for x, axis in given])

        return lax.map(of_seed, (seeds, *own))

    return in_turn


def _key(seed, purpose: int, number=0) -> jax.Array:
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), purpose), number)


def _strong(state):
    """Drops weak types: they would make the second call of a program differ from the first."""
    return jax.tree.map(lambda x: lax.convert_element_type(x, jnp.result_type(x)), state)


def _masked_sum(name: str, value, valid):
    if value.shape != valid.shape:
        raise ValueError(f"evaluate: {name} is {value.shape}; expected one number per example")
    return jnp.sum(jnp.where(valid, value, 0), dtype=jnp.float32)


def _check_same_form(old, new) -> None:
    def form(state):
        named = jax.tree.leaves_with_path(state)
        return {jax.tree_util.keystr(path): f"{x.dtype}{list(x.shape)}" for path, x in named}

    before, after = form(old), form(new)
    for name in {**before, **after}:
        was, came = before.get(name), after.get(name)
        if was != came:
            raise TypeError(f"step: state{name} was {was} and came back as {came}")
