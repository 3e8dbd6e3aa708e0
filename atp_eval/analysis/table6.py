"""Table 6 of the ATP-LLaVA paper by arithmetic: its KV figures follow from bytes, its TFLOPs from no way to count."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from atp_eval.analysis.recomputed import MODEL
from atp_eval.cost import tokens_per_layer
from atp_eval.cost.flops import kv_bytes, paper_macs, prefill, projector, vision_tower
from atp_eval.cost.target import TEXT_TOKENS
from atp_eval.paper import Figure, claimed_tables

KV_UNIT = 1.05  # of a MiB: what Table 6 calls MB
T = 1e12


class Counting(NamedTuple):
    """One way to count: T of operations for each row of Table 6."""

    name: str
    values: tuple[float, ...]

    def factors(self, printed: Sequence[Figure]) -> tuple[float, ...]:
        """What the printed figures are times these."""
        return tuple(figure.value / value for figure, value in zip(printed, self.values, strict=True))

    def explains(self, printed: Sequence[Figure]) -> bool:
        """Whether one factor, whatever it is, gives all printed figures within their rounding."""
        low = max((f.value - f.half) / v for f, v in zip(printed, self.values, strict=True))
        high = min((f.value + f.half) / v for f, v in zip(printed, self.values, strict=True))
        return low <= high


class Table6(NamedTuple):
    """rows: labels. kv, tflops: as printed. kv_mb, kv_mib: ours, in 10^6 bytes and in 2^20. countings: ours, in T."""

    rows: tuple[str, ...]
    kv: tuple[Figure, ...]
    kv_mb: tuple[float, ...]
    kv_mib: tuple[float, ...]
    tflops: tuple[Figure, ...]
    countings: tuple[Counting, ...]


def table_6() -> Table6:
    """All of it. ATP's rows have the layers and counts of Table 2; FastV's has its average in every layer."""
    tables = {table.key: table for table in claimed_tables()}
    printed = tables["efficiency"].rows
    schedules = {row.label: row.raw for row in tables["pruning_strategy"].rows}
    entering = []
    for row in printed:
        raw = schedules.get(row.label, {"layers": [0], "kept": [row.raw["tokens"]]})
        entering.append(tokens_per_layer(MODEL, raw["layers"], raw["kept"]))
    bytes_of = [kv_bytes(MODEL, [int(row.raw["tokens"])] * MODEL.num_layers) for row in printed]

    def counting(name: str, of: Callable[[list[int]], float]) -> Counting:
        return Counting(name, tuple(of(tokens) / T for tokens in entering))

    def exact(text: int) -> Callable[[list[int]], float]:
        return lambda tokens: prefill(MODEL, [count + text for count in tokens]).total

    around = vision_tower(MODEL) + projector(MODEL)
    return Table6(
        rows=tuple(row.label for row in printed),
        kv=tuple(row.figures["kv_mb"] for row in printed),
        kv_mb=tuple(found / 1e6 for found in bytes_of),
        kv_mib=tuple(found / 2**20 for found in bytes_of),
        tflops=tuple(row.figures["tflops"] for row in printed),
        countings=(
            counting("Eq. 15, multiply-accumulates", lambda tokens: paper_macs(MODEL, tokens)),
            counting("Eq. 15, two operations each", lambda tokens: 2 * paper_macs(MODEL, tokens)),
            counting("exact, every row, visual tokens only", exact(0)),
            counting(f"exact, every row, {TEXT_TOKENS} text tokens", exact(TEXT_TOKENS)),
            counting("the same with vision tower and projector", lambda tokens: exact(TEXT_TOKENS)(tokens) + around),
        ),
    )
