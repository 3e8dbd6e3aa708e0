"""What the paper's printed figures come to by arithmetic on its other printed figures, with what rounding allows.

A printed number stands for anything within half a unit of its last digit, so a recomputed one is a value, from the
numbers as printed, and a range, from all numbers that would print like that. A claim contradicts itself where nothing
in the range prints as the claim does. The file's own list of inconsistencies is not read here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from typing import NamedTuple

from atp_eval.cost import KNOWN, averages, tokens_per_layer
from atp_eval.cost.flops import kv_bytes, paper_macs
from atp_eval.paper import LLAVA, Figure, PrintedTable, TableRow, claimed_tables

MODEL = KNOWN[LLAVA]
MAIN = "main_results"
KV_TOLERANCE = 0.002  # Table 6 counts its megabytes in units of 1.05 MB a MiB: 0.14 % above bytes / 10^6
VOTES = 200  # samples of the human evaluation
KEPT, AVERAGE = ", kept", "average"


class Recomputed(NamedTuple):
    """value, and the range [low, high] that rounding of what it was computed from allows. how: the arithmetic."""

    value: float
    low: float
    high: float
    how: str

    def allows(self, printed: Figure) -> bool:
        """Whether something in the range prints as the figure does. Binary rounding must not decide at the edge."""
        slack = printed.half + 1e-9
        return self.low - slack <= printed.value <= self.high + slack


def recompute(table: PrintedTable, row: TableRow) -> dict[str, Recomputed]:
    """By column, for what of a row follows by arithmetic."""
    found: dict[str, Recomputed] = {}
    for rule in _RULES.get(table.key, ()):
        found |= dict(rule(table, row))
    return {column: value for column, value in found.items() if column in row.figures}


Found = Iterator[tuple[str, Recomputed]]
Rule = Callable[[PrintedTable, TableRow], Found]


def _share(score: Figure, of: Figure) -> Recomputed:
    """Per cent of the upper bound's score."""
    low, high = (100 * (score.value + s) / (of.value - s) for s, of in ((-score.half, of), (score.half, of)))
    return Recomputed(100 * score.value / of.value, low, high, f"100 x {score.value:g} / {of.value:g}")


def _retention(table: PrintedTable, row: TableRow) -> Found:
    """Each score over the upper bound's, and the mean of these over the benchmarks that the row has."""
    best = table.row("upper_bound")
    shares = {
        column: _share(figure, best.figures[column])
        for column, figure in row.figures.items()
        if column in best.figures and column not in ("tokens", AVERAGE)
    }
    yield from ((f"{column}{KEPT}", share) for column, share in shares.items())
    if row.label == "upper_bound":
        yield AVERAGE, Recomputed(100.0, 100.0, 100.0, "the upper bound over itself")
        return
    bounds = [_narrowed(share, row.figures.get(f"{column}{KEPT}")) for column, share in shares.items()]
    count = len(shares)
    yield (
        AVERAGE,
        Recomputed(
            sum(share.value for share in shares.values()) / count,
            sum(low for low, _ in bounds) / count,
            sum(high for _, high in bounds) / count,
            f"mean over {count} benchmarks of 100 x score / upper bound",
        ),
    )


def _narrowed(share: Recomputed, printed: Figure | None) -> tuple[float, float]:
    """A share's range, within what its printed percentage stands for where the two agree at all."""
    if printed is None or not share.allows(printed):
        return share.low, share.high
    return max(share.low, printed.value - printed.half), min(share.high, printed.value + printed.half)


def _schedule(table: PrintedTable, row: TableRow) -> Found:
    """Tab. 2: the mean over layers of what enters them, and what a fixed ratio leaves stage by stage."""
    layers, kept = row.raw["layers"], row.raw["kept"]

    def average(counts: list[float]) -> float:
        entering: list[float] = [MODEL.cells] * MODEL.num_layers
        for layer, count in zip(layers, counts, strict=True):
            entering[layer:] = [count] * (MODEL.num_layers - layer)
        return averages(entering).input

    value, low, high = (average([count + off for count in kept]) for off in (0.0, -0.5, 0.5))
    yield "tokens", Recomputed(value, low, high, f"mean over {MODEL.num_layers} layers of the tokens that enter")
    if "ratio" in row.raw:
        top, bottom = map(int, row.raw["ratio"].split("/"))
        for layer, (before, _) in zip(layers, pairwise([MODEL.cells, *kept]), strict=True):
            left = before * (bottom - top) / bottom
            yield f"kept before layer {layer}", Recomputed(left, left, left, f"{before} x (1 - {row.raw['ratio']})")


def _repeated(source: str, label: Callable[[Mapping[str, object]], str | None]) -> Rule:
    """Columns that another table prints for the same row; what is recomputed there is recomputed here."""

    def rule(table: PrintedTable, row: TableRow) -> Found:
        name = label(row.raw)
        if name is None:
            return
        original = next(t for t in claimed_tables() if t.key == source)
        there = original.row(name)
        computed = recompute(original, there)
        for column in row.figures:
            same = AVERAGE if column in ("accuracy_pct", "average_rate_pct") else column
            if same in computed:
                yield column, computed[same]._replace(how=f"{computed[same].how}, {original.name}'s {name}")
            elif same in there.figures:
                figure = there.figures[same]
                # a repetition is of the printed number itself
                yield column, Recomputed(figure.value, figure.value, figure.value, f"{original.name}'s {name}")

    return rule


