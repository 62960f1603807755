"""The plumbing of the experiments: files, flags, devices, clocks. No maths."""
