"""Several methods as one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.lib.method import Method
from experiments.methods.comparison import side_by_side


def walk(rate, report=None):
    def init(key, batch):
        return jax.random.normal(key, ())

    def step(state, batch, key):
        state = state - rate * (state - batch["x"].mean())
        return state, {"loss": (state - batch["x"].mean()) ** 2}

    def evaluate(state, batch, key):
        return {"error": state - batch["x"], "square": (state - batch["x"]) ** 2}

    return Method(init, step, evaluate, report=report)


def test_each_method_does_what_it_does_alone():
    methods = {"slow": walk(0.1), "fast": walk(0.9)}
    both = side_by_side(methods)
    batch, key = {"x": jnp.arange(4.0)}, jax.random.key(0)
    state, metrics = both.step(both.init(key, batch), batch, key)
    measured = both.evaluate(state, batch, key)
    assert set(measured) == {f"{n}/{m}" for n in methods for m in ("error", "square")}
    for name, method in methods.items():
        alone, alone_metrics = method.step(method.init(key, batch), batch, key)
        assert state[name] == alone
        assert metrics[f"{name}/loss"] == alone_metrics["loss"]
        expected = method.evaluate(alone, batch, key)["square"]
        np.testing.assert_array_equal(measured[f"{name}/square"], expected)
    assert state["slow"] != state["fast"]


def test_reports_see_only_their_own_metrics_and_may_be_left_out():
    def spread(means):
        assert means.keys() == {"error", "square"}
        return {"spread": means["square"] - means["error"] ** 2}

    both = side_by_side({"plain": walk(0.1), "plain2": walk(0.1, spread)})
    means = {
        f"{n}/{m}": v for n in ("plain", "plain2") for m, v in (("error", 1.0), ("square", 5.0))
    }
    assert both.report(means) == {"plain/error": 1.0, "plain/square": 5.0, "plain2/spread": 4.0}


def test_pictures_are_those_of_all():
    def draw(state, batch, key):
        return {"both": jnp.zeros((1, 1, 1)) + len(state)}

    assert side_by_side({"a": walk(0.1)}).pictures is None
    assert side_by_side({"a": walk(0.1)}, draw).pictures is draw


@pytest.mark.parametrize("nested", [True, False])
def test_methods_nest(nested):
    inner = side_by_side({"b": walk(0.1)})
    both = side_by_side({"a": inner if nested else walk(0.1)})
    key = "a/b/error" if nested else "a/error"
    assert both.report({key: 1.0}) == {key: 1.0}
