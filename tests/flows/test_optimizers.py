"""A flow stays a density under every optimizer: no parameter is one that must not be trained."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgen import flows, optimizers
from jaxgen.models import MLP

RATE = 1e-2
KEY = jax.random.key(0)
OPTIMIZERS = {
    "sgd": optax.sgd(RATE),
    "momentum": optax.sgd(RATE, momentum=0.9, nesterov=True),
    "adabelief": optax.adabelief(RATE),
    "adadelta": optax.adadelta(1.0),
    "adafactor": optax.adafactor(RATE, weight_decay_rate=0.1),
    "adagrad": optax.adagrad(RATE),
    "adam": optax.adam(RATE),
    "adamax": optax.adamax(RATE),
    "adamw": optax.adamw(RATE),
    "adamw, large decay": optax.adamw(RATE, weight_decay=1.0),
    "adan": optax.adan(RATE, weight_decay=0.1),
    "amsgrad": optax.amsgrad(RATE),
    "fromage": optax.fromage(RATE),
    "lamb": optax.lamb(RATE, weight_decay=0.1),
    "lars": optax.lars(RATE, weight_decay=0.1),
    "lion": optax.lion(RATE, weight_decay=0.1),
    "nadamw": optax.nadamw(RATE),
    "noisy_sgd": optax.noisy_sgd(RATE, eta=1.0, key=KEY),
    "novograd": optax.novograd(RATE, weight_decay=0.1),
    "optimistic_adam": optax.optimistic_adam_v2(RATE),
    "optimistic": optax.optimistic_gradient_descent(RATE),
    "radam": optax.radam(RATE),
    "rmsprop": optax.rmsprop(RATE),
    "rprop": optax.rprop(RATE),
    "sign_sgd": optax.sign_sgd(RATE),
    "sm3": optax.sm3(RATE),
    "yogi": optax.yogi(RATE),
    "muon": optax.contrib.muon(RATE, weight_decay=0.1),
    "prodigy": optax.contrib.prodigy(0.1),
    "accumulate": optimizers.accumulate(optax.adamw(RATE), 2),
    "adax": optimizers.adax(RATE),
    "hidden_accumulation": optimizers.hidden_accumulation(optax.adam(RATE), 2),
    "jose_sgd": optimizers.jose_sgd(RATE),
    "lookahead": optimizers.lookahead(optax.adamw(RATE, weight_decay=0.1)),
    "sgld": optimizers.sgld(RATE, 0.1, KEY),
    "sphere_sgd": optimizers.sphere_sgd(RATE),
    "tiger": optimizers.tiger(RATE, weight_decay=0.1),
    "underdamped_langevin": optimizers.underdamped_langevin(RATE, 1.0, 0.1, KEY),
}

FLOW = flows.chain(
    flows.actnorm(),
    flows.invertible_1x1(),
    flows.coupling(partial(MLP, hidden=(4,)), flows.affine(0.5)),
    flows.shuffle(),
    flows.invertible_1x1(),
)
SIDE = np.linspace(-15, 15, 301)
GRID = np.stack(np.meshgrid(SIDE, SIDE), -1).reshape(-1, 2).astype(np.float32)
BATCH = np.random.default_rng(0).standard_normal((16, 2)).astype(np.float32)
START = jax.jit(FLOW.init)(jax.random.key(1), BATCH)


@jax.jit
def measured(params):
    """The integral of the density; and, of a batch, what must be zero."""
    area = (SIDE[1] - SIDE[0]) ** 2
    integral = jnp.exp(flows.log_prob(FLOW, params, GRID)).sum() * area
    z, logdet = FLOW.forward(params, BATCH)
    jacobian = jax.vmap(jax.jacfwd(lambda x: FLOW.forward(params, x[None])[0][0]))(BATCH)
    back, back_logdet = FLOW.inverse(params, z)
    claims = jnp.linalg.slogdet(jacobian)[1] - logdet, back - BATCH, back_logdet + logdet
    return integral, claims


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_trained_flow_is_a_density(name, exact_products):
    optimizer = OPTIMIZERS[name]

    @jax.jit
    def train(params):
        def step(carry, _):
            params, state = carry
            gradient = jax.grad(lambda p: -flows.log_prob(FLOW, p, BATCH).mean())(params)
            updates, state = optimizer.update(gradient, state, params)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, optimizer.init(params)), length=100)[0][0]

    params = train(START)
    moved = [
        np.abs(a - b).max() for a, b in zip(*map(jax.tree.leaves, (params, START)), strict=True)
    ]
    assert max(moved) > 1e-3
    integral, claims = measured(params)
    np.testing.assert_allclose(integral, 1, atol=1e-3)
    for error in claims:
        np.testing.assert_allclose(error, np.zeros_like(error), atol=1e-5)
