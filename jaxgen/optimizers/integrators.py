"""Steps of differential equations, and trajectories to hold optimizers against.

A field maps a state, any pytree of arrays, to its time derivative, a tree like it; those of
optimizers are in `jaxgen.optimizers.dynamics`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxgen.arguments import at_least_f32
from jaxgen.optimizers.dynamics import Field, Moving


def euler(field: Field, x, step: float):
    """x + gamma f(x): order 1; on the gradient flow it is SGD, stable for gamma h <= 2.

    h is the largest curvature, the top eigenvalue of the Hessian.
    """
    return _add(x, step, field(x))


def heun(field: Field, x, step: float):
    """x + gamma/2 (f(x) + f(x + gamma f(x))): order 2, two gradients; stable for gamma h <= 2.

    Twice the price of Euler for no larger stable step, so no optimizer (kexue.fm 5879).
    """
    first = field(x)
    return _add(_add(x, step / 2, first), step / 2, field(_add(x, step, first)))


def rk4(field: Field, x, step: float):
    """The classic Runge-Kutta step: order 4, four gradients; stable for gamma h <= 2.785."""
    k1 = field(x)
    k2 = field(_add(x, step / 2, k1))
    k3 = field(_add(x, step / 2, k2))
    k4 = field(_add(x, step, k3))
    slope = jax.tree.map(lambda a, b, c, d: (a + 2 * b + 2 * c + d) / 6, k1, k2, k3, k4)
    return _add(x, step, slope)


def leapfrog(gradient: Callable, state: Moving, step: float, friction: float) -> Moving:
    """One step of theta'' + lambda theta' = -grad L; velocities live between the parameters.

    (1 + lambda gamma/2) v_+ = (1 - lambda gamma/2) v_- - gamma grad L(theta),
    theta_+ = theta + gamma v_+. It is SGD with momentum, exactly, with the numbers of
    `learning_rate_and_momentum`; order 2; stable for gamma^2 h <= 4, which for the learning rate
    is alpha h <= 2 (1 + beta).

    SGD with momentum starts at v_- = 0, half a step before the parameters, so it follows the
    equation with v(0) = `leapfrog_start` to O(gamma^2), and the one with v(0) = 0 to O(gamma).

    Args:
      gradient: of the loss.
      state: theta now, velocity half a step ago.
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
    """The state at time 0 of a leapfrog that starts with v_- = 0: v(0) = (v_- + v_+) / 2."""
    rest = Moving(theta, jax.tree.map(jnp.zeros_like, theta))
    after = leapfrog(gradient, rest, step, friction)
    return Moving(theta, jax.tree.map(lambda v: v / 2, after.velocity))


def integrate(field: Field, x, time: float, substeps: int):
    """x after `time`, by that many Runge-Kutta steps in one scan: error O((time / substeps)^4).

    Args:
      field: x -> its time derivative.
      x: pytree of floating-point arrays.
      time: how long, a number or traced.
      substeps: how many, at least 1.

    Returns:
      A tree like x, in at least f32.

    Raises:
      ValueError: substeps is not an integer >= 1.
    """
    _check_count("integrate", substeps=substeps)
    x = jax.tree.map(at_least_f32, x)
    x, _ = jax.lax.scan(lambda x, _: (rk4(field, x, time / substeps), None), x, length=substeps)
    return x


def trajectory(field: Field, x, step: float, steps: int, substeps: int = 8):
    """x at the times 0, gamma, ..., steps * gamma: the reference that an optimizer is held to.

    Args:
      field: x -> its time derivative.
      x: pytree of floating-point arrays, at time 0.
      step: gamma, in time.
      steps: how many, at least 1.
      substeps: Runge-Kutta steps in each.

    Returns:
      A tree like x with a new first axis, [steps + 1, ...], in at least f32.

    Raises:
      ValueError: steps or substeps is not an integer >= 1.
    """
    _check_count("trajectory", steps=steps, substeps=substeps)
    x = jax.tree.map(at_least_f32, x)

    def advance(x, _):
        new = integrate(field, x, step, substeps)
        return new, new

    _, path = jax.lax.scan(advance, x, length=steps)
    return jax.tree.map(lambda start, rest: jnp.concatenate([start[None], rest]), x, path)


def _check_count(where: str, **counts) -> None:
    for name, count in counts.items():
        # `lax.scan` would cut 2.5 steps to 2, of the size for 2.5.
        if count < 1 or count % 1:
            raise ValueError(f"{where}: {name} {count}; expected an integer >= 1")


def _add(x, step, slope):
    return jax.tree.map(lambda a, b: a + (step * b).astype(a.dtype), x, slope)
