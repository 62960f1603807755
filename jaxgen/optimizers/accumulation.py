"""Large batches from small ones: gradients accumulated over calls, apart or in the momentum."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from jaxgen.arguments import at_least_f32, require


class AccumulateState(NamedTuple):
    """State of `accumulate`.

    Attributes:
      total: S, the sum of w g in this window, in at least f32; of the last one at micro_step 0.
      weight: W, the sum of w.
      micro_step: calls in this window, 0 .. k - 1; 0 after a call that ended one.
      skipped: micro-gradients that were not finite, since the start.
      inner: state of the optimizer.
    """

    total: Any
    weight: Any
    micro_step: Any
    skipped: Any
    inner: Any


def accumulate(
    inner: optax.GradientTransformation, k: int
) -> optax.GradientTransformationExtraArgs:
    """The weighted mean of k micro-gradients, then one step of `inner`.

    S += w g, W += w; every k-th call gives inner.update(S / W), the others a zero update. With g
    the mean gradient of a micro-batch and w its number of tokens (or of unmasked examples), the
    step is that of one large batch, which the mean of means is not. (Su Jianlin, kexue.fm post
    6794, with equal weights.) Not for networks with batch statistics: BatchNorm, in-batch
    negatives and batch F-scores see the micro-batch.

    - `inner` runs only when due (`lax.cond`), so its schedules, bias corrections, clips and weight
      decay count and see large batches, and a micro-step costs one pass over S. `jax.vmap` of the
      update turns the cond into a select, which runs it always; the result is the same.
    - A micro-gradient with an infinity or a NaN in any leaf (or such a weight) is left out, with
      its weight. A window left without weight gives a zero update and leaves `inner` as it was.
    - The zero update is as large as the parameters unless XLA fuses it into `apply_updates`;
      `lax.cond(state.micro_step == 0, ...)` around that saves the pass. A window at the end of
      training that is not full is never applied.
    - Devices: under `jit` with sharded batches g is the gradient of the global micro-batch.
      Under `pmap` and `shard_map` sum numerator and denominator before: g = psum(w g) / psum(w),
      weight=psum(w); a device's NaN then skips the micro-step on all of them.

    Against `optax.MultiSteps` (0.2.8): that runs the optimizer in every micro-step, one NaN stays
    in its accumulator for ever by default, means are unweighted, and its
    `gradient_transformation()` drops extra arguments.

    Args:
      inner: the optimizer.
      k: calls per step, >= 1.

    Returns:
      A transformation whose `update` takes the extra argument `weight` (a scalar >= 0, 1 by
      default) and passes all others, of the k-th call, on to `inner`. S is kept in at least f32,
      and `inner` gets the mean in the gradient's dtype.

    Raises:
      ValueError: k is not an integer >= 1.
    """
    _check_k("accumulate", k)
    optimizer = optax.with_extra_args_support(inner)

    def init(params):
        total = jax.tree.map(lambda p: jnp.zeros_like(at_least_f32(p)), params)
        # No array twice: a buffer can be donated only once.
        micro_step, skipped = jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32)
        return AccumulateState(total, jnp.zeros(()), micro_step, skipped, optimizer.init(params))

    def update(updates, state, params=None, *, weight=1.0, **extra_args):
        w = jnp.asarray(weight, state.weight.dtype)
        finite = _all_finite(updates) & jnp.isfinite(w)
        w = jnp.where(finite, w, 0)
        first = state.micro_step == 0

        def add(s, g):
            # Chosen, not multiplied: 0 * NaN is NaN. S is cleared here, in the one pass over it,
            # rather than after the step, which would need a second buffer of its size.
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
      micro_step: calls in this window, 0 .. k - 1.
      inner: state of the transformation behind the momentum.
    """

    momentum: Any
    micro_step: Any
    inner: Any


def hidden_accumulation(
    inner: optax.GradientTransformation, k: int, decay=0.9
) -> optax.GradientTransformationExtraArgs:
    """Momentum of the mean of k micro-gradients, without a buffer for the mean.

    m_t = [1 + (decay - 1) 1{(t-1) mod k = 0}] m_{t-1} + (1 - decay) / k g_t,  t = 1, 2, ...;
    inner.update(m_t) when t mod k = 0, else a zero update (Su Jianlin, kexue.fm posts 8634 and
    9512). Exactly accumulate(chain(ema(decay, debias=False), inner), k), because m is linear in
    the gradients; it holds one array per parameter instead of two.

        hidden_accumulation(optax.scale_by_learning_rate(schedule), k)     SGD with momentum
        hidden_accumulation(optax.chain(optax.scale_by_sign(), optax.add_decayed_weights(1e-2),
                                        optax.scale_by_learning_rate(schedule)), k)      Signum

    `inner` runs only when due (`lax.cond`; a select under `vmap`), so schedules count large
    batches and weight decay acts once for each. Not possible this way: whatever needs the mean
    gradient beside m, which is Nesterov's momentum, Lion, Adam, or a clip of the mean. Nor are
    weights and skipped micro-gradients: `optax.apply_if_finite` around it leaves a micro-step
    that is not finite out of the window.

    Args:
      inner: what follows the momentum; it must not need the gradient itself.
      k: calls per step, >= 1.
      decay: beta of the momentum, in [0, 1]; at 1 nothing moves.

    Returns:
      A transformation; extra arguments go to `inner`. m is kept in at least f32, since k small
      terms are added to it; `inner` gets it in the gradient's dtype.

    Raises:
      ValueError: k is not an integer >= 1, or decay is not in [0, 1].
    """
    _check_k("hidden_accumulation", k)
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


def _check_k(where: str, k) -> None:
    if not isinstance(k, int) or k < 1:
        raise ValueError(f"{where}: k {k}; expected an integer >= 1")


def _all_finite(tree):
    finite = [jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(tree)]
    return jnp.all(jnp.asarray(finite))


def _update_if(due, optimizer, gradient, like, state, params, extra_args):
    """(updates, state) of the optimizer for gradient() where due, else (zeros, the same state)."""

    def step():
        new, new_state = optimizer.update(
            optax.tree.cast_like(gradient(), like), state, params, **extra_args
        )
        # Injected hyperparameters in f32 would turn the moments of bf16 parameters into f32.
        return optax.tree.cast_like(new, like), optax.tree.cast_like(new_state, state)

    def wait():
        return jax.tree.map(jnp.zeros_like, like), state

    return lax.cond(due, step, wait)
