"""The gallery: what its viewer needs as data, and a few samples that can be read without it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from markupsafe import Markup

from atp_eval.analysis.overlays import SHOWN, Answer, Sample, cell_runs, interesting_samples, spread
from atp_eval.analysis.reading import Entry, benchmarks_of, entries, reference_of
from atp_eval.records import Run
from atp_eval.reporting.pictures import Pictures
from atp_eval.reporting.svg import LONGEST, clean
from atp_eval.trace import KeepTrace, Stage, pack

STYLES, SCRIPTS = ("gallery.css",), ("gallery_state.js", "gallery_tile.js", "gallery.js")
READABLE = 3  # samples that are there without scripts
SIDE_BY_SIDE = 8  # methods shown at first
TEXTS = 3_000_000  # bytes of JSON that all texts together may take; each is cut where they would be more
OPTION = re.compile(r"^\s*\(?[A-J][.):]\s*\S")


@dataclass(frozen=True)
class Veil:
    """From `layer` on, `tokens` enter each layer (`merged` of them made of several cells); `path` covers the others."""

    layer: int
    tokens: int
    merged: int
    path: Markup


@dataclass(frozen=True)
class Tile:
    """A method's answer. verdict: right, wrong, partly right, no answer or failed. veil: as the last layer is entered.

    change: "gained" or "lost" against the upper bound, or nothing.
    """

    label: str
    series: int
    said: str
    verdict: str
    symbol: str
    change: str
    picture: str | None
    rows: int
    columns: int
    veil: Veil | None

    @property
    def full(self) -> int:
        """Cells of the grid."""
        return self.rows * self.columns

    @property
    def alt(self) -> str:
        """The tile's picture in words."""
        if self.veil is None:
            return f"{self.label}: all {self.full} visual tokens stay."
        return f"{self.label}: {self.veil.tokens} of {self.full} visual tokens enter the last layer."


@dataclass(frozen=True)
class Card:
    """A sample that is readable without scripts. options: the lines of a choice, as the model saw them."""

    sample: Sample
    options: tuple[str, ...]
    tiles: tuple[Tile, ...]


@dataclass(frozen=True)
class Method:
    """A method of the gallery; series: of its colour and mark. shown: whether its answers are shown at first."""

    label: str
    series: int
    shown: bool


@dataclass(frozen=True)
class GalleryParts:
    """What `gallery.html.j2` shows. data: for the viewer, JSON-ready. static: what is there without it.

    pictured: how many of the samples have a picture. at_random: how many were drawn at random; differing: how many of
    the others are there because scores differ on them.
    """

    data: dict[str, Any]
    static: tuple[Card, ...]
    methods: tuple[Method, ...]
    benchmarks: tuple[str, ...]
    categories: tuple[str, ...]
    levels: tuple[str, ...]
    layers: int
    samples: int
    pictured: int
    at_random: int
    differing: int

    @property
    def written(self) -> tuple[str, ...]:
        """Names of the pictures that stand in the page for `static`, and need not stand there again."""
        return tuple(dict.fromkeys(t.picture for card in self.static for t in card.tiles if t.picture))

    def others(self, addresses: dict[str, Markup]) -> dict[str, Markup]:
        """Of `Pictures.addresses`, those that the viewer needs and that are not in `written`."""
        wanted = {a["picture"] for s in self.data["samples"] for a in s["answers"] if a and a["picture"]}
        return {name: addresses[name] for name in sorted(wanted.difference(self.written))}


def gallery_parts(
    runs: Sequence[Run],
    series: Callable[[str], int],
    pictures: Pictures,
    count: int = SHOWN,
    benchmarks: Sequence[str] | None = None,
) -> GalleryParts:
    """`count` samples of finished runs. series: of a label of `entries(runs)`; pictures: where theirs are added.

    Raises UserError where nothing is finished, or a benchmark is unknown.
    """
    among = entries(runs)
    samples = interesting_samples(runs, count, benchmarks)
    methods = tuple(Method(e.label, series(e.label), i < SIDE_BY_SIDE) for i, e in enumerate(among))
    traces = [a.trace for s in samples for a in s.answers if a.trace]
    shown = {s.benchmark for s in samples}
    return GalleryParts(
        data=viewer_data(samples, among, methods, pictures),
        static=tuple(card(s, among, series, pictures) for s in spread(samples, READABLE)),
        methods=methods,
        benchmarks=tuple(name for name in benchmarks_of(among) if name in shown),
        categories=distinct_texts(s.category for s in samples),
        levels=distinct_texts(s.level for s in samples),
        layers=max((t.num_layers for t in traces), default=0),
        samples=len(samples),
        pictured=sum(s.image is not None for s in samples),
        at_random=sum(s.at_random for s in samples),
        differing=sum(s.differs and not s.at_random for s in samples),
    )


def distinct_texts(texts: Iterable[str | None]) -> tuple[str, ...]:
    """Each once, in order."""
    return tuple(sorted({clean(text) for text in texts if text}))


# ------------------------------------------------------------------ the viewer's data


