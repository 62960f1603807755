"""Every public function under jit, grad, vmap, pmap and shard_map, in f32, bf16 and f64."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgen import optimizers


def draw(rng):
    """Parameters and three gradients of each."""

    def tree(*lead):
        return {
            "kernel": rng.standard_normal((*lead, 3, 4)),
            "bias": rng.standard_normal((*lead, 4)),
        }

    return tree(), tree(3)


def run(optimizer, params, gradients, **extra_args):
    """Three steps: the parameters after them, and the optimizer's state."""
    state = optimizer.init(params)
    for i in range(3):
        gradient = jax.tree.map(lambda g, i=i: g[i], gradients)
        updates, state = optimizer.update(gradient, state, params, **extra_args)
        params = optax.apply_updates(params, updates)
    return params, state


momentum = optax.chain(optax.trace(0.5), optax.scale(-0.1))

key = jax.random.key(0)
rate = optax.scale(-0.1)
tables = {"kernel": True, "bias": False}


def draw_rows(rng):
    """`draw`, with gradients that leave out a row."""
    params, gradients = draw(rng)
    gradients["kernel"][:, 1] = 0
    return params, gradients


def draw_kernel(rng):
    """`draw` of one leaf: drawing noise takes long to compile."""
    return rng.standard_normal((3, 4)), rng.standard_normal((3, 3, 4))


def draw_pair(rng):
    """Parameters and an average of them."""
    return draw(rng)[0], draw(rng)[0]


def draw_units(rng):
    """Unit vectors, and three gradients of them."""
    x = rng.standard_normal((3, 4))
    return x / np.linalg.norm(x, axis=-1, keepdims=True), rng.standard_normal((3, 3, 4))


def draw_steps(rng):
    """Unit vectors, steps of some, and of how many each step is."""
    x = rng.standard_normal((3, 4))
    unit = x / np.linalg.norm(x, axis=-1, keepdims=True)
    return unit, rng.standard_normal((4, 4)), 1 + rng.random(4)


def draw_point(rng):
    """Where a flow starts, and the curvature there."""
    return rng.standard_normal(3), 1 + rng.random(3)


def draw_moving(rng):
    """A point, a velocity and the curvature."""
    return rng.standard_normal(3), rng.standard_normal(3), 1 + rng.random(3)


def gradient_of(h):
    """Of sum h (x^2 / 2 + x^4 / 4)."""
    return lambda x: h * (x + x**3)


def flow(h):
    """The gradient flow."""
    return optimizers.gradient_flow(gradient_of(h))


def adam_path(x, h):
    """Adam's equation, at time 0 and later."""
    field = optimizers.adam_flow(gradient_of(h), 0.5, 1.0, 0.1)
    return optimizers.heun(field, optimizers.Adapting.start(x), 0.1).theta


def labelled(x, gradients):
    """The parameters that are kernels, twice as large."""
    labels = optimizers.tiger_labels(x)
    return jax.tree.map(lambda p, label: 2 * p if label == "kernel" else p, x, labels), gradients


def converted(x, h):
    """Numbers that a transformation hides."""
    step, friction = optimizers.step_and_friction(jnp.exp(x), jnp.tanh(h))
    return step, friction, optimizers.learning_rate_and_momentum(step, friction)


