"""The figures that the ATP-LLaVA paper prints (arXiv 2412.00447 and its supplement), as claims, never as measurements.

Neither torch nor lmms-eval is imported here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

TABLES = Path(__file__).parent / "assets" / "paper.yaml"
LLAVA = "llava-hf/llava-1.5-7b-hf"
SETTINGS = "training_hyperparameters"  # suppl. Tab. 1 holds what was set, nothing that was found
POINTS = {"mme": "of 2000", "ocrbench": "of 1000"}  # benchmarks that are not in per cent


class PrintedRow(NamedTuple):
    """A row of a printed table: the average of visual tokens where it is given, and values by column."""

    tokens: float | None
    values: dict[str, float | None]


class Figure(NamedTuple):
    """A printed number. digits: after the point, as printed; so it stands for anything within half of the last one."""

    value: float
    unit: str
    digits: int = 1

    @property
    def half(self) -> float:
        """Half a unit of the last printed digit."""
        return 0.5 * 10.0**-self.digits


@dataclass(frozen=True)
class TableRow:
    """label: how the ledger names it: `fastv@192`. raw: the row of the file. figures: by column."""

    label: str
    raw: Mapping[str, Any]
    figures: Mapping[str, Figure]


@dataclass(frozen=True)
class PrintedTable:
    """key: of the file, dotted where nested. name: `Tab. 1`. model: the hub id where atp-eval loads it, else a name."""

    key: str
    name: str
    title: str
    model: str
    rows: tuple[TableRow, ...]

    def row(self, label: str) -> TableRow:
        """Raises KeyError."""
        return {row.label: row for row in self.rows}[label]


@cache
def printed_tables() -> dict[str, Any]:
    """All of `assets/paper.yaml`."""
    found: dict[str, Any] = yaml.safe_load(TABLES.read_text(encoding="utf-8"))
    return found


def printed_row(table: str, **keys: Any) -> PrintedRow:
    """The one row of a table that has these keys. Raises KeyError for a table that is not there or where not exactly
    one row fits."""
    section = printed_tables()[table]
    found = [row for row in section["rows"] if all(row.get(key) == value for key, value in keys.items())]
    if len(found) != 1:
        raise KeyError(f"{len(found)} rows of {table} have {keys}")
    row = found[0]
    columns = section.get("benchmarks") or section["columns"]
    values = dict(zip(columns, row.get("scores") or row["values"], strict=True))
    tokens = row.get("tokens", values.pop("tokens", None))
    return PrintedRow(tokens, values)


@cache
def claimed_tables() -> tuple[PrintedTable, ...]:
    """Every table of results in the order of the paper, then of its supplement, with every figure that it prints."""
    data = printed_tables()
    return tuple(_table(key, *about, data) for key, about in _ABOUT.items())


def _table(
    key: str, name: str, title: str, model: str, label: Callable[[Mapping[str, Any]], str], data: Mapping[str, Any]
) -> PrintedTable:
    section: Any = data
    for part in key.split("."):
        section = section[part]
    raws = section["rows"] if "rows" in section else [{"values": list(section.values())}]
    first = [section["upper_bound"] | {"method": "upper_bound"}] if "upper_bound" in section else []
    columns = section.get("benchmarks") or section.get("columns") or list(section)
    rows = [TableRow(label(raw), raw, dict(_figures(raw, columns))) for raw in [*first, *raws]]
    return PrintedTable(key, name, title, model, tuple(rows))


def _figures(raw: Mapping[str, Any], columns: list[str]) -> Iterator[tuple[str, Figure]]:
    """A row's printed numbers by column; what is no number is left out."""
    if "tokens" in raw:
        yield "tokens", Figure(raw["tokens"], "tokens", 0)
    for layer, kept in zip(raw.get("layers", ()), raw.get("kept", ()), strict=True):
        yield f"kept before layer {layer}", Figure(kept, "tokens", 0)
    for column, score in zip(columns, raw.get("scores", ()), strict="scores" in raw):
        if score is not None:
            yield column, Figure(score, POINTS.get(column, "%"), 0 if column == "ocrbench" else 1)
    for column, share in zip(columns, raw.get("printed_retention", ()), strict="printed_retention" in raw):
        if share is not None:
            yield f"{column}, kept", Figure(share, "%")
    if "printed_average" in raw:
        yield "average", Figure(raw["printed_average"], "%")
    for column, value in zip(columns, raw.get("values", ()), strict="values" in raw):
        if value is not None:
            yield column, Figure(value, *_UNITS[column])


