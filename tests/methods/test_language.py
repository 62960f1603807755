"""Pre-training: who sees whom, what counts, what is decayed, and weights to begin with."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments import bert_pretraining
from experiments.lib import weights
from experiments.lib.errors import UserError
from experiments.lib.sources.pieces import PieceCorpus
from experiments.lib.tokenizer import encode, wordpiece
from experiments.methods import language as module
from experiments.methods import pretraining as training
from jaxgen.models import causal_mask, prefix_mask

LETTERS = "abcdefghijklmnopqrstuvwxyz"
TOKENIZER = wordpiece(
    ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *("##" + x for x in LETTERS)]
)
VOCAB = 5 + 2 * 26
OBJECTIVES = ("mlm", "gpt", "unilm")
SMALL = {"depth": 2, "width": 16, "heads": 2, "hidden": 32}
CONFIG = dataclasses.replace(bert_pretraining.SMOKE, batch_size=8, length=32, steps=10)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setitem(module.SIZES, "tiny", SMALL)
    monkeypatch.setattr(module, "_POSITIONS", 40)


def changed(**changes):
    return dataclasses.replace(CONFIG, **changes)


def text(lengths, seed=0):
    """Documents of random letters, one to three of them in a word."""
    rng = np.random.default_rng(seed)
    found = []
    for length in lengths:
        letters = "".join(rng.choice(list(LETTERS), length))
        cuts = np.cumsum(rng.integers(1, 4, length))
        found.append(" ".join(letters[a:b] for a, b in zip([0, *cuts], cuts, strict=False)))
    encoded = encode(TOKENIZER, found)
    ids, begins = (np.concatenate(part) for part in zip(*encoded, strict=True))
    starts = np.cumsum([0, *(len(x.ids) for x in encoded)])
    return PieceCorpus("text", TOKENIZER, ids, begins, starts, ())


def built(config, lengths=(7, 3, 12, 29, 1, 9, 20, 14, 2, 25, 18, 11, 8, 28, 5, 22) * 2):
    """(the rows of training, a model, its method)."""
    data = module.rows(config, text(lengths))
    own = module.language(config, TOKENIZER, "text")
    return data.train, own, training.pretraining(config, own)


def drawn(model):
    """Random parameters, so large that each token counts."""
    ids = jax.ShapeDtypeStruct((1, 2), jnp.int32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), ids)["params"]
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: jnp.asarray(0.3 * rng.normal(size=x.shape), x.dtype), shapes)


def nats(logits, targets):
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), targets[..., None], axis=-1)[..., 0]


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_packed_documents_count_as_single_ones(objective, exact_products):
    config = changed(objective=objective, mask_rate=0.4)
    closing = 2 if objective == "unilm" else 1
    size = 10
    rows, own, _ = built(config, [size - 1 - closing] * 4)
    (packed,) = [row for row in map(rows.__getitem__, range(len(rows))) if row["documents"][-3] > 2]
    batch = {name: jnp.asarray(x[None]) for name, x in packed.items()}
    params = drawn(own.model)
    asked, inputs = jax.jit(own.ask)(jax.random.key(1), batch)
    run = jax.jit(
        lambda ids, at=None, **inputs: own.model.apply({"params": params}, ids, at, **inputs)
    )
    logits = run(asked.ids, asked.at, **inputs)
    together = float(jnp.sum(asked.weights * nats(logits, asked.targets)))
    # The same documents without padding and without masks of documents.
    ids = asked.ids[:, : 3 * size].reshape(3, size)
    alone = {"mlm": {}, "gpt": {"mask": causal_mask(size)}}
    if objective == "unilm":
        segments = inputs["segments"][:, : 3 * size].reshape(3, size)
        alone["unilm"] = {"segments": segments, "mask": prefix_mask(segments)}
    logits = run(ids, **alone[objective]).reshape(1, 3 * size, -1)
    at = jnp.arange(config.length)[None] if asked.at is None else asked.at
    logits = jnp.take_along_axis(logits, jnp.minimum(at, 3 * size - 1)[..., None], axis=1)
    single = float(jnp.sum(asked.weights * nats(logits, asked.targets)))
    assert asked.weights.sum() >= 6
    assert together == pytest.approx(single, rel=1e-5)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_position_sees_what_it_may_and_never_what_it_predicts(objective, exact_products):
    config = changed(objective=objective, length=16, mask_rate=0.4)
    rows, own, _ = built(config, [4, 4, 4])
    batch = {name: jnp.asarray(x) for name, x in rows[np.arange(1)].items()}
    asked, inputs = jax.jit(own.ask)(jax.random.key(1), batch)
    length = config.length
    # Row s + 1 differs from row 0 in the token at s.
    ids = jnp.repeat(asked.ids, length + 1, axis=0)
    places = jnp.arange(length)
    ids = ids.at[places + 1, places].set((ids[0] + 7) % VOCAB)
    inputs = {k: v if v is None else jnp.repeat(v, length + 1, axis=0) for k, v in inputs.items()}
    logits = jax.jit(own.model.apply)({"params": drawn(own.model)}, ids, **inputs)
    moved = np.abs(logits[1:] - logits[:1]).max(axis=-1).T  # [t, s]
    documents = np.asarray(batch["documents"][0])
    segments = np.zeros(length) if inputs["segments"] is None else inputs["segments"][0]
    assert documents.max() == 2
    assert documents[-1] == 0
    for t, s in np.ndindex(length, length):
        sees = documents[t] == documents[s] != 0
        if objective == "gpt":
            sees &= s <= t
        if objective == "unilm":
            sees &= bool(segments[s] == 0 or (segments[t] == 1 and s <= t))
        sees |= s == t  # by the residual
        assert (moved[t, s] > 1e-4) == sees, (t, s)
        assert sees or moved[t, s] < 1e-6
    if objective != "mlm":
        predicts = np.flatnonzero(asked.weights[0])
        assert len(predicts)
        assert (moved[predicts, predicts + 1] < 1e-6).all()


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_uniform_guesses_cost_the_logarithm_of_the_vocabulary(objective):
    rows, own, method = built(changed(objective=objective))
    key, valid = jax.random.key(1), np.array([True, False, True, False])
    batch = rows[np.arange(4)]
    params = drawn(own.model)
    params["transformer"]["token"]["embedding"] *= 0  # of the head, too
    params["bias"] *= 0
    state = training.State(params, None, None, {})
    found = jax.jit(method.evaluate)(state, {**batch, "valid": valid}, key)
    total, count = found["loss"]
    assert total / count == pytest.approx(math.log(VOCAB), rel=1e-5)
    assert method.report({"loss": total / count})["perplexity"] == pytest.approx(VOCAB, rel=1e-4)
    # Rows that fill up the last batch count nowhere.
    asked, _ = jax.jit(own.ask)(jax.random.split(key)[0], batch)
    assert 4 < count == found["accuracy"][1] == asked.weights[valid].sum() < asked.weights.sum()


def test_micro_batches_of_unequal_counts_are_one_batch(exact_products):
    """Held by the moments, for the first step has a rate of 0."""
    config = changed(objective="gpt")
    rows, own, whole = built(config)
    batch = rows[np.arange(8)]
    parts = training.pretraining(dataclasses.replace(config, batch_size=2, accumulate=4), own)
    assert parts.batches_per_step == 4
    counts = (
        jax.jit(own.ask)(jax.random.key(0), batch)[0].weights.sum(axis=1).reshape(2, 4).sum(axis=0)
    )
    assert len(set(counts.tolist())) > 2
    found = []
    params = drawn(own.model)
    for method, options in ((whole, config), (parts, dataclasses.replace(config, accumulate=4))):
        state = training.State(params, training.optimizer(options).init(params), jnp.int32(0), {})
        state, metrics = jax.jit(method.step)(state, batch, jax.random.key(1))
        found.append((optax.tree.get(state.opt_state, "mu"), metrics, state.count))
    (ours, metrics, count), (theirs, others, steps) = found
    assert count == steps == 1
    assert optax.tree.norm(ours) > 1e-3
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-7), ours, theirs)
    for name in ("loss", "accuracy", "learning_rate"):
        assert float(metrics[name]) == pytest.approx(float(others[name]), rel=1e-5)


def test_it_learns_eight_rows_by_heart():
    config = changed(learning_rate=0.02, steps=250, warmup=0.1)
    rows, _, method = built(config)
    batch, key = rows[np.arange(8)], jax.random.key(1)
    state = jax.jit(method.init)(jax.random.key(0), batch)
    step = jax.jit(method.step, donate_argnums=0)
    for _ in range(config.steps):
        state, metrics = step(state, batch, key)
    assert metrics["loss"] < 0.05
    assert metrics["accuracy"] == 1
    assert state.count == config.steps


def test_every_way_to_compute_keeps_the_form_of_the_state():
    rows, _, _ = built(CONFIG)
    batch = rows[np.arange(8)]
    for options in (
        {"bf16": True, "remat": "layers"},
        {"dropout": 0.1, "remat": "products"},
        {"accumulate": 2, "optimizer": "lamb", "bf16": True, "dropout": 0.1},
    ):
        config = changed(**options)
        method = training.pretraining(config, module.language(config, TOKENIZER, "text"))
        state = jax.eval_shape(method.init, jax.random.key(0), batch)
        after, metrics = jax.eval_shape(method.step, state, batch, jax.random.key(0))
        assert after == state
        assert all(x.dtype == jnp.float32 for x in jax.tree.leaves((state.params, metrics)))


def test_schedule():
    rate = training.schedule(changed(steps=200, warmup=0.1, learning_rate=0.5))
    assert [float(rate(n)) for n in (0, 10, 20, 110, 200, 300)] == pytest.approx(
        [0, 0.25, 0.5, 0.25, 0, 0]
    )
    short = training.schedule(changed(steps=1, warmup=0.0, learning_rate=0.5))
    assert [float(short(n)) for n in (0, 1)] == pytest.approx([0.5, 0])


def after_two_steps(config, params, grads):
    """The first step has a rate of 0. Returns the parameters, and the second step's rate."""
    optimizer = training.optimizer(config)
    state, update = optimizer.init(params), jax.jit(optimizer.update)
    for _ in range(2):
        updates, state = update(grads, state, params)
        params = optax.apply_updates(params, updates)
    return params, float(training.schedule(config)(1))


