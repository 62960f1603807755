"""The transformer against numpy; masks, packing, cache, scan, remat and dtypes."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf

from jaxgen import models as m

VOCAB, DEPTH, WIDTH, HEADS, LENGTH = 11, 2, 8, 2, 6
IDS = jnp.array([[1, 4, 5, 6, 2, 3], [1, 7, 2, 8, 9, 10]])
SEGMENTS = jnp.array([[0, 0, 0, 1, 1, 1], [0, 0, 1, 1, 1, 1]])


def network(**settings):
    sizes = {"depth": DEPTH, "width": WIDTH, "heads": HEADS, "hidden": 12, "length": 10}
    return m.MaskedLM(m.Transformer(VOCAB, **{**sizes, **settings}))


def started(model):
    """Parameters that are no start: every bias and scale is drawn, so that none can be left out."""
    params = jax.jit(model.init)(jax.random.key(0), IDS)
    leaves, tree = jax.tree.flatten(params)
    rng = np.random.default_rng(0)
    return tree.unflatten([x + 0.3 * rng.normal(size=x.shape).astype(np.float32) for x in leaves])


def pair(**settings):
    """(apply, params, apply of the transformer, its params)."""
    model = network(**settings)
    params = started(model)
    inner = {"params": params["params"]["transformer"]}
    return jax.jit(model.apply), params, jax.jit(model.transformer.apply), inner


def close(actual, expected, tolerance=1e-5):
    np.testing.assert_allclose(
        np.float32(actual), np.float32(expected), rtol=tolerance, atol=tolerance
    )


# The network in numpy, in double precision, one token and head at a time where that is clearer.


def dense(p, x):
    return x @ p["kernel"] + p["bias"]


def norm(p, x, epsilon):
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + epsilon) * p["scale"] + p["bias"]


def gelu(x):
    return x * (1 + erf(x / np.sqrt(2))) / 2


def turn(x, positions):
    """Rotary positions of one head [L, H]."""
    angles = positions[:, None] * 10000.0 ** -(np.arange(0, x.shape[1], 2) / x.shape[1])
    z = (x[:, ::2] + 1j * x[:, 1::2]) * np.exp(1j * angles)
    return np.stack([z.real, z.imag], axis=-1).reshape(x.shape)


def attend(p, x, mask, positions, rotary):
    parts = []
    for head in np.split(np.arange(WIDTH), HEADS):
        q, k, v = (dense(p[name], x)[:, head] for name in ("query", "key", "value"))
        if rotary:
            q, k = turn(q, positions), turn(k, positions)
        logits = np.where(mask, q @ k.T / np.sqrt(len(head)), -np.inf)
        weights = np.exp(logits - logits.max(-1, keepdims=True))
        parts.append(weights / weights.sum(-1, keepdims=True) @ v)
    return dense(p["out"], np.concatenate(parts, axis=-1))


def forward(params, ids, segments, mask, model):
    """Hidden states and logits of one row."""
    p = jax.tree.map(np.float64, params)["params"]
    t, net = p["transformer"], model.transformer
    positions = np.arange(len(ids))
    x = t["token"]["embedding"][ids] + t["segment"]["embedding"][segments]
    if not net.rotary:
        x = x + t["position"]["embedding"][positions + net.offset]
    if not net.pre_norm:
        x = norm(t["norm"], x, net.epsilon)
    for layer in range(net.depth):
        w = jax.tree.map(lambda leaf, layer=layer: leaf[layer], t["layers"])
        attention = partial(attend, w, mask=mask, positions=positions, rotary=net.rotary)
        for part, f in (
            ("attention_norm", attention),
            ("output_norm", lambda h, w=w: dense(w["down"], gelu(dense(w["up"], h)))),
        ):
            if net.pre_norm:
                x = x + f(norm(w[part], x, net.epsilon))
            else:
                x = norm(w[part], x + f(x), net.epsilon)
    if net.pre_norm:
        x = norm(t["norm"], x, net.epsilon)
    h = norm(p["norm"], gelu(dense(p["dense"], x)), net.epsilon)
    return x, h @ t["token"]["embedding"].T + p["bias"]


@pytest.mark.parametrize(
    "settings",
    [{}, {"offset": 2}, {"pre_norm": True}, {"rotary": True}, {"epsilon": 0.1}, {"depth": 1}],
    ids=str,
)
def test_hidden_states_and_logits_are_those_of_numpy(settings, exact_products):
    logits_of, params, hidden_of, inner = pair(**settings)
    valid = jnp.array([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]])
    inputs = {"segments": SEGMENTS, "mask": m.padding_mask(valid)}
    hidden, logits = hidden_of(inner, IDS, **inputs), logits_of(params, IDS, **inputs)
    assert (hidden.dtype, logits.dtype) == (jnp.float32, jnp.float32)
    for row in range(2):
        expected = forward(
            params, IDS[row], SEGMENTS[row], np.asarray(inputs["mask"][row]), network(**settings)
        )
        close(hidden[row], expected[0], 1e-4)
        close(logits[row], expected[1], 1e-4)


def test_gelu_is_the_exact_one():
    # Through the network's own function: of 1 it is 0.841345, and the tanh form gives 0.841192.
    from jaxgen.models.transformer import _gelu  # noqa: PLC0415

    close(_gelu(jnp.array([1.0, -2.0])), [0.841345, -0.045500], 2e-6)


def test_without_a_mask_everything_sees_everything_and_segments_are_0(exact_products):
    _, _, hidden_of, inner = pair()
    everything = m.padding_mask(jnp.ones_like(IDS))
    close(hidden_of(inner, IDS), hidden_of(inner, IDS, mask=everything, segments=0 * IDS), 1e-6)
    assert np.abs(hidden_of(inner, IDS) - hidden_of(inner, IDS, segments=SEGMENTS)).max() > 0.01


def test_logits_at_some_positions_are_rows_of_all(exact_products):
    logits_of, params, _, _ = pair()
    at = jnp.array([[5, 0, 0], [2, 3, 6]])
    some, every = logits_of(params, IDS, at), logits_of(params, IDS)
    for b, k in np.ndindex(2, 3):
        if at[b, k] < LENGTH:
            close(some[b, k], every[b, at[b, k]])
    assert np.isnan(some[1, 2]).all()


@pytest.mark.parametrize("settings", [{}, {"rotary": True, "pre_norm": True}], ids=str)
def test_what_a_position_sees_by_gradient(settings):
    """Gradient of one hidden state to the embedding of every token."""
    _, _, hidden_of, inner = pair(**settings)
    target = jnp.array([[0, 0, 1, 1, 1, 1]])
    documents = jnp.array([[1, 1, 2, 2, 2, 0]])
    masks = {
        "causal": (m.causal_mask(LENGTH), [0, 1, 2, 3]),
        "prefix": (m.prefix_mask(target), [0, 1, 2, 3]),
        "document": (m.document_mask(documents), [2, 3, 4]),
        "both": (m.causal_mask(LENGTH) & m.document_mask(documents), [2, 3]),
    }
    ids = jnp.arange(1, LENGTH + 1)[None]  # every token once, so that a row of the table is a place
    for name, (mask, expected) in masks.items():

        def loss(inner, mask=mask):
            return jnp.sum(jnp.sin(hidden_of(inner, ids, mask=mask))[0, 3])

        table = jax.grad(loss)(inner)["params"]["token"]["embedding"]
        seen = np.flatnonzero(np.abs(table).max(-1) > 1e-7) - 1
        assert seen.tolist() == expected, name


CACHED = [{}, {"rotary": True, "pre_norm": True}, {"offset": 2}]


@pytest.mark.parametrize("settings", CACHED, ids=str)
@pytest.mark.parametrize("steps", [[1] * 6, [3, 1, 2], [6]], ids=str)
def test_decoding_with_a_cache_is_the_causal_pass(settings, steps, exact_products):
    logits_of, params, _, _ = pair(**settings)
    expected = logits_of(params, IDS, mask=m.causal_mask(LENGTH))
    cache = m.kv_cache(DEPTH, 2, 7, HEADS, WIDTH // HEADS)
    found, start = [], 0
    for count in steps:
        logits, cache = logits_of(params, IDS[:, start : start + count], cache=cache)
        found.append(logits)
        start += count
    close(jnp.concatenate(found, axis=1), expected, 1e-5)
    assert int(cache.count) == LENGTH
    np.testing.assert_array_equal(cache.keys[:, :, LENGTH:], 0)


def test_a_source_is_read_at_once_and_its_target_token_by_token(exact_products):
    logits_of, params, _, _ = pair()
    target = jnp.array([[0, 0, 0, 1, 1, 1]] * 2)
    full = logits_of(params, IDS, mask=m.prefix_mask(target))
    cache = m.kv_cache(DEPTH, 2, 8, HEADS, WIDTH // HEADS)
    # Of the eight places, five hold nothing yet: the network leaves them out by itself.
    source, cache = logits_of(params, IDS[:, :3], cache=cache, mask=jnp.ones((1, 3, 8), bool))
    close(source, full[:, :3])
    for place in range(3, LENGTH):
        logits, cache = logits_of(params, IDS[:, place : place + 1], cache=cache)
        close(logits[:, 0], full[:, place])


def test_a_cache_is_scanned_and_a_full_one_gives_nan(exact_products):
    model = network()
    params = started(model)

    @jax.jit
    def decode(params):
        def step(cache, token):
            logits, cache = model.apply(params, token[:, None], cache=cache)
            return cache, logits[:, 0]

        start = m.kv_cache(DEPTH, 2, LENGTH - 1, HEADS, WIDTH // HEADS)
        return jax.lax.scan(step, start, IDS.T)[1]

    logits = decode(params).swapaxes(0, 1)
    expected = model.apply(params, IDS, mask=m.causal_mask(LENGTH))
    close(logits[:, :-1], expected[:, :-1])
    assert np.isnan(logits[:, -1]).all()


def test_a_cache_of_rows_that_a_search_reorders(exact_products):
    logits_of, params, _, _ = pair()
    empty = m.kv_cache(DEPTH, 2, LENGTH, HEADS, WIDTH // HEADS)
    _, cache = logits_of(params, IDS[:, :4], cache=empty)
    turned = cache._replace(keys=cache.keys[:, ::-1], values=cache.values[:, ::-1])
    here, _ = logits_of(params, IDS[:, 4:], cache=cache)
    there, _ = logits_of(params, IDS[::-1, 4:], cache=turned)
    close(there[::-1], here, 1e-6)


@pytest.mark.parametrize("settings", CACHED, ids=str)
def test_packed_documents_are_single_ones(settings, exact_products):
    logits_of, params, _, _ = pair(**settings)
    documents = jnp.array([[1, 1, 2, 2, 2, 0], [5, 5, 5, 5, 6, 6]])
    packed = logits_of(
        params, IDS, mask=m.document_mask(documents), positions=m.document_positions(documents)
    )
    for row, start, stop in [(0, 0, 2), (0, 2, 5), (1, 0, 4), (1, 4, 6)]:
        single = logits_of(params, IDS[row : row + 1, start:stop])
        close(packed[row, start:stop], single[0], 1e-5)
    assert np.isfinite(packed).all()


def value_and_grad(**settings):
    model = network(**settings)
    params = started(network())

    def loss(params):
        logits = model.apply(params, IDS, mask=m.causal_mask(LENGTH))
        return jnp.sum(jnp.sin(logits))

    return loss, params, jax.jit(jax.value_and_grad(loss))(params)


def test_unrolled_layers_are_scanned_ones(exact_products):
    loss, params, scanned = value_and_grad()
    unrolled_loss, _, unrolled = value_and_grad(unroll=DEPTH)
    jax.tree.map(partial(close, tolerance=1e-4), unrolled, scanned)
    assert "while" in jax.jit(loss).lower(params).as_text()
    assert "while" not in jax.jit(unrolled_loss).lower(params).as_text()


@pytest.mark.parametrize("unroll", [1, DEPTH])
def test_remat_gives_the_same_gradients_and_stores_less(unroll, exact_products):
    _, _, plain = value_and_grad()
    policy = jax.checkpoint_policies.nothing_saveable
    loss, params, again = value_and_grad(remat=policy, unroll=unroll)
    jax.tree.map(partial(close, tolerance=1e-4), again, plain)

    def stored(loss):
        return sum(x.size for x in jax.tree.leaves(jax.vjp(loss, params)[1]))

    few = stored(loss)
    assert few < 0.6 * stored(value_and_grad(unroll=unroll)[0])
    dots = jax.checkpoint_policies.dots_saveable
    assert few < stored(value_and_grad(remat=dots, unroll=unroll)[0])


def test_bf16_is_close_to_f32_and_keeps_f32_where_it_matters():
    hidden, logits = {}, {}
    for dtype in (jnp.float32, jnp.bfloat16):
        logits_of, params, hidden_of, inner = pair(dtype=dtype)
        assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype(jnp.float32)}
        hidden[dtype] = hidden_of(inner, IDS)
        logits[dtype] = logits_of(params, IDS)
        assert hidden[dtype].dtype == dtype
        assert logits[dtype].dtype == jnp.float32
    close(hidden[jnp.bfloat16], hidden[jnp.float32], 0.1)
    close(logits[jnp.bfloat16], logits[jnp.float32], 0.15)
    # No coarser than the table and the hidden state: logits are not rounded to bf16 once more.
    bare = {"params": {**params["params"], "bias": jnp.zeros(VOCAB)}}
    fine = logits_of(bare, IDS)
    assert (fine.astype(jnp.bfloat16) != fine).mean() > 0.5

    def loss(params, dtype):
        return jnp.mean(jnp.sin(network(dtype=dtype).apply(params, IDS)))

    gradients = [jax.jit(partial(jax.grad(loss), dtype=d))(params) for d in hidden]
    assert {x.dtype for x in jax.tree.leaves(gradients)} == {jnp.dtype(jnp.float32)}
    jax.tree.map(partial(close, tolerance=0.03), *gradients)


@pytest.mark.parametrize("pre_norm", [False, True])
def test_gradients_of_a_thousand_equal_tokens_are_summed_in_f32(pre_norm):
    """A sum in bf16 stops at 256 equal terms, and a row of a table may have any number of them."""
    ids = jnp.full((16, 64), 3)
    params = {"params": started(network(pre_norm=pre_norm))["params"]["transformer"]}
    params["params"].pop("position")
    weights = jnp.arange(float(WIDTH)) - 3

    def gradient(dtype):
        net = network(pre_norm=pre_norm, rotary=True, dtype=dtype).transformer

        def loss(params):
            return jnp.sum(net.apply(params, ids).astype(jnp.float32) @ weights)

        return jax.jit(jax.grad(loss))(params)["params"]

    half, full = gradient(jnp.bfloat16), gradient(jnp.float32)
    for name in ("token", "segment", "norm", "out", "up", "down"):
        both = ({**g, **g["layers"]}[name] for g in (half, full))
        for a, b in zip(*map(jax.tree.leaves, both), strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=0.05 * np.abs(b).max())


def test_layer_norm_of_bf16_takes_its_statistics_in_f32():
    # 256 + noise: the mean of squares minus the square of the mean would be 0 or negative.
    from jaxgen.models.transformer import _norm  # noqa: PLC0415

    x = 4096 + jnp.asarray(np.random.default_rng(0).normal(size=(4, 64)), jnp.float32)
    layer = _norm(1e-12, jnp.float32, None)
    out = layer.apply(layer.init(jax.random.key(0), x), x)
    exact = np.float64(x)
    exact = (exact - exact.mean(-1, keepdims=True)) / exact.std(-1, keepdims=True)
    close(out, exact, 2e-3)
    half = _norm(1e-12, jnp.bfloat16, None)
    x = jnp.asarray(np.random.default_rng(1).normal(size=(1, 4096)), jnp.bfloat16)
    out = np.float64(half.apply(half.init(jax.random.key(0), x), x))
    np.testing.assert_allclose([out.mean(), out.std()], [0, 1], atol=1e-3)


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_a_training_step_in_bf16_lowers_for_accelerators(platform):
    policy = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
    model = network(dtype=jnp.bfloat16, remat=policy)

    def loss(params, key):
        logits = model.apply(
            params, IDS, IDS, mask=m.padding_mask(IDS), train=True, rngs={"dropout": key}
        )
        return jnp.mean(jnp.sin(logits))

    step = jax.jit(jax.value_and_grad(loss)).trace(started(model), jax.random.key(0))
    text = step.lower(lowering_platforms=(platform,)).as_text()
    products = [line for line in text.splitlines() if "stablehlo.dot_general" in line]
    assert len(products) > 20
    # Of every product both operands are bf16; so it is on the matrix unit at full speed.
    assert all(line.count("bf16>") >= 2 for line in products)


def test_dropout_is_drawn_anew_for_every_key_and_layer_and_off_by_default():
    model = network(dropout=0.5).transformer
    params = {"params": started(network())["params"]["transformer"]}

    @jax.jit
    def train(key):
        return model.apply(params, IDS, train=True, rngs={"dropout": key})

    a, b = jax.random.split(jax.random.key(0))
    np.testing.assert_array_equal(train(a), train(a))
    assert np.abs(train(a) - train(b)).max() > 0.1
    plain = jax.jit(network(dropout=0.0).transformer.apply)(params, IDS)
    np.testing.assert_array_equal(jax.jit(model.apply)(params, IDS), plain)


def test_dropout_is_on_embeddings_and_on_both_parts_of_every_layer():
    """Of width 512, so that a row shows every sum of what is kept, twice as large, or dropped."""
    model = network(dropout=0.5, pre_norm=True, segments=0, width=512).transformer
    params = jax.tree.map(jnp.zeros_like, model.init(jax.random.key(0), IDS))
    inner = params["params"]
    inner["token"]["embedding"] += 1
    inner["layers"]["out"]["bias"] += 10
    inner["layers"]["down"]["bias"] += 100
    inner["norm"]["scale"] += 1
    out = model.apply(params, IDS, train=True, rngs={"dropout": jax.random.key(0)})
    # 0 or 2, plus 0, 20 or 40, plus 0, 200 or 400; the last LayerNorm keeps them apart.
    assert [len(np.unique(row.round(4))) for row in np.asarray(out[0])] == [18] * LENGTH


def test_weights_start_small_normal_and_without_a_shared_draw():
    model = m.MaskedLM(m.Transformer(500, depth=2, width=64, heads=2, hidden=128, length=64))
    params = jax.jit(model.init)(jax.random.key(0), IDS)["params"]
    inner = params["transformer"]
    for kernel in (inner["token"]["embedding"], inner["layers"]["up"]["kernel"]):
        # A normal law of 0.02 that is cut at two standard deviations, which leaves 0.88 of them.
        np.testing.assert_allclose(kernel.std(), 0.02 * 0.8796, rtol=0.03)
        np.testing.assert_allclose(np.abs(kernel).max(), 0.04, rtol=0.01)
    first, second = inner["layers"]["query"]["kernel"]
    assert np.abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.1
    np.testing.assert_array_equal(inner["layers"]["query"]["bias"], 0)
    assert inner["layers"]["up"]["kernel"].shape == (2, 64, 128)


def test_ids_and_positions_outside_of_their_tables_give_nan():
    _, _, hidden_of, inner = pair()
    assert np.isnan(hidden_of(inner, IDS.at[0, 0].set(VOCAB))[0]).all()
    positions = jnp.tile(jnp.arange(LENGTH), (2, 1)).at[1, 5].set(10)
    assert np.isnan(hidden_of(inner, IDS, positions=positions)[1]).all()


def test_vmap_over_networks_and_pmap_over_batches(eight_devices, exact_products):
    model = network()
    one, two = (model.init(jax.random.key(seed), IDS) for seed in range(2))
    both = jax.tree.map(lambda *x: jnp.stack(x), one, two)
    ensemble = jax.jit(jax.vmap(model.apply, (0, None)))(both, IDS)
    close(ensemble, jnp.stack([model.apply(p, IDS) for p in (one, two)]), 1e-5)

    batches = jnp.asarray(np.random.default_rng(0).integers(0, VOCAB, (8, 2, LENGTH)))

    def loss(params, ids):
        return jnp.mean(jnp.sin(model.apply(params, ids)))

    each = jax.pmap(jax.value_and_grad(loss), in_axes=(None, 0))(one, batches)
    mean = jax.tree.map(lambda x: x.mean(0), each)
    whole = jax.jit(jax.value_and_grad(loss))(one, batches.reshape(16, LENGTH))
    jax.tree.map(partial(close, tolerance=1e-5), mean, whole)


def apply(model=None, ids=IDS, *args, **inputs):
    model = model or network()
    return lambda: jax.eval_shape(
        lambda key: model.init(key, ids, *args, **inputs), jax.random.key(0)
    )


CACHE = m.kv_cache(DEPTH, 2, 4, HEADS, WIDTH // HEADS)
REFUSES = [
    (r"^ids int32\[6\]; expected integers \[B, T\]", apply(ids=IDS[0])),
    (r"^ids float32\[2, 6\]; expected integers", apply(ids=IDS.astype(jnp.float32))),
    (r"^ids \(2, 11\); expected at most 10 tokens", apply(ids=jnp.ones((2, 11), jnp.int32))),
    (
        r"^ids \(2, 9\); expected at most 8 tokens",
        apply(network(offset=2), jnp.ones((2, 9), jnp.int32)),
    ),
    (r"^width 8; expected a multiple of heads 3", apply(network(heads=3))),
    (r"^segments \(1, 6\); expected \(2, 6\) as ids", apply(segments=SEGMENTS[:1])),
    (r"^segments \(2, 6\); expected None", apply(network(segments=0), segments=SEGMENTS)),
    (r"^positions \(1, 6\); expected \(2, 6\) as ids", apply(positions=SEGMENTS[:1])),
    (r"^mask \(6, 6\); expected \[B, T, S\]", apply(mask=jnp.ones((6, 6), bool))),
    (r"^mask bool\[3, 6, 6\]; expected bool", apply(mask=jnp.ones((3, 6, 6), bool))),
    (r"^cache \(2, 2, 4, 2, 4\); expected \(2, 1, 4, 2, 4\)", apply(ids=IDS[:1], cache=CACHE)),
    (r"^ids \(2, 6\); expected at most 4 tokens, as in the cache", apply(cache=CACHE)),
    (
        r"^mask \(1, 3, 3\); expected \[B, T, 4\], as in the cache",
        apply(ids=IDS[:, :3], mask=m.causal_mask(3), cache=CACHE),
    ),
    (r"^at \(2,\); expected \[2, K\]", apply(None, IDS, jnp.array([1, 2]))),
    (r"^at \(1, 2\); expected \[2, K\]", apply(None, IDS, jnp.array([[1, 2]]))),
]


@pytest.mark.parametrize(("message", "call"), REFUSES)
def test_refuses(message, call):
    with pytest.raises(ValueError, match=message):
        call()
