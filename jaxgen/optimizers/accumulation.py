"""Gradient accumulation: one large-batch step from several micro-batches.

`accumulate` sums the micro-gradients in a buffer of its own, `hidden_accumulation` in the momentum.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from jaxgen.arguments import at_least_f32, require


class AccumulateState(NamedTuple):
    """State of `accumulate`.

    Attributes:
      total: S, the sum of w g over the current window, in at least f32. At micro_step 0 it still
        holds the sum of the previous window; the next call clears it.
      weight: W, the sum of w over the current window.
      micro_step: number of calls so far in the current window, 0 .. k - 1.
      skipped: number of micro-gradients skipped since the start because they were not finite.
      inner: state of the wrapped optimizer.
    """

    total: Any
    weight: Any
    micro_step: Any
    skipped: Any
    inner: Any


def accumulate(
    inner: optax.GradientTransformation, k: int
) -> optax.GradientTransformationExtraArgs:
    """Averages k weighted micro-gradients, then takes one step of `inner`.

        S += w g,  W += w;  every k-th call returns inner.update(S / W), the other calls zeros

    If g is the mean gradient of a micro-batch and w its number of tokens (or unmasked examples),
    the step is exactly that of one large batch; an unweighted mean of the k means is not. (Su
    Jianlin, kexue.fm post 6794, with equal weights.) Not suitable for networks and losses that
    depend on batch statistics: BatchNorm, in-batch negatives and batch F-scores see only the
    micro-batch.

    - `inner` runs only on every k-th call (`lax.cond`), so its schedules, bias corrections,
      clipping and weight decay see large batches, and a micro-step costs one pass over S. Under
      `jax.vmap` the cond becomes a select, which always runs `inner`; the result is the same.
    - A micro-gradient with an infinity or a NaN in any leaf, or with a non-finite weight, is
      skipped together with its weight. If the total weight of a window is zero, the update is
      zero and the state of `inner` does not change.
    - The zero update is a tree as large as the parameters unless XLA fuses it into
      `apply_updates`; calling that inside `lax.cond(state.micro_step == 0, ...)` saves the pass.
    - An incomplete window at the end of training is never applied.
    - Devices: under `jit` with sharded batches g is the gradient of the global micro-batch.
      Under `pmap` and `shard_map`, reduce numerator and denominator first: g = psum(w g) / psum(w),
      weight=psum(w); a NaN on one device then skips the micro-step on all devices.

    Differences from `optax.MultiSteps` (0.2.8): it runs the optimizer in every micro-step, by
    default a NaN stays in its accumulator forever, its mean is unweighted, and its
    `gradient_transformation()` drops extra arguments.

    Args:
      inner: the optimizer.
      k: calls per step, >= 1.

    Returns:
      A transformation whose `update` takes the extra argument `weight` (a scalar >= 0, 1 by
      default). All other extra arguments of the k-th call are passed to `inner`. S is kept in at
      least f32, and `inner` gets the mean in the gradient's dtype.

    Raises:
      ValueError: k is not an integer >= 1.
    """
    _check_k(k)
    optimizer = optax.with_extra_args_support(inner)

    def init(params):
        total = jax.tree.map(lambda p: jnp.zeros_like(at_least_f32(p)), params)
        # Two separate arrays, since a buffer can be donated only once.
        micro_step, skipped = jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32)
        return AccumulateState(total, jnp.zeros(()), micro_step, skipped, optimizer.init(params))

    def update(updates, state, params=None, *, weight=1.0, **extra_args):
        w = jnp.asarray(weight, state.weight.dtype)
        finite = _all_finite(updates) & jnp.isfinite(w)
        w = jnp.where(finite, w, 0)
        first = state.micro_step == 0

        def add(s, g):
            # `where` rather than a product, because 0 * NaN is NaN. S is cleared here, in the same
            # pass, because clearing it after the step would need a second buffer of its size.
            return jnp.where(first, 0, s) + w.astype(s.dtype) * jnp.where(finite, g, 0)

        total = jax.tree.map(add, state.total, updates)
        summed = state.weight + w
        due = (state.micro_step == k - 1) & (summed > 0)

        def mean():
            return jax.tree.map(lambda s: s / summed.astype(s.dtype), total)

        new_updates, new_inner = _update_if(
            due, optimizer, mean, updates, state.inner, params, extra_args
        )
        return new_updates, AccumulateState(
            total=total,
            weight=jnp.where(state.micro_step == k - 1, 0, summed),
            micro_step=(state.micro_step + 1) % k,
            skipped=state.skipped + ~finite,
            inner=new_inner,
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
      k small terms are added to it; `inner` gets it in the gradient's dtype.

    Raises:
      ValueError: k is not an integer >= 1, or decay is not in [0, 1].
    """
    _check_k(k)
    require(decay=decay, least=0, most=1)
    optimizer = optax.with_extra_args_support(inner)

    def init(params):
        momentum = jax.tree.map(lambda p: jnp.zeros_like(at_least_f32(p)), params)
        return HiddenAccumulationState(momentum, jnp.zeros((), jnp.int32), optimizer.init(params))

    def update(updates, state, params=None, **extra_args):
        beta = jnp.asarray(decay, jnp.result_type(float))
        keep = jnp.where(state.micro_step == 0, beta, 1)
        take = (1 - beta) / k
        momentum = jax.tree.map(
            lambda m, g: keep.astype(m.dtype) * m + take.astype(m.dtype) * g.astype(m.dtype),
            state.momentum,
            updates,
        )
        due = state.micro_step == k - 1
        new_updates, new_inner = _update_if(
            due, optimizer, lambda: momentum, updates, state.inner, params, extra_args
        )
        return new_updates, HiddenAccumulationState(momentum, (state.micro_step + 1) % k, new_inner)

    return optax.GradientTransformationExtraArgs(init, update)


def _check_k(k) -> None:
    if not isinstance(k, int) or k < 1:
        raise ValueError(f"k {k}; expected an integer >= 1")


def _all_finite(tree):
    finite = [jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(tree)]
    return jnp.all(jnp.asarray(finite))


def _update_if(due, optimizer, gradient, like, state, params, extra_args):
    """Runs `optimizer` on gradient() if `due`; otherwise returns (zeros, unchanged state)."""

    def step():
        new, new_state = optimizer.update(
            optax.tree.cast_like(gradient(), like), state, params, **extra_args
        )
        # f32 hyperparameters from `inject_hyperparams` would promote the moments of bf16
        # parameters to f32.
        return optax.tree.cast_like(new, like), optax.tree.cast_like(new_state, state)

    def wait():
        return jax.tree.map(jnp.zeros_like, like), state

    return lax.cond(due, step, wait)
