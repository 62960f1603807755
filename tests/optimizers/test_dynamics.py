from functools import partial

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.integrate import solve_ivp

from jaxgen import optimizers as opt


def loss(theta):
    """Not quadratic, coupled; a tree with two leaves."""
    x, y = theta["x"], theta["y"]
    return jnp.sum(jnp.cosh(x)) + jnp.sum((y - jnp.sin(x).sum()) ** 2) + 0.1 * jnp.sum(y**4)


gradient = jax.grad(loss)


def start():
    return {"x": jnp.array([1.0, -0.5]), "y": jnp.array([0.7])}


def run(optimizer, gradient, theta, steps):
    """Parameters after every step, the start first."""

    def step(carry, _):
        theta, state = carry
        updates, state = optimizer.update(gradient(theta), state, theta)
        theta = optax.apply_updates(theta, updates)
        return (theta, state), theta

    _, path = jax.lax.scan(step, (theta, optimizer.init(theta)), length=steps)
    return jax.tree.map(lambda s, rest: jnp.concatenate([s[None], rest]), theta, path)


def distance(a, b):
    """Largest over time and coordinates."""
    return max(
        float(jnp.max(jnp.abs(x - y))) for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True)
    )


def closed(a, b, rtol=1e-10):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=1e-12), a, b)


@pytest.mark.parametrize("alpha, beta", [(0.01, 0.9), (1.0, 0.0), (0.3, -0.5), (1e-4, 1.0)])
def test_converters_are_inverse(alpha, beta):
    step, friction = opt.step_and_friction(alpha, beta)
    assert opt.learning_rate_and_momentum(step, friction) == pytest.approx((alpha, beta), rel=1e-12)


def test_converters_known_values():
    assert opt.step_and_friction(0.01, 0.9) == pytest.approx((0.1025978, 1.0259784), rel=1e-6)
    assert opt.step_and_friction(0.5, 1.0)[1] == 0
    # Without friction: Verlet, v <- v - gamma^2 g in moves.
    assert opt.learning_rate_and_momentum(0.1, 0) == pytest.approx((0.01, 1.0))
    # lambda gamma = 2: no momentum.
    assert opt.learning_rate_and_momentum(0.1, 20.0) == pytest.approx((0.005, 0.0))


def test_euler_is_sgd(x64):
    path = run(optax.sgd(0.1), gradient, start(), 5)
    theta, euler = start(), jax.jit(partial(opt.euler, opt.gradient_flow(gradient)))
    for _ in range(5):
        theta = euler(theta, 0.1)
    closed(theta, jax.tree.map(lambda x: x[-1], path))


@pytest.mark.parametrize("alpha, beta", [(0.05, 0.9), (0.1, 0.0), (0.1, -0.3)])
def test_leapfrog_is_sgd_with_momentum(x64, alpha, beta):
    path = run(optax.sgd(alpha, momentum=beta), gradient, start(), 20)
    step, friction = opt.step_and_friction(alpha, beta)
    state = opt.Moving(start(), jax.tree.map(jnp.zeros_like, start()))
    leapfrog = jax.jit(partial(opt.leapfrog, gradient))
    for i in range(20):
        state = leapfrog(state, step, friction)
        closed(state.theta, jax.tree.map(lambda x, i=i: x[i + 1], path))


def orders(error, step):
    """log2 of error(step) / error(step / 2)."""
    return np.log2(error(step) / error(step / 2))


def test_orders_of_the_steps(x64):
    flow = opt.gradient_flow(gradient)
    exact = jax.jit(lambda: opt.trajectory(flow, start(), 0.5, 1, substeps=200))()
    end = jax.tree.map(lambda x: x[-1], exact)

    def error(method):
        def at(step):
            theta, move = start(), jax.jit(partial(method, flow))
            for _ in range(round(0.5 / step)):
                theta = move(theta, step)
            return distance(theta, end)

        return at

    for method, order in ((opt.euler, 1), (opt.heun, 2), (opt.rk4, 4)):
        assert orders(error(method), 1 / 32) == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize("tau1, tau2", [(0.3, 0.5), (0.0, 0.4)])
