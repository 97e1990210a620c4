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

SAMPLES_PER_CLUSTER = 64
"""Clips a centre is found from. faiss asks for 39 at least and takes 256 at most; with 64, of a million
clips in 1,000 clusters, the mean distance is 1 % over that of all."""
ITERATIONS = 12
"""Rounds of k-means; later ones move hardly a clip."""
ROWS_AT_ONCE = 4096
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
    seed: int = 0
    """Seed of the first centres; another one gives other clusters, beside those that are there."""

    def __post_init__(self) -> None:
        if self.num < 0:
            raise ValueError(f"clusters num must be at least 0, got {self.num}")
        if not 0.0 <= self.neighbour_distance <= 1.0:
            raise ValueError(
                f"neighbour_distance must be within 0..1, got {self.neighbour_distance}"
            )


@dataclass(frozen=True, slots=True)
class Clustering:
    """Where clips were put.

    Args:
        positions: of clips in the corpus, rising.
        cluster: number of each one's cluster, int32; -1 without an embedding.
        distance: 1 - cosine of embedding and centre, float32; NaN likewise.
        pairs: ``[P, 2]`` positions of neighbours.
    """

    positions: NDArray[np.int64]
    cluster: NDArray[np.int32]
    distance: NDArray[np.float32]
    pairs: NDArray[np.int64]

    @classmethod
    def none(cls) -> Clustering:
        """No clip is in a cluster."""
        none = np.empty(0, np.int64)
        return cls(none, none.astype(np.int32), none.astype(np.float32), np.zeros((0, 2), np.int64))

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


def nearest(vectors_ND: Vectors, centres_KD: Vectors) -> tuple[NDArray[np.int32], Vectors]:
    """Number of the centre with the largest cosine, int32 ``[N]``, and that cosine, float32 ``[N]``.

    Args:
        vectors_ND: unit length.
        centres_KD: unit length.
    """
    number = np.empty(len(vectors_ND), np.int32)
    cosine = np.empty(len(vectors_ND), np.float32)
    for begin in range(0, len(vectors_ND), ROWS_AT_ONCE):
        here = slice(begin, begin + ROWS_AT_ONCE)
        cosines_NK = vectors_ND[here] @ centres_KD.T
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
) -> NDArray[np.int64]:
    """Pairs ``[P, 2]`` of rows of one cluster that are close.

    Clips whose distances from the centre differ by more than theirs from each other can be, are not
    compared (triangle inequality). Of one clip at most `NEIGHBOURS` pairs are named.

    Args:
        vectors_ND: unit length.
        cosine: ``[N]`` of each with the centre.
        max_distance: 1 - cosine.
    """
    radius = np.sqrt(np.maximum(0.0, 2.0 - 2.0 * cosine.astype(np.float64)))
    order = np.argsort(radius, kind="stable")
    radius, vectors_ND = radius[order], vectors_ND[order]
    reach = np.sqrt(2.0 * max_distance) + 1e-3  # room for half precision
    found = [np.zeros((0, 2), np.int64)]
    for begin in range(0, len(order), ROWS_AT_ONCE):
        end = min(begin + ROWS_AT_ONCE, len(order))
        last = int(np.searchsorted(radius, radius[end - 1] + reach, side="right"))
        last = min(last, end + MAX_COMPARED)
        is_near = vectors_ND[begin:end] @ vectors_ND[begin:last].T >= 1.0 - max_distance
        is_near &= np.arange(begin, last)[None, :] > np.arange(begin, end)[:, None]
        rows, columns = np.nonzero(is_near)
        place = np.arange(len(rows)) - np.searchsorted(rows, rows)  # among the pairs of its row
        few = place < NEIGHBOURS
        found.append(np.stack([order[begin + rows[few]], order[begin + columns[few]]], axis=1))
    return np.concatenate(found)


def cluster_clips(
    batches: Callable[[], Iterator[tuple[NDArray[np.int64], Vectors]]],
    centres_KD: Vectors,
    config: Clusters,
    temp_folder: Path | None = None,
) -> Clustering:
    """Put clips to their nearest centres, and find neighbours.

    Args:
        batches: positions and embeddings, ``[N]`` and ``[N, D]``, some at a time, positions rising; a
            row of zeros has none.
        centres_KD: unit length.
        config: what counts as close.
        temp_folder: for a file of 2 bytes a number; of the system's choice if not given.
    """
    positions, numbers, cosines = [np.empty(0, np.int64)], [np.empty(0, np.int32)], []
    cosines.append(np.empty(0, np.float32))
    with tempfile.TemporaryFile(prefix="lavie-clusters-", dir=temp_folder) as file:
        for own, vectors_ND in batches():
            number, cosine = nearest(vectors_ND, centres_KD)
            is_none = ~vectors_ND.any(axis=1)
            number[is_none], cosine[is_none] = -1, np.nan
            file.write(vectors_ND.astype(np.float16).tobytes())
            positions.append(own)
            numbers.append(number)
            cosines.append(cosine)
        file.flush()
        clip, number = np.concatenate(positions), np.concatenate(numbers)
        cosine = np.concatenate(cosines)
        found = [np.zeros((0, 2), np.int64)]
        if len(clip) and config.neighbour_distance > 0:
            shape = (len(clip), centres_KD.shape[1])
            held_ND = np.memmap(file, np.float16, "r", shape=shape)
            for rows in _members(number, len(centres_KD)):
                vectors_ND = unit_length(held_ND[rows].astype(np.float32))
                pairs = neighbours(vectors_ND, cosine[rows], config.neighbour_distance)
                found.append(clip[rows[pairs]])
    # Four places: what a sum in another order of another machine's library does not change.
    distance = np.round(1.0 - cosine, 4).astype(np.float32)
    return Clustering(clip, number, distance, np.concatenate(found))


def _members(number: NDArray[np.int32], num: int) -> Iterator[NDArray[np.int64]]:
    """Rows of each cluster that has two or more."""
    order = np.argsort(number, kind="stable")
    bounds = np.searchsorted(number[order], np.arange(num + 1))
    for begin, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        if end - begin > 1:
            yield order[begin:end]


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
