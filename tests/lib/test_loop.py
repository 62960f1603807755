"""The loop: the same numbers however it is stopped, split or repeated."""

import json
import os
import random
import shutil
import signal
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.lib import devices, loop
from experiments.lib.config import RunConfig
from experiments.lib.dataset import Arrays, Dataset
from experiments.lib.errors import DivergedError, UserError
from experiments.lib.loop import train
from experiments.lib.method import Method
from experiments.lib.sources.images import load_images


def _steps_logged(folder) -> list[int]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["step"] for line in lines if "train/loss" in json.loads(line)]


def test_a_run_learns_and_leaves_what_it_promises(toy, whole, outcome):
    lines, metrics, _ = outcome(whole)
    assert [line["step"] for line in lines if "test/nll" in line] == [20, 40, 60]
    assert _steps_logged(whole) == list(range(1, 61))
    losses = [line["train/loss"] for line in lines if "train/loss" in line]
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:10])
    noise = [line["train/noise"] for line in lines if "train/noise" in line]
    assert len({*noise}) == 60  # every step has a key of its own
    assert lines[-1]["test/nll"] == metrics["nll"]
    variance = metrics["noise_square"] - metrics["noise"] ** 2
    assert metrics["noise_spread"] == pytest.approx(variance**0.5, rel=1e-6)
    assert sorted(p.name for p in (whole / "pictures").iterdir()) == [
        f"digits-00000{step}.png" for step in (20, 40, 60)
    ]
    assert sorted(p.name for p in (whole / "checkpoints").iterdir()) == ["40", "50", "60"]
    summary = json.loads((whole / "summary.json").read_text())
    assert summary["experiment"] == "toy"
    assert summary["steps"] == 60
    assert summary["config"]["rate"] == 0.1
    assert summary["versions"]["jax"] == jax.__version__


def test_the_test_metric_is_the_mean_over_every_test_example_once(toy, tmp_path):
    # 360 test images are no multiple of 32: the filled-up examples must not count.
    images = load_images("digits")
    ones = Arrays({**images.test.columns, "label": np.ones(360, np.int32)})
    ones.columns["label"][-1] = 0  # and the last one, the one that is repeated, differs
    config = toy.Config(workdir=str(tmp_path / "run"), steps=1, rate=0.0)
    metrics = toy.main(config, images._replace(test=ones))["metrics"]
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), 0), 0)
    weights = 0.1 * jax.random.normal(key, (64, 10))
    logits = ones.columns["image"].reshape(360, 64) / 17 @ np.asarray(weights, np.float64)
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    expected = -log_p[np.arange(360), ones.columns["label"]].mean()
    np.testing.assert_allclose(metrics["nll"], expected, rtol=1e-6)


def test_stopped_and_continued_is_the_same_run(toy, whole, outcome, tmp_path, capsys):
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    folder = tmp_path / "run"
    with pytest.raises(SystemExit) as stopped:
        toy.main(toy.Config(workdir=str(folder), stop_at=20))
    assert stopped.value.code == 128 + signal.SIGTERM
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
    shown = capsys.readouterr()
    assert "the same command continues" in shown.out
    assert (
        shown.err.count("saving after this step or evaluation; press Ctrl-C to stop at once") == 1
    )
    assert not (folder / "summary.json").exists()
    stopped_at = max(int(path.name) for path in (folder / "checkpoints").iterdir())
    assert 20 <= stopped_at <= 22
    _forget_flag(folder, "stop_at")
    toy.TRACES.clear()
    toy.main(toy.Config(workdir=str(folder)))
    assert outcome(folder) == outcome(whole)
    assert toy.TRACES["step"] == 1
    assert toy.TRACES["evaluate"] == 1


def _forget_flag(folder, name):
    config = json.loads((folder / "config.json").read_text())
    config["config"][name] = -1
    (folder / "config.json").write_text(json.dumps(config))


def test_control_c_stops_in_the_same_way(toy, tmp_path):
    folder = tmp_path / "run"

    def interrupt():
        while not (folder / "metrics.jsonl").exists() or len(_steps_logged(folder)) < 5:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(SystemExit) as stopped:
        toy.main(toy.Config(workdir=str(folder), steps=5000, eval_every=0))
    thread.join()
    assert stopped.value.code == 128 + signal.SIGINT
    done = max(int(path.name) for path in (folder / "checkpoints").iterdir())
    assert _steps_logged(folder) == list(range(1, done + 1))


