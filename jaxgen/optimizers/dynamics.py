"""Optimizers as dynamical systems: the differential equations that they discretise.

Su Jianlin, dynamics series, kexue.fm 6234 and 7787.

    optimizer            equation                            step in time
    SGD                  theta' = -grad L                    learning rate
    SGD with momentum    theta'' + lambda theta' = -grad L   sqrt(2 lr / (1 + beta))
    RMSprop              theta' = -g / (sqrt(v) + eps)       learning rate
    Adam                 theta' = -m / (sqrt(v) + eps)       learning rate

A field maps a state (any pytree of arrays) to its time derivative (a tree of the same structure).
`gradient` is always a function of the parameters alone, such as `jax.grad(loss)`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxgen.arguments import require

Field = Callable[[Any], Any]


def step_and_friction(learning_rate, momentum):
    """Converts the learning rate and momentum of SGD to the step and friction of `leapfrog`.

    SGD with momentum is v <- beta v - alpha g, theta <- theta + v. Then

        gamma = sqrt(2 alpha / (1 + beta)),   lambda = (2 / gamma) (1 - beta) / (1 + beta)

    A step with alpha = 0.01 and beta = 0.9 advances time by gamma = 0.103, ten times the learning
    rate.

    Args:
      learning_rate: alpha > 0.
      momentum: beta in (-1, 1].

    Returns:
      (step gamma in time, friction lambda >= 0); the exact inverse of
      `learning_rate_and_momentum`.

    Raises:
      ValueError: a number out of range.
    """
    require(above=0, learning_rate=learning_rate)
    require(above=-1, most=1, momentum=momentum)
    step = (2 * learning_rate / (1 + momentum)) ** 0.5
    return step, 2 / step * (1 - momentum) / (1 + momentum)


def learning_rate_and_momentum(step, friction):
    """Converts the step and friction of `leapfrog` to the learning rate and momentum of SGD.

    For the equation theta'' + lambda theta' = -grad L,

        alpha = gamma^2 / (1 + lambda gamma/2),   beta = (1 - lambda gamma/2) / (1 + lambda gamma/2)

    Args:
      step: gamma > 0, in time.
      friction: lambda >= 0; the momentum is negative if lambda > 2 / gamma.

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
    """theta' = -sign(grad L): the limit of RMSprop and Adam as their time constants go to 0.

    Derived by giving each coordinate its own step gamma_i = rho / |g_i|, so that each moves by rho
    (kexue.fm 6234). The loss falls as dL/dt = -|grad L|_1. The field is discontinuous, so
    integrators do not converge where a coordinate chatters around its minimum.
    """
    return lambda theta: jax.tree.map(lambda g: -jnp.sign(g), gradient(theta))


class Moving(NamedTuple):
    """State of a second-order equation: the parameters and their velocity, a tree like them."""

    theta: Any
    velocity: Any


def heavy_ball_flow(gradient: Callable, friction: float) -> Field:
    """theta' = v,  v' = -lambda v - grad L(theta), on states of type `Moving`.

    Polyak 1964. The energy L + |v|^2 / 2 decreases at the rate lambda |v|^2.
    """

    def field(state):
        slowing = jax.tree.map(
            lambda v, g: -friction * v - g, state.velocity, gradient(state.theta)
        )
        return Moving(state.velocity, slowing)

    return field


class Adapting(NamedTuple):
    """State of Adam's equation: parameters, both moments, time []; all but theta start at 0."""

    theta: Any
    first: Any
    second: Any
    time: jax.Array

    @classmethod
    def start(cls, theta):
        """The state at time 0: the given parameters and zero moments."""
        first, second = (jax.tree.map(jnp.zeros_like, theta) for _ in range(2))
        # zeros_like, so that under shard_map time varies over the same mesh axes as the parameters.
        return cls(theta, first, second, jnp.zeros_like(jax.tree.leaves(theta)[0], shape=()))


def adam_flow(
    gradient: Callable, first_time: float, second_time: float, eps: float = 1e-8
) -> Field:
    """theta' = -m_hat / (sqrt(v_hat) + eps), on states of type `Adapting`.

    The moments are averages of g and g^2 with time constants tau1 and tau2:

        m' = (g - m) / tau1,     m_hat = m / (1 - exp(-t / tau1)),   m_hat = g at t = 0
        v' = (g^2 - v) / tau2,   v_hat = v / (1 - exp(-t / tau2)),   v_hat = g^2 at t = 0

    Adam (Kingma & Ba 2014, arXiv 1412.6980) with learning rate gamma takes steps of size gamma in
    time, with beta_i = 1 - gamma / tau_i. RMSprop with bias correction is the case tau1 = 0. Since
    tau is a time and not a number of steps, a change of the learning rate at constant beta_i
    changes the equation. Near time 0 the division by 1 - exp(-t / tau), about t / tau, costs `rk4`
    one order: `integrate` from time 0 has order 3, from any later state order 4.

    Args:
      gradient: gradient function of the loss.
      first_time: tau1 >= 0; 0 means m = g (RMSprop).
      second_time: tau2 > 0; if both time constants go to 0, the limit is `sign_flow`.
      eps: added outside the square root, >= 0.

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
            # The derivative of sqrt at 0 is infinite, and its product with g = 0 would be NaN.
            root = jnp.where(v_hat == 0, 0, jnp.sqrt(jnp.where(v_hat == 0, 1, v_hat)))
            return -m / (root + eps)

        theta = jax.tree.map(move, mean, state.second, square)
        second = jax.tree.map(lambda x, v: (x - v) / second_time, square, state.second)
        return Adapting(theta, first, second, jnp.ones_like(state.time))

    return field


def modified_loss(loss: Callable, step: float) -> Callable:
    """L + (gamma / 4) |grad L|^2; gradient descent follows its gradient flow to O(gamma^2).

    Implicit gradient regularisation, Barrett & Dherin 2020 (arXiv 2009.11162); kexue.fm 7787. The
    distance between gradient descent and the gradient flow of L itself is O(gamma).

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
