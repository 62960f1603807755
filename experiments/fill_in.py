"""Fills the gaps of a text with a run of bert_pretraining.

    python -m experiments.fill_in runs/bert_pretraining "returns the [MASK] of the array"

Prints the likeliest pieces of the vocabulary for each [MASK], with their probabilities.
"""

import pathlib
from dataclasses import dataclass
from typing import Annotated, Any

import jax
import numpy as np
import tyro

from experiments.lib import runs
from experiments.lib.config import AtLeast, Checked
from experiments.lib.errors import UserError
from experiments.lib.launch import command
from experiments.lib.logs import notice
from experiments.lib.tokenizer import specials
from experiments.methods.language import LanguageConfig, language


@dataclass(frozen=True)
class Config(Checked):
    """What to fill in."""

    run: tyro.conf.Positional[pathlib.Path]
    """Folder of the run."""
    text: tyro.conf.Positional[str]
    """A text with [MASK] where a piece is missing."""
    guesses: Annotated[int, AtLeast(1)] = 5
    """Pieces for each gap."""
    step: int | None = None
    """Step of the checkpoint; by default the newest."""
    seed: Annotated[int, AtLeast(0)] = 0
    """Which model of a run with several --seeds."""


def main(config: Config) -> None:
    """Loads the run and prints a line for each gap."""
    run = runs.load(config.run, config.step, config.seed)
    for gap in fill_in(run, config.text, config.guesses):
        notice("  ".join(f"{piece} {chance:.3f}" for piece, chance in gap))


def fill_in(run: runs.Run, text: str, count: int = 5) -> list[list[tuple[str, float]]]:
    """The likeliest pieces for each [MASK] of a text.

    Args:
      run: of bert_pretraining with --objective mlm.
      text: not longer than the model, with at least one [MASK].
      count: pieces for each.

    Returns:
      For each gap in order, (piece, probability) falling.

    Raises:
      UserError: the run is another one, or the text has no gap or too many pieces.
    """
    if not isinstance(run.config, LanguageConfig) or run.config.objective != "mlm":
        raise UserError(f"{run.name}: expected a run of bert_pretraining with --objective mlm")
    tokenizer = run.data.pieces.tokenizer
    special, own = specials(tokenizer, run.name), language(run.config, tokenizer, run.name)
    ids = [special.cls, *tokenizer.encode(text, add_special_tokens=False).ids, special.sep]
    gaps = np.flatnonzero(np.array(ids) == special.mask)
    most = own.settings["length"] - own.settings.get("offset", 0)
    if not len(gaps):
        raise UserError(f"{text[:60]!r}: no gap; expected {tokenizer.id_to_token(special.mask)}")
    if len(ids) > most:
        raise UserError(f"the text has {len(ids) - 2} pieces; expected at most {most - 2}")
    params: Any = {"params": run.state.params}
    logits: Any = own.model.apply(params, np.array([ids], np.int32), gaps[None])
    chances, found = jax.lax.top_k(jax.nn.softmax(logits[0]), count)
    return [
        [(tokenizer.id_to_token(int(i)), float(p)) for i, p in zip(*gap, strict=True)]
        for gap in zip(found, chances, strict=True)
    ]


if __name__ == "__main__":
    command(main, Config)
