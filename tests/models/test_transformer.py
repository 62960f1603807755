"""The transformer against numpy; masks, packing, cache, scan, remat and dtypes."""

from functools import cache, partial

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
    shapes = jax.eval_shape(model.init, jax.random.key(0), IDS)  # compiles nothing
    rng = np.random.default_rng(0)

    def draw(path, x):
        start = 1.0 if path[-1].key == "scale" else 0.0
        return jnp.asarray(start + 0.3 * rng.normal(size=x.shape), x.dtype)

    return jax.tree_util.tree_map_with_path(draw, shapes)


@cache
def compiled(settings):
    """(params, run) of the network of these items; compiled once for all tests of this file.

    run(params, ids, **inputs) -> hidden states, logits, the cache or None.
    """
    model = network(**dict(settings))

    @jax.jit
    def run(params, ids, **inputs):
        out, more = model.apply(
            params,
            ids,
            **inputs,
            capture_intermediates=lambda module, _: module.name == "transformer",
            mutable="intermediates",
        )
        (hidden,) = more["intermediates"]["transformer"]["__call__"]
        if "cache" in inputs:
            return hidden[0], *out
        return hidden, out, None

    return started(model), run


def forms(**settings):
    """(params, run, run_all) of a network: `run_all` is one program for all inputs of this shape.

    run_all(ids, segments, positions, mask) -> hidden states and logits, with the defaults given.
    """
    params, run = compiled(tuple(settings.items()))

    def run_all(ids, segments=None, positions=None, mask=None, params=params):
        if positions is None:
            positions = jnp.tile(jnp.arange(ids.shape[1]), (len(ids), 1))
        if mask is None:
            mask = m.padding_mask(jnp.ones_like(ids))
        mask = jnp.broadcast_to(mask, (len(ids), *mask.shape[1:]))
        segments = jnp.zeros_like(ids) if segments is None else segments
        return run(params, ids, segments=segments, positions=positions, mask=mask)[:2]

    return params, partial(run, params), run_all


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
    [{}, {"offset": 2}, {"pre_norm": True}, {"rotary": True}, {"epsilon": 0.1, "depth": 1}],
    ids=str,
)
def test_hidden_states_and_logits_are_those_of_numpy(settings, exact_products):
    params, _, run_all = forms(**settings)
    mask = m.padding_mask(jnp.array([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]]))
    hidden, logits = run_all(IDS, SEGMENTS, mask=mask)
    assert (hidden.dtype, logits.dtype) == (jnp.float32, jnp.float32)
    for row in range(2):
        expected = forward(
            params, IDS[row], SEGMENTS[row], np.asarray(mask[row]), network(**settings)
        )
        close(hidden[row], expected[0], 1e-4)
        close(logits[row], expected[1], 1e-4)


def test_gelu_is_the_exact_one():
    # Through the network's own function: of 1 it is 0.841345, and the tanh form gives 0.841192.
    from jaxgen.models.transformer import _gelu  # noqa: PLC0415

    close(_gelu(jnp.array([1.0, -2.0])), [0.841345, -0.045500], 2e-6)


def test_without_a_mask_everything_sees_everything_and_segments_are_0(exact_products):
    _, run, run_all = forms()
    plain = run(IDS)[0]
    close(plain, run_all(IDS)[0], 1e-6)
    assert np.abs(plain - run_all(IDS, SEGMENTS)[0]).max() > 0.01


def test_logits_at_some_positions_are_rows_of_all(exact_products):
    _, run, run_all = forms()
    at = jnp.array([[5, 0, 0], [2, 3, 6]])
    some, every = run(IDS, at=at)[1], run_all(IDS)[1]
    for b, k in np.ndindex(2, 3):
        if at[b, k] < LENGTH:
            close(some[b, k], every[b, at[b, k]])
    assert np.isnan(some[1, 2]).all()


@pytest.mark.parametrize("settings", [{}, {"rotary": True, "pre_norm": True}], ids=str)
def test_what_a_position_sees_by_gradient(settings, exact_products):
    """Gradient of one hidden state to the embedding of every token."""
    net = network(**settings).transformer
    inner = {"params": forms(**settings)[0]["params"]["transformer"]}
    target = jnp.array([[0, 0, 1, 1, 1, 1]])
    documents = jnp.array([[1, 1, 2, 2, 2, 0]])
    masks = {
        "causal": (m.causal_mask(LENGTH), [0, 1, 2, 3]),
        "prefix": (m.prefix_mask(target), [0, 1, 2, 3]),
        "document": (m.document_mask(documents), [2, 3, 4]),
        "both": (m.causal_mask(LENGTH) & m.document_mask(documents), [2, 3]),
    }
    ids = jnp.arange(1, LENGTH + 1)[None]  # every token once, so that a row of the table is a place

    @jax.jit
    @jax.grad
    def slope(inner, mask):
        return jnp.sum(jnp.sin(net.apply(inner, ids, mask=mask))[0, 3])

    for name, (mask, expected) in masks.items():
        table = slope(inner, mask)["params"]["token"]["embedding"]
        seen = np.flatnonzero(np.abs(table).max(-1) > 1e-7) - 1
        assert seen.tolist() == expected, name


