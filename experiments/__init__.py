"""Experiments: one file is one result you can run, `python -m experiments.NAME`."""
