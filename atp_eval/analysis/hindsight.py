"""What could any adaptive count bring? The least count that was enough, chosen in hindsight, question by question."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from atp_eval.analysis.adaptivity import RIGHT
from atp_eval.analysis.aggregation import Sums
from atp_eval.analysis.question_sums import intervals, mean_sums, ratio, summed
from atp_eval.analysis.reading import Entry
from atp_eval.analysis.significance import DESCRIPTIVE_RESAMPLES, Interval
from atp_eval.analysis.tokens import entering
from atp_eval.analysis.traces import read_traces

COLUMNS = ["doc_id", "image_id", "kind", "category", "score", "trace"]
FIXED = re.compile(r"(?P<ranking>.*\bcontrol=fixed)(?:,scale=(?P<scale>[^,]+))?$")
Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Choice:
    """Questions answered right (a rate in [0, 1]) and mean tokens when each question has the count chosen for it.

    scale: the single fixed scale with the nearest mean tokens. gain: the rate less that scale's.
    """

    right: Interval
    tokens: Interval
    scale: float
    gain: Interval


@dataclass(frozen=True)
class Hindsight:
    """Choices among fixed counts of one ranking; scales: rate of right answers and mean tokens at each, rising.

    least: of each question the least scale at which it is answered right; where none is, the least of all. This is the
    upper limit of what any adaptive count could bring, and more: every scale is another chance to guess right.

    luck: the same choice, had the right answers of each scale been dealt at random among the questions of a benchmark
    and kind (exactly, not by simulation). No question needs a count of its own then, so this is what choosing in
    hindsight makes out of nothing. It is no test that could speak for adapting: answers that agree across scales make
    `least` gain less than `luck`, whatever questions need.

    lasting: of each question the least scale from which on every answer is right, which few lucky guesses are. Its rate
    is the largest scale's by construction; its tokens tell how few would have kept that.
    """

    ranking: str
    questions: int
    scales: dict[float, tuple[Interval, Interval]]
    least: Choice
    lasting: Choice
    luck: Choice


def ladders(entries: Sequence[Entry]) -> dict[str, dict[float, Entry]]:
    """Methods that differ only in the scale of their fixed counts, by what they share; at least two scales each.

    The manifest's solved spec tells: `atp:...,control=fixed,scale=0.5`, scale 1 being left out.
    """
    found: dict[str, dict[float, Entry]] = {}
    for entry in entries:
        match = FIXED.match(str(entry.run.manifest.methods[entry.method].get("solved")))
        if match:
            found.setdefault(match["ranking"], {}).setdefault(float(match["scale"] or 1.0), entry)
    return {ranking: dict(sorted(ladder.items())) for ranking, ladder in found.items() if len(ladder) > 1}


def ladder_rows(ladder: Mapping[float, Entry]) -> dict[float, pd.DataFrame]:
    """What `measure_hindsight` reads of each scale: COLUMNS, `benchmark` and `tokens`, over all of its benchmarks."""
    found = {}
    for scale, entry in ladder.items():
        rows = pd.concat([entry.rows(name, COLUMNS).assign(benchmark=name) for name in entry.results])
        rows = rows[rows["trace"].notna()]
        kept = entering(read_traces(rows.pop("trace")))
        if kept is not None:
            found[scale] = rows.iloc[kept.rows].assign(tokens=kept.averages)
    return found


def measure_hindsight(
    ranking: str, rows: Mapping[float, pd.DataFrame], *, resamples: int = DESCRIPTIVE_RESAMPLES, seed: int = 0
) -> Hindsight | None:
    """Measure the choice over the questions that every scale answered; None where there are none."""
    scales = sorted(rows)
    tables = [rows[s].set_index(["benchmark", "doc_id"]) for s in scales]
    common = tables[0].index
    for table in tables[1:]:
        common = common.intersection(table.index)
    if not len(common):
        return None
    tables = [table.loc[common] for table in tables]
    right = np.stack([table["score"].to_numpy() >= RIGHT for table in tables], axis=1)  # (questions, scales)
    tokens = np.stack([table["tokens"].to_numpy(dtype=float) for table in tables], axis=1)
    cluster, pictures = pd.factorize(tables[0]["image_id"])
    kind = tables[0]["kind"].fillna(tables[0]["category"]).fillna("")
    group = pd.factorize(common.get_level_values("benchmark").astype(str) + "/" + kind.to_numpy().astype(str))[0]

    size = len(pictures)
    rates = [mean_sums(right[:, i].astype(float), cluster, size) for i in range(len(scales))]
    means = [mean_sums(tokens[:, i], cluster, size) for i in range(len(scales))]
    lasting = np.logical_and.accumulate(right[:, ::-1], axis=1)[:, ::-1]
    choices = {
        "least": chosen(right, tokens, cluster, size),
        "lasting": chosen(lasting, tokens, cluster, size),
        "luck": dealt(right, tokens, group, cluster, size),
    }
    parts = {f"rate {i}": part for i, part in enumerate(rates)} | {f"mean {i}": part for i, part in enumerate(means)}
    nearest = {}
    for name, (rate, mean) in choices.items():
        place = nearest[name] = int(np.argmin([abs(m.value - mean.value) for m in means]))
        parts |= {f"rate {name}": rate, f"mean {name}": mean, f"gain {name}": less(rate, rates[place])}
    found = intervals(parts, resamples, seed)
    at = {
        name: Choice(found[f"rate {name}"], found[f"mean {name}"], scales[place], found[f"gain {name}"])
        for name, place in nearest.items()
    }
    by_scale = {scale: (found[f"rate {i}"], found[f"mean {i}"]) for i, scale in enumerate(scales)}
    return Hindsight(ranking, len(common), by_scale, **at)


def chosen(won: NDArray[np.bool_], tokens: Vector, cluster: NDArray[Any], size: int) -> tuple[Sums, Sums]:
    """won, tokens [questions, scales] -> rate and mean tokens; where no scale won, the first counts."""
    place = won.argmax(1)  # 0 where there is none
    spent = tokens[np.arange(len(tokens)), place]
    return mean_sums(won.any(1).astype(float), cluster, size), mean_sums(spent, cluster, size)


def dealt(
    right: NDArray[np.bool_], tokens: Vector, group: NDArray[Any], cluster: NDArray[Any], size: int
) -> tuple[Sums, Sums]:
    """The expected rate and mean tokens of `chosen`, were each scale's right answers dealt anew within groups."""
    groups, scales = int(group.max()) + 1, right.shape[1]
    here = group[:, None] == np.arange(groups)  # (questions, groups)
    counted = np.concatenate([np.ones((len(right), 1)), right, tokens], axis=1)
    columns = (here[:, :, None] * counted[:, None, :]).reshape(len(right), -1)
    sums = summed(cluster, size, *columns.T)

    def expected(totals: Vector) -> tuple[Any, Any, Any]:
        """Totals -> of each group its questions, its expected rate and its expected tokens, each [..., groups]."""
        t = totals.reshape(*totals.shape[:-1], groups, 1 + 2 * scales)
        n = t[..., 0]
        shares = np.nan_to_num(ratio(t[..., 1:], n[..., None]))
        rate, mean = shares[..., :scales], shares[..., scales:]
        missed = np.cumprod(1 - rate, axis=-1)
        first = rate * np.concatenate([np.ones_like(missed[..., :1]), missed[..., :-1]], axis=-1)
        return n, 1 - missed[..., -1], (first * mean).sum(-1) + missed[..., -1] * mean[..., 0]

    def rate(totals: Vector) -> Vector:
        n, share, _ = expected(totals)
        return ratio((n * share).sum(-1), n.sum(-1))

    def mean(totals: Vector) -> Vector:
        n, _, spent = expected(totals)
        return ratio((n * spent).sum(-1), n.sum(-1))

    return Sums(sums, rate), Sums(sums, mean)


def less(first: Sums, second: Sums) -> Sums:
    """The difference of two statistics."""
    edge = first.sums.shape[1]
    return Sums(
        np.concatenate([first.sums, second.sums], axis=1),
        lambda t: first.metric(t[..., :edge]) - second.metric(t[..., edge:]),
    )
