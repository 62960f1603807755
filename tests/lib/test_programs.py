"""What the loop asks of a method is checked when it is compiled."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.lib import devices
from experiments.lib.config import RunConfig
from experiments.lib.programs import compile_method


def _compile(step=None, evaluate=None, **knobs):
    return compile_method(
        RunConfig(**knobs),
        devices.make_mesh(),
        init=lambda key, batch: {"w": jax.random.normal(key, (3,)), "n": 0},
        step=step or (lambda state, batch, key: (state, {"loss": jax.random.normal(key)})),
        evaluate=evaluate,
    )


_BATCH = {"image": np.zeros((8, 2, 2, 1), np.uint8)}


@pytest.mark.parametrize(
    ("step", "error", "message"),
    [
        (
            lambda s, b, k: (s | {"w": s["w"].astype(jnp.bfloat16)}, {}),
            TypeError,
            r"state\['w'\] was float32\[3\] and came back as bfloat16\[3\]",
        ),
        (
            lambda s, b, k: ({"w": s["w"]}, {}),
            TypeError,
            r"state\['n'\] was int32\[\] and came back as None",
        ),
        (
            lambda s, b, k: (s, {"loss": s["w"]}),
            ValueError,
            r"step: loss is \(3,\); expected a scalar",
        ),
    ],
)
def test_a_step_of_another_form(step, error, message):
    programs = _compile(step)
    with pytest.raises(error, match=message):
        programs.update(programs.init(_BATCH), _BATCH, np.uint32(0))


def test_an_evaluation_of_another_form():
    programs = _compile(evaluate=lambda s, b, k: {"nll": jnp.zeros((8, 2))})
    with pytest.raises(ValueError, match=r"evaluate: nll is \(8, 2\); expected one number per ex"):
        programs.measure(programs.init(_BATCH), _BATCH | {"valid": np.ones(8, bool)}, np.uint32(0))


def test_keys_differ_by_step_seed_and_purpose():
    drawn = []
    for seed in range(2):
        programs = _compile(seed=seed)
        state = programs.init(_BATCH)
        drawn += state["w"].tolist()
        for number in range(3):
            state, metrics = programs.update(state, _BATCH, np.uint32(number))
            drawn.append(float(metrics["loss"]))
    assert len({*drawn}) == len(drawn)


def test_the_state_is_donated_and_lies_on_every_device():
    programs = _compile()
    state = programs.init(_BATCH)
    new, _ = programs.update(state, _BATCH, np.uint32(0))
    assert state["w"].is_deleted()
    assert len(new["w"].sharding.device_set) == 8
    assert new["w"].is_fully_replicated
