"""Optimizers against the differential equations that they discretise.

SGD and its modified flow (Barrett & Dherin 2020, arXiv 2009.11162), momentum, Nesterov, RMSprop and
Adam (1412.6980; kexue.fm 6234, 7787), from 32 points on each of four surfaces of two variables.

    python -m experiments.optimizer_dynamics             order 1.117 of SGD, 0.5 min

Each runs with a step of time gamma and with gamma / 2, its equation beside it. `distance` is the
largest between the two; `order` is log2 of the distance at gamma over that at gamma / 2.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.lib.config import Above, AtLeast, RunConfig
from experiments.lib.dataset import generated
from experiments.lib.launch import launch
from experiments.lib.method import Method
from experiments.lib.pictures import figure
from jaxgen import optimizers


@dataclass(frozen=True)
class Config(RunConfig):
    """The knobs: the step, and what the equations hold."""

    steps: int = 250
    """Steps of each optimizer; those at half the step are twice as many."""
    batch_size: int = 32
    """Starting points on each surface."""
    step: Annotated[float, Above(0)] = 0.04
    """Time gamma of one step; also every optimizer's learning rate, but for those with momentum."""
    friction: Annotated[float, AtLeast(0)] = 1.0
    """Friction lambda of momentum: beta = (1 - lambda gamma/2) / (1 + lambda gamma/2)."""
    first_time: Annotated[float, Above(0)] = 0.2
    """Memory tau1 of Adam's first moment: beta1 = 1 - gamma / tau1."""
    second_time: Annotated[float, Above(0)] = 1.0
    """Memory tau2 of the second moment of RMSprop and Adam: beta2 = 1 - gamma / tau2."""
    epsilon: Annotated[float, AtLeast(0)] = 0.3
    """Epsilon of RMSprop and Adam."""
    substeps: Annotated[int, AtLeast(1)] = 4
    """Runge-Kutta steps of an equation in the time gamma."""
    drawn_step: Annotated[float, Above(0)] = 0.1
    """Time of one step in the picture of the trajectories, large enough to see the difference."""
    eval_every: int = 0
    """Steps between two evaluations, with pictures; 0: only at the end."""


_DRAWN = 5  # trajectories in each panel of the picture

METRICS = {
    "distance": "largest distance between the optimizer and its differential equation",
    "order": "power of the step size to which the distance is proportional",
}
SMOKE = Config(steps=4, batch_size=8, eval_every=2, log_every=1)


class Surface(NamedTuple):
    """A loss of (x, y), and the box that trajectories start in."""

    loss: Callable
    low: tuple[float, float]
    high: tuple[float, float]


# Scaled so that the largest curvature in the box is of the order of 10.
SURFACES = {
    "valley": Surface(lambda x, y: (x**2 + 10 * y**2) / 2, (-2, -1), (2, 1)),
    "rosenbrock": Surface(
        lambda x, y: ((1 - x) ** 2 + 100 * (y - x**2) ** 2) / 100, (-1.5, -0.5), (1.5, 2)
    ),
    "beale": Surface(
        lambda x, y: (
            sum((c - x + x * y**k) ** 2 for k, c in ((1, 1.5), (2, 2.25), (3, 2.625))) / 20
        ),
        (1, -0.5),
        (4, 0.8),
    ),
    "wells": Surface(lambda x, y: (x**2 - 1) ** 2 + y**2 / 2, (-1.6, -1.5), (1.6, 1.5)),
}


def loss(theta):
    """Sum over all surfaces and trajectories, theta [surfaces, N, 2]; so its gradient is theirs."""
    surfaces = zip(SURFACES.values(), theta, strict=True)
    return sum(jnp.sum(surface.loss(*points.T)) for surface, points in surfaces)


gradient = jax.grad(loss)


class System(NamedTuple):
    """An optimizer and its equation, for steps of time gamma.

    Attributes:
      optimizer: gamma -> optax transformation.
      field: gamma -> field of the equation.
      start: (theta, gamma) -> state of the equation at time 0.
    """

    optimizer: Callable
    field: Callable
    start: Callable


