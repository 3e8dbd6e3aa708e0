"""Who is best, said only where it is more than chance: among methods of equal budgets, against every other of them."""

from __future__ import annotations

from atp_eval.analysis.comparisons import Tested
from atp_eval.analysis.significance import Interval
from atp_eval.analysis.summary import Summary

AVERAGE = None  # stands for the average over benchmarks where others have a benchmark's name


def significantly_best(summary: Summary) -> dict[str | None, frozenset[str]]:
    """Labels by benchmark (AVERAGE: of the average retention), at most one a budget.

    Each has more than every other method of its budget (`Summary.fairness.groups`), Holm-adjusted p at most 0.05.
    Controls that know the truth do not take part.
    """
    controls = {m.label for m in summary.methods if m.knows_truth}
    groups = [[label for label in group if label not in controls] for group in summary.fairness.groups]
    return {
        name: frozenset(
            label
            for group in groups
            for label in group
            if len(group) > 1 and all(is_above(summary, label, other, name) for other in group if other != label)
        )
        for name in (AVERAGE, *(b.name for b in summary.benchmarks))
    }


def is_above(summary: Summary, first: str, second: str, benchmark: str | None = AVERAGE) -> bool:
    """Whether first has more than second beyond chance; never where nothing was tested."""
    found = difference(summary, first, second, benchmark)
    return found is not None and found[0].value > 0 and found[1] is not None and found[1].significant


def difference(
    summary: Summary, first: str, second: str, benchmark: str | None = AVERAGE
) -> tuple[Interval, Tested | None] | None:
    """first's retention minus second's, in points, and its test; None where nothing is known."""
    for turned in (False, True):
        contrast = summary.contrast(*((second, first) if turned else (first, second)))
        found = contrast if contrast is None or benchmark is AVERAGE else contrast.scores.get(benchmark)
        if found is not None:
            value, low, high = found.difference
            return (Interval(-value, -high, -low) if turned else found.difference), found.test
    return None
