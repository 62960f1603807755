"""Optimizers as dynamical systems: the equations they discretise, and steps of these equations.

Su Jianlin, kexue.fm 6234 and 7787, of the dynamics series.

    optimizer            equation                            step in time
    SGD                  theta' = -grad L                    learning rate
    SGD with momentum    theta'' + lambda theta' = -grad L   sqrt(2 lr / (1 + beta))
    RMSprop              theta' = -g / (sqrt(v) + eps)       learning rate
    Adam                 theta' = -m / (sqrt(v) + eps)       learning rate

A field maps a state, any pytree of arrays, to its time derivative, a tree like it. `gradient` is
always a function of the parameters alone: `jax.grad(loss)`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxgen.arguments import at_least_f32, require

Field = Callable[[Any], Any]


def step_and_friction(learning_rate, momentum):
    """(alpha, beta) of v <- beta v - alpha g, theta <- theta + v, to (gamma, lambda) in time.

    gamma = sqrt(2 alpha / (1 + beta)),  lambda = (2 / gamma) (1 - beta) / (1 + beta). One step of
    alpha = 0.01, beta = 0.9 takes gamma = 0.103 of time, ten times the learning rate.

    Args:
      learning_rate: alpha > 0.
      momentum: beta in (-1, 1].

    Returns:
      (step gamma in time, friction lambda >= 0) of `leapfrog`; exact inverse of
      `learning_rate_and_momentum`.

    Raises:
      ValueError: a number out of range.
    """
    require("step_and_friction", above=0, learning_rate=learning_rate)
    require("step_and_friction", above=-1, most=1, momentum=momentum)
    step = (2 * learning_rate / (1 + momentum)) ** 0.5
    return step, 2 / step * (1 - momentum) / (1 + momentum)


def learning_rate_and_momentum(step, friction):
    """(gamma, lambda) of theta'' + lambda theta' = -grad L to (alpha, beta) of SGD with momentum.

    alpha = gamma^2 / (1 + lambda gamma/2),  beta = (1 - lambda gamma/2) / (1 + lambda gamma/2).

    Args:
      step: gamma > 0, in time.
      friction: lambda >= 0; the momentum is negative beyond 2 / gamma.

    Returns:
      (learning rate alpha, momentum beta).

    Raises:
      ValueError: a number out of range.
    """
    require("learning_rate_and_momentum", above=0, step=step)
    require("learning_rate_and_momentum", least=0, friction=friction)
    half = friction * step / 2
    return step**2 / (1 + half), (1 - half) / (1 + half)


def gradient_flow(gradient: Callable) -> Field:
    """theta' = -grad L(theta)."""
    return lambda theta: jax.tree.map(jnp.negative, gradient(theta))


def sign_flow(gradient: Callable) -> Field:
    """theta' = -sign(grad L): what RMSprop and Adam become as their memories go to 0.

    From a step for each coordinate, gamma_i = rho / |g_i|, so that each moves by rho (kexue.fm
    6234); dL/dt = -|grad L|_1. Not continuous, so no integrator converges where it chatters.
    """
    return lambda theta: jax.tree.map(lambda g: -jnp.sign(g), gradient(theta))


class Moving(NamedTuple):
    """State of second-order equations: parameters, and velocity, a tree like them."""

    theta: Any
    velocity: Any


def heavy_ball_flow(gradient: Callable, friction: float) -> Field:
    """theta' = v,  v' = -lambda v - grad L(theta), on states `Moving`.

    Polyak 1964. Energy L + |v|^2 / 2 falls at the rate lambda |v|^2.
    """

    def field(state):
        slowing = jax.tree.map(
            lambda v, g: -friction * v - g, state.velocity, gradient(state.theta)
        )
        return Moving(state.velocity, slowing)

    return field


class Adapting(NamedTuple):
    """State of Adam's equation: parameters, moments (0 at the start), and time [] (0)."""

    theta: Any
    first: Any
    second: Any
    time: jax.Array

    @classmethod
    def start(cls, theta):
        """Parameters, at rest at time 0."""
        first, second = (jax.tree.map(jnp.zeros_like, theta) for _ in range(2))
        # zeros_like, so that in shard_map time varies over the mesh as the parameters do.
        return cls(theta, first, second, jnp.zeros_like(jax.tree.leaves(theta)[0], shape=()))


def adam_flow(
    gradient: Callable, first_time: float, second_time: float, eps: float = 1e-8
) -> Field:
    """theta' = -m_hat / (sqrt(v_hat) + eps), m and v the averages of g and g^2, on `Adapting`.

    m' = (g - m) / tau1,  v' = (g^2 - v) / tau2,  m_hat = m / (1 - exp(-t / tau1)), v_hat likewise;
    at t = 0, m_hat = g and v_hat = g^2. Adam (Kingma & Ba 2014, arXiv 1412.6980) with learning
    rate gamma is a step gamma of it, beta_i = 1 - gamma / tau_i, and RMSprop with bias correction
    is tau1 = 0. The averages remember a time tau, not a number of steps: halve the learning rate
    alone and the equation is another one.

    Args:
      gradient: of the loss.
      first_time: tau1 >= 0; at 0, m = g: RMSprop.
      second_time: tau2 > 0; towards 0 with tau1 it becomes the sign flow.
      eps: outside the square root, >= 0.

    Raises:
      ValueError: a number out of range.
    """
    require("adam_flow", least=0, first_time=first_time, eps=eps)
    require("adam_flow", above=0, second_time=second_time)

    def corrected(average, now, time, tau):
        started = time > 0
        share = -jnp.expm1(-jnp.where(started, time, 1) / tau)
        return jnp.where(started, average / share, now)

    def field(state):
        g = gradient(state.theta)
        square = jax.tree.map(jnp.square, g)
        if first_time:
            mean = jax.tree.map(
                lambda m, x: corrected(m, x, state.time, first_time), state.first, g
            )
            first = jax.tree.map(lambda x, m: (x - m) / first_time, g, state.first)
        else:
            mean, first = g, jax.tree.map(jnp.zeros_like, g)

        def move(m, v, x):
            v_hat = corrected(v, x, state.time, second_time)
            # The slope of the root at 0 is infinite; g = 0 there, and 0 * infinity is NaN.
            root = jnp.where(v_hat == 0, 0, jnp.sqrt(jnp.where(v_hat == 0, 1, v_hat)))
            return -m / (root + eps)

        theta = jax.tree.map(move, mean, state.second, square)
        second = jax.tree.map(lambda x, v: (x - v) / second_time, square, state.second)
        return Adapting(theta, first, second, jnp.ones_like(state.time))

    return field


def modified_loss(loss: Callable, step: float) -> Callable:
    """L + (gamma / 4) |grad L|^2, whose gradient flow gradient descent follows to O(gamma^2).

    Implicit gradient regularisation, Barrett & Dherin 2020 (arXiv 2009.11162); kexue.fm 7787. The
    trajectory of gradient descent is only O(gamma) away from the flow of L itself.

    Args:
      loss: parameters -> scalar.
      step: gamma, the learning rate, >= 0.

    Raises:
      ValueError: step < 0.
    """
    require("modified_loss", least=0, step=step)

    def modified(theta):
        value, g = jax.value_and_grad(loss)(theta)
        return value + step / 4 * sum(jnp.sum(jnp.square(x)) for x in jax.tree.leaves(g))

    return modified


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
