"""Copies of the engine with one line changed."""

from __future__ import annotations

import importlib
import itertools
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import atp_eval.engine

Mutant = tuple[str, str, str]
"""A file of the engine, what stands in it once, and what is to stand there."""
NOTICED = (AssertionError, RuntimeError, IndexError, ValueError)
"""How proofs fail."""
_numbers = itertools.count()


@contextmanager
def mutated(folder: Path, mutant: Mutant | None) -> Iterator[Any]:
    """`prune` of a copy of the engine, which is written into an empty folder; None changes nothing in it."""
    name = f"mutant_{next(_numbers)}"
    file, old, new = mutant or ("", "", "")
    package = folder / name
    package.mkdir()
    for source in Path(atp_eval.engine.__file__).parent.glob("*.py"):
        text = source.read_text().replace("atp_eval.engine", name)
        if source.name == "attention.py":
            text = text.replace('"atp_eval_once"', f'"{name}"')  # registered under a name of its own
        if source.name == file:
            assert text.count(old) == 1, f"{old!r} is no longer in {file}: adapt the mutant"
            text = text.replace(old, new)
        (package / source.name).write_text(text)
    sys.path.insert(0, str(folder))
    try:
        yield importlib.import_module(name).prune
    finally:
        sys.path.remove(str(folder))
        for module in [m for m in sys.modules if m == name or m.startswith(name + ".")]:
            del sys.modules[module]
