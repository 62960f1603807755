import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen import flows


def normal(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("shape", [(200, 3), (8, 5, 6, 3)])
def test_actnorm_init_normalises_every_channel(shape):
    x = normal(shape) * np.float32([0.1, 1.0, 30.0]) + np.float32([4.0, 0.0, -90.0])
    flow = flows.actnorm(eps=1e-6)
    z, _ = flow.forward(flow.init(jax.random.key(0), x), x)
    axes = tuple(range(x.ndim - 1))
    np.testing.assert_allclose(z.mean(axes), np.zeros(3), atol=1e-5)
    np.testing.assert_allclose(z.std(axes), np.ones(3), rtol=1e-4)


@pytest.mark.parametrize("depth", [4, 16])
def test_a_constant_channel_is_not_amplified_by_depth(depth):
    """Every layer of 1 / eps = 1000 turned a row moved by 1e-3 into -5e17 at depth 4."""
    x = np.concatenate([normal((64, 3)), np.full((64, 1), 0.1, np.float32)], axis=1)
    flow = flows.repeat(flows.chain(flows.actnorm(), flows.scaling()), depth)
    params = flow.init(jax.random.key(0), x)
    moved = flow.forward(params, x[:1] + np.float32(1e-3))[0] - flow.forward(params, x[:1])[0]
    np.testing.assert_allclose(moved[0, 3], 1e-3, rtol=1e-3)
    assert np.abs(moved).max() < 0.01


@pytest.mark.parametrize("value", [0.1, 7.0, -1e5])
def test_a_channel_that_varies_by_rounding_alone_keeps_its_scale(value):
    """The mean of 100,000 equal numbers is off by rounding, which is no standard deviation."""
    constant = np.full((100_000, 1), value, np.float32)
    noisy = constant * (1 + 2e-7 * normal(constant.shape))
    x = np.concatenate([constant, noisy], axis=1)
    params = jax.jit(flows.actnorm().init)(jax.random.key(0), x)
    np.testing.assert_array_equal(params["log_scale"], [0, 0])
    np.testing.assert_allclose(params["shift"], [-value, -value], rtol=1e-6)
    params = flows.scaling(eps=0).init(jax.random.key(0), x)
    np.testing.assert_array_equal(params["log_scale"], [0, 0])


def test_statistics_of_a_batch_with_nan_are_nan():
    x = normal((8, 2))
    x[3, 0] = np.nan
    params = flows.actnorm().init(jax.random.key(0), x)
    for leaf in params.values():
        np.testing.assert_array_equal(np.isnan(leaf), [True, False])


def test_actnorm_and_scaling_values():
    x = jnp.array([[[[1.0, -2.0]], [[3.0, 5.0]]]])  # two positions
    log_scale, shift = jnp.array([[[0.5, -1.0]]]), jnp.array([[[10.0, 20.0]]])
    z, logdet = flows.actnorm().forward({"shift": shift, "log_scale": log_scale}, x)
    scale = np.exp([0.5, -1.0])
    np.testing.assert_allclose(z[0, :, 0], [[11, 18], [13, 25]] * scale, rtol=1e-6)
    np.testing.assert_allclose(logdet, [2 * (0.5 - 1.0)], rtol=1e-6)
    z, logdet = flows.scaling().forward({"log_scale": log_scale}, x)
    np.testing.assert_allclose(z[0, :, 0], [[1, -2], [3, 5]] * scale, rtol=1e-6)
    np.testing.assert_allclose(logdet, [2 * (0.5 - 1.0)], rtol=1e-6)


def test_scaling_init_makes_every_standard_deviation_one_and_keeps_the_mean():
    x = normal((200, 3)) * np.float32([0.1, 1.0, 0.0]) + np.float32([4.0, 0.0, -9.0])
    flow = flows.scaling(eps=1e-4)
    params = flow.init(jax.random.key(0), x)
    z, _ = flow.forward(params, x)
    np.testing.assert_allclose(z.std(0)[:2], [1, 1], rtol=2e-3)
    mean, std = x[:, :2].mean(0), x[:, :2].std(0)
    np.testing.assert_allclose(z[:, :2].mean(0), mean / std, rtol=2e-3)  # it does not shift
    np.testing.assert_allclose(np.exp(params["log_scale"][2]), 1, rtol=1e-6)  # constant


@pytest.mark.parametrize("channels", [1, 2, 3, 12])
def test_invertible_1x1_starts_orthogonal_and_mixes_the_halves(channels, x64):
    flow, eye = flows.invertible_1x1(), jnp.eye(channels)
    init = jax.jit(flow.init)
    share = []
    for seed in range(20):
        params = init(jax.random.key(seed), eye)
        assert sorted(params) == ["log_s", "lower", "upper"]
        w, logdet = flow.forward(params, eye)  # w is the transpose of W
        np.testing.assert_allclose(w @ w.T, eye, atol=1e-12)
        np.testing.assert_allclose(logdet, np.zeros(channels), atol=1e-12)
        half = channels // 2
        share.append((w[:half, half:] ** 2).sum() / max(half, 1))
    # Of the fixed half, this share of the variance is moved to the other half.
    assert channels == 1 or np.mean(share) > 0.5
    assert channels == 1 or np.std(share) > 0.01  # W depends on the key


def test_invertible_1x1_is_the_product_of_its_factors(x64, draw):
    flow, x = flows.invertible_1x1(), jnp.asarray(normal((4, 5)), jnp.float64)
    params = draw(flow, x)
    lower = np.tril(params["lower"], -1) + np.eye(5)
    upper = np.triu(params["upper"], 1) + np.diag(np.exp(params["log_s"]))
    w = (lower @ upper)[::-1]
    z, logdet = flow.forward(params, x)
    np.testing.assert_allclose(z, x @ w.T, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(logdet, np.full(4, np.linalg.slogdet(w)[1]), rtol=1e-12)
    np.testing.assert_allclose(flow.inverse(params, x)[0], x @ np.linalg.inv(w).T, atol=1e-12)


def test_invertible_1x1_inverts_to_single_precision_on_many_channels():
    flow, x = flows.invertible_1x1(), normal((3, 96))
    params = flow.init(jax.random.key(0), x)
    z, _ = jax.jit(flow.forward)(params, x)
    np.testing.assert_allclose(jax.jit(flow.inverse)(params, z)[0], x, atol=2e-5)


def test_invertible_1x1_multiplies_in_full_precision():
    """A CPU always does; accelerators are asked to, in every product."""
    flow, x = flows.invertible_1x1(), normal((3, 4))
    params = flow.init(jax.random.key(0), x)
    for function, products in ((flow.forward, 2), (flow.inverse, 1)):
        jaxpr = str(jax.make_jaxpr(function)(params, x))
        assert jaxpr.count("dot_general") == products
        assert jaxpr.count("(Precision.HIGHEST, Precision.HIGHEST)") == products


@pytest.mark.parametrize("channels", [2, 3, 8])
def test_shuffle_takes_every_channel_to_every_place(channels):
    flow = flows.shuffle(3)
    assert flow.init(jax.random.key(0), jnp.zeros((2, channels))) == ()
    start = jnp.broadcast_to(jnp.arange(channels), (1, 2, channels))
    z, seen = start, []
    for _ in range(channels):
        z, logdet = flow.forward((), z)
        np.testing.assert_array_equal(logdet, [0.0])
        seen.append(z[0, 0])
    np.testing.assert_array_equal(np.sort(seen, 0), np.sort(start[0, :1].repeat(channels, 0).T, 0))
    np.testing.assert_array_equal(z, start)
    np.testing.assert_array_equal(flow.inverse((), flow.forward((), start)[0])[0], start)


def test_shuffle_depends_on_its_seed_alone():
    x = jnp.arange(32)[None]
    orders = [flows.shuffle(seed).forward((), x)[0] for seed in (0, 1, 1)]
    assert np.abs(orders[0] - orders[1]).max() > 0
    np.testing.assert_array_equal(orders[1], orders[2])


def test_permutation_and_reversal_values():
    x = jnp.array([[10.0, 11.0, 12.0]])
    z, logdet = flows.permutation([2, 0, 1]).forward((), x)
    np.testing.assert_array_equal(z, [[12.0, 10.0, 11.0]])
    np.testing.assert_array_equal(logdet, [0.0])
    np.testing.assert_array_equal(flows.permutation(np.array([2, 0, 1])).inverse((), z)[0], x)
    np.testing.assert_array_equal(flows.reversal().forward((), x)[0], [[12.0, 11.0, 10.0]])
