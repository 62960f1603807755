"""Gaps of a text, filled by a model."""

import dataclasses
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from experiments import bert_pretraining, fill_in
from experiments.lib.errors import UserError
from experiments.lib.tokenizer import wordpiece
from experiments.methods.language import language

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "sat"]


@pytest.fixture(scope="module")
def run():
    """A model whose head says "cat", whatever it reads."""
    tokenizer = wordpiece(PIECES)
    own = language(bert_pretraining.SMOKE, tokenizer, "")
    params = own.model.init(jax.random.key(0), np.ones((1, 2), np.int32))["params"]
    params["bias"] = params["bias"].at[6].set(9.0)
    return SimpleNamespace(
        name="bert_pretraining",
        config=bert_pretraining.SMOKE,
        data=SimpleNamespace(pieces=SimpleNamespace(tokenizer=tokenizer)),
        state=SimpleNamespace(params=params),
    )


def test_each_gap_has_its_guesses(run):
    found = fill_in.fill_in(run, "The [MASK] sat [MASK]", 3)
    assert [len(gap) for gap in found] == [3, 3]
    for gap in found:
        assert gap[0][0] == "cat"
        chances = [chance for _, chance in gap]
        assert chances[0] > 0.95
        assert chances == sorted(chances, reverse=True)


def test_what_cannot_be_filled_is_refused(run):
    with pytest.raises(UserError, match=r"'the cat': no gap; expected \[MASK\]"):
        fill_in.fill_in(run, "the cat")
    with pytest.raises(UserError, match="has 511 pieces; expected at most 510"):
        fill_in.fill_in(run, "cat " * 510 + "[MASK]")
    run = SimpleNamespace(**vars(run))
    run.config = dataclasses.replace(run.config, objective="gpt")
    with pytest.raises(UserError, match="with --objective mlm"):
        fill_in.fill_in(run, "the [MASK]")
