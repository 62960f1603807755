"""AdaX: Adam with long-term memory in the second moment."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxgen.arguments import require
from jaxgen.optimizers.leaves import cast_updates, floats, scale_by_learning_rate, zeros


class ScaleByAdaxState(NamedTuple):
    """Steps done [], first moment m and normalised second moment v_hat, both in at least f32."""

    steps: jax.Array
    mu: Any
    nu: Any


def scale_by_adax(
    b1: float = 0.9, b2: float = 1e-4, eps: float = 1e-8
) -> optax.GradientTransformation:
    """Scales by m / (sqrt(v_hat) + eps), v_hat being a mean of g^2 that favours older gradients.

    Li, Wang, Zhang & Luo 2020 (arXiv 2004.09740), step t from 1:

        m = b1 m + (1 - b1) g,   v = (1 + b2) v + b2 g^2,   v_hat = v / ((1 + b2)^t - 1)

    At b2 = 1e-4, (1 + b2)^t and with it v overflow f32 from t = 887,273. The state therefore holds
    v_hat itself, updated as the equivalent moving average

        v_hat = (1 - rho_t) v_hat + rho_t g^2,   rho_t = b2 / ((1 + b2)^t - 1)

    rho_1 = 1; rho_t ~ 1/t while b2 t is small; later rho_t decays like (1 + b2)^-t, so the second
    moment freezes. m has no bias correction, as in the paper. For complex parameters g^2 is |g|^2,
    and g must be the conjugate of what `jax.grad` gives, as everywhere in optax.

    Args:
      b1: decay of the first moment, in [0, 1]; at 1 nothing moves.
      b2: growth rate of the second moment, > 0; as b2 -> 0, v_hat becomes the plain mean of g^2.
      eps: added outside the square root, >= 0.

    Raises:
      ValueError: a number out of range.
    """
    require(least=0, most=1, b1=b1)
    require(above=0, b2=b2)
    require(least=0, eps=eps)

    def init(params):
        second = jax.tree.map(jnp.real, zeros(params))
        return ScaleByAdaxState(jnp.zeros([], jnp.int32), zeros(params), second)

    def update(updates, state, params=None):
        updates = floats(updates)
        steps = optax.safe_increment(state.steps)

        g = optax.tree.cast_like(updates, state.mu)
        mu = jax.tree.map(lambda g, m: (b1 * m + (1 - b1) * g).astype(m.dtype), g, state.mu)

        def second(g, v):
            rho = _memory_rate(steps, b2, v.dtype)
            return ((1 - rho) * v + rho * jnp.real(g * jnp.conj(g))).astype(v.dtype)

        nu = jax.tree.map(second, g, state.nu)

        def step(m, v):
            # The derivative of sqrt at 0 is infinite, and its product with g = 0 would be NaN.
            root = jnp.where(v == 0, 0, jnp.sqrt(jnp.where(v == 0, 1, v)))
            return m / (root + eps)

        out = cast_updates(jax.tree.map(step, mu, nu), updates, params)
        return out, ScaleByAdaxState(steps, mu, nu)

    return optax.GradientTransformation(init, update)


def adax(
    learning_rate: optax.ScalarOrSchedule, b1: float = 0.9, b2: float = 1e-4, eps: float = 1e-8
) -> optax.GradientTransformationExtraArgs:
    """AdaX with a learning rate; see `scale_by_adax`.

    The paper's AdaX-W, with decoupled weight decay, is
    `optax.chain(scale_by_adax(), optax.add_decayed_weights(wd), optax.scale_by_learning_rate(lr))`.
    """
    return optax.chain(scale_by_adax(b1, b2, eps), scale_by_learning_rate(learning_rate))


def _memory_rate(t, b2: float, dtype=jnp.float32):
    """rho_t = b2 / ((1 + b2)^t - 1) = b2 / expm1(t log(1 + b2)); 0 where it underflows.

    Args:
      t: step count, >= 1, of any shape; exact in f32 up to 16,777,216.
      b2: > 0.
      dtype: dtype of the result.
    """
    growth = jnp.log1p(jnp.asarray(b2, dtype))  # b2 may be traced: `optax.inject_hyperparams`
    return b2 / jnp.expm1(jnp.asarray(t, dtype) * growth)
