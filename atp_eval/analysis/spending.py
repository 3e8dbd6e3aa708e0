"""What each method keeps of the score and what it spends, by every count there is, for figures of both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from atp_eval.analysis.significance import Interval

if TYPE_CHECKING:
    from atp_eval.analysis.summary import Summary


@dataclass(frozen=True)
class Spent:
    """A method's average retention in per cent, and its cost a question.

    tokens: visual, average over layer inputs. kv_bytes: of these, bf16. flops, flops_share: exact, of the LLM's
    prefill, and of the unpruned one's, in [0, 1]. seconds: of the LLM, and its ratio to the upper bound's; None where
    unknown.
    """

    label: str
    is_reference: bool
    retention: Interval | None
    tokens: float
    kv_bytes: float | None
    flops: float | None
    flops_share: float | None
    seconds: Interval | None
    ratio: Interval | None


def spending(summary: Summary) -> tuple[Spent, ...]:
    """Of every method whose tokens are known, in the order of the summary."""
    times = {found.label: found.llm for found in summary.efficiency}
    found = []
    for method in summary.methods:
        cost, time = summary.fairness.row(method.label), times.get(method.label)
        if cost is not None:
            found.append(
                Spent(
                    label=method.label,
                    is_reference=method.is_reference,
                    retention=method.retention,
                    tokens=cost.tokens.input,
                    kv_bytes=cost.kv_bytes,
                    flops=cost.flops,
                    flops_share=cost.flops_share,
                    seconds=time.seconds if time else None,
                    ratio=time.ratio if time else None,
                )
            )
    return tuple(found)


def on_front(costs: Sequence[float], scores: Sequence[float]) -> list[bool]:
    """The Pareto front: whether nothing costs as little or less and scores as much or more, one of them strictly.

    Of equal points all are on it.
    """
    points = list(zip(costs, scores, strict=True))
    return [not any(c <= cost and s >= score and (c, s) != (cost, score) for c, s in points) for cost, score in points]