def test_asked_during_the_last_test_it_finishes_and_what_follows_does_not_begin(toy, tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(SystemExit) as stopped:
        toy.main(toy.Config(workdir=str(folder), steps=20, stop_at=20))
    assert stopped.value.code == 128 + signal.SIGTERM
    assert json.loads((folder / "summary.json").read_text())["steps"] == 20


def test_asked_at_the_last_step_it_saves_before_it_tests(toy, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    monkeypatch.setattr(loop, "_is_asked", lambda request, done: done == 20)

    def killed(*arguments):
        raise ZeroDivisionError

    monkeypatch.setattr(loop, "_test", killed)
    with pytest.raises(ZeroDivisionError):
        toy.main(toy.Config(workdir=str(folder), steps=20, checkpoint_every=0))
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["20"]


def test_more_steps_continue_a_finished_run(toy, whole, outcome, tmp_path, capsys):
    folder = tmp_path / "run"
    toy.main(toy.Config(workdir=str(folder), steps=20, log_every=7))
    capsys.readouterr()
    again = toy.main(toy.Config(workdir=str(folder), steps=20))
    assert "finished before" in capsys.readouterr().out
    assert again["steps"] == 20
    toy.main(toy.Config(workdir=str(folder)))
    assert outcome(folder)[1:] == outcome(whole)[1:]
    before = {path: path.read_bytes() for path in folder.rglob("*.json*")}
    with pytest.raises(UserError, match=r"--steps 30: the run in .*run has done 60; expected"):
        toy.main(toy.Config(workdir=str(folder), steps=30))
    assert {path: path.read_bytes() for path in folder.rglob("*.json*")} == before


def test_killed_after_the_last_checkpoint_finishes(toy, whole, outcome, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    (folder / "summary.json").unlink()
    toy.main(toy.Config(workdir=str(folder)))
    assert outcome(folder) == outcome(whole)


def test_killed_at_random_is_the_same_run(toy, start, outcome, tmp_path):
    toy.main(toy.Config(workdir=str(tmp_path / "whole"), steps=300, eval_every=100))
    folder = tmp_path / "killed"
    # It pauses at the tests, so that it cannot get to the end before it is killed.
    flags = ("--workdir", folder, "--steps", 300, "--eval-every", 100, "--pause", 0.5)
    for hundreds in (0, 100):
        program = start(*flags)
        last = hundreds + random.randint(20, 95)  # another place every time
        while program.poll() is None and not _has_logged(folder, last):
            time.sleep(0.005)
        program.send_signal(signal.SIGKILL)
        assert program.wait() == -signal.SIGKILL, program.stderr.read()
        program.communicate()
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 299, "train/lo')  # a line that a kill cut
    program = start(*flags)
    _, errors = program.communicate()
    assert program.returncode == 0, errors
    assert "continuing after step" in errors
    assert outcome(folder) == outcome(tmp_path / "whole")


def _has_logged(folder, step) -> bool:
    path = folder / "metrics.jsonl"
    return path.exists() and f'{{"step": {step}, ' in path.read_text()


def test_one_device_computes_what_eight_do(toy, whole, outcome, tmp_path, monkeypatch):
    one = devices.make_mesh(devices=jax.devices()[:1])
    monkeypatch.setattr(devices, "make_mesh", lambda fsdp: one)
    toy.main(toy.Config(workdir=str(tmp_path / "run")))
    _assert_close(outcome(tmp_path / "run")[0], outcome(whole)[0])


def _assert_close(lines, others):
    assert [line.keys() for line in lines] == [line.keys() for line in others]
    for line, other in zip(lines, others, strict=True):
        np.testing.assert_allclose(list(line.values()), list(other.values()), rtol=1e-5)


def test_many_seeds_are_many_runs(toy, tmp_path):
    # On equal examples the order does not matter, and only it depends on config.seed alone.
    images = load_images("digits")
    train = Arrays({name: column[:1] for name, column in images.train.columns.items()})
    images = images._replace(train=train)
    toy.TRACES.clear()
    three = toy.main(toy.Config(workdir=str(tmp_path / "three"), seed=5, seeds=3, steps=20), images)
    assert toy.TRACES["step"] == 1
    ones = [
        toy.main(toy.Config(workdir=str(tmp_path / f"{seed}"), seed=seed, steps=20), images)
        for seed in (5, 6, 7)
    ]
    for name in ("nll", "accuracy", "noise"):
        values = [one["metrics"][name] for one in ones]
        np.testing.assert_allclose(three["metrics"][name], np.mean(values), rtol=1e-5)
        np.testing.assert_allclose(three["metrics"][f"{name}_std"], np.std(values), rtol=1e-4)
    assert three["metrics"]["nll_std"] > 0


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ({"explode_at": 34}, "step 34: not finite: loss; the last good checkpoint: 30"),
        ({"spoil_at": 34}, r"step 40: .* state: \['half'\] .*; the last good checkpoint: 30"),
        ({"explode_at": 3}, "step 3: not finite: loss; the last good checkpoint: no step yet"),
    ],
)
def test_numbers_that_are_not_finite_stop_the_run(toy, tmp_path, flag, message):
    with pytest.raises(DivergedError, match=message):
        toy.main(toy.Config(workdir=str(tmp_path / "run"), **flag))
    kept = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert kept == ([] if flag == {"explode_at": 3} else ["10", "20", "30"])
    assert not (tmp_path / "run" / "summary.json").exists()


def test_a_batch_that_does_not_fit_the_devices_is_refused(toy, tmp_path):
    with pytest.raises(UserError, match="--batch-size 30: expected a multiple of the 8 devices"):
        toy.main(toy.Config(workdir=str(tmp_path / "run"), batch_size=30))
    assert not list((tmp_path / "run").iterdir())


def counted(seeds, tmp_path, **changes):
    """A run whose state is the sum of the pixels that it has seen, judged as a whole."""
    seen = np.arange(40, dtype=np.uint8).reshape(40, 1, 1, 1)
    data = Dataset(Arrays({"image": seen}), Arrays({"image": seen[:3]}))
    judged = []

    def step(state, batch, key):
        total = state + jnp.sum(batch["image"], dtype=jnp.float32)
        return total, {"examples": len(batch["image"])}

    def judge(state, key):
        assert len(state.devices()) == 1
        judged.append(np.asarray(jax.random.key_data(key)))
        return {"total": float(state)}

    config = RunConfig(
        workdir=str(tmp_path), steps=5, batch_size=8, seeds=seeds, log_every=1, **changes
    )
    method = Method(lambda key, batch: jnp.zeros(()), step, judge=judge, batches_per_step=2)
    summary = train("counted", config, data, method)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    return summary, judged, lines


def test_a_judge_sees_the_whole_state_and_a_step_may_take_several_batches(tmp_path):
    summary, judged, lines = counted(1, tmp_path, eval_every=0)
    # 5 steps of 2 x 8 examples are two passes over the 40.
    assert summary["metrics"] == {"total": 2 * sum(range(40))}
    assert lines[0]["train/examples"] == 16
    assert len(judged) == 1
    assert 0 < summary["step_seconds"] < summary["seconds"] + 0.1


def test_every_seed_is_judged_with_a_key_of_its_own_and_the_same_at_every_step(tmp_path):
    summary, judged, _ = counted(3, tmp_path, eval_every=4)
    assert summary["metrics"] == {"total": 1560.0, "total_std": 0.0}
    assert len(judged) == 6
    np.testing.assert_array_equal(judged[:3], judged[3:])
    assert len({tuple(key) for key in judged}) == 3


def test_a_batch_of_tokens_trains_as_one_of_images_does(tmp_path):
    """Bigrams of sentences of unequal length; the test metric is a mean over tokens."""
    rng = np.random.default_rng(0)
    tokens = np.zeros((100, 12), np.int32)  # 0 is padding
    for row in tokens:
        length = rng.integers(3, 13)
        row[:length] = 1 + (rng.integers(4) + np.arange(length)) % 4  # after n comes n + 1
    data = Dataset(Arrays({"tokens": tokens[:77]}), Arrays({"tokens": tokens[77:]}))

    def losses(weights, batch):
        given, target = batch["tokens"][:, :-1], batch["tokens"][:, 1:]
        nll = -jnp.take_along_axis(
            jax.nn.log_softmax(weights[given]), target[..., None], axis=-1
        )[..., 0]  # fmt: skip
        return nll, target > 0

    def step(weights, batch, key):
        def mean(weights):
            nll, real = losses(weights, batch)
            return jnp.sum(nll * real) / jnp.sum(real)

        value, slope = jax.value_and_grad(mean)(weights)
        return weights - 10 * slope, {"loss": value}

    def evaluate(weights, batch, key):
        nll, real = losses(weights, batch)
        real = real & batch["valid"][:, None]
        return {"nll": (jnp.sum(nll * real), jnp.sum(real)), "start": batch["tokens"][:, 0]}

    method = Method(lambda key, batch: jnp.zeros((5, 5)), step, evaluate)
    config = RunConfig(workdir=str(tmp_path), steps=60, batch_size=8)
    metrics = train("bigrams", config, data, method)["metrics"]
    assert 0 < metrics["nll"] < 0.1
    assert metrics["start"] == pytest.approx(tokens[77:, 0].mean())
