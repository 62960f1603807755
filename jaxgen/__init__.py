"""jaxgen: pure JAX functions for generative and representation learning.

Import the room you need: `from jaxgen import flows`. Everything takes arrays and returns arrays;
nothing here reads a file, a clock or a flag.
"""
