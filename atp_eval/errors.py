"""Errors that a user can fix, and the suggestions that go with them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """One clear line that names the value and the fix; commands print it without a traceback and exit with 2."""


class TaskFailure(Exception):
    """Work that was asked for and could not be done; commands print it and exit with 1. What was computed stays."""


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """The end of an error about an unknown name: the closest choices, or all of them when none is close."""
    choices = list(choices)
    same = [choice for choice in choices if choice.lower() == name.lower()]
    close = same or difflib.get_close_matches(name, choices, n=3, cutoff=0.5)
    return f"Did you mean: {', '.join(close)}?" if close else f"Choose from: {', '.join(choices)}."


def unknown(what: str, name: str, choices: Iterable[str]) -> UserError:
    """The error for a name that is in no registry: `unknown method 'fastvv'. Did you mean: fastv?`"""
    return UserError(f"unknown {what} {name!r}. {did_you_mean(name, choices)}")
