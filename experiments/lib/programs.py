"""The pure functions of a method, compiled for all devices and for one or many seeds."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh

from experiments.lib import devices
from experiments.lib.config import RunConfig
from experiments.lib.method import Method

_INIT, _STEP, _TEST, _PICTURES, _JUDGE = range(5)


class Programs(NamedTuple):
    """With several seeds, every state and every metric has a leading axis over the seeds.

    Attributes:
      state: the state as a pytree of jax.ShapeDtypeStruct with shardings.
      init: batch -> state.
      update: (state, batch, number of the step) -> (state, metrics); consumes the state.
      measure: (state, batch with "valid", its number) -> {name: (sum, count)}.
    """

    state: Any
    init: Callable
    update: Callable
    measure: Callable


def compile_method(config: RunConfig, mesh: Mesh, method: Method, batch) -> Programs:
    """Prepares a method for all devices; each function is compiled once, at its first call.

    Args:
      config: the seeds.
      mesh: the devices. A batch is split over all of them, so a mean over the batch inside the
        method is the mean over the global batch; large arrays of the state are split over "fsdp".
      method: the pure functions.
      batch: what `init` gets, arrays or shapes.

    Raises:
      TypeError: at the first call, if `step` does not return a state like the one it was given.
      ValueError: at the first call, if a metric of `step` is no scalar, or `evaluate` returns
        neither one number per example nor a sum and a count.
    """

    def begin(seed, batch):
        return _strong(method.init(_key(seed, _INIT), batch))

    def update(seed, state, batch, number):
        new, metrics = method.step(state, batch, _key(seed, _STEP, number))
        new = _strong(new)
        _check_same_form(state, new)
        for name, value in metrics.items():
            if jnp.shape(value):
                raise ValueError(f"step: {name} is {jnp.shape(value)}; expected a scalar")
        return new, metrics

    def measure(seed, state, batch, number):
        values = method.evaluate(state, batch, _key(seed, _TEST, number))
        return {name: _summed(name, value, batch["valid"]) for name, value in values.items()}

    spread = functools.partial(_over_seeds, config, mesh)
    begin = spread(begin, (None,))
    state = devices.place(mesh, jax.eval_shape(begin, batch))
    placed = jax.tree.map(lambda x: x.sharding, state)
    whole, split = devices.replicated(mesh), devices.split(mesh)
    return Programs(
        state,
        jax.jit(begin, in_shardings=split, out_shardings=placed),
        jax.jit(
            spread(update, (0, None, None)),
            in_shardings=(placed, split, whole),
            out_shardings=(placed, whole),
            donate_argnums=0,
        ),
        jax.jit(
            spread(measure, (0, None, None)),
            in_shardings=(placed, split, whole),
            out_shardings=whole,
        ),
    )


def picture_key(config: RunConfig) -> jax.Array:
    """The key of the pictures: the same at every step, so that pictures can be compared."""
    return _key(config.seed, _PICTURES)


def judge_keys(config: RunConfig) -> list[jax.Array]:
    """The keys for `judge`, one per seed; the same at every step, as the key of the pictures."""
    return [_key(config.seed + i, _JUDGE) for i in range(config.seeds)]


def of_seed(config: RunConfig, state, index: int):
    """The state of one seed, as the method knows it."""
    return jax.tree.map(lambda x: x[index], state) if config.seeds > 1 else state


def _over_seeds(config: RunConfig, mesh: Mesh, function, axes: tuple[int | None, ...]):
    """Binds the first argument of `function`: the seed, or all seeds.

    On an accelerator vmap trains all seeds at once. A CPU is as fast with one seed after the other,
    and with eight seeds it needs a fifth of the memory (`python -m benchmarks.gans seeds`).
    """
    if config.seeds == 1:
        return functools.partial(function, np.uint32(config.seed))
    seeds = np.uint32(config.seed) + np.arange(config.seeds, dtype=np.uint32)
    if mesh.devices.flat[0].platform != "cpu":
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
    """Removes weak types; with them the second call of a program would compile it again."""
    return jax.tree.map(lambda x: lax.convert_element_type(x, jnp.result_type(x)), state)


def _summed(name: str, value, valid):
    """(sum, count) of the valid examples."""
    if isinstance(value, tuple) and len(value) == 2 and not any(map(jnp.shape, value)):
        total, count = value
    elif jnp.shape(value) == valid.shape:
        total, count = jnp.where(valid, value, 0), valid
    else:
        form = jax.tree.map(jnp.shape, value)
        raise ValueError(
            f"evaluate: {name} is {form}; expected one number per example, or (sum, count)"
        )
    return jnp.sum(total, dtype=jnp.float32), jnp.sum(count, dtype=jnp.float32)


def _check_same_form(old, new) -> None:
    def form(state):
        named = jax.tree.leaves_with_path(state)
        return {jax.tree_util.keystr(path): f"{x.dtype}{list(x.shape)}" for path, x in named}

    before, after = form(old), form(new)
    for name in {**before, **after}:
        was, came = before.get(name), after.get(name)
        if was != came:
            raise TypeError(f"step: state{name} was {was} and came back as {came}")
