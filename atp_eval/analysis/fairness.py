"""Are the budgets equal? What every method's tokens came to, measured from the traces of the answered questions."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from atp_eval.analysis.histograms import QUANTILES
from atp_eval.analysis.tokens import Entering, TokenAverages, TokenStats
from atp_eval.cost import ModelGeometry
from atp_eval.cost.flops import decoder_layer, engine_layers, kv_bytes, lm_head
from atp_eval.records import Manifest

TOLERANCE = 0.01  # averages that differ by more are no equal budgets
NOMINAL = re.compile(r"@(?P<budget>[^:\s]+)")
NAMED = 4  # methods of a budget that a warning names
_SIZES = TypeAdapter(ModelGeometry)


@dataclass(frozen=True)
class Prompts:
    """What pruned prompts cost. tokens: [questions], a question's average over layer inputs. flops, full_flops: mean
    exact FLOPs of the engine's prefill a question, read by itself, pruned and not, its text included; None where a size
    is unknown."""

    tokens: NDArray[np.float64]
    flops: float | None
    full_flops: float | None


@dataclass(frozen=True)
class Cost:
    """A method's tokens in every convention, and what they cost; benchmarks weigh alike.

    low, high: 5 and 95 % quantiles of a question's average over layer inputs. kv_bytes: keys and values of the visual
    tokens in bf16, mean. flops, full_flops: as in Prompts. None where the manifest does not say the model's sizes.
    """

    label: str
    is_reference: bool
    tokens: TokenAverages
    low: float
    high: float
    kv_bytes: float | None
    flops: float | None
    full_flops: float | None

    @property
    def varies(self) -> bool:
        """Whether questions differ in their tokens."""
        return self.low < self.high

    @property
    def flops_share(self) -> float | None:
        """Of the unpruned prefill, in [0, 1]."""
        return self.flops / self.full_flops if self.flops and self.full_flops else None


@dataclass(frozen=True)
class Fairness:
    """rows: of every method whose tokens are known. groups: labels of pruned methods whose averages over layer inputs
    lie within TOLERANCE of each other, fewest tokens first. warnings: rows whose budgets are not equal, in sentences.
    """

    rows: tuple[Cost, ...]
    groups: tuple[tuple[str, ...], ...]
    warnings: tuple[str, ...]

    def row(self, label: str) -> Cost | None:
        """Of a method; None where its tokens are unknown."""
        return next((r for r in self.rows if r.label == label), None)


def compare_budgets(rows: Sequence[Cost]) -> Fairness:
    """Put methods together that may be compared."""
    averages = {r.label: r.tokens.input for r in rows if not r.is_reference}
    groups = like_budgets(averages)
    return Fairness(tuple(rows), groups, tuple(unequal(averages, groups)))


def like_budgets(averages: Mapping[str, float], tolerance: float = TOLERANCE) -> tuple[tuple[str, ...], ...]:
    """Labels in groups, fewest tokens first; nobody in a group has more than `tolerance` over its least."""
    groups: list[list[str]] = []
    for label in sorted(averages, key=averages.__getitem__):
        if groups and not differ(averages[groups[-1][0]], averages[label], tolerance):
            groups[-1].append(label)
        else:
            groups.append([label])
    order = list(averages)
    return tuple(tuple(sorted(group, key=order.index)) for group in groups)


def differ(low: float, high: float, tolerance: float = TOLERANCE) -> bool:
    """Whether one average is too much above another. Rounding must not decide at the edge."""
    return high > low * (1 + tolerance) * (1 + 1e-9)


def unequal(averages: Mapping[str, float], groups: Sequence[Sequence[str]]) -> Iterator[str]:
    """Which rows differ, and by how much: first those that ask for one budget and do not have it, then the budgets."""
    if len(groups) < 2:
        return
    nominal: dict[str | None, list[str]] = {}
    for label in averages:
        match = NOMINAL.search(label)
        nominal.setdefault(match["budget"] if match else None, []).append(label)
    for budget, labels in nominal.items():
        least = min(labels, key=averages.__getitem__)
        low = averages[least]
        more = [f"{a} has {averages[a]:.1f} ({above(low, averages[a])})" for a in labels if differ(low, averages[a])]
        if budget is not None and more:
            yield (
                f"Rows at @{budget} do not have equal budgets: against {least} with {low:.1f} visual tokens at layer "
                f"inputs, {named(more)}."
            )
    if len(nominal) > 1 or None in nominal:
        low, high = min(averages.values()), max(averages.values())
        said = "; ".join(f"{min(averages[label] for label in group):.1f} ({named(group)})" for group in groups)
        yield (
            f"Visual tokens at layer inputs go from {low:.1f} to {high:.1f} in one table, {above(low, high)}. Compare "
            f"within a budget: {said}."
        )


def above(low: float, high: float) -> str:
    """`5.0 % more`"""
    more = 100 * (high / low - 1)
    return f"{more:,.{1 if more < 100 else 0}f} % more"


def named(labels: Sequence[str]) -> str:
    """The first labels, and how many more."""
    more = len(labels) - NAMED
    return ", ".join(labels[:NAMED]) + (f" and {more} others" if more > 0 else "")


def prompts(
    found: Entering | None, prompt_tokens: pd.Series[int], geometry: ModelGeometry | None, early: bool | None = None
) -> Prompts:
    """Of the questions with an image. prompt_tokens: of every question, with all visual tokens; 0 where unknown. early:
    as in `leaves_early`."""
    if found is None:
        return Prompts(np.zeros(0), None, None)
    text = prompt_tokens.to_numpy(dtype=np.int64)[found.rows] - found.full
    flops = full = None
    if geometry is not None and geometry.num_layers == found.layers and (text >= 0).all():
        lengths, whole = (found.tokens[:, found.spans] + text[:, None]).T, found.full + text
        flops = prefill_flops(geometry, lengths, whole, early)
        full = prefill_flops(geometry, np.broadcast_to(whole, lengths.shape), whole, early)
    return Prompts(found.averages, flops, full)


def prefill_flops(
    geometry: ModelGeometry, lengths: NDArray[np.int64], full: NDArray[np.int64], early: bool | None
) -> float:
    """Mean over questions of what `cost.flops.engine_prefill` counts, where early is None of what `prefill` does.

    lengths: [layers, questions], tokens that enter; full: [questions], of the unpruned prompt.
    """
    if early is None:
        layers = tuple(decoder_layer(geometry, length, length) for length in lengths)
    else:
        layers = engine_layers(geometry, list(lengths), full, early)
    return float(sum(layer.mean() for layer in layers)) + lm_head(geometry, 1)


def leaves_early(manifest: Manifest, label: str) -> bool | None:
    """Whether pruned rows left inside of the layer before (`Method.early`); None for a run made before the engine left
    out dead rows at all."""
    said = manifest.methods.get(label, {}).get("early")
    return None if said is None else bool(said)


def model_sizes(manifest: Manifest) -> ModelGeometry | None:
    """The sizes of a run's model; None where its manifest lacks some."""
    try:
        return _SIZES.validate_python(manifest.model.get("geometry"))
    except ValidationError:
        return None


def cost_of(
    label: str, is_reference: bool, tokens: TokenStats, found: Sequence[Prompts], sizes: ModelGeometry | None
) -> Cost:
    """A method over its benchmarks; found: what its prompts cost on each that has any."""
    low, high = np.quantile(np.concatenate([p.tokens for p in found]), QUANTILES)
    flops, full = [p.flops for p in found if p.flops], [p.full_flops for p in found if p.full_flops]
    known = len(flops) == len(full) == len(found)
    return Cost(
        label=label,
        is_reference=is_reference,
        tokens=tokens.averages,
        low=float(low),
        high=float(high),
        kv_bytes=float(kv_bytes(sizes, [1]) * tokens.mean.sum()) if sizes else None,
        flops=float(np.mean(flops)) if known else None,
        full_flops=float(np.mean(full)) if known else None,
    )