def _upper_accuracy(table: PrintedTable, row: TableRow) -> Found:
    if row.label == "upper_bound":
        yield "accuracy_pct", Recomputed(100.0, 100.0, 100.0, "the upper bound over itself")


def _memory(table: PrintedTable, row: TableRow) -> Found:
    """Tab. 6: bytes of the visual tokens' keys and values in bf16."""
    tokens = int(row.raw["tokens"])
    value = kv_bytes(MODEL, [tokens] * MODEL.num_layers) / 1e6
    low, high = value * (1 - KV_TOLERANCE), value * (1 + KV_TOLERANCE)
    how = f"{tokens} tokens x {MODEL.num_layers} layers x 2 x {MODEL.hidden} x 2 bytes, within {100 * KV_TOLERANCE:g} %"
    yield "kv_mb", Recomputed(value, low, high, how)


def _operations(table: PrintedTable, row: TableRow) -> Found:
    """Tab. 6: Eq. 15 summed over the layers, for the schedule of Tab. 2 or its average in every layer."""
    schedules = next(t for t in claimed_tables() if t.key == "pruning_strategy")
    known = {r.label: r.raw for r in schedules.rows if r.label.startswith("atp")}
    if (raw := known.get(row.label)) is not None:
        entering = tokens_per_layer(MODEL, raw["layers"], raw["kept"])
    else:
        entering = [int(row.raw["tokens"])] * MODEL.num_layers
    value = paper_macs(MODEL, entering) / 1e12
    yield "tflops", Recomputed(value, value, value, "Eq. 15 over all layers, in T of multiply-accumulates")


def _reduction(table: PrintedTable, row: TableRow) -> Found:
    """Suppl. Tab. 3: how much shorter than the upper bound without flash attention."""
    here, there = row.figures["cuda_ms"], table.row("upper_bound").figures["cuda_ms"]
    share = _share(here, there)
    how = f"100 x (1 - {here.value:g} / {there.value:g})"
    yield "reduction_pct", Recomputed(100 - share.value, 100 - share.high, 100 - share.low, how)


def _votes(table: PrintedTable, row: TableRow) -> Found:
    """Suppl. Tab. 5: shares of 200 samples are whole numbers of votes, and the average is that of three people."""
    people = [row.figures[name] for name in ("h1", "h2", "h3")]
    for column in ("h1", "h2", "h3", "gpt4v"):
        votes = round(row.figures[column].value * VOTES / 100)
        value = 100 * votes / VOTES
        yield column, Recomputed(value, value, value, f"{votes} of {VOTES} samples")
    value, half = sum(f.value for f in people) / 3, people[0].half
    yield "human_average", Recomputed(value, value - half, value + half, "mean of the three people")


def _grid(table: PrintedTable, row: TableRow) -> Found:
    if row.label.startswith("upper_bound"):
        yield "tokens", Recomputed(MODEL.cells, MODEL.cells, MODEL.cells, "24 x 24 patches")


def _whole(*parts: str) -> Rule:
    return _repeated(MAIN, lambda raw: "atp@144" if all(raw[part] for part in parts) else None)


def _by_strategy(raw: Mapping[str, object]) -> str | None:
    name = raw["strategy"]
    return None if name == "fixed" else "upper_bound" if name == "upper_bound" else f"{name}@{raw['tokens']}"


def _trained(raw: Mapping[str, object]) -> str | None:
    return f"atp@{raw['tokens']}" if raw["language_model"] == "trainable" else None


_RULES: dict[str, tuple[Rule, ...]] = {
    MAIN: (_grid, _retention),
    "pruning_strategy": (_repeated(MAIN, _by_strategy), _schedule),
    "training_strategy": (_repeated(MAIN, _trained),),
    "spatial_augmented_pruning": (_whole("rp", "sp", "pp"),),
    "importance_score": (_whole("self", "cross"),),
    "efficiency": (
        _repeated(MAIN, lambda raw: f"atp@{raw['tokens']}" if raw["method"] == "atp" else None),
        _grid,
        _upper_accuracy,
        _memory,
        _operations,
    ),
    "additional_benchmarks": (_grid, _retention),
    "flash_attention": (
        _repeated(
            "efficiency",
            lambda raw: None if raw["flash"] else "upper_bound" if raw["method"] == "upper_bound" else "atp@144",
        ),
        _grid,
        _reduction,
    ),
    "training_wall_time": (_repeated(MAIN, _trained),),
    "human_evaluation": (_votes,),
    "hyperparameters": (_repeated(MAIN, lambda raw: "atp@144" if raw["lambda_atp"] == 0.1 else None),),
    "advanced_models.vila_7b": (_grid, _retention),
    "advanced_models.internvl2_8b": (_retention,),
    "advanced_models.qwen2_vl_7b": (_retention,),
    "prumerge_training_setting": (
        _repeated(
            MAIN,
            lambda raw: {"upper_bound": "upper_bound", "prumerge_plus": "prumerge_plus@144"}.get(str(raw["method"])),
        ),
        _retention,
    ),
}
