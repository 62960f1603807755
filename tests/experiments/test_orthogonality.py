"""What the orthogonality experiment adds to the loop: penalties that act, and a held-out part."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import orthogonality
from experiments.lib.sources.images import load_images

DATA = load_images("digits")
BATCH = jax.tree.map(jnp.asarray, DATA.train[np.arange(32)])
# With these weights there is little but the penalties to minimise.
HEAVY = dataclasses.replace(
    orthogonality.SMOKE,
    learning_rate=1e-2,
    soft=1,
    off_diagonal=1,
    coherence=1e2,
    srip=1,
    som_data=1e2,
    som_closed=1e3,
)


@pytest.mark.parametrize("name", orthogonality.penalties(HEAVY))
def test_each_penalty_falls_and_the_filters_turn(name):
    method = orthogonality.regularized(HEAVY, DATA, orthogonality.penalties(HEAVY)[name])
    state = method.init(jax.random.key(0), BATCH)
    before = method.judge(state, None)
    step, seen = jax.jit(method.step), []
    for _ in range(100):
        state, metrics = step(state, BATCH, None)
        seen.append(metrics["penalty"])
    after = method.judge(state, None)
    if name == "none":
        assert not np.any(seen)
    else:
        assert seen[-1] < 0.8 * seen[1], "after its vector has turned"
        assert after["mean_cosine"] < before["mean_cosine"]
