"""Masks against loops, attention against its equation, rotary positions against rotations."""

import re
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen import models as m

module = sys.modules["jaxgen.models.attention"]
B, T, S, N, H = 2, 3, 5, 2, 4
attention = jax.jit(m.dot_product_attention)


def draw(rng):
    return tuple(rng.normal(size=(B, length, N, H)) for length in (T, S, S))


def arrays(dtype=jnp.float32, seed=0):
    return [jnp.asarray(x, dtype) for x in draw(np.random.default_rng(seed))]


def some_mask(seed=0):
    """A mask whose row [1, 2] allows nothing."""
    mask = np.random.default_rng(seed).random((B, T, S)) < 0.5
    mask[:, :, 0] = True
    mask[1, 2] = False
    return mask


def by_hand(q, k, v, mask):
    out = np.zeros(q.shape)
    for b, t, n in np.ndindex(q.shape[:3]):
        keys = np.flatnonzero(mask[b, t])
        weights = np.exp([q[b, t, n] @ k[b, s, n] / np.sqrt(q.shape[-1]) for s in keys])
        for weight, s in zip(weights / weights.sum(), keys, strict=True):
            out[b, t, n] += weight * v[b, s, n]
    return out


def test_attention_is_its_equation_and_an_empty_row_gives_zero(exact_products):
    q, k, v = arrays()
    mask = some_mask()
    out = attention(q, k, v, jnp.asarray(mask))
    expected = by_hand(*(np.float64(x) for x in (q, k, v)), mask)
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(out[1, 2], 0)
    everything = attention(q, k, v)
    full = by_hand(*(np.float64(x) for x in (q, k, v)), np.ones((B, T, S), bool))
    np.testing.assert_allclose(everything, full, rtol=1e-5, atol=1e-6)


def test_gradients_at_an_empty_row_are_zero_and_the_others_do_not_see_it(exact_products):
    q, k, v = arrays()
    mask = jnp.asarray(some_mask())

    @jax.jit
    @partial(jax.grad, argnums=(0, 1, 2))
    def gradient(q, k, v, rows):
        out = jnp.sin(m.dot_product_attention(q, k, v, mask))
        return jnp.sum(jnp.where(rows[None, :, None, None], out, 0))

    gradients = gradient(q, k, v, jnp.array([True, True, True]))
    assert all(np.isfinite(g).all() for g in gradients)
    assert all(np.abs(g[0]).max() > 1e-3 for g in gradients)
    np.testing.assert_array_equal(gradients[0][1, 2], 0)
    without = gradient(q, k, v, jnp.array([True, True, False]))
    for gradient, other in zip(gradients[1:], without[1:], strict=True):
        np.testing.assert_allclose(gradient[1], other[1], rtol=1e-6, atol=1e-7)


def test_a_mask_of_one_row_serves_the_batch(exact_products):
    q, k, v = arrays()
    mask = jnp.asarray(some_mask()[:1])
    one = attention(q, k, v, mask)
    np.testing.assert_array_equal(one, attention(q, k, v, jnp.broadcast_to(mask, (B, T, S))))
    np.testing.assert_array_equal(one[:1], attention(q[:1], k[:1], v[:1], mask))


def test_softmax_is_in_f32_where_products_are_in_bf16():
    q, k, v = arrays(jnp.bfloat16)
    out = attention(q, k, v, jnp.asarray(some_mask()))
    assert out.dtype == jnp.bfloat16
    wide = by_hand(*(np.float64(x) for x in (q, k, v)), some_mask())
    np.testing.assert_allclose(np.float64(out), wide, rtol=0.02, atol=0.02)
    # Logits 64 and 64.2 over sqrt(8), which bf16 does not tell apart.
    q, k, v = np.zeros((3, 1, 2, 1, 8))
    q[..., :2], k[..., 0], k[:, 1, :, 1], v[:, 1] = (8, 1), 8, 0.2, 1
    out = attention(*(jnp.asarray(x, jnp.bfloat16) for x in (q, k, v)))
    np.testing.assert_allclose(np.float32(out), 1 / (1 + np.exp(-0.2 / 8**0.5)), atol=0.004)
    # 1,024 keys of equal weight: a sum of weights in bf16 would stop at 0.25.
    q, k = jnp.zeros((1, 1, 1, 8), jnp.bfloat16), jnp.zeros((1, 1024, 1, 8), jnp.bfloat16)
    np.testing.assert_allclose(np.float32(attention(q, k, k + 1)), 1, rtol=0.01)


