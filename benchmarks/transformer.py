"""A masked-LM pre-training step of BERT: tokens per second against PyTorch.

    python -m benchmarks.transformer                # both cases
    python -m benchmarks.transformer small

A step is loss, gradient and AdamW (no decay of norms and biases), without dropout or clipping,
compiled with a donated state. 15 % of the positions of every row are predicted; ours has logits
there only. A row is one document, or 2 to 4 documents that do not see each other (`packed`).

small     4 layers of width 512, f32, 16 rows of 128 tokens.
base      BERT-base. On a CPU f32 and 4 rows of 128; elsewhere products in bf16, 64 rows of 512.
          Both against `BertForMaskedLM` of Hugging Face transformers with fused (sdpa) attention
          (`benchmarks.transformer_peer`; a test holds that loss, gradient and update are ours): as
          written, by torch.compile (on a CPU not for `base`), and `gathered`: with the head on the
          predicted positions alone, which shows what ours saves by that. All run in turn in one
          process. `ratio` is seconds over ours, so > 1 is slower than ours. `utilization` is the
          FLOP/s of the step's necessary products (those of `gathered`, and all L x L pairs of
          attention) over those of a large product of JAX in the same rounds: 2048^3 in f32, or ten
          of 8192^3 in bf16. `scanned` is ours with one layer per iteration of the loop over layers,
          which compiles faster, instead of all. `matmul of torch` has the ratio of that product
          alone, PyTorch's to JAX's: on a CPU most of the difference may be there.

Beside PyTorch on one GPU, XLA must not take all memory at the start: this file sets
XLA_PYTHON_CLIENT_PREALLOCATE=false unless the environment says otherwise. It needs jax, flax,
optax and numpy, and torch and transformers for the comparison. Results: RESULTS.md.
"""

import os
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import lib
from jaxgen import models

RATE, DECAY, ROUNDS = 1e-4, 0.01, 5


class Sizes(NamedTuple):
    """Of a network and its batch; BERT-base by default."""

    vocab: int = 30522
    depth: int = 12
    width: int = 768
    heads: int = 12
    hidden: int = 3072
    length: int = 128
    batch: int = 4
    dtype: Any = jnp.float32

    def settings(self) -> dict[str, Any]:
        """Of `Transformer`."""
        names = ("vocab", "depth", "width", "heads", "hidden", "length")
        return {**{name: getattr(self, name) for name in names}, "dropout": 0.0}

    def predicted(self) -> int:
        """Positions of a row."""
        return round(0.15 * self.length)

    def work(self) -> float:
        """FLOPs of the products of a step: of a forward pass, three times."""
        layer = 4 * self.width**2 + 2 * self.width * self.hidden  # multiplications for one token
        attention = 2 * self.length * self.width
        head = self.width**2 + self.width * self.vocab  # for one predicted position
        row = self.length * self.depth * (layer + attention) + self.predicted() * head
        return 6.0 * self.batch * row


SMALL = Sizes(8192, 4, 512, 8, 2048, 128, 16)
BASE = Sizes()


class State(NamedTuple):
    """Parameters, and the state of the optimizer."""

    params: Any
    opt_state: Any


def on_cpu() -> bool:
    """Whether sizes are those for a CPU."""
    return jax.default_backend() == "cpu"


def network(sizes: Sizes, **settings) -> models.MaskedLM:
    """The network; it does not depend on the batch."""
    return models.MaskedLM(models.Transformer(**sizes.settings(), dtype=sizes.dtype, **settings))


def batch(sizes: Sizes, *, packed: bool) -> dict[str, np.ndarray]:
    """Random tokens: ids [B, L]; at, targets and weights [B, K]; of packed rows documents, too."""
    rng, shape = np.random.default_rng(0), (sizes.batch, sizes.length)
    ids = rng.integers(2, sizes.vocab, shape).astype(np.int32)
    at = np.stack([rng.permutation(sizes.length)[: sizes.predicted()] for _ in ids])
    at = np.sort(at, axis=1).astype(np.int32)
    targets = np.take_along_axis(ids, at, axis=1)
    np.put_along_axis(ids, at, 1, axis=1)  # the peer has no gradient at 0, its padding
    found = {"ids": ids, "at": at, "targets": targets, "weights": np.ones(at.shape, np.float32)}
    if packed:
        documents = np.ones(shape, np.int32)
        for row in documents:
            for start in rng.choice(np.arange(1, sizes.length), rng.integers(1, 4), replace=False):
                row[start:] += 1
        found["documents"] = documents
        found["positions"] = np.asarray(models.document_positions(documents))
    return found


