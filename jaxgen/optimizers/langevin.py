"""Langevin dynamics as optimizers: parameters become samples of exp(-L / T).

Several chains need noise of their own. Stack them on a first axis of every parameter: one `init`
and one `update` then move them all. Under `jax.vmap` give `init` a key for each,

    states = jax.vmap(optimizer.init)(thetas, jax.random.split(key, n_chains))

since `init` without a key uses that of the optimizer, the same in every chain. In `optax.chain`,
whose `init` takes no key, make the optimizer inside: `lambda key, x: chain(key).init(x)`.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxgen.arguments import at_least_f32, require
from jaxgen.optimizers.dynamics import learning_rate_and_momentum
from jaxgen.optimizers.leaves import cast_updates, real_floats, zeros


class SgldState(NamedTuple):
    """Steps done [] and the key of the next step."""

    steps: jax.Array
    key: jax.Array


def sgld(
    learning_rate: optax.ScalarOrSchedule, temperature: float, key: jax.Array
) -> optax.GradientTransformation:
    """Stochastic gradient Langevin dynamics (SGLD).

        theta <- theta - gamma g + sqrt(2 gamma T) xi,   xi ~ N(0, 1)

    Welling & Teh 2011; the Euler-Maruyama step of d theta = -grad L dt + sqrt(2 T) dW, whose
    stationary density is exp(-L / T). L is the total loss. For a Bayesian posterior, T = 1 and L is
    the sum over the data plus the negative log-prior, so multiply a mean by the number of examples.
    A finite step widens the density: on h theta^2 / 2 the variance is T / (h (1 - gamma h / 2)).
    `optax.add_noise` cannot express this, because the learning rate scales its noise and the noise
    has its own schedule.

    Args:
      learning_rate: gamma > 0, a number or a schedule; it scales the noise as well.
      temperature: T > 0; T -> 0 gives SGD.
      key: key of the noise; all devices that hold a copy of the parameters must use the same key.

    Returns:
      A transformation of real parameters; `init(params, key)` takes another key, one per chain.

    Raises:
      ValueError: temperature <= 0, or a constant learning rate < 0.
    """
    require(above=0, temperature=temperature)
    if not callable(learning_rate):
        require(least=0, learning_rate=learning_rate)

    def init(params, key=key):
        del params
        return SgldState(jnp.zeros([], jnp.int32), jax.random.clone(key))

    def update(updates, state, params=None):
        updates = real_floats(updates)
        gamma = learning_rate(state.steps) if callable(learning_rate) else learning_rate
        key, subkey = jax.random.split(state.key)
        sigma = jnp.sqrt(2 * gamma * temperature)

        def move(g, xi):
            return sigma.astype(xi.dtype) * xi - gamma * g.astype(xi.dtype)

        new = jax.tree.map(move, updates, _normal_like(subkey, updates))
        new_state = SgldState(optax.safe_increment(state.steps), key)
        return cast_updates(new, updates, params), new_state

    return optax.GradientTransformation(init, update)


class LangevinState(NamedTuple):
    """Last step u = gamma v of the parameters, in at least f32, and the key of the next step."""

    move: Any
    key: jax.Array


def underdamped_langevin(
    step: float, friction: float, temperature: float, key: jax.Array
) -> optax.GradientTransformation:
    """Underdamped Langevin dynamics: SGD with momentum, plus noise of temperature T.

    Discretises theta'' + lambda theta' = -grad L + sqrt(2 lambda T) W', whose stationary density
    is exp(-(L + v^2/2) / T), by the leapfrog of Brunger, Brooks & Karplus 1984:

        (1 + lambda gamma/2) v <- (1 - lambda gamma/2) v - gamma g + sqrt(2 lambda T gamma) xi
        theta <- theta + gamma v

    Without noise this is SGD with momentum (see `learning_rate_and_momentum`). At lambda gamma = 2
    the momentum is 0 and this is `sgld` with the learning rate gamma^2 / 2.

    Args:
      step: gamma > 0, in time.
      friction: lambda > 0.
      temperature: T > 0.
      key: key of the noise; all devices that hold a copy of the parameters must use the same key.

    Returns:
      A transformation of real parameters; `init(params, key)` takes another key, one per chain.

    Raises:
      ValueError: a number out of range.
    """
    require(above=0, step=step, friction=friction, temperature=temperature)
    alpha, beta = learning_rate_and_momentum(step, friction)
    sigma = step * (2 * friction * temperature * step) ** 0.5 / (1 + friction * step / 2)

    def init(params, key=key):
        return LangevinState(zeros(params), jax.random.clone(key))

    def update(updates, state, params=None):
        updates = real_floats(updates)
        key, subkey = jax.random.split(state.key)
        move = jax.tree.map(
            lambda u, g, xi: (beta * u - alpha * g + sigma * xi).astype(u.dtype),
            state.move,
            updates,
            _normal_like(subkey, updates),
        )
        return cast_updates(move, updates, params), LangevinState(move, key)

    return optax.GradientTransformation(init, update)


def _normal_like(key, tree):
    """Standard normal noise in at least f32, independent for every leaf.

    It is drawn in f32, so that a key gives the same noise in every precision.
    """
    leaves, treedef = jax.tree.flatten(tree)
    noise = [
        jax.random.normal(subkey, leaf.shape, jnp.float32).astype(at_least_f32(leaf).dtype)
        for subkey, leaf in zip(jax.random.split(key, len(leaves)), leaves, strict=True)
    ]
    return jax.tree.unflatten(treedef, noise)
