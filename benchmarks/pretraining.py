"""Pre-training of BERT beside PyTorch, step by step on the same batches: held-out loss and speed.

    python -m benchmarks.pretraining                # on the documentation strings
    python -m benchmarks.pretraining corpus=FILE vocab=FILE steps=300 batch_size=16

Options are these flags of `python -m experiments.bert_pretraining`, whose model, batches, masks and
schedule are used: corpus, docstrings, vocab, vocab_size, segmenter, steps (10 or more), batch_size,
length, size, learning_rate, warmup, workdir.

The peer is `BertForMaskedLM` of Hugging Face transformers (sdpa attention) with the same first
parameters, fused AdamW and the same clipping. It reads the same masked ids and computes logits at
all positions, as its users do; `torch gathered` computes them at the masked ones alone.

curve     loss in nats per masked token of the held-out rows, whose masks are fixed, after some
          steps: ours, torch, torch gathered, and ours from other first parameters (seeds 1 and 2),
          which shows how much these alone change the loss.
speed     median seconds of a training step; all take their steps in turn. `ratio` is seconds over
          ours, so > 1 is slower than ours.

Needs torch and transformers. Results: RESULTS.md.
"""

import dataclasses
import itertools
import statistics
import sys
import time
from typing import Any

import jax
import numpy as np
import torch

from benchmarks import lib, transformer_peer
from experiments import bert_pretraining
from experiments.lib import devices
from experiments.lib.batches import batches, test_batches
from experiments.lib.programs import compile_method
from experiments.methods import language, pretraining
from jaxgen import models

SEEDS, POINTS = 3, 6
ALLOWED = (
    "corpus", "docstrings", "vocab", "vocab_size", "segmenter", "steps", "batch_size", "length",
    "size", "learning_rate", "warmup", "workdir",
)  # fmt: skip
DEFAULTS = {"steps": "300", "workdir": "runs/benchmark"}


class Ours:
    """Our training, with the parameters of a seed."""

    def __init__(self, config, method, data, seed: int):
        mesh = devices.make_mesh(devices=jax.devices()[:1])
        first = data.train[np.arange(config.batch_size)]
        # The key of `init` alone: all seeds see the same batches and masks.
        begun = compile_method(dataclasses.replace(config, seed=seed), mesh, method, first)
        self.programs = compile_method(config, mesh, method, first)
        self.state, self._data, self._config = begun.init(first), data, config

    def step(self, batch, number: int, tensors, rate: float) -> None:
        """One step."""
        del tensors, rate  # it masks by the same key, and has the same schedule
        self.state, _ = jax.block_until_ready(
            self.programs.update(self.state, batch, np.uint32(number))
        )

    def test(self) -> float:
        """Held-out loss."""
        total = count = 0.0
        for i, batch in enumerate(test_batches(self._data.test, self._config.batch_size)):
            sums = self.programs.measure(self.state, batch, np.uint32(i))["loss"]
            total, count = total + float(sums[0]), count + float(sums[1])
        return total / count


class Torch:
    """Its training, from our parameters."""

    def __init__(self, config, own: language.Language, params, tests, *, gathered: bool):
        torch.set_num_threads(lib.cores())
        model = transformer_peer.network(own.settings, jax.device_get(params))
        self._loss = transformer_peer.Loss(model, gathered)
        self._adam = transformer_peer.optimizer(model, 1.0, config.weight_decay, 1e-6)
        self._tests = tests

    def step(self, batch, number: int, tensors, rate: float) -> None:
        """One step."""
        del batch, number
        for group in self._adam.param_groups:
            group["lr"] = rate
        self._adam.zero_grad()
        self._loss(**tensors).backward()
        torch.nn.utils.clip_grad_norm_(self._loss.parameters(), 1.0)
        self._adam.step()

    @torch.no_grad()
    def test(self) -> float:
        """Held-out loss."""
        total = count = 0.0
        for batch, asked in self._tests:
            own = float(asked.weights.sum())
            total += float(self._loss(**prepared(batch, asked))) * own
            count += own
        return total / count


