"""Which clips look the same: 64-bit hashes of their keyframes, compared frame by frame.

Two clips are look-alikes when they have as many keyframes and the hashes of frames at the same
place differ by few bits on average. All pairs would be too many, so candidates are those that agree
exactly on some band (a piece of the whole signature), found by sorting; each candidate pair is then
measured. Groups are the connected components of the pairs that pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

HASHES_PER_CLIP = 8
"""Keyframes of a clip that are compared; the decoding pass keeps so many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dedup:
    """Which clips are the same."""

    copies: bool = True
    """Whether clips of a source whose bytes are those of an earlier source are dropped."""
    look_alikes: bool = True
    """Whether of clips that look the same only the best is kept."""
    max_distance_bits: float = 6.0
    """Hash bits of 64 that may differ between two look-alikes, mean over their keyframes."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.max_distance_bits <= 16.0:
            raise ValueError(
                f"max_distance_bits must be within 0..16 (32 is chance), "
                f"got {self.max_distance_bits}"
            )


BAND_BITS = 32
"""Half a frame's hash: of random hashes, 5 million clips share a band by chance 3,000 times."""
NEIGHBOURS = 8
"""How many followers within its band each clip is compared with, in the order of the next frame's
band: all pairs of small bands, a chain through large ones (the same picture a million times)."""
FLAT_BITS = 8
"""A hash with fewer bits set (or fewer clear) is of a picture without structure: all such look the
same, so it says nothing. A hash against the median sets 32 of 64 bits for any other picture."""
PAIRS_AT_ONCE = 1 << 18

Hashes = NDArray[np.uint64]
Indices = NDArray[np.int64]


def find_groups(hashes: Hashes, lengths: Indices, *, config: Dedup, threads: int = 1) -> Indices:
    """Groups of clips that look the same.

    Args:
        hashes: ``[N, HASHES_PER_CLIP]`` 64-bit hashes of each clip's keyframes, in their order.
        lengths: ``[N]`` how many of them each clip has.
        config: how alike two clips must be.
        threads: bands are sorted side by side; the result does not depend on it.

    Returns:
        ``[N]`` index of the first clip of each clip's group; -1 where it has no look-alike.
    """
    groups = np.full(len(hashes), -1, dtype=np.int64)
    for length in np.unique(lengths[lengths > 0]).tolist():
        rows = np.flatnonzero(lengths == length)
        rows = rows[~is_flat(hashes[rows, :length]).all(axis=1)]
        signatures = np.ascontiguousarray(hashes[rows, :length])
        equal = _equal_pairs(signatures)
        once = np.ones(len(rows), dtype=bool)
        once[equal[:, 1]] = False
        different = np.flatnonzero(once)
        similar = _similar_pairs(signatures[different], config.max_distance_bits, threads)
        members, first = _components(np.concatenate([equal, different[similar]]))
        groups[rows[members]] = rows[first]
    return groups


def is_flat(hashes: Hashes) -> NDArray[np.bool_]:
    """Whether each hash is of a picture without structure, such as a black one."""
    ones = np.bitwise_count(hashes)
    return (ones < FLAT_BITS) | (ones > 64 - FLAT_BITS)


def distances(a: Hashes, b: Hashes) -> NDArray[np.float32]:
    """Mean Hamming distance of aligned hashes, frames that are flat in both left out.

    Args:
        a: ``[N, T]`` hashes.
        b: ``[N, T]`` hashes to compare with, row by row.

    Returns:
        ``[N]`` bits, 0..64; 64 where all frames are flat in both.
    """
    telling = ~(is_flat(a) & is_flat(b))
    bits = (np.bitwise_count(a ^ b) * telling).sum(axis=1, dtype=np.float32)
    count = telling.sum(axis=1, dtype=np.float32)
    return np.where(count > 0, bits / np.maximum(count, 1), np.float32(64))


def _equal_pairs(signatures: Hashes) -> Indices:
    """Pairs ``[P, 2]`` of a row and another with the very same signature, each row once as second.

    Without them a million copies of one picture would fill every band.
    """
    mixed = np.zeros(len(signatures), dtype=np.uint64)
    for column in signatures.T:
        mixed = (mixed ^ column) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
    order = np.argsort(mixed, kind="stable")
    before, after = order[:-1], order[1:]
    maybe = np.flatnonzero(mixed[before] == mixed[after])
    before, after = before[maybe], after[maybe]
    same = (signatures[before] == signatures[after]).all(axis=1)
    return np.stack([before[same], after[same]], axis=1)


def _similar_pairs(signatures: Hashes, max_distance_bits: float, threads: int) -> Indices:
    """Pairs ``[P, 2]`` of rows that share a band and are near enough."""
    frames = range(signatures.shape[1])
    bands = [(frame, shift) for frame in frames for shift in range(0, 64, BAND_BITS)]

    def work(band: tuple[int, int]) -> Indices:
        found = [
            pairs[distances(signatures[pairs[:, 0]], signatures[pairs[:, 1]]) <= max_distance_bits]
            for pairs in _candidates(signatures, *band)
        ]
        return np.concatenate([np.zeros((0, 2), dtype=np.int64), *found])

    with ThreadPoolExecutor(threads) as pool:
        return np.concatenate(list(pool.map(work, bands)))


def _candidates(signatures: Hashes, frame: int, shift: int) -> Iterator[Indices]:
    """Pairs of rows that agree on one band of one frame's hash, some at a time."""
    rows = np.flatnonzero(~is_flat(signatures[:, frame]))
    following = (frame + 1) % signatures.shape[1]
    half = np.uint64(BAND_BITS)
    keys = signatures[rows, frame] >> np.uint64(shift) << half
    keys |= signatures[rows, following] >> np.uint64(shift) & np.uint64((1 << BAND_BITS) - 1)
    order = np.argsort(keys, kind="stable")
    rows, keys = rows[order], keys[order] >> half
    for lag in range(1, NEIGHBOURS + 1):
        starts = np.flatnonzero(keys[lag:] == keys[:-lag])
        if len(starts) == 0:
            return
        for begin in range(0, len(starts), PAIRS_AT_ONCE):
            some = starts[begin : begin + PAIRS_AT_ONCE]
            yield np.stack([rows[some], rows[some + lag]], axis=1)


def _components(pairs: Indices) -> tuple[Indices, Indices]:
    """Rows that are in some pair, and for each the smallest row it is connected with."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    members, which = np.unique(pairs, return_inverse=True)
    if len(members) == 0:
        return members, members
    which = which.reshape(-1, 2)
    size = len(members)
    graph = coo_array((np.ones(len(which), dtype=bool), (which[:, 0], which[:, 1])), (size, size))
    _, labels = connected_components(graph, directed=False)
    first = np.full(labels.max() + 1, size, dtype=np.int64)
    np.minimum.at(first, labels, np.arange(size))
    return members, members[first[labels]]
