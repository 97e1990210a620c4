"""Many clip ids in little memory, to be found again: 17 bytes each instead of a text of 36."""

from __future__ import annotations

import hashlib
import re

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

CLIP_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
"""What a clip id looks like."""


def id_keys(ids: pa.Array | pa.ChunkedArray) -> NDArray[np.uint64]:
    """A 64-bit digest of each id, ``[N]``; some two of 25 million share one once in 60,000 corpora."""
    digests = b"".join(
        hashlib.blake2b(clip_id.encode(), digest_size=8).digest() for clip_id in ids.to_pylist()
    )
    return np.frombuffer(digests, "<u8")


class ClipIds:
    """Ids in an order of their own, each as often as it was given.

    The same bytes listed under two names give clips of the same id; where both are kept, an id stands
    for two clips. So every place is found once.

    Args:
        keys: from `id_keys`.
    """

    def __init__(self, keys: NDArray[np.uint64]) -> None:
        self._places = np.argsort(keys, kind="stable")
        self._keys = keys[self._places]
        self._is_taken = np.zeros(len(keys), bool)

    def __len__(self) -> int:
        return len(self._keys)

    def take(self, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Place of each key, the first that was not given before; -1 where there is none left."""
        at = np.searchsorted(self._keys, keys)
        found = np.full(len(keys), -1, np.int64)
        if not len(self):
            return found
        nearest = np.minimum(at, len(self) - 1)
        is_there = self._keys[nearest] == keys
        plain = is_there & ~self._is_taken[nearest]
        plain[plain] = _is_first(at[plain])
        found[plain] = self._places[at[plain]]
        self._is_taken[at[plain]] = True
        for row in np.flatnonzero(is_there & ~plain).tolist():
            found[row] = self._take_one(int(at[row]), keys[row])
        return found

    def _take_one(self, at: int, key: np.uint64) -> int:
        while at < len(self._keys) and self._keys[at] == key:
            if not self._is_taken[at]:
                self._is_taken[at] = True
                return int(self._places[at])
            at += 1
        return -1


def _is_first(numbers: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether each number did not appear before."""
    first = np.zeros(len(numbers), bool)
    first[np.unique(numbers, return_index=True)[1]] = True
    return first
