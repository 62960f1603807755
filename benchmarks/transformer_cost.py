"""Where the time of a masked-LM step goes, and what length, depth and remat cost.

    python -m benchmarks.transformer_cost           # everything
    python -m benchmarks.transformer_cost length    # some cases

The step is that of `benchmarks.transformer`, with one layer per iteration of the loop over layers.

parts     Of the small step: forward pass, gradient, AdamW, the head and the layers alone.
length    Step and XLA's plan of temporary memory at lengths 128, 256, 512 and the same number of
          tokens, with fused and plain attention where a GPU has both.
depth     Seconds to compile and to take a step at depth 2, 4, 8 of the small network, and the
          temporary memory if each layer is computed again for its gradient (remat).

It needs jax, flax, optax and numpy alone. Results: RESULTS.md.
"""

import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from benchmarks import lib
from benchmarks.transformer import (
    BASE,
    ROUNDS,
    SMALL,
    Sizes,
    State,
    batch,
    cross_entropy,
    network,
    objective,
    on_cpu,
    optimizer,
    peak,
    start,
    trainer,
)
from jaxgen import models
from jaxgen.models.attention import wide_einsum


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


CASES = {"parts": parts_case, "length": length_case, "depth": depth_case}


if __name__ == "__main__":
    lib.run(CASES, sys.argv[1:])