def predictions(model, params, batch):
    """Logits [B, K, vocab] at the predicted positions."""
    inputs = {}
    if "documents" in batch:
        mask = models.document_mask(batch["documents"])
        inputs = {"mask": mask, "positions": batch["positions"]}
    return model.apply({"params": params}, batch["ids"], batch["at"], **inputs)


def cross_entropy(logits, batch):
    """Weighted mean over the predicted positions, in nats."""
    each = optax.softmax_cross_entropy_with_integer_labels(logits, batch["targets"])
    return jnp.sum(batch["weights"] * each) / jnp.sum(batch["weights"])


def objective(model) -> Callable:
    """(params, batch) -> loss."""
    return lambda params, batch: cross_entropy(predictions(model, params, batch), batch)


def optimizer(rate: float = RATE, decay: float = DECAY, eps: float = 1e-8):
    """AdamW that decays matrices and tables alone."""

    def decayed(params):
        return jax.tree_util.tree_map_with_path(
            lambda path, _: path[-1].key in ("kernel", "embedding"), params
        )

    return optax.adamw(rate, eps=eps, weight_decay=decay, mask=decayed)


def trainer(model, adam) -> Callable:
    """(state, batch) -> (state, metrics), one step; not compiled."""
    loss = objective(model)

    def step(state, batch):
        value, gradient = jax.value_and_grad(loss)(state.params, batch)
        updates, opt_state = adam.update(gradient, state.opt_state, state.params)
        return State(optax.apply_updates(state.params, updates), opt_state), {"loss": value}

    return step


def initial(model, key) -> State:
    """Before the first step."""
    params = model.init(key, jnp.ones((1, 4), jnp.int32))["params"]
    return State(params, optimizer().init(params))


def start(model) -> State:
    """A new state; a step consumes it."""
    return jax.jit(partial(initial, model))(jax.random.key(0))


def peak(sizes: Sizes) -> tuple[Callable[[], Any], float]:
    """The product whose speed stands for the machine's."""
    return lib.matmul() if sizes.dtype == jnp.float32 else lib.matmul(8192, sizes.dtype)


def torch_steps(case: str, sizes: Sizes, params, x, **labels) -> dict:
    """Every way of PyTorch that works here."""
    ways = {"torch": (False, False), "torch compile": (False, True),
            "torch gathered": (True, False)}  # fmt: skip

    def make(gathered, compiled):
        from benchmarks import transformer_peer  # noqa: PLC0415  PyTorch is optional

        return transformer_peer.step(
            sizes.settings(), params, x, gathered=gathered, compiled=compiled,
            half=sizes.dtype == jnp.bfloat16, rate=RATE, decay=DECAY,
        )  # fmt: skip

    compiles = case == "small" or not on_cpu()  # minutes for 12 layers on a CPU
    return lib.torch_ways(case, make, ways, compiles=compiles, **labels)


def against_torch(case: str, sizes: Sizes) -> list[dict]:
    """A step of ours and of PyTorch, of rows with one document and of packed ones."""
    rows = []
    ways = {"ours": network(sizes, unroll=sizes.depth), "ours, scanned": network(sizes)}
    for packed in (False, True):
        x = batch(sizes, packed=packed)
        params = jax.device_get(start(ways["ours"]).params)
        theirs = torch_steps(case, sizes, params, x, packed=packed)
        runs = {
            way: lib.training(trainer(model, optimizer()), start(model), jax.device_put(x))
            for way, model in ways.items()
        }
        rows += lib.steps(
            case, {**runs, **theirs}, ROUNDS, sizes.work(), peak=peak(sizes),
            items={"tokens": x["ids"].size}, packed=packed,
        )  # fmt: skip
    return [*rows, *products(case, sizes)]


def products(case: str, sizes: Sizes) -> list[dict]:
    """PyTorch's seconds for the large product over those of JAX."""
    try:
        from benchmarks import transformer_peer  # noqa: PLC0415  PyTorch is optional
    except ImportError:
        return []
    half = sizes.dtype == jnp.bfloat16
    theirs = transformer_peer.product(8192 if half else 2048, half)
    times = lib.in_turn({"ours": peak(sizes)[0], "torch": theirs}, 2 * ROUNDS)
    return [lib.row(case, name="matmul of torch", **lib.ratio(times["torch"], times["ours"]))]


def small_case() -> list[dict]:
    """The small network."""
    return against_torch("small", SMALL)


def base_case() -> list[dict]:
    """BERT-base."""
    half = BASE._replace(length=512, batch=64, dtype=jnp.bfloat16)
    return against_torch("base", BASE if on_cpu() else half)


CASES = {"small": small_case, "base": base_case}


if __name__ == "__main__":
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    lib.run(CASES, sys.argv[1:])
