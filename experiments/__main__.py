"""Lists the experiments, or runs one: python -m experiments [NAME FLAGS]."""

import ast
import pathlib
import runpy
import sys

from experiments.lib import interrupts
from experiments.lib.errors import did_you_mean

_FOLDER = pathlib.Path(__file__).parent


def main() -> None:
    """Lists what there is; with a name, does what `python -m experiments.NAME` does."""
    programs = {path.stem: path for path in _FOLDER.glob("[!_]*.py")}
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if not name or name in ("-h", "--help"):
        _print_list(programs)
    elif name in programs:
        sys.argv[:2] = [str(programs[name])]
        runpy.run_module(f"experiments.{name}", run_name="__main__", alter_sys=True)
    else:
        hint = did_you_mean(name, programs)
        text = f"error: {name}: no such experiment{hint} (python -m experiments lists them)"
        print(text, file=sys.stderr)
        sys.exit(2)


def _print_list(programs: dict[str, pathlib.Path]) -> None:
    # Parsed and not imported: a list should appear at once.
    trees = {n: ast.parse(path.read_text(encoding="utf-8")) for n, path in programs.items()}
    experiments = {name for name, tree in trees.items() if _builds(tree)}
    width = max(map(len, programs), default=0)
    for title, names in (("Experiments", experiments), ("Tools", programs.keys() - experiments)):
        if names:
            print(f"{title}:")
        for name in sorted(names):
            line = (ast.get_docstring(trees[name]) or "").partition("\n")[0]
            print(f"  {name:<{width}}  {line}".rstrip())
    print("\nRun one: python -m experiments NAME (its flags: --help)")


def _builds(tree: ast.Module) -> bool:
    """Whether a file is an experiment: it defines `build`."""
    return any(isinstance(node, ast.FunctionDef) and node.name == "build" for node in tree.body)


if __name__ == "__main__":
    with interrupts.without_reader():
        main()