def test_a_product_in_f32_has_the_derivatives_of_einsum_and_no_mixed_products(exact_products):
    q, k = arrays()[:2]
    spec = "btnh,bsnh->bnts"

    def loss(product, q, k):
        return jnp.sum(jnp.sin(product(spec, q, k)))

    @jax.jit
    def derivatives(q, k):
        ways = (jax.grad, jax.jacfwd, lambda f, n: jax.hessian(f, n[0]))
        products = (module.wide_einsum, jnp.einsum)
        return [[way(partial(loss, p), (0, 1))(q, k) for way in ways] for p in products]

    close = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    jax.tree.map(close, *derivatives(q, k))
    half = [x.astype(jnp.bfloat16) for x in (q, k)]
    assert module.wide_einsum(spec, *half).dtype == jnp.float32
    gradient = jax.grad(partial(loss, module.wide_einsum), (0, 1))
    assert {x.dtype for x in gradient(*half)} == {jnp.dtype(jnp.bfloat16)}
    text = jax.jit(gradient).lower(*half).as_text()
    products = [line for line in text.splitlines() if "stablehlo.dot_general" in line]
    assert products
    assert all(line.count("bf16>") >= 2 for line in products)


CASES = {
    "dot_product_attention": (partial(m.dot_product_attention, mask=some_mask()), draw),
    "wide_einsum": (
        partial(module.wide_einsum, "btnh,bsnh->bnts"),
        lambda rng: draw(rng)[:2],
    ),
    "rotary": (
        lambda x: m.rotary(x, jnp.arange(T)[None]),
        lambda rng: (rng.normal(size=(B, T, N, H)),),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_everywhere(name, works_everywhere, arithmetic):
    works_everywhere(*CASES[name], tolerance=1e-4 if arithmetic == "f32" else 3e-2)


@pytest.mark.parametrize(
    ("shape", "dtype", "takes"),
    [
        ((2, 4, 2, 8), jnp.bfloat16, True),
        ((2, 4, 2, 128), jnp.float16, True),
        ((2, 4, 2, 8), jnp.float32, False),
        ((2, 3, 2, 8), jnp.bfloat16, False),
        ((2, 4, 2, 4), jnp.bfloat16, False),
        ((2, 4, 2, 136), jnp.bfloat16, False),
    ],
)
def test_a_program_for_cuda_and_no_other_gets_the_fused_kernel(monkeypatch, shape, dtype, takes):
    monkeypatch.setattr(module, "_cudnn", lambda q, k, v, mask: jnp.sinh(q))
    x = jnp.asarray(np.random.default_rng(0).normal(size=shape), dtype)

    def programs(**options):
        def f(x):
            return m.dot_product_attention(x, x, x, m.causal_mask(x.shape[1]), **options)

        traced = jax.jit(f).trace(x)
        lowered = {p: traced.lower(lowering_platforms=(p,)) for p in ("cuda", "cpu")}
        return {p: "sinh" in program.as_text() for p, program in lowered.items()}, jax.jit(f)

    fused, run = programs()
    plain, run_plain = programs(fused=False)
    assert fused == {"cuda": takes, "cpu": False}
    assert plain == {"cuda": False, "cpu": False}
    if takes and jax.default_backend() == "cpu":
        np.testing.assert_array_equal(np.float32(run(x)), np.float32(run_plain(x)))


@pytest.mark.parametrize("error", [RuntimeError, ValueError, NotImplementedError])
def test_the_plain_form_where_the_kernel_is_not_there(monkeypatch, error):
    def missing(*_):
        raise error("cuDNN is not detected.")

    monkeypatch.setattr(module, "_cudnn", missing)
    x = jnp.ones((1, 2, 1, 8), jnp.bfloat16)
    np.testing.assert_array_equal(np.float32(m.dot_product_attention(x, x, x)), 1)


@pytest.mark.skipif(jax.default_backend() != "gpu", reason="the fused kernel runs on CUDA alone")
@pytest.mark.parametrize("length", [192, 256, 704])
def test_the_fused_kernel_equals_the_plain_form(length):
    rng = np.random.default_rng(0)
    q, k, v = (jnp.asarray(rng.normal(size=(2, length, 2, 64)), jnp.bfloat16) for _ in range(3))
    documents = jnp.asarray(np.sort(rng.integers(0, 4, (2, length)), axis=1)[:, ::-1])
    mask = m.document_mask(documents)

    def run(fused):
        def f(q, k, v):
            out = m.dot_product_attention(q, k, v, mask, fused=fused)
            return jnp.sum(jnp.sin(out.astype(jnp.float32))), out

        gradients, out = jax.jit(jax.grad(f, (0, 1, 2), has_aux=True))(q, k, v)
        return [np.float32(x) for x in (out, *gradients)]

    for fused, plain in zip(run(True), run(False), strict=True):
        assert np.isfinite(fused).all()
        np.testing.assert_allclose(fused, plain, rtol=0.03, atol=0.03)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_head_by_head_is_the_plain_form(dtype, exact_products):
    q, k, v = arrays(dtype)

    @partial(jax.jit, static_argnums=0)
    def run(form, mask):
        def f(q, k, v):
            out = form(q, k, v, mask)
            return jnp.sum(jnp.sin(out.astype(jnp.float32))), out

        gradients, out = jax.grad(f, (0, 1, 2), has_aux=True)(q, k, v)
        return out, *gradients

    for mask in (None, jnp.asarray(some_mask())[:, None]):
        ours, theirs = (run(form, mask) for form in (module._by_head, module._plain))
        for one, other in zip(ours, theirs, strict=True):
            assert one.dtype == dtype
            tolerance = 1e-6 if dtype == jnp.float32 else 2e-2
            np.testing.assert_allclose(
                np.float32(one), np.float32(other), rtol=tolerance, atol=tolerance
            )


@pytest.mark.parametrize("length", [255, 256])
def test_a_program_for_a_tpu_never_computes_the_weights_of_two_heads(length):
    """From 2^16 weights of a head; below that, and elsewhere, all heads are one product."""
    x = jax.ShapeDtypeStruct((2, length, 3, 8), jnp.float32)

    def weights(platform, **options):
        """The shapes of what softmax exponentiates in a program for the gradient."""

        def f(q, k, v):
            mask = m.causal_mask(length)
            return jnp.sum(m.dot_product_attention(q, k, v, mask, **options) ** 2)

        traced = jax.jit(jax.grad(f, (0, 1, 2))).trace(x, x, x)
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        return set(re.findall(r"stablehlo.exponential .*tensor<(\w+)xf32>", text))

    one, every = (f"2x{heads}x{length}x{length}" for heads in (1, 3))
    assert weights("tpu") == {one if length == 256 else every}
    for platform, options in (("tpu", {"fused": False}), ("cpu", {}), ("cuda", {})):
        assert weights(platform, **options) == {every}


def test_head_by_head_leaves_a_split_batch_where_it_is(eight_devices):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    split = jax.NamedSharding(mesh, jax.P("data"))

    def f(q, k, v, mask):
        return jnp.sum(module._by_head(q, k, v, mask) ** 2)

    x = jax.ShapeDtypeStruct((8, 4, 3, 8), jnp.float32)
    mask = jax.ShapeDtypeStruct((8, 1, 4, 4), bool)
    gradient = jax.jit(jax.grad(f, (0, 1, 2)), in_shardings=split, out_shardings=split)
    text = gradient.lower(x, x, x, mask).compile().as_text()
    assert "num_partitions=8" in text
    assert not re.search("all-|collective", text)


def test_masks_are_their_loops(exact_products):
    rng = np.random.default_rng(0)
    valid = rng.random((3, 6)) < 0.6
    target = np.array([[0, 0, 0, 1, 1, 1], [0] * 6, [1] * 6])
    documents = np.array([[1, 1, 2, 2, 2, 0], [3, 1, 1, 1, 1, 1], [0] * 6])
    rules = {
        "padding": (jax.jit(m.padding_mask)(jnp.asarray(valid)), lambda b, t, s: valid[b, s]),
        "causal": (np.tile(m.causal_mask(6), (3, 1, 1)), lambda b, t, s: s <= t),
        "prefix": (
            jax.jit(m.prefix_mask)(jnp.asarray(target)),
            lambda b, t, s: not target[b, s] or (target[b, t] and s <= t),
        ),
        "document": (
            jax.jit(m.document_mask)(jnp.asarray(documents)),
            lambda b, t, s: documents[b, t] == documents[b, s] > 0,
        ),
    }
    for name, (mask, rule) in rules.items():
        assert (mask.dtype, mask.shape) == (jnp.dtype(bool), (3, 6, 6)), name
        expected = [[[bool(rule(b, t, s)) for s in range(6)] for t in range(6)] for b in range(3)]
        np.testing.assert_array_equal(mask, expected, err_msg=name)
    np.testing.assert_array_equal(m.padding_mask(valid.astype(int)), rules["padding"][0])
    np.testing.assert_array_equal(m.prefix_mask(target > 0), rules["prefix"][0])


def test_positions_start_from_0_in_each_document(exact_products):
    documents = jnp.array([[1, 1, 2, 2, 2, 0], [7, 7, 7, 7, 7, 7], [2, 1, 2, 2, 1, 1]])
    expected = [[0, 1, 0, 1, 2, 0], [0, 1, 2, 3, 4, 5], [0, 0, 0, 1, 0, 1]]
    found = jax.jit(m.document_positions)(documents)
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == jnp.int32


def test_rotary_turns_pairs_as_complex_numbers():
    x = np.random.default_rng(0).normal(size=(2, 3, 2, 6))
    positions = np.array([[0, 1, 7], [5, 500, 2]])
    turned = jax.jit(m.rotary)(jnp.asarray(x, jnp.float32), jnp.asarray(positions))
    rates = 10000.0 ** -(np.array([0, 2, 4]) / 6)
    z = (x[..., ::2] + 1j * x[..., 1::2]) * np.exp(1j * positions[..., None, None] * rates)
    expected = np.stack([z.real, z.imag], axis=-1).reshape(x.shape)
    np.testing.assert_allclose(turned, expected, rtol=1e-4, atol=1e-4)


def test_rotary_products_depend_on_the_distance_alone(exact_products):
    q, k = (jnp.asarray(x[:1, :1]) for x in arrays()[:2])

    @jax.jit
    def product(i, j):
        return jnp.sum(m.rotary(q, jnp.array([[i]])) * m.rotary(k, jnp.array([[j]])))

    np.testing.assert_allclose(product(9, 4), product(29, 24), rtol=1e-4)
    np.testing.assert_allclose(product(3, 3), jnp.sum(q * k), rtol=1e-5)
    assert abs(product(9, 4) - product(4, 9)) > 1e-3


X = jnp.ones((2, 3, 2, 4))
REFUSES = [
    (r"^q \(3, 2, 4\), k .*; expected \[B, T, N, H\]", lambda: m.dot_product_attention(X[0], X, X)),
    (r"^q .*v \(2, 2, 2, 4\); exp", lambda: m.dot_product_attention(X, X, X[:, :2])),
    (r"^q .*k \(1, 3, 2, 4\).*; exp", lambda: m.dot_product_attention(X, X[:1], X[:1])),
    (r"^q .*k \(2, 3, 1, 4\).*; exp", lambda: m.dot_product_attention(X, X[:, :, :1], X[:, :, :1])),
    (
        r"^mask bool\[3, 3\]; expected bool\[2, 3, 3\] or bool\[1, 3, 3\]",
        lambda: m.dot_product_attention(X, X, X, jnp.ones((3, 3), bool)),
    ),
    (
        r"^mask float32\[1, 3, 3\]; expected bool",
        lambda: m.dot_product_attention(X, X, X, jnp.ones((1, 3, 3))),
    ),
    (r"^x \(2, 3, 2, 3\); expected an even", lambda: m.rotary(X[..., :3], jnp.ones((1, 3)))),
    (r"^length 0; expected an integer >= 1", lambda: m.causal_mask(0)),
    (r"^valid \(3,\); expected \[B, L\]", lambda: m.padding_mask(jnp.ones(3))),
    (r"^target \(3,\); expected \[B, L\]", lambda: m.prefix_mask(jnp.ones(3))),
    (r"^documents \(3,\); expected \[B, L\]", lambda: m.document_mask(jnp.ones(3))),
    (r"^documents \(3,\); expected \[B, L\]", lambda: m.document_positions(jnp.ones(3))),
    (r"^heads 0; expected an integer >= 1", lambda: m.kv_cache(1, 1, 4, 0, 4)),
]


@pytest.mark.parametrize(("message", "call"), REFUSES)
def test_refuses(message, call):
    with pytest.raises(ValueError, match=message):
        call()
