"""Lists the experiments: python -m experiments."""

import ast
import pathlib


def main() -> None:
    """Prints the name and the first line of the docstring of every experiment."""
    found = {}
    for path in sorted(pathlib.Path(__file__).parent.glob("[!_]*.py")):
        # Parsed and not imported: a list should appear at once.
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        found[path.stem] = text.partition("\n")[0]
    width = max(map(len, found), default=0)
    for name, line in found.items():
        print(f"{name:<{width}}  {line}".rstrip())
    print("\nRun one: python -m experiments.NAME (its flags: --help)")


if __name__ == "__main__":
    main()
