"""Train, val and test: films that show the same are never divided, and what was exported stays.

A split is a property of sources. Sources with a pair of clips that look the same form one group, and a
group goes as a whole, by the digest of its first source: the same film goes the same way in every
corpus and selection. Clips that lie in shards keep the split that they were exported with, and draw
their group after them; where a new source would tie films of different splits together, its own clips
go nowhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

SplitName = Literal["train", "val", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "val", "test")
NO_SPLIT = -1
"""Number of no split; others are places in `SPLITS`."""
TRAIN, VAL, TEST = range(3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Splits:
    """Which clips are trained on, looked at while training, and kept for the end."""

    val_share: float = 0.01
    """Share of the sources, 0 to 1, whose clips are for held-out losses while training; at least the
    smallest group of sources where there are two, unless 0."""
    test_share: float = 0.01
    """Share of the sources, 0 to 1, that no training looks at."""
    seed: int = 0
    """Another number divides otherwise."""

    @property
    def divide(self) -> bool:
        """Whether not all is trained on."""
        return self.val_share + self.test_share > 0

    def __post_init__(self) -> None:
        for name in ("val_share", "test_share"):
            value = getattr(self, name)
            if not 0.0 <= value <= 1.0:
                raise ValueError(f"{name} must be within 0..1, got {value}")
        if self.val_share + self.test_share > 1.0:
            raise ValueError(
                f"val_share and test_share leave less than nothing to train on: {self.val_share} + "
                f"{self.test_share} is over 1"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceGroups:
    """Which sources belong together.

    Args:
        of_source: ``[S]`` number of each source's group, from 0, by the first source of each.
        first: ``[G]`` the first source of each group.
        num_kept: ``[G]`` kept clips of each.
    """

    of_source: NDArray[np.int64]
    first: NDArray[np.int64]
    num_kept: NDArray[np.int64]


def grouped(
    pairs: NDArray[np.int64], num_sources: int, kept_of_source: NDArray[np.int64]
) -> SourceGroups:
    """Groups of sources: the connected components of the pairs.

    Args:
        pairs: ``[P, 2]`` numbers of sources that must not be divided.
        num_sources: S.
        kept_of_source: ``[S]`` kept clips of each source.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    ones = np.ones(len(pairs), dtype=bool)
    graph = coo_array((ones, (pairs[:, 0], pairs[:, 1])), (num_sources, num_sources))
    _, labels = connected_components(graph, directed=False)
    _, first, of_source = np.unique(labels, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty(len(first), np.int64)
    rank[order] = np.arange(len(first))
    of_source = rank[of_source]
    num_kept = np.bincount(of_source, kept_of_source, len(first)).astype(np.int64)
    return SourceGroups(of_source=of_source, first=first[order], num_kept=num_kept)


def chances(digests: pa.Array, seed: int) -> NDArray[np.float64]:
    """A number in [0, 1) for each source, a function of its digest and the seed; 0 without a digest.

    Args:
        digests: sha256 of the sources as hexadecimal texts.
        seed: of the splits.
    """
    texts = digests.dictionary_encode()
    numbers = [_number(text, seed) for text in texts.dictionary.to_pylist()]
    table = np.array([*numbers, 0], np.uint64)
    return table[texts.indices.fill_null(len(numbers)).to_numpy()] * 2.0**-64


def _number(digest: str, seed: int) -> int:
    import hashlib

    return int.from_bytes(hashlib.sha256(f"split/{seed}/{digest}".encode()).digest()[:8])


def source_splits(
    groups: SourceGroups, digests: pa.Array, earlier: Mapping[str, int], config: Splits
) -> NDArray[np.int8]:
    """The split of each source, int8 ``[S]``; `NO_SPLIT` where it would tie different ones together.

    Args:
        groups: of the sources.
        digests: ``[S]`` sha256 of each, null where it could not be read.
        earlier: sha256 -> split that its clips were exported with.
        config: the shares.
    """
    chance = chances(digests.take(pa.array(groups.first)), config.seed)
    drawn = np.full(len(chance), TRAIN, np.int8)
    drawn[chance < config.val_share + config.test_share] = TEST
    drawn[chance < config.val_share] = VAL
    then = _earlier_of(digests, earlier)
    known = np.flatnonzero(then != NO_SPLIT)
    has = np.zeros((len(chance), len(SPLITS)), dtype=bool)
    has[groups.of_source[known], then[known]] = True
    num_known = has.sum(axis=1)
    drawn[num_known == 1] = has.argmax(axis=1)[num_known == 1]
    _give_val_one(drawn, num_known == 0, groups, config)
    drawn[num_known > 1] = NO_SPLIT
    of_source = drawn[groups.of_source]
    of_source[known] = then[known]
    return of_source


def _earlier_of(digests: pa.Array, earlier: Mapping[str, int]) -> NDArray[np.int8]:
    encoded = digests.dictionary_encode()
    known = [earlier.get(text, NO_SPLIT) for text in encoded.dictionary.to_pylist()]
    table = np.array([*known, NO_SPLIT], np.int8)
    return np.asarray(table[encoded.indices.fill_null(len(known)).to_numpy()])


def _give_val_one(
    drawn: NDArray[np.int8], is_free: NDArray[np.bool_], groups: SourceGroups, config: Splits
) -> None:
    """Where val holds no kept clip, give it the smallest group, as long as another is trained on."""
    has_clips = groups.num_kept > 0
    if config.val_share == 0 or (has_clips & (drawn == VAL)).any():
        return
    trained = np.flatnonzero(has_clips & (drawn == TRAIN))
    free = trained[is_free[trained]]
    if len(trained) > 1 and len(free):
        drawn[free[np.argmin(groups.num_kept[free])]] = VAL