_UNITS: dict[str, tuple[str, int]] = {
    "accuracy_pct": ("%", 1),
    "average_rate_pct": ("%", 1),
    "reduction_pct": ("%", 1),
    "kv_mb": ("MB", 1),
    "cuda_ms": ("ms", 1),
    "tflops": ("T", 1),
    "seconds": ("s", 0),
    "tokens": ("tokens", 0),
    "h1": ("%", 1),
    "h2": ("%", 1),
    "h3": ("%", 1),
    "human_average": ("%", 1),
    "gpt4v": ("%", 1),
}


def method_label(raw: Mapping[str, Any]) -> str:
    """`fastv@192`, `upper_bound`."""
    return "upper_bound" if raw["method"] == "upper_bound" else f"{raw['method']}@{raw['tokens']}"


def _strategy(raw: Mapping[str, Any]) -> str:
    fixed = raw["strategy"] == "fixed"
    return f"fixed {raw['ratio']}" if fixed else method_label({"method": raw["strategy"], **raw})


def _parts(*names: str) -> Callable[[Mapping[str, Any]], str]:
    return lambda raw: " + ".join(name for name in names if raw[name])


_ABOUT: dict[str, tuple[str, str, str, Callable[[Mapping[str, Any]], str]]] = {
    "main_results": ("Tab. 1", "Main results", LLAVA, method_label),
    "pruning_strategy": ("Tab. 2", "Pruning strategy", LLAVA, _strategy),
    "training_strategy": ("Tab. 3", "Training strategy", LLAVA, lambda raw: f"{raw['language_model']} LM"),
    "spatial_augmented_pruning": ("Tab. 4", "Spatial augmented pruning", LLAVA, _parts("rp", "sp", "pp")),
    "importance_score": ("Tab. 5", "Importance score", LLAVA, _parts("self", "cross")),
    "efficiency": ("Tab. 6", "Efficiency", LLAVA, method_label),
    "additional_benchmarks": ("Suppl. Tab. 2", "Additional benchmarks", LLAVA, method_label),
    "flash_attention": (
        "Suppl. Tab. 3",
        "Flash attention",
        LLAVA,
        lambda raw: method_label(raw) + (", flash attention" if raw["flash"] else ""),
    ),
    "training_wall_time": (
        "Suppl. Tab. 4",
        "Training time",
        LLAVA,
        lambda raw: f"atp@{raw['tokens']}, {raw['language_model']} LM",
    ),
    "human_evaluation": ("Suppl. Tab. 5", "Wins over the upper bound, 200 samples", LLAVA, lambda raw: "atp@144"),
    "hyperparameters": (
        "Suppl. Tab. 6",
        "Hyperparameters",
        LLAVA,
        lambda raw: f"λ_ATP {raw['lambda_atp']:g}, λ_target {raw['lambda_target']:g}",
    ),
    "advanced_models.vila_7b": ("Suppl. Tab. 7", "VILA-7B", "VILA-7B", method_label),
    "advanced_models.internvl2_8b": ("Suppl. Tab. 7", "InternVL2-8B", "InternVL2-8B", method_label),
    "advanced_models.qwen2_vl_7b": ("Suppl. Tab. 7", "Qwen2-VL-7B", "Qwen2-VL-7B", method_label),
    "prumerge_training_setting": ("Suppl. Tab. 8", "Trained as PruMerge+ was", LLAVA, method_label),
}
