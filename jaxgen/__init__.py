"""jaxgen: pure JAX functions for generative and representation learning.

Import the room you need: `from jaxgen import flows`. Everything takes arrays and returns arrays;
nothing here reads a file, a clock or a flag.
"""

from importlib import metadata

try:
    __version__ = metadata.version("jaxgen")
except metadata.PackageNotFoundError:  # a checkout that is not installed
    __version__ = "0+unknown"
