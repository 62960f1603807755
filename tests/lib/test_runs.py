"""A trained run in a session: what it gives, what it refuses, and that it disturbs nobody."""

import json
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.lib import runs
from experiments.lib.errors import UserError


def listing(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_a_run_comes_back_with_all_that_belongs_to_it(toy, whole):
    before = listing(whole)
    run = runs.load(whole, experiment=toy)
    assert (run.name, run.step, run.config.rate) == ("toy", 60, 0.1)
    assert run.state["count"] == 60
    assert all(len(x.devices()) == 1 for x in jax.tree.leaves(run.state))
    x = run.data.test[np.arange(5)]["image"]
    expected = jax.nn.log_softmax(x.reshape(5, -1) / run.data.levels @ run.state["weights"])[:, 0]
    np.testing.assert_allclose(run.log_prob(x), expected, rtol=1e-5)
    samples = run.sample(jax.random.key(0), 7)
    assert (samples.shape, samples.dtype) == ((7, 8, 8, 1), np.uint8)
    assert listing(whole) == before


def test_an_older_step(toy, whole):
    older, newest = (runs.load(whole, step, experiment=toy) for step in (40, None))
    assert (older.step, older.state["count"]) == (40, 40)
    assert jnp.abs(older.state["weights"] - newest.state["weights"]).max() > 0
    with pytest.raises(UserError, match=r"step 45.*expected.*40.*50.*60"):
        runs.load(whole, 45, experiment=toy)


def test_one_of_several_seeds(toy, tmp_path):
    common = {"steps": 10, "workdir": str(tmp_path / "run")}
    toy.main(toy.Config(seeds=2, **common))
    first, second = (runs.load(tmp_path / "run", seed=i, experiment=toy) for i in (0, 1))
    assert first.state["weights"].shape == second.state["weights"].shape == (64, 10)
    assert jnp.abs(first.state["weights"] - second.state["weights"]).max() > 0.01
    with pytest.raises(UserError, match=r"seed 2: .* has 2; expected 0 to 1"):
        runs.load(tmp_path / "run", seed=2, experiment=toy)


def test_a_run_that_was_split_over_devices(toy, tmp_path):
    toy.main(toy.Config(fsdp=4, steps=10, workdir=str(tmp_path / "split")))
    toy.main(toy.Config(steps=10, workdir=str(tmp_path / "plain")))
    split, plain = (runs.load(tmp_path / n, experiment=toy).state for n in ("split", "plain"))
    np.testing.assert_allclose(split["weights"], plain["weights"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((8, 8, 1), np.uint8), r"x is uint8 \[8, 8, 1\]; expected uint8 \[B, 8, 8, 1\]"),
        (np.zeros((2, 8, 8, 1)), r"x is float64 \[2, 8, 8, 1\]; expected uint8 \[B, 8, 8, 1\]"),
    ],
)
def test_examples_of_another_form_are_refused(toy, whole, x, message):
    with pytest.raises(UserError, match=message):
        runs.load(whole, experiment=toy).log_prob(x)


def test_what_a_method_does_not_offer(toy, whole, monkeypatch):
    build = toy.build
    bare = {"sample": None, "log_prob": None}
    monkeypatch.setattr(toy, "build", lambda c: (build(c)[0], build(c)[1]._replace(**bare)))
    run = runs.load(whole, experiment=toy)
    with pytest.raises(UserError, match="toy: has no samples; expected a generative experiment"):
        run.sample(jax.random.key(0), 1)
    with pytest.raises(UserError, match="toy: has no density; expected a flow"):
        run.log_prob(np.zeros((1, 8, 8, 1), np.uint8))


def test_folders_that_hold_no_run(toy, tmp_path):
    with pytest.raises(UserError, match=r"expected the folder of a run, with its config\.json"):
        runs.load(tmp_path / "nothing")
    settings = {"experiment": "no_such", "config": {}}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    with pytest.raises(UserError, match="a run of no_such, which is no experiment here"):
        runs.load(tmp_path)
    settings["config"] = {"rate": 0.1, "speed": 1}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    with pytest.raises(UserError, match="has the knobs speed; expected a run of this version"):
        runs.load(tmp_path, experiment=toy)
    settings["config"] = {"rate": 0.1}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    with pytest.raises(UserError, match="no checkpoint"):
        runs.load(tmp_path, experiment=toy)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_loading_disturbs_no_run_that_goes_on(toy, start, outcome, tmp_path):
    flags = {"steps": 400, "checkpoint_every": 5, "eval_every": 100}
    toy.main(toy.Config(workdir=str(tmp_path / "alone"), **flags))
    folder = tmp_path / "run"
    program = start(
        "--workdir", folder, "--steps", 400, "--checkpoint-every", 5, "--eval-every", 100,
        "--pause", 0.5,
    )  # fmt: skip
    seen = set()
    while program.poll() is None:
        try:
            run = runs.load(folder, experiment=toy)
        except UserError:
            time.sleep(0.05)  # not one checkpoint yet
            continue
        assert run.state["count"] == run.step
        assert run.sample(jax.random.key(0), 2).shape == (2, 8, 8, 1)
        seen.add(run.step)
    _, errors = program.communicate()
    assert program.returncode == 0, errors
    assert len(seen) > 1, "it trained while it was read"
    assert outcome(folder) == outcome(tmp_path / "alone")