@pytest.mark.parametrize("name", ["adamw", "lamb"])
def test_biases_and_norms_are_not_decayed(name):
    config = changed(optimizer=name, weight_decay=0.1, learning_rate=0.2)
    own = module.language(config, TOKENIZER, "text")
    params = jax.tree.map(jnp.ones_like, drawn(own.model))
    after, rate = after_two_steps(config, params, jax.tree.map(jnp.zeros_like, params))
    assert rate > 0
    factor = 1 - rate * (0.1 if name == "adamw" else 1)  # LAMB's step is as long as the weights
    flat = jax.tree.leaves_with_path(after)
    for path, leaf in flat:
        kind = jax.tree_util.keystr(path)
        kept = kind.endswith(("['bias']", "['scale']"))
        assert kept or kind.endswith(("['kernel']", "['embedding']"))
        np.testing.assert_allclose(leaf, 1 if kept else factor, rtol=1e-6, err_msg=kind)
    assert "['bias']" in {jax.tree_util.keystr(path) for path, _ in flat}  # that of the head


def test_lamb_sees_each_layer():
    config = changed(optimizer="lamb", learning_rate=0.2)
    own = module.language(config, TOKENIZER, "text")
    params = jax.tree.map(jnp.ones_like, drawn(own.model))
    second = jnp.arange(2.0)[:, None, None]
    grads = jax.tree.map(jnp.zeros_like, params)
    kernel = grads["transformer"]["layers"]["up"]["kernel"]
    grads["transformer"]["layers"]["up"]["kernel"] = kernel + second
    after, rate = after_two_steps(config, params, grads)
    moved = after["transformer"]["layers"]["up"]["kernel"]
    np.testing.assert_allclose(moved, 1 - rate, rtol=1e-5)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """stored(kind, head, **changes): a folder of weights, and what is in it."""

    def stored(kind="bert", head=True, **changes):
        offset = {"offset": 2, "segments": 1} if kind == "roberta" else {"segments": 2}
        settings = {"vocab": VOCAB, **SMALL, "length": 40, **offset, **changes}
        config = {"epsilon": 1e-5, "dropout": 0.0}
        model = module.MaskedLM(module.Transformer(**settings, **config))
        params = drawn(model)
        if not head:
            params = {"transformer": params["transformer"]}
        folder = tmp_path_factory.mktemp("weights")
        weights.write(folder, weights.Pretrained(kind, settings | config, params))
        return folder, params

    return stored


