"""The loop: the same numbers however it is stopped, split or repeated."""

import dataclasses
import json
import os
import random
import re
import resource
import shutil
import signal
import socket
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.lib import checkpoints, devices, loop, workdir
from experiments.lib.batches import first_batch
from experiments.lib.config import RunConfig
from experiments.lib.dataset import Arrays, Dataset
from experiments.lib.errors import DivergedError, UserError
from experiments.lib.loop import train
from experiments.lib.method import Method
from experiments.lib.programs import compile_method
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
        np.testing.assert_allclose(three["by_seed"][name], values, rtol=1e-5)
    assert three["metrics"]["nll_std"] > 0
    assert "nll_picked" not in three["metrics"]
    assert "by_seed" not in ones[0]


def test_one_of_several_seeds_is_picked_by_its_lowest_number(toy, tmp_path):
    config = toy.Config(workdir=str(tmp_path), seeds=3, steps=5)
    data, method = toy.build(config)
    summary = loop.train("toy", config, data, method._replace(pick="noise"))
    picked = np.argmin(summary["by_seed"]["noise"])
    for name, values in summary["by_seed"].items():
        assert summary["metrics"][f"{name}_picked"] == values[picked]
    assert len(set(summary["by_seed"]["noise"])) == 3


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


def _settings(folder, file="config.json"):
    return json.loads((folder / file).read_text())


def _all(folder) -> dict:
    """Content of every file but the lock's."""
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != ".lock"}


def test_a_second_start_of_a_live_run_is_refused(toy, start, outcome, tmp_path):
    """Also with another flag, and by the owner's own process; a kill leaves no lock behind."""
    folder = tmp_path / "run"
    flags = ("--workdir", folder, "--steps", 100, "--pause", 3, "--checkpoint-every", 0)
    program = start(*flags)
    while program.poll() is None and not _has_logged(folder, 20):
        time.sleep(0.01)
    settings = (folder / "config.json").read_bytes()
    second = start(*flags, "--rate", 0.3)
    said = second.communicate()[1]
    assert second.returncode == 2
    expected = f"--workdir {folder}: process {program.pid} on {socket.gethostname()} is training"
    assert said.splitlines()[-1] == f"error: {expected} there"
    assert "Traceback" not in said
    assert (folder / "config.json").read_bytes() == settings
    assert program.poll() is None
    program.kill()
    program.communicate()
    assert (folder / ".lock").exists()
    toy.main(toy.Config(workdir=str(folder), steps=20, rate=0.3))
    assert not (folder / ".lock").exists()
    with workdir.locked(folder), pytest.raises(UserError, match=f"process {os.getpid()} on"):
        toy.main(toy.Config(workdir=str(folder), steps=20, rate=0.3))


def test_a_reader_does_not_disturb_the_writer(toy, start, tmp_path):
    config = toy.Config(workdir=str(tmp_path / "run"), checkpoint_every=3, eval_every=0, steps=400)
    data, method = toy.build(config)
    first = first_batch(data.train, config.batch_size, 0, (0, 1))
    mesh = devices.make_mesh()
    like = compile_method(config, mesh, method, devices.global_batch(mesh, first)).state
    program = start(
        "--workdir", config.workdir, "--checkpoint-every", 3, "--eval-every", 0, "--steps", 400
    )
    seen = set()
    while program.poll() is None:
        if checkpoints.steps(tmp_path / "run" / "checkpoints"):
            step, state, _ = checkpoints.read(tmp_path / "run" / "checkpoints", like)
            assert int(state["count"]) == step
            seen.add(step)
    said = program.communicate()
    assert program.returncode == 0, said
    assert "damaged" not in said[1]
    assert len(seen) > 3


