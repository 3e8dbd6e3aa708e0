"""Time per question, compared batch by batch: methods answer each batch in turn, so a batch's ratio is a paired one."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from atp_eval.analysis.significance import Interval, median_interval


@dataclass(frozen=True)
class Timing:
    """Seconds a question over warm batches.

    llm: prefill and decode with pruning, median over batches. vision: tower and projector, mean over questions (a
    picture is encoded once for all its questions and methods: most batches cost nothing or much). ratio: llm time over
    the upper bound's on the same batches, median; None without an upper bound. batches: how many.
    """

    llm: float
    vision: float
    ratio: Interval | None
    batches: int


def batch_times(rows: pd.DataFrame) -> pd.DataFrame:
    """One row a question that was answered in a warm batch: doc_id, batch, seconds, vision_seconds."""
    answered = rows[rows["warm"] & rows["error"].isna() & (rows["seconds"] > 0)]
    return answered[["doc_id", "batch", "seconds", "vision_seconds"]]


def batch_ratios(times: pd.DataFrame, reference: pd.DataFrame) -> pd.Series[float]:
    """Time over the reference's, one value a batch that both answered."""
    both = times.merge(reference, on="doc_id", suffixes=("", "_reference"))
    # Batch numbers start again when a run is resumed; the pair of times tells the batches apart.
    once = both.drop_duplicates(["batch", "batch_reference", "seconds", "seconds_reference"])
    return once["seconds"] / once["seconds_reference"]


def timing(times: pd.DataFrame, ratios: pd.Series[float] | None) -> Timing | None:
    """Times of a method's batches (of one benchmark or of several together); None where nothing warm was answered."""
    batches = times.drop_duplicates(["batch", "seconds"])
    if batches.empty:
        return None
    ratio = None if ratios is None or ratios.empty else median_interval(np.asarray(ratios))
    return Timing(float(batches["seconds"].median()), float(times["vision_seconds"].mean()), ratio, len(batches))


def speedup(ratio: Interval | None) -> Interval:
    """How many times faster, from a time ratio."""
    if ratio is None or not ratio.value > 0:
        return Interval(math.nan)
    return Interval(1 / ratio.value, 1 / ratio.high, 1 / ratio.low)
