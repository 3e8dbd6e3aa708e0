"""The verdict of a page: one to three sentences made of the summary's figures, each with its interval."""

from __future__ import annotations

from atp_eval.analysis import Interval, MethodSummary, Summary
from atp_eval.analysis.efficiency import speedup

NBSP = "\u00a0"


def headline(summary: Summary) -> list[str]:
    """The sentences, without markup."""
    pruned = [m for m in summary.methods if not m.is_reference and m.retention is not None]
    if not pruned:
        return without_retention(summary)
    pruned.sort(key=lambda m: m.retention.value if m.retention else 0.0, reverse=True)
    sentences = [keeps(pruned[0], summary, len(pruned))]
    if len(pruned) > 1:
        sentences.append(against(summary, pruned))
    if pruned[0].timing and pruned[0].timing.ratio:
        sentences.append(pace(pruned[0].label, pruned[0].timing.ratio))
    return sentences


def keeps(best: MethodSummary, summary: Summary, of: int) -> str:
    """What the best method keeps, at how many tokens."""
    benchmarks = sum(1 for s in best.scores.values() if s.retention is not None)
    over = "one benchmark" if benchmarks == 1 else f"{benchmarks} benchmarks"
    which = "" if of == 1 else f", the most of {of} methods"
    return (
        f"With {best.average_tokens:.0f} of {summary.full_tokens:.0f} visual tokens on average, {best.label} keeps "
        f"{percent(best.retention)} of the unpruned model's score over {over}{which}."
    )


def against(summary: Summary, ranked: list[MethodSummary]) -> str:
    """The lead over the next method, whether it is more than chance, and what the last one keeps."""
    best, second, last = ranked[0], ranked[1], ranked[-1]
    lead = difference(summary, best.label, second.label)
    if lead is None or not lead.bounded:
        text = f"{second.label} follows with {percent(second.retention)}"
    elif lead.low > 0:
        text = f"That is {points(lead)} more than {second.label}"
    else:
        text = f"Its lead over {second.label}, {points(lead)}, is within chance"
    return f"{text}." if last is second else f"{text}; {last.label} keeps least, {percent(last.retention)}."


def pace(label: str, ratio: Interval) -> str:
    """The language model's time a question against the unpruned model's."""
    factor = speedup(ratio)
    if factor.bounded and factor.low <= 1 <= factor.high:
        return f"Its time is the unpruned model's within chance: {factor.value:.2f} times as fast{brackets(factor, 2)}."
    return f"Under {label}, the language model answers {factor.value:.2f} times as fast{brackets(factor, 2)}."


def without_retention(summary: Summary) -> list[str]:
    """What can be said without anything to compare."""
    if all(m.is_reference for m in summary.methods):
        return ["Only the unpruned model was run: add pruning methods to compare with it."]
    names = ", ".join(m.label for m in summary.methods if not m.is_reference)
    if any(m.is_reference for m in summary.methods):
        return [f"The unpruned model scored nothing here, so what {names} keep of it cannot be said."]
    return [f"Scores of {names}. The unpruned model was not run, so what pruning costs cannot be said."]


def difference(summary: Summary, first: str, second: str) -> Interval | None:
    """first's average retention minus second's."""
    for c in summary.contrasts:
        if (c.first, c.second) == (first, second):
            return c.difference
        if (c.second, c.first) == (first, second):
            return Interval(-c.difference.value, -c.difference.high, -c.difference.low)
    return None


def percent(interval: Interval | None) -> str:
    """`97.1 % [96.0, 98.2]`"""
    return "–" if interval is None else f"{interval.value:.1f}{NBSP}%{brackets(interval, 1)}"


def points(interval: Interval) -> str:
    """`3.1 points [1.0, 5.2]`"""
    return f"{interval.value:.1f}{NBSP}points{brackets(interval, 1)}"


def brackets(interval: Interval, digits: int) -> str:
    """The bounds, kept on one line with what they belong to; nothing where there are none."""
    return f"{NBSP}[{interval.low:.{digits}f},{NBSP}{interval.high:.{digits}f}]" if interval.bounded else ""
