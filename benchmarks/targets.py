"""What was aimed at and what was measured: the table of targets in docs/speed.md, from the benchmarks' own JSON.

    python benchmarks/targets.py docs/speed/*.json --docs docs/speed.md

Whatever a benchmark's JSON holds as "targets" (objects with the fields of Target) is a row, in the order of the files.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from atp_eval.errors import UserError

MARK = "<!-- targets -->"


@dataclass(frozen=True)
class Target:
    """A ratio (unit "x") or a share ("%") to be reached, and what was measured.

    sense: which side of `aim` is good. measured: median, and the bounds of its 95 % interval, None below six rounds.
    command: what measured it. by_operations: what the ratio of operations would give, where that is known.
    """

    work: str
    against: str
    aim: float
    measured: Sequence[float | None]
    unit: Literal["x", "%"] = "x"
    sense: Literal["at least", "at most"] = "at least"
    command: str = ""
    by_operations: float | None = None

    @property
    def reached(self) -> bool:
        """By the median."""
        median = self.measured[0]
        assert median is not None, "a median is there, whatever its interval"
        return median >= self.aim if self.sense == "at least" else median <= self.aim

    def cells(self) -> list[str]:
        """A row of the table."""
        sign = "≥" if self.sense == "at least" else "≤"
        median, low, high = self.measured
        found = self._text(median) + ("" if low is None else f" [{self._text(low)}, {self._text(high)}]")
        count = "" if self.by_operations is None else self._text(self.by_operations)
        return [
            self.work,
            self.against,
            f"{sign} {self._text(self.aim)}",
            found,
            count,
            "yes" if self.reached else "no",
        ]

    def _text(self, value: float | None) -> str:
        if value is None:
            return ""
        return f"{value:.2f}x" if self.unit == "x" else f"{value:.2g} %"


HEAD = ("work", "against", "aim", "measured, median [95 % interval]", "by operations", "reached")


def markdown(targets: Iterable[Target]) -> str:
    """The table, then the commands."""
    rows = list(targets)
    lines = [f"| {' | '.join(HEAD)} |", "|---|---|--:|--:|--:|---|"]
    lines += [f"| {' | '.join(row.cells())} |" for row in rows]
    commands = list(dict.fromkeys(row.command for row in rows if row.command))
    return "\n".join(lines) + "\n" + "".join(f"\n`{command}`\n" for command in commands)


def read(path: Path) -> list[Target]:
    """Raises UserError where the file is no JSON of a benchmark with targets."""
    try:
        rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["targets"]
        return [Target(**row) for row in rows]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} has no targets of a benchmark ({error}); write it with the benchmark's --json"
        ) from None


def fill(text: str, table: str, where: object, mark: str = MARK) -> str:
    """The text with the table between its two marks. Raises UserError where they are not there."""
    parts = text.split(mark)
    if len(parts) != 3:
        raise UserError(f"{where} has {len(parts) - 1} of the two lines {mark} that the table goes between")
    return f"{parts[0]}{mark}\n\n{table}\n{mark}{parts[2]}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table, or put it into a document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("json", nargs="+", type=Path, help="what benchmarks wrote with --json")
    parser.add_argument("--docs", type=Path, metavar="FILE", help=f"put the table there, between two {MARK}")
    options = parser.parse_args(arguments)
    try:
        table = markdown(target for path in options.json for target in read(path))
        if options.docs:
            text = fill(options.docs.read_text(encoding="utf-8"), table, options.docs)
            options.docs.write_text(text, encoding="utf-8")
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(table, end="")
    return 0


def to_json(targets: Iterable[Target]) -> list[dict[str, Any]]:
    """For a benchmark's JSON; `read` takes it back."""
    return [asdict(target) for target in targets]


if __name__ == "__main__":
    sys.exit(main())
