"""Gaps and guesses of a model that is sure of what it says."""

import dataclasses
import re
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import bert_pretraining
from experiments.lib.tokenizer import encode, specials, wordpiece
from experiments.methods import fill_in
from experiments.methods.fill_in import Gap
from experiments.methods.language import answers, objective
from jaxgen.losses import Prediction

WORDS = ["the", "cat", "sat", "on", "mat", "##s", "a", "dog"]
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
TOKENIZER = wordpiece(PIECES)
SPECIAL = specials(TOKENIZER, "")
TEXT = "the cat sat on the mats"


class Sure:
    """A model that is sure of one token, and less of another, whatever it reads."""

    def apply(self, params, ids, at=None, **inputs):
        shape = ids.shape if at is None else at.shape
        logits = jnp.log(jnp.full(len(PIECES), 0.01).at[jnp.array([6, 12])].set((0.7, 0.2)))
        return jnp.broadcast_to(logits, (*shape, len(PIECES)))


def batch(closing):
    """A row of padding alone, and one of two documents."""
    found = encode(TOKENIZER, ["a dog", TEXT])
    ids, documents, begins = np.zeros((3, 2, 24), np.int32)
    place = 0
    for number, pieces in enumerate(found, 1):
        own = [SPECIAL.cls, *pieces.ids, *[SPECIAL.sep] * closing]
        ids[1, place : place + len(own)] = own
        documents[1, place : place + len(own)] = number
        begins[1, place + 1 : place + 1 + len(pieces.ids)] = pieces.begins
        place += len(own)
    return {"ids": ids, "documents": documents, "begins": begins.astype(bool)}


def decoded(ids):
    return TOKENIZER.decode([int(i) for i in ids], skip_special_tokens=False)


@pytest.mark.parametrize("name", ["mlm", "gpt", "unilm"])
def test_the_text_of_a_gap_and_what_belongs_there(name):
    config = dataclasses.replace(bert_pretraining.SMOKE, objective=name, length=24, mask_rate=0.4)
    ask = jax.jit(objective(config, TOKENIZER, ""))
    rows = batch(2 if name == "unilm" else 1)
    guess = answers(SimpleNamespace(model=Sure(), ask=ask))
    texts = set()
    for seed in range(12):
        key = jax.random.key(seed)
        found = fill_in.gaps(guess, TOKENIZER, {}, key, rows)
        asked, _ = ask(key, rows)
        read, documents = np.asarray(asked.ids[1]), rows["documents"][1]
        places = np.arange(1, 25) if asked.at is None else np.asarray(asked.at[1])
        slots = np.flatnonzero(asked.weights[1])
        if asked.at is not None:  # the others are read as they are, or as another piece
            slots = slots[read[places[slots]] == SPECIAL.mask]
        assert len(found) == bool(len(slots))
        if not found:
            continue
        (gap,) = found
        assert [piece for piece, _ in gap.guesses[:2]] == ["cat", "dog"]
        assert [chance for _, chance in gap.guesses] == pytest.approx(
            [0.7, 0.2, 0.01][: len(gap.guesses)] / np.float64(1.01), rel=1e-4
        )
        # By the prediction itself: the gap is one of its slots, in the text that the model read.
        possible = []
        for slot in slots:
            place = places[slot]
            inside = np.flatnonzero(documents == documents[place])
            first, last = inside[0] + 1, inside[-1]
            after = "" if name != "mlm" else decoded(read[place + 1 : last])
            right = TOKENIZER.id_to_token(int(asked.targets[1, slot]))
            possible.append((decoded(read[first:place]), right, after))
        assert (gap.before, gap.right, gap.after) in possible
        assert "[CLS]" not in gap.before
        texts.add(gap.before)
    assert len(texts) > (0 if name == "gpt" else 2)


def test_long_texts_are_shortened(monkeypatch):
    monkeypatch.setattr(fill_in, "_BEFORE", 2)
    monkeypatch.setattr(fill_in, "_AFTER", 1)
    ids = batch(1)["ids"]
    at = np.array([[0], [8]])  # "on" of the second document
    ids[1, 8] = SPECIAL.mask
    asked = Prediction(ids, at, np.array([[0], [8]]), np.array([[0.0], [1.0]]))
    given = asked, np.full((2, 1, 1), 6), np.full((2, 1, 1), 0.25)
    (gap,) = fill_in.gaps(lambda *_: given, TOKENIZER, {}, None, batch(1))
    assert gap == Gap("cat sat", "the", "on", [("cat", 0.25)])
    assert fill_in.lines([gap]) == ["cat sat ____ the  [on]  cat 0.25"]


def test_a_picture_of_any_text():
    """Warnings are errors: a formula that is none, a character that no font has."""
    guesses = [("$_$", 0.5), ("猫", 0.25), ("$^", 0.1)]
    gap = Gap(r"costs \$5 and $\frac$", "$x^$ 中文 🙂", "$_$", guesses)
    image = fill_in.table([gap, gap._replace(right="x")])
    assert image.ndim == 3
    assert image.min() < 0.2  # something is drawn
    assert fill_in.table([]).ndim == 3


def test_the_first_guess_is_green_where_it_is_right():
    def colours(right):
        gap = Gap("a", "b", right, [("cat", 0.5)])
        red, green, _ = np.moveaxis(fill_in.table([gap]), -1, 0)
        return (green > red + 0.25).any(), (red > green + 0.25).any()

    assert colours("cat") == (True, False)
    assert colours("dog") == (False, True)


def test_a_demonstration_prints_what_it_draws_of_a_few_rows(capsys):
    config = dataclasses.replace(bert_pretraining.SMOKE, length=24, mask_rate=0.4)
    ask, asked = objective(config, TOKENIZER, ""), []

    def counted(key, rows):
        asked.append(len(rows["ids"]))
        return ask(key, rows)

    draw = fill_in.demonstration(SimpleNamespace(model=Sure(), ask=counted), TOKENIZER)
    rows = {name: np.tile(x, (20, 1)) for name, x in batch(1).items()}
    for _ in range(2):
        assert list(draw(SimpleNamespace(params={}), rows, jax.random.key(0))) == ["guesses"]
    assert asked == [12], "compiled again, or for more rows than are shown"
    shown = capsys.readouterr().err.splitlines()
    assert len(shown) == 2 * 5
    line = r".* ____ .*  \[\S+\]  cat 0.69, dog 0.20, \S+ 0.01"
    assert all(re.fullmatch(line, text) for text in shown)
