"""Documentation strings: which are read, in which order, and that nothing is imported."""

import importlib.metadata
import itertools
import platform
import sys
import sysconfig
import types

import numpy as np
import pytest

from experiments.lib.errors import UserError
from experiments.lib.sources.docstrings import docstrings, versions, words

_MODULE = '''"""The module has these five words."""
raise SystemExit("it was imported")


class Outer:
    """The class has these five words.

        Indented more than the rest.
    End.
    """

    async def method(self):
        """The method has these five words."""

        def nested():
            r"""A pattern \\d+ of five words."""

    def short(self):
        """Four words are few."""

    def none(self):
        return "This is no documentation string at all."


def again():
    """The module has these five words."""
'''


def _write(root, files):
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


def _text(subject):
    return f'"""The text of {subject} has several words."""'


@pytest.fixture
def install(tmp_path, monkeypatch):
    """install(files): makes packages that can be imported, and the same files the stdlib."""

    def install(files):
        _write(tmp_path, files)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setattr(sysconfig, "get_paths", lambda: {"stdlib": str(tmp_path)})

    return install


def test_every_kind_of_documentation_string_is_read_once(install):
    install({"toy_package/__init__.py": _MODULE})
    texts = [
        "The module has these five words.",
        "The class has these five words.\n\n    Indented more than the rest.\nEnd.",
        "The method has these five words.",
        "A pattern \\d+ of five words.",
    ]
    assert list(docstrings(("toy_package",))) == [("toy_package", text) for text in texts]


def test_files_in_order_without_tests_and_what_does_not_parse(install):
    install(
        {
            "toy_b.py": _text("b"),
            "toy_a/z.py": _text("z"),
            "toy_a/__init__.py": _text("a"),
            "toy_a/deep/y.py": _text("y"),
            "toy_a/tests/x.py": _text("tests"),
            "toy_a/deep/test/x.py": _text("tests"),
            "toy_a/deep/idle_test/x.py": _text("tests"),
            "toy_a/broken.py": _text("broken") + "\nprint 3",
            "toy_a/binary.py": b'"""The text \xff of five words."""',
            "toy_a/zero.py": b'"""The text of five\0 words."""',
            "toy_a/nested.py": "-" * 10**5 + "1",
            "toy_a/latin.py": '# coding: latin-1\n"""The caf\xe9 has five words."""'.encode(
                "latin-1"
            ),
            "toy_a/escape.py": '"""The pattern \\d has five words."""',
            "toy_a/notes.txt": _text("notes"),
            "site-packages/c.py": _text("site packages"),
        }
    )
    of_a = [
        "The text of a has several words.",
        "The pattern \\d has five words.",
        "The caf\xe9 has five words.",
        "The text of z has several words.",
        "The text of y has several words.",
    ]
    assert list(docstrings(("toy_a",))) == [("toy_a", text) for text in of_a]
    of_b = "The text of b has several words."
    assert list(docstrings(("toy_b", "toy_a")))[:2] == [("toy_b", of_b), ("toy_a", of_a[0])]
    assert list(docstrings(("stdlib",))) == [("toy_b", of_b), *(("toy_a", text) for text in of_a)]


def test_a_real_package():
    found = list(docstrings(("optax",)))
    assert {label for label, _ in found} == {"optax"}
    lengths = np.array([len(words(text)) for _, text in found])
    assert len(found) > 300
    assert lengths.min() >= 5
    assert lengths.sum() > 20_000
    assert len({text for _, text in found}) == len(found)
    assert sum("gradient" in words(text) for _, text in found) > 100


def test_the_standard_library_has_modules_as_labels():
    labels = [label for label, _ in itertools.islice(docstrings(("stdlib",)), 500)]
    assert {"abc", "argparse"} <= set(labels)
    assert not {"site-packages", "test", "stdlib"} & set(labels)


def test_words():
    text = "Fit `n_init` times: __init__(X, y=0.5) ___ Poincar\xe9's\nEND_"
    assert words(text) == [
        *("fit", "n_init", "times", "__init__", "x", "y", "0", "5", "poincar\xe9", "s", "end_")
    ]
    assert words(" -- _ \n") == []


def test_versions(install):
    install({"toy_none/__init__.py": ""})
    assert versions(("stdlib", "sklearn", "optax", "toy_none")) == {
        "stdlib": platform.python_version(),
        "sklearn": importlib.metadata.version("scikit-learn"),
        "optax": importlib.metadata.version("optax"),
        "toy_none": "unknown",
    }


@pytest.mark.parametrize("name", ["no_such_package", "numpy.linalg", "", "../x", "toy_loose"])
def test_packages_that_are_not_installed(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "toy_loose", types.ModuleType("toy_loose"))  # has no spec
    for function in (lambda names: list(docstrings(names)), versions):
        with pytest.raises(UserError) as error:
            function(("optax", name))
        assert str(error.value) == (
            f"--docstrings {name}: no such package; expected stdlib or top-level packages that are"
            " installed, such as numpy"
        )


def test_a_module_without_source():
    with pytest.raises(UserError, match="--docstrings sys: has no source files; expected"):
        list(docstrings(("sys",)))