def systems(config: Config) -> dict[str, System]:
    """Everything that is compared."""
    tau1, tau2, eps = config.first_time, config.second_time, config.epsilon

    def momentum(nesterov):
        def rule(step):
            rate, decay = optimizers.learning_rate_and_momentum(step, config.friction)
            return optax.sgd(rate, decay, nesterov)

        return rule

    def rmsprop(step):
        return optax.rmsprop(step, 1 - step / tau2, eps, eps_in_sqrt=False, bias_correction=True)

    def heavy_ball(step):
        return optimizers.heavy_ball_flow(gradient, config.friction)

    def at_rest(theta, step):
        return optimizers.Moving(theta, jnp.zeros_like(theta))

    def moving(theta, step):
        return optimizers.leapfrog_start(gradient, theta, step, config.friction)

    def modified(step):
        return optimizers.gradient_flow(jax.grad(optimizers.modified_loss(loss, step)))

    def adam_flow(first_time):
        return lambda step: optimizers.adam_flow(gradient, first_time, tau2, eps)

    def begin_adam(theta, step):
        return optimizers.Adapting.start(theta)

    return {
        "sgd": System(optax.sgd, lambda step: optimizers.gradient_flow(gradient), _at),
        "sgd_modified": System(optax.sgd, modified, _at),
        "momentum": System(momentum(False), heavy_ball, at_rest),
        "momentum_moving": System(momentum(False), heavy_ball, moving),
        "nesterov": System(momentum(True), heavy_ball, at_rest),
        "rmsprop": System(rmsprop, adam_flow(0.0), begin_adam),
        "adam": System(
            lambda step: optax.adam(step, 1 - step / tau1, 1 - step / tau2, eps),
            adam_flow(tau1),
            begin_adam,
        ),
    }


def _at(theta, step):
    return theta


class Pair(NamedTuple):
    """An optimizer on its way, its equation, and the largest distance so far [surfaces, N]."""

    theta: Any
    moments: Any
    equation: Any
    worst: Any

    def expected(self):
        """Where the equation is."""
        return getattr(self.equation, "theta", self.equation)


def begin(system: System, theta, step: float) -> Pair:
    """Both at the starting points."""
    moments = system.optimizer(step).init(theta)
    return Pair(theta, moments, system.start(theta, step), jnp.zeros(theta.shape[:-1]))


def advance(system: System, pair: Pair, step: float, steps: int, substeps: int) -> Pair:
    """Several steps of the optimizer, and its equation for as long."""
    rule, theta, moments = system.optimizer(step), pair.theta, pair.moments
    for _ in range(steps):
        updates, moments = rule.update(gradient(theta), moments, theta)
        theta = optax.apply_updates(theta, updates)
    equation = optimizers.integrate(system.field(step), pair.equation, steps * step, substeps)
    moved = Pair(theta, moments, equation, pair.worst)
    return moved._replace(worst=jnp.maximum(pair.worst, distance(moved)))


def distance(pair: Pair):
    """Between the optimizer and its equation now, [surfaces, N]."""
    return jnp.linalg.norm(pair.theta - pair.expected(), axis=-1)


def starting_points(config: Config, key):
    """Uniform in the box of each surface, [surfaces, N, 2]."""
    boxes = [(np.array(s.low), np.array(s.high)) for s in SURFACES.values()]
    low, high = (np.stack(side)[:, None] for side in zip(*boxes, strict=True))
    shape = (len(SURFACES), config.batch_size, 2)
    return low + (high - low) * jax.random.uniform(key, shape)


def build(config: Config):
    """All optimizers and their equations, from random starting points."""
    compared = systems(config)

    def init(key, batch):
        theta = starting_points(config, key)
        pairs = {
            name: (begin(system, theta, config.step), begin(system, theta, config.step / 2))
            for name, system in compared.items()
        }
        return {"pairs": pairs, "start": theta, "done": jnp.zeros([], jnp.int32)}

    def step(state, batch, key):
        pairs = {
            name: (
                advance(compared[name], coarse, config.step, 1, config.substeps),
                advance(compared[name], fine, config.step / 2, 2, config.substeps),
            )
            for name, (coarse, fine) in state["pairs"].items()
        }
        metrics = {
            f"{name}/distance": jnp.mean(distance(coarse)) for name, (coarse, _) in pairs.items()
        }
        return state | {"pairs": pairs, "done": state["done"] + 1}, metrics

    @jax.jit
    def judge(state, key):
        report = {}
        for name, pair in state["pairs"].items():
            report[f"{name}/distance"] = jnp.mean(pair[0].worst)
            report[f"{name}/order"] = jnp.mean(order(*pair))
        return report

    method = Method(init, step, judge=judge, pictures=pictures(config), meanings=METRICS)
    return generated(config.batch_size), method


