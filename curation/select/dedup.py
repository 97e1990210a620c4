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
import pyarrow as pa
import pyarrow.compute as pc
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
    """Hash bits of 64 that may differ between two look-alikes, mean over their keyframes.

    Measured on Big Buck Bunny in spans of 4 s, 2 frames a second: the nearest of 11,026 pairs of
    different spans were 9.5 bits apart (neighbours within one long shot). The same span coded
    again at 360 lines was 2.3 apart (median; 99 %: 6.1), at 180 lines 2.0 (7.5), brighter 1.5
    (4.8), squeezed to 4:3 1.8 (3.3), cropped by 4 % 5.8 (10.9). Among the 92 scenes of the film and
    its trailer the two shots that the trailer takes over whole were 1.0 and 2.3 from the film's,
    the next pair 10.3.
    """
    max_image_distance_bits: float = 2.0
    """Largest distance, in bits of one 64-bit hash, of a picture or a clip with a single keyframe.

    One hash is less evidence than eight: of 680,473 pairs of frames over 10 s apart in the same
    film 6 were within 4 bits and none within 2. Coded again at 180 lines, half were within 2.
    """
    mirrored: bool = False
    """Whether a clip with left and right exchanged looks the same; doubles the look-alike step."""
    max_mirrored_distance_bits: float = 8.0
    """As max_distance_bits, of a clip and the mirrored hashes of another.

    Of 227 clips of nine films, mirrored, halved in size and coded again as JPEG of quality 50, half
    were 3.8 bits from themselves (95 %: 7.0); the nearest two of different clips 18.5.
    """

    second_look: bool = False
    """Whether near copies in other sources are found that their hashes alone are too far for: cropped, with a
    logo or subtitles, beginning later. Reads embeddings and compares all clips of a cluster; without
    clusters (`--clusters.num`), all with each other: not for more than about 50,000 clips."""
    max_second_look_bits: float = 18.0
    """As max_distance_bits, at the best shift of the keyframes, of clips whose embeddings are close.

    Nearest of the clips of different films that show different things: 19.6 (docs/verdicts.md).
    """
    max_second_look_distance: float = 0.3
    """1 - cosine of embeddings that count as close for the second look; measured for EfficientNet-Lite0, by
    which the twenty nearest pairs of different films are 0.47 apart at least."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.max_second_look_bits <= 24.0:
            raise ValueError(
                f"max_second_look_bits must be within 0..24 (32 is chance), got "
                f"{self.max_second_look_bits}"
            )
        if not 0.0 < self.max_second_look_distance <= 1.0:
            raise ValueError(
                f"max_second_look_distance must be over 0 and at most 1, got "
                f"{self.max_second_look_distance}"
            )
        for name in ("max_distance_bits", "max_image_distance_bits", "max_mirrored_distance_bits"):
            value = getattr(self, name)
            if not 0.0 <= value <= 16.0:
                raise ValueError(f"{name} must be within 0..16 (32 is chance), got {value}")


BLOCK_BITS = 16
BANDS = ((0, 1), (1, 3), (2, 3), (0, 3), (0, 2), (1, 2))
"""A band is two of the four blocks of a frame's hash: two flipped bits leave at least one of the
six whole. Random clips rarely share one: of 5 million, 3,000 pairs a band."""
FEW_FRAMES = 4
"""Clips with more frames use every other band of each frame, which costs half. Of 887 spans coded
again (Big Buck Bunny, 180 to 720 lines) and within 6 bits, 99.8 % then shared one; 100 % with all
six; 99.1 % with the two halves of each hash."""
NEIGHBOURS = 8
"""How many followers within its band each clip is compared with, in the order of the next frame's
hash: all pairs of small bands, a chain through large ones (the same picture a million times)."""
FLAT_BITS = 8
"""A hash with fewer bits set (or fewer clear) is of a picture without structure: all such look the
same, so it says nothing. A hash against the median sets 32 of 64 bits for any other picture."""
PAIRS_AT_ONCE = 1 << 18
MIRRORING = np.uint64(0x5555555555555555)
"""Bits that change when left and right are exchanged: DCT-II coefficients of odd horizontal frequency change
their sign, and bit ``8 v + u`` tells on which side of the median, about 0, that of frequency u + 1 lies."""

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
        signatures = hashes[:, :length]
        rows = _telling_rows(signatures, lengths == length)
        equal = _equal_pairs(signatures, rows)
        rows = np.setdiff1d(rows, equal[:, 1], assume_unique=True)
        limit = config.max_image_distance_bits if length == 1 else config.max_distance_bits
        similar = _similar_pairs(signatures, rows, limit, threads)
        pairs = [equal, similar]
        if config.mirrored:
            limit = limit if length == 1 else config.max_mirrored_distance_bits
            pairs.append(_mirrored_pairs(signatures, rows, limit, threads))
        members, first = components(np.concatenate(pairs))
        groups[members] = first
    return groups


def is_flat(hashes: Hashes) -> NDArray[np.bool_]:
    """Whether each hash is of a picture without structure, such as a black one."""
    ones = np.bitwise_count(hashes)
    return (ones < FLAT_BITS) | (ones > 64 - FLAT_BITS)


def mirrored(hashes: Hashes) -> Hashes:
    """Hashes of the pictures with left and right exchanged; flat ones stay flat."""
    return np.where(is_flat(hashes), hashes, hashes ^ MIRRORING)


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


def _telling_rows(signatures: Hashes, wanted: NDArray[np.bool_]) -> Indices:
    """Those of the wanted rows that have a frame with structure."""
    told = np.zeros(len(signatures), dtype=bool)
    for column in signatures.T:  # one column at a time: a whole copy would be most of the memory
        told |= ~is_flat(column)
    return np.flatnonzero(told & wanted)


def _equal_pairs(signatures: Hashes, rows: Indices) -> Indices:
    """Pairs ``[P, 2]`` of a row and a later one with the very same signature.

    Each row is at most once the later one. Without these pairs a million copies of one picture
    would fill every band.
    """
    mixed = np.zeros(len(rows), dtype=np.uint64)
    for column in signatures.T:
        mixed = (mixed ^ column[rows]) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
    parts = mixed.astype("<u8", copy=False).view("<u2").reshape(-1, 4)
    shared = _shared(parts[:, 3], parts[:, 2])
    rows, mixed = rows[shared], mixed[shared]
    order = np.argsort(mixed, kind="stable")
    maybe = np.flatnonzero(mixed[order[:-1]] == mixed[order[1:]])
    before, after = rows[order[maybe]], rows[order[maybe + 1]]
    same = (signatures[before] == signatures[after]).all(axis=1)
    return np.stack([before[same], after[same]], axis=1)


def _shared(high: NDArray[np.uint16], low: NDArray[np.uint16]) -> Indices:
    """Places of the keys that appear more than once, rising by key and then by place.

    Key and place are sorted as one number: numpy sorts nine times as fast as it finds an order.

    Args:
        high: ``[N]`` upper half of each key.
        low: ``[N]`` lower half.
    """
    packed = np.empty((len(high), 4), dtype="<u2")
    packed[:, 3], packed[:, 2] = high, low
    halves = packed.view("<u4")
    halves[:, 0] = np.arange(len(high), dtype=np.uint32)
    packed.view("<u8").reshape(-1).sort()
    keys = halves[:, 1]
    first = np.flatnonzero(keys[1:] == keys[:-1])
    return halves[np.union1d(first, first + 1), 0].astype(np.int64)


def _similar_pairs(
    signatures: Hashes, rows: Indices, max_distance_bits: float, threads: int
) -> Indices:
    """Pairs ``[P, 2]`` of rows that share a band and are near enough."""

    def work(frame: int) -> Indices:
        found = [
            pairs[distances(signatures[pairs[:, 0]], signatures[pairs[:, 1]]) <= max_distance_bits]
            for pairs in _candidates(signatures, rows, frame)
        ]
        return np.concatenate([np.zeros((0, 2), dtype=np.int64), *found])

    with ThreadPoolExecutor(threads) as pool:
        return np.concatenate(list(pool.map(work, range(signatures.shape[1]))))


def _mirrored_pairs(
    signatures: Hashes, rows: Indices, max_distance_bits: float, threads: int
) -> Indices:
    """Pairs ``[P, 2]`` of different rows of which one is near the mirrored other."""
    count = len(signatures)
    both = np.concatenate([signatures, mirrored(signatures)])
    found = _similar_pairs(both, np.concatenate([rows, rows + count]), max_distance_bits, threads)
    is_across = (found >= count).sum(axis=1) == 1
    return found[is_across] % count


def _candidates(signatures: Hashes, rows: Indices, frame: int) -> Iterator[Indices]:
    """Pairs of rows that agree on two blocks of one frame's hash, some at a time."""
    hashes = signatures[rows, frame]
    telling = ~is_flat(hashes)
    if not telling.all():
        rows, hashes = rows[telling], hashes[telling]
    blocks = hashes.astype("<u8").view("<u2").reshape(-1, 64 // BLOCK_BITS)
    bands = BANDS if signatures.shape[1] <= FEW_FRAMES else BANDS[frame % 2 :: 2]
    for a, b in bands:
        shared = _shared(blocks[:, a], blocks[:, b])
        keys = blocks[shared, a].astype(np.uint32) << np.uint32(BLOCK_BITS) | blocks[shared, b]
        yield from _neighbours(signatures, frame, rows[shared], keys)


def _neighbours(
    signatures: Hashes, frame: int, rows: Indices, keys: NDArray[np.uint32]
) -> Iterator[Indices]:
    """Pairs of rows with the same key that are close in the order of the next frame's hash."""
    following = (frame + 1) % signatures.shape[1]
    order = np.lexsort([signatures[rows, following], keys])
    rows, keys = rows[order], keys[order]
    for lag in range(1, NEIGHBOURS + 1):
        starts = np.flatnonzero(keys[lag:] == keys[:-lag])
        if len(starts) == 0:
            return
        for begin in range(0, len(starts), PAIRS_AT_ONCE):
            some = starts[begin : begin + PAIRS_AT_ONCE]
            yield np.stack([rows[some], rows[some + lag]], axis=1)


def components(pairs: Indices) -> tuple[Indices, Indices]:
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


@dataclass(frozen=True, slots=True)
class LookAlikes:
    """Clips that look like another, their positions rising.

    Args:
        positions: where they are in the corpus.
        first: position of the first clip of each one's group.
    """

    positions: np.ndarray
    first: np.ndarray

    @property
    def pairs(self) -> np.ndarray:
        """``[N, 2]`` positions of each and of the first of its group."""
        return np.stack([self.positions, self.first], axis=1)


def later_copies(sources: pa.Table) -> np.ndarray:
    """For each source, whether one before it has the same digest; rejected ones have no clips."""
    digests = pc.if_else(pc.is_null(sources["source_reject"]), sources["source_sha256"], None)
    codes = digests.combine_chunks().dictionary_encode().indices.fill_null(-1).to_numpy()
    first = np.zeros(len(codes), dtype=bool)
    first[np.unique(codes, return_index=True)[1]] = True
    return ~first & (codes >= 0)
