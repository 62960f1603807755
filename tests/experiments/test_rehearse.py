"""The rehearsal of a slice: its report on CPU devices in the place of chips, and its program."""

import importlib.util
import os
import re
import subprocess
import sys

import jax
import pytest

from experiments import rehearse
from experiments.lib import rehearsal, topologies


@pytest.fixture
def report(monkeypatch, capsys):
    """report(*arguments) -> what the rehearsal prints, compiled for the eight CPU devices."""
    chip = topologies.CHIPS["v5e"]
    monkeypatch.setattr(topologies, "describe", lambda topology: (chip, jax.devices()))

    def report(*arguments):
        monkeypatch.setattr(sys, "argv", ["rehearse", *arguments, "--topology", "v5e:2x4"])
        rehearse.main()
        return capsys.readouterr().out

    return report


def test_the_report_of_a_small_flow(report):
    text = report("nice", "--batch-size", "20", "--init-batch", "8", "--width", "8")
    assert "nice, compiled for v5e:2x4 (chips: 8)" in text
    assert "--batch-size 20 is raised to 24" in text
    assert "--init-batch" not in text
    assert re.search(r"training step, 24 examples, compiled in [\d.]+ s", text)
    assert "evaluation, 24 examples" in text
    ratio = re.search(r"([\d.]+) times the least", text)
    assert ratio
    assert 0.9 < float(ratio[1]) < 1.1
    assert re.search(r"all-reduce +\d+ x", text)
    assert text.count("predicted ") == 2


def test_a_step_takes_several_batches_and_there_may_be_no_evaluation(report):
    text = report("gan", "--batch-size", "8", "--width", "4", "--critic-updates", "2")
    assert "training step, 24 examples" in text
    assert "evaluation" not in text


def test_a_split_state_is_gathered_and_its_gradients_scattered(report):
    text = report("nice", "--width", "128", "--batch-size", "8", "--fsdp", "4")
    assert "all-gather" in text


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["nope"], "error: nope: no such experiment"),
        (["nope", "--width", "3"], "error: nope: no such experiment"),
        (["rehearse"], "error: rehearse: no such experiment"),
        (["sample"], "error: sample: no such experiment"),
        (["lib"], "error: lib: no such experiment"),
        (["lib.loop"], "error: lib.loop: no such experiment"),
        ([], "error: "),
        (["nice", "--wdth", "3"], "error: --wdth: no such flag; did you mean --width?"),
        (["nice", "--width", "0"], "error: --width 0: expected"),
        (["nice", "--fsdp", "3"], "error: --fsdp 3: expected a divisor of the 8 devices"),
    ],
)
def test_faults_are_one_line(report, capsys, flags, expected):
    with pytest.raises(SystemExit) as end:
        report(*flags)
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith(expected)
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("number", "expected"), [(0, "0 "), (999, "999 "), (1000, "1 k"), (1.234e12, "1.23 T")]
)
def test_decimal_numbers(number, expected):
    assert rehearsal.decimal(number) == expected


@pytest.mark.parametrize(
    ("size", "expected"),
    [(0, "0 B"), (1000, "0.977 KiB"), (16 * 2**30, "16 GiB"), (1536, "1.5 KiB")],
)
def test_binary_sizes(size, expected):
    assert rehearsal.binary(size) == expected


@pytest.mark.skipif(not importlib.util.find_spec("libtpu"), reason="pip install -e '.[tpu]'")
def test_the_program_compiles_for_a_tpu():
    flags = ["glow", "--topology", "v5e:2x2", "--depth", "2", "--width", "8", "--init-batch", "64"]
    environment = {**os.environ, "JAX_PLATFORMS": "", "XLA_FLAGS": ""}
    done = subprocess.run(
        [sys.executable, "-m", "experiments.rehearse", *flags],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "glow, compiled for v5e:2x2 (chips: 4)" in done.stdout
    assert done.stdout.count("compiled in") == 2
    assert "GiB" in done.stdout
