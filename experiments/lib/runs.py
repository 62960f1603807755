"""A trained run in a session: its config, data, method and state."""

import dataclasses
import importlib
import pathlib
from types import ModuleType
from typing import Any

import jax
import numpy as np

from experiments.lib import checkpoints, devices, workdir
from experiments.lib.batches import form
from experiments.lib.config import RunConfig
from experiments.lib.errors import UserError
from experiments.lib.method import Method
from experiments.lib.programs import compile_method, of_seed


@dataclasses.dataclass(frozen=True)
class Run:
    """A trained model and what it was trained with.

    Attributes:
      name: of the experiment.
      config: its knobs.
      data: its data set.
      method: its pure functions, see `Method`.
      state: of one seed, on the first device.
      step: number of steps that the state has been trained.
    """

    name: str
    config: RunConfig
    data: Any
    method: Method
    state: Any
    step: int

    def sample(self, key, count: int):
        """Draws from the model, in the form of its data (images: uint8 [count, H, W, C]).

        Args:
          key: a PRNG key, used once.
          count: number of samples.

        Returns:
          Array [count, ...]; of an experiment that compares models, {name of the model: array}.

        Raises:
          UserError: the experiment is no generative model.
        """
        if not self.method.sample:
            raise UserError(f"{self.name}: has no samples; expected a generative experiment")
        return self.method.sample(self.state, key, count)

    def log_prob(self, x, key=None):
        """Log-likelihood of examples in the form of the data, in nats.

        For integer images a flow gives a lower bound, by one draw of dequantization noise.

        Args:
          x: [B, ...]; images are uint8 [B, H, W, C].
          key: a PRNG key of the noise; None: a fixed one, so that a call can be repeated.

        Returns:
          [B].

        Raises:
          UserError: the experiment has no density, or x has another form than its data.
        """
        if not self.method.log_prob:
            raise UserError(f"{self.name}: has no density; expected a flow")
        x = np.asarray(x)
        example = next(iter(self.data.test[np.arange(1)].values()))[0]
        if x.shape[1:] != example.shape or x.dtype != example.dtype:
            raise UserError(
                f"x is {x.dtype} {list(x.shape)}; expected {example.dtype}"
                f" [B, {', '.join(map(str, example.shape))}]"
            )
        return self.method.log_prob(self.state, x, jax.random.key(0) if key is None else key)


def load(
    folder: str | pathlib.Path,
    step: int | None = None,
    seed: int = 0,
    experiment: ModuleType | None = None,
    **changes,
) -> Run:
    """Loads a run, also one that is still training; nothing on disk is changed.

    Args:
      folder: of the run.
      step: that of the checkpoint; None: the newest that is whole.
      seed: which of the models of a run with several --seeds, counted from 0.
      experiment: module with `Config` and `build`; by default `experiments.NAME`.
      **changes: knobs that differ here, such as data_dir where the data lies elsewhere.

    Raises:
      UserError: the folder holds no run, or no checkpoint that fits.
    """
    folder = pathlib.Path(folder).expanduser()
    name, knobs = _settings(folder)
    experiment = experiment or _module(folder, name)
    config = _config(folder, experiment.Config, {**knobs, "workdir": str(folder), **changes})
    if not 0 <= seed < config.seeds:
        raise UserError(
            f"seed {seed}: {folder} has {config.seeds}; expected 0 to {config.seeds - 1}"
        )
    data, method = experiment.build(config)
    mesh = devices.make_mesh(devices=jax.local_devices()[:1])
    count = method.init_batch or config.batch_size * method.batches_per_step
    like = compile_method(config, mesh, method, form(data.train, count)).state
    found, state, _ = checkpoints.read(folder / "checkpoints", like, step)
    return Run(name, config, data, method, of_seed(config, state, seed), found)


def _settings(folder: pathlib.Path) -> tuple[str, dict]:
    held = workdir.read_json(folder / "config.json") or {}
    name, knobs = held.get("experiment"), held.get("config")
    if not isinstance(name, str) or not isinstance(knobs, dict):
        raise UserError(f"{folder}: expected the folder of a run, with its config.json")
    return name, knobs


def _module(folder: pathlib.Path, name: str) -> ModuleType:
    try:
        return importlib.import_module(f"experiments.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"experiments.{name}":
            raise
        raise UserError(
            f"{folder}: a run of {name}, which is no experiment here; expected `experiment=MODULE`"
        ) from None


def _config(folder: pathlib.Path, config_type, knobs: dict):
    known = {field.name for field in dataclasses.fields(config_type)}
    strange = knobs.keys() - known
    if strange:
        raise UserError(
            f"{folder}: has the knobs {', '.join(sorted(strange))}; expected a run of this version"
        )
    return config_type(**knobs)
