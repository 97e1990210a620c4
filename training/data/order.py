"""Which sample at which place: pure index arithmetic, nothing is read and nothing is remembered.

A permutation is computed, not stored: a Feistel network over the least power of two that holds the
range, walked on until the result lies inside it (cycle walking, Black and Rogaway 2002). So the order
of 25 million samples takes no memory, any place of it is found at once, and the state of a loader is
the number of the step.

Letters: N places asked for.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from training.data.random_numbers import GOLDEN, generator, key64, keys64, mix64

Indices = NDArray[np.int64]

_ROUNDS = 4
"""Double rounds. Luby and Rackoff need four single ones; small ranges want more."""


class Permutation:
    """A bijection of [0, size) for each key, computed place by place.

    Args:
        size: how many items; one for all places, or one for each.
        key: 64 bits; one for all places, or one for each.
    """

    def __init__(self, size: ArrayLike, key: ArrayLike) -> None:
        self._size = np.asarray(size, np.int64)
        if np.any(self._size < 1):
            raise ValueError(f"size must be at least 1, got {self._size.min()}")
        self._key = np.asarray(key, np.uint64)
        bits = np.ceil(np.log2(np.maximum(self._size, 1))).astype(np.int64)
        # log2 of a large number may round; one bit too many only walks longer, one too few is wrong
        bits = bits + ((np.int64(1) << bits) < self._size)
        self._right_bits = (bits // 2).astype(np.uint64)
        one = np.uint64(1)
        self._right_mask = (one << self._right_bits) - one
        self._left_mask = (one << (bits.astype(np.uint64) - self._right_bits)) - one

    def __call__(self, places: ArrayLike) -> Indices:
        """Item at each place, int64 ``[N]``; places must lie in [0, size)."""
        at = np.atleast_1d(np.asarray(places, np.int64))
        if at.size and (at.min() < 0 or np.any(at >= self._size)):
            raise ValueError(f"places must be 0 to size - 1, got {at.min()} to {at.max()}")
        fields = (self._size, self._key, self._right_bits, self._left_mask, self._right_mask)
        size, *rest = (np.broadcast_to(field, at.shape) for field in fields)
        item = _feistel(at.astype(np.uint64), *rest)
        outside = np.flatnonzero(item >= size.astype(np.uint64))
        while outside.size:
            item[outside] = _feistel(item[outside], *(field[outside] for field in rest))
            outside = outside[item[outside] >= size[outside].astype(np.uint64)]
        return item.astype(np.int64)


def _feistel(
    x: NDArray[np.uint64],
    key: NDArray[np.uint64],
    right_bits: NDArray[np.uint64],
    left_mask: NDArray[np.uint64],
    right_mask: NDArray[np.uint64],
) -> NDArray[np.uint64]:
    """A bijection of the numbers of (left + right) bits; the halves may differ by a bit."""
    left, right = x >> right_bits, x & right_mask
    for number in range(_ROUNDS):
        left = left ^ (mix64(right + key) & left_mask)
        right = right ^ (mix64(left - key) & right_mask)
        key = key + np.uint64(GOLDEN * (number + 1) % 2**64)
    return (left << right_bits) | right


class ShardOrder:
    """The order of one pool's rows, another in every epoch, that reads few shards at a time.

    Shards are permuted; then rows are permuted inside windows of ``window_shards`` of them. A reader
    that goes through it in order has at most two windows' shards in use.

    Args:
        shard_sizes: rows of each shard, in the order of the rows.
        seed: 64 bits.
        window_shards: shards whose rows are mixed with each other.
    """

    def __init__(self, shard_sizes: ArrayLike, seed: int, window_shards: int) -> None:
        self._sizes = np.asarray(shard_sizes, np.int64)
        if self._sizes.size == 0 or self._sizes.min() < 1:
            raise ValueError("shard_sizes must name at least one shard, none of them empty")
        if window_shards < 1:
            raise ValueError(f"window_shards must be at least 1, got {window_shards}")
        self._seed = seed
        self._window_shards = window_shards
        self._starts = np.concatenate([[0], np.cumsum(self._sizes)])
        self._epoch: tuple[int, Indices, Indices] | None = None

    @property
    def num_rows(self) -> int:
        """Rows of all shards."""
        return int(self._starts[-1])

    def rows(self, epoch: int, places: ArrayLike) -> Indices:
        """Row number at each place of an epoch, int64 ``[N]``; places in [0, num_rows)."""
        shards, ends = self._shards(epoch)
        at = np.atleast_1d(np.asarray(places, np.int64))
        if at.size and (at.min() < 0 or at.max() >= self.num_rows):
            raise ValueError(f"places must be 0 to {self.num_rows - 1}")
        # ends[i] is where the i-th shard of this epoch ends; a window ends with its last shard
        window = np.searchsorted(ends, at, side="right") // self._window_shards
        first = window * self._window_shards
        last = np.minimum(first + self._window_shards, len(shards)) - 1
        begin = np.where(first > 0, ends[first - 1], 0)
        keys = keys64(key64(self._seed, "window", epoch), window.astype(np.uint64))
        mixed = begin + Permutation(ends[last] - begin, keys)(at - begin)
        slot = np.searchsorted(ends, mixed, side="right")
        shard = shards[slot]
        within = mixed - (ends[slot] - self._sizes[shard])
        return np.asarray(self._starts[shard] + within, np.int64)

    def _shards(self, epoch: int) -> tuple[Indices, Indices]:
        """Shards in the order of one epoch, and the place at which each ends."""
        if self._epoch is None or self._epoch[0] != epoch:
            number = len(self._sizes)
            shards = Permutation(number, key64(self._seed, "shards", epoch))(np.arange(number))
            self._epoch = (epoch, shards, np.cumsum(self._sizes[shards]))
        return self._epoch[1], self._epoch[2]


CYCLE_STEPS = 1000
"""Steps after which every pool has had its share exactly; fine enough for shares of a thousandth."""


class Cycle:
    """Which of several pools each step draws from: exact shares in every cycle, mixed within it.

    Args:
        weights: of the pools, at least 0 and not all 0; one that is positive gets a step or more.
        seed: 64 bits.
        steps: length of a cycle.
    """

    def __init__(self, weights: Sequence[float], seed: int, steps: int = CYCLE_STEPS) -> None:
        self._steps = max(steps, 4 * len(weights))
        self._counts = largest_remainder(weights, self._steps)
        self._pools = np.repeat(np.arange(len(weights)), self._counts)
        self._seed = seed
        self._mixed: tuple[int, Indices] | None = None

    @property
    def shares(self) -> NDArray[np.float64]:
        """Share of the steps of each pool."""
        return self._counts / self._steps

    def at(self, step: int) -> tuple[int, int]:
        """Pool of a step, and how many steps of that pool came before."""
        cycle, place = divmod(step, self._steps)
        if self._mixed is None or self._mixed[0] != cycle:
            draw = generator(self._seed, "cycle", cycle)
            self._mixed = (cycle, draw.permutation(self._pools))
        pools = self._mixed[1]
        pool = int(pools[place])
        before = int(np.count_nonzero(pools[:place] == pool))
        return pool, cycle * int(self._counts[pool]) + before


def largest_remainder(weights: Sequence[float], total: int) -> Indices:
    """Whole numbers that sum to ``total`` in proportion to weights; at least 1 where positive."""
    shares = np.asarray(weights, np.float64)
    if shares.size == 0 or shares.min() < 0 or shares.sum() <= 0:
        raise ValueError(f"weights must be at least 0 and not all 0, got {list(weights)}")
    exact = shares / shares.sum() * total
    counts = np.maximum(np.floor(exact), shares > 0).astype(np.int64)
    while (over := int(counts.sum()) - total) > 0:  # the least were raised to 1: the most pay
        counts[np.argmax(counts)] -= over if counts.max() > over + 1 else 1
    rest = np.argsort(-(exact - counts), kind="stable")[: total - int(counts.sum())]
    counts[rest] += 1
    return counts
