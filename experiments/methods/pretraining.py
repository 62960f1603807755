"""Pre-training of a language model: the schedule, the optimizer and the method."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from experiments.lib.method import Method
from experiments.methods.language import Language, LanguageConfig
from jaxgen.optimizers import accumulate, by_path, lamb

METRICS = {
    "loss": "mean of -log p of a predicted token of the test rows, in nats; lower is better",
    "accuracy": "share of the predicted tokens whose likeliest guess is right",
    "perplexity": "exp(loss); lower is better",
    "parameters": "number of parameters",
}


class State(NamedTuple):
    """The state of training.

    Attributes:
      params: of the model.
      opt_state: of the optimizer.
      count: steps done.
      vocabulary: {fingerprint of the vocabulary: 0}. The names in a checkpoint hold it, so that a
        corpus that has changed and gives other pieces cannot go on with these parameters.
    """

    params: Any
    opt_state: Any
    count: Any
    vocabulary: Any


def schedule(config: LanguageConfig) -> optax.Schedule:
    """A linear warm-up, then a linear fall to 0."""
    warm = round(config.warmup * config.steps)
    down = optax.linear_schedule(config.learning_rate, 0.0, max(1, config.steps - warm))
    up = optax.linear_schedule(0.0, config.learning_rate, max(1, warm))
    return optax.join_schedules([up, down], [warm])


def optimizer(config: LanguageConfig) -> optax.GradientTransformationExtraArgs:
    """Clipping of the gradient's norm at 1 as in BERT, AdamW or LAMB, and accumulation."""
    weights = by_path({"norm|bias": False, "": True})
    rate, decay = schedule(config), config.weight_decay
    if config.optimizer == "lamb":
        layers = by_path({"layers/": True}, default=False)
        inner = lamb(rate, weight_decay=decay, adapted=weights, stacked=layers)
    else:
        inner = optax.adamw(rate, eps=1e-6, weight_decay=decay, mask=weights)
    chain = optax.chain(optax.clip_by_global_norm(1.0), inner)
    if config.accumulate == 1:
        return optax.with_extra_args_support(chain)
    return accumulate(chain, config.accumulate)


def pretraining(config: LanguageConfig, own: Language) -> Method:
    """Minimises the mean of -log p over the predicted tokens of a batch."""
    update, rate = optimizer(config), schedule(config)

    def init(key, batch):
        length = min(2, batch["ids"].shape[1])
        params = own.model.init(key, batch["ids"][:1, :length])["params"]
        if own.pretrained:
            params = {**params, **jax.tree.map(jnp.asarray, own.pretrained.params)}
        vocabulary = {own.vocabulary: jnp.zeros((), jnp.int32)}
        return State(params, update.init(params), jnp.zeros((), jnp.int32), vocabulary)

    def sums(params, batch, key, train):
        """Sums over the predicted tokens: -log p, hits, and their number."""
        ask_key, drop_key = jax.random.split(key)
        asked, inputs = own.ask(ask_key, batch)
        logits = own.model.apply(
            {"params": params},
            asked.ids,
            asked.at,
            **inputs,
            train=train,
            rngs={"dropout": drop_key} if train else {},
        )
        weights = asked.weights
        if "valid" in batch:
            weights = weights * batch["valid"][:, None]
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, asked.targets)
        hits = right(logits, asked.targets)
        return jnp.sum(weights * loss), (jnp.sum(weights * hits), jnp.sum(weights))

    def micro(state, batch, key):
        def loss(params):
            total, (hits, count) = sums(params, batch, key, train=config.dropout > 0)
            return total / jnp.maximum(count, 1), (total, hits, count)

        grads, found = jax.grad(loss, has_aux=True)(state.params)
        extra = {"weight": found[2]} if config.accumulate > 1 else {}
        updates, opt_state = update.update(grads, state.opt_state, state.params, **extra)
        params = optax.apply_updates(state.params, updates)
        new = state._replace(params=params, opt_state=opt_state)
        return new, (*found, optax.tree.norm(grads))

    def step(state, batch, key):
        if config.accumulate == 1:
            new, found = micro(state, batch, key)
        else:
            keys = jax.random.split(key, config.accumulate)
            # Every k-th row, so that each micro-batch lies on all devices.
            parts = jax.tree.map(
                lambda x: jnp.moveaxis(x.reshape(-1, config.accumulate, *x.shape[1:]), 1, 0),
                batch,
            )
            new, found = jax.lax.scan(lambda s, x: micro(s, *x), state, (parts, keys))
            found = (*(jnp.sum(x) for x in found[:3]), jnp.mean(found[3]))
        total, hits, count, norm = found
        metrics = {
            "loss": total / jnp.maximum(count, 1),
            "accuracy": hits / jnp.maximum(count, 1),
            "grad_norm" if config.accumulate == 1 else "micro_grad_norm": norm,
            "learning_rate": rate(state.count),
        }
        return new._replace(count=state.count + 1), metrics

    def evaluate(state, batch, key):
        total, (hits, count) = sums(state.params, batch, key, train=False)
        return {"loss": (total, count), "accuracy": (hits, count)}

    def report(means):
        return {**means, "perplexity": jnp.exp(means["loss"])}

    return Method(
        init,
        step,
        evaluate,
        report=report,
        batches_per_step=config.accumulate,
        meanings=METRICS,
    )


def right(logits, targets):
    """Whether no logit is above the target's: argmax without its slow search on a CPU."""
    own = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    return own >= jnp.max(logits, axis=-1)
