"""Integrators of differential equations, and reference trajectories for optimizers.

A field maps a state (any pytree of arrays) to its time derivative (a tree of the same structure).
The fields of optimizers are in `jaxgen.optimizers.dynamics`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxgen.arguments import at_least_f32, require_integer
from jaxgen.optimizers.dynamics import Field, Moving


def euler(field: Field, x, step: float):
    """Euler step, x + gamma f(x): order 1.

    On the gradient flow it is SGD. It is stable for gamma h <= 2, where h is the largest eigenvalue
    of the Hessian.
    """
    return _add(x, step, field(x))


def heun(field: Field, x, step: float):
    """Heun step, x + gamma/2 (f(x) + f(x + gamma f(x))): order 2, two gradients.

    Stable for gamma h <= 2. It costs twice as much as Euler without allowing a larger step, so it
    is not useful as an optimizer (kexue.fm 5879).
    """
    first = field(x)
    return _add(_add(x, step / 2, first), step / 2, field(_add(x, step, first)))


def rk4(field: Field, x, step: float):
    """Classic Runge-Kutta step: order 4, four gradients; stable for gamma h <= 2.785."""
    k1 = field(x)
    k2 = field(_add(x, step / 2, k1))
    k3 = field(_add(x, step / 2, k2))
    k4 = field(_add(x, step, k3))
    slope = jax.tree.map(lambda a, b, c, d: (a + 2 * b + 2 * c + d) / 6, k1, k2, k3, k4)
    return _add(x, step, slope)


def leapfrog(gradient: Callable, state: Moving, step: float, friction: float) -> Moving:
    """Leapfrog step of theta'' + lambda theta' = -grad L, with velocities at the half steps.

        (1 + lambda gamma/2) v_+ = (1 - lambda gamma/2) v_- - gamma grad L(theta)
        theta_+ = theta + gamma v_+

    This is exactly SGD with momentum; `learning_rate_and_momentum` converts the parameters. It has
    order 2 and is stable for gamma^2 h <= 4, which in terms of the learning rate is
    alpha h <= 2 (1 + beta).

    SGD with momentum starts from v_- = 0 half a step before time 0. It therefore follows the
    equation with v(0) from `leapfrog_start` to O(gamma^2), and with v(0) = 0 only to O(gamma).

    Args:
      gradient: gradient function of the loss.
      state: theta at the current time, velocity half a step earlier.
      step: gamma, in time.
      friction: lambda >= 0.
    """
    half = friction * step / 2
    velocity = jax.tree.map(
        lambda v, g: ((1 - half) * v - step * g) / (1 + half),
        state.velocity,
        gradient(state.theta),
    )
    return Moving(_add(state.theta, step, velocity), velocity)


def leapfrog_start(gradient: Callable, theta, step: float, friction: float) -> Moving:
    """The state at time 0 if leapfrog starts from v_- = 0: v(0) = (v_- + v_+) / 2."""
    rest = Moving(theta, jax.tree.map(jnp.zeros_like, theta))
    after = leapfrog(gradient, rest, step, friction)
    return Moving(theta, jax.tree.map(lambda v: v / 2, after.velocity))


def integrate(field: Field, x, time: float, substeps: int):
    """Integrates x over `time` with Runge-Kutta steps in one scan.

    The error is O((time / substeps)^4) if the field is smooth in the state. From time 0 of
    `adam_flow`, whose bias correction divides by the time, it is O((time / substeps)^3).

    Args:
      field: x -> its time derivative.
      x: pytree of floating-point arrays.
      time: integration time; may be traced.
      substeps: number of steps, an integer >= 1.

    Returns:
      A tree like x, in at least f32.

    Raises:
      ValueError: substeps is not an integer >= 1.
    """
    require_integer(least=1, substeps=substeps)
    x = jax.tree.map(at_least_f32, x)
    x, _ = jax.lax.scan(lambda x, _: (rk4(field, x, time / substeps), None), x, length=substeps)
    return x


def trajectory(field: Field, x, step: float, steps: int, substeps: int = 8):
    """x at the times 0, gamma, ..., steps * gamma: a reference for the iterates of an optimizer.

    Args:
      field: x -> its time derivative.
      x: pytree of floating-point arrays, at time 0.
      step: gamma, in time.
      steps: number of steps, an integer >= 1.
      substeps: number of Runge-Kutta steps per step, an integer >= 1.

    Returns:
      A tree like x with a new first axis, [steps + 1, ...], in at least f32.

    Raises:
      ValueError: steps or substeps is not an integer >= 1.
    """
    require_integer(least=1, steps=steps, substeps=substeps)
    x = jax.tree.map(at_least_f32, x)

    def advance(x, _):
        new = integrate(field, x, step, substeps)
        return new, new

    _, path = jax.lax.scan(advance, x, length=steps)
    return jax.tree.map(lambda start, rest: jnp.concatenate([start[None], rest]), x, path)


def _add(x, step, slope):
    return jax.tree.map(lambda a, b: a + (step * b).astype(a.dtype), x, slope)