def prepared(batch, asked) -> dict[str, torch.Tensor]:
    """The masked batch as inputs of `transformer_peer.Loss`; surplus slots have target -100."""
    documents, at = np.asarray(batch["documents"]), np.asarray(asked.at)
    targets = np.where(np.asarray(asked.weights) > 0, asked.targets, -100)
    labels = np.full(documents.shape, -100)
    np.put_along_axis(labels, at, targets, axis=1)
    arrays = {
        "ids": asked.ids, "at": at, "targets": targets, "labels": labels,
        "documents": documents, "positions": models.document_positions(documents),
    }  # fmt: skip
    return {name: torch.from_numpy(np.int64(x)) for name, x in arrays.items()}


def run(options: dict[str, str]) -> list[dict[str, Any]]:
    """Trains all in turn."""
    config = configured(options)
    pieces = config.pieces()
    data = language.rows(config, pieces)
    own = language.language(config, pieces.tokenizer, pieces.name)
    method = pretraining.pretraining(config, own)
    ask = jax.jit(lambda key, batch: own.ask(jax.random.split(key)[0], batch)[0])
    tests = []
    for i, batch in enumerate(test_batches(data.test, config.batch_size)):
        asked = ask(language_key(config, 2, i), batch)
        tests.append((batch, asked._replace(weights=asked.weights * batch["valid"][:, None])))
    ours = [Ours(config, method, data, seed) for seed in range(SEEDS)]
    params = ours[0].state.params
    trained = {"ours": ours[0]} | {f"ours, seed {i}": ours[i] for i in range(1, SEEDS)}
    for name, gathered in {"torch": False, "torch gathered": True}.items():
        trained[name] = Torch(config, own, params, tests, gathered=gathered)
    rate = pretraining.schedule(config)
    times: dict[str, list[float]] = {name: [] for name in trained}
    rows = []
    stream = batches(data.train, config.batch_size, config.seed)
    for number, batch in enumerate(itertools.islice(stream, config.steps)):
        asked = jax.device_get(ask(language_key(config, 1, number), batch))
        tensors, step_rate = prepared(batch, asked), float(rate(number))
        for name, one in trained.items():
            began = time.perf_counter()
            one.step(batch, number, tensors, step_rate)
            times[name].append(time.perf_counter() - began)
        if (number + 1) % max(1, config.steps // POINTS) == 0:
            losses = {name: one.test() for name, one in trained.items()}
            rows.append(lib.row("curve", steps=number + 1, **losses))
    tokens = config.batch_size * config.length
    for name in ("ours", "torch", "torch gathered"):
        own_times, reference = times[name][5:], times["ours"][5:]
        seconds = statistics.median(own_times)
        ratio = lib.ratio(own_times, reference)
        rows.append(
            lib.row(
                "speed", name=name, seconds=seconds, tokens_per_second=tokens / seconds, **ratio
            )
        )
    return rows


def language_key(config, purpose: int, number: int) -> jax.Array:
    """The key of a training step (1) or of a test batch (2), see `experiments.lib.programs`."""
    key = jax.random.fold_in(jax.random.key(config.seed), purpose)
    return jax.random.fold_in(key, number)


def configured(options: dict[str, str]) -> bert_pretraining.Config:
    """The config of the experiment with some flags changed."""
    base = bert_pretraining.Config()
    given = {**DEFAULTS, **options}
    kinds = {field.name: type(getattr(base, field.name)) for field in dataclasses.fields(base)}
    if unknown := given.keys() - set(ALLOWED):
        sys.exit(f"error: {', '.join(sorted(unknown))}; expected some of {', '.join(ALLOWED)}")
    if int(given["steps"]) < 10:
        sys.exit(f"error: steps {given['steps']}; expected at least 10")
    return dataclasses.replace(base, **{name: kinds[name](text) for name, text in given.items()})


if __name__ == "__main__":
    chosen = {name: value for name, _, value in (x.partition("=") for x in sys.argv[1:])}
    lib.run({"pretraining": lambda: run(chosen)}, [])
