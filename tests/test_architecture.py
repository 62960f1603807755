"""What may import what.

Imports point down: experiments -> methods -> lib, and all but lib may use jaxgen.
"""

import ast
import importlib
import pathlib
import subprocess
import sys
import tomllib
from importlib import metadata

import pytest

import jaxgen

ROOT = pathlib.Path(__file__).parent.parent
PURE = {"jax", "flax", "optax", "numpy", "jaxgen"}
HEAVY = [
    "orbax",
    "tensorflow",
    "tensorflow_datasets",
    "grain",
    "tyro",
    "matplotlib",
    "sklearn",
    "tqdm",
    "tensorboardX",
    "PIL",
]


def files(*folders):
    found = [p.relative_to(ROOT) for f in folders for p in sorted((ROOT / f).rglob("*.py"))]
    assert found, folders
    return found


def nodes(path):
    return list(ast.walk(ast.parse((ROOT / path).read_text(), str(path))))


def imports(path):
    """Absolute names of every module that a file imports, wherever in it."""
    names = set()
    for node in nodes(path):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = path.parts[: -node.level] if node.level else ()
            base = ".".join([*package, *([node.module] if node.module else [])])
            names |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    return names


def within(name, package):
    return name == package or name.startswith(package + ".")


@pytest.mark.parametrize("path", files("jaxgen"), ids=str)
def test_jaxgen_imports_the_pure_libraries_alone(path):
    roots = {name.partition(".")[0] for name in imports(path)}
    assert roots <= PURE | set(sys.stdlib_module_names)
    assert not any(within(name, "jax.experimental") for name in imports(path))


# Besides itself and `arguments`, the rooms of jaxgen that each room uses: these and no others.
USES = {
    "divergences": set(),
    "flows": {"models"},
    "losses": {"divergences"},
    "metrics": {"divergences"},
    "models": set(),
    "optimizers": set(),
    "regularizers": set(),
    "smooth": set(),
}


@pytest.mark.parametrize("room", USES)
def test_a_room_uses_exactly_the_rooms_of_the_table(room):
    names = set().union(*map(imports, files(f"jaxgen/{room}")))
    used = {name.split(".")[1] for name in names if name.startswith("jaxgen.")}
    assert used - {room, "arguments"} == USES[room]


def test_every_room_is_in_the_table():
    rooms = {path.name for path in (ROOT / "jaxgen").iterdir() if (path / "__init__.py").exists()}
    assert rooms == USES.keys()


# What each floor of the experiments may import of the project.
FLOORS = {
    "experiments/lib": {"experiments.lib"},
    "experiments/methods": {"experiments.lib", "experiments.methods", "jaxgen"},
    "experiments": {"experiments", "jaxgen"},
    "benchmarks": {"benchmarks", "experiments", "jaxgen"},
}


def floor(path):
    return max((f for f in FLOORS if str(path).startswith(f + "/")), key=len)


@pytest.mark.parametrize("path", files("experiments", "benchmarks"), ids=str)
def test_experiments_import_downwards(path):
    own = [n for n in imports(path) if n.partition(".")[0] in {*FLOORS, "jaxgen", "tests"}]
    above = [n for n in own if not any(within(n, below) for below in FLOORS[floor(path)])]
    assert [name for name in above if name != "experiments"] == []


def test_no_circle_of_imports():
    graph = {}
    for path in files("jaxgen", "experiments"):
        parts = path.with_suffix("").parts
        graph[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = imports(path)
    # A package's own file imports its modules: that is no circle for the modules.
    modules = {name for name in graph if not (ROOT / name.replace(".", "/")).is_dir()}
    graph = {name: (graph[name] & modules) - {name} for name in modules}
    while leaves := [name for name, below in graph.items() if not below]:
        for leaf in leaves:
            del graph[leaf]
        graph = {name: below - set(leaves) for name, below in graph.items()}
    assert not graph, f"in or above a circle: {sorted(graph)}"


@pytest.mark.parametrize("path", files("jaxgen", "experiments", "benchmarks"), ids=str)
def test_no_private_jax_and_no_pickle(path):
    names = imports(path)
    assert not any(within(name, "jax._src") or within(name, "jaxlib") for name in names)
    assert not any(within(n, p) for n in names for p in ("pickle", "cloudpickle", "dill", "joblib"))
    text = (ROOT / path).read_text()
    assert "jax._src" not in text
    assert "allow_pickle=True" not in text


def prints(path):
    return [
        node.lineno
        for node in nodes(path)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ("print", "breakpoint", "input")
    ]


def talks_to_the_terminal(path):
    return path.parts[:2] == ("experiments", "lib") or path.name == "__main__.py"


@pytest.mark.parametrize(
    "path",
    [p for p in files("jaxgen", "experiments") if not talks_to_the_terminal(p)],
    ids=str,
)
def test_only_the_plumbing_prints(path):
    assert prints(path) == []


@pytest.mark.parametrize("module", ["jaxgen", *(f"jaxgen.{room}" for room in USES)])
def test_importing_the_library_is_light(module):
    code = f"import sys, {module}; print([m for m in {HEAVY} if m in sys.modules])"
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_the_version_is_that_of_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert jaxgen.__version__ == project["version"]


def test_a_checkout_that_is_not_installed_has_a_version_too(monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    with monkeypatch.context() as patch:
        patch.setattr(metadata, "version", missing)
        assert importlib.reload(jaxgen).__version__ == "0+unknown"
    importlib.reload(jaxgen)
