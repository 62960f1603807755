"""Benchmarks: one file is one comparison you can run, `python -m benchmarks.NAME`."""
