"""What a run's own clock and memory counter say of each method: time by stage, ratios, speed, memory.

Ratios are taken batch by batch against the upper bound of the same run: methods answer each batch in turn, so that a
busy machine slows both. Times of different runs are not paired.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from atp_eval.analysis.reading import Entry, reference_of
from atp_eval.analysis.significance import LEVEL, Interval, median_interval

COLUMNS = [
    *("doc_id", "batch", "batch_size", "warm", "error", "seconds", "vision_seconds", "prefill_seconds"),
    *("new_tokens", "peak_bytes"),
]
NUMBERS = ["seconds", "vision_seconds", "prefill_seconds", "new_tokens", "peak_bytes"]
BATCH = ["batch", "seconds"]  # numbers start again when a run is resumed; the time tells batches apart


@dataclass(frozen=True)
class Stage:
    """seconds: a question, median over batches. ratio: to the upper bound's on the same batches, median; None without
    an upper bound in the same run, and for that itself."""

    seconds: Interval
    ratio: Interval | None


@dataclass(frozen=True)
class Efficiency:
    """A method over its warm batches of all benchmarks.

    device: as the manifest names it. shared: whether questions about one picture in a batch read it once together,
        which makes a question cheap where methods do not choose by it. batch_size: of most batches. vision: seconds a
        question of tower and projector, mean over batches (a picture is encoded once for all its questions and
        methods: most batches cost nothing or much), with a normal interval. llm: prefill and decoding with the method's
        own work, and both apart; None in runs that did not record them. decode_seconds: after the first new token; no
        ratio, since methods may say more or less.
    questions_per_second: of the LLM, without the vision tower. tokens_per_second: new tokens while decoding, over
        whole batches that went beyond the first token. peak_bytes: the most that any batch allocated on the GPU,
        weights included; peak_saved: what the upper bound allocated more on the same batches, median. None where there
        is no GPU.
    """

    label: str
    is_reference: bool
    device: str
    shared: bool
    batch_size: int
    batches: int
    vision: Interval
    llm: Stage
    prefill: Stage | None
    decode_seconds: Interval | None
    questions_per_second: Interval
    tokens_per_second: Interval | None
    peak_bytes: float | None
    peak_saved: Interval | None


def measure_efficiency(methods: Sequence[Entry]) -> Iterator[Efficiency]:
    """Of each method that answered anything in a warm batch."""
    timed = {entry.label: timed_rows(entry) for entry in methods}
    for entry in methods:
        rows, reference = timed[entry.label], reference_of(entry, methods)
        if rows.empty:
            continue
        paired = None
        if reference is not None and reference is not entry and reference.run.path == entry.run.path:
            paired = pair(rows, timed[reference.label])
        yield efficiency(entry, rows, paired)


def timed_rows(entry: Entry) -> pd.DataFrame:
    """One row a question that was answered in a warm batch; what the run did not record is NaN."""
    found = [entry.rows(name, COLUMNS).assign(benchmark=name) for name in entry.results]
    rows = pd.concat(found, ignore_index=True)
    rows = rows[rows["warm"].astype(bool) & rows["error"].isna()]
    rows = rows.assign(**{name: pd.to_numeric(rows[name]).astype(float) for name in NUMBERS})
    return rows[rows["seconds"] > 0]


def pair(rows: pd.DataFrame, reference: pd.DataFrame) -> pd.DataFrame:
    """One row for each pair of batches that asked the same question, with the reference's columns beside."""
    both = rows.merge(reference, on=["benchmark", "doc_id"], suffixes=("", "_reference"))
    return both.drop_duplicates(["batch", "batch_reference", "seconds", "seconds_reference"])


def efficiency(entry: Entry, rows: pd.DataFrame, paired: pd.DataFrame | None) -> Efficiency:
    """From a method's timed rows, and its batches paired with the upper bound's."""
    groups = rows.groupby(BATCH, sort=False)
    batches = groups.agg(
        vision_seconds=("vision_seconds", "mean"),
        prefill_seconds=("prefill_seconds", "first"),
        batch_size=("batch_size", "first"),
        peak_bytes=("peak_bytes", "first"),
        questions=("doc_id", "size"),
        tokens=("new_tokens", "sum"),
    ).reset_index()
    seconds, prefill = batches["seconds"], batches["prefill_seconds"]
    llm, peaks = median_interval(seconds.to_numpy()), batches["peak_bytes"].dropna()
    return Efficiency(
        label=entry.label,
        is_reference=entry.is_reference,
        device=entry.run.manifest.device,
        shared=bool(entry.run.manifest.config.get("share_pictures")),
        batch_size=int(batches["batch_size"].mode()[0]),
        batches=len(batches),
        vision=mean_interval(batches["vision_seconds"].to_numpy()),
        llm=Stage(llm, ratio(paired, "seconds")),
        prefill=None if prefill.isna().all() else Stage(median(prefill), ratio(paired, "prefill_seconds")),
        decode_seconds=None if prefill.isna().all() else median(seconds - prefill),
        questions_per_second=Interval(1 / llm.value, 1 / llm.high, 1 / llm.low),
        tokens_per_second=decoding_speed(batches),
        peak_bytes=None if peaks.empty else float(peaks.max()),
        peak_saved=saved(paired),
    )


def ratio(paired: pd.DataFrame | None, column: str) -> Interval | None:
    """A time over the upper bound's, median over pairs of batches; None where nothing is paired or known."""
    if paired is None:
        return None
    ratios = (paired[column] / paired[f"{column}_reference"]).replace(np.inf, np.nan).dropna()
    return None if ratios.empty else median_interval(ratios.to_numpy())


def saved(paired: pd.DataFrame | None) -> Interval | None:
    """Bytes that the upper bound's peak was higher, median over pairs of batches of one size."""
    if paired is None:
        return None
    alike = paired[paired["batch_size"] == paired["batch_size_reference"]]
    bytes_saved = (alike["peak_bytes_reference"] - alike["peak_bytes"]).dropna()
    return None if bytes_saved.empty else median_interval(bytes_saved.to_numpy())


def decoding_speed(batches: pd.DataFrame) -> Interval | None:
    """New tokens a second after each answer's first, over batches of which every answer is known."""
    more = batches["tokens"] - batches["questions"]
    seconds = (batches["seconds"] - batches["prefill_seconds"]) * batches["batch_size"]
    whole = (batches["questions"] == batches["batch_size"]) & (more > 0) & (seconds > 0)
    return median((more / seconds)[whole]) if whole.any() else None


def median(values: pd.Series[float]) -> Interval:
    """With the interval of its order statistics; unknown values left out."""
    return median_interval(values.dropna().to_numpy())


def mean_interval(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]], level: float = LEVEL) -> Interval:
    """The mean with Student's interval, which many batches make right; no bounds below two values."""
    value = float(np.mean(values))
    if len(values) < 2:
        return Interval(value)
    half = float(stats.t.ppf(0.5 + level / 2, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values)))
    return Interval(value, max(0.0, value - half), value + half)
