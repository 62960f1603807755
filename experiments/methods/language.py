"""Language models: the flags, the data, the model and what it is asked."""

import pathlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from experiments.lib.artefacts import digest
from experiments.lib.config import FOLDER, Above, AtLeast, Below
from experiments.lib.errors import UserError
from experiments.lib.sources.packing import Rows, parts_of, split_parts
from experiments.lib.sources.pieces import PieceCorpus
from experiments.lib.sources.text import PiecesConfig, PiecesText
from experiments.lib.tokenizer import ordinary, specials
from experiments.lib.weights import Pretrained, read
from jaxgen.losses import Prediction, masked_words, next_tokens, prefix_targets
from jaxgen.models import (
    MaskedLM,
    Transformer,
    causal_mask,
    document_mask,
    document_positions,
    prefix_mask,
)

SIZES: dict[str, dict[str, int]] = {
    "tiny": {"depth": 2, "width": 128, "heads": 2, "hidden": 512},
    "small": {"depth": 4, "width": 512, "heads": 8, "hidden": 2048},
    "base": {"depth": 12, "width": 768, "heads": 12, "hidden": 3072},
    "large": {"depth": 24, "width": 1024, "heads": 16, "hidden": 4096},
}
REMAT = {
    "none": None,
    "products": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "layers": jax.checkpoint_policies.nothing_saveable,
}
_POSITIONS = 512  # of a new model, at least: a later run may use longer rows (--from)
_TEST_SHARE = 0.02  # of the parts of documents


@dataclass(frozen=True)
class LanguageConfig(PiecesConfig):
    """The flags of pre-training."""

    objective: Literal["mlm", "gpt", "unilm"] = "mlm"
    """What is predicted: mlm, masked words (BERT); gpt, the next token; unilm, the second part of
    each document, from the first part and from what comes before (UniLM)."""
    mask_rate: Annotated[float, Above(0), Below(1)] = 0.15
    """Share of the tokens that --objective mlm predicts."""
    length: Annotated[int, AtLeast(8)] = 128
    """Tokens of a row. Longer documents are cut, short ones are packed together."""
    size: Literal["tiny", "small", "base", "large"] = "tiny"
    """Layers x width of a new model: 2 x 128, 4 x 512, 12 x 768 (BERT-base), 24 x 1024."""
    init: Annotated[str, FOLDER] = ""
    """Folder of a Hugging Face BERT or RoBERTa (config.json, model.safetensors, vocabulary) to
    begin with, in place of a new model of --size."""
    optimizer: Literal["adamw", "lamb"] = "adamw"
    """lamb is for batches of thousands of rows."""
    learning_rate: Annotated[float, AtLeast(0)] = 1e-3
    """Peak, after a linear warm-up; then it falls linearly to 0 at --steps. 2e-3 suits --size tiny,
    1e-4 to 1e-3 larger models and weights of --init."""
    warmup: Annotated[float, AtLeast(0), Below(1)] = 0.05
    """Share of the steps until the peak."""
    weight_decay: Annotated[float, AtLeast(0)] = 0.01
    """Decoupled decay of all parameters but biases and norms."""
    accumulate: Annotated[int, AtLeast(1)] = 1
    """Batches of --batch-size rows whose gradients are averaged in one step, token by token."""
    dropout: Annotated[float, AtLeast(0), Below(1)] = 0.0
    """Probability; BERT took 0.1 for 40 passes over its text."""
    bf16: bool = False
    """Computes in bfloat16, with parameters and statistics in float32: for TPUs and GPUs."""
    remat: Literal["none", "products", "layers"] = "none"
    """What is computed again for the gradient, which saves memory: none; products, all but the
    products of dense layers; layers, all but the input of each layer."""
    unroll: Annotated[int, AtLeast(0)] = 0
    """Layers that one iteration of the loop over layers computes: more is faster on CPUs and GPUs,
    and takes longer to compile. 0: all."""


class Language(NamedTuple):
    """A model and its objective.

    Attributes:
      model: a `MaskedLM`.
      settings: of its `Transformer`.
      ask: (key, batch of `Rows`) -> (`Prediction`, inputs of the model besides ids).
      pretrained: weights to begin with, or None.
      vocabulary: its fingerprint.
    """

    model: MaskedLM
    settings: dict[str, Any]
    ask: Callable
    pretrained: Pretrained | None
    vocabulary: str