CACHED = [{"rotary": True, "pre_norm": True}, {"offset": 2}]
SPACE = 7  # of the cache


def empty_cache(length=SPACE):
    return m.kv_cache(DEPTH, 2, length, HEADS, WIDTH // HEADS)


@pytest.mark.parametrize("settings", CACHED, ids=str)
def test_decoding_with_a_cache_is_the_causal_pass(settings, exact_products):
    _, run, run_all = forms(**settings)
    expected = run_all(IDS, mask=m.causal_mask(LENGTH))
    for steps in [1] * 6, [1, 3, 1, 1], [3, 3]:
        cache = empty_cache()
        found, start = [], 0
        for count in steps:
            *both, cache = run(IDS[:, start : start + count], cache=cache)
            found.append(both)
            start += count
        for parts, whole in zip(zip(*found, strict=True), expected, strict=True):
            close(jnp.concatenate(parts, axis=1), whole, 1e-5)
        assert int(cache.count) == LENGTH
        np.testing.assert_array_equal(cache.keys[:, :, LENGTH:], 0)


def test_a_source_is_read_at_once_and_its_target_token_by_token(exact_products):
    _, run, run_all = forms(offset=2)
    target = jnp.array([[0, 0, 0, 1, 1, 1]] * 2)
    full = run_all(IDS, mask=m.prefix_mask(target))[1]
    # Of the seven places, four hold nothing yet: the network leaves them out by itself.
    mask = jnp.ones((1, 3, SPACE), bool)
    _, source, cache = run(IDS[:, :3], cache=empty_cache(), mask=mask)
    close(source, full[:, :3])
    for place in range(3, LENGTH):
        _, logits, cache = run(IDS[:, place : place + 1], cache=cache)
        close(logits[:, 0], full[:, place])


def test_a_cache_is_scanned_and_a_full_one_gives_nan(exact_products):
    params, _, run_all = forms()
    model = network()

    @jax.jit
    def decode(params):
        def step(cache, token):
            logits, cache = model.apply(params, token[:, None], cache=cache)
            return cache, logits[:, 0]

        return jax.lax.scan(step, empty_cache(LENGTH - 1), IDS.T)[1]

    logits = decode(params).swapaxes(0, 1)
    expected = run_all(IDS, mask=m.causal_mask(LENGTH))[1]
    close(logits[:, :-1], expected[:, :-1])
    assert np.isnan(logits[:, -1]).all()


def test_a_cache_of_rows_that_a_search_reorders(exact_products):
    _, run, _ = forms(offset=2)
    cache = run(IDS[:, :3], cache=empty_cache())[2]
    turned = cache._replace(keys=cache.keys[:, ::-1], values=cache.values[:, ::-1])
    here = run(IDS[:, 3:], cache=cache)[1]
    there = run(IDS[::-1, 3:], cache=turned)[1]
    close(there[::-1], here, 1e-6)


@pytest.mark.parametrize("settings", CACHED, ids=str)
def test_packed_documents_are_single_ones(settings, exact_products):
    """Single ones by numpy, which has no padding and no other document."""
    params, _, run_all = forms(**settings)
    documents = jnp.array([[1, 1, 2, 2, 2, 0], [5, 5, 5, 5, 6, 6]])
    places = {"mask": m.document_mask(documents), "positions": m.document_positions(documents)}
    packed = run_all(IDS, **places)[1]
    for row, start, stop in [(0, 0, 2), (0, 2, 5), (1, 0, 4), (1, 4, 6)]:
        ids = IDS[row, start:stop]
        single = forward(params, ids, 0 * ids, np.True_, network(**settings))[1]
        close(packed[row, start:stop], single, 2e-5)
    assert np.isfinite(packed).all()


def objective(**settings):
    model = network(**settings)

    def loss(params):
        logits = model.apply(params, IDS, mask=m.causal_mask(LENGTH))
        return jnp.sum(jnp.sin(logits))

    return loss


@pytest.fixture(scope="module")
def plain_gradients():
    """Of a network that is scanned and stores everything."""
    with jax.default_matmul_precision("highest"):
        return jax.jit(jax.value_and_grad(objective()))(started(network()))


def test_unrolled_layers_are_scanned_ones(plain_gradients, exact_products):
    params, loss = started(network()), objective(unroll=DEPTH)
    unrolled = jax.jit(jax.value_and_grad(loss))(params)
    jax.tree.map(partial(close, tolerance=1e-4), unrolled, plain_gradients)
    assert "while" in jax.jit(objective()).lower(params).as_text()
    assert "while" not in jax.jit(loss).lower(params).as_text()


@pytest.mark.parametrize("unroll", [1, DEPTH])
def test_remat_gives_the_same_gradients_and_stores_less(unroll, plain_gradients, exact_products):
    params, policies = started(network()), jax.checkpoint_policies

    def stored(**settings):
        loss = objective(unroll=unroll, **settings)
        kept = jax.eval_shape(lambda params: jax.vjp(loss, params)[1], params)
        return sum(x.size for x in jax.tree.leaves(kept))

    few = stored(remat=policies.nothing_saveable)
    assert few < 0.6 * stored()
    assert few < stored(remat=policies.dots_saveable)
    loss = objective(remat=policies.nothing_saveable, unroll=unroll)
    again = jax.jit(jax.value_and_grad(loss))(params)
    jax.tree.map(partial(close, tolerance=1e-4), again, plain_gradients)


def test_bf16_is_close_to_f32_and_keeps_f32_where_it_matters(plain_gradients, exact_products):
    hidden, logits = {}, {}
    for dtype in (jnp.float32, jnp.bfloat16):
        params, _, run_all = forms(**({} if dtype == jnp.float32 else {"dtype": dtype}))
        assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype(jnp.float32)}
        hidden[dtype], logits[dtype] = run_all(IDS)
        assert hidden[dtype].dtype == dtype
        assert logits[dtype].dtype == jnp.float32
    close(hidden[jnp.bfloat16], hidden[jnp.float32], 0.1)
    close(logits[jnp.bfloat16], logits[jnp.float32], 0.15)
    # No coarser than the table and the hidden state: logits are not rounded to bf16 once more.
    bare = {"params": {**params["params"], "bias": jnp.zeros(VOCAB)}}
    fine = run_all(IDS, params=bare)[1]
    assert (fine.astype(jnp.bfloat16) != fine).mean() > 0.5

    half = jax.jit(jax.grad(objective(dtype=jnp.bfloat16)))(params)
    assert {x.dtype for x in jax.tree.leaves(half)} == {jnp.dtype(jnp.float32)}
    means = (jax.tree.map(lambda x: x / logits[dtype].size, g) for g in (half, plain_gradients[1]))
    jax.tree.map(partial(close, tolerance=0.03), *means)


