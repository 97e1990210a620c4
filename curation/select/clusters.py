"""Clips by what they show: spherical k-means over the embeddings, and neighbours within a cluster.

The centres are found once, on a sample of the corpus, and stay in `clusters/`: clips of later
deliveries are put to the same centres, so that a cluster's number means the same in every generation.
Neighbours are pairs of one cluster whose embeddings are close; a pair that a boundary divides is not
found (as in SemDeDup, 2303.09540). Vectors are compared as they come from a file on disk, half
precision, so that memory does not grow with their width.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curation.corpus.scratch import full_disk_named
from curation.select.second_look import SecondLook

SAMPLES_PER_CLUSTER = 64
"""Clips a centre is found from; faiss asks for 39 at least and takes 256 at most."""
ITERATIONS = 12
"""Rounds of k-means at most."""
ROWS_AT_ONCE = 4096
COMPARED_AT_ONCE = 1024
MAX_COMPARED = 1 << 16
"""Clips of one cluster that each is compared with at most, the next ones by distance from the centre."""
NEIGHBOURS = 8
"""Pairs that are kept of one clip: enough to hold together what is alike."""

Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Clusters:
    """Clips by what they show."""

    num: int = 0
    """Clusters of the embeddings; 0 makes none. About one for a thousand clips; costs grow with it."""
    neighbour_distance: float = 0.02
    """1 - cosine up to which two clips of a cluster are neighbours, which splits do not divide."""
    duplicate_distance: float = 0.0
    """1 - cosine up to which of two clips of a cluster the worse is dropped, as it shows the same; 0 drops
    none. docs/verdicts.md has what some values take."""
    seed: int = 0
    """Seed of the first centres; another one gives other clusters, beside those that are there."""

    def __post_init__(self) -> None:
        if self.num < 0:
            raise ValueError(f"clusters num must be at least 0, got {self.num}")
        if not 0.0 <= self.neighbour_distance <= 1.0:
            raise ValueError(
                f"neighbour_distance must be within 0..1, got {self.neighbour_distance}"
            )
        if not 0.0 <= self.duplicate_distance <= 1.0:
            raise ValueError(
                f"duplicate_distance must be within 0..1, got {self.duplicate_distance}"
            )
        if self.duplicate_distance and not self.num:
            raise ValueError(
                "duplicate_distance needs clusters: give clusters num (--clusters.num)"
            )


@dataclass(frozen=True, slots=True)
class Clustering:
    """Where clips were put.

    Args:
        positions: of clips in the corpus, rising.
        cluster: number of each one's cluster, int32; -1 without an embedding.
        distance: 1 - cosine of embedding and centre, float32; NaN likewise.
        pairs: ``[P, 2]`` positions of neighbours.
        copies: ``[P, 2]`` positions of near copies, by a second look.
        vectors_ND: embeddings of the clips in half precision, in a file that goes with this object.
    """

    positions: NDArray[np.int64]
    cluster: NDArray[np.int32]
    distance: NDArray[np.float32]
    pairs: NDArray[np.int64]
    copies: NDArray[np.int64]
    vectors_ND: NDArray[np.float16]

    @classmethod
    def none(cls) -> Clustering:
        """No clip is in a cluster."""
        none, pairs = np.empty(0, np.int64), np.zeros((0, 2), np.int64)
        vectors_ND = np.zeros((0, 1), np.float16)
        return cls(none, none.astype(np.int32), none.astype(np.float32), pairs, pairs, vectors_ND)

    def of(self, positions: NDArray[np.int64]) -> NDArray[np.int32]:
        """Number of each clip's cluster, -1 where it has none."""
        places = self.places(positions)
        return np.where(places >= 0, np.append(self.cluster, -1)[places], -1).astype(np.int32)

    def places(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where each clip stands here; -1 where it does not."""
        places = np.searchsorted(self.positions, positions)
        is_here = np.append(self.positions, -1)[places] == positions
        return np.where(is_here, places, -1)


def unit_length(vectors_ND: Vectors) -> Vectors:
    """Rows scaled to length 1."""
    lengths = np.sqrt(np.einsum("nd,nd->n", vectors_ND, vectors_ND))
    return np.asarray(vectors_ND / np.maximum(lengths, 1e-12)[:, None], np.float32)


def nearest(
    vectors_ND: Vectors, centres_KD: Vectors, *, but: NDArray[np.int32] | None = None
) -> tuple[NDArray[np.int32], Vectors]:
    """Number of the centre with the largest cosine, int32 ``[N]``, and that cosine, float32 ``[N]``.

    Args:
        vectors_ND: unit length.
        centres_KD: unit length.
        but: ``[N]`` centres that are not asked for; if there is no other, it is that one.
    """
    number = np.empty(len(vectors_ND), np.int32)
    cosine = np.empty(len(vectors_ND), np.float32)
    for begin in range(0, len(vectors_ND), ROWS_AT_ONCE):
        here = slice(begin, begin + ROWS_AT_ONCE)
        cosines_NK = vectors_ND[here] @ centres_KD.T
        if but is not None:
            np.put_along_axis(cosines_NK, but[here, None].astype(np.int64), -2.0, axis=1)
        number[here] = cosines_NK.argmax(axis=1)
        cosine[here] = np.take_along_axis(cosines_NK, number[here, None], axis=1)[:, 0]
    return number, cosine


def find_centres(sample_ND: Vectors, num: int, seed: int) -> Vectors:
    """Spherical k-means (Dhillon and Modha 2001) on a sample: ``[K, D]`` centres of unit length.

    A centre that no clip is nearest to takes the clip that is farthest from its own.

    Args:
        sample_ND: embeddings of unit length.
        num: K, at most; as many as there are clips where they are fewer.
        seed: of the clips that are the first centres.
    """
    from scipy.sparse import csr_array

    count = len(sample_ND)
    num = min(num, count)
    rng = np.random.Generator(np.random.Philox(seed))
    centres_KD = sample_ND[np.sort(rng.choice(count, num, replace=False))].copy()
    before = np.full(count, -1, np.int32)
    for _ in range(ITERATIONS):
        number, cosine = nearest(sample_ND, centres_KD)
        sizes = np.bincount(number, minlength=num)
        empty = np.flatnonzero(sizes == 0)
        number[np.argsort(cosine, kind="stable")[: len(empty)]] = empty
        if np.array_equal(number, before):
            break
        before = number
        ones = np.ones(count, np.float32)
        members = csr_array((ones, (number, np.arange(count))), (num, count))
        centres_KD = unit_length(np.asarray(members @ sample_ND, np.float32))
    return centres_KD


def neighbours(
    vectors_ND: Vectors, cosine: NDArray[np.float32], max_distance: float
) -> Iterator[NDArray[np.int64]]:
    """Pairs ``[P, 2]`` of rows of one cluster that are close, some at a time, sorted by their first.

    Clips whose distances from the centre differ by more than theirs from each other can be, are not
    compared (triangle inequality).

    Args:
        vectors_ND: unit length.
        cosine: ``[N]`` of each with the centre.
        max_distance: 1 - cosine.
    """
    radius = np.sqrt(np.maximum(0.0, 2.0 - 2.0 * cosine.astype(np.float64)))
    order = np.argsort(radius, kind="stable")
    radius, vectors_ND = radius[order], vectors_ND[order]
    reach = np.sqrt(2.0 * max_distance) + 1e-3  # room for half precision
    for begin in range(0, len(order), COMPARED_AT_ONCE):
        end = min(begin + COMPARED_AT_ONCE, len(order))
        last = int(np.searchsorted(radius, radius[end - 1] + reach, side="right"))
        last = min(last, end + MAX_COMPARED)
        is_near = vectors_ND[begin:end] @ vectors_ND[begin:last].T >= 1.0 - max_distance
        is_near &= np.arange(begin, last)[None, :] > np.arange(begin, end)[:, None]
        rows, columns = np.nonzero(is_near)
        yield np.stack([order[begin + rows], order[begin + columns]], axis=1)


def few_of_each(pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """At most `NEIGHBOURS` pairs of each first clip, whose pairs follow each other."""
    first = pairs[:, 0]
    begins = np.flatnonzero(np.concatenate([[True], np.diff(first) != 0])[: len(first)])
    place = np.arange(len(first)) - np.repeat(begins, np.diff(np.append(begins, len(first))))
    return pairs[place < NEIGHBOURS]


def cluster_clips(
    batches: Callable[[], Iterator[tuple[NDArray[np.int64], Vectors]]],
    centres_KD: Vectors,
    config: Clusters,
    temp_folder: Path | None = None,
    second_look: SecondLook | None = None,
) -> Clustering:
    """Put clips to their nearest centres, and find neighbours.

    Args:
        batches: positions and embeddings, ``[N]`` and ``[N, D]``, some at a time, positions rising; a
            row of zeros has none.
        centres_KD: unit length.
        config: what counts as close.
        temp_folder: for a file of 2 bytes a number; of the system's choice if not given.
        second_look: what tells near copies among clips with close embeddings; of each clip the two
            nearest clusters are looked at, as a boundary may divide copies.
    """
    positions, numbers, cosines = [np.empty(0, np.int64)], [np.empty((0, 2), np.int32)], []
    cosines.append(np.empty(0, np.float32))
    place = temp_folder or tempfile.gettempdir()
    with (
        full_disk_named(place),
        tempfile.TemporaryFile(prefix="lavie-clusters-", dir=place) as file,
    ):
        for own, vectors_ND in batches():
            number, cosine = nearest(vectors_ND, centres_KD)
            second = nearest(vectors_ND, centres_KD, but=number)[0] if second_look else number
            is_none = ~vectors_ND.any(axis=1)
            number[is_none], second[is_none], cosine[is_none] = -1, -1, np.nan
            file.write(vectors_ND.astype(np.float16).tobytes())
            positions.append(own)
            numbers.append(np.stack([number, second], axis=1))
            cosines.append(cosine)
        file.flush()
        clip, both = np.concatenate(positions), np.concatenate(numbers)
        cosine = np.concatenate(cosines)
        number = both[:, 0]
        held_ND = np.zeros((0, centres_KD.shape[1]), np.float16)
        if len(clip):
            held_ND = np.memmap(file, np.float16, "r", shape=(len(clip), centres_KD.shape[1]))
        pairs = copies = np.zeros((0, 2), np.int64)
        if config.num and config.neighbour_distance > 0:
            pairs = clip[_neighbours(held_ND, number, cosine, len(centres_KD), config)]
        if second_look is not None:
            copies = clip[_near_copies(held_ND, both, centres_KD, second_look)]
    # Four places: what a sum in another order of another machine's library does not change.
    distance = np.round(1.0 - cosine, 4).astype(np.float32)
    return Clustering(clip, number, distance, pairs, copies, held_ND)


def _neighbours(
    held_ND: NDArray[np.float16],
    number: NDArray[np.int32],
    cosine: NDArray[np.float32],
    num: int,
    config: Clusters,
) -> NDArray[np.int64]:
    """Pairs of rows that are close, a few of each."""
    found = [np.zeros((0, 2), np.int64)]
    for _, rows in members(number[:, None], num):
        vectors_ND = unit_length(held_ND[rows].astype(np.float32))
        for pairs in neighbours(vectors_ND, cosine[rows], config.neighbour_distance):
            found.append(rows[few_of_each(pairs)])
    return np.concatenate(found)


def _near_copies(
    held_ND: NDArray[np.float16],
    both: NDArray[np.int32],
    centres_KD: Vectors,
    second_look: SecondLook,
) -> NDArray[np.int64]:
    """Pairs of rows that the second look takes for copies."""
    found, bits = [np.zeros((0, 2), np.int64)], [np.empty(0, np.float32)]
    for centre, rows in members(both, len(centres_KD)):
        vectors_ND = unit_length(held_ND[rows].astype(np.float32))
        cosine = vectors_ND @ centres_KD[centre]
        for near in neighbours(vectors_ND, cosine, second_look.config.max_second_look_distance):
            pairs = np.sort(rows[near], axis=1)
            own = second_look.confirmed(pairs)
            is_copy = ~np.isnan(own)
            found.append(pairs[is_copy])
            bits.append(own[is_copy])
    pairs, first = np.unique(np.concatenate(found), axis=0, return_index=True)
    return second_look.near_copies(pairs, np.concatenate(bits)[first])


def members(numbers: NDArray[np.int32], num: int) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Cluster, and the rows that name it in some column, of each that has two or more.

    Args:
        numbers: ``[N, C]`` clusters of each row; those below 0 count for none.
        num: clusters.
    """
    width = numbers.shape[1]
    flat = numbers.reshape(-1)
    order = np.argsort(flat, kind="stable")
    bounds = np.searchsorted(flat[order], np.arange(num + 1))
    for centre, (begin, end) in enumerate(
        zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)
    ):
        rows = np.unique(order[begin:end] // width)
        if len(rows) > 1:
            yield centre, rows


def centres_table(centres_KD: Vectors) -> pa.Table:
    """The file of the centres."""
    width = centres_KD.shape[1]
    values = pa.FixedSizeListArray.from_arrays(pa.array(centres_KD.reshape(-1)), width)
    return pa.table(
        {"cluster": pa.array(np.arange(len(centres_KD), dtype=np.int32)), "centre": values}
    )


def centres_of(table: pa.Table) -> Vectors:
    """``[K, D]`` of such a file."""
    values = table["centre"].combine_chunks()
    return np.asarray(values.flatten().to_numpy().reshape(len(values), -1), np.float32)
