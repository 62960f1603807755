"""Gradient accumulation: one large-batch step from several micro-batches.

`accumulate` sums the micro-gradients in a buffer of its own, `hidden_accumulation` in the momentum.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from jaxgen.arguments import require, require_integer
from jaxgen.optimizers.leaves import cast_updates, floats, zeros


class AccumulateState(NamedTuple):
    """State of `accumulate`.

    Attributes:
      total: S, the sum of w g over the current window, in at least f32. At micro_step 0 its values
        mean nothing; the next call clears them.
      weight: W, the sum of w over the current window; cleared together with S.
      micro_step: number of calls so far in the current window.
      steps: number of steps that `inner` has taken.
      skipped: number of micro-gradients skipped since the start; see `accumulate`.
      inner: state of the wrapped optimizer.
    """

    total: Any
    weight: Any
    micro_step: Any
    steps: Any
    skipped: Any
    inner: Any


def accumulate(
    inner: optax.GradientTransformation, k: int | Callable
) -> optax.GradientTransformationExtraArgs:
    """Averages k weighted micro-gradients, then takes one step of `inner`.

        S += w g,  W += w;  every k-th call returns inner.update(S / W), the other calls zeros

    If g is the mean gradient of a micro-batch and w its number of tokens (or unmasked examples),
    the step is exactly that of one large batch; an unweighted mean of the k means is not. (Su
    Jianlin, kexue.fm post 6794, with equal weights.) Not suitable for networks and losses that
    depend on batch statistics: BatchNorm, in-batch negatives and batch F-scores see only the
    micro-batch.

    `update` takes two extra arguments, `weight` and `flush`, and passes all others to `inner`. With
    flush=True the window ends with this call; a window of zero weight changes nothing. So the last,
    partial window of an epoch is applied by

        updates, state = optimizer.update(gradient, state, params, flush=is_last)

    or afterwards, with zeros like the parameters, by

        updates, state = optimizer.update(zeros, state, params, weight=0, flush=True)

    - `inner` runs only when a window ends (`lax.cond`), so its schedules, bias corrections,
      clipping and weight decay see large batches. Under `jax.vmap` the cond becomes a select, which
      always runs `inner`; the result is the same.
    - A micro-step reads g, for infinities, and then adds to S in place. The step of `inner` is
      written over S, so with a donated state a step with `optax.apply_updates` in the same `jit`
      needs no memory beyond parameters, gradient and state.
    - A micro-gradient with an infinity or a NaN in any leaf, or with a weight that is negative or
      not finite, is skipped together with its weight.
    - A window ends as soon as it has k calls or more, so a checkpoint may go on with another k.
    - Devices: under `jit` with sharded batches g is the gradient of the global micro-batch.
      Under `pmap` and `shard_map`, reduce numerator and denominator first: g = psum(w g) / psum(w),
      weight=psum(w); a NaN on one device then skips the micro-step on all devices.

    Differences from `optax.MultiSteps` (0.2.8): it runs the optimizer in every micro-step, by
    default a NaN stays in its accumulator forever, its mean is unweighted, and its
    `gradient_transformation()` drops extra arguments.

    Args:
      inner: the optimizer.
      k: calls per step, an integer >= 1; or a function from the number of steps taken, a traced
        integer, to that.

    Returns:
      A transformation whose `update` takes the extra arguments `weight` (a scalar >= 0, 1 by
      default) and `flush` (a boolean, may be traced, False by default).

    Raises:
      ValueError: k is not an integer >= 1; from `update`, a weight that is not traced is negative.
    """
    if not callable(k):
        require_integer(least=1, k=k)
    optimizer = optax.with_extra_args_support(inner)

    def init(params):
        # Separate arrays, since a buffer can be donated only once.
        micro_step, steps, skipped = (jnp.zeros((), jnp.int32) for _ in range(3))
        return AccumulateState(
            zeros(params), jnp.zeros(()), micro_step, steps, skipped, optimizer.init(params)
        )

    def update(updates, state, params=None, *, weight=1.0, flush=False, **extra_args):
        if not isinstance(weight, jax.core.Tracer) and np.any(np.asarray(weight) < 0):
            raise ValueError(f"weight {weight}; expected a number >= 0")
        updates = floats(updates)
        w = jnp.asarray(weight, state.weight.dtype)
        sound = _all_finite(updates) & jnp.isfinite(w) & (w >= 0)
        w = jnp.where(sound, w, 0)
        first = state.micro_step == 0
        summed = jnp.where(first, 0, state.weight) + w
        ends = (state.micro_step + 1 >= (k(state.steps) if callable(k) else k)) | flush
        due = ends & (summed > 0)

        def add(s, g):
            # `where` rather than a product, because 0 * NaN is NaN. S is cleared and divided in the
            # same pass, because elsewhere either would need a second buffer of its size.
            new = jnp.where(first, 0, s) + w.astype(s.dtype) * jnp.where(sound, g, 0)
            return (new / jnp.where(due, summed, 1).astype(s.dtype)).astype(s.dtype)

        total = jax.tree.map(add, state.total, updates)

        def step():
            mean = cast_updates(total, updates, params)
            new, inner_state = optimizer.update(mean, state.inner, params, **extra_args)
            return optax.tree.cast_like(new, total), optax.tree.cast_like(inner_state, state.inner)

        # What either branch returns is written over S, which nobody reads after a step.
        total, inner_state = lax.cond(due, step, lambda: (total, state.inner))
        new = jax.tree.map(lambda s: jnp.where(due, s, 0), total)
        return cast_updates(new, updates, params), AccumulateState(
            total=total,
            weight=summed,
            micro_step=jnp.where(ends, 0, state.micro_step + 1),
            steps=state.steps + due,
            skipped=state.skipped + ~sound,
            inner=inner_state,
        )

    return optax.GradientTransformationExtraArgs(init, update)


class HiddenAccumulationState(NamedTuple):
    """State of `hidden_accumulation`.

    Attributes:
      momentum: m, in at least f32.
      micro_step: number of calls so far in the current window, 0 .. k - 1.
      inner: state of the transformation that follows the momentum.
    """

    momentum: Any
    micro_step: Any
    inner: Any


def hidden_accumulation(
    inner: optax.GradientTransformation, k: int, decay=0.9
) -> optax.GradientTransformationExtraArgs:
    """Momentum of the mean of k micro-gradients, accumulated in the momentum buffer itself.

        m_t = [1 + (decay - 1) 1{(t-1) mod k = 0}] m_{t-1} + (1 - decay) / k g_t,  t = 1, 2, ...

    `update` returns inner.update(m_t) when t mod k = 0, and zeros otherwise (Su Jianlin, kexue.fm
    posts 8634 and 9512). Because m is linear in the gradients, the result is exactly
    accumulate(chain(ema(decay, debias=False), inner), k), with one buffer of the parameters' size
    instead of two.

        hidden_accumulation(optax.scale_by_learning_rate(schedule), k)     SGD with momentum
        hidden_accumulation(optax.chain(optax.scale_by_sign(), optax.add_decayed_weights(1e-2),
                                        optax.scale_by_learning_rate(schedule)), k)      Signum

    `inner` runs only on every k-th call (`lax.cond`; a select under `vmap`), so schedules count
    large batches and weight decay is applied once per large batch. Methods that need the mean
    gradient in addition to m cannot be written this way: Nesterov momentum, Lion, Adam, clipping
    of the mean. There are no weights either, and non-finite micro-gradients are not skipped; wrap
    the result in `optax.apply_if_finite` to leave them out of the window.

    Args:
      inner: the transformation that follows the momentum; it must not need the gradient itself.
      k: calls per step, >= 1.
      decay: beta of the momentum, in [0, 1]; at 1 nothing moves.

    Returns:
      A transformation that passes extra arguments to `inner`. m is kept in at least f32, because
      k small terms are added to it. Change k only between windows: terms that are in m already
      have been divided by the old one.

    Raises:
      ValueError: k is not an integer >= 1, or decay is not in [0, 1].
    """
    require_integer(least=1, k=k)
    require(decay=decay, least=0, most=1)
    optimizer = optax.with_extra_args_support(inner)

    def init(params):
        return HiddenAccumulationState(
            zeros(params), jnp.zeros((), jnp.int32), optimizer.init(params)
        )

    def update(updates, state, params=None, **extra_args):
        updates = floats(updates)
        beta = jnp.asarray(decay, jnp.result_type(float))
        keep = jnp.where(state.micro_step == 0, beta, 1)
        take = (1 - beta) / k
        momentum = jax.tree.map(
            lambda m, g: keep.astype(m.dtype) * m + take.astype(m.dtype) * g.astype(m.dtype),
            state.momentum,
            updates,
        )
        due = state.micro_step + 1 >= k

        def step():
            sent = cast_updates(momentum, updates, params)
            new, inner_state = optimizer.update(sent, state.inner, params, **extra_args)
            # f32 hyperparameters from `inject_hyperparams` would promote the moments of bf16
            # parameters to f32.
            return optax.tree.cast_like(new, sent), optax.tree.cast_like(inner_state, state.inner)

        def wait():
            nothing = cast_updates(updates, updates, params)
            return jax.tree.map(jnp.zeros_like, nothing), state.inner

        new, inner_state = lax.cond(due, step, wait)
        micro_step = jnp.where(due, 0, state.micro_step + 1)
        return new, HiddenAccumulationState(momentum, micro_step, inner_state)

    return optax.GradientTransformationExtraArgs(init, update)


def _all_finite(tree):
    # x - x is 0, or NaN where x is not finite; its sum is one pass and takes no buffer, while
    # `jnp.all(jnp.isfinite(x))` writes booleans. XLA's maximum drops a NaN on the CPU.
    sums = [jnp.sum(x - x) for x in jax.tree.leaves(tree)]
    return jnp.all(jnp.asarray([total == 0 for total in sums]))
