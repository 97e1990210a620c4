"""Counters that are filled part by part and can be added up: nothing here grows with the corpus.

Adding up the counters of two halves gives the counter of the whole exactly, in any order: all state
is whole numbers (and minima and maxima).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

QUANTA_PER_UNIT = 1 << 20
"""Values are summed as whole millionths, so that the order of adding changes nothing."""
LARGEST = float(1 << 20)
"""Values beyond it enter the mean as it: the sum of four million rows stays within 64 bits."""
MAX_ROWS = 1 << 22
SKETCH_SHIFT = 17
"""A float32 without its lowest 17 bits: 64 bins a doubling, at most 0.8 % from their middle."""
MAX_WORDS = 10_000
"""Different texts that a tally tells apart; vocabularies are smaller, given texts may not be."""
MAX_WORD_CHARS = 80


@dataclass(slots=True)
class Distribution:
    """How many values fall into each of some fixed bins, with mean, quantiles and extremes.

    Args:
        edges: rising; bin i holds ``edges[i] <= value < edges[i + 1]``; may begin or end infinite.
    """

    edges: tuple[float, ...]
    counts: list[int] = field(init=False)
    outside: int = 0
    missing: int = 0
    low: float = np.inf
    high: float = -np.inf
    _quanta: int = 0
    _sketch: Counter[int] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        if len(self.edges) < 2 or list(self.edges) != sorted(set(self.edges)):
            raise ValueError(f"edges must rise and be at least two, got {self.edges}")
        self.counts = [0] * (len(self.edges) - 1)

    @property
    def num_values(self) -> int:
        """Finite values seen."""
        return sum(self.counts) + self.outside

    def add(self, values: NDArray[np.floating]) -> None:
        """Count some values; NaN and infinite ones count as missing."""
        assert len(values) <= MAX_ROWS, f"{len(values)} values at once"
        finite = np.asarray(values, dtype=np.float64)
        finite = finite[np.isfinite(finite)]
        self.missing += len(values) - len(finite)
        if not len(finite):
            return
        where = np.searchsorted(self.edges, finite, side="right")
        counted = np.bincount(where, minlength=len(self.edges) + 1)
        self.counts = [a + int(b) for a, b in zip(self.counts, counted[1:-1], strict=True)]
        self.outside += int(counted[0] + counted[-1])
        self.low, self.high = (
            min(self.low, finite.min().item()),
            max(self.high, finite.max().item()),
        )
        clipped = np.clip(finite, -LARGEST, LARGEST)
        self._quanta += int(np.rint(clipped * QUANTA_PER_UNIT).astype(np.int64).sum())
        keys, sizes = np.unique(_sketch_bins(finite), return_counts=True)
        self._sketch.update(dict(zip(keys.tolist(), sizes.tolist(), strict=True)))

    def merge(self, other: Distribution) -> None:
        """Add up with a counter over other values."""
        if self.edges != other.edges:
            raise ValueError(f"edges differ: {self.edges} and {other.edges}")
        self.counts = [a + b for a, b in zip(self.counts, other.counts, strict=True)]
        self.outside += other.outside
        self.missing += other.missing
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)
        self._quanta += other._quanta
        self._sketch.update(other._sketch)

    @property
    def mean(self) -> float | None:
        """Mean of the values; None without any."""
        n = self.num_values
        return self._quanta / QUANTA_PER_UNIT / n if n else None

    def quantile(self, q: float) -> float | None:
        """The value that a share ``q`` of the values does not exceed, within 0.8 %.

        It is the inverted-CDF quantile up to the width of the sketch's bins; None without values.
        """
        n = self.num_values
        if not n:
            return None
        rank, seen = max(1, int(np.ceil(q * n))), 0
        for key in sorted(self._sketch):
            seen += self._sketch[key]
            if seen >= rank:
                return min(max(_sketch_middle(key), self.low), self.high)
        raise AssertionError("the sketch holds as many values as the bins")


def _sketch_bins(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Number of the sketch bin of each value; bins rise with the value, sign included."""
    bits = values.astype(np.float32).view(np.int32).astype(np.int64)
    return np.where(bits >= 0, bits >> SKETCH_SHIFT, -1 - ((bits & 0x7FFFFFFF) >> SKETCH_SHIFT))


def _sketch_middle(key: int) -> float:
    """Middle of a sketch bin; 0 for the one that holds 0."""
    sign, place = (1, key) if key >= 0 else (-1, -1 - key)
    if place == 0:
        return 0.0
    ends = np.array([place << SKETCH_SHIFT, (place + 1) << SKETCH_SHIFT], dtype=np.int32)
    return sign * float(ends.view(np.float32).astype(np.float64).mean())


@dataclass(slots=True)
class Tally:
    """How often each text occurs.

    Texts are cut after 80 characters. Of more than ten thousand different ones, those that come
    later are counted together as `others`; below that, order changes nothing.
    """

    counts: Counter[str] = field(default_factory=Counter)
    missing: int = 0
    others: int = 0

    @property
    def num_values(self) -> int:
        """Texts seen."""
        return self.counts.total() + self.others

    def add(self, values: pa.Array | pa.ChunkedArray) -> None:
        """Count some texts; nulls count as missing."""
        for pair in values.value_counts().to_pylist():
            if pair["values"] is None:
                self.missing += pair["counts"]
            else:
                self._count(pair["values"][:MAX_WORD_CHARS], pair["counts"])

    def merge(self, other: Tally) -> None:
        """Add up with a counter over other texts."""
        self.missing += other.missing
        self.others += other.others
        for word, count in other.counts.items():
            self._count(word, count)

    def _count(self, word: str, count: int) -> None:
        if word in self.counts or len(self.counts) < MAX_WORDS:
            self.counts[word] += count
        else:
            self.others += count

    def ranked(self) -> list[tuple[str, int]]:
        """Texts and counts, most frequent first, equal ones by the alphabet."""
        return sorted(self.counts.items(), key=lambda pair: (-pair[1], pair[0]))


def range_labels(edges: Sequence[float], *, whole: bool = False) -> list[str]:
    """Names of bins: '<2', '2-4', '>=20'; of whole numbers '1-2', '3', '13+'."""
    return [
        _whole_label(low, high) if whole else _range_label(low, high)
        for low, high in pairwise(edges)
    ]


def _range_label(low: float, high: float) -> str:
    if np.isinf(low):
        return f"<{high:g}"
    return f">={low:g}" if np.isinf(high) else f"{low:g}-{high:g}"


def _whole_label(low: float, high: float) -> str:
    if np.isinf(high):
        return f"{low:g}+"
    return f"{low:g}" if high - low == 1 else f"{low:g}-{high - 1:g}"