def rows(config: LanguageConfig, pieces: PieceCorpus) -> PiecesText:
    """The documents packed into rows; a fiftieth of them, drawn at random, is the test.

    Raises:
      UserError: the text is too short for two parts.
    """
    closing = 2 if config.objective == "unilm" else 1  # UniLM puts one between its parts
    special = specials(pieces.tokenizer, pieces.name)
    parts = parts_of(pieces.starts, config.length - 1 - closing)
    if len(parts.starts) < 2:
        raise UserError(
            f"{pieces.name}: fits into one row of --length {config.length}; expected more"
            " text, for training and for the test"
        )
    train, test = (
        Rows(pieces, own, config.length, special, closing)
        for own in split_parts(parts, pieces.starts, _TEST_SHARE)
    )
    return PiecesText(train, test, pieces)


def language(config: LanguageConfig, tokenizer, name: str) -> Language:
    """The model and the objective.

    Raises:
      UserError: the weights of --init cannot be read, or do not fit the vocabulary, --length or
        --objective.
    """
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    count = 1 + max(vocabulary.values())
    pretrained = read(pathlib.Path(config.init)) if config.init else None
    if pretrained:
        settings = pretrained.settings
        longest = settings["length"] - settings.get("offset", 0)
        if settings["vocab"] < count:
            raise UserError(
                f"{config.init}: has embeddings of {settings['vocab']} tokens; expected those of"
                f" the {count} of {config.vocab or config.init}"
            )
        if longest < config.length:
            raise UserError(
                f"--length {config.length}: expected at most {longest}, the positions of"
                f" {config.init}"
            )
        if config.objective == "unilm" and settings["segments"] < 2:
            raise UserError(
                f"--objective unilm: tells two segments apart; {config.init} has embeddings of one"
            )
    else:
        length = max(_POSITIONS, config.length)
        settings = {"vocab": count, **SIZES[config.size], "length": length, "segments": 2}
    settings = {
        **settings,
        "dropout": config.dropout,
        "dtype": jnp.bfloat16 if config.bf16 else jnp.float32,
        "remat": REMAT[config.remat],
        "unroll": config.unroll or settings["depth"],
    }
    ask = objective(config, tokenizer, name)
    fingerprint = digest("\n".join(sorted(vocabulary, key=vocabulary.get)))
    return Language(MaskedLM(Transformer(**settings)), settings, ask, pretrained, fingerprint)


def objective(config: LanguageConfig, tokenizer, name: str) -> Callable:
    """(key, batch of `Rows`) -> (`Prediction`, inputs of the model besides ids)."""
    special = specials(tokenizer, name)
    real = jnp.asarray(ordinary(tokenizer))

    def inputs(documents, mask=None, segments=None):
        own = document_mask(documents)
        positions = document_positions(documents)
        return {
            "mask": own if mask is None else own & mask,
            "positions": positions,
            "segments": segments,
        }

    def masked(key, batch):
        ids, documents = batch["ids"], batch["documents"]
        maskable = (documents != 0) & ~jnp.isin(ids, jnp.asarray(special))
        found = masked_words(
            key, ids, batch["begins"], maskable, real, special.mask, config.mask_rate
        )
        return found, inputs(documents)

    def causal(key, batch):
        ids, documents = batch["ids"], batch["documents"]
        return next_tokens(ids, documents), inputs(documents, causal_mask(ids.shape[1]))

    def prefix(key, batch):
        ids, documents = batch["ids"], batch["documents"]
        found, segments = prefix_targets(key, ids, documents, special.sep)
        return found, inputs(documents, prefix_mask(segments), segments)

    return {"mlm": masked, "gpt": causal, "unilm": prefix}[config.objective]


def answers(own: Language) -> Callable:
    """(params, key, batch, count) -> (`Prediction`, ids of the likeliest tokens, probabilities).

    The last two are [B, K, count].
    """

    def of(params, key, batch, count: int) -> tuple[Prediction, jax.Array, jax.Array]:
        asked, inputs = own.ask(key, batch)
        logits: Any = own.model.apply({"params": params}, asked.ids, asked.at, **inputs)
        chances, ids = jax.lax.top_k(jax.nn.softmax(logits), count)
        return asked, ids, chances

    return jax.jit(of, static_argnums=3)
