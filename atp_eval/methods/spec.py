"""Spec strings: `name`, `name@budget`, `name:key=value,...`, `name@budget:key=value,...`.

A budget is an average of tokens (`144`), or a target such as `kv=75.6MB` (`atp_eval.cost.target`).

The types come from the fields of the method's dataclass: whole numbers, numbers (also `1/3`), lists of whole numbers
(`1-3-6`), words from a Literal, text (a folder). Nothing else is read from the string.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from atp_eval.cost.target import Target, parse_target
from atp_eval.errors import UserError, unknown

if TYPE_CHECKING:
    from atp_eval.methods.base import Method

M = TypeVar("M", bound="Method")


def split_name(spec: str) -> str:
    """The method's name at the start of a spec string."""
    return spec.partition(":")[0].partition("@")[0].strip()


class ToBeSolved(int):
    """Stands for the average of a method whose budget is a target, until that is known; prints as the target."""

    target: Target

    def __new__(cls, target: Target) -> ToBeSolved:
        found = super().__new__(cls, 1)
        found.target = target
        return found

    def __str__(self) -> str:
        return str(self.target)


def parse_spec(spec: str, cls: type[M]) -> tuple[M, Target | None]:
    """Build `cls` from its spec string; and the target, which the method's `average` then only stands for.

    Raises UserError that names the wrong part.
    """
    head, colon, tail = spec.partition(":")
    values: dict[str, Any] = {}
    target = None
    if "@" in head:
        budget = head.partition("@")[2]
        if "," in budget:
            first, _, rest = budget.partition(",")
            raise UserError(f"{spec!r}: write parameters after a colon: {cls.name}@{first}:{rest}")
        if "=" in budget:
            target = parse_target(budget)
            values["average"] = ToBeSolved(target)
        else:
            values["average"] = _convert(cls.name, "the budget after '@'", budget, int)
    hints = {key: hint for key, hint in typing.get_type_hints(cls).items() if key in parameters(cls)}
    for part in tail.split(",") if colon else ():
        key, equals, text = (piece.strip() for piece in part.partition("="))
        if not equals:
            raise UserError(f"{spec!r}: write parameters as key=value, separated by commas, not {part.strip()!r}")
        if key not in hints:
            if not hints:
                raise UserError(f"{spec!r}: {cls.name} takes no parameters")
            raise unknown(f"parameter of {cls.name}", key, hints)
        if key in values:
            raise UserError(f"{spec!r}: {key} is given twice")
        values[key] = _convert(cls.name, key, text, hints[key])
    return cls(**values), target


def format_spec(method: Method) -> str:
    """The canonical string of a method: parameters in the order of its fields, defaults left out."""
    budget = "" if method.average is None else f"@{method.average}"
    fields = (f for f in dataclasses.fields(method) if f.name in parameters(type(method)))
    parts = [f"{f.name}={_text(value)}" for f in fields if (value := getattr(method, f.name)) != f.default]
    return f"{method.name}{budget}" + (":" + ",".join(parts) if parts else "")


def parameters(cls: type[Method]) -> list[str]:
    """What a method's spec string can set: its fields, without the budget and those that only a solved method has."""
    return [f.name for f in dataclasses.fields(cls) if f.name != "average" and f.repr]


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return "-".join(map(str, value))
    return repr(value) if isinstance(value, float) else str(value)


def _convert(method: str, key: str, text: str, hint: Any) -> Any:
    """`text` as the type `hint`; an optional type is its inner type, since leaving a parameter out means None."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        (hint,) = (arg for arg in typing.get_args(hint) if arg is not type(None))
    text = text.strip()
    if hint is str:
        if not text:
            raise UserError(f"{method}: {key} is empty")
        return text
    if typing.get_origin(hint) is Literal:
        if text not in typing.get_args(hint):
            raise unknown(f"value of {key} for {method}", text, typing.get_args(hint))
        return text
    try:
        if typing.get_origin(hint) is tuple:
            return tuple(_whole(piece) for piece in text.split("-"))
        return float(Fraction(text)) if hint is float else _whole(text)
    except (ValueError, ZeroDivisionError, OverflowError):
        kind = {int: "a whole number", float: "a number"}.get(hint, "whole numbers such as 1-3-6")
        raise UserError(f"{method}: {key} must be {kind}, not {text!r}") from None


def _whole(text: str) -> int:
    """int(), without what it also takes: underscores, and digits of other scripts."""
    if not (text.isascii() and text.lstrip("+-").isdigit()) or len(text) > 9:
        raise ValueError(text)
    return int(text)
