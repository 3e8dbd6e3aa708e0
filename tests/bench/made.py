"""Bench folders without a model: times that follow a formula, and texts from wherever a test wants them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from synthetic import GEOMETRY

from atp_eval.bench.records import (
    BENCH,
    MEASURED,
    Bench,
    Cell,
    Kind,
    Machine,
    Settings,
    Stages,
    Survey,
    not_run_line,
    round_line,
    survey_line,
)

METHODS = ("upper_bound", "fastv@144")
Times = Callable[[Cell, int], Stages]


def plain_times(cell: Cell, number: int) -> Stages:
    """0.1 s of vision, 0.4 s of prefill (half of it pruned), 0.05 s a step; a per cent more in each round."""
    share = 1.0 if cell.method == "upper_bound" else 0.5
    slower = 1 + 0.01 * number
    return Stages(0.1 * slower, 0.4 * share * slower, 0.05 * (cell.new - 1) * slower)


def growing_times(cell: Cell, number: int) -> Stages:
    """Prefill of 1 ms + 0.1 ms a token + 0.02 us a square; all else goes with tokens alone."""
    n = float(cell.tokens)
    prefill = 1e-3 + 1e-4 * n + 2e-8 * n * n
    noise = 1 + 0.001 * ((number * 7 + cell.side) % 5 - 2)
    return Stages(1e-5 * n * cell.batch * noise, prefill * cell.batch * noise, 1e-3 * (cell.new - 1) * noise)


def methods_cells(
    batches: Sequence[int] = (1, 8), attentions: Sequence[str] = ("sdpa",), methods: Sequence[str] = METHODS
) -> tuple[Cell, ...]:
    """As a bench of methods orders them."""
    return tuple(
        Cell(method=m, batch=b, attention=a, side=24, new=3) for a in attentions for b in batches for m in methods
    )


def growth_cells(methods: Sequence[str] = METHODS, new: int = 3) -> tuple[Cell, ...]:
    """Seven grids, four batches, five answers."""
    sizes = [(s, 1, new) for s in (12, 17, 24, 34, 48, 68, 96)]
    sizes += [(24, b, new) for b in (2, 4, 8, 16)] + [(24, 1, k) for k in (8, 16, 32, 64)]
    return tuple(Cell(method=m, batch=b, attention="sdpa", side=s, new=k) for s, b, k in sizes for m in methods)


def made_survey(cell: Cell) -> Survey:
    """A prompt of which 144 tokens, or all, enter every layer; 1 GFLOP of vision, 4 of prefill, 0.1 a step."""
    kept = float(cell.tokens if cell.method == "upper_bound" else cell.tokens / 4)
    layers = GEOMETRY.num_layers
    flops = 4e9 * kept / cell.tokens
    return Survey(
        solved=cell.method, tokens=(kept,) * layers, averages=(kept,) * cell.batch, text=64, vision_flops=1e9,
        prefill_flops=flops, decode_flops=1e8 * (cell.new - 1), peak_bytes=int(1e6 * kept),
    )  # fmt: skip


def write_folder(
    folder: Path,
    cells: Sequence[Cell],
    *,
    kind: Kind = "methods",
    times: Times = plain_times,
    rounds: int = 7,
    model: str = "llava-hf/llava-1.5-7b-hf",
    device: str = "a machine",
    refused: dict[int, str] | None = None,
) -> Path:
    """`bench.json` and the measurements, as a bench writes them."""
    refused = refused or {}
    settings = Settings(
        kind=kind, model=model, random_weights=True, layers=8, methods=tuple(dict.fromkeys(c.method for c in cells)),
        dtype="float32", text=64, rounds=rounds, cells=tuple(cells),
    )  # fmt: skip
    machine = Machine(
        device=device, memory=10**10, flops=1e10, bandwidth=1e9, load=0.5, versions={"torch": "2", "python": "3"}
    )
    bench = Bench(
        created="2026-11-21T09:00:00+00:00", atp_eval="0.1.0", settings=settings, weights="random",
        geometry=asdict(GEOMETRY), full_layers=32, vision_bytes=10**7, language_bytes=10**8, clock="wall clock",
        machine=machine,
    )  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / BENCH).write_text(bench.model_dump_json(), encoding="utf-8")
    lines = [survey_line(i, made_survey(c)) for i, c in enumerate(cells) if i not in refused]
    lines += [not_run_line(i, why) for i, why in refused.items()]
    lines += [round_line(i, n, times(c, n)) for n in range(rounds) for i, c in enumerate(cells) if i not in refused]
    (folder / MEASURED).write_text("".join(lines), encoding="utf-8")
    return folder
