"""README names what there is: every method and every file."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from atp_eval.methods import method_names

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
FILES = [
    path.relative_to(ROOT).as_posix()
    for folder in ("atp_eval", "benchmarks")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if "_data" not in path.parts and path.name not in ("__init__.py", "__main__.py")
]


@pytest.mark.parametrize("name", method_names())
def test_every_method_is_in_the_table(name: str) -> None:
    assert re.search(rf"^\|.*`{name}[@:`]", README, re.MULTILINE)


def test_every_file_has_a_line() -> None:
    listed = set(re.findall(r"^((?:atp_eval|benchmarks)/\S+\.py) ", README, re.MULTILINE))
    assert not set(FILES) - listed, "add a line to README's Files"
    assert not listed - set(FILES), "README's Files name what is gone"
