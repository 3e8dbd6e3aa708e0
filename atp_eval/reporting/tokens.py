"""The page's section on tokens: over layers and questions, by benchmark and category, and where in the picture they
survive."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from atp_eval.analysis import Summary
from atp_eval.analysis.histograms import Average, TokenUse
from atp_eval.plotting import (
    COLUMN,
    DIVERGING,
    PAGE,
    Chart,
    Margins,
    Panel,
    Panels,
    colour,
    plot_area,
)
from atp_eval.reporting.adaptive import listed
from atp_eval.reporting.figures import band, by_layer, layers_chart, steps
from atp_eval.reporting.keepmaps import map_panels, scale_chart
from atp_eval.reporting.labels import LETTER, SIZE, mark, short

DARK, LIGHT = "#000001", "#fffffe"  # of text on colours: no role, since those colours are the same in both themes
ROWS = 40  # groups of questions that one figure has room for
Series = Callable[[str], int]


@dataclass(frozen=True)
class Group:
    """Questions of a benchmark, or of one of its categories, and what each method that adapts spends on them."""

    benchmark: str
    category: str
    questions: int
    values: tuple[Average | None, ...]


@dataclass(frozen=True)
class TokenParts:
    """Of the page's section; None or empty is what would say nothing.

    layers: tokens by layer. questions: their spread over questions. points: their spread at every layer, a panel a
    method whose counts vary. groups: figure by benchmark and category; limit: per cent from the mean of its darkest
    cells; table: the same in numbers, of `methods`. scale, maps: where cells stay, a panel a method and prune point.
    """

    words: tuple[str, ...]
    layers: Chart | None
    questions: Chart | None
    points: Panels | None
    groups: Chart | None
    limit: float
    methods: tuple[TokenUse, ...]
    table: tuple[Group, ...]
    scale: Chart | None
    maps: Panels | None


def token_parts(summary: Summary, series: Series) -> TokenParts | None:
    """None where no method's tokens are known."""
    used = summary.token_use
    if not used:
        return None
    varying = tuple(use for use in used if use.varies)
    table = tuple(groups(varying))
    maps = [m for m in (summary.agreement.maps if summary.agreement else ()) if m.rates.any()]
    return TokenParts(
        words=tuple(words(varying)),
        layers=layers_chart(summary, series),
        questions=questions_chart(used, series) if varying else None,
        points=points_panels(varying, summary, series),
        groups=groups_chart(varying, table),
        limit=limit(varying, table),
        methods=varying,
        table=table,
        scale=scale_chart(maps) if maps else None,
        maps=map_panels(maps),
    )


def words(varying: Sequence[TokenUse]) -> list[str]:
    """How far a question's tokens differ, and between which benchmarks."""
    said = []
    for use in varying[:3]:
        low, high = use.question.middle
        text = (
            f"{use.label} spends {use.question.mean:.0f} tokens on the average question, and {low:.0f} to {high:.0f} "
            "on nine questions in ten"
        )
        means = {a.benchmark: a.tokens for a in use.averages if not a.category}
        if len(means) > 1:
            least, most = min(means, key=means.__getitem__), max(means, key=means.__getitem__)
            text += f"; most on {most} ({means[most]:.0f}), fewest on {least} ({means[least]:.0f})"
        said.append(f"{text}.")
    if len(varying) > 3:
        said.append(f"Counts vary also under {listed([use.label for use in varying[3:]], 'and')}.")
    return said


# ------------------------------------------------------------------ over questions and layers


def questions_chart(used: Sequence[TokenUse], series: Series) -> Chart:
    """A line a method: the histogram of a question's average tokens, or a mark where all questions have as many."""
    shown = [use for use in used if not use.is_reference] or list(used)
    margins = Margins(left=0.2 + LETTER * max(len(short(use.label)) for use in shown) / 72, bottom=0.5)
    rows = [
        {"method": use.label, "from": low, "to": high, "share": share, "mean": use.question.mean}
        for use in shown
        for low, high, share in zip(use.question.edges, use.question.edges[1:], use.question.shares, strict=False)
    ]
    told = "; ".join(
        f"{u.label}: {u.question.mean:.0f}"
        + (f", nine in ten within {u.question.middle[0]:.0f} to {u.question.middle[1]:.0f}" if u.varies else "")
        for u in shown
    )

    def draw(figure: Figure) -> None:
        axes = plot_area(figure, margins)
        axes.set_ylim(len(shown) - 0.4, -0.9)
        ends = [use.question.deciles[place] for use in shown for place in (0, -1)]
        margin = 0.06 * (max(ends) - min(ends)) + 1
        axes.set_xlim(min(ends) - margin, max(ends) + margin)
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.set_yticks(range(len(shown)), [short(use.label) for use in shown], fontsize=SIZE, color="#1d1f22")
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("visual tokens a question")
        for y, use in enumerate(shown):
            number = series(use.label)
            if use.question.varies:
                heights = np.array(use.question.shares) / max(use.question.shares) * 0.78
                edges = np.repeat(use.question.edges, 2)[1:-1]
                tops = y + 0.3 - np.repeat(heights, 2)
                axes.fill_between(edges, tops, y + 0.3, color=colour(number), alpha=0.35, linewidth=0)
                axes.plot(edges, tops, color=colour(number), linewidth=1.1)
            mark(axes, use.question.mean, y + 0.3 if use.question.varies else y, number, 5.5)

    height = 0.3 * len(shown) + margins.top + margins.bottom + 0.15
    alt = f"Visual tokens over questions. {told}."
    return Chart("tokens-by-question", alt, pd.DataFrame(rows), draw, (COLUMN, max(1.6, height)))


