"""A method of milliseconds, to try the loop with: a linear classifier with noise.

It is an experiment like the real ones, so the tests can start it as a program as well.
"""

import collections
import os
import signal
import time
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from experiments.lib.launch import launch
from experiments.lib.loop import train
from experiments.lib.method import Method
from experiments.lib.pictures import grid
from experiments.lib.sources.images import ImageConfig

TRACES: collections.Counter = collections.Counter()


@dataclass(frozen=True)
class Config(ImageConfig):
    """A quick run that logs, tests and saves often."""

    steps: int = 60
    """Training steps."""
    batch_size: int = 32
    """Examples per step."""
    log_every: int = 1
    """Steps between two lines."""
    eval_every: int = 20
    """Steps between two tests."""
    checkpoint_every: int = 10
    """Steps between two checkpoints."""
    rate: float = 0.1
    """Learning rate."""
    explode_at: int = -1
    """Step whose loss is NaN."""
    spoil_at: int = -1
    """Step that makes the state infinite, while the loss stays finite."""
    stop_at: int = -1
    """Test after which the process asks itself to stop."""
    pause: float = 0
    """Seconds that every test takes."""


def main(config: Config, data=None) -> dict:
    """Trains; returns the summary."""
    return train("toy", config, *build(config, data))


def build(config: Config, data=None):
    """Images, or those that are given, and the method."""
    data = data or config.images()

    def logits(weights, batch):
        return batch["image"].reshape(len(batch["image"]), -1) / data.levels @ weights

    def nll(weights, batch):
        return -jnp.take_along_axis(
            jax.nn.log_softmax(logits(weights, batch)), batch["label"][:, None], axis=1
        )[:, 0]

    def init(key, batch):
        TRACES["init"] += 1
        weights = 0.1 * jax.random.normal(key, (np.prod(data.shape), 10))
        mean = jnp.mean(batch["image"], (1, 2, 3), dtype=jnp.float32).mean()
        return {
            "weights": weights, "count": 0, "half": jnp.ones(3, jnp.bfloat16), "mean": mean,
            "flag": jnp.array(True), "empty": jnp.zeros((0, 2)),
        }  # fmt: skip

    def step(state, batch, key):
        TRACES["step"] += 1
        noise = 0.01 * jax.random.normal(key, state["weights"].shape)
        loss, slope = jax.value_and_grad(lambda w: nll(w + noise, batch).mean())(state["weights"])
        count = state["count"] + jnp.int32(1)
        bad = jnp.where(count == config.spoil_at, jnp.inf, 1)
        new = state | {
            "weights": state["weights"] - config.rate * slope,
            "count": count,
            "half": state["half"] * bad.astype(jnp.bfloat16),
        }
        return new, {
            "loss": jnp.where(count == config.explode_at, jnp.nan, loss),
            "noise": jax.random.uniform(key),
        }

    def evaluate(state, batch, key):
        TRACES["evaluate"] += 1
        noise = jax.random.normal(key, (len(batch["image"]),))
        right = logits(state["weights"], batch).argmax(1) == batch["label"]
        return {"nll": nll(state["weights"], batch), "accuracy": right, "noise": noise,
                "noise_square": noise**2}  # fmt: skip

    def pictures(state, batch, key):
        time.sleep(config.pause)
        if state["count"] == config.stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        return {"digits": grid(batch["image"] / np.float32(data.levels - 1), columns=8)}

    def report(means):  # no mean of its own: the spread over the test split
        return means | {"noise_spread": (means["noise_square"] - means["noise"] ** 2) ** 0.5}

    def sample(state, key, count):
        return jax.random.randint(key, (count, *data.shape), 0, data.levels).astype(jnp.uint8)

    def log_prob(state, x, key):
        return jax.nn.log_softmax(logits(state["weights"], {"image": x}))[:, 0]

    return data, Method(
        init, step, evaluate, pictures=pictures, report=report, sample=sample, log_prob=log_prob
    )


if __name__ == "__main__":
    launch(build, Config)
