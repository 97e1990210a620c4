"""Clips that show what a better clip shows: close embeddings within one cluster (SemDeDup, 2303.09540).

The best come first, and each is held against those that were kept before it, so that whatever is dropped
is close to a clip that stays. Grouping all that hangs together would drop what no kept clip is like: of a
chain of small steps the ends are far from each other. As with neighbours, a pair that a boundary of
clusters divides is not found.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from curation.select.clusters import (
    COMPARED_AT_ONCE,
    MAX_COMPARED,
    Clustering,
    Vectors,
    members,
    unit_length,
)


def semantic_duplicates(
    clusters: Clustering, ranked: NDArray[np.int64], max_distance: float
) -> NDArray[np.int64]:
    """Clips to drop and the kept one that each is closest to, ``[P, 2]`` positions; first ones rise.

    Args:
        clusters: of the clips, with their vectors.
        ranked: positions of the clips that are asked, the best first.
        max_distance: 1 - cosine up to which two clips show the same.
    """
    rows = clusters.places(ranked)
    rows = rows[rows >= 0]
    rank = np.full(len(clusters.positions), -1, np.int64)
    rank[rows] = np.arange(len(rows))
    number = np.where(rank >= 0, clusters.cluster, -1)
    found = [np.zeros((0, 2), np.int64)]
    for _, own in members(number[:, None], int(number.max(initial=-1)) + 1):
        own = own[np.argsort(rank[own])]
        found.append(own[_closest_kept(clusters.vectors_ND, own, max_distance)])
    pairs = clusters.positions[np.concatenate(found)]
    return pairs[np.argsort(pairs[:, 0])]


def _closest_kept(
    held_ND: NDArray[np.float16], rows: NDArray[np.int64], max_distance: float
) -> NDArray[np.int64]:
    """Places of the dropped and of the kept one that is closest to each, ``[P, 2]``, in ``rows``.

    Args:
        held_ND: vectors of all clips.
        rows: those of one cluster, the best first; each is held against the best `MAX_COMPARED` kept.
        max_distance: 1 - cosine.
    """
    least = 1.0 - max_distance
    kept_KD = np.empty((0, held_ND.shape[1]), np.float32)
    kept, pairs = np.empty(0, np.int64), [np.zeros((0, 2), np.int64)]
    for begin in range(0, len(rows), COMPARED_AT_ONCE):
        block_ND = unit_length(held_ND[rows[begin : begin + COMPARED_AT_ONCE]].astype(np.float32))
        places = np.arange(begin, begin + len(block_ND))
        if len(kept):
            cosines_NK = block_ND @ kept_KD.T
            closest = cosines_NK.argmax(axis=1)
            is_dropped = cosines_NK[np.arange(len(places)), closest] >= least
            pairs.append(np.stack([places, kept[closest]], axis=1)[is_dropped])
            block_ND, places = block_ND[~is_dropped], places[~is_dropped]
        stays, own = _within(block_ND, least)
        pairs.append(places[own])
        if len(kept) < MAX_COMPARED:
            kept = np.concatenate([kept, places[stays]])
            kept_KD = np.concatenate([kept_KD, block_ND[stays]])
    return np.concatenate(pairs)


def _within(block_ND: Vectors, least: float) -> tuple[list[int], NDArray[np.int64]]:
    """Rows of a block that stay, and pairs of a dropped one and the closest that stays."""
    cosines_NN = block_ND @ block_ND.T
    stays: list[int] = []
    pairs = []
    for row in range(len(block_ND)):
        cosines = cosines_NN[row, stays]
        if len(stays) and cosines.max() >= least:
            pairs.append((row, stays[int(cosines.argmax())]))
        else:
            stays.append(row)
    return stays, np.array(pairs, np.int64).reshape(-1, 2)
