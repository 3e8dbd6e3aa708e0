"""Imports point one way. Read from the sources, so that nothing has to be installed or run to know."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = Path(__file__).parents[1] / "atp_eval"
HEAVY = {"torch", "transformers", "lmms_eval", "datasets", "accelerate"}
RECORDS = {"records", "rows", "writer", "trace", "errors"}
BENCHMARKS = {"benchmarks", "documents"}
# What each room may import of the package, at any depth of its code. Rooms that are not named here may import whatever
# does not close a circle.
ARROWS = {
    "errors": set(),
    "trace": set(),
    "paths": set(),
    "workers": {"errors"},
    "cost": {"errors", "paths"},
    "methods": {"cost", "errors"},
    "engine": {"cost", "methods", "trace", "errors"},
    "models": {"cost", "engine", "methods", "trace", "errors", "paths", "scenes"},
    "training": {"cost", "engine", "methods", "models", "plotting", "scenes", "trace", "errors", "paths", "config"},
    "records": {"trace", "errors"},
    "rows": {"records", "trace", "errors"},
    "writer": {"records", "rows", "trace", "errors"},
    "recorded": {"records", "rows", "writer", "trace", "errors"},
    "documents": {"errors"},
    "benchmarks": {"documents", "errors"},
    "analysis": {"bench", "cost", "paper", "spreadsheet"} | RECORDS | BENCHMARKS,
    "plotting": {"spreadsheet"},
    "spreadsheet": set(),
    "annotation": {"analysis", "reporting", "paper", "paths", "spreadsheet"} | RECORDS | BENCHMARKS,
    "reporting": {"analysis", "bench", "cost", "paper", "paths", "plotting", "spreadsheet"} | RECORDS | BENCHMARKS,
}
LIGHT = [
    "analysis",
    "annotation",
    "reporting",
    "records",
    "writer",
    "trace",
    "errors",
    "benchmarks",
    "documents",
    "paths",
    "cost",
    "config",
    "paper",
    "workers",
    "plotting",
]
ONLY_IMPORTED_BY = {
    "cli": {"__main__"},
    "run": {"ablation", "run_commands", "shards", "sweep"},
    "reporting": {
        "bench_commands",
        "claims_commands",
        "cli",
        "report_commands",
        "run_commands",
        "compare_commands",
        "gallery_commands",
        "annotation",
        "annotate_commands",
    },
}


class Import(NamedTuple):
    """`module` (dotted) is imported in `source` at `line`; lazy: inside a function."""

    source: str
    line: int
    module: str
    lazy: bool


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        if "_data" not in parts:
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def imports() -> tuple[Import, ...]:
    """Every import statement of the package, except under TYPE_CHECKING."""
    known = modules()
    return tuple(found for name, path in known.items() for found in read(name, path, known))


def read(name: str, path: Path, known: dict[str, Path]) -> Iterator[Import]:
    """The imports of one file; relative ones resolved."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]

    def visit(node: ast.AST, lazy: bool) -> Iterator[Import]:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if isinstance(node, ast.Import):
            yield from (Import(name, node.lineno, alias.name, lazy) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parent = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parent, *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield Import(name, node.lineno, inner if inner in known else base, lazy)
        inside = lazy or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for child in ast.iter_child_nodes(node):
            yield from visit(child, inside)

    yield from visit(ast.parse(path.read_text(encoding="utf-8")), False)


def room(module: str) -> str | None:
    """The room of a module of the package (`methods` of atp_eval.methods.fastv); None for all others."""
    parts = module.split(".")
    return parts[1] if parts[0] == "atp_eval" and len(parts) > 1 else None


def arrows() -> set[tuple[str, str]]:
    """Pairs of different rooms, the first of which imports the second."""
    pairs = {(room(i.source), room(i.module)) for i in imports()}
    return {(a, b) for a, b in pairs if a and b and a != b}


@pytest.mark.parametrize("name", ARROWS)
def test_a_room_imports_only_what_the_design_allows(name: str) -> None:
    wrong = [
        f"{i.source}:{i.line} imports {i.module}"
        for i in imports()
        if room(i.source) == name and room(i.module) not in {None, name, *ARROWS[name]}
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", ONLY_IMPORTED_BY)
def test_the_top_of_the_house_is_imported_from_above_only(name: str) -> None:
    assert {a for a, b in arrows() if b == name} <= ONLY_IMPORTED_BY[name]


def test_rooms_form_no_circle() -> None:
    graph: dict[str, set[str]] = {}
    for a, b in arrows():
        graph.setdefault(a, set()).add(b)
    list(TopologicalSorter(graph).static_order())  # raises CycleError, which names the circle


@pytest.mark.parametrize("name", LIGHT)
def test_light_rooms_import_nothing_heavy_not_even_through_others(name: str) -> None:
    by_source: dict[str, list[Import]] = {}
    for i in imports():
        by_source.setdefault(i.source, []).append(i)
    todo = [m for m in by_source if room(m) == name]
    seen, wrong = set(todo), []
    while todo:
        for i in by_source.get(todo.pop(), []):
            if i.module.split(".")[0] in HEAVY:
                wrong.append(f"{i.source}:{i.line} imports {i.module}")
            elif room(i.module) and i.module not in seen:
                seen.add(i.module)
                todo.append(i.module)
    assert seen, f"there is no room {name}"
    assert not wrong, "\n".join(wrong)


def test_methods_import_torch_and_no_other_heavy_package() -> None:
    found = {i.module.split(".")[0] for i in imports() if room(i.source) == "methods"} & HEAVY
    assert found == {"torch"}


def test_importing_the_report_loads_nothing_heavy() -> None:
    code = (
        "import sys, atp_eval.reporting.build, atp_eval.reporting.console\n"
        f"found = sorted({HEAVY!r} & set(sys.modules))\n"
        "sys.exit(f'loaded: {found}' if found else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent, check=False)
    assert done.returncode == 0, done.stderr
