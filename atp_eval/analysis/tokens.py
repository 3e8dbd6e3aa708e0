"""Visual tokens of many samples: averages in every convention and tokens per layer, read from stored KeepTraces."""

from __future__ import annotations

import json
from base64 import b64decode
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Signature = tuple[int, int, tuple[tuple[int, int], ...]]  # cells of the grid, layers, (layer, tokens) of each stage


class TokenAverages(NamedTuple):
    """Mean visual tokens a sample.

    input: entering a layer, averaged over all decoder layers, the convention used throughout; output: leaving a layer;
    final: entering the last layer; full: of the unpruned grid.
    """

    input: float
    output: float
    final: float
    full: float


@dataclass(frozen=True)
class TokenStats:
    """Tokens of samples with an image.

    samples: how many. averages: means over them. mean, low, high: [layers], tokens that enter each layer: mean,
    least and most over samples.
    """

    samples: int
    averages: TokenAverages
    mean: NDArray[np.float64]
    low: NDArray[np.int64]
    high: NDArray[np.int64]


def signature(trace: str) -> Signature:
    """What a trace (`KeepTrace.to_json()` as text) says about counts, without unpacking its keep masks.

    Padding bits of a packed mask are zero, so the count of its set bits is the count of kept cells.
    """
    data = json.loads(trace)
    rows, cols = data["grid"]
    stages = tuple(
        (int(layer), int(merged) + int.from_bytes(b64decode(packed), "big").bit_count())
        for layer, merged, packed in data["stages"]
    )
    return int(rows) * int(cols), int(data["layers"]), stages


def count_tokens(traces: Iterable[str | None]) -> Counter[Signature]:
    """How many samples there are of each signature; samples without an image are left out."""
    # Millions of samples have few distinct traces of methods that look at no content: each is parsed once.
    texts = Counter(t for t in traces if isinstance(t, str))
    found: Counter[Signature] = Counter()
    for text, count in texts.items():
        found[signature(text)] += count
    return found


def token_stats(counts: Counter[Signature]) -> TokenStats | None:
    """Averages over samples; None without any. Raises ValueError where samples differ in their number of layers."""
    counts = Counter({s: n for s, n in counts.items() if s[0] > 0})
    if not counts:
        return None
    if len({layers for _, layers, _ in counts}) > 1:
        raise ValueError("samples of models with different numbers of layers cannot be averaged")
    tokens = np.stack([per_layer(s) for s in counts]).astype(np.float64)  # [signatures, layers]
    weights = np.array(list(counts.values()), dtype=np.float64)
    mean = np.average(tokens, axis=0, weights=weights)
    full = np.average([s[0] for s in counts], weights=weights)
    leaving = np.append(mean[1:], mean[-1])
    averages = TokenAverages(float(mean.mean()), float(leaving.mean()), float(mean[-1]), float(full))
    return TokenStats(
        int(weights.sum()), averages, mean, tokens.min(0).astype(np.int64), tokens.max(0).astype(np.int64)
    )


def per_layer(s: Signature) -> NDArray[np.int64]:
    """[layers]: tokens that enter each layer."""
    cells, layers, stages = s
    tokens = np.full(layers, cells, dtype=np.int64)
    for layer, count in stages:
        tokens[layer:] = count
    return tokens


def combine(parts: Sequence[TokenStats]) -> TokenStats | None:
    """Several benchmarks together, weighing alike; None without any, or where their numbers of layers differ."""
    if not parts or len({len(p.mean) for p in parts}) > 1:
        return None
    averages = TokenAverages(*np.mean([p.averages for p in parts], axis=0).tolist())
    return TokenStats(
        sum(p.samples for p in parts),
        averages,
        np.mean([p.mean for p in parts], axis=0),
        np.min([p.low for p in parts], axis=0),
        np.max([p.high for p in parts], axis=0),
    )
