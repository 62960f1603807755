"""How a run begins: in a folder of its own, from its newest checkpoint, another run's, or anew."""

import contextlib
import pathlib
from collections.abc import Iterator
from typing import Any

import jax

from experiments.lib import devices, workdir
from experiments.lib.checkpoints import Checkpoints, read, steps
from experiments.lib.config import RunConfig
from experiments.lib.errors import UserError
from experiments.lib.logs import announced, notice
from experiments.lib.programs import Programs


@contextlib.contextmanager
def entered(name: str, config: RunConfig) -> Iterator[pathlib.Path]:
    """The folder of a run, into which no other run writes meanwhile; all processes or none enter.

    Raises:
      UserError: see `workdir.claim` and `workdir.locked`.
    """
    with contextlib.ExitStack() as stack:

        def enter():
            folder = workdir.claim(name, config)
            if jax.process_index() == 0:
                stack.enter_context(workdir.locked(folder))
            return folder

        folder = devices.together(enter)
        # Once more: another run may have ended in it before it was locked.
        devices.together(lambda: workdir.claim(name, config))
        yield folder


def begin(
    folder: pathlib.Path,
    name: str,
    config: RunConfig,
    programs: Programs,
    checkpoints: Checkpoints,
    batch,
) -> tuple[int, Any, float, dict]:
    """Finds the state that a run begins with, and writes config.json.

    Returns:
      (steps done, state, seconds trained, what config.json holds).

    Raises:
      UserError: there are checkpoints, and none can be used.
    """
    before = workdir.read_json(folder / "config.json") or {}  # all read it before it is written
    restored = checkpoints.restore(programs.state)
    if restored:
        notice(f"continuing after step {restored[0]}")
        notes = _notes(before, config, restored[0])
    elif config.init_from:
        try:
            step, state, _ = read(pathlib.Path(config.init_from) / "checkpoints", programs.state)
        except UserError as error:
            raise UserError(f"--from {config.init_from}: {error}") from None
        notice(f"starting with the state of {config.init_from} after step {step}")
        notes = {"from": {"run": config.init_from, "step": step}}
        restored = 0, state, 0.0
    else:
        notes = {}
        with announced("initialising the model"):
            restored = 0, programs.init(batch), 0.0
    about = workdir.settings(name, config, **notes)
    if jax.process_index() == 0:
        workdir.write_json(folder / "config.json", about)
    return *restored, about


def _notes(before: dict, config: RunConfig, step: int) -> dict:
    """The notes of config.json, with what changes now; it is said as well."""
    notes = {name: before[name] for name in ("from", "changes") if name in before}
    changes = workdir.changes(before, config, step)
    for change in changes:
        effect = ": a schedule over all steps is stretched" if change["flag"] == "--steps" else ""
        notice(f"from here on {change['flag']} {change['now']}, not {change['before']}{effect}")
    if changes:
        notes["changes"] = [*notes.get("changes", []), *changes]
    return notes


class Tests:
    """The tests that a run has done, as metrics.jsonl has them, and which of them was the best.

    All processes make one and call its methods; the numbers of process 0 decide.

    Attributes:
      best: step of the best test whose checkpoint is there, or None.
    """

    def __init__(self, folder: pathlib.Path, config: RunConfig, start: int):
        """Reads the tests of the steps before.

        Args:
          folder: of the run.
          config: its knobs; `keep_best` names the metric that counts.
          start: steps done; later tests are forgotten, they will be done again.

        Raises:
          UserError: a test has no such metric.
        """
        self._wanted, self._value, self.best = config.keep_best, float("inf"), None
        found = workdir.read_tests(folder) if jax.process_index() == 0 else {}
        self._done = {step for step in found if step <= start}
        held = self._done.intersection(steps(folder / "checkpoints"))
        devices.together(lambda: [self._offer(step, found[step]) for step in sorted(held)])
        best = devices.of_first(-1 if self.best is None else self.best)
        self.best = None if best < 0 else best

    def lacks(self, step: int) -> bool:
        """Whether the test after this step is not done: a run may stop between the two."""
        return bool(devices.of_first(int(step not in self._done)))

    def add(self, step: int, metrics: dict[str, float]) -> bool:
        """Remembers a test; returns whether it is better than all before.

        Raises:
          UserError: the test has no such metric.
        """
        self._done.add(step)
        better = bool(devices.of_first(int(self._offer(step, metrics))))
        if better:
            self.best = step
        return better

    def _offer(self, step: int, metrics: dict[str, float]) -> bool:
        if not self._wanted:
            return False
        order, _, name = self._wanted.partition(":")
        if name not in metrics:
            raise UserError(
                f"--keep-best {self._wanted}: the test has no such metric; expected one of"
                f" {', '.join(metrics) or 'none, for this experiment tests nothing'}"
            )
        value = metrics[name] if order == "min" else -metrics[name]
        if better := value < self._value:  # never true of NaN
            self.best, self._value = step, value
        return better
