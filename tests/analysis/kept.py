"""Records of which cells were kept, made by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from atp_eval.analysis import Agreement, measure_agreement
from atp_eval.records import asked_text
from atp_eval.trace import KeepTrace, Stage

GRID, LAYERS = (24, 24), 4


CELLS = 576
Keep = dict[int, set[int]]  # layer -> cells that stay from it on


def text(keep: Keep | None, grid: tuple[int, int] = GRID, merged: int = 0) -> str | None:
    if keep is None:
        return None
    cells = np.arange(grid[0] * grid[1])
    stages = tuple(Stage(layer, np.isin(cells, list(kept)), merged) for layer, kept in sorted(keep.items()))
    return json.dumps(KeepTrace(grid, LAYERS, stages).to_json())


def rows(keeps: Sequence[Keep | None], asked: Sequence[set[int] | None] | None = None, **options: Any) -> pd.DataFrame:
    """One question a picture, unless `image_id` says otherwise."""
    count = len(keeps)
    known = [None] * count if asked is None else [None if a is None else asked_text(sorted(a)) for a in asked]
    columns = {"doc_id": range(count), "image_id": [f"picture {i}" for i in range(count)]}
    traces = [text(k, **{k: v for k, v in options.items() if k in ("grid", "merged")}) for k in keeps]
    frame = pd.DataFrame({**columns, "trace": traces, "asked_map": known}).astype(
        {"trace": object, "asked_map": object}
    )
    return frame.assign(**{k: v for k, v in options.items() if k not in ("grid", "merged")})


def measured(methods: Mapping[str, pd.DataFrame], **options: Any) -> Agreement:
    options = {"resamples": 200, **options}
    found = measure_agreement([("gqa", dict(methods))], [list(methods)], **options)
    assert found is not None
    return found
