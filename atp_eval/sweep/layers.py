"""A sweep over layers: scores of coarse and fine questions against where tokens are pruned once, and how many stay.

Fig. 2 of ATP-LLaVA, with its controls: every family is a method that prunes once, at the layers and to the counts that
its grid names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from atp_eval.analysis.aggregation import Sums
from atp_eval.analysis.estimate import Estimate, estimate, mean, resample
from atp_eval.analysis.reading import UPPER_BOUND, Entry, distinct, run_names
from atp_eval.analysis.retention import image_clusters, stable_seed
from atp_eval.analysis.significance import RESAMPLES, Interval
from atp_eval.analysis.summary import plain
from atp_eval.errors import UserError
from atp_eval.records import Run
from atp_eval.sweep.settings import Family, Sweep, Trial
from atp_eval.sweep.table import Answered, Results, check_alike, results_of

LEVELS = ("coarse", "fine")  # as the figure has them; questions in between are in neither


class AtLevel(NamedTuple):
    """On the questions of a level. score: per cent that are right. retention: that in per cent of the upper bound's.
    difference: of retention to the random control at the same layer and count, in points, paired by question; None for
    that itself, and without one."""

    score: Interval
    retention: Interval
    difference: Interval | None = None


@dataclass(frozen=True)
class Spot:
    """A family that prunes before a layer and keeps so many tokens. missing: why there are no figures; None where
    there are. levels: what it scores, by level."""

    trial: Trial
    layer: int | None = None
    keep: int | None = None
    missing: str | None = None
    levels: Mapping[str, AtLevel] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """All figures, JSON-ready."""
        family = self.trial.family
        return {
            "family": family.name,
            "role": family.role,
            "layer": self.layer,
            "keep": self.keep,
            "methods": list(self.trial.labels),
            "missing": self.missing,
            "levels": {level: plain(found._asdict()) for level, found in self.levels.items()},
        }


@dataclass(frozen=True)
class LayerTable:
    """A sweep on one model.

    tasks: the benchmarks that the upper bound finished, whose questions count alike. questions: how many of each level.
    scores: the upper bound's of each level, per cent. cells: visual tokens of a picture.
    """

    sweep: Sweep
    model: str
    cells: int
    runs: tuple[Answered, ...]
    tasks: tuple[str, ...]
    questions: Mapping[str, int]
    scores: Mapping[str, Interval]
    spots: tuple[Spot, ...]

    @property
    def levels(self) -> tuple[str, ...]:
        """The levels that any question is of."""
        return tuple(self.questions)

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers before which any family prunes, rising."""
        return tuple(sorted({spot.layer for spot in self.spots if spot.layer is not None}))

    @property
    def keeps(self) -> tuple[int, ...]:
        """The counts that any family keeps, falling."""
        return tuple(sorted({spot.keep for spot in self.spots if spot.keep is not None}, reverse=True))

    def share(self, keep: int) -> str:
        """A count as a share of the picture: `25 %`."""
        return f"{100 * keep / self.cells:.0f} %"

    def at(self, family: Family, layer: int, keep: int) -> Spot | None:
        """A family's figures; None where there are none."""
        found = (s for s in self.spots if s.trial.family.name == family.name and (s.layer, s.keep) == (layer, keep))
        return next((spot for spot in found if not spot.missing), None)

    def to_json(self) -> dict[str, Any]:
        """All figures, JSON-ready."""
        return {
            "title": self.sweep.title,
            "model": self.model,
            "cells": self.cells,
            "runs": plain(self.runs),
            "benchmarks": list(self.tasks),
            "questions": dict(self.questions),
            "upper_bound": plain(dict(self.scores)),
            "rows": [spot.to_json() for spot in self.spots],
        }


def make_layer_table(
    sweep: Sweep, trials: Sequence[Trial], runs: Sequence[Run], tasks: Sequence[str], *, resamples: int = RESAMPLES,
    seed: int = 0,
) -> LayerTable:  # fmt: skip
    """Measure a sweep over layers in run folders that together hold its methods and the upper bound. All questions of
    all benchmarks count alike, by whether lmms-eval scored them right; pictures are resampled.

    Raises UserError for runs that do not belong together, without an upper bound, for a family that does not prune once
    to a fixed count, and for questions without a level.
    """
    runs = distinct(runs)
    check_alike(runs)
    results = results_of(runs)
    finished = [task for task in tasks if (UPPER_BOUND, task) in results]
    if not finished:
        raise UserError(f"{UPPER_BOUND} has not finished any benchmark in {runs[0].path}. Run the sweep first.")
    spots = [_place(trial, results, finished) for trial in trials]
    labels = [UPPER_BOUND, *(label for spot in spots if not spot.missing for label in spot.trial.labels)]
    found = _estimates(_rows(results, finished, list(dict.fromkeys(labels))), resamples, seed)
    if not found.questions:
        raise UserError(
            f"no question of {', '.join(finished)} is coarse or fine, as far as the records say; "
            "name benchmarks whose questions have levels with --tasks, such as seed"
        )
    names, geometry = run_names(runs), runs[0].manifest.model["geometry"]["grid"]
    return LayerTable(
        sweep=sweep,
        model=Path(str(runs[0].manifest.protocol["model"])).name,
        cells=int(np.prod(geometry)),
        runs=tuple(Answered(names[run.path], run.manifest.device, run.manifest.seconds) for run in runs),
        tasks=tuple(finished),
        questions=found.questions,
        scores={level: found.scores[UPPER_BOUND, level].interval for level in found.questions},
        spots=tuple(_measured(spot, spots, found) for spot in spots),
    )