def test_a_summary_answers_to_its_own_flags_alone(toy, whole, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    shutil.rmtree(folder / "checkpoints")
    before = _all(folder)
    for changed, message in [
        (
            {"rate": 0.2},
            "holds a run with other flags (--rate 0.1 there and 0.2 here); expected",
        ),
        ({"steps": 30}, "has done 60; expected at least as many"),
        ({"steps": 90}, "has done 60 and its checkpoints are gone; expected --steps 60, or anothe"),
        ({"rate": 0.2, "override": "rate"}, "expected more --steps to override them for, or an"),
    ]:
        with pytest.raises(UserError, match=re.escape(message)):
            toy.main(toy.Config(workdir=str(folder), **changed))
        assert _all(folder) == before
    assert toy.main(toy.Config(workdir=str(folder), log_every=7))["steps"] == 60
    # Also where config.json has moved on: as if more steps with another flag had been killed.
    shutil.copytree(whole / "checkpoints", folder / "checkpoints")
    later = toy.Config(workdir=str(folder), steps=90, rate=0.2)
    workdir.write_json(folder / "config.json", workdir.settings("toy", later))
    with pytest.raises(UserError, match=r"--rate 0.1 there and 0.2 here"):
        toy.main(dataclasses.replace(later, steps=60))
    assert toy.main(dataclasses.replace(later, steps=60, rate=0.1))["config"]["rate"] == 0.1


def test_a_flag_is_changed_on_purpose_and_it_is_noted(toy, whole, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    more = toy.Config(workdir=str(folder), rate=0.05, steps=70)
    with pytest.raises(UserError, match="other flags"):
        toy.main(more)
    toy.main(dataclasses.replace(more, override="rate"))
    assert "--steps 70, not 60: a schedule over all steps is stretched" in capsys.readouterr().err
    notes = [
        {"step": 60, "flag": "--steps", "before": 60, "now": 70},
        {"step": 60, "flag": "--rate", "before": 0.1, "now": 0.05},
    ]
    assert _settings(folder)["changes"] == _settings(folder, "summary.json")["changes"] == notes
    assert _settings(folder)["config"]["rate"] == 0.05
    toy.main(dataclasses.replace(more, steps=80))  # the new value is the folder's from now on
    assert _settings(folder)["changes"] == [
        *notes, {"step": 70, "flag": "--steps", "before": 70, "now": 80},
    ]  # fmt: skip


def test_a_run_begins_with_the_state_of_another(toy, whole, outcome, tmp_path):
    config = toy.Config(workdir=str(tmp_path / "run"), steps=20, init_from=str(whole))
    before = _all(whole)
    toy.main(config)
    assert _all(whole) == before
    assert _settings(tmp_path / "run")["from"] == {"run": str(whole), "step": 60}
    lines, _, _ = outcome(tmp_path / "run")
    assert [line["step"] for line in lines if "train/loss" in line] == list(range(1, 21))
    assert lines[0]["train/loss"] < 0.8 * outcome(whole)[0][0]["train/loss"]
    with pytest.raises(UserError, match=r'flags \(--from .* there and "" here\)'):
        toy.main(dataclasses.replace(config, init_from=""))
    assert toy.main(config)["from"]["step"] == 60
    other = dataclasses.replace(config, workdir=str(tmp_path / "other"), seeds=2)
    expected = r"--from .*/60: the state differs: \['count'\] int32\[\] there and int32\[2\] here,"
    with pytest.raises(UserError, match=expected):
        toy.main(other)
    with pytest.raises(UserError, match=r"--from .*/no: .*no/checkpoints: holds no checkpoint"):
        toy.main(dataclasses.replace(other, init_from=str(tmp_path / "no")))


@pytest.mark.parametrize(("seeds", "checkpoint_every"), [(1, 10), (2, 7)])
def test_the_best_checkpoint_is_kept(toy, start, tmp_path, seeds, checkpoint_every):
    """Also where a test falls between two checkpoints, and with several seeds."""
    flags = {"steps": 60, "eval_every": 5, "seeds": seeds, "checkpoint_every": checkpoint_every}
    folder = tmp_path / "run"
    toy.main(toy.Config(workdir=str(folder), keep_best="max:nll", **flags))
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    found = {line["step"]: line["test/nll"] for line in lines if "test/nll" in line}
    best = max(found, key=found.__getitem__)
    assert best < 40  # what the last three checkpoints do not hold
    last = [step for step in range(61) if step % checkpoint_every == 0 or step == 60][-3:]
    assert checkpoints.steps(folder / "checkpoints") == [best, *last]
    assert _settings(folder, "summary.json")["best"] == {"step": best, "by": "max:nll"}
    # More steps find it again among the tests of before.
    flags["steps"] = 70
    toy.main(toy.Config(workdir=str(folder), keep_best="max:nll", **flags))
    assert checkpoints.steps(folder / "checkpoints")[0] == best
    with pytest.raises(UserError, match=r"max:fame: the test has no such metric; .* of accuracy, "):
        toy.main(toy.Config(workdir=str(folder), keep_best="max:fame", **flags | {"steps": 80}))


def test_a_test_that_fails_loses_no_step(toy, whole, outcome, tmp_path, monkeypatch):
    """Of the last step and of another; the test is made up for, and the run is the same."""
    folder = tmp_path / "run"
    evaluate = loop._evaluate
    for failing in (20, 60):

        def fail(*arguments, failing=failing):
            if arguments[-1] == failing:
                raise UserError("record 3 of the test split is damaged")
            return evaluate(*arguments)

        monkeypatch.setattr(loop, "_evaluate", fail)
        with pytest.raises(UserError, match="record 3"):
            toy.main(toy.Config(workdir=str(folder)))
        assert checkpoints.steps(folder / "checkpoints")[-1] == failing
    monkeypatch.setattr(loop, "_evaluate", evaluate)
    toy.TRACES.clear()
    toy.main(toy.Config(workdir=str(folder)))
    assert toy.TRACES["step"] == 0
    assert outcome(folder) == outcome(whole)


def test_a_checkpoint_that_cannot_be_written_is_one_line(start, tmp_path):
    """A limit on the size of files stands for a full disk; nothing of orbax is printed."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    folder = tmp_path / "run"
    resource.setrlimit(resource.RLIMIT_FSIZE, (2048, limit[1]))
    try:
        program = start(
            "--workdir", folder, "--eval-every", 0, "--checkpoint-every", 5,
            JAX_ENABLE_COMPILATION_CACHE="false",
        )  # fmt: skip
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    said = program.communicate()[1]
    assert program.returncode == 2
    assert said.splitlines()[-1].startswith(f"error: {folder}/checkpoints: cannot be written (")
    assert "Traceback" not in said
    assert "ERROR" not in said