def test_order_along_the_adam_flow_is_3_from_time_0_and_4_later(x64, tau1, tau2):
    field = opt.adam_flow(gradient, tau1, tau2, 0.1)
    flat, unflatten = jax.flatten_util.ravel_pytree(opt.Adapting.start(start()))
    exact = solve_ivp(
        jax.jit(lambda t, y: jax.flatten_util.ravel_pytree(field(unflatten(y)))[0]),
        (0, 1),
        flat,
        method="DOP853",
        rtol=1e-13,
        atol=1e-14,
        t_eval=[0.5, 1],
    )
    later, end = map(unflatten, exact.y.T)

    def errors(substeps):
        run = partial(opt.integrate, field, time=0.5, substeps=substeps)
        ours = jax.jit(lambda *starts: [run(x).theta for x in starts])(unflatten(flat), later)
        return np.array([distance(x, y.theta) for x, y in zip(ours, (later, end), strict=True)])

    assert np.log2(errors(32) / errors(64)) == pytest.approx([3, 4], abs=0.15)


@pytest.mark.parametrize("method, limit", [(opt.euler, 2), (opt.heun, 2), (opt.rk4, 2.785)])
def test_stability_limits(method, limit):
    h = 3.0
    field = opt.gradient_flow(lambda theta: h * theta)
    shrunk = abs(method(field, jnp.array(1.0), 0.999 * limit / h))
    grown = abs(method(field, jnp.array(1.0), 1.001 * limit / h))
    assert shrunk < 1 < grown


def test_stability_of_momentum(x64):
    # alpha h = 2 (1 + beta), the largest learning rate.
    for factor, bounded in ((0.99, True), (1.01, False)):
        step, friction = opt.step_and_friction(factor * 3.8, 0.9)
        end = jax.lax.fori_loop(
            0,
            2000,
            lambda i, state: opt.leapfrog(lambda x: x, state, step, friction),  # noqa: B023
            opt.Moving(jnp.array(1.0), jnp.array(0.0)),
        )
        assert bool(jnp.abs(end.theta) < 2) == bounded


def test_integrate_against_scipy(x64):
    field = opt.heavy_ball_flow(gradient, 0.7)
    state = opt.Moving(start(), {"x": jnp.array([0.1, 0.2]), "y": jnp.array([-0.3])})
    flat, unflatten = jax.flatten_util.ravel_pytree(state)
    ours = opt.integrate(field, state, 2.0, 200)
    theirs = solve_ivp(
        jax.jit(lambda t, y: jax.flatten_util.ravel_pytree(field(unflatten(y)))[0]),
        (0, 2),
        flat,
        rtol=1e-11,
        atol=1e-12,
    )
    np.testing.assert_allclose(
        jax.flatten_util.ravel_pytree(ours)[0], theirs.y[:, -1], rtol=1e-7, atol=1e-8
    )


def test_trajectory_is_the_closed_form(x64):
    theta, h = jnp.array([1.0, -2.0]), jnp.array([1.0, 3.0])
    path = opt.trajectory(opt.gradient_flow(lambda x: h * x), theta, 0.2, 4, substeps=50)
    times = 0.2 * jnp.arange(5)[:, None]
    np.testing.assert_allclose(path, theta[None] * jnp.exp(-h[None] * times), rtol=1e-8)


def test_momentum_follows_its_equation(x64):
    """O(gamma^2) from the velocity of the leapfrog's own start, O(gamma) from rest."""
    friction = 1.0

    def error(own_start):
        def at(step):
            steps = round(2 / step)
            alpha, beta = opt.learning_rate_and_momentum(step, friction)

            @jax.jit
            def paths():
                path = run(optax.sgd(alpha, momentum=beta), gradient, start(), steps)
                state = opt.leapfrog_start(gradient, start(), step, friction)
                if not own_start:
                    state = opt.Moving(start(), jax.tree.map(jnp.zeros_like, start()))
                field = opt.heavy_ball_flow(gradient, friction)
                return path, opt.trajectory(field, state, step, steps).theta

            return distance(*paths())

        return at

    assert orders(error(True), 1 / 32) == pytest.approx(2, abs=0.1)
    assert orders(error(False), 1 / 32) == pytest.approx(1, abs=0.1)


