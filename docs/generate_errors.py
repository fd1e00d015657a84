"""Writes docs/errors.md: every error code in the sources, its exit code and what it means.

    python docs/generate_errors.py          write the page
    python docs/generate_errors.py --check  exit 1 when the page or the table is out of date

Codes are found in the syntax trees: the first argument of an error's constructor is literal text,
or is made from parameters of the enclosing function that every caller fills with literal text.
Meanings are in error_meanings.toml.
"""

from __future__ import annotations

import ast
import itertools
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCES = (
    "runtime/hummingbird_runtime",
    "train/hummingbird_train",
    "export/hummingbird_export",
    "benchmarks/hummingbird_bench",
    "mobile_demo/hummingbird_demo",
)
MEANINGS = ROOT / "docs" / "error_meanings.toml"
PAGE = ROOT / "docs" / "errors.md"
WARNING = "warning"

Found = dict[str, set[str]]


def error_classes() -> dict[str, int]:
    """Class name -> exit code, from errors.py: its own value or that of the base class."""
    tree = ast.parse((ROOT / SOURCES[0] / "errors.py").read_text(encoding="utf-8"))
    codes: dict[str, int] = {}
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            bases = [base.id for base in node.bases if isinstance(base, ast.Name)]
            own = [
                statement.value.value
                for statement in node.body
                if isinstance(statement, ast.Assign | ast.AnnAssign)
                and isinstance(statement.value, ast.Constant)
                and isinstance(statement.value.value, int)
            ]
            inherited = [codes[base] for base in bases if base in codes]
            if bases == ["Exception"] or inherited:
                codes[node.name] = (own + inherited)[0]
    return codes


def collect(root: Path = ROOT) -> tuple[Found, list[str]]:
    """Codes with the exit codes they come with, and the places whose code cannot be told."""
    classes = {name: str(code) for name, code in error_classes().items()} | {"Warning": WARNING}
    trees = {
        path.relative_to(root).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
        for source in SOURCES
        for path in sorted((root / source).rglob("*.py"))
    }
    calls = _Calls(trees.values())
    found: Found = {}
    unclear: list[str] = []
    for path, tree in trees.items():
        for kind, call in _constructions(tree, classes):
            codes = calls.values(call.args[0], call)
            if not codes:
                unclear.append(f"{path}:{call.lineno}")
            for code in codes:
                found.setdefault(code, set()).add(kind)
    return found, unclear


def page(found: Found, meanings: dict[str, str]) -> str:
    """The text of docs/errors.md."""
    rows = [
        f"| `{code}` | {', '.join(sorted(kinds))} | {meanings[code]} |"
        for code, kinds in sorted(found.items())
    ]
    return "\n".join(
        [
            "# Errors",
            "",
            "Every failure carries a stable code. On the command line the last line of stderr is",
            "`error[code]: what, got, expected; how to fix`, and the exit code is that of the",
            "table; in Python it is the `code` of a `HummingbirdError`. Warnings never end a run.",
            "",
            "Exit codes: 0 done; 2 usage; 3 bad input; 4 refused as unsafe or damaged; 5 memory,",
            "disk, permission or a missing extra; 6 numerical or runtime failure; 7 time limit;",
            "130, 143, 129 cancelled by SIGINT, SIGTERM, SIGHUP; 141 the reader of stdout left.",
            "",
            "This page is written by `python docs/generate_errors.py`.",
            "",
            "| code | exit | meaning |",
            "|---|---|---|",
            *rows,
            "",
        ]
    )


def problems(found: Found, unclear: list[str], meanings: dict[str, str]) -> list[str]:
    """What keeps the table from being complete and true."""
    return [
        *(f"{place}: the code cannot be told from the source" for place in unclear),
        *(f"{code}: used but not in {MEANINGS.name}" for code in sorted(found.keys() - meanings)),
        *(f"{code}: in {MEANINGS.name} but not used" for code in sorted(meanings.keys() - found)),
    ]


def read_meanings() -> dict[str, str]:
    """Code -> meaning, the tables of the file joined by dots."""
    tables = tomllib.loads(MEANINGS.read_text(encoding="utf-8"))
    return {
        f"{area}.{name}": text for area, table in tables.items() for name, text in table.items()
    }


def main(arguments: list[str]) -> int:
    """Write or check the page."""
    found, unclear = collect()
    meanings = read_meanings()
    faults = problems(found, unclear, meanings)
    if not faults:
        text = page(found, meanings)
        if "--check" not in arguments:
            PAGE.write_text(text, encoding="utf-8", newline="\n")
        elif not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != text:
            faults = [f"{PAGE.name} is out of date: run python docs/generate_errors.py"]
    print("\n".join(faults) or f"{len(found)} codes", file=sys.stderr if faults else sys.stdout)
    return 1 if faults else 0


def _constructions(tree: ast.Module, classes: dict[str, str]) -> Iterator[tuple[str, ast.Call]]:
    """(exit code, call) of every error built in a module, subclasses of the module included."""
    fixed: dict[str, str] = {"Cancelled": classes["Cancelled"]}  # brings its own code
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and node.name in fixed:
            inits = [c for c in ast.walk(node) if isinstance(c, ast.Call)]
            yield from ((fixed[node.name], c) for c in inits if _name(c.func) == "__init__")
        elif isinstance(node, ast.Call) and node.args:
            kind = classes.get(_name(node.func))
            # Python has a class called Warning too; ours takes a code first
            if kind is not None and _name(node.func) not in fixed:
                yield kind, node


class _Calls:
    """Who calls what with which text, over all modules."""

    def __init__(self, trees: Iterable[ast.Module]) -> None:
        self._around: dict[ast.AST, ast.FunctionDef] = {}
        self._by_name: dict[str, list[ast.Call]] = {}
        for tree in trees:
            for node in ast.walk(tree):  # outer functions come first, inner ones overwrite them
                if isinstance(node, ast.FunctionDef):
                    self._around |= dict.fromkeys(ast.walk(node), node)
                elif isinstance(node, ast.Call):
                    self._by_name.setdefault(_name(node.func), []).append(node)

    def values(self, text: ast.expr, where: ast.AST) -> set[str]:
        """Every value a text may have at a place; empty when it cannot be told."""
        if isinstance(text, ast.Constant):
            return {str(text.value)}
        if isinstance(text, ast.FormattedValue):
            return self.values(text.value, where)
        if isinstance(text, ast.JoinedStr):
            parts = [self.values(part, where) for part in text.values]
            return {"".join(choice) for choice in itertools.product(*parts)}
        function = self._around.get(where)
        names = [a.arg for a in function.args.args] if function else []
        if function is None or not isinstance(text, ast.Name) or text.id not in names:
            return set()
        place = names.index(text.id)
        filled = [(c, c.args[place]) for c in self._by_name[function.name] if len(c.args) > place]
        values = [self.values(argument, call) for call, argument in filled]
        return set().union(*values) if all(values) else set()


def _name(function: ast.expr) -> str:
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
