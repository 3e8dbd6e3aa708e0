"""`atp-eval show`: one sample in the terminal, with every method's answer and the tokens that it kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.text import Text

from atp_eval.errors import UserError, unknown
from atp_eval.records import SAMPLES, Run, SampleRecord, read_run, read_samples, slug
from atp_eval.reporting.svg import clean
from atp_eval.trace import KeepTrace

HALF_BLOCKS = {(0, 0): " ", (1, 0): "▀", (0, 1): "▄", (1, 1): "█"}


def sample_rows(path: Path, benchmark: str | None, doc: int) -> list[dict[str, Any]]:
    """One sample's records, a row for each method that answered it, in the manifest's order of methods.

    Raises UserError for a benchmark that the run has not, or a document that no method answered.
    """
    run = read_run(path)
    names = list(run.manifest.benchmarks)
    name = names[0] if benchmark is None else benchmark
    if name not in names:
        raise unknown("benchmark of this run", name, names)
    scores = sample_scores(run, name, doc)
    rows = []
    for method in run.manifest.methods:
        file = path / slug(method) / name / SAMPLES
        record = next((r for r in read_samples(file) if r.doc_id == doc), None) if file.exists() else None
        if record:
            rows.append({**record.model_dump(), "score": scores.get(method), **token_counts(record)})
    if not rows:
        last = run.manifest.benchmarks[name].documents - 1
        raise UserError(f"--doc {doc}: no method has answered it in {name}. Choose a number from 0 to {last}.")
    return rows


def sample_scores(run: Run, benchmark: str, doc: int) -> dict[str, float]:
    """Score by method, for the methods that are finished."""
    table = run.samples()
    if table.empty:
        return {}
    found = table[(table["benchmark"] == benchmark) & (table["doc_id"] == doc)]
    return dict(zip(found["method"], found["score"], strict=True))


def token_counts(record: SampleRecord) -> dict[str, Any]:
    """Visual tokens that entered each layer, and their averages in each convention."""
    trace = record.keep_trace()
    if trace is None:
        return {"tokens_per_layer": None, "average_input": None, "average_output": None, "final": None}
    return {
        "tokens_per_layer": trace.tokens_per_layer().tolist(),
        "average_input": trace.average_input,
        "average_output": trace.average_output,
        "final": trace.final,
    }


def render_sample(rows: list[dict[str, Any]]) -> RenderableType:
    """The question, and a panel for each method."""
    first = rows[0]
    head = Text.assemble(
        (f"{first['benchmark']} {first['doc_id']}", "bold"),
        clean(f"  {first['kind'] or first['category'] or ''}\n"),
        clean(first["prompt"] or first["question"]),
        clean(f"\nright answer: {first['target']}"),
    )
    return Group(Panel(head, expand=False), Columns([method_panel(row) for row in rows]))


def method_panel(row: dict[str, Any]) -> Panel:
    """A method's answer over the map of the cells that reached the last layer."""
    score = row["score"]
    verdict = (
        "not scored yet" if score is None else "right" if score == 1 else "wrong" if score == 0 else f"{score:.2f}"
    )
    answer = Text(clean(f"error: {row['error']}" if row["error"] else str(row["response"])), style="bold")
    parts: list[RenderableType] = [Text.assemble(answer, f"  ({verdict})")]
    if row["trace"]:
        trace = KeepTrace.from_json(row["trace"])
        cells = trace.keep_at(trace.num_layers - 1).reshape(trace.grid)
        merged = trace.stages[-1].merged if trace.stages else 0
        parts.append(Text(half_blocks(cells), style="cyan"))
        parts.append(Text(f"{trace.average_input:.1f} tokens on average, {trace.final} at the end"))
        parts.append(Text(f"{trace.average_output:.1f} counted where they leave a layer"))
        if merged:
            parts.append(Text(f"{merged} of them merged from several cells"))
    return Panel(Group(*parts), title=row["method"], expand=False)


def half_blocks(cells: NDArray[np.bool_]) -> str:
    """A grid [rows, cols] as text, two rows of cells in one line."""
    if len(cells) % 2:
        cells = np.vstack([cells, np.zeros_like(cells[:1])])
    lines = [
        "".join(HALF_BLOCKS[int(a), int(b)] for a, b in zip(top, bottom, strict=True))
        for top, bottom in zip(cells[::2], cells[1::2], strict=True)
    ]
    return "\n".join(lines)
