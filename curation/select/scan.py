"""A corpus as one stream of rows: part after part, only the columns asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from threading import Lock
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.corpus.gap import Gap
from curation.corpus.manifest import CorpusInfo
from curation.corpus.parts import in_order, num_clips, read_columns, read_sources
from curation.corpus.store import Store

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Extent:
    """How many rows each part has, and where each begins when all are counted through.

    Args:
        num_sources: sources of each part; of one that is left out, 0.
        num_clips: clips of each part; of one that is left out, 0.
    """

    num_sources: tuple[int, ...]
    num_clips: tuple[int, ...]

    @property
    def first_source(self) -> list[int]:
        """Number of each part's first source; one more entry, the total, at the end."""
        return [0, *accumulate(self.num_sources)]

    @property
    def first_clip(self) -> list[int]:
        """Position of each part's first clip; one more entry, the total, at the end."""
        return [0, *accumulate(self.num_clips)]


@dataclass(frozen=True, slots=True)
class Corpus:
    """A corpus to read from, part by part, with a few threads.

    Args:
        store: where it lies.
        info: its layers and number of parts.
        gap: parts that are left out.
        threads: how many parts are read at the same time.
    """

    store: Store
    info: CorpusInfo
    gap: Gap
    threads: int

    def in_order(
        self, work: Callable[[int], T], parts: Iterable[int] | None = None
    ) -> Iterator[tuple[int, T]]:
        """Do something for some or all complete parts; results come in the parts' order."""
        parts = self.gap.complete if parts is None else parts
        return in_order(work, parts, threads=self.threads)

    def read_sources(self, part: int) -> pa.Table:
        """Digest and reject reason of the sources of one part."""
        columns = ["source_sha256", "source_reject"]
        return read_sources(self.store, self.info.layers, part, columns)

    def num_clips(self, part: int) -> int:
        """Clips of one part."""
        return num_clips(self.store, self.info.layers, part)

    def read_columns(self, part: int, columns: Sequence[str]) -> pa.Table:
        """Some columns of the clips of one part, in the scenes' order."""
        return read_columns(self.store, self.info.layers, part, columns)


class Codes:
    """A number for each different text, dealt as they come; used from several threads."""

    def __init__(self) -> None:
        self._codes: dict[str | None, int] = {}
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._codes)

    def encode(self, texts: pa.ChunkedArray) -> np.ndarray:
        """The number of each text of a dictionary column, int32; null has one too."""
        array = texts.combine_chunks()
        words: list[str | None] = [*array.dictionary.to_pylist(), None]
        with self._lock:
            codes = [self._codes.setdefault(word, len(self._codes)) for word in words]
        where = array.indices.fill_null(len(words) - 1).to_numpy()
        return np.array(codes, dtype=np.int32)[where]


def lists_as_rows(lists: pa.ChunkedArray, *, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Lists of numbers as a matrix, short ones filled up with zeros.

    Args:
        lists: list column; a null counts as an empty list.
        width: columns of the matrix; longer lists lose their end.

    Returns:
        ``[N, width]`` values and ``[N]`` lengths (at most ``width``).
    """
    array = lists.combine_chunks()
    full_lengths = pc.list_value_length(array).fill_null(0).to_numpy().astype(np.int64)
    values = array.flatten().to_numpy()
    starts = np.cumsum(full_lengths) - full_lengths
    lengths = np.minimum(full_lengths, width)
    rows = np.zeros((len(array), width), dtype=values.dtype)
    columns = np.arange(width)
    inside = columns[None, :] < lengths[:, None]
    rows[inside] = values[(starts[:, None] + columns[None, :])[inside]]
    return rows, lengths