# What is not a transformation itself is shown inside one.
CASES = {
    "accumulate": (partial(run, optimizers.accumulate(momentum, 2), weight=3.0), draw),
    "by_path": (
        partial(run, optimizers.scale_by_tree(optimizers.by_path({"bias": 2.0, "": 0.5}))),
        draw,
    ),
    "clip_by_leaf_l1_norm": (partial(run, optimizers.clip_by_leaf_l1_norm(2.0)), draw),
    "clip_by_leaf_norm": (partial(run, optimizers.clip_by_leaf_norm(2.0)), draw),
    "hidden_accumulation": (partial(run, optimizers.hidden_accumulation(momentum, 2, 0.7)), draw),
    "layer_wise_decay": (
        partial(
            run,
            optimizers.scale_by_tree(
                optimizers.layer_wise_decay({"bias": 1, "kernel": [0, 1, 2]}, 0.5, 2)
            ),
        ),
        draw,
    ),
    "map_gradients": (
        partial(run, optimizers.map_gradients({"": lambda g: g / (1 + g * g)})),
        draw,
    ),
    "scale_by_tree": (
        partial(run, optimizers.scale_by_tree({"kernel": np.full((3, 1), 0.5), "bias": 2})),
        draw,
    ),
    "add_to_unit_rows": (
        lambda x, steps, counts: optimizers.add_to_unit_rows(
            x, jnp.array([1, 0, 1, 9]), steps, counts, 2.0
        ),
        draw_steps,
    ),
    "adam_flow": (adam_path, draw_point),
    "adax": (partial(run, optimizers.adax(0.1)), draw),
    "euler": (lambda x, h: optimizers.euler(flow(h), x, 0.1), draw_point),
    "finite_ema": (partial(run, optimizers.finite_ema(0.9)), draw),
    "gradient_flow": (lambda x, h: flow(h)(x), draw_point),
    "heavy_ball_flow": (
        lambda x, v, h: optimizers.heavy_ball_flow(gradient_of(h), 0.5)(optimizers.Moving(x, v)),
        draw_moving,
    ),
    "heun": (lambda x, h: optimizers.heun(flow(h), x, 0.1), draw_point),
    "integrate": (lambda x, h: optimizers.integrate(flow(h), x, 0.3, 3), draw_point),
    "jose_sgd": (partial(run, optimizers.jose_sgd(0.1)), draw_units),
    "lamb": (partial(run, optimizers.lamb(0.1, adapted=tables, stacked=True)), draw),
    "lazy_rows": (partial(run, optimizers.lazy_rows(momentum, tables)), draw_rows),
    "lazy_updates": (partial(run, optimizers.lazy_updates(momentum, tables)), draw_rows),
    "leapfrog": (
        lambda x, v, h: optimizers.leapfrog(gradient_of(h), optimizers.Moving(x, v), 0.1, 0.5),
        draw_moving,
    ),
    "leapfrog_start": (
        lambda x, h: optimizers.leapfrog_start(gradient_of(h), x, 0.1, 0.5),
        draw_point,
    ),
    "learning_rate_and_momentum": (converted, draw_point),
    "lookahead": (partial(run, optimizers.lookahead(momentum, 2)), draw),
    "modified_loss": (
        lambda x, h: optimizers.modified_loss(lambda y: jnp.sum(h * y**4), 0.1)(x),
        draw_point,
    ),
    "project_by_cosine": (
        partial(run, optax.chain(optimizers.project_by_cosine(), rate)),
        draw_units,
    ),
    "project_to_tangent": (
        partial(run, optax.chain(optimizers.project_to_tangent(), rate)),
        draw_units,
    ),
    "retract_to_sphere": (partial(run, optimizers.retract_to_sphere()), draw_units),
    "rk4": (lambda x, h: optimizers.rk4(flow(h), x, 0.1), draw_point),
    "scale_by_adax": (partial(run, optimizers.scale_by_adax()), draw),
    "scale_by_layer_trust_ratio": (
        partial(run, optax.chain(optimizers.scale_by_layer_trust_ratio(tables), rate)),
        draw,
    ),
    "scale_by_row_rms": (partial(run, optimizers.scale_by_row_rms()), draw),
    "sgld": (partial(run, optimizers.sgld(0.1, 0.5, key)), draw_kernel),
    "shrink_where_nan": (partial(run, optimizers.shrink_where_nan()), draw),
    "sign_flow": (lambda x, h: optimizers.sign_flow(gradient_of(h))(x), draw_point),
    "sphere_sgd": (partial(run, optimizers.sphere_sgd(0.1)), draw_units),
    "step_and_friction": (converted, draw_point),
    "tiger": (partial(run, optimizers.tiger(0.1)), draw),
    "tiger_labels": (labelled, draw),
    "trajectory": (lambda x, h: optimizers.trajectory(flow(h), x, 0.1, 3, 2), draw_point),
    "underdamped_langevin": (
        partial(run, optimizers.underdamped_langevin(0.3, 1.0, 0.5, key)),
        draw_kernel,
    ),
    "update_ema": (partial(optimizers.update_ema, count=3), draw_pair),
}


@pytest.mark.parametrize("name", CASES)
def test_works_everywhere(name, works_everywhere):
    works_everywhere(*CASES[name])


def test_the_table_is_complete():
    states = {name for name in optimizers.__all__ if name.endswith("State")}
    functions = set(optimizers.__all__) - states - {"Adapting", "Moving"}
    assert functions == CASES.keys()
