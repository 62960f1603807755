"""The guesses of a language model, as lines and as a picture."""

import warnings
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from experiments.lib.logs import notice
from experiments.lib.pictures import figure
from experiments.lib.tokenizer import specials
from experiments.methods.language import Language, answers

_GUESSES = 3
_SHOWN = 12  # rows of which one gap is shown
_BEFORE, _AFTER = 12, 8  # pieces of the text beside the gap
# Fonts with Chinese characters, of which a system may have one; the picture's own has none.
_FONTS = ("Noto Sans CJK SC", "Noto Sans CJK JP", "WenQuanYi Zen Hei", "PingFang SC", "SimHei")


class Gap(NamedTuple):
    """A gap in a text.

    Attributes:
      before: the text before it.
      after: the text after it.
      right: the piece that belongs there.
      guesses: (piece, probability), falling.
    """

    before: str
    after: str
    right: str
    guesses: list[tuple[str, float]]


def gaps(guess: Callable, tokenizer, params, key, batch) -> list[Gap]:
    """One gap from each of the first rows, but for those without one.

    A gap is a piece that the model does not see: of masked words those that became [MASK].

    Args:
      guess: what `answers` gives.
      tokenizer: of the batch.
      params: of the model.
      key: of the masks.
      batch: of `Rows`.
    """
    batch = {name: np.asarray(column[:_SHOWN]) for name, column in batch.items()}
    asked, ids, chances = jax.device_get(guess(params, key, batch, _GUESSES))
    hidden = asked.weights > 0
    if asked.at is not None:
        read = np.take_along_axis(asked.ids, asked.at, axis=1)
        hidden &= read == specials(tokenizer, "the vocabulary").mask
    found = []
    for row in range(len(ids)):
        slots = np.flatnonzero(hidden[row])
        if not len(slots):
            continue
        slot = slots[len(slots) // 2]
        causal = asked.at is None
        place = slot + 1 if causal else asked.at[row, slot]  # of the predicted token
        same = batch["documents"][row] == batch["documents"][row, place]
        inside = np.flatnonzero(same)
        first, last = max(inside[0] + 1, place - _BEFORE), min(inside[-1], place + 1 + _AFTER)
        text = asked.ids[row]
        guesses = [
            (tokenizer.id_to_token(int(i)), float(p))
            for i, p in zip(ids[row, slot], chances[row, slot], strict=True)
        ]
        found.append(
            Gap(
                _text(tokenizer, text[first:place]),
                "" if causal else _text(tokenizer, text[place + 1 : last]),
                tokenizer.id_to_token(int(asked.targets[row, slot])),
                guesses,
            )
        )
    return found


def _text(tokenizer, ids) -> str:
    return tokenizer.decode([int(i) for i in ids], skip_special_tokens=False)


def lines(found: list[Gap]) -> list[str]:
    """A line for each gap: the text, the right piece, and the guesses."""
    return [
        f"{gap.before} ____ {gap.after}  [{gap.right}]  "
        + ", ".join(f"{piece} {chance:.2f}" for piece, chance in gap.guesses)
        for gap in found
    ]


def demonstration(own: Language, tokenizer) -> Callable:
    """The function `pictures` of a method: a table of gaps and guesses, which it also prints."""
    guess = answers(own)  # compiled once

    def draw(state, batch, key):
        found = gaps(guess, tokenizer, state.params, key, batch)
        for line in lines(found[:5]):
            notice(line)
        return {"guesses": table(found)}

    return draw


def table(found: list[Gap]) -> np.ndarray:
    """An image: the right piece is green where it is the first guess."""
    from matplotlib import font_manager, rc_context  # noqa: PLC0415  slow to import

    there = {font.name for font in font_manager.fontManager.ttflist}
    fonts = ["DejaVu Sans", *(name for name in _FONTS if name in there)]

    def draw(drawing):
        axis = drawing.add_subplot()
        axis.set_axis_off()
        axis.set_title("A gap in a test document, the right piece, and the likeliest guesses")
        for number, gap in enumerate(found):
            height = 1 - (number + 1) / (len(found) + 1)
            hit = gap.guesses[0][0] == gap.right
            texts = [f"{piece} {chance:.2f}" for piece, chance in gap.guesses]
            columns = (
                (0.36, "right", gap.before[-44:], "black"),
                (0.43, "center", gap.right, "green" if hit else "firebrick"),
                (0.50, "left", gap.after[:26], "black"),
                (0.74, "left", "   ".join(texts), "dimgray"),
            )
            for x, side, text, colour in columns:
                axis.text(
                    x, height, text, ha=side, va="center", fontsize=9, color=colour,
                    parse_math=False,
                )  # fmt: skip

    with rc_context({"font.family": fonts}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        return figure(draw, 11, 0.35 * len(found) + 1)
