"""Labels of methods over several lines, where a column is narrow."""

from __future__ import annotations

import re

BETWEEN = re.compile(r"(?<=[:,])(?=\w)|(?<=\w)(?=@)")  # parameters; a budget keeps its @
WITHIN = re.compile(r"(?<=[=_])(?=\w)")


def label_lines(label: str, width: int) -> list[str]:
    """`random@144:`, `layer=0`: lines of at most `width` characters, broken between parameters, and within one only
    where it is longer; what has no place to break has a longer line."""
    lines = [""]
    for parameter in BETWEEN.split(label):
        for part in [parameter] if len(parameter) <= width else WITHIN.split(parameter):
            if lines[-1] and len(lines[-1]) + len(part) > width:
                lines.append(part)
            else:
                lines[-1] += part
    return lines
