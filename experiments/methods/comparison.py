"""Several methods trained side by side, as one method."""

from collections.abc import Mapping
from typing import Any

from experiments.lib.method import Method


def side_by_side(methods: Mapping[str, Method], pictures=None) -> Method:
    """Trains several methods on the same batches and keys, so equal networks start equal.

    The state is a dict {name: state}. Metrics of a method are called NAME/METRIC.

    Args:
      methods: name -> method. `evaluate`, `judge` and `sample` are offered if all methods have it.
      pictures: (state, batch, key) -> {stem: image} of all methods together. The methods' own
        pictures are not drawn.
    """

    def init(key, batch):
        return {name: method.init(key, batch) for name, method in methods.items()}

    def step(state, batch, key):
        done = {name: method.step(state[name], batch, key) for name, method in methods.items()}
        metrics = {name: metrics for name, (_, metrics) in done.items()}
        return {name: new for name, (new, _) in done.items()}, _joined(metrics)

    def evaluate(state, batch, key):
        return _joined({n: method.evaluate(state[n], batch, key) for n, method in methods.items()})

    def judge(state, key):
        return _joined({name: method.judge(state[name], key) for name, method in methods.items()})

    def report(means):
        reports = {}
        for name, method in methods.items():
            start = f"{name}/"
            own = {k.removeprefix(start): v for k, v in means.items() if k.startswith(start)}
            reports[name] = method.report(own) if method.report else own
        return _joined(reports)

    def sample(state, key, count):
        return {name: method.sample(state[name], key, count) for name, method in methods.items()}

    meanings: dict[str, str] = {}
    for method in methods.values():
        meanings |= method.meanings

    def offered(function, name):
        return function if all(getattr(method, name) for method in methods.values()) else None

    return Method(
        init,
        step,
        evaluate=offered(evaluate, "evaluate"),
        judge=offered(judge, "judge"),
        pictures=pictures,
        report=report,
        sample=offered(sample, "sample"),
        meanings=meanings,
    )


def _joined(metrics: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {f"{name}/{k}": value for name, own in metrics.items() for k, value in own.items()}
