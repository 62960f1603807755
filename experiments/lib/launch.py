"""From the command line to a run: parse the flags, join the cluster, build, train."""

import contextlib
import errno
import pathlib
import sys
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from experiments.lib import devices, flags, interrupts
from experiments.lib.config import RunConfig
from experiments.lib.errors import UserError
from experiments.lib.logs import announced
from experiments.lib.loop import train

C = TypeVar("C", bound=RunConfig)


def launch(build: Callable[[C], tuple[Any, Any]], config_type: type[C]) -> None:
    """Runs the experiment whose file is the program.

    Args:
      build: config -> (data set, `Method`).
      config_type: the dataclass of the config; its fields are the flags.
    """
    module = sys.modules[build.__module__]

    def main(config: C) -> None:
        with announced(f"reading {getattr(config, 'data', 'the data')}"):
            data, method = build(config)
        train(pathlib.Path(str(module.__file__)).stem, config, data, method)

    _run(main, config_type, module)


def command(main: Callable[[Any], object], config_type: type) -> None:
    """Runs another program: parses the flags, joins the cluster, calls `main`.

    Args:
      main: function of the config. The docstring of its module is shown by --help.
      config_type: the dataclass of the config; its fields are the flags.
    """
    _run(main, config_type, sys.modules[main.__module__])


def _run(main: Callable[[Any], object], config_type: type, module) -> None:
    program = f"python -m {module.__spec__.name}" if module.__spec__ else None
    with as_program():
        config = flags.parse(config_type, program, module.__doc__)
        devices.keep_memory()
        devices.start()
        main(config)


@contextlib.contextmanager
def as_program() -> Iterator[None]:
    """Inside, a `UserError` ends the program with one line on stderr and exit code 2."""
    with interrupts.without_reader(), interrupts.as_program():
        try:
            yield
        except UserError as error:
            _end(str(error))
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            _end("no space left on the disk; with more of it the same command continues the run")


def _end(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)
