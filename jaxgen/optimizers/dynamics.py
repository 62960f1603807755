"""Optimizers as dynamical systems: the equations that they discretise.

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

from jaxgen.arguments import require

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
    require(above=0, learning_rate=learning_rate)
    require(above=-1, most=1, momentum=momentum)
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
    require(above=0, step=step)
    require(least=0, friction=friction)
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
    require(least=0, first_time=first_time, eps=eps)
    require(above=0, second_time=second_time)

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
    require(least=0, step=step)

    def modified(theta):
        value, g = jax.value_and_grad(loss)(theta)
        return value + step / 4 * sum(jnp.sum(jnp.square(x)) for x in jax.tree.leaves(g))

    return modified
