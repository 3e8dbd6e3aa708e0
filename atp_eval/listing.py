"""`atp-eval list` and the plan of `run --dry-run`: rows for programs, tables for people."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from atp_eval.benchmarks import BENCHMARKS, LLAVA
from atp_eval.errors import UserError
from atp_eval.methods import method_class, method_names
from atp_eval.methods.spec import parameters
from atp_eval.records import MANIFEST, read_run

Row = dict[str, Any]


def methods(folder: Path) -> list[Row]:
    """Every method with its parameters and what it does."""
    rows = []
    for name in method_names():
        cls = method_class(name)
        does = inspect.getdoc(cls) or ""
        rows.append(
            {"method": name, "parameters": ", ".join(parameters(cls)), "does": does.split("\n\n")[0].replace("\n", " ")}
        )
    return rows


def benchmarks(folder: Path) -> list[Row]:
    """Every benchmark: where it runs, its metric and the paper's upper bound."""
    return [
        {
            "benchmark": b.name,
            "title": b.title,
            "suites": "mini, real" if b.mini_scale is not None else "real",
            "documents": b.documents,
            "metric": b.metric,
            "paper (LLaVA-1.5-7B)": b.paper.get(LLAVA),
        }
        for b in BENCHMARKS.values()
    ]


def models(folder: Path) -> list[Row]:
    """What --model takes."""
    return [
        {"model": "tiny", "what": "the embedded LLaVA: 576 visual tokens, trained on the mini-suite's kind of scenes"},
        {"model": "FOLDER", "what": "a local checkpoint in the layout of llava-hf/llava-1.5-7b-hf"},
        {"model": "llava-hf/llava-1.5-7b-hf", "what": "a LLaVA-1.5 checkpoint on the hub (docs/real-models.md)"},
    ]


def adapters(folder: Path) -> list[Row]:
    """The trained adapters that come with the package."""
    from atp_eval.methods.atp.adapter import read_config, shipped

    return [
        {
            "adapter": name,
            "model": config.base.id,
            "spec": f"atp:adapter={name}" if config.budget is None else f"atp@{config.budget}",
            "average": None if config.average is None else round(config.average, 1),
            "layers": "-".join(map(str, config.options.layers)),
            "language model": "trained" if config.language_model else "frozen",
        }
        for name, config in ((name, read_config(path)) for name, path in shipped().items())
    ]


def ablations(folder: Path) -> list[Row]:
    """The ablations that come with the package."""
    from atp_eval.ablation import ablations as named
    from atp_eval.ablation import load_ablation

    return [
        {"ablation": name, "title": found.title, "rows": ", ".join(row.name for row in found.rows)}
        for name, found in ((name, load_ablation(name)) for name in named())
    ]


def sweeps(folder: Path) -> list[Row]:
    """The sweeps that come with the package."""
    from atp_eval.sweep.settings import load_sweep
    from atp_eval.sweep.settings import sweeps as named

    return [
        {
            "sweep": name,
            "title": found.title,
            "budgets": ", ".join(map(str, found.columns)),
            "families": ", ".join(family.title for family in found.families),
        }
        for name, found in ((name, load_sweep(name)) for name in named())
    ]


def runs(folder: Path) -> list[Row]:
    """Run folders below `folder`, the newest first."""
    rows = []
    for path in sorted(folder.glob(f"*/{MANIFEST}")):
        try:
            manifest = read_run(path.parent).manifest
        except UserError as error:
            rows.append({"run": str(path.parent), "created": "", "state": str(error)})
            continue
        rows.append(
            {
                "run": str(path.parent),
                "created": manifest.created,
                "state": "finished" if manifest.finished else "unfinished",
                "model": manifest.model["id"],
                "methods": ", ".join(manifest.methods),
                "benchmarks": ", ".join(manifest.benchmarks),
            }
        )
    return sorted(rows, key=lambda row: row["created"], reverse=True)


LISTS: dict[str, Callable[[Path], list[Row]]] = {
    "methods": methods,
    "benchmarks": benchmarks,
    "models": models,
    "adapters": adapters,
    "ablations": ablations,
    "sweeps": sweeps,
    "runs": runs,
}


def table(title: str, rows: list[Row]) -> RenderableType:
    """Rows as a table."""
    if not rows:
        return f"no {title} yet; `atp-eval run` makes one"
    result = Table(title=title, title_justify="left")
    for name in rows[0] | rows[-1]:
        result.add_column(name, overflow="fold")
    for row in rows:
        result.add_row(*("" if row.get(name) is None else escape(str(row[name])) for name in rows[0] | rows[-1]))
    return result


def plan_table(plan: Row) -> RenderableType:
    """What `run --dry-run` found out."""
    head = Table.grid(padding=(0, 2))
    for key in ("model", "device", "dtype", "suite", "limit", "output"):
        head.add_row(f"[bold]{key}", escape(str(plan[key])))
    rows = [{"method": label, "solved": info["solved"]} for label, info in plan["methods"].items()]
    parts: list[RenderableType] = [head, table("methods", rows), table("benchmarks", plan["benchmarks"])]
    if plan["already"]:
        parts.append(f"The folder holds {', '.join(plan['already']['methods'])}; the run goes on there.")
    return Group(*parts)
