"""The documentation strings of installed Python packages, as short texts with labels."""

import ast
import importlib.metadata
import importlib.util
import os
import pathlib
import platform
import re
import sysconfig
import warnings
from collections.abc import Iterable, Iterator

from experiments.lib.errors import UserError

_SHORTEST = 5  # words of a text
# Folders without text of their own: tests, and what others installed below the standard library.
_SKIPPED = {"test", "tests", "idle_test", "site-packages", "dist-packages"}
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
_EXPECTED = "expected stdlib or top-level packages that are installed, such as numpy"


def docstrings(packages: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Reads the documentation strings of modules, classes, functions and methods.

    They come from the source files with `ast`; nothing is imported. The order depends on the files
    alone. Folders of tests are left out, and so are files that do not parse, texts of less than
    five words, and texts that came before.

    Args:
      packages: names of packages; "stdlib" is the standard library.

    Returns:
      An iterator over (label, text). The label is the package; in the standard library it is the
      top module, such as "email".

    Raises:
      UserError: a package is not installed, or has no source files.
    """
    seen = set()
    files = [file for package in packages for file in _files(package)]
    for label, path in files:
        for text in _of_file(path):
            if text not in seen and len(words(text)) >= _SHORTEST:
                seen.add(text)
                yield label, text


def words(text: str) -> list[str]:
    """The words of a text in lower case: runs of letters, digits and underscores.

    An identifier such as `n_init` is one word. A run of underscores alone is none.
    """
    return [word for word in re.findall(r"\w+", text.lower()) if word.strip("_")]


def versions(packages: Iterable[str]) -> dict[str, str]:
    """The version of each package, of Python itself for "stdlib"; "unknown" where it has none.

    Raises:
      UserError: a package is not installed.
    """
    found = {}
    for package in packages:
        _roots(package)
        found[package] = platform.python_version() if package == "stdlib" else _version(package)
    return found


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # sklearn is in the distribution scikit-learn
        owners = importlib.metadata.packages_distributions().get(package, [])
    return importlib.metadata.version(owners[0]) if owners else "unknown"


def _roots(package: str) -> list[pathlib.Path]:
    """The folders of a package, or the file of a module."""
    if package == "stdlib":
        return [pathlib.Path(sysconfig.get_paths()["stdlib"])]
    try:
        spec = importlib.util.find_spec(package) if package.isidentifier() else None
    except ValueError:  # __main__ has no spec
        spec = None
    if spec is None:
        raise UserError(f"--docstrings {package}: no such package; {_EXPECTED}")
    folders = spec.submodule_search_locations
    return [pathlib.Path(place) for place in folders or [spec.origin or ""]]


def _files(package: str) -> list[tuple[str, pathlib.Path]]:
    """(label, source file) of a package in sorted order."""
    found = [(root, path) for root in _roots(package) for path in _below(root)]
    if not found:
        raise UserError(f"--docstrings {package}: has no source files; {_EXPECTED}")
    if package != "stdlib":
        return [(package, path) for _, path in found]
    return [(path.relative_to(root).parts[0].removesuffix(".py"), path) for root, path in found]


def _below(root: pathlib.Path) -> Iterator[pathlib.Path]:
    if root.is_file() and root.suffix == ".py":
        yield root
    for place, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if name not in _SKIPPED)
        yield from (pathlib.Path(place, name) for name in sorted(files) if name.endswith(".py"))


def _of_file(path: pathlib.Path) -> list[str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes such as "\d"
            tree = ast.parse(path.read_bytes())
    # No access, no Python of this version, no text, or nested too deep.
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    found = [ast.get_docstring(x) for x in ast.walk(tree) if isinstance(x, _DOCUMENTED)]
    return [text for text in found if text]
