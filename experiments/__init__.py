"""Experiments: one file is one result you can run, `python -m experiments.NAME`."""

import sys

from experiments.lib import interrupts

if sys.argv[:1] == ["-m"]:  # `python -m experiments.NAME`: its own imports take seconds
    interrupts.end_program()