@pytest.mark.parametrize("pre_norm", [False, True])
def test_gradients_of_a_thousand_equal_tokens_are_summed_in_f32(pre_norm, exact_products):
    """A sum in bf16 stops at 256 equal terms, and a row of a table may have any number of them."""
    ids = jnp.full((16, 64), 3)
    settings = {"pre_norm": pre_norm, "rotary": True, "dtype": jnp.bfloat16}
    net = network(**settings).transformer
    params = {"params": started(network(**settings))["params"]["transformer"]}
    slopes = jnp.arange(float(WIDTH)) - 3

    @jax.jit
    @jax.grad
    def gradient(params, weights):
        return jnp.sum(weights * (net.apply(params, ids).astype(jnp.float32) @ slopes))

    # All tokens are the same, so one of them, counted as often, has the same gradient.
    one = jnp.zeros(ids.shape).at[0, 0].set(ids.size)
    many, few = (gradient(params, w)["params"] for w in (jnp.ones(ids.shape), one))
    for name in ("token", "segment", "norm", "out", "up", "down"):
        both = ({**g, **g["layers"]}[name] for g in (many, few))
        for a, b in zip(*map(jax.tree.leaves, both), strict=True):
            assert np.abs(b).max() > 0
            np.testing.assert_allclose(a, b, rtol=0, atol=0.1 * np.abs(b).max())


