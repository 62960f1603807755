"""What an experiment hands to the loop, and several of them as one."""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Method(NamedTuple):
    """The pure functions that the loop runs, see `experiments.lib.loop.train`."""

    init: Any
    step: Any
    evaluate: Any
    pictures: Any = None
    report: Any = None


def side_by_side(methods: Mapping[str, Method], pictures=None) -> Method:
    """Several methods at once: the same keys, hence the same start, and the same batches.

    The state is a dict {name: state}, a metric is called NAME/METRIC.

    Args:
      methods: name -> method; their own pictures are not drawn.
      pictures: (state, batch, key) -> {stem: image} of all methods together.
    """

    def init(key, batch):
        return {name: method.init(key, batch) for name, method in methods.items()}

    def step(state, batch, key):
        done = {name: method.step(state[name], batch, key) for name, method in methods.items()}
        metrics = {name: metrics for name, (_, metrics) in done.items()}
        return {name: new for name, (new, _) in done.items()}, _joined(metrics)

    def evaluate(state, batch, key):
        return _joined({n: method.evaluate(state[n], batch, key) for n, method in methods.items()})

    def report(means):
        reports = {}
        for name, method in methods.items():
            start = f"{name}/"
            own = {k.removeprefix(start): v for k, v in means.items() if k.startswith(start)}
            reports[name] = method.report(own) if method.report else own
        return _joined(reports)

    return Method(init, step, evaluate, pictures, report)


def _joined(metrics: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {f"{name}/{k}": value for name, own in metrics.items() for k, value in own.items()}