class _Found(NamedTuple):
    """Estimates by method and level, and how many questions each level has."""

    scores: Mapping[tuple[str, str], Estimate]
    kept: Mapping[tuple[str, str], Estimate]
    questions: Mapping[str, int]


def _place(trial: Trial, results: Results, tasks: Sequence[str]) -> Spot:
    """Where a trial prunes, and whether all of it is answered."""
    if trial.refused:
        return Spot(trial, missing=trial.refused)
    method = trial.methods[0]
    layers, counts = method.prune_layers, method.counts()
    if len(layers) != 1 or counts is None:
        raise UserError(
            f"family {trial.family.name!r}: {method.label} does not prune once to a fixed count, so it has no place in "
            "a figure of layers; use figure: budgets"
        )
    pairs = [(label, task) for label in trial.labels for task in tasks]
    there = sum(pair in results for pair in pairs)
    missing = (
        None if there == len(pairs) else f"not finished: {there} of {len(pairs)} benchmarks and seeds are answered"
    )
    return Spot(trial, layers[0], counts[0], missing)


def _rows(results: Results, tasks: Sequence[str], labels: Sequence[str]) -> pd.DataFrame:
    """Questions that all methods have by rows, in any order: `level`, `image_id`, and a column of scores a method."""
    frames = []
    for task in tasks:
        scores, known = {}, None
        for label in labels:
            run, result = results[label, task]
            rows = Entry(label, label, run, {task: result}).rows(task, ["doc_id", "image_id", "level", "score"])
            rows = rows.set_index("doc_id")
            known = rows[["image_id", "level"]] if known is None else known.combine_first(rows[["image_id", "level"]])
            scores[label] = rows["score"]
        if known is not None:
            frames.append(known.join(pd.DataFrame(scores), how="inner").dropna(subset=labels))
    return pd.concat(frames, ignore_index=True)


def _estimates(rows: pd.DataFrame, resamples: int, seed: int) -> _Found:
    """Scores and retentions of all methods at each level, from the same draws of pictures."""
    clusters = image_clusters([rows[["image_id"]].assign(doc_id=rows.index)]).reindex(rows.index).to_numpy()
    size = int(clusters.max()) + 1
    labels = [name for name in rows.columns if name not in ("image_id", "level")]
    parts: dict[tuple[str, str, str], Sums] = {}
    questions = {}
    for level in LEVELS:
        here = (rows["level"] == level).to_numpy()
        if not here.any():
            continue
        questions[level] = int(here.sum())
        asked = np.bincount(clusters[here], minlength=size)
        right = {label: np.bincount(clusters[here], rows[label].to_numpy()[here], minlength=size) for label in labels}
        for label in labels:
            parts["score", label, level] = _per_cent(right[label], asked)
            parts["kept", label, level] = _per_cent(right[label], right[UPPER_BOUND])
    if not parts:
        return _Found({}, {}, {})
    drawn = resample(list(parts.values()), resamples, stable_seed("levels", seed))
    found = {key: estimate("levels", one) for key, one in zip(parts, drawn, strict=True)}
    by_kind: dict[str, dict[tuple[str, str], Estimate]] = {"score": {}, "kept": {}}
    for (kind, label, level), one in found.items():
        by_kind[kind][label, level] = one
    return _Found(by_kind["score"], by_kind["kept"], questions)


def _per_cent(of: Any, whole: Any) -> Sums:
    """100 * sum(of) / sum(whole), both [clusters]."""

    def metric(totals: Any) -> Any:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(totals[..., 1] > 0, 100.0 * totals[..., 0] / totals[..., 1], np.nan)

    return Sums(np.stack([of, whole], axis=1).astype(float), metric)


def _measured(spot: Spot, spots: Sequence[Spot], found: _Found) -> Spot:
    """The same with its figures: means over seeds inside the bootstrap."""
    if spot.missing:
        return spot
    control = next(
        (
            other
            for other in spots
            if other.trial.family.role == "random"
            and not other.missing
            and (other.layer, other.keep) == (spot.layer, spot.keep)
        ),
        None,
    )
    levels = {}
    for level in found.questions:
        kept = mean([found.kept[label, level] for label in spot.trial.labels])
        difference = None
        if control is not None and control is not spot:
            difference = kept.minus(mean([found.kept[label, level] for label in control.trial.labels])).interval
        score = mean([found.scores[label, level] for label in spot.trial.labels])
        levels[level] = AtLevel(score.interval, kept.interval, difference)
    return Spot(spot.trial, spot.layer, spot.keep, None, levels)
