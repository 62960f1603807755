"""Writes a run of bert_pretraining as a folder that Hugging Face's transformers reads.

    python -m experiments.export runs/bert_pretraining bert

Files in the folder: config.json, model.safetensors, tokenizer.json, tokenizer_config.json and, of a
BERT, vocab.txt. `AutoModelForMaskedLM.from_pretrained("bert")` loads them; so does `--init bert`.
"""

import pathlib
from dataclasses import dataclass
from typing import Annotated

import tyro

from experiments.lib import runs
from experiments.lib.config import AtLeast, Checked
from experiments.lib.errors import UserError
from experiments.lib.launch import command
from experiments.lib.logs import notice
from experiments.lib.tokenizer import write_tokenizer
from experiments.lib.weights import Pretrained, write
from experiments.methods.language import LanguageConfig, language


@dataclass(frozen=True)
class Config(Checked):
    """What to write."""

    run: tyro.conf.Positional[pathlib.Path]
    """Folder of the run."""
    out: tyro.conf.Positional[pathlib.Path]
    """Folder to write."""
    step: int | None = None
    """Step of the checkpoint; by default the newest."""
    seed: Annotated[int, AtLeast(0)] = 0
    """Which model of a run with several --seeds."""


def main(config: Config) -> None:
    """Loads the run and writes its weights and vocabulary."""
    run = runs.load(config.run, config.step, config.seed)
    if not isinstance(run.config, LanguageConfig):
        raise UserError(f"{config.run}: a run of {run.name}; expected one of bert_pretraining")
    tokenizer = run.data.pieces.tokenizer
    own = language(run.config, tokenizer, str(config.run))
    kind = own.pretrained.kind if own.pretrained else "bert"
    write(config.out, Pretrained(kind, own.settings, run.state.params))
    write_tokenizer(config.out, tokenizer)
    notice(f"{run.name}, step {run.step}, in {config.out}")
    if run.config.objective == "gpt":
        notice("its attention was causal: load it with is_decoder=True")


if __name__ == "__main__":
    command(main, Config)
