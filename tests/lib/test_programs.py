"""What the loop asks of a method is checked when it is compiled."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.lib import devices
from experiments.lib.config import RunConfig
from experiments.lib.errors import UserError
from experiments.lib.method import Method
from experiments.lib.programs import compile_method


def _compile(step=None, evaluate=None, **knobs):
    method = Method(
        init=lambda key, batch: {"w": jax.random.normal(key, (3,)), "n": 0},
        step=step or (lambda state, batch, key: (state, {"loss": jax.random.normal(key)})),
        evaluate=evaluate,
    )
    return compile_method(RunConfig(**knobs), devices.make_mesh(), method, _BATCH)


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


def test_an_evaluation_may_return_a_sum_and_a_count():
    def evaluate(state, batch, key):
        tokens = jnp.where(batch["valid"], batch["image"][:, 0, 0, 0], 0)
        return {"mean": (jnp.sum(tokens), 3), "each": batch["image"][:, 0, 0, 0]}

    programs = _compile(evaluate=evaluate)
    batch = {"image": np.full((8, 2, 2, 1), 5, np.uint8), "valid": np.arange(8) < 6}
    found = jax.device_get(programs.measure(programs.init(_BATCH), batch, np.uint32(0)))
    assert found == {"mean": (30, 3), "each": (30, 6)}


def test_large_leaves_are_split_over_fsdp_and_come_back_whole(monkeypatch):
    monkeypatch.setattr(devices, "_LARGE", 32)
    mesh = devices.make_mesh(fsdp=4)
    shapes = {"wide": (3, 16, 8), "small": (2, 8), "odd": (7, 9)}
    method = Method(
        lambda key, batch: {n: jnp.arange(np.prod(s)).reshape(s) for n, s in shapes.items()},
        lambda state, batch, key: (jax.tree.map(lambda x: x + 1, state), {}),
    )
    programs = compile_method(RunConfig(), mesh, method, _BATCH)
    state, _ = programs.update(programs.init(_BATCH), _BATCH, np.uint32(0))
    assert state["wide"].sharding.spec == jax.P(None, "fsdp")
    assert {x.data.shape for x in state["wide"].addressable_shards} == {(3, 4, 8)}
    assert state["small"].is_fully_replicated
    assert state["odd"].is_fully_replicated
    for name, whole in devices.local_copy(mesh, state).items():
        assert len(whole.devices()) == 1
        np.testing.assert_array_equal(whole.ravel(), 1 + np.arange(np.prod(shapes[name])))


def test_fsdp_must_divide_the_devices():
    with pytest.raises(UserError, match="--fsdp 3: expected a divisor of the 8 devices"):
        devices.make_mesh(fsdp=3)


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