def points_panels(varying: Sequence[TokenUse], summary: Summary, series: Series) -> Panels | None:
    """A panel a method: deciles of the tokens that enter each layer, as a fan, and their mean."""
    if not varying:
        return None
    depth = {m.label: len(m.tokens.mean) for m in summary.methods if m.tokens}
    most = max(point.deciles[-1] for use in varying for point in use.points)

    def draw(axes: Axes, use: TokenUse) -> None:
        number = series(use.label)
        by_layer(axes, depth[use.label])
        axes.set_ylim(0, 1.04 * most)
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.set_ylabel("tokens")
        starts = [*use.layers, depth[use.label]]
        for place in range(5):  # least to most, then ever nearer to the middle
            low, high = ([p.deciles[d] for p in use.points] for d in (place, 10 - place))
            band(axes, low, high, colour(number), starts, alpha=0.14)
        steps(axes, [p.mean for p in use.points], starts, color=colour(number), linewidth=2)

    def table(use: TokenUse) -> pd.DataFrame:
        rows = [
            {"method": use.label, "first_layer": layer, "mean": p.mean}
            | {f"q{10 * i:02d}": d for i, d in enumerate(p.deciles)}
            for layer, p in zip(use.layers, use.points, strict=True)
        ]
        return pd.DataFrame(rows)

    def told(use: TokenUse) -> str:
        parts = [
            f"from layer {layer}: {p.mean:.0f} on average, {p.middle[0]:.0f} to {p.middle[1]:.0f} for nine in ten"
            for layer, p in zip(use.layers, use.points, strict=True)
        ]
        return "tokens over questions. " + "; ".join(parts) + "."

    panels = tuple(Panel(u.label, told(u), table(u), lambda axes, u=u: draw(axes, u)) for u in varying)  # type: ignore[misc]
    alt = "Deciles over questions of the visual tokens that enter each layer."
    return Panels("tokens-by-point", alt, panels, (2.9, 2.1), Margins(0.58, 0.08, 0.48, 0.08))


# ------------------------------------------------------------------ by benchmark and category


def groups(varying: Sequence[TokenUse]) -> list[Group]:
    """Benchmarks with their categories, in the order of the summary."""
    found: dict[tuple[str, str], list[Average | None]] = {}
    for place, use in enumerate(varying):
        for a in use.averages:
            found.setdefault((a.benchmark, a.category), [None] * len(varying))[place] = a
    names = list(dict.fromkeys(benchmark for benchmark, _ in found))
    ordered = sorted(found, key=lambda key: (names.index(key[0]), key[1]))
    return [Group(*key, max(a.questions for a in found[key] if a), tuple(found[key])) for key in ordered]


def limit(varying: Sequence[TokenUse], table: Sequence[Group]) -> float:
    """Per cent of the method's average question that the darkest cells are away from it; at least 1."""
    means = [use.question.mean for use in varying]
    off = [abs(a.tokens / mean - 1) for g in table for a, mean in zip(g.values, means, strict=True) if a]
    return max(1.0, 100 * max(off, default=0.0))


def groups_chart(varying: Sequence[TokenUse], table: Sequence[Group]) -> Chart | None:
    """A heat map: tokens of groups of questions, coloured by how far they are from the method's average question."""
    shown = list(table) if len(table) <= ROWS else [g for g in table if not g.category]
    if not varying or len(shown) < 2:
        return None
    tokens = np.array([[a.tokens if a else math.nan for a in g.values] for g in shown])
    off, most = 100 * (tokens / [use.question.mean for use in varying] - 1), limit(varying, shown)
    names = [short(f"{g.benchmark}, {g.category}" if g.category else g.benchmark, 34) for g in shown]
    margins = Margins(left=0.2 + LETTER * max(map(len, names)) / 72, bottom=0.1, top=0.36)

    def draw(figure: Figure) -> None:
        axes = plot_area(figure, margins)
        mesh = axes.pcolormesh(off, cmap=DIVERGING, vmin=-most, vmax=most, edgecolors="none")
        axes.set_ylim(len(shown), 0)
        axes.grid(visible=False)
        axes.xaxis.tick_top()
        axes.set_xticks(np.arange(len(varying)) + 0.5, [short(use.label, 16) for use in varying], fontsize=SIZE)
        axes.set_yticks(np.arange(len(shown)) + 0.5, names, fontsize=SIZE)
        for tick, group in zip(axes.get_yticklabels(), shown, strict=True):
            tick.set(color="#595f66" if group.category else "#1d1f22", weight="normal" if group.category else "bold")
        for spine in axes.spines.values():
            spine.set_visible(False)
        faces = mesh.to_rgba(off)
        for (y, x), value in np.ndenumerate(tokens):
            if math.isfinite(value):
                bright = faces[y, x, :3] @ [0.2126, 0.7152, 0.0722]
                ink = DARK if bright > 0.45 else LIGHT
                axes.text(x + 0.5, y + 0.5, f"{value:.0f}", ha="center", va="center_baseline", fontsize=8, color=ink)

    frame = pd.DataFrame(
        {
            **{"benchmark": g.benchmark, "category": g.category, "method": use.label},
            **{"questions": a.questions, "tokens": a.tokens},
        }
        for g in shown
        for use, a in zip(varying, g.values, strict=True)
        if a
    )
    told = "; ".join(
        f"{use.label}: {np.nanmin(column):.0f} to {np.nanmax(column):.0f}"
        for use, column in zip(varying, tokens.T, strict=True)
    )
    width = min(PAGE, margins.left + margins.right + max(0.62, 0.1 * LETTER) * max(2, 1.7 * len(varying)))
    size = (max(COLUMN * 0.8, width), margins.top + margins.bottom + 0.2 * len(shown))
    alt = f"Mean visual tokens by benchmark and category. {told}."
    return Chart("tokens-by-benchmark", alt, frame, draw, size)
