"""Budgets of bytes, FLOPs or time for every method that takes an average: `fastv@kv=75.6MB`, `fastv@flops=30%`."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

from atp_eval.cost import Geometry, tokens_per_layer
from atp_eval.cost.target import Meter, Target
from atp_eval.errors import UserError
from atp_eval.methods.base import Method
from atp_eval.methods.decision import Decision
from atp_eval.methods.point import Point
from atp_eval.methods.spec import ToBeSolved


@dataclass(frozen=True, kw_only=True)
class Aimed(Method):
    """A method with a target in the place of its average. Solving it finds the largest whole average whose tokens cost
    no more than the target, and gives the method solved for that.

    Where a method's counts depend on the data, its average in every layer stands for them: measured, not exact.
    """

    name: ClassVar[str] = "aimed"
    method: Method
    target: Target

    @property
    def prune_layers(self) -> tuple[int, ...]:
        raise AssertionError("solve() first")

    def decide(self, point: Point) -> Decision:
        raise AssertionError("solve() first")

    def __str__(self) -> str:
        return str(self.method)

    def solve(self, geometry: Geometry) -> Method:
        return replace(self.method, average=self.average_for(geometry)).solve(geometry)._named(self.label)

    def average_for(self, geometry: Geometry) -> int:
        """The largest whole average that the target allows.

        Raises UserError with the nearest target that can be met, and for one above what the full image costs.
        """
        meter = self.target.meter(geometry)
        full = meter([geometry.cells] * geometry.num_layers, False)
        limit = self.target.limit(full)
        if limit > full:
            most = self.target.allowing(full, full)
            raise UserError(f"{self.label}: without pruning it is only {most}; ask for {self.target.kind}=100% or less")
        costs = _Costs(self.method, geometry, meter)
        averages = range(1, geometry.cells + 1)
        start = max((a for a in averages if meter([a] * geometry.num_layers, False) <= limit), default=1)
        found = next((a for a in range(start, 0, -1) if costs(a) <= limit), None)
        for average in range(start + 1, geometry.cells + 1):  # rounding may leave room for a little more
            if costs(average) <= limit:
                found = average
            elif costs(average) < math.inf:
                break
        if found is not None:
            return found
        least = next((costs(a) for a in averages if costs(a) < math.inf), None)
        if least is None:
            raise UserError(f"{self.label}: {costs.refusal}")
        nearest = replace(self.method, average=ToBeSolved(self.target.allowing(least, full)))
        raise UserError(f"{self.label} is out of reach on this model. The nearest is {nearest.label}")


class _Costs:
    """What a method costs by its average; infinitely much where it cannot be solved for that, `refusal` says why."""

    def __init__(self, method: Method, geometry: Geometry, meter: Meter) -> None:
        self.refusal = ""
        self._method, self._geometry, self._meter = method, geometry, meter
        self._known: dict[int, float] = {}

    def __call__(self, average: int) -> float:
        if average not in self._known:
            self._known[average] = self._cost(average)
        return self._known[average]

    def _cost(self, average: int) -> float:
        try:
            method = replace(self._method, average=average).solve(self._geometry)
        except UserError as error:
            self.refusal = str(error)
            return math.inf
        counts = method.counts()
        if counts is None:
            return self._meter([average] * self._geometry.num_layers, method.early)
        return self._meter(tokens_per_layer(self._geometry, method.prune_layers, counts), method.early)
