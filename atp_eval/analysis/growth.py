"""How cost grows: time and memory against image tokens, batch and answer length, fitted by a line and a square term."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from atp_eval.analysis.bench import BenchSummary, Row, flat
from atp_eval.analysis.significance import LEVEL, Interval
from atp_eval.bench.records import Cell

SHARE = 0.1  # of the whole that a square term makes where growth stops being linear
FEWEST = 5  # points of a fit: three terms, and two more to tell how far they are off
DRAWS = 10_000
SEED = 0


class Fit(NamedTuple):
    """y = constant + linear x + quadratic x^2, each with its interval. bend: the x from which on the square term makes
    a tenth of y; infinite where there is none. share: of the square term at the largest x."""

    constant: Interval
    linear: Interval
    quadratic: Interval
    bend: Interval
    share: float

    @property
    def bends(self) -> bool:
        """Whether the square term is above zero beyond chance."""
        return self.quadratic.low > 0

    @property
    def flattens(self) -> bool:
        """Whether it is below zero beyond chance."""
        return self.quadratic.high < 0

    def at(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """The fitted values."""
        return self.constant.value + self.linear.value * x + self.quadratic.value * x * x


class Axis(NamedTuple):
    """What is varied: its name in sentences and tables, and where a cell lies on it."""

    key: str
    title: str
    of: Callable[[Cell], int]


class Quantity(NamedTuple):
    """What is measured: of a row, None where it is not known. seconds: whether it is a time."""

    key: str
    title: str
    of: Callable[[Row], Interval | None]
    seconds: bool = True


@dataclass(frozen=True)
class Curve:
    """A method with a backend along one axis. xs rise; ys belong to them. fit: None of too few points."""

    axis: Axis
    quantity: Quantity
    method: str
    attention: str
    xs: tuple[int, ...]
    ys: tuple[Interval, ...]
    fit: Fit | None


TOKENS = Axis("tokens", "image tokens", lambda cell: cell.tokens)
BATCH = Axis("batch", "batch", lambda cell: cell.batch)
ANSWER = Axis("new", "new tokens", lambda cell: cell.new)


def _seconds(stage: str) -> Callable[[Row], Interval | None]:
    return lambda row: row.seconds[stage]


def _step(row: Row) -> Interval | None:
    """A new token after the first."""
    return row.seconds["decode"].scaled(1 / (row.cell.new - 1)) if row.cell.new > 1 else None


VISION = Quantity("vision", "vision tower", _seconds("vision"))
PREFILL = Quantity("prefill", "prefill", _seconds("prefill"))
STEP = Quantity("step", "a new token", _step)
DECODE = Quantity("decode", "decoding", _seconds("decode"))
MEMORY = Quantity("memory", "memory", lambda row: None if row.peak_bytes is None else Interval(row.peak_bytes), False)
VARIED = (
    (TOKENS, (VISION, PREFILL, STEP, MEMORY)),
    (BATCH, (VISION, PREFILL, STEP, MEMORY)),
    (ANSWER, (DECODE,)),
)


def curves(summary: BenchSummary) -> list[Curve]:
    """Every curve of at least two points, in order. The base that is not varied is the commonest value of each axis."""
    cells = [row.cell for row in summary.rows]
    found = []
    for axis, quantities in VARIED:
        others = [other for other, _ in VARIED if other is not axis]
        base = [_commonest([other.of(cell) for cell in cells]) for other in others]
        along = [r for r in summary.rows if [other.of(r.cell) for other in others] == base]
        for quantity in quantities:
            for method, attention in dict.fromkeys((r.cell.method, r.cell.attention) for r in along):
                points = {
                    axis.of(r.cell): y
                    for r in along
                    if (r.cell.method, r.cell.attention) == (method, attention) and (y := quantity.of(r)) is not None
                }
                if len(points) > 1:
                    xs = tuple(sorted(points))
                    ys = tuple(points[x] for x in xs)
                    fitted = fit(xs, [y.value for y in ys])
                    found.append(Curve(axis, quantity, method, attention, xs, ys, fitted))
    return found


def _commonest(values: Sequence[int]) -> int:
    return max(dict.fromkeys(values), key=values.count) if values else 0


def operations(summary: BenchSummary, method: str) -> Fit | None:
    """The fit of a method's counted operations a question against image tokens: what its time would follow if every
    operation took equally long."""
    rows = [r for r in summary.rows if r.cell.method == method]
    attention = rows[0].cell.attention if rows else ""
    base = (_commonest([r.cell.batch for r in rows]), _commonest([r.cell.new for r in rows]))
    points = {
        r.cell.tokens: r.flops for r in rows if (r.cell.batch, r.cell.new, r.cell.attention) == (*base, attention)
    }
    return fit(sorted(points), [points[x] for x in sorted(points)])


def fit(xs: Sequence[float], ys: Sequence[float]) -> Fit | None:
    """Weighted least squares, weights 1 / y^2: errors are alike in per cent. Intervals are Student's, so they hold what
    points are off the curve as well as noise; that of the bend is of draws from the terms' joint distribution.

    None of fewer than `FEWEST` points, or where a y is not above 0.
    """
    if len(xs) < FEWEST or min(ys) <= 0:
        return None
    scale, top = float(max(xs)), float(max(ys))
    x, y = np.array(xs) / scale, np.array(ys) / top  # of one size, or squares of thousands leave few digits
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import statsmodels.api as sm  # a second, and most pages have no growth

        model = sm.WLS(y, np.column_stack([np.ones_like(x), x, x * x]), weights=1 / y**2).fit()
    bounds = model.conf_int(1 - LEVEL)
    constant, linear, quadratic = (
        Interval(float(value), float(low), float(high)).scaled(top / scale**power)
        for power, (value, (low, high)) in enumerate(zip(model.params, bounds, strict=True))
    )
    drawn = stats.multivariate_t(model.params, model.cov_params(), df=model.df_resid, allow_singular=True)
    draws = np.sort(bend(drawn.rvs(DRAWS, random_state=SEED)))
    edges = [draws[round(q * (DRAWS - 1))] for q in (0.5 - LEVEL / 2, 0.5 + LEVEL / 2)]
    at = float(bend(model.params[None])[0])
    return Fit(
        constant,
        linear,
        quadratic,
        Interval(at * scale, float(edges[0]) * scale, float(edges[1]) * scale),
        float(model.params[2] / model.params.sum()),
    )


def bend(terms: NDArray[np.float64]) -> NDArray[np.float64]:
    """[n, 3] terms -> [n]: the smallest x >= 0 from which on the square term makes `SHARE` of the whole; infinite for
    one that is not above 0."""
    a, b, c = terms.T
    with np.errstate(divide="ignore", invalid="ignore"):
        # (1 - s) c x^2 - s b x - s a = 0; where no x solves it, the square term makes more than that everywhere
        inside = (SHARE * b) ** 2 + 4 * (1 - SHARE) * c * SHARE * a
        found = (SHARE * b + np.sqrt(np.maximum(inside, 0))) / (2 * (1 - SHARE) * c)
    return np.where(c > 0, np.where(inside < 0, 0, np.maximum(found, 0)), math.inf)


def growth_frame(found: Sequence[Curve]) -> pd.DataFrame:
    """One row a curve with its fit, for CSV."""
    rows = []
    for curve in found:
        row: dict[str, object] = {
            "axis": curve.axis.key,
            "quantity": curve.quantity.key,
            "method": curve.method,
            "attention": curve.attention,
            "points": len(curve.xs),
        }
        for name in ("constant", "linear", "quadratic", "bend"):
            row |= flat(name, getattr(curve.fit, name) if curve.fit else None)
        rows.append(row | {"square_share_at_largest": curve.fit.share if curve.fit else math.nan})
    return pd.DataFrame(rows)


def points_frame(found: Sequence[Curve]) -> pd.DataFrame:
    """One row a point, with the fitted value beside it."""
    rows = []
    for curve in found:
        fitted = curve.fit.at(np.array(curve.xs, dtype=float)) if curve.fit else [math.nan] * len(curve.xs)
        for x, y, value in zip(curve.xs, curve.ys, fitted, strict=True):
            rows.append(
                {
                    **{"axis": curve.axis.key, "quantity": curve.quantity.key, "method": curve.method},
                    **{"attention": curve.attention, "x": x, **flat("y", y), "fitted": float(value)},
                }
            )
    return pd.DataFrame(rows)
