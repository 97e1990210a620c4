"""A corpus as one stream of rows: layers side by side, part after part, only the columns asked for.

Three things make this fast where there are thousands of parts: `ParquetFile` instead of the data
set reader (0.6 instead of 2.1 ms a file), layers checked against each other by the clip ids' range
in the files' footers (reading six layers' ids would be most of the bytes), and texts that stay
dictionaries.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from threading import Lock
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curation.corpus import layout
from curation.corpus.manifest import CorpusInfo
from curation.corpus.parts import check_columns
from curation.corpus.schema import LAYER_OF, SOURCE_COLUMNS
from curation.corpus.store import Store
from curation.errors import CorpusError, TornPart
from curation.select.sql import column_type

T = TypeVar("T")

PARTS_AHEAD = 2
"""Parts that each reading thread may be ahead of whoever takes them: enough to never wait, little
enough to hold (a part of 10,000 clips takes about 1 MB here)."""


@contextmanager
def open_parquet(
    store: Store, name: str, *, dictionaries: Sequence[str] = ()
) -> Iterator[pq.ParquetFile]:
    """One Parquet file, of which only what is asked for will be read.

    Args:
        store: the corpus.
        name: path in it.
        dictionaries: text columns to give as Arrow dictionaries.

    Raises:
        CorpusError: if the file is not there.
        TornPart: if its bytes are damaged, also when that shows inside the block.
    """
    try:
        with (
            _source(store, name) as source,
            pq.ParquetFile(
                source,
                read_dictionary=list(dictionaries),
                page_checksum_verification=True,
            ) as file,
        ):
            yield file
    except FileNotFoundError as error:
        raise CorpusError(
            f"{store.root}/{name} is missing: `lavie curate` did not finish; run it again"
        ) from error
    except (pa.ArrowInvalid, pa.ArrowIOError) as error:
        raise TornPart(f"{store.root}/{name}: not a whole Parquet file ({error})") from error


def _source(store: Store, name: str) -> pa.NativeFile:
    if store.is_local:
        return store.filesystem.open_input_file(store.path(name))
    # Objects come whole: Store.read checks lengths and tries again, which a stream does not.
    return pa.BufferReader(store.read(name))


@dataclass(frozen=True, slots=True)
class Extent:
    """How many rows each part has, and where each begins when all are counted through.

    Args:
        num_sources: sources of each part.
        num_clips: clips of each part.
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


class Corpus:
    """A corpus to read from, part by part, with a few threads.

    Args:
        store: where it lies.
        info: its layers and number of parts.
        threads: how many parts are read at the same time.
    """

    def __init__(self, store: Store, info: CorpusInfo, *, threads: int) -> None:
        self.store, self.info, self.threads = store, info, threads

    def in_order(
        self, work: Callable[[int], T], parts: Iterable[int] | None = None
    ) -> Iterator[tuple[int, T]]:
        """Do something for every part, a few at a time; results come in the parts' order."""
        pending: list[tuple[int, Future[T]]] = []
        with ThreadPoolExecutor(self.threads) as pool:
            try:
                for part in range(self.info.num_parts) if parts is None else parts:
                    pending.append((part, pool.submit(work, part)))
                    if len(pending) >= self.threads * PARTS_AHEAD:
                        done, future = pending.pop(0)
                        yield done, future.result()
                while pending:
                    done, future = pending.pop(0)
                    yield done, future.result()
            finally:
                for _, future in pending:
                    future.cancel()

    def read_sources(self, part: int) -> pa.Table:
        """Digest and reject reason of the sources of one part."""
        with open_parquet(self.store, layout.layer(self.info.layers["probe"], part)) as file:
            return file.read(columns=["source_sha256", "source_reject"], use_threads=False)

    def num_clips(self, part: int) -> int:
        """Clips of one part, from the footer of its scenes."""
        with open_parquet(self.store, layout.layer(self.info.layers["scenes"], part)) as file:
            return file.metadata.num_rows

    def read_clips(self, part: int, columns: Sequence[str]) -> pa.Table:
        """Some columns of the clips of one part, in the scenes' order.

        Raises:
            MissingColumn: if no layer holds one of them.
            TornPart: if a layer's rows are not the scenes layer's.
        """
        check_columns(columns, self.info.layers)
        own = [name for name in columns if name not in SOURCE_COLUMNS]
        given = [name for name in columns if name in SOURCE_COLUMNS]
        scene_columns = [name for name in own if LAYER_OF[name] == "scenes"]
        if given and "source_row" not in scene_columns:
            scene_columns.append("source_row")
        with self._open("scenes", part, scene_columns) as file:
            footer = file.metadata
            table = file.read(columns=scene_columns, use_threads=False)
        found = dict(zip(table.column_names, table.columns, strict=True))
        for layer in dict.fromkeys(LAYER_OF[name] for name in own if LAYER_OF[name] != "scenes"):
            names = [name for name in own if LAYER_OF[name] == layer]
            with self._open(layer, part, names) as file:
                self._check_rows(file.metadata, footer, layer, part)
                table = file.read(columns=names, use_threads=False)
            found |= zip(table.column_names, table.columns, strict=True)
        for layer in dict.fromkeys(LAYER_OF[name] for name in given):
            names = [name for name in given if LAYER_OF[name] == layer]
            with self._open(layer, part, names) as file:
                table = file.read(columns=names, use_threads=False).take(found["source_row"])
            found |= zip(table.column_names, table.columns, strict=True)
        if not columns:
            return pa.table({"": pa.nulls(footer.num_rows)}).select([])
        return pa.table({name: found[name] for name in columns})

    @contextmanager
    def _open(self, layer: str, part: int, columns: Sequence[str]) -> Iterator[pq.ParquetFile]:
        path = (
            layout.sources(part)
            if layer == "sources"
            else layout.layer(self.info.layers[layer], part)
        )
        texts = [name for name in columns if is_dictionary(name)]
        with open_parquet(self.store, path, dictionaries=texts) as file:
            yield file

    def _check_rows(
        self, footer: pq.FileMetaData, scenes: pq.FileMetaData, layer: str, part: int
    ) -> None:
        """Check by count and range of clip ids that a layer's file is for the same clips."""
        if footer.num_rows != scenes.num_rows or _id_range(footer) != _id_range(scenes):
            path = layout.layer(self.info.layers[layer], part)
            raise TornPart(f"{self.store.root}/{path}: its rows are not those of the scenes layer")


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


def is_dictionary(name: str) -> bool:
    """Whether a column is read as an Arrow dictionary: texts other than ids repeat themselves."""
    if name == "clip_id":
        return False
    return pa.types.is_string(column_type(name))


def _id_range(footer: pq.FileMetaData) -> tuple[str, str] | None:
    """Smallest and largest clip id of a file; None where it has no row."""
    column = footer.schema.names.index("clip_id")
    statistics = [
        footer.row_group(group).column(column).statistics for group in range(footer.num_row_groups)
    ]
    ranges = [(s.min, s.max) for s in statistics if s is not None and s.has_min_max]
    if not ranges:
        return None
    return min(low for low, _ in ranges), max(high for _, high in ranges)


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
