import jax
import numpy as np
import optax
import pytest

from benchmarks import optimizers as bench


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(bench, "PARAMETERS", {"embedding": (8, 4), "kernel_0": (4, 6)})
    monkeypatch.setattr(bench, "SAMPLED", 2)


@pytest.mark.parametrize("name, optimizer", [("adax", "adam"), ("hidden", "sgd")])
def test_the_peers_do_the_same(name, optimizer):
    """PyTorch's fused Adam and SGD against optax's, from the same start."""
    pytest.importorskip("torch")
    rule = optax.adam(1e-3) if optimizer == "adam" else optax.sgd(1e-3, 0.9)
    params, state = bench.parameters(), rule.init(bench.parameters())
    step = bench.training_step(rule)
    (make,) = bench.PEERS[name].values()
    held = []
    run = bench.torch_runner(lambda optim, tensors: make(optim, held.extend(tensors) or tensors))
    for _ in range(3):
        params, state = step(params, state, bench.gradients())
        run()
    for ours, theirs in zip(params.values(), held, strict=True):
        np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-4, atol=1e-7)


def test_bytes_per_parameter():
    memory = bench.memory(bench.CASES["adax"]["optax.adam"])
    assert memory["state"] == pytest.approx(8 + 4 / bench.size())
    # Parameters, gradients and two moments at least.
    assert memory["plan"] >= 16
    pair = bench.memory(bench.CASES["lookahead"]["optax.lookahead(adam)"])
    assert pair["state"] == pytest.approx(12 + 8 / bench.size())


@pytest.mark.parametrize("case", bench.CASES)
def test_every_case_runs_and_moves(case):
    for optimizer in bench.CASES[case].values():
        params, state = bench.begin(optimizer)
        start = jax.device_get(params)
        step, given = bench.training_step(optimizer), bench.gradients()
        for _ in range(bench.K):
            params, state = step(params, state, given)
        moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), jax.device_get(params), start)
        assert max(jax.tree.leaves(moved)) > 0


def test_unknown_case():
    with pytest.raises(SystemExit, match="wheel: expected some of tiger"):
        bench.lib.run(bench.CASES, ["wheel"])
