"""A second look at clips of different films: near copies that are too far for their hashes alone.

A copy that was cropped, bears a logo or a band of subtitles, or begins a second later keeps what it shows:
its embedding is close, and its hashes are far nearer than chance, at some shift of its keyframes. Neither
would do alone: the hashes of two spans of one shot, and the embeddings of two shots of one place, are as
close. So it is asked of clips of different sources only, and of these each must be the other's nearest.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from curation.select.dedup import Dedup, Hashes, Indices, distances, mirrored

MIN_FRAMES = 4
"""Keyframes that two clips must have in common, at any shift."""
PAIRS_AT_ONCE = 1 << 16


def shifted_distances(a: Hashes, b: Hashes) -> NDArray[np.float32]:
    """Mean Hamming distance of two rows of hashes at the shift where it is least.

    Args:
        a: ``[N, T]`` hashes, T >= `MIN_FRAMES`.
        b: ``[N, T]`` hashes to compare with, row by row.

    Returns:
        ``[N]`` bits, 0..64, over the frames that overlap, at least `MIN_FRAMES`.
    """
    length = a.shape[1]
    best = distances(a, b)
    for lag in range(1, length - MIN_FRAMES + 1):
        best = np.minimum(best, distances(a[:, lag:], b[:, :-lag]))
        best = np.minimum(best, distances(a[:, :-lag], b[:, lag:]))
    return best


class SecondLook:
    """Which of the pairs with close embeddings are near copies.

    Args:
        hashes: ``[N, HASHES_PER_CLIP]`` of the clips.
        lengths: ``[N]`` how many each has.
        sources: ``[N]`` number of each clip's source.
        config: how alike two clips must be.
    """

    def __init__(self, hashes: Hashes, lengths: Indices, sources: Indices, config: Dedup) -> None:
        self._hashes, self._lengths, self._sources = hashes, lengths, sources
        self.config = config

    def confirmed(self, pairs: Indices) -> NDArray[np.float32]:
        """Bits between the clips of each pair, ``[P]``; NaN where it is no near copy."""
        bits = np.full(len(pairs), np.nan, np.float32)
        lengths = self._lengths[pairs]
        is_asked = (lengths[:, 0] == lengths[:, 1]) & (lengths[:, 0] >= MIN_FRAMES)
        is_asked &= self._sources[pairs[:, 0]] != self._sources[pairs[:, 1]]
        for length in np.unique(lengths[is_asked, 0]).tolist():
            places = np.flatnonzero(is_asked & (lengths[:, 0] == length))
            for begin in range(0, len(places), PAIRS_AT_ONCE):
                here = places[begin : begin + PAIRS_AT_ONCE]
                a, b = (self._hashes[pairs[here, side], :length] for side in (0, 1))
                found = shifted_distances(a, b)
                if self.config.mirrored:
                    found = np.minimum(found, shifted_distances(a, mirrored(b)))
                is_near = found <= self.config.max_second_look_bits
                bits[here[is_near]] = found[is_near]
        return bits

    def near_copies(self, pairs: Indices, bits: NDArray[np.float32]) -> Indices:
        """Of confirmed pairs ``[P, 2]`` those in which each is the nearest to the other of its source."""
        firsts = self._nearest(pairs[:, 0], self._sources[pairs[:, 1]], bits)
        seconds = self._nearest(pairs[:, 1], self._sources[pairs[:, 0]], bits)
        return pairs[np.intersect1d(firsts, seconds)]

    @staticmethod
    def _nearest(clips: Indices, sources: Indices, bits: NDArray[np.float32]) -> Indices:
        """For each clip and other source, the place of its pair with fewest bits."""
        order = np.lexsort((np.arange(len(clips)), bits, sources, clips))
        changes = (np.diff(clips[order]) != 0) | (np.diff(sources[order]) != 0)
        return order[np.concatenate([[True], changes])] if len(order) else order
