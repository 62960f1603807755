"""Held-out log-likelihood of `flows.coupling_flow` on small tables, against flowjax's.

    python -m benchmarks.vector_flows                  # everything, about five minutes
    python -m benchmarks.vector_flows moons diabetes   # some cases

Needs scikit-learn for the data, and flowjax (`pip install flowjax`) for the comparison; without it
only ours runs.

Data: two moons of scikit-learn (noise 0.1; 300 points for training, 100 for validation, 1,000 held
out), and its diabetes (442 x 10) and breast_cancer (569 x 30), split 70/15/15; all standardised by
the training rows. Both libraries get the same five splits and the same optimizer: 1,000 steps of
Adam at 1e-3 on batches of 64. Every 25 steps the validation rows are measured, and the best step
is reported. Both flows have 8 couplings with one hidden layer. flowjax's has 50 units, its default;
ours has at most 50, and fewer where its linear maps would make it the larger model.

`ours` and `flowjax` are nats per held-out example, mean over the splits, more is better; `_sd` is
their standard deviation between splits. `difference` is the mean over the splits of ours - flowjax,
`difference_se` its standard error and `difference_median` the median, which one outlier among the
held-out rows does not decide. The design of `coupling_flow` (tanh, biases, linear maps) and the
spline's bound were chosen on splits of the seeds 100 to 104, which are not among these.
"""

import importlib.util
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn import datasets

from benchmarks import lib
from jaxgen import flows

SEEDS = range(5)
STEPS, EVERY, BATCH = 1000, 25, 64
OPTIMIZER = optax.adam(1e-3)
# Units of the hidden layer: as many as fit in flowjax's number of parameters, and 50 at most.
WIDTHS = {
    "moons": {"affine": 47, "spline": 50},
    "diabetes": {"affine": 36, "spline": 50},
    "breast_cancer": {"affine": 10, "spline": 50},
}


def split(name: str, seed: int) -> list[np.ndarray]:
    """Rows for training, validation and test, standardised by the first."""
    if name == "moons":
        x = datasets.make_moons(1400, noise=0.1, random_state=seed)[0]
        ends = [300, 400]
    else:
        x = getattr(datasets, f"load_{name}")().data
        x = x[np.random.default_rng(seed).permutation(len(x))]
        ends = [int(0.7 * len(x)), int(0.85 * len(x))]
    train = x[: ends[0]]
    x = (x - train.mean(0)) / train.std(0)
    return np.split(x.astype(np.float32), ends)


def ours(name: str, transform: str, key, train):
    """(params, (params, x) -> log p(x)) of `flows.coupling_flow`."""
    spline = flows.rational_quadratic_spline(bound=4.0)
    flow = flows.coupling_flow(
        train.shape[1],
        width=WIDTHS[name][transform],
        transform=spline if transform == "spline" else flows.affine(),
    )
    return flow.init(key, train), partial(flows.log_prob, flow)


def fit(start: Callable, name: str) -> dict[str, Any]:
    """Trains on every split at once; held-out nats at the step that validation chooses."""
    sizes = []

    def one(key, train, validation, test):
        key, steps = jax.random.split(key)
        params, log_prob = start(key, train)
        sizes.append(sum(leaf.size for leaf in jax.tree.leaves(params)))

        def step(carry, key):
            params, state = carry
            x = train[jax.random.choice(key, len(train), (BATCH,))]
            gradient = jax.grad(lambda p: -log_prob(p, x).mean())(params)
            updates, state = OPTIMIZER.update(gradient, state, params)
            return (optax.apply_updates(params, updates), state), None

        def block(carry, keys):
            carry, _ = jax.lax.scan(step, carry, keys)
            return carry, [log_prob(carry[0], x).mean() for x in (validation, test)]

        keys = jax.random.split(steps, STEPS).reshape(-1, EVERY)
        return jax.lax.scan(block, (params, OPTIMIZER.init(params)), keys)[1]

    keys = jax.vmap(jax.random.key)(jnp.array(SEEDS))
    data = [np.stack(part) for part in zip(*(split(name, s) for s in SEEDS), strict=True)]
    begin = time.perf_counter()
    validation, test = jax.block_until_ready(jax.jit(jax.vmap(one))(keys, *data))
    seconds = time.perf_counter() - begin
    best = np.nanargmax(validation, axis=1)
    return {
        "nats": np.asarray(test)[np.arange(len(best)), best].tolist(),
        "parameters": sizes[0],
        "seconds": seconds,
    }


def case(name: str) -> list[dict[str, Any]]:
    """One row for each transform."""
    rows = []
    for transform in ("affine", "spline"):
        values: dict[str, Any] = {"transform": transform}
        results = {"ours": fit(partial(ours, name, transform), name)}
        if importlib.util.find_spec("flowjax"):
            from benchmarks import vector_flows_peer  # noqa: PLC0415  flowjax is optional

            results["flowjax"] = fit(partial(vector_flows_peer.start, transform), name)
        else:
            values["flowjax"] = "not installed"
        for who, result in results.items():
            values[who] = statistics.mean(result["nats"])
            values[f"{who}_sd"] = statistics.stdev(result["nats"])
            values[f"{who}_parameters"] = result["parameters"]
            values[f"{who}_seconds"] = result["seconds"]
        if "flowjax" in results:
            pairs = zip(results["ours"]["nats"], results["flowjax"]["nats"], strict=True)
            differences = [a - b for a, b in pairs]
            values["difference"] = statistics.mean(differences)
            values["difference_se"] = statistics.stdev(differences) / len(differences) ** 0.5
            values["difference_median"] = statistics.median(differences)
        rows.append(lib.row(name, **values))
    return rows


CASES = {name: partial(case, name) for name in WIDTHS}

if __name__ == "__main__":
    lib.run(CASES, sys.argv[1:])