def order(coarse: Pair, fine: Pair):
    """p, where the largest distance is proportional to gamma^p: log2 of coarse / fine."""
    return jnp.log2(coarse.worst / fine.worst)


def pictures(config: Config):
    """Trajectories of the first starting points on their surfaces, and all orders."""
    compared = systems(config)
    step = config.drawn_step
    length = max(1, round(config.steps * config.step / step))

    @jax.jit
    def paths(theta):
        """{name: (optimizer, equation)}, each [length + 1, surfaces, n, 2]."""

        def run(system):
            def body(pair, _):
                pair = advance(system, pair, step, 1, config.substeps)
                return pair, (pair.theta, pair.expected())

            _, path = jax.lax.scan(body, begin(system, theta, step), length=length)
            return [jnp.concatenate([theta[None], part]) for part in path]

        return {name: run(system) for name, system in compared.items()}

    def draw(state, batch, key):
        shown = round(float(state["done"]) * config.step / step) + 1
        drawn = jax.device_get(paths(state["start"][:, :_DRAWN]))
        names = ["sgd", "momentum", "nesterov", "rmsprop", "adam"]
        orders = {name: np.asarray(order(*pair)) for name, pair in state["pairs"].items()}
        return {
            "trajectories": figure(
                lambda sheet: _draw_paths(sheet, {n: drawn[n] for n in names}, shown, step), 15, 12
            ),
            "orders": figure(lambda sheet: _draw_orders(sheet, orders), 10, 5),
        }

    return draw


def _draw_paths(sheet, paths, shown: int, step: float) -> None:
    axes = sheet.subplots(len(SURFACES), len(paths))
    for row, (surface_name, surface) in enumerate(SURFACES.items()):
        (left, bottom), (right, top) = np.array(surface.low) - 0.3, np.array(surface.high) + 0.3
        x, y = np.meshgrid(np.linspace(left, right, 80), np.linspace(bottom, top, 80))
        height = np.log(np.asarray(surface.loss(x, y)) + 1e-2)
        for axis, (name, (optimizer, equation)) in zip(axes[row], paths.items(), strict=True):
            axis.contour(x, y, height, 12, cmap="Greys_r", linewidths=0.6)
            for path, style, label in (
                (equation, "k--", "its equation"),
                (optimizer, "C1.-", f"the optimizer, a dot for each step of time {step:g}"),
            ):
                for i in range(path.shape[2]):
                    points = path[:shown, row, i]
                    name_once = label if i == 0 else None
                    axis.plot(*points.T, style, linewidth=0.9, markersize=2.5, label=name_once)
            axis.plot(*optimizer[0, row].T, "ko", markersize=3, label="starting points")
            axis.set(xlim=(left, right), ylim=(bottom, top), xticks=[], yticks=[])
            axis.set_title(f"{name}, {surface_name}", fontsize=9)
    sheet.suptitle("Optimizers and their equations; grey: levels of the log of the loss")
    sheet.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)


def _draw_orders(sheet, orders) -> None:
    axis = sheet.subplots()
    for place, values in enumerate(orders.values()):
        for i, surface in enumerate(SURFACES):
            x = place + 0.15 * (i - 1.5)
            axis.plot(np.full(values[i].shape, x), values[i], f"C{i}.", alpha=0.4)
            label = surface if place == 0 else None
            axis.plot([x], [np.median(values[i])], f"C{i}_", markersize=12, label=label)
    axis.set_xticks(range(len(orders)), orders, fontsize=8)
    axis.set(
        title="distance between an optimizer and its equation ~ step^order",
        ylim=(0, 3),
        xlabel="optimizer; a dot for each starting point, a bar for the median of a surface",
        ylabel="order",
    )
    axis.grid(axis="y")
    sheet.legend(loc="outside right upper", title="surface")


if __name__ == "__main__":
    launch(build, Config)
