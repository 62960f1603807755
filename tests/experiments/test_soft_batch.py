"""What the table of soft_batch claims, on a small network."""

import dataclasses

import pytest

from experiments import soft_batch
from experiments.lib.errors import UserError
from experiments.lib.loop import train


@pytest.fixture(scope="module")
def metrics(tmp_path_factory):
    config = dataclasses.replace(
        soft_batch.SMOKE, steps=20, workdir=str(tmp_path_factory.mktemp("run")), eval_every=0
    )
    return train("soft_batch", config, *soft_batch.build(config))["metrics"]


@pytest.mark.parametrize("name", ["momentum_accumulated", "momentum_hidden", "adam_accumulated"])
def test_accumulation_gives_the_parameters_of_the_large_batch(metrics, name):
    assert 0 <= metrics[f"{name}/max_difference"] < 1e-5
    kind = name.partition("_")[0]
    assert metrics[f"{kind}_small/max_difference"] > 1e-2
    expected = metrics[f"{kind}_large/cross_entropy"]
    assert metrics[f"{name}/cross_entropy"] == pytest.approx(expected, rel=1e-5)


def test_bytes_of_the_state(metrics):
    held = {n: round(metrics[f"{n}/state_bytes"], 1) for n in ("momentum_large", "adam_large")}
    assert held == {"momentum_large": 4, "adam_large": 8}
    assert round(metrics["momentum_hidden/state_bytes"], 1) == 4
    assert round(metrics["momentum_accumulated/state_bytes"], 1) == 8
    assert round(metrics["adam_accumulated/state_bytes"], 1) == 12


def test_parts_that_do_not_divide_the_batch():
    with pytest.raises(UserError, match="--micro-batches 3: expected a divisor of --batch-size 16"):
        dataclasses.replace(soft_batch.SMOKE, micro_batches=3)
    with pytest.raises(UserError, match="--momentum 1: expected a number below 1"):
        dataclasses.replace(soft_batch.SMOKE, momentum=1)
