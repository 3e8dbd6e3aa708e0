"""The verdict of a page: one to three sentences made of the summary's figures, with intervals; what may be chance is
called so."""

from __future__ import annotations

from collections.abc import Sequence

from atp_eval.analysis import Interval, MethodSummary, Summary
from atp_eval.analysis.efficiency import speedup
from atp_eval.analysis.standing import difference, is_above

NBSP = "\u00a0"
HOLM = f"Holm-adjusted p{NBSP}≤{NBSP}0.05"


def headline(summary: Summary) -> list[str]:
    """The sentences, without markup."""
    pruned = [m for m in summary.methods if not m.is_reference and m.retention is not None]
    pruned = [m for m in pruned if not m.knows_truth] or pruned
    if not pruned:
        return without_retention(summary)
    best = max(pruned, key=lambda m: m.retention.value if m.retention else 0.0)
    sentences = [keeps(best, summary)]
    if len(pruned) > 1:
        sentences.append(against(summary, best, peers_of(summary, best, pruned)))
    if best.timing and best.timing.ratio:
        sentences.append(pace(best.label, best.timing.ratio))
        if any(e.shared for e in summary.efficiency):
            sentences.append("Questions about one picture read it once together here, so not pruning is cheap as well.")
    return sentences


def peers_of(summary: Summary, best: MethodSummary, pruned: Sequence[MethodSummary]) -> list[MethodSummary]:
    """The other methods of its budget, the one that keeps most first."""
    group = next((labels for labels in summary.fairness.groups if best.label in labels), ())
    others = [m for m in pruned if m.label in group and m.label != best.label]
    return sorted(others, key=lambda m: m.retention.value if m.retention else 0.0, reverse=True)


def keeps(best: MethodSummary, summary: Summary) -> str:
    """What the best method keeps, at how many tokens, and whether it loses anything for sure."""
    benchmarks = sum(1 for s in best.scores.values() if s.retention is not None)
    over = "one benchmark" if benchmarks == 1 else f"{benchmarks} benchmarks"
    tail = "; the difference from it may be chance" if best.test and not best.test.significant else ""
    return (
        f"With {best.average_tokens:.0f} of {summary.full_tokens:.0f} visual tokens on average, {best.label} keeps "
        f"{percent(best.retention)} of the unpruned model's score over {over}{tail}."
    )


def against(summary: Summary, best: MethodSummary, peers: Sequence[MethodSummary]) -> str:
    """Which methods of its budget it is ahead of by more than chance (comparisons.Tested), and which it may not be."""
    if not peers:
        return "No other method has the same budget, so none is compared with it."
    ahead = [m for m in peers if is_above(summary, best.label, m.label)]
    level = [m for m in peers if m not in ahead]
    if not level and len(peers) == 1:
        return f"That is {lead(summary, best, peers[0])} more than {peers[0].label}{adjusted(summary, best, peers[0])}."
    if not level:
        return (
            f"That is more than any of the other {len(peers)} methods of its budget keeps ({HOLM}): "
            f"{lead(summary, best, peers[0])} more than {peers[0].label}, the next."
        )
    first = f"Its lead over {level[0].label}, {lead(summary, best, level[0])}, {doubt(summary, best, level[0])}"
    if len(level) > 1:
        rest = f"{level[1].label}" if len(level) == 2 else f"{len(level) - 1} others"
        first += f", as is that over {rest}"
    if ahead:
        which = f"the other {len(ahead)} methods" if len(ahead) > 1 else ahead[0].label
        return f"{first}; it keeps more than {which} of its budget ({HOLM})."
    return f"{first}."


def doubt(summary: Summary, best: MethodSummary, other: MethodSummary) -> str:
    """Why a lead is not claimed; where its own interval excludes 0, that this is one of many comparisons."""
    found = difference(summary, best.label, other.label)
    if found is None or found[1] is None or found[1].p_holm is None or not found[0].low > 0:
        return "is within chance"
    return f"may be chance among {found[1].comparisons} comparisons{adjusted(summary, best, other)}"


def lead(summary: Summary, best: MethodSummary, other: MethodSummary) -> str:
    """By how many points one keeps more than another, with the interval where it is known."""
    found = difference(summary, best.label, other.label)
    return points(found[0]) if found else "of unknown size"


def adjusted(summary: Summary, best: MethodSummary, other: MethodSummary) -> str:
    """` (Holm-adjusted p = 0.004)`, or nothing."""
    found = difference(summary, best.label, other.label)
    p = found[1].p_holm if found and found[1] else None
    return "" if p is None else f" (Holm-adjusted p{NBSP}{f'={NBSP}{p:.3f}' if p >= 0.001 else f'<{NBSP}0.001'})"


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


def percent(interval: Interval | None) -> str:
    """`97.1 % [96.0, 98.2]`"""
    return "–" if interval is None else f"{interval.value:.1f}{NBSP}%{brackets(interval, 1)}"


def points(interval: Interval) -> str:
    """`3.1 points [1.0, 5.2]`"""
    return f"{interval.value:.1f}".replace("-", "\u2212") + f"{NBSP}points{brackets(interval, 1)}"


def brackets(interval: Interval, digits: int) -> str:
    """The bounds, kept on one line with what they belong to; nothing where there are none."""
    if not interval.bounded:
        return ""
    return f"{NBSP}[{interval.low:.{digits}f},{NBSP}{interval.high:.{digits}f}]".replace("-", "\u2212")
