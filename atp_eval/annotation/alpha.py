"""Krippendorff's alpha: agreement among any number of annotators, beyond chance, with votes that may be missing.

Written from K. Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011), sections C to E: alpha is one less
observed over expected disagreement, both from the matrix of coincidences. Interval data and ratios are not needed here.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Distance = Literal["nominal", "ordinal"]


def coincidences(counts: NDArray[Any]) -> NDArray[np.float64]:
    """[units, V] how many annotators gave each value -> [units, V, V] pairs of values within a unit, over m - 1 of its
    m votes. A unit with fewer than two votes has no pairs."""
    counts = counts.astype(np.float64)
    votes = counts.sum(1)
    pairs = counts[:, :, None] * counts[:, None, :] - counts[:, :, None] * np.eye(counts.shape[1])
    return np.where(votes[:, None, None] > 1, pairs / np.maximum(votes - 1, 1)[:, None, None], 0.0)


def alpha(totals: NDArray[np.float64], distance: Distance) -> NDArray[np.float64]:
    """[..., V, V] coincidences, values in their order -> alpha [...]. NaN where nothing is paired or all is alike.

    nominal: any two values differ alike. ordinal: by how many votes lie between them.
    """
    margins = totals.sum(-1)
    if distance == "nominal":
        squared: NDArray[np.float64] = 1.0 - np.eye(totals.shape[-1])
    else:
        middles = margins.cumsum(-1) - margins / 2  # sum of margins from c to k less half of both ends
        squared = (middles[..., :, None] - middles[..., None, :]) ** 2
    observed = (totals * squared).sum((-2, -1))
    expected = (margins[..., :, None] * margins[..., None, :] * squared).sum((-2, -1))
    votes = margins.sum(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(expected > 0, 1.0 - (votes - 1) * observed / expected, np.nan)