def test_gradient_descent_follows_the_modified_flow(x64):
    """O(gamma^2) from the flow of L + gamma/4 |grad L|^2, O(gamma) from that of L."""

    def error(modified):
        def at(step):
            steps = round(1 / step)

            @jax.jit
            def paths():
                path = run(optax.sgd(step), gradient, start(), steps)
                followed = opt.modified_loss(loss, step) if modified else loss
                flow = opt.gradient_flow(jax.grad(followed))
                return path, opt.trajectory(flow, start(), step, steps)

            return distance(*paths())

        return at

    assert orders(error(True), 1 / 32) == pytest.approx(2, abs=0.1)
    assert orders(error(False), 1 / 32) == pytest.approx(1, abs=0.1)


def test_modified_loss_value():
    h = jnp.array([1.0, 3.0])
    value = opt.modified_loss(lambda x: 0.5 * jnp.sum(h * x**2), 0.2)(jnp.array([2.0, 1.0]))
    assert value == pytest.approx(0.5 * (4 + 3) + 0.05 * (4 + 9))


@pytest.mark.parametrize("tau1, tau2", [(0.3, 0.5), (0.0, 0.4)])
def test_adam_and_rmsprop_follow_their_equation(x64, tau1, tau2):
    eps = 0.1

    def error(step):
        steps = round(1 / step)
        if tau1:
            rule = optax.adam(step, 1 - step / tau1, 1 - step / tau2, eps)
        else:
            rule = optax.rmsprop(
                step, 1 - step / tau2, eps, eps_in_sqrt=False, bias_correction=True
            )

        @jax.jit
        def paths():
            path = run(rule, gradient, start(), steps)
            field = opt.adam_flow(gradient, tau1, tau2, eps)
            return path, opt.trajectory(field, opt.Adapting.start(start()), step, steps, 16).theta

        return distance(*paths())

    assert orders(error, 1 / 64) == pytest.approx(1, abs=0.2)


def test_adam_flow_becomes_the_sign_flow(x64):
    field = opt.adam_flow(gradient, 0.0, 1e-3, 0.0)

    @jax.jit
    def paths():
        path = opt.trajectory(field, opt.Adapting.start(start()), 0.01, 20, substeps=40).theta
        return path, opt.trajectory(opt.sign_flow(gradient), start(), 0.01, 20)

    path, limit = paths()
    assert distance(path, limit) < 2e-3
    # Every coordinate moves by the same amount in the same time.
    np.testing.assert_allclose(limit["x"][-1] - start()["x"], [-0.2, 0.2], rtol=1e-9)


def test_sign_flow_lowers_the_loss_by_the_l1_norm(x64):
    _, slope = jax.jvp(loss, (start(),), (opt.sign_flow(gradient)(start()),))
    norm = sum(float(jnp.abs(g).sum()) for g in jax.tree.leaves(gradient(start())))
    assert slope == pytest.approx(-norm)


def test_heavy_ball_loses_energy_to_friction(x64):
    def energy(state):
        speed = sum(jnp.sum(v**2) for v in jax.tree.leaves(state.velocity))
        return loss(state.theta) + 0.5 * speed

    state = opt.Moving(start(), {"x": jnp.array([0.5, 0.2]), "y": jnp.array([1.0])})
    _, slope = jax.jvp(energy, (state,), (opt.heavy_ball_flow(gradient, 0.6)(state),))
    assert slope == pytest.approx(-0.6 * (0.25 + 0.04 + 1.0))


def test_adam_state_can_be_donated():
    step = jax.jit(lambda x: opt.euler(opt.adam_flow(gradient, 0.5, 1.0), x, 0.1), donate_argnums=0)
    moved = step(opt.Adapting.start(start()))
    np.testing.assert_allclose(moved.time, 0.1, rtol=1e-6)


def test_adam_flow_has_finite_slopes_at_a_minimum():
    def end(x):
        field = opt.adam_flow(lambda x: x, 0.5, 1.0, eps=0.1)
        return opt.euler(field, opt.Adapting.start(x), 0.1).theta

    slope = jax.jit(jax.jacobian(end))(jnp.zeros(1))
    np.testing.assert_allclose(slope, [[0.0]], atol=1e-6)  # 1 - 0.1 / eps