def viewer_data(
    samples: Sequence[Sample], among: Sequence[Entry], methods: Sequence[Method], pictures: Pictures
) -> dict[str, Any]:
    """Everything that `gallery.js` draws; keep masks as `trace.pack` writes them, each once, by their number."""
    references = {e.label: reference_of(e, among) for e in among}
    places = {m.label: i for i, m in enumerate(methods)}
    masks: dict[str, int] = {}
    fit = fitting([text for s in samples for text in (s.question, s.target, *options(s), *map(said, s.answers))])

    def answer(a: Answer) -> dict[str, Any]:
        verdict, symbol = judged(a)
        trace = a.trace if a.trace and a.trace.grid[1] else None
        stages = (
            [[s.layer, s.merged, masks.setdefault(pack(s.keep), len(masks))] for s in trace.stages] if trace else []
        )
        return {
            **{"said": fit(said(a)), "verdict": verdict, "symbol": symbol, "score": a.score},
            **{"grid": list(trace.grid) if trace else None, "stages": stages},
            **{"tokens": round(trace.average_input, 1) if trace else None},
            "picture": pictures.add(a.image) if a.image else None,
        }

    rows = []
    for s in samples:
        answers: list[dict[str, Any] | None] = [None] * len(methods)
        for a in s.answers:
            answers[places[a.label]] = answer(a)
        rows.append(
            {
                **{"id": f"{s.benchmark}/{s.doc_id}", "benchmark": s.benchmark, "question": fit(s.question)},
                **{
                    "options": [fit(o) for o in options(s)],
                    "target": fit(s.target),
                    "category": s.category and clean(s.category),
                },
                **{"level": s.level and clean(s.level), "kind": s.kind, "random": s.at_random, "answers": answers},
            }
        )
    against = [references[m.label] for m in methods]
    return {
        "methods": [
            {
                **{"label": m.label, "shown": m.shown, "reference": e.is_reference},
                "against": places[r.label] if r and r.label != m.label else None,
            }
            for m, e, r in zip(methods, among, against, strict=True)
        ],
        "layers": max((a.trace.num_layers for s in samples for a in s.answers if a.trace), default=0),
        "masks": list(masks),
        "samples": rows,
    }


def fitting(texts: Sequence[str]) -> Callable[[str], str]:
    """What makes texts safe to show, and so short that all of them take TEXTS bytes of JSON at most."""

    def shown(text: str) -> str:
        found = clean(text, LONGEST - 100)
        return found if len(found) < LONGEST else f"{found[: LONGEST - 100]}…"

    sizes = [len(json.dumps(shown(text))) for text in texts]
    share = TEXTS // len(sizes) if sum(sizes) > TEXTS else LONGEST * len(json.dumps("…"))

    def fit(text: str) -> str:
        found = shown(text)
        if len(json.dumps(found)) <= share:
            return found
        ends = accumulate(len(json.dumps(c)) - 2 for c in found)
        return f"{found[: sum(end <= share for end in ends)]}…"

    return fit


# ------------------------------------------------------------------ samples that are readable without scripts


def card(s: Sample, among: Sequence[Entry], series: Callable[[str], int], pictures: Pictures) -> Card:
    """A sample, ready for the template."""
    references = {e.label: reference_of(e, among) for e in among}
    scores = {a.label: a.score for a in s.answers}
    tiles = []
    for a in s.answers:
        reference = references[a.label]
        held = scores.get(reference.label) if reference else None
        tiles.append(tile(a, series(a.label), held, pictures))
    return Card(s, options(s), tuple(tiles))


def tile(answer: Answer, series: int, reference: float | None, pictures: Pictures) -> Tile:
    """A method's answer. reference: the upper bound's score, if any."""
    verdict, symbol = judged(answer)
    trace = answer.trace if answer.trace and answer.trace.grid[1] else None
    rows, columns = trace.grid if trace else (0, 0)
    last = trace.stages[-1] if trace and trace.stages else None
    return Tile(
        label=answer.label,
        series=series,
        said=said(answer),
        verdict=verdict,
        symbol=symbol,
        change="" if reference in (None, answer.score) else "gained" if answer.score > (reference or 0) else "lost",
        picture=pictures.add(answer.image) if answer.image else None,
        rows=rows,
        columns=columns,
        veil=Veil(last.layer, last.tokens, last.merged, veil(trace, last)) if trace and last else None,
    )


def said(answer: Answer) -> str:
    """The response, or why there is none."""
    return answer.error if answer.error is not None else answer.response or ""


def options(sample: Sample) -> tuple[str, ...]:
    """The lines of a choice, as the model saw them."""
    return tuple(line.strip() for line in sample.prompt.splitlines() if OPTION.match(line))[:10]


def judged(answer: Answer) -> tuple[str, str]:
    """The verdict in a word, and a symbol that does not rely on colour."""
    if answer.error is not None:
        return "failed", "⚠"
    if answer.score >= 1.0:
        return "right", "✓"
    if answer.score > 0.0:
        return f"partly right ({answer.score:.2f})", "◐"
    return ("no answer", "∅") if answer.invalid else ("wrong", "✗")


def veil(trace: KeepTrace, stage: Stage) -> Markup:
    """The SVG path over the cells that a stage no longer has, in units of cells."""
    return Markup("".join(f"M{c},{r}h{n}v1h-{n}z" for r, c, n in cell_runs(~stage.keep, trace.grid[1])))
