"""The shared test matrix: every method has a row here, and every row goes through the same tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from atp_eval.methods.random import random_scores
from methods.adapters import ADAPTERS


class Row(NamedTuple):
    """A method under test, on the small models of the tests (5 layers, 6 x 6 grid).

    keep_all: specs that keep every token. pruning: specs that prune. score: (method, point) -> the scores [B, V] whose
    highest must stay, where all that stays are the highest of one score that the point gives, or of none; else None.
    budgets: feasible averages; each must be met. `{adapters}` in a spec is a folder that `adapters.write_adapters`
    filled.
    """

    name: str
    keep_all: tuple[str, ...]
    pruning: tuple[str, ...]
    score: Callable[[Any, Any], Any] | None = None
    budgets: tuple[int, ...] = (9, 20, 35)


MATRIX = (
    Row("upper_bound", ("upper_bound",), (), budgets=()),
    Row(
        "atp",
        ("atp:adapter={adapters}/all",),
        (
            *(f"atp:adapter={{adapters}}/{name}" for name in ADAPTERS if name != "all"),
            "atp:adapter={adapters}/plain,control=static",
            "atp:adapter={adapters}/plain,layers=1-3,control=shuffled",
            "atp:adapter={adapters}/plain,control=fixed,scale=0.6",
        ),
        budgets=(),
    ),
    Row(
        "fastv",
        ("fastv:layer=1,keep=36", "fastv@36"),
        ("fastv:layer=1,keep=7", "fastv:layer=4,keep=20", "fastv:layer=2,r=0.625"),
        lambda method, point: point.last_row(),
    ),
    Row(
        "random",
        ("random:layer=0,keep=36", "random@36"),
        ("random:layer=0,keep=5", "random:layer=2,keep=9,seed=3,positions=contiguous"),
        lambda method, point: random_scores(method.seed, point.sample_ids, 36),
    ),
    Row("grid", ("grid:layer=2,keep=36",), ("grid:layer=0,keep=9", "grid:layer=3,keep=7")),
    Row("pool", ("pool@36",), ("pool:rows=3,cols=3", "pool:rows=2,cols=5"), budgets=(9, 20, 36)),
    Row(
        "schedule",
        ("schedule:layers=1-3,keep=36-36,score=redundant",),
        (
            "schedule:layers=1-3,keep=20-7,score=redundant",
            "schedule:layers=1-2-4,keep=30-11-3,score=cross",
            "schedule:layers=2,keep=13,score=self",
            "schedule:layers=0-2,keep=18-6,score=random,seed=1",
            "schedule:layers=0-3,keep=18-6,score=grid",
        ),
        lambda method, point: method.scores(point),
        budgets=(14, 18, 23),
    ),
    Row(
        "divprune",
        ("divprune@36", "divprune:ratio=1"),
        ("divprune:keep=7", "divprune:ratio=1/3", "divprune:keep=7,positions=1d"),
    ),
    Row("vispruner", ("vispruner@36",), ("vispruner:keep=7", "vispruner:keep=20,important_ratio=0.3")),
    Row(
        "cdpruner",
        ("cdpruner@36:relevance=llm",),
        ("cdpruner:keep=7,relevance=llm", "cdpruner:keep=20,relevance=llm"),
        budgets=(),
    ),
    Row(
        "prumerge",
        ("prumerge@36", "prumerge:keep=36,rule=paper"),
        ("prumerge", "prumerge:keep=1", "prumerge:ratio=1/4,neighbours=3", "prumerge:keep=12,neighbours=3,rule=paper"),
        budgets=(9, 20, 35, 36),
    ),
    Row(
        "prumerge_plus",
        ("prumerge_plus@36",),
        (
            "prumerge_plus",
            "prumerge_plus:keep=2",
            "prumerge_plus:ratio=1/4,neighbours=3",
            "prumerge_plus:keep=12,neighbours=3,rule=paper,positions=1d",
        ),
        budgets=(9, 20, 35, 36),
    ),
    Row(
        "visionzip",
        ("visionzip@36",),
        (
            "visionzip:keep=1",
            "visionzip:keep=9,rule=paper",
            "visionzip:keep=20,contextual=8",
            "visionzip@9:contextual=0",
        ),
        budgets=(9, 20, 35, 36),
    ),
    Row(
        "sparsevlm",
        ("sparsevlm:keep=36-36-36", "sparsevlm@36"),
        (
            "sparsevlm",
            "sparsevlm:official=64",
            "sparsevlm:layers=1-2-4,keep=20-15-9",
            "sparsevlm:layers=1-3,keep=36-5,positions=1d",
            "sparsevlm:layers=2-3-4,keep=1-1-1",
        ),
        budgets=(9, 14, 20, 35),
    ),
    Row(
        "pyramiddrop",
        ("pyramiddrop:ratio=1", "pyramiddrop@36"),
        ("pyramiddrop", "pyramiddrop:ratio=0.7,layers=1-3", "pyramiddrop:layers=1-2-4,keep=36-12-2"),
        lambda method, point: point.coming_row(),
        budgets=(9, 14, 20, 35),
    ),
    Row(
        "dart",
        ("dart:layer=1,keep=36", "dart@36", "dart:layer=2,keep=36,rule=paper"),
        (
            "dart",
            "dart:layer=1,keep=3",
            "dart:layer=2,keep=17",
            "dart:layer=3,max_num_truncation=16",
            "dart:layer=2,keep=17,rule=paper",
        ),
    ),
    Row(
        "downsample",
        ("downsample@36", "downsample@36:positions=1d"),
        ("downsample:rows=3,cols=3", "downsample:rows=2,cols=5", "downsample:rows=4,cols=3,positions=1d"),
        budgets=(9, 20, 36),
    ),
    Row("oracle", ("oracle:layer=0,keep=36", "oracle@36"), ("oracle:layer=0,keep=2", "oracle:layer=2,keep=9,seed=3")),
    Row(
        "background",
        ("background:layer=2,keep=36", "background@36"),
        ("background:layer=0,keep=33", "background:layer=2,keep=35,seed=1"),
    ),
)
