"""A masked-LM pre-training step of BERT: tokens per second against PyTorch, and where time goes.

    python -m benchmarks.transformer                # everything that suits the machine
    python -m benchmarks.transformer small length   # some cases

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
parts     Of the small step: forward pass, gradient, AdamW, the head and the layers alone.
length    Step and XLA's plan of temporary memory at lengths 128, 256, 512 and the same number of
          tokens, with fused and plain attention where a GPU has both.
depth     Seconds to compile and to take a step at depth 2, 4, 8 of the small network, and the
          temporary memory if each layer is computed again for its gradient (remat).

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
from jaxgen.models.attention import wide_einsum

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


def middling() -> Sizes:
    """The small network, with a batch that gives an accelerator something to do."""
    return SMALL if on_cpu() else SMALL._replace(batch=256, dtype=jnp.bfloat16)


def timed(function: Callable, *inputs) -> Callable[[], Any]:
    """One call, compiled."""
    compiled = jax.jit(function)
    return lambda: jax.block_until_ready(compiled(*inputs))


def parts(sizes: Sizes, model, x) -> dict[str, Callable]:
    """What a step consists of, each part compiled by itself."""
    adam, loss = optimizer(), objective(model)
    params = start(model).params
    inner, slopes = params["transformer"], jax.tree.map(jnp.ones_like, params)
    hidden = jnp.ones((*x["at"].shape, sizes.width), sizes.dtype)

    def layers(params, x):
        places = {"mask": models.document_mask(x["documents"]), "positions": x["positions"]}
        h = model.transformer.apply({"params": params}, x["ids"], **places)
        return jnp.sum(h.astype(jnp.float32))

    def head(params, hidden):
        table = params["transformer"]["token"]["embedding"].astype(sizes.dtype)
        logits = wide_einsum("bkd,vd->bkv", hidden, table) + params["bias"][None, None]
        return cross_entropy(logits, x)

    def update(state, gradient):
        updates, opt_state = adam.update(gradient, state.opt_state, state.params)
        return State(optax.apply_updates(state.params, updates), opt_state), {}

    return {
        "step": lib.training(trainer(model, adam), start(model), x),
        "forward": timed(loss, params, x),
        "gradient": timed(jax.value_and_grad(loss), params, x),
        "layers forward": timed(layers, inner, x),
        "layers gradient": timed(jax.value_and_grad(layers), inner, x),
        "logits and loss": timed(head, params, hidden),
        "logits gradient": timed(jax.value_and_grad(head, (0, 1)), params, hidden),
        "AdamW": lib.training(update, start(model), slopes),
    }


def parts_case() -> list[dict]:
    """Where the time of a step goes."""
    sizes = middling()
    model, x = network(sizes), jax.device_put(batch(sizes, packed=True))
    whole, logits = sizes.work(), 6.0 * x["at"].size * sizes.width * sizes.vocab
    rest = whole - logits - 6.0 * x["at"].size * sizes.width**2
    work = {
        "step": whole, "forward": whole / 3, "gradient": whole, "layers forward": rest / 3,
        "layers gradient": rest, "logits and loss": logits / 3, "logits gradient": logits,
    }  # fmt: skip
    return lib.steps("parts", parts(sizes, model, x), 2 * ROUNDS, work, peak=peak(sizes))


def length_case() -> list[dict]:
    """The same number of tokens in rows of other lengths."""
    sizes = SMALL if on_cpu() else BASE._replace(batch=256, dtype=jnp.bfloat16)
    ways = {"plain": False} if on_cpu() else {"fused": True, "plain": False}
    rows = []
    for length in (128, 256, 512):
        now = sizes._replace(length=length, batch=sizes.batch * sizes.length // length)
        x = jax.device_put(batch(now, packed=True))
        runs, memory = {}, {}
        for way, fused in ways.items():
            model = network(now, fused=fused)
            step = trainer(model, optimizer())
            memory[way] = lib.temporary_mib(step, start(model), x)
            runs[way] = lib.training(step, start(model), x)
        rows += lib.steps(
            "length", runs, ROUNDS, now.work(), peak=peak(now),
            items={"tokens": x["ids"].size}, extra={"temporary_mib": memory}, length=length,
        )  # fmt: skip
    return rows


def depth_case() -> list[dict]:
    """Depth, and what remat saves."""
    sizes = middling()
    policy, rows = jax.checkpoint_policies.nothing_saveable, []
    for depth in (2, 4, 8):
        now = sizes._replace(depth=depth)
        x = jax.device_put(batch(now, packed=True))
        runs, extra = {}, {"compile_seconds": {}, "temporary_mib": {}}
        for way, remat in {"scan": None, "scan, remat": policy}.items():
            model = network(now, remat=remat)
            step = trainer(model, optimizer())
            lowered = jax.jit(step, donate_argnums=0).lower(start(model), x)
            extra["compile_seconds"][way] = lib.seconds(lowered.compile)
            extra["temporary_mib"][way] = lib.temporary_mib(step, start(model), x)
            runs[way] = lib.training(step, start(model), x)
        rows += lib.steps(
            "depth", runs, ROUNDS, now.work(), peak=peak(now), extra=extra, depth=depth
        )
    return rows


CASES = {
    "small": small_case, "base": base_case, "parts": parts_case, "length": length_case,
    "depth": depth_case,
}  # fmt: skip


if __name__ == "__main__":
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    lib.run(CASES, sys.argv[1:])
