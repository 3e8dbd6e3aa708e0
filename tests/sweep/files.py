"""Sweep files for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

FAMILIES: list[dict[str, Any]] = [
    {"panel": "before", "name": "grid", "spec": "grid:layer=0"},
    {"panel": "before", "name": "random", "spec": "random:layer=0", "seeds": [0, 3], "role": "random"},
    {"panel": "inside", "name": "FastV", "spec": "fastv", "budgets": [144]},
    {"panel": "inside", "name": "random", "spec": "random", "role": "random"},
]


def write(folder: Path, **changes: object) -> str:
    """A small sweep; changes: its keys, None to leave one out."""
    found = {"title": "Small", "budgets": [144, 36], "families": FAMILIES, **changes}
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in found.items() if value is not None}, sort_keys=False))
    return str(path)