def test_layer_norm_of_bf16_takes_its_statistics_in_f32(exact_products):
    # 256 + noise: the mean of squares minus the square of the mean would be 0 or negative.
    from jaxgen.models.transformer import _norm  # noqa: PLC0415

    x = 4096 + jnp.asarray(np.random.default_rng(0).normal(size=(4, 64)), jnp.float32)
    layer = _norm(1e-12, jnp.float32, None)
    unit = {"params": {"scale": jnp.ones(64), "bias": jnp.zeros(64)}}
    out = layer.apply(unit, x)
    exact = np.float64(x)
    exact = (exact - exact.mean(-1, keepdims=True)) / exact.std(-1, keepdims=True)
    close(out, exact, 2e-3)
    half = _norm(1e-12, jnp.bfloat16, None)
    x = jnp.asarray(np.random.default_rng(1).normal(size=(1, 4096)), jnp.bfloat16)
    unit = {"params": {"scale": jnp.ones(4096), "bias": jnp.zeros(4096)}}
    out = np.float64(half.apply(unit, x))
    np.testing.assert_allclose([out.mean(), out.std()], [0, 1], atol=1e-3)


def test_a_training_step_in_bf16_lowers_for_accelerators():
    policy = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
    model = network(dtype=jnp.bfloat16, remat=policy)

    def loss(params, key):
        logits = model.apply(
            params, IDS, IDS, mask=m.padding_mask(IDS), train=True, rngs={"dropout": key}
        )
        return jnp.mean(jnp.sin(logits))

    step = jax.jit(jax.value_and_grad(loss)).trace(started(model), jax.random.key(0))
    for platform in ("tpu", "cuda"):
        text = step.lower(lowering_platforms=(platform,)).as_text()
        products = [line for line in text.splitlines() if "stablehlo.dot_general" in line]
        assert len(products) > 20, platform
        # Of every product both operands are bf16; so it is on the matrix unit at full speed.
        assert all(line.count("bf16>") >= 2 for line in products), platform


def test_dropout_is_drawn_anew_for_every_key_and_layer_and_off_by_default(exact_products):
    model = network(dropout=0.5).transformer
    params = {"params": started(network())["params"]["transformer"]}

    @jax.jit
    def train(key):
        return model.apply(params, IDS, train=True, rngs={"dropout": key})

    a, b = jax.random.split(jax.random.key(0))
    np.testing.assert_array_equal(train(a), train(a))
    assert np.abs(train(a) - train(b)).max() > 0.1
    # The other network's dropout is 0.1, and it equals numpy's.
    np.testing.assert_array_equal(jax.jit(model.apply)(params, IDS), forms()[1](IDS)[0])


def test_dropout_is_on_embeddings_and_on_both_parts_of_every_layer(exact_products):
    """Of width 512, so that a row shows every sum of what is kept, twice as large, or dropped."""
    model = network(dropout=0.5, pre_norm=True, segments=0, width=512).transformer
    shapes = jax.eval_shape(model.init, jax.random.key(0), IDS)
    params = jax.tree.map(lambda x: jnp.zeros(x.shape), shapes)
    inner = params["params"]
    inner["token"]["embedding"] += 1
    inner["layers"]["out"]["bias"] += 10
    inner["layers"]["down"]["bias"] += 100
    inner["norm"]["scale"] += 1
    run = jax.jit(partial(model.apply, train=True))
    out = run(params, IDS, rngs={"dropout": jax.random.key(0)})
    # 0 or 2, plus 0, 20 or 40, plus 0, 200 or 400; the last LayerNorm keeps them apart.
    assert [len(np.unique(row.round(4))) for row in np.asarray(out[0])] == [18] * LENGTH


def test_weights_start_small_normal_and_without_a_shared_draw(exact_products):
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


def test_ids_and_positions_outside_of_their_tables_give_nan(exact_products):
    _, _, run_all = forms()
    assert np.isnan(run_all(IDS.at[0, 0].set(VOCAB))[0][0]).all()
    positions = jnp.tile(jnp.arange(LENGTH), (2, 1)).at[1, 5].set(10)
    assert np.isnan(run_all(IDS, positions=positions)[0][1]).all()


def test_vmap_over_networks_and_pmap_over_batches(eight_devices, exact_products):
    model, (one, _, run_all) = network(), forms()
    two = jax.tree.map(lambda x: x[..., ::-1] if x.ndim > 1 else x + 0.1, one)
    both = jax.tree.map(lambda *x: jnp.stack(x), one, two)
    ensemble = jax.jit(jax.vmap(model.apply, (0, None)))(both, IDS)
    close(ensemble, jnp.stack([run_all(IDS, params=p)[1] for p in (one, two)]), 1e-5)

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
