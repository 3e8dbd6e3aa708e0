"""Adding up which cells methods keep: overlaps of pairs, places in the picture, cells asked about; sums by picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse
from scipy.special import gammaln

from atp_eval.analysis.cells import Kept, Shape, asked_words, cell_sums, place, read_kept
from atp_eval.analysis.keepmap import KeepCounts
from atp_eval.analysis.question_sums import MOST_CLUSTERS, ratio
from atp_eval.analysis.traces import Words, count

Vector = NDArray[np.float64]


class Running:
    """Sums by cluster of quantities that change at some layers only; what is unknown (NaN) is left out.

    starts: S layers as in Kept. sums: [clusters, S, K].
    """

    def __init__(self, columns: int) -> None:
        self.starts: tuple[int, ...] = (0,)
        self.sums = np.zeros((0, 1, columns))

    def add(self, starts: Sequence[int], values: Vector, by_cluster: sparse.csr_array) -> None:
        """starts: S layers; values: [n, S, K]; by_cluster: [clusters, n], 1 where a row belongs to a cluster."""
        union = tuple(sorted({*self.starts, *starts}))
        clusters = by_cluster.shape[0]
        new = by_cluster @ np.nan_to_num(values).reshape(len(values), -1)
        new = new.reshape(clusters, len(starts), -1)[:, place(starts, union)]
        # Up to here nothing changed at a layer that is new: it has the sums of the layer before.
        old = self.sums[:, place(self.starts, union)]
        new[: len(old)] += old
        self.starts, self.sums = union, new

    @property
    def samples(self) -> int:
        """How many there were, where most were known."""
        return int(self.sums[..., -1].sum(0).max())


class ByChance:
    """Expected Jaccard index of two random sets of `first` and `second` of `cells`, exactly: the size of their
    intersection is hypergeometric with mean first * second / cells (Feller, Vol. 1, II.6).

    That mean over the union's would be too low for small sets: of two sets of one cell, by half.
    """

    def __init__(self, cells: int) -> None:
        self.cells = cells
        self.logs = gammaln(np.arange(cells + 1) + 1.0)
        self.table = np.full((cells + 1, cells + 1), np.nan, dtype=np.float64)

    def __call__(self, first: NDArray[np.int64], second: NDArray[np.int64]) -> Vector:
        """Of equal shapes; NaN where either is 0."""
        small, large = np.minimum(first, second), np.maximum(first, second)
        found = self.table[small, large]
        todo = np.isnan(found) & (small > 0)
        for a, b in {(int(a), int(b)) for a, b in zip(small[todo], large[todo], strict=True)}:
            self.table[a, b] = self._expected(a, b)
        return self.table[small, large]

    def _expected(self, a: int, b: int) -> float:
        both = np.arange(max(0, a + b - self.cells), a + 1)
        logs, n = self.logs, self.cells
        ways = logs[a] - logs[both] - logs[a - both] + logs[n - a] - logs[b - both] - logs[n - a - b + both]
        chance = np.exp(ways - ways.max())
        return float((chance * both / (a + b - both)).sum() / chance.sum())


class Tally:
    """What a pass over the records adds up.

    pairs: of methods that are compared, their Jaccard index, how much more it is than by chance, and samples. places:
    of methods, mean row and column, share of all cells, and samples. recalls: share of the cells asked about, how much
    more it is than of all cells, and samples. asked: mean row and column of the cells asked about, and samples.
    merged: methods with tokens that stand for no cell. maps: where methods' cells stay. codes: of pictures.
    """

    def __init__(self, shape: Shape, groups: Sequence[Sequence[str]]) -> None:
        self.shape = shape
        pairs = [pair for group in groups for pair in combinations(group, 2)]
        self.pairs = {pair: Running(3) for pair in dict.fromkeys(pairs)}
        self.places = {label: Running(4) for group in groups for label in group}
        self.recalls = {label: Running(3) for label in self.places}
        self.asked = Running(3)
        self.merged: set[str] = set()
        self.codes: dict[str, int] = {}
        self.chance = ByChance(shape.cells)
        self.maps = {label: KeepCounts(shape) for label in self.places}

    @property
    def clusters(self) -> int:
        """How many sums by picture there are."""
        return min(len(self.codes), MOST_CLUSTERS)

    def add(self, benchmark: str, frames: Mapping[str, pd.DataFrame]) -> None:
        """The rows (COLUMNS) that the methods have of the same documents of a benchmark."""
        frames = {label: f.set_index("doc_id") for label, f in frames.items() if label in self.places}
        if not frames:
            return
        rows = pd.concat([f[["image_id", "asked_map"]] for f in frames.values()]).groupby(level=0).first()
        by_cluster = self._clusters(benchmark, rows["image_id"])
        known, asked = asked_words(rows["asked_map"], self.shape)
        wanted = count(asked)
        known &= wanted > 0
        places = self._middle(asked, wanted)[:, None]
        self.asked.add((0,), with_count(places, known[:, None, None]), by_cluster)
        kept = {label: read_kept(f["trace"].reindex(rows.index), self.shape) for label, f in frames.items()}
        sizes = {label: count(k.words) for label, k in kept.items()}
        for label, k in kept.items():
            self.merged |= {label} if k.merged else set()
            self.maps[label].add(k)
            there = (k.known[:, None] & (sizes[label] > 0))[..., None]
            means, share = self._middle(k.words, sizes[label]), sizes[label] / self.shape.cells
            values = np.concatenate([means, share[..., None]], axis=-1)
            self.places[label].add(k.starts, with_count(values, there), by_cluster)
            recall = ratio(count(k.words & asked[:, None]), wanted[:, None])
            recall = np.stack([recall, recall - share], axis=-1)
            self.recalls[label].add(k.starts, with_count(recall, there & known[:, None, None]), by_cluster)
        for (first, second), running in self.pairs.items():
            if first in kept and second in kept:
                starts, values = self._overlap(kept[first], kept[second])
                running.add(starts, values, by_cluster)

    def _overlap(self, a: Kept, b: Kept) -> tuple[tuple[int, ...], Vector]:
        """S layers, and [n, S, 3]: the Jaccard index, how much more it is than chance's, and 1; NaN where undefined."""
        starts = tuple(sorted({*a.starts, *b.starts}))
        first, second = a.at(starts), b.at(starts)
        sizes = count(first), count(second)
        both = count(first & second)
        jaccard = ratio(both, sizes[0] + sizes[1] - both)
        there = (a.known & b.known)[:, None] & (sizes[0] > 0) & (sizes[1] > 0)
        values = np.stack([jaccard, jaccard - self.chance(*sizes)], axis=-1)
        return starts, with_count(values, there[..., None])

    def _middle(self, words: Words, sizes: NDArray[np.int64]) -> Vector:
        """[..., W] -> [..., 2]: mean row and column in [0, 1], 0.5 where there is only one; NaN of no cells."""
        row_and_column = np.stack(np.divmod(np.arange(self.shape.cells), self.shape.cols), axis=1)
        means = ratio(cell_sums(words, row_and_column.astype(np.float32)), sizes[..., None])
        last = np.array([self.shape.rows, self.shape.cols]) - 1
        return np.where(last > 0, means / np.maximum(last, 1), means + 0.5)

    def _clusters(self, benchmark: str, images: pd.Series[str]) -> sparse.csr_array:
        """[clusters, n]: which picture each document shows; one without stands alone."""
        names = [i if isinstance(i, str) else f"{benchmark}/{doc}" for doc, i in zip(images.index, images, strict=True)]
        codes = [self.codes.setdefault(name, len(self.codes)) % MOST_CLUSTERS for name in names]
        shape = (self.clusters, len(codes))
        return sparse.coo_array((np.ones(len(codes)), (codes, np.arange(len(codes)))), shape=shape).tocsr()


def with_count(values: Vector, there: NDArray[np.bool_]) -> Vector:
    """[n, S, K] -> [n, S, K + 1], a 1 behind; NaN where there [n, S, 1] is nothing."""
    return np.where(there, np.concatenate([values, np.ones((*values.shape[:2], 1))], axis=-1), np.nan)
