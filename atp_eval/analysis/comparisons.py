"""Tests of one method against another, adjusted for how many there are (Holm 1979) within a column of a table.

Two families a column, each with a level of its own: every method against the upper bound, and every two methods of
equal budgets against each other. What is not in a family has no adjusted p.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import numpy as np

from atp_eval.analysis.estimate import Estimate
from atp_eval.analysis.mcnemar import mcnemar
from atp_eval.analysis.retention import Retained

LEVEL = 0.05
Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Tested:
    """A two-sided test of first against second.

    kind: McNemar's with pictures exchanged, of answers that are right or wrong; else the bootstrap's, of the retention.
    p_holm: adjusted for `comparisons`, the size of its family; None outside of any. gained, lost: questions that only
    the first, only the second has right, and p_questions as if no two shared a picture; None but for McNemar's.
    """

    kind: Literal["McNemar", "bootstrap"]
    p: float
    p_holm: float | None = None
    comparisons: int | None = None
    gained: int | None = None
    lost: int | None = None
    p_questions: float | None = None

    @property
    def significant(self) -> bool:
        """Whether the adjusted p is at most 5 %; never where there is none."""
        return self.p_holm is not None and self.p_holm <= LEVEL


def of_scores(first: Retained, second: Retained, difference: Estimate, null: float) -> Tested:
    """Of two methods on a benchmark. difference: the estimate that is `null` when both are equally good."""
    if first.answers is None or second.answers is None:
        return of_estimate(difference, null)
    found = mcnemar(first.answers, second.answers)
    return Tested("McNemar", found.p, gained=found.gained, lost=found.lost, p_questions=found.p_questions)


def of_estimate(difference: Estimate, null: float) -> Tested:
    """Of an average over benchmarks, or of scores that are not right or wrong."""
    return Tested("bootstrap", difference.p_value(null))


def holm(family: Mapping[Key, Tested]) -> dict[Key, Tested]:
    """The same tests with p_holm; one without a p stays out of the family."""
    known = {key: test for key, test in family.items() if np.isfinite(test.p)}
    if not known:
        return dict(family)
    adjusted, largest = {}, 0.0  # statsmodels' multipletests would collect the garbage of the whole process each time
    for rank, (key, test) in enumerate(sorted(known.items(), key=lambda item: item[1].p)):
        largest = max(largest, min(1.0, test.p * (len(known) - rank)))
        adjusted[key] = largest
    found = {key: replace(known[key], p_holm=p, comparisons=len(known)) for key, p in adjusted.items()}
    return {key: found.get(key, test) for key, test in family.items()}