@pytest.mark.parametrize("head", [True, False])
def test_training_begins_with_given_weights(stored, head):
    folder, params = stored(head=head)
    rows, own, method = built(changed(init=str(folder), dropout=0.3))
    assert (own.settings["dropout"], own.settings["epsilon"]) == (0.3, 1e-5)
    state = jax.jit(method.init)(jax.random.key(0), rows[np.arange(2)])
    given = {name: state.params[name] for name in params}
    jax.tree.map(np.testing.assert_array_equal, given, params)
    assert jax.tree.structure(state.params) == jax.tree.structure(drawn(own.model))
    if not head:
        assert np.std(state.params["dense"]["kernel"]) > 0.01


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_what_is_written_is_the_model(tmp_path, stored, kind):
    folder, params = stored(kind)
    config = changed(dropout=0.1, bf16=True)
    own = module.language(dataclasses.replace(config, init=str(folder)), TOKENIZER, "text")
    weights.write(tmp_path / "out", weights.Pretrained(kind, own.settings, params))
    again = dataclasses.replace(config, init=str(tmp_path / "out"))
    other = module.language(again, TOKENIZER, "text")
    assert other.model == own.model
    assert own.model.transformer.offset == (2 if kind == "roberta" else 0)
    jax.tree.map(np.testing.assert_array_equal, other.pretrained.params, params)


@pytest.mark.parametrize(
    ("kind", "settings", "changes", "message"),
    [
        ("bert", {"vocab": VOCAB - 1}, {}, "has embeddings of 56 tokens; expected .* the 57 of"),
        ("bert", {}, {"length": 41}, r"--length 41: expected at most 40, the positions of /"),
        ("roberta", {}, {"length": 39}, "--length 39: expected at most 38, the positions of /"),
        ("roberta", {}, {"objective": "unilm"}, "--objective unilm: tells two segments apart; /"),
    ],
)
def test_weights_that_do_not_fit(stored, kind, settings, changes, message):
    folder, _ = stored(kind, **settings)
    with pytest.raises(UserError, match=message) as error:
        module.language(changed(init=str(folder), **changes), TOKENIZER, "text")
    assert str(folder) in str(error.value)


def test_a_text_of_one_part():
    with pytest.raises(UserError, match="text: fits into one row of --length 32; expected more"):
        built(CONFIG, [30])


def test_a_guess_is_right_where_no_other_is_likelier():
    logits = jnp.array([[[1.0, 3, 2], [1, 3, 2], [2, 2, 1]]])
    assert training.right(logits, jnp.array([[1, 2, 1]])).tolist() == [[True, False, True]]
