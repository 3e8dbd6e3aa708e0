"""Questions that one of two runs answers better than the other, to be read."""

from __future__ import annotations

from typing import NamedTuple

import pandas as pd

EACH = 2  # of a method, benchmark and direction: enough to see what kind of question it is


class Flip(NamedTuple):
    """A question that two runs score differently. Scores are in [0, 1]; an answer is the error where there was one."""

    method: str
    benchmark: str
    doc_id: int
    question: str
    target: str
    a: str
    b: str
    score_a: float
    score_b: float

    @property
    def gained(self) -> bool:
        """Whether the second run scores higher."""
        return self.score_b > self.score_a


def flips(method: str, benchmark: str, a: pd.DataFrame, b: pd.DataFrame, each: int = EACH) -> list[Flip]:
    """Up to `each` questions gained and as many lost, spread over the documents; of rows of the same documents with
    doc_id, question, target, response, error and score, sorted by doc_id."""
    found = []
    for better in (b["score"] > a["score"], b["score"] < a["score"]):
        places = better.to_numpy().nonzero()[0]
        step = max(1, len(places) / each)
        for i in [int(places[int(k * step)]) for k in range(min(each, len(places)))]:
            one, two = a.iloc[i], b.iloc[i]
            found.append(
                Flip(
                    *(method, benchmark, int(one["doc_id"]), str(one["question"]), str(one["target"])),
                    *(_said(one), _said(two), float(one["score"]), float(two["score"])),
                )
            )
    return found


def _said(row: pd.Series) -> str:
    """What was answered, or why nothing was."""
    return f"({row['error']})" if pd.notna(row["error"]) else str(row["response"])
